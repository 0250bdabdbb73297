"""Protobuf messages of Paddle Serving's servers: their classes, and the parser of received bytes."""

from __future__ import annotations

import warnings
from functools import cache
from typing import NamedTuple, Optional

from google.protobuf.message import DecodeError

from paddle_ranker.paddle_serving.protos import serving_message
from paddle_ranker.protos import Message
from paddle_ranker.serving.core.byte_budget import Share
from paddle_ranker.serving.core.faults import INVALID, TOO_LARGE, Fault
from paddle_ranker.serving.core.json_text import json_bounds

GENERAL_MODEL = "baidu.paddle_serving.predictor.general_model"
GENERAL_SERVICE = f"{GENERAL_MODEL}.GeneralModelService"
GENERAL_METHODS = ("inference", "debug")
PIPELINE = "baidu.paddle_serving.pipeline_serving"
PIPELINE_SERVICE = f"{PIPELINE}.PipelineService"
CONFIGURE = "baidu.paddle_serving.configure"
_FEW_BYTES = 64 * 1024  # data of at most this size is parsed without counting


class Messages(NamedTuple):
    """Message classes: of the C++ server and its launch files, the pipeline, and baidu_std's frames."""

    Tensor: Message
    Request: Message
    Response: Message
    PipelineRequest: Message
    PipelineResponse: Message
    RpcMeta: Message
    ResourceConf: Message
    ModelToolkitConf: Message


@cache
def messages() -> Messages:
    """Return the message classes, which are made at the first call."""
    names = [f"{GENERAL_MODEL}.{name}" for name in ("Tensor", "Request", "Response")]
    names += [f"{PIPELINE}.{name}" for name in ("Request", "Response")]
    names.append("brpc.policy.RpcMeta")
    names += [f"{CONFIGURE}.{name}" for name in ("ResourceConf", "ModelToolkitConf")]
    return Messages(*map(serving_message, names))


class Bounds(NamedTuple):
    """Maximum contents of a message.

    A parsed message may be far larger than its bytes: an empty tensor of two bytes takes a hundred, a packed number of
    one byte eight.

    fields: number of fields of the message itself
    nested: number of fields of the messages in it
    numbers: number of packed numbers
    """

    fields: int
    nested: int
    numbers: int


def bounds_of(fields: int, pairs: int) -> Bounds:
    """Return the bounds of a message about `pairs` pairs that itself has at most `fields` fields."""
    json = json_bounds(pairs)
    return Bounds(fields, json.structures, json.values)


def parse(expected: Message, data: bytes, bounds: Optional[Bounds] = None, share: Optional[Share] = None) -> Message:
    """Parse `data` as a message of the class `expected`. Raises `Fault(INVALID)` if it is no such message.

    bounds: checked before data of over 64 KiB is parsed. Raises `Fault(TOO_LARGE)` if the message exceeds them
    share: the request's share of the byte budget, in which the memory of parsed numbers is reserved if `bounds` are
        checked
    """
    if bounds is not None and len(data) > _FEW_BYTES:
        counts = _Counts(bounds)
        counts.add(expected.DESCRIPTOR, data, 0, len(data), is_outer=True)
        if share is not None and counts.numbers:
            share.reserve(share.held + _NUMBER_BYTES * counts.numbers)
    try:
        # protobuf 3.20 only warns of the end of a group that has not begun, and ignores what follows it.
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", RuntimeWarning)
            message = expected.FromString(data)
        if not warned:
            return message
    except (DecodeError, ValueError):  # ValueError: a string that is not UTF-8
        pass
    raise Fault(INVALID, f"the {len(data):,} bytes are not a {expected.DESCRIPTOR.full_name} message")


_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # wire types, which tell where a field ends
_NUMBER_BYTES = 8
_GOES_ON = bytes(range(128, 256))  # bytes of a number that do not end it


class _Counts:
    """Counter of the fields in a message's bytes, in linear time. Bytes that are no message may pass."""

    def __init__(self, bounds: Bounds):
        self._bounds = bounds
        self._fields = self._nested = self.numbers = 0

    def add(self, kind: Message, data: bytes, place: int, end: int, *, is_outer: bool = False) -> None:
        """Count the fields of a message of type `kind` in `data[place:end]`. Raises `Fault(TOO_LARGE)` above a bound.

        is_outer: whether this is the message itself, not a message in it
        """
        while place < end:
            if is_outer:
                self._fields += 1
            else:
                self._nested += 1
            self._check()
            tag, place = _varint(data, place)
            if tag < 8:  # there is no field 0
                return
            wire = tag & 7
            if wire == _LENGTH:
                size, place = _varint(data, place)
                self._add_long(kind.fields_by_number.get(tag >> 3), data, place, min(place + size, end))
                place += size
            elif wire == _VARINT:
                _, place = _varint(data, place)
            elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
                place += 8 if wire == _EIGHT_BYTES else 4
            # Other wire types begin and end groups, without data of their own.

    def _add_long(self, field: Message, data: bytes, place: int, end: int) -> None:
        """Count `data[place:end]`, a message or packed numbers. An unknown field (None) does not count."""
        if field is None or field.type in (field.TYPE_STRING, field.TYPE_BYTES):
            return
        if field.message_type is not None:
            self.add(field.message_type, data, place, end)
            return
        if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
            self.numbers += (end - place) // 4
            self._check()
            return
        for start in range(place, end, _FEW_BYTES):
            self.numbers += len(data[start : min(start + _FEW_BYTES, end)].translate(None, _GOES_ON))
            self._check()

    def _check(self) -> None:
        bounds = self._bounds
        for count, most, what in (
            (self._fields, bounds.fields, "fields"),
            (self._nested, bounds.nested, "fields of tensors"),
            (self.numbers, bounds.numbers, "numbers"),
        ):
            if count > most:
                raise Fault(TOO_LARGE, f"holds more than the {most:,} {what} of a request", field="message")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the varint at `place` and the index after it. For an incomplete varint, return 0 and the end."""
    number = shift = 0
    for byte in data[place : place + 10]:
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7
    return 0, len(data)
