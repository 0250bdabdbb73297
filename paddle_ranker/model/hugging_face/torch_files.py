"""Read PyTorch's parameter files (`pytorch_model.bin`) without PyTorch, and without executing what they hold.

Both formats of `torch.save` are read: the zip archive (since PyTorch 1.6: `data.pkl` and one entry a storage) and the
older stream (four pickles, the list of storages, then their bytes). In both, a pickle describes each tensor as a view
(offset, size, stride) of a storage. The pickle may name the function that makes such a view, the types of storages and
OrderedDict; any other name is refused. Every view is checked against its storage.
"""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Callable, Union

import numpy as np

from paddle_ranker.encoding.columns import Array
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.parameters import float32_of_bfloat16
from paddle_ranker.model.safe_pickle import RefusedError, SafeUnpickler, Sealed, end_of_pickle
from paddle_ranker.storage.untrusted import Unchecked, memory_bytes, read_file

# torch's name of a storage's type: how its bytes are read, and what they become.
_BFLOAT16 = "BFloat16Storage"
_STORAGE_TYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    _BFLOAT16: "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MOST_PICKLED_BYTES = 64 << 20  # the names and shapes of a model's tensors take some hundred kilobytes


def load_torch_arrays(path: Union[str, Path]) -> dict[str, Array]:
    """Return a dict from name to tensor of a file that `torch.save(state_dict)` wrote; bfloat16 becomes float32.

    Raises `CheckpointError` if the file is missing or damaged, holds or asks for anything but named tensors, or
    describes a tensor that is not within its storage.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such parameter file")
    try:
        content = _read_archive(path) if zipfile.is_zipfile(path) else _read_stream(path)
        arrays = _named_arrays(content)
    except RefusedError as error:
        raise CheckpointError(
            f"{path}: refused, {error}; a parameter file holds only tensors by name, "
            "so do not load this file elsewhere either unless you wrote it"
        ) from error
    except Exception as error:  # a damaged pickle or archive raises almost anything
        raise CheckpointError(
            f"{path}: damaged or not a PyTorch parameter file ({type(error).__name__}: {error}); copy it again"
        ) from error
    if not arrays:
        raise CheckpointError(f"{path}: holds no parameters")
    return arrays


def _named_arrays(content: Unchecked) -> dict[str, Array]:
    if not isinstance(content, dict):
        raise RefusedError(f"it holds {_short(content)}, not parameters by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise RefusedError(f"its entry {_short(name)} is {_short(value)}, not a tensor")
    return {name: value.array(name) for name, value in content.items()}


class _Storage(Sealed):
    """An array of numbers; `fill` sets its values later, as the older format's bytes follow the pickle naming them."""

    __slots__ = ("count", "kind", "values")

    def __init__(self, kind: str, count: int):
        self.kind, self.count = kind, count
        self.values = np.empty(0)

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.count * np.dtype(_STORAGE_TYPES[self.kind]).itemsize

    def fill(self, data: Union[bytes, memoryview]) -> None:
        values = np.frombuffer(data, _STORAGE_TYPES[self.kind])
        if self.kind == _BFLOAT16:
            values = float32_of_bfloat16(values)
        self.values = values != 0 if self.kind == "BoolStorage" else values


