"""Make files as `torch.save` makes them, and hostile ones, opcode by opcode: no PyTorch here, and full control."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

import numpy as np

KINDS = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "uint16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "bool": "BoolStorage",
}
EMPTY_HOOKS = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def row(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + row(*arguments) + b"R"


def mapping(entries: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def storage(kind: str, key: str, count: int, *, legacy: bool = False) -> bytes:
    more = (b"N",) if legacy else ()
    return row(text("storage"), name("torch", kind), text(key), text("cpu"), number(count), *more) + b"Q"


def tensor(of: bytes, offset: int, shape: Sequence[int], strides: Sequence[int]) -> bytes:
    sizes = row(*map(number, shape)), row(*map(number, strides))
    return call(name("torch._utils", "_rebuild_tensor_v2"), of, number(offset), *sizes, b"\x89", EMPTY_HOOKS)


def described(arrays: Mapping[str, np.ndarray], *, legacy: bool = False) -> bytes:
    """Return the pickle of a state dict of contiguous arrays, each with a storage of its own, keyed 0, 1, ..."""
    entries = {}
    for key, (parameter, array) in enumerate(arrays.items()):
        strides = [stride // array.itemsize for stride in np.array(array, order="C").strides]
        of = storage(KINDS[array.dtype.name], str(key), array.size, legacy=legacy)
        entries[parameter] = tensor(of, 0, array.shape, strides)
    return pickled(mapping(entries))


def write_zip(
    path: Path,
    data_pkl: bytes,
    storages: Mapping[str, bytes],
    *,
    compression: int = zipfile.ZIP_STORED,
    more: Optional[Mapping[str, bytes]] = None,
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        for entry, data in {"archive/version": b"3\n", **(more or {})}.items():
            archive.writestr(entry, data)
    return path


def write_legacy(path: Path, body: bytes, storages: Mapping[str, np.ndarray], little_endian: bool = True) -> Path:
    stream = io.BytesIO()
    stream.write(pickled(number(0x1950A86A20F9469CFC6C)) + pickled(number(1001)))
    stream.write(pickled(b"}(" + text("little_endian") + (b"\x88" if little_endian else b"\x89") + b"u"))
    stream.write(body + pickled(b"](" + b"".join(map(text, storages)) + b"e"))
    for array in storages.values():
        stream.write(struct.pack("<q", array.size) + array.tobytes())
    path.write_bytes(stream.getvalue())
    return path


def write(path: Path, body: bytes, storages: Mapping[str, np.ndarray], *, legacy: bool) -> Path:
    """Write a file of either format."""
    if legacy:
        return write_legacy(path, body, storages)
    return write_zip(path, body, {key: array.tobytes() for key, array in storages.items()})


def save(path: Path, arrays: Mapping[str, np.ndarray], *, legacy: bool = False) -> Path:
    """Write a whole file of contiguous arrays (uint16 stands for bfloat16)."""
    numbered = {str(key): array for key, array in enumerate(arrays.values())}
    return write(path, described(arrays, legacy=legacy), numbered, legacy=legacy)
