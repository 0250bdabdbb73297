"""Read the weights of a transformers folder in any of its formats, and write them as safetensors."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np

from paddle_ranker.encoding.columns import Array
from paddle_ranker.errors import CheckpointError, DependencyError, quoted
from paddle_ranker.model.hugging_face.names import BUFFERS
from paddle_ranker.model.hugging_face.torch_files import load_torch_arrays
from paddle_ranker.model.parameters import float32_of_bfloat16
from paddle_ranker.options import note_once
from paddle_ranker.storage.untrusted import Unchecked, UncheckedObject, map_file, memory_bytes, read_json

SAFETENSORS_FILE = "model.safetensors"
TORCH_FILE = "pytorch_model.bin"
_INDEX = ".index.json"
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # DDP's, torch.compile's, ...
_CHANGES = re.compile(r"(^|\.)(lora_\w+|ia3_\w+|adapters?|adapter_\w+|hada_\w+|oft_\w+|prompt_encoder)(\.|$)")
_CODES = re.compile(
    r"\.(SCB|qweight|qzeros|scales|g_idx|absmax|quant_map|nested_absmax|nested_quant_map|weight_format|weight_packed"
    r"|(weight|input)_(scale|zero_point|scale_inv)|quant_state\..*)$"
)
WEIGHT_FILES = (SAFETENSORS_FILE, SAFETENSORS_FILE + _INDEX, TORCH_FILE, TORCH_FILE + _INDEX)  # the first there is read

# safetensors' names of number types (its format's documentation) -> NumPy's; bfloat16 is the upper half of a float32.
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


def read_weights(folder: Path) -> tuple[str, dict[str, Array]]:
    """Return the name of the file that was read, and a dict of its arrays in transformers' names and layout.

    Raises `CheckpointError` if there is no file that can be read, or a file is damaged or hostile.
    """
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file():
            arrays = _unwrapped(_read_shards(path) if name.endswith(_INDEX) else _read(path), path)
            _require_plain(arrays, path)
            return name, arrays
    others = sorted(path.name for path in folder.glob("*") if path.suffix in (".h5", ".msgpack", ".onnx", ".gguf"))
    found = f"; {', '.join(others)} cannot be read here" if others else ""
    raise CheckpointError(f"{folder}: has no {SAFETENSORS_FILE} and no {TORCH_FILE}{found}")


def _unwrapped(arrays: dict[str, Array], path: Path) -> dict[str, Array]:
    """Return the arrays without what wrappers of training put into their names."""
    names = {".".join(part for part in name.split(".") if part not in _WRAPPERS): name for name in arrays}
    if len(names) < len(arrays):
        raise CheckpointError(f"{path}: holds a model twice, once wrapped (module., _orig_mod.): save one")
    if all(ours == theirs for ours, theirs in names.items()):
        return arrays
    note_once(f"note: {path}: saved from a wrapped model; {' and '.join(_WRAPPERS[:2])} are left out of the names")
    return {ours: arrays[theirs] for ours, theirs in names.items()}


def _require_plain(arrays: dict[str, Array], path: Path) -> None:
    """Raise `CheckpointError` if arrays are codes of quantised weights, or what an adapter adds to weights."""
    for name, array in arrays.items():
        if _CHANGES.search(name):
            raise CheckpointError(
                f"{path}: {name} is of an adapter (LoRA), which is not added to weights here: merge it into its model "
                "(peft's merge_and_unload), and save that"
            )
        if _CODES.search(name) or (array.dtype.kind != "f" and not name.endswith(BUFFERS)):
            raise CheckpointError(
                f"{path}: {name} ({array.dtype}) is of a quantised model: these are codes, not weights; save the model "
                "as float32, float16 or bfloat16, or take its original"
            )


def write_weights(folder: Path, arrays: dict[str, Array]) -> None:
    """Write `model.safetensors`; the arrays must be contiguous."""
    from_numpy = _safetensors("numpy")
    # transformers refuses a file that does not say whose layout its arrays have.
    (folder / SAFETENSORS_FILE).write_bytes(from_numpy.save(arrays, metadata={"format": "pt"}))


def _safetensors(module: str = "") -> Unchecked:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise DependencyError(f".safetensors files need safetensors ({error}): pip install safetensors") from None
    return safetensors.numpy if module == "numpy" else safetensors


def _read(path: Path) -> dict[str, Array]:
    return load_torch_arrays(path) if path.suffix == ".bin" else _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, Array]:
    """Return the arrays of a file; those that are not bfloat16 lie in its memory-mapped bytes."""
    library = _safetensors()
    try:
        data = map_file(path, memory_bytes())
        with library.safe_open(str(path), "np"):  # which checks the header; it gives no bfloat16, and copies
            begin = 8 + int.from_bytes(data[:8], "little")
            described = json.loads(data[8:begin])
    except (library.SafetensorError, OSError, ValueError) as error:
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
        values = np.frombuffer(data, _TYPES[kind], math.prod(shape), begin + tensor["data_offsets"][0]).reshape(shape)
        arrays[name] = float32_of_bfloat16(values) if kind == "BF16" else values
    if not arrays:
        raise CheckpointError(f"{path}: holds no parameters")
    return arrays


def missing_shards(folder: Path) -> list[str]:
    """Return the names of the files that a split model's index names and the folder lacks; none if it is not split."""
    first = next((name for name in WEIGHT_FILES if (folder / name).is_file()), "")
    if not first.endswith(_INDEX):
        return []
    return [file for file in _files_of(_read_index(folder / first)) if not (folder / file).is_file()]


def _read_index(index: Path) -> UncheckedObject:
    """Return which file holds which parameter."""
    try:
        return dict(read_json(index)["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index}: damaged ({type(error).__name__}: {error}); copy it again") from error


def _files_of(places: UncheckedObject) -> list[str]:
    return sorted(set(map(str, places.values())))


def _read_shards(index: Path) -> dict[str, Array]:
    """Read a model that is split over several files by its index, `{"weight_map": {parameter: file}}`."""
    places = _read_index(index)
    arrays: dict[str, Array] = {}
    suffix = Path(index.name[: -len(_INDEX)]).suffix
    for file in _files_of(places):
        if Path(file).name != file or Path(file).suffix != suffix:
            raise CheckpointError(f"{index}: refused, it names {quoted(file)}, not a {suffix} file beside it")
        if not (index.parent / file).is_file():
            raise CheckpointError(f"{index.parent / file}: there is no such file, though {index.name} names it")
        found = _read(index.parent / file)
        arrays.update((name, array) for name, array in found.items() if places.get(name) == file)
    missing = sorted(set(places) - set(arrays))
    if missing:
        raise CheckpointError(f"{index}: {missing[0]} is not in {places[missing[0]]}: copy that file again")
    return arrays
