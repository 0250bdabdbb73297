"""protobuf by hand, from the published field numbers alone: a second opinion on the project's messages.

General model, Request: 1 tensor, 2 fetch_var_names; Tensor: 1 int64_data, 2 float_data, 9 data, 10 elem_type, 11 shape,
13 name, 14 alias_name; Response: 1 outputs, 5 err_no; ModelOutput: 1 tensor. Pipeline, Request: 1 key, 2 value;
Response: 1 err_no, 3 key, 4 value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Union

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


def varint(number: int) -> bytes:
    """Return a number in base 128, the lowest digits first."""
    number &= 2**64 - 1
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def field(number: int, value: Union[int, str, bytes]) -> bytes:
    """Return a field: an integer, or bytes behind their length."""
    if isinstance(value, int):
        return varint(number << 3 | _VARINT) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | _BYTES) + varint(len(content)) + content


def packed(number: int, values: Iterable[int]) -> bytes:
    """Return a field that repeats, its numbers one after another."""
    return field(number, b"".join(varint(value) for value in values))


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield each field's number and value: an integer, or bytes (of a float the four that it has)."""
    place = 0

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            digit = data[place]
            place += 1
            value |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                return value

    while place < len(data):
        key = number()
        if key & 7 == _VARINT:
            yield key >> 3, number()
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(key & 7)
        if size is None:
            size = number()
        yield key >> 3, data[place : place + size]
        place += size


def general_request(tensors: list[dict[str, Any]]) -> bytes:
    """Return a Request with tensors as the contract's curl line has them, for the output `sigmoid_2.tmp_0`."""
    parts = []
    for tensor in tensors:
        content = packed(1, tensor["int64_data"]) + field(10, tensor["elem_type"]) + packed(11, tensor["shape"])
        content += field(13, tensor["name"]) + field(14, tensor["alias_name"])
        parts.append(field(1, content))
    return b"".join(parts) + field(2, "sigmoid_2.tmp_0")


def general_scores(data: bytes) -> list[float]:
    """Return the floats of a Response; raises `ValueError` where it has an error or no scores."""
    found: list[float] = []
    for number, output in fields(data):
        if number == 5 and output:
            raise ValueError(f"err_no {output}")
        if number != 1:
            continue
        for _, tensor in (entry for entry in fields(output) if entry[0] == 1):
            for _, floats in (entry for entry in fields(tensor) if entry[0] == 2):
                found += struct.unpack(f"<{len(floats) // 4}f", floats)
    if not found:
        raise ValueError("the answer holds no scores")
    return found


def pipeline_request(values: list[str]) -> bytes:
    """Return a pipeline Request with a value for each pair."""
    keys = b"".join(field(1, str(place)) for place in range(len(values)))
    return keys + b"".join(field(2, value) for value in values)


def pipeline_answer(data: bytes) -> str:
    """Return the first value of a pipeline Response; raises `ValueError` where it has an error."""
    for number, value in fields(data):
        if number == 1 and value:
            raise ValueError(f"err_no {value}")
        if number == 4:
            return bytes(value).decode()
    raise ValueError("the answer holds no value")
