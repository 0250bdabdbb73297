"""Read the weights of a transformers folder in any of its formats, and write them as safetensors.

PyTorch's files (`pytorch_model.bin`) are read without PyTorch, and without executing their contents. `torch.save` has
two formats: a zip archive (since PyTorch 1.6: `data.pkl` and one entry per storage), and an older stream (four pickles,
the list of storages, then the storages' bytes). In both formats, a pickle describes each tensor as a view (offset,
size, stride) of a storage. Reading refuses all names in the pickle but those of the function that makes a view, of the
types of storages, and of OrderedDict, and checks every view against its storage.
"""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Callable, Optional, Union

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.model.hugging_face.adapters import ADAPTER_FILE, PeftAdapter
from paddle_ranker.model.hugging_face.architectures import BUFFERS
from paddle_ranker.model.parameters import (
    PARAMETERS_FILE,
    RefusedPickleError,
    SafeUnpickler,
    Sealed,
    end_of_pickle,
    float32_of_bfloat16,
    load_arrays,
)
from paddle_ranker.notes import note_once
from paddle_ranker.storage.untrusted import (
    Unchecked,
    UncheckedObject,
    map_file,
    memory_bytes,
    read_file,
    read_json,
    release_pages,
)

SAFETENSORS_FILE = "model.safetensors"
TORCH_FILE = "pytorch_model.bin"
MERGED_FOLDER = ".adapter"  # inside a folder of `adapter_folders.with_base`: the adapter
_INDEX = ".index.json"
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # DDP's, torch.compile's, ...
_CHANGES = re.compile(
    r"(^|\.)(base_layer|lora_\w+|ia3_\w+|adapters?|adapter_\w+|hada_\w+|lokr_\w+|oft_\w+|prompt_encoder"
    r"|modules_to_save|original_module|token_adapter)(\.|$)"
)
_CODES = re.compile(
    r"\.(SCB|qweight|qzeros|scales|g_idx|absmax|quant_map|nested_absmax|nested_quant_map|weight_format|weight_packed"
    r"|(weight|input)_(scale|zero_point|scale_inv)|quant_state\..*)$"
)
_COUNTER = ".num_batches_tracked"  # of a batch norm's training, a whole number
_UNMERGED = (
    "is of a model that was saved with its adapter unmerged: save the adapter alone (save_pretrained of peft's "
    "PeftModel), or merge it first (merge_and_unload)"
)
# The first file that exists is read.
WEIGHT_FILES = (SAFETENSORS_FILE, SAFETENSORS_FILE + _INDEX, TORCH_FILE, TORCH_FILE + _INDEX)

_PADDLES_LAYER = re.compile(r"encoder\.layers\.\d+\.linear1\.weight")  # transformers has no such name
_MOST_HEADER_BYTES = 100_000_000  # as in the library safetensors

# Number types of safetensors -> NumPy's; bfloat16 is the upper half of a float32.
_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "u1",
}


def parameters_file(folder: Path) -> Optional[Path]:
    """Return the file with a Paddle model's parameters in a folder: `.pdparams`, or PaddleNLP's safetensors; or None.

    PaddleNLP and transformers name their safetensors alike. The names of the parameters in it tell them apart.
    """
    if (folder / PARAMETERS_FILE).is_file():
        return folder / PARAMETERS_FILE
    path = next(
        (folder / name for name in (SAFETENSORS_FILE, SAFETENSORS_FILE + _INDEX) if (folder / name).is_file()), None
    )
    return path if path is not None and any(map(_PADDLES_LAYER.search, _names(path))) else None


def load_parameters(path: Path) -> dict[str, Array]:
    """Load the arrays of a file that `parameters_file` returned; raises as `load_arrays` and `read_weights` do."""
    return (
        load_arrays(path)
        if path.suffix == ".pdparams" or SAFETENSORS_FILE not in path.name
        else read_weights(path.parent)[1]
    )


def _names(path: Path) -> Iterable[str]:
    """Return the names of the parameters in a safetensors file or an index; () for a damaged one."""
    try:
        if path.name.endswith(_INDEX):
            return _read_index(path)
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            names = json.loads(stream.read(size)) if size <= min(_MOST_HEADER_BYTES, path.stat().st_size) else ()
        return names if isinstance(names, dict) else ()
    except (CheckpointError, OSError, ValueError):  # the code that reads the whole file reports damage
        return ()