class _Tensor(Sealed):
    """A view of a storage, as the file describes it; `array` checks the description against the storage."""

    __slots__ = ("_offset", "_shape", "_storage", "_strides")

    def __init__(self, storage: Unchecked, offset: Unchecked, shape: Unchecked, strides: Unchecked):
        self._storage, self._offset, self._shape, self._strides = storage, offset, shape, strides

    def array(self, name: str) -> Array:
        """Return the view as an array; raises `RefusedError` if it is not within its storage."""
        if not isinstance(self._storage, _Storage):
            raise RefusedError(f"its tensor {_short(name)} is made of {_short(self._storage)}, not of a storage")
        offset, shape, strides, values = self._offset, self._shape, self._strides, self._storage.values
        numbers = (offset, *shape, *strides) if isinstance(shape, tuple) and isinstance(strides, tuple) else (None,)
        if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) != len(strides):
            raise RefusedError(f"its tensor {_short(name)} has a size or a stride that is none")
        count = 1
        for length in shape:  # Python's integers: NumPy's would overflow
            count *= length
        if count == 0:
            return np.empty(shape, values.dtype)
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides))
        # A view that repeats values (stride 0) could be of any size over a storage of one number.
        if last >= values.size or count > values.size:
            raise RefusedError(
                f"its tensor {_short(name)} of size {_short(list(shape))}, stride {_short(list(strides))} at offset "
                f"{_short(offset)} is not within its storage of {values.size:,} numbers"
            )
        bytes_apart = [stride * values.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(values[offset:], shape, bytes_apart, writeable=False)


class _RebuildTensor(Sealed):
    """Stand in for `torch._utils._rebuild_tensor_v2`."""

    __slots__ = ()

    def __call__(
        self, storage: Unchecked, offset: Unchecked, shape: Unchecked, strides: Unchecked, *unused: Unchecked
    ) -> _Tensor:
        return _Tensor(storage, offset, shape, strides)  # unused: requires_grad, hooks, metadata


class _StorageType(Sealed):
    """Stand in for a class such as `torch.FloatStorage`; only a reference to a storage may use it."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class _TensorUnpickler(SafeUnpickler):
    """Build the tensors of a state dict; `find` returns the storage for a kind, a key and a count of numbers."""

    def __init__(self, data: bytes, find: Callable[[str, str, int], _Storage]):
        allowed: dict[tuple[str, str], Unchecked] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
            **{("torch", name): _StorageType(name) for name in _STORAGE_TYPES},
        }
        super().__init__(data, allowed)
        self._find = find

    def persistent_load(self, pid: Unchecked) -> Unchecked:
        # ("storage", type, key, device, count); the older format adds a view of another storage, or None.
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and isinstance(pid[0], str) and pid[0] == "storage"):
            raise RefusedError(f"it refers to {_short(pid)} outside the file")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, _StorageType):
            raise RefusedError(f"it has a storage of type {_short(kind)}")
        if not isinstance(key, str) or type(count) is not int or count < 0 or pid[5:] not in ((), (None,)):
            raise RefusedError(f"it has a storage {_short(key)} of {_short(count)} numbers, or a view of one")
        return self._find(kind.name, key, count)


def _short(value: Unchecked) -> str:
    """Describe a value in a line, since a small file can hold a value of endless text."""
    simple = isinstance(value, (str, int)) or (isinstance(value, list) and all(type(item) is int for item in value))
    if not simple or (isinstance(value, int) and value.bit_length() > 100) or (isinstance(value, str) and not value):
        return f"a {type(value).__name__.strip('_')}"
    return quoted(value)


def _one_of(storages: dict[str, _Storage], kind: str, key: str, count: int) -> _Storage:
    """Return the storage `key`, which is made at its first mention."""
    storage = storages.setdefault(key, _Storage(kind, count))
    if (storage.kind, storage.count) != (kind, count):
        raise RefusedError(f"it describes the storage {quoted(key)} in two ways")
    return storage


def _read_archive(path: Path) -> Unchecked:
    """Read the zip format. Nothing is unpacked to the disk, and no entry is larger than the archive."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl"]
        if len(pickles) != 1 or len(entries) != len(archive.infolist()):
            raise RefusedError(f"its archive has {len(pickles)} data.pkl, or two entries of one name")
        prefix = pickles[0][: -len("data.pkl")]
        if f"{prefix}constants.pkl" in entries:
            raise RefusedError("it is a TorchScript program")
        packed = [name for name, entry in entries.items() if entry.compress_type != zipfile.ZIP_STORED]
        if packed or sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
            # torch.save stores entries as they are, so these are bombs: packed, or several entries over the same bytes
            raise RefusedError(f"its archive unpacks to more than its size ({', '.join(packed[:1]) or 'overlaps'})")
        if f"{prefix}byteorder" in entries and archive.read(f"{prefix}byteorder").strip() != b"little":
            raise ValueError("it was written on a big-endian machine")
        if entries[pickles[0]].file_size > _MOST_PICKLED_BYTES:
            raise RefusedError(f"its data.pkl has {entries[pickles[0]].file_size:,} bytes")
        storages: dict[str, _Storage] = {}

        def find(kind: str, key: str, count: int) -> _Storage:
            is_new = key not in storages
            storage = _one_of(storages, kind, key, count)
            entry = entries.get(f"{prefix}data/{key}")
            if entry is None or entry.file_size != storage.size:
                found = "not there" if entry is None else f"{entry.file_size:,} bytes long"
                raise RefusedError(f"its storage {_short(key)} of {storage.size:,} bytes is {found}")
            if is_new:
                storage.fill(archive.read(entry))  # which checks its CRC
            return storage

        data = archive.read(pickles[0])
        end_of_pickle(data)
        return _TensorUnpickler(data, find).load()


def _read_stream(path: Path) -> Unchecked:
    """Read the stream format, older than PyTorch 1.6."""
    data = read_file(path, memory_bytes())
    pickles = _consecutive_pickles(data)
    storages: dict[str, _Storage] = {}

    def header() -> Unchecked:
        return SafeUnpickler(next(pickles)[0], {}).load()

    magic = header()
    if magic != _LEGACY_MAGIC:
        raise ValueError("it does not begin as torch.save's files do")
    if header() != _LEGACY_PROTOCOL:
        raise ValueError("its protocol is unknown")
    system = header()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it was written on a big-endian machine")
    body, _ = next(pickles)
    content = _TensorUnpickler(body, lambda kind, key, count: _one_of(storages, kind, key, count)).load()
    listed, start = next(pickles)
    keys = SafeUnpickler(listed, {}).load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise RefusedError("the storages that it lists are not those of its tensors")
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(data[start : start + 8], "little")
        start += 8
        if count != storage.count or start + storage.size > len(data):
            raise ValueError(f"the storage {_short(key)} of {storage.size:,} bytes is not whole")
        storage.fill(memoryview(data)[start : start + storage.size])
        start += storage.size
    return content


def _consecutive_pickles(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each pickle of a stream, and the offset where it ends."""
    start = 0
    while True:
        end = end_of_pickle(data, start)
        if end - start > _MOST_PICKLED_BYTES:
            raise RefusedError(f"it begins with a pickle of {end - start:,} bytes")
        yield data[start:end], end
        start = end
