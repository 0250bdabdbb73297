"""What the tensors of a general_model request must hold, and the tensors of its response."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from paddle_ranker.serving.core.faults import INVALID, Fault
from paddle_ranker.serving.paddle.messages import Message

INT64, FLOAT32, INT32, STRING = 0, 1, 2, 20  # elem_type
# Where the elements of each accepted type may be, and what they are in tensor_content: little-endian, as NumPy has it.
_INTEGERS = {INT64: ("int64_data", "<i8"), INT32: ("int_data", "<i4")}
_DATA_FIELDS = (
    "int64_data",
    "float_data",
    "int_data",
    "float64_data",
    "uint32_data",
    "bool_data",
    "complex64_data",
    "complex128_data",
    "data",
    "tensor_content",
)


def integer_matrix(tensor: Message, field: str) -> np.ndarray:
    """Return a tensor's elements, `[rows, columns]` int64.

    Args:
        field: what an error names, `tensor[0] (input_ids)`.

    Raises `Fault(INVALID)` for another type or rank, for a shape that does not match the data, and for data in a field
    of another type.
    """
    if tensor.elem_type not in _INTEGERS:
        raise Fault(INVALID, f"is {tensor.elem_type}, expected 0 (int64) or 2 (int32)", field=f"{field}.elem_type")
    name, dtype = _INTEGERS[tensor.elem_type]
    held = _one_field(tensor, field, (name, "tensor_content"))
    _refuse_lod(tensor, field)
    shape = tuple(tensor.shape)
    if len(shape) != 2:
        raise Fault(INVALID, f"is {list(shape)[:8]}, expected [pairs, tokens]", field=f"{field}.shape")
    if min(shape) < 1:
        raise Fault(INVALID, f"is {list(shape)}, expected at least one pair of one token", field=f"{field}.shape")
    if held == "tensor_content":
        size = np.dtype(dtype).itemsize
        count, rest = divmod(len(tensor.tensor_content), size)
        if rest:
            problem = f"has {len(tensor.tensor_content):,} bytes, elements of {size} bytes do not fill them"
            raise Fault(INVALID, problem, field=f"{field}.tensor_content")
        elements = np.frombuffer(tensor.tensor_content, dtype)
    else:
        count = len(getattr(tensor, name))
        elements = np.asarray(getattr(tensor, name), dtype)
    if math.prod(shape) != count:
        raise Fault(INVALID, f"{list(shape)} does not match {count:,} elements", field=f"{field}.shape")
    return elements.reshape(shape).astype(np.int64, copy=False)


def text_column(tensor: Message, field: str) -> list[str]:
    """Return a tensor's strings; its shape is `[n]` or `[n, 1]`, or left out. Raises as `integer_matrix` does."""
    if tensor.elem_type != STRING:
        raise Fault(INVALID, f"is {tensor.elem_type}, expected 20 (string)", field=f"{field}.elem_type")
    _one_field(tensor, field, ("data",))
    _refuse_lod(tensor, field)
    texts = list(tensor.data)
    shape = list(tensor.shape)
    if shape and shape not in ([len(texts)], [len(texts), 1]):
        raise Fault(INVALID, f"{shape[:8]} does not match {len(texts):,} texts", field=f"{field}.shape")
    return texts


def fill_column(tensor: Message, name: str, alias_name: str, values: np.ndarray) -> None:
    """Make `tensor` a column of the response: float32 `[n, 1]`."""
    tensor.name, tensor.alias_name, tensor.elem_type = name, alias_name, FLOAT32
    tensor.shape.extend([len(values), 1])
    tensor.float_data.extend(np.asarray(values, np.float32).tolist())


def _one_field(tensor: Message, field: str, allowed: Sequence[str]) -> str:
    """Return which of the `allowed` fields holds the data, and see that no other one does."""
    held = [name for name in _DATA_FIELDS if len(getattr(tensor, name))]
    if not held:
        raise Fault(INVALID, "holds no data", field=f"{field}.{allowed[0]}")
    if held[0] not in allowed:
        problem = f"holds data, which a tensor of elem_type {tensor.elem_type} has in {allowed[0]}"
        raise Fault(INVALID, problem, field=f"{field}.{held[0]}")
    if len(held) > 1:
        raise Fault(INVALID, f"holds data, and {held[0]} does too", field=f"{field}.{held[1]}")
    return held[0]


def _refuse_lod(tensor: Message, field: str) -> None:
    if len(tensor.lod):
        raise Fault(INVALID, "is not for this model: it takes padded tensors", field=f"{field}.lod")
