"""The protobuf messages of Paddle Serving's servers: their classes, and parsing of received bytes."""

from __future__ import annotations

import warnings
from functools import cache
from typing import NamedTuple, Optional

from google.protobuf.message import DecodeError

from paddle_ranker.protos import Message, message_class
from paddle_ranker.serving.core.faults import INVALID, TOO_LARGE, Fault

GENERAL_MODEL = "baidu.paddle_serving.predictor.general_model"
GENERAL_SERVICE = f"{GENERAL_MODEL}.GeneralModelService"
GENERAL_METHODS = ("inference", "debug")
PIPELINE = "baidu.paddle_serving.pipeline_serving"
PIPELINE_SERVICE = f"{PIPELINE}.PipelineService"
CONFIGURE = "baidu.paddle_serving.configure"
_FEW_BYTES = 64 * 1024  # data of at most this size is parsed without counting its fields


class Messages(NamedTuple):
    """Message classes of the C++ server, the pipeline, baidu_std's frames and the C++ server's launch files."""

    Tensor: Message
    Request: Message
    Response: Message
    PipelineTensor: Message
    PipelineRequest: Message
    PipelineResponse: Message
    RpcMeta: Message
    ResourceConf: Message
    ModelToolkitConf: Message


@cache
def messages() -> Messages:
    """Return the classes, made at the first call."""
    names = [f"{GENERAL_MODEL}.{name}" for name in ("Tensor", "Request", "Response")]
    names += [f"{PIPELINE}.{name}" for name in ("Tensor", "Request", "Response")]
    names.append("brpc.policy.RpcMeta")
    names += [f"{CONFIGURE}.{name}" for name in ("ResourceConf", "ModelToolkitConf")]
    return Messages(*map(message_class, names))


def parse(expected: Message, data: bytes, most_fields: Optional[int] = None) -> Message:
    """Return the message of class `expected` that `data` holds; raises `Fault(INVALID)` if it holds none.

    Args:
        most_fields: with more fields in over 64 KiB, `Fault(TOO_LARGE)` is raised: an empty tensor of two bytes becomes
            a hundred when parsed. Each element of a repeated field counts; fields of nested messages do not.
    """
    if most_fields is not None and len(data) > _FEW_BYTES:
        _check_fields(data, most_fields)
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


_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # how the wire says where a field ends


def _check_fields(data: bytes, most: int) -> None:
    """Raise `Fault(TOO_LARGE)` if a message has more than `most` fields; bytes that are no message may pass."""
    place = count = 0
    while place < len(data):
        count += 1
        if count > most:
            raise Fault(TOO_LARGE, f"holds more than the {most:,} fields of a request", field="message")
        tag, place = _varint(data, place)
        if tag < 8:  # there is no field 0
            return
        kind = tag & 7
        if kind == _LENGTH:
            size, place = _varint(data, place)
            place += size
        elif kind == _VARINT:
            _, place = _varint(data, place)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            place += 8 if kind == _EIGHT_BYTES else 4
        # The others begin and end groups, and hold nothing themselves.


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the varint at `place` and the place after it; for one that does not end, 0 and the end of the data."""
    number = shift = 0
    for byte in data[place : place + 10]:
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7
    return 0, len(data)
