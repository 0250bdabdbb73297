"""Convert protobuf messages from and to JSON, by the rules of brpc's json2pb.

Field names are those of the .proto, 64-bit integers are numbers, float32 is printed as the double of its value, unset
fields are omitted, unknown keys are ignored, and bytes are base64. protobuf's own json_format always prints int64 as
strings and shortens float32; it also converts arrays element by element, in Python.
"""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from typing import Any, Optional

from google.protobuf.descriptor import FieldDescriptor

from paddle_ranker.errors import brief, quoted
from paddle_ranker.paddle_serving.messages import Message
from paddle_ranker.serving.core.faults import INVALID, Fault
from paddle_ranker.serving.core.json_text import JsonBounds, parse_json

# Integers that are written as strings, joined by commas.
_MANY_DIGITS = re.compile("-?[0-9]{1,20}(?:,-?[0-9]{1,20})*")
_AT_ONCE = 4096  # elements of an array that are converted together; if one does not fit, each is tried alone
_SPECIAL = {"nan": math.nan, "infinity": math.inf, "-infinity": -math.inf}
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: "a 32-bit integer",
    FieldDescriptor.CPPTYPE_UINT32: "an unsigned 32-bit integer",
    FieldDescriptor.CPPTYPE_INT64: "a 64-bit integer",
    FieldDescriptor.CPPTYPE_UINT64: "an unsigned 64-bit integer",
}
_WIDE = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_LARGEST_FLOAT32 = float.fromhex("0x1.fffffep+127")


def read_message(data: bytes, message_class: Message, bounds: Optional[JsonBounds] = None) -> Message:
    """Convert a JSON object to a message of the class `message_class`. Raises `Fault(INVALID)`, which names the field.

    data: the JSON in bytes
    bounds: see `parse_json`
    """
    message = message_class()
    _fill(message, parse_json(data, bounds), "")
    return message


def write_message(message: Message, defaults: bool = False) -> bytes:
    """Return the message as JSON in UTF-8.

    With `defaults`, unset fields are written too, with their default values, as the pipeline's gateway does.
    """
    from pydantic_core import to_json  # fifteen times as fast as the standard library where there are many numbers

    return to_json(_plain(message, defaults))


