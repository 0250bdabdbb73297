"""Read and write parameter files, and copy their arrays into networks.

A `.pdparams` file is a pickle, and `paddle.load` executes any code that a pickle names. `SafeUnpickler` creates only
objects of the names that its caller allows: for `load_arrays` NumPy arrays and plain containers.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.errors import CheckpointError, quoted
from paddle_ranker.storage.untrusted import Unchecked, memory_bytes, read_file

if TYPE_CHECKING:
    from paddle import Tensor, nn

# Opcodes that store an object at an index of the unpickler's memo, which also takes memory for all lower indices.
_MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")


class RefusedPickleError(Exception):
    """Refusal to unpickle; the message gives the reason, as in "it asks for os.system"."""


class Sealed:
    """Base of classes that pickles may create and call; a pickle cannot set attributes of their objects."""

    __slots__ = ()

    def __setstate__(self, state: Unchecked) -> None:
        raise RefusedPickleError(f"it changes a {type(self).__name__.strip('_')}")


class SafeUnpickler(pickle.Unpickler):
    """Unpickler that refuses all names but those in `allowed`.

    allowed: a dict from (module, name) in the pickle to the object to use for this name; objects written in Python must
        be `Sealed`
    """

    def __init__(self, data: bytes, allowed: Mapping[tuple[str, str], Unchecked], encoding: str = "ASCII"):
        super().__init__(io.BytesIO(data), encoding=encoding)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Unchecked:
        if (module, name) not in self._allowed:
            raise RefusedPickleError(f"it asks for {module}.{name}")
        return self._allowed[module, name]

    def persistent_load(self, pid: Unchecked) -> Unchecked:
        raise RefusedPickleError("it refers to objects outside the file")


def end_of_pickle(data: bytes, start: int = 0) -> int:
    """Return the index after the pickle that begins at `start`; reads its opcodes without executing them.

    Raises `RefusedPickleError` if unpickling would take memory out of proportion to its size, `ValueError` if the
    pickle is incomplete.
    """
    stream = io.BytesIO(data)
    stream.seek(start)
    for opcode, argument, position in pickletools.genops(stream):
        if opcode.name in _MEMO_OPCODES and argument is not None and argument > (position or 0) - start:
            raise RefusedPickleError(f"it asks for a memory of {argument:,} objects")
    return stream.tell()


PARAMETERS_FILE = "model_state.pdparams"
# The table of internal names that paddle.save adds to a state dict.
_NAME_TABLE = "StructuredToParameterName@@"

# The functions that rebuild an array and a number, under the names they have in NumPy 1 and NumPy 2.
_RECONSTRUCT, _SCALAR = np.empty(0).__reduce__()[0], np.float32(0).__reduce__()[0]


class _Latin1Bytes(Sealed):
    """Stand-in for `_codecs.encode`, which pickle protocol 2 uses for bytes, and which could load any codec."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise RefusedPickleError(f"it asks for the encoding {quoted(encoding)}")
        return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], Unchecked]:
    return {
        ("collections", "OrderedDict"): OrderedDict,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy.core.multiarray", "scalar"): _SCALAR,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "scalar"): _SCALAR,
        ("_codecs", "encode"): _Latin1Bytes(),
    }