def read_weights(folder: Path) -> tuple[str, dict[str, Array]]:
    """Read the weights in transformers' names and layout, an adapter merged; also return the name of the file.

    Raises `CheckpointError` if there is no readable file, a file is damaged or hostile, or an adapter lies beside it
    that `adapter_folders.with_base` has not opened.
    """
    if (folder / ADAPTER_FILE).is_file():
        raise CheckpointError(f"{folder / ADAPTER_FILE}: is an adapter, which changes weights; give its folder alone")
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file():
            arrays = _unwrapped(_read_shards(path) if name.endswith(_INDEX) else read_arrays(path), path)
            _require_plain(arrays, path)
            if (folder / MERGED_FOLDER / ADAPTER_FILE).is_file():
                own, base = (Path(os.readlink(link)) for link in (folder / MERGED_FOLDER / ADAPTER_FILE, path))
                adapter = PeftAdapter.read(own.parent)
                arrays = adapter.merge(read_arrays(adapter.file), arrays, base)
            return name, arrays
    others = sorted(path.name for path in folder.glob("*") if path.suffix in (".h5", ".msgpack", ".onnx", ".gguf"))
    unreadable = f"; {', '.join(others)} cannot be read here" if others else ""
    raise CheckpointError(f"{folder}: has no {SAFETENSORS_FILE} and no {TORCH_FILE}{unreadable}")


def _unwrapped(arrays: dict[str, Array], path: Path) -> dict[str, Array]:
    """Remove prefixes of training wrappers from the names."""
    names = {".".join(part for part in name.split(".") if part not in _WRAPPERS): name for name in arrays}
    if len(names) < len(arrays):
        raise CheckpointError(f"{path}: holds a model twice, once wrapped (module., _orig_mod.): save one")
    if all(ours == theirs for ours, theirs in names.items()):
        return arrays
    note_once(f"note: {path}: saved from a wrapped model; {' and '.join(_WRAPPERS[:2])} are left out of the names")
    return {ours: arrays[theirs] for ours, theirs in names.items()}


def _require_plain(arrays: dict[str, Array], path: Path) -> None:
    """Raise `CheckpointError` if the arrays are quantised weights, or those of an adapter."""
    for name, array in arrays.items():
        if _CHANGES.search(name):
            raise CheckpointError(f"{path}: {name} {_UNMERGED}")
        if _CODES.search(name) or (array.dtype.kind != "f" and not name.endswith((*BUFFERS, _COUNTER))):
            raise CheckpointError(
                f"{path}: {name} ({array.dtype}) is of a quantised model: these are codes, not weights; save the model "
                "as float32, float16 or bfloat16, or take its original"
            )


def write_weights(folder: Path, arrays: dict[str, Array], name: str = SAFETENSORS_FILE) -> None:
    """Write a file of safetensors; the arrays must be contiguous."""
    from safetensors.numpy import save

    # transformers refuses a file without this metadata.
    (folder / name).write_bytes(save(arrays, metadata={"format": "pt"}))


def read_arrays(path: Path) -> dict[str, Array]:
    """Read the arrays of a file as they are, by name; raises `CheckpointError` if it is damaged or hostile."""
    return load_torch_arrays(path) if path.suffix == ".bin" else _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, Array]:
    """Read a file's arrays; all but bfloat16 arrays are views of its memory-mapped bytes."""
    import safetensors

    try:
        data = map_file(path, memory_bytes())
        with safetensors.safe_open(
            str(path), "np"
        ):  # only to check the header: it copies arrays, and cannot read bfloat16
            begin = 8 + int.from_bytes(data[:8], "little")
            described = json.loads(data[8:begin])
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({error}); copy it again") from error
    described.pop("__metadata__", None)
    arrays = {}
    for name, tensor in described.items():
        kind, shape = tensor["dtype"], tensor["shape"]
        if kind not in _TYPES:
            raise CheckpointError(
                f"{path}: {name} is of type {kind}, which is not read here: save the model as float32, "
                "float16 or bfloat16"
            )
        start, stop = (begin + offset for offset in tensor["data_offsets"])
        values = np.frombuffer(data, _TYPES[kind], math.prod(shape), start).reshape(shape)
        arrays[name] = values
        if kind == "BF16":
            arrays[name] = float32_of_bfloat16(values)
            release_pages(data, start, stop)  # the bits are not needed again, and take half the memory of the numbers
    if not arrays:
        raise CheckpointError(f"{path}: holds no parameters")
    return arrays