def _fill(message: Message, value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise Fault(INVALID, f"is {_kind(value)}, expected an object", field=path or "body")
    fields = message.DESCRIPTOR.fields_by_name
    for name, item in value.items():
        field = fields.get(name)
        if field is None or item is None:
            continue
        place = f"{path}.{name}" if path else name
        if _is_repeated(field):
            if not isinstance(item, list):
                raise Fault(INVALID, f"is {_kind(item)}, expected an array", field=place)
            _fill_array(getattr(message, name), field, item, place)
        elif field.message_type is not None:
            _fill(getattr(message, name), item, place)
        else:
            setattr(message, name, _checked([item], field, place)[0])


def _fill_array(target: Any, field: FieldDescriptor, items: list[Any], path: str) -> None:
    if field.message_type is not None:
        for place, item in enumerate(items):
            _fill(target.add(), item, f"{path}[{place}]")
        return
    target.extend(_checked(items, field, path, numbered=True))


def _checked(items: list[Any], field: FieldDescriptor, path: str, numbered: bool = False) -> list[Any]:
    """Return `items` converted for `field`. Raises `Fault`, which names the first item that does not fit.

    path: place of the field in the JSON, for the fault
    numbered: whether the fault also shows the item's index
    """
    converted: list[Any] = []
    for first in range(0, len(items), _AT_ONCE):
        part = items[first : first + _AT_ONCE]
        fitting = _converted(part, field)
        if fitting is None:
            place, item = next((place, item) for place, item in enumerate(part, first) if not _converted([item], field))
            where = f"{path}[{place}]" if numbered else path
            raise Fault(INVALID, f"is {_kind(item)}, expected {_expected(field)}", field=where)
        converted += fitting
    return converted


def _converted(items: list[Any], field: FieldDescriptor) -> Optional[list[Any]]:
    """Return `items` converted for `field`, or None if an item does not fit.

    A few calls convert all items. A call of a Python function for each item would take many times as long as parsing.
    """
    types = set(map(type, items))
    if field.cpp_type in _INTEGERS:
        return _integers_at_once(items, types, field.cpp_type)
    if field.cpp_type in _FLOATS:
        return _floats_at_once(items, types, field.cpp_type)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return items if types == {bool} else None
    if types != {str}:
        return None
    if field.type == FieldDescriptor.TYPE_STRING:
        return items
    try:
        return [base64.b64decode(item, validate=True) for item in items]
    except ValueError:
        return None


def _integers_at_once(items: list[Any], types: set[type], kind: int) -> Optional[list[Any]]:
    low, high = _bounds(kind)
    if str in types and kind in _WIDE and types <= {int, str}:
        texts = items if types == {str} else [item for item in items if type(item) is str]
        if not _MANY_DIGITS.fullmatch(",".join(texts)):
            return None
        try:
            items, types = list(map(int, items)), {int}
        except ValueError:  # a comma within a string
            return None
    return items if types == {int} and low <= min(items) and max(items) <= high else None


def _floats_at_once(items: list[Any], types: set[type], kind: int) -> Optional[list[Any]]:
    largest = _largest(kind)
    numbers, named = items, dict[str, float]()
    if str in types:
        numbers = [item for item in items if type(item) is not str]
        texts = {item for item in items if type(item) is str}
        named = {text: _SPECIAL[text.lower()] for text in texts if text.lower() in _SPECIAL}
        if named.keys() < texts:
            return None
    if not types <= {int, float, str} or (numbers and not -largest <= min(numbers) <= max(numbers) <= largest):
        return None
    return list(map(float, [named[item] if type(item) is str else item for item in items] if named else items))


def _expected(field: FieldDescriptor) -> str:
    """Describe the values that a scalar field accepts, for faults."""
    if field.cpp_type in _FLOATS:
        return f"a number up to {_largest(field.cpp_type)}"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return "true or false"
    texts = "bytes in base64" if field.type == FieldDescriptor.TYPE_BYTES else "a string"
    return _INTEGERS.get(field.cpp_type, texts)


def _largest(kind: int) -> float:
    return _LARGEST_FLOAT32 if kind == FieldDescriptor.CPPTYPE_FLOAT else sys.float_info.max


def _bounds(kind: int) -> tuple[int, int]:
    bits = 64 if kind in _WIDE else 32
    if kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64):
        return 0, 2**bits - 1
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _kind(value: Any) -> str:
    """Describe a JSON value for messages: by its kind, or by the value, shortened."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return f"the string {quoted(value)}"
    return brief(json.dumps(value))


def _is_repeated(field: FieldDescriptor) -> bool:
    repeated = getattr(field, "is_repeated", None)  # a property since protobuf 6, which deprecates `label`
    return bool(field.label == FieldDescriptor.LABEL_REPEATED if repeated is None else repeated)


def _plain(message: Message, defaults: bool) -> dict[str, Any]:
    fields = (
        [(field, getattr(message, field.name)) for field in message.DESCRIPTOR.fields]
        if defaults
        else message.ListFields()
    )
    plain = {}
    for field, value in fields:
        if _is_repeated(field):
            plain[field.name] = _plain_array(field, value, defaults)
        else:
            plain[field.name] = _plain_array(field, [value], defaults)[0]
    return plain


def _plain_array(field: FieldDescriptor, values: Any, defaults: bool) -> list[Any]:
    if field.message_type is not None:
        return [_plain(value, defaults) for value in values]
    if field.type == FieldDescriptor.TYPE_BYTES:
        return [base64.b64encode(value).decode("ascii") for value in values]
    if field.cpp_type in _FLOATS:
        return [value if math.isfinite(value) else _named(value) for value in values]
    return list(values)


def _named(value: float) -> str:
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