def load_arrays(path: Union[str, Path]) -> dict[str, Array]:
    """Load a `.pdparams` file as a dict from parameter name to array; bfloat16 becomes float32.

    Raises `CheckpointError` if the file is missing, damaged, or holds anything but named arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such parameter file")
    try:
        # The encoding reads the arrays of a file that Python 2 wrote.
        data = read_file(path, memory_bytes())
        end_of_pickle(data)
        content = SafeUnpickler(data, _allowed(), encoding="latin1").load()
    except RefusedPickleError as error:
        raise CheckpointError(
            f"{path}: refused, {error}; a parameter file holds only arrays and plain containers, "
            "so do not load this file elsewhere either unless you wrote it"
        ) from error
    except (MemoryError, CheckpointError):
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise CheckpointError(
            f"{path}: damaged or not a parameter file ({type(error).__name__}: {error}); "
            "copy it again, or take an earlier checkpoint"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not parameters by name")
    arrays = {}
    for name, value in content.items():
        if name == _NAME_TABLE:
            continue
        if not isinstance(name, str) or not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            raise CheckpointError(f"{path}: {quoted(name)} is a {type(value).__name__}, not an array of numbers")
        arrays[name] = float32_of_bfloat16(value) if value.dtype == np.uint16 else value
    if not arrays:
        raise CheckpointError(f"{path}: holds no parameters")
    return arrays


def count(arrays: dict[str, Array]) -> tuple[int, int]:
    """Return the number of values and the number of arrays: the arguments of `EncoderConfig.require_fits`."""
    return sum(array.size for array in arrays.values()), len(arrays)


def float32_of_bfloat16(bits: Array) -> Array:
    """Convert bfloat16, stored as uint16 (the upper half of float32), to float32."""
    wide = bits.astype(np.uint32)
    wide <<= 16  # in place, since the weights of a decoder take gigabytes
    return wide.view(np.float32)


def save_arrays(state: Mapping[str, object], path: Union[str, Path]) -> None:
    """Write a dict from name to tensor or array as a `.pdparams` file that `paddle.load` and `load_arrays` read."""
    import paddle

    paddle.save(state, str(path))


def set_parameters(
    network: nn.Layer,
    arrays: dict[str, Array],
    *,
    may_lack: tuple[str, ...] = (),
    prefix: str = "",
    share: bool = False,
) -> list[str]:
    """Copy arrays into the network's parameters of the same names; return the names of parameters without an array.

    may_lack: name prefixes of the parameters that may be missing, and then keep their values
    prefix: added before the names in messages and in the result
    share: whether parameters may share memory with the arrays; nothing else may then change the arrays

    Raises `CheckpointError`, naming the parameters, if one is missing, is not in the network, has another shape, or
    holds no floating-point numbers.
    """
    state = network.state_dict()
    missing = [name for name in state if name not in arrays]
    misfits = [
        f"{prefix}{name} is {list(array.shape)}, the configuration says {list(state[name].shape)}"
        for name, array in sorted(arrays.items())
        if name in state and list(array.shape) != list(state[name].shape)
    ]
    codes = [f"{prefix}{name} is {array.dtype}" for name, array in arrays.items() if array.dtype.kind != "f"]
    for problem, names in (
        ("that are codes of a quantised model, not weights", codes),
        ("missing", [prefix + name for name in missing if not name.startswith(may_lack)]),
        ("not in this architecture", [prefix + name for name in arrays if name not in state]),
        ("of another shape", misfits),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(f"parameters {problem}: {'; '.join(names[:3])}{more}")
    for name, array in arrays.items():
        _set(state[name], array, share)
    return [prefix + name for name in missing]


def initialize(parameter: Tensor) -> None:
    """Initialise a parameter if it was created in a `LazyGuard`; leave any other parameter unchanged."""
    if not parameter._is_initialized():
        parameter.initialize()


def _set(parameter: Tensor, array: Array, share: bool) -> None:
    import paddle

    values = _in_order(array.astype(str(parameter.dtype).rpartition(".")[2], copy=False))
    is_own = share or not np.may_share_memory(values, array)
    # Only Paddle 3 can share an array's memory (`set_`).
    if is_own and hasattr(parameter, "set_") and values.flags.writeable and paddle.get_device() == "cpu":
        trainable, parameter.stop_gradient = not parameter.stop_gradient, True
        parameter.set_(paddle.utils.dlpack.from_dlpack(values))
        parameter.stop_gradient = not trainable
    else:
        parameter.set_value(values)


_BLOCK = 64  # columns; transposing in blocks takes a quarter of the time


def _in_order(array: Array) -> Array:
    """Return the array in C order; a transposed matrix is copied in blocks, which is faster."""
    if array.ndim != 2 or not array.flags.f_contiguous:
        return np.ascontiguousarray(array)
    ordered = np.empty(array.shape, array.dtype)
    for start in range(0, array.shape[1], _BLOCK):
        ordered[:, start : start + _BLOCK] = array[:, start : start + _BLOCK]
    return ordered