def missing_shards(folder: Path) -> list[str]:
    """Return the files that a split model's index names and the folder lacks; [] for a model in a single file."""
    first = next((name for name in WEIGHT_FILES if (folder / name).is_file()), "")
    if not first.endswith(_INDEX):
        return []
    return [file for file in _files_of(_read_index(folder / first)) if not (folder / file).is_file()]


def _read_index(index: Path) -> UncheckedObject:
    """Read the index of a split model: the file name of each parameter, by the parameter's name."""
    try:
        return dict(read_json(index)["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index}: damaged ({type(error).__name__}: {error}); copy it again") from error


def _files_of(places: UncheckedObject) -> list[str]:
    return sorted(set(map(str, places.values())))


def _read_shards(index: Path) -> dict[str, Array]:
    """Read all files of a split model; its index is `{"weight_map": {parameter: file}}`."""
    places = _read_index(index)
    arrays: dict[str, Array] = {}
    suffix = Path(index.name[: -len(_INDEX)]).suffix
    for file in _files_of(places):
        if Path(file).name != file or Path(file).suffix != suffix:
            raise CheckpointError(f"{index}: refused, it names {quoted(file)}, not a {suffix} file beside it")
        if not (index.parent / file).is_file():
            raise CheckpointError(f"{index.parent / file}: there is no such file, though {index.name} names it")
        shard = read_arrays(index.parent / file)
        arrays.update((name, array) for name, array in shard.items() if places.get(name) == file)
    missing = sorted(set(places) - set(arrays))
    if missing:
        raise CheckpointError(f"{index}: {missing[0]} is not in {places[missing[0]]}: copy that file again")
    return arrays


# Types of storages in torch -> NumPy's
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
_MOST_PICKLED_BYTES = 64 << 20  # names and shapes of a model's tensors usually take some hundred kilobytes


def load_torch_arrays(path: Union[str, Path]) -> dict[str, Array]:
    """Load a file of `torch.save(state_dict)` as a dict from name to array; bfloat16 becomes float32.

    Raises `CheckpointError` if the file is missing or damaged, holds anything but named tensors, or describes a tensor
    outside its storage.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such parameter file")
    try:
        content = _read_archive(path) if zipfile.is_zipfile(path) else _read_stream(path)
        arrays = _named_arrays(content)
    except RefusedPickleError as error:
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
        raise RefusedPickleError(f"it holds {_short(content)}, not parameters by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise RefusedPickleError(f"its entry {_short(name)} is {_short(value)}, not a tensor")
    return {name: value.array(name) for name, value in content.items()}


class _Storage(Sealed):
    """Array in a PyTorch file; `fill` sets the values later, since the older format stores them after the pickle."""

    __slots__ = ("count", "kind", "values")

    def __init__(self, kind: str, count: int):
        self.kind, self.count = kind, count
        self.values = np.empty(0)

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.count * np.dtype(_STORAGE_TYPES[self.kind]).itemsize

    def fill(self, data: Union[bytes, memoryview]) -> None:
        values = np.frombuffer(data, _STORAGE_TYPES[self.kind])
        if self.kind == _BFLOAT16:
            values = float32_of_bfloat16(values)
        self.values = values != 0 if self.kind == "BoolStorage" else values


class _Tensor(Sealed):
    """View of a storage, as the file describes it; `array` checks it against the storage."""

    __slots__ = ("_offset", "_shape", "_storage", "_strides")

    def __init__(self, storage: Unchecked, offset: Unchecked, shape: Unchecked, strides: Unchecked):
        self._storage, self._offset, self._shape, self._strides = storage, offset, shape, strides

    def array(self, name: str) -> Array:
        """Return the view as an array; raises `RefusedPickleError` if it exceeds its storage."""
        if not isinstance(self._storage, _Storage):
            raise RefusedPickleError(f"its tensor {_short(name)} is made of {_short(self._storage)}, not of a storage")
        offset, shape, strides, values = self._offset, self._shape, self._strides, self._storage.values
        numbers = (offset, *shape, *strides) if isinstance(shape, tuple) and isinstance(strides, tuple) else (None,)
        if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) != len(strides):
            raise RefusedPickleError(f"its tensor {_short(name)} has a size or a stride that is none")
        count = 1
        for length in shape:  # Python's integers: NumPy's would overflow
            count *= length
        if count == 0:
            return np.empty(shape, values.dtype)
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides))
        # A view that repeats values (stride 0) could be of any size over a storage of one number.
        if last >= values.size or count > values.size:
            raise RefusedPickleError(
                f"its tensor {_short(name)} of size {_short(list(shape))}, stride {_short(list(strides))} at offset "
                f"{_short(offset)} is not within its storage of {values.size:,} numbers"
            )
        bytes_apart = [stride * values.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(values[offset:], shape, bytes_apart, writeable=False)


class _RebuildTensor(Sealed):
    """Stand-in for `torch._utils._rebuild_tensor_v2`, which a pickle calls to make a view."""

    __slots__ = ()

    def __call__(
        self, storage: Unchecked, offset: Unchecked, shape: Unchecked, strides: Unchecked, *unused: Unchecked
    ) -> _Tensor:
        return _Tensor(storage, offset, shape, strides)  # unused: requires_grad, hooks, metadata


class _StorageType(Sealed):
    """Stand-in for a class such as `torch.FloatStorage`; a pickle may use it only in a reference to a storage."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class _TensorUnpickler(SafeUnpickler):
    """Unpickler of the tensors of a PyTorch state dict.

    find: called with a storage's type name, key and count of numbers; returns that storage
    """

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
            raise RefusedPickleError(f"it refers to {_short(pid)} outside the file")
        _, kind, key, _, count = pid[:5]
        if not isinstance(kind, _StorageType):
            raise RefusedPickleError(f"it has a storage of type {_short(kind)}")
        if not isinstance(key, str) or type(count) is not int or count < 0 or pid[5:] not in ((), (None,)):
            raise RefusedPickleError(f"it has a storage {_short(key)} of {_short(count)} numbers, or a view of one")
        return self._find(kind.name, key, count)


def _short(value: Unchecked) -> str:
    """Describe a pickle's value in one short line, since a small file can hold a value whose text is endless."""
    simple = isinstance(value, (str, int)) or (isinstance(value, list) and all(type(item) is int for item in value))
    if not simple or (isinstance(value, int) and value.bit_length() > 100) or (isinstance(value, str) and not value):
        return f"a {type(value).__name__.strip('_')}"
    return quoted(value)


def _one_of(storages: dict[str, _Storage], kind: str, key: str, count: int) -> _Storage:
    """Return the storage with this key; create it if the key is new.

    kind: name of the storage's type
    count: number of its values

    Raises `RefusedPickleError` if the storage exists with another type or count.
    """
    storage = storages.setdefault(key, _Storage(kind, count))
    if (storage.kind, storage.count) != (kind, count):
        raise RefusedPickleError(f"it describes the storage {quoted(key)} in two ways")
    return storage


def _read_archive(path: Path) -> Unchecked:
    """Read the zip format, without unpacking to the disk; no entry may be larger than the archive."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl"]
        if len(pickles) != 1 or len(entries) != len(archive.infolist()):
            raise RefusedPickleError(f"its archive has {len(pickles)} data.pkl, or two entries of one name")
        prefix = pickles[0][: -len("data.pkl")]
        if f"{prefix}constants.pkl" in entries:
            raise RefusedPickleError("it is a TorchScript program")
        packed = [name for name, entry in entries.items() if entry.compress_type != zipfile.ZIP_STORED]
        if packed or sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
            # torch.save never packs entries. Packed entries, or several entries over the same bytes, are a bomb.
            raise RefusedPickleError(
                f"its archive unpacks to more than its size ({', '.join(packed[:1]) or 'overlaps'})"
            )
        if f"{prefix}byteorder" in entries and archive.read(f"{prefix}byteorder").strip() != b"little":
            raise ValueError("it was written on a big-endian machine")
        if entries[pickles[0]].file_size > _MOST_PICKLED_BYTES:
            raise RefusedPickleError(f"its data.pkl has {entries[pickles[0]].file_size:,} bytes")
        storages: dict[str, _Storage] = {}

        def find(kind: str, key: str, count: int) -> _Storage:
            is_new = key not in storages
            storage = _one_of(storages, kind, key, count)
            entry = entries.get(f"{prefix}data/{key}")
            if entry is None or entry.file_size != storage.size:
                size = "not there" if entry is None else f"{entry.file_size:,} bytes long"
                raise RefusedPickleError(f"its storage {_short(key)} of {storage.size:,} bytes is {size}")
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
        raise RefusedPickleError("the storages that it lists are not those of its tensors")
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
            raise RefusedPickleError(f"it begins with a pickle of {end - start:,} bytes")
        yield data[start:end], end
        start = end
