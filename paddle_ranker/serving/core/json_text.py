"""JSON that callers send, in which values are counted before it is parsed; and vectors as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple, NoReturn, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.serving.core.faults import INVALID, TOO_LARGE, Fault
from paddle_ranker.storage.untrusted import Unchecked

_DIGITS = b"0123456789"
_LONG = 400  # digits of a number: longer than any double; to read or write huge integers Python needs time
_CHUNK = 1024 * 1024  # bytes that are counted at a time
_LEAST_PAIRS = 64  # small limits leave room for what stands around the pairs
_DEEPEST = 10_000  # more than can be read
_QUOTE = ord('"')
_NUMBER_DIGITS = 9  # of a float32 that make it the same again
_POWERS = np.array([float(10**power) for power in range(23)])  # larger ones are no doubles


class JsonBounds(NamedTuple):
    """The most that JSON may hold: arrays and objects together, names in objects, values of any kind."""

    containers: int
    names: int
    values: int


@cache
def json_bounds(pairs: int) -> JsonBounds:
    """Return the bounds for JSON of `pairs` pairs: far more than any client sends, far less than fits into its bytes.

    Documents may carry fields that nobody reads, and each token of a pair is a value.
    """
    pairs = max(pairs, _LEAST_PAIRS)
    return JsonBounds(containers=64 * pairs, names=256 * pairs, values=4096 * pairs)


@cache
def text_bounds(pairs: int) -> JsonBounds:
    """Return the bounds for JSON of `pairs` texts, none of them as tokens: no other thread runs while it is read."""
    pairs = max(pairs, _LEAST_PAIRS)
    return JsonBounds(containers=8 * pairs, names=64 * pairs, values=128 * pairs)


def check_json(data: bytes, bounds: Optional[JsonBounds] = None) -> None:
    """Raise `Fault(TOO_LARGE)` if JSON holds more than `bounds`.

    Counts in the unparsed bytes, in linear time: an empty array of two bytes becomes sixty when parsed, and an error
    about a value a hundred times its bytes. Bytes that are not JSON may pass.

    Raises `Fault(INVALID)` for a huge number, and if it is nested too deeply.
    """
    if _has_long_run(data) and _has_long_number(data):
        raise Fault(INVALID, f"holds a number of {_LONG} digits or more", field="body")
    if bounds is None or len(data) <= bounds.containers:
        return
    containers = closed = names = values = 0
    for outside in _outside_strings(data):
        counts = np.bincount(outside, minlength=256)
        containers += int(counts[ord("[")] + counts[ord("{")])
        closed += int(counts[ord("]")] + counts[ord("}")])
        if containers - closed > _DEEPEST:
            raise Fault(INVALID, "is nested too deeply", field="body")
        names += int(counts[ord(":")])
        values += int(counts[ord(",")])
        for count, most, what in (
            (containers, bounds.containers, "arrays and objects"),
            (names, bounds.names, "names of values"),
            (values, bounds.values, "values"),
        ):
            if count > most:
                raise Fault(TOO_LARGE, f"holds more than the {most:,} {what} of a request", field="body")


def parse_json(data: bytes, bounds: Optional[JsonBounds] = None) -> Unchecked:
    """Return the JSON value that `data` holds in UTF-8; raises `Fault(INVALID)`, which says what is wrong.

    Args:
        bounds: JSON beyond these bounds is not parsed: `Fault(TOO_LARGE)` is raised.
    """
    check_json(data, bounds)
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise Fault(INVALID, f"is not UTF-8 at byte {error.start:,}", field="body") from error
    except RecursionError as error:
        raise Fault(INVALID, "is nested too deeply", field="body") from error
    except ValueError as error:
        raise Fault(INVALID, f"is not JSON ({error})", field="body") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f'{name} is not JSON: write "{name}"')


def _has_long_run(data: bytes) -> bool:
    """Return whether there are 400 digits in a row, in strings or not.

    Such a run includes at least one of the bytes 399, 799, ..., so only the runs around these bytes are looked at.
    """
    samples = data[_LONG - 1 :: _LONG]
    if len(samples.translate(None, _DIGITS)) == len(samples):
        return False
    for number, sample in enumerate(samples):
        if sample in _DIGITS:
            place = _LONG - 1 + number * _LONG
            before, after = data[place - _LONG + 1 : place], data[place : place + _LONG]
            digits = len(before) - len(before.rstrip(_DIGITS)) + len(after) - len(after.lstrip(_DIGITS))
            if digits >= _LONG:
                return True
    return False


def _has_long_number(data: bytes) -> bool:
    """Return whether there are 400 digits in a row outside of strings."""
    run = 0  # digits at the end of what was looked at
    for outside in _outside_strings(data):
        others = np.flatnonzero((outside < ord("0")) | (outside > ord("9")))
        if not len(others):
            run += len(outside)
        else:
            longest = int(np.diff(others).max(initial=1)) - 1
            if max(run + int(others[0]), longest) >= _LONG:
                return True
            run = len(outside) - 1 - int(others[-1])
        if run >= _LONG:
            return True
    return False


def _outside_strings(data: bytes) -> Iterator[NDArray[np.uint8]]:
    """Yield the bytes outside of strings, chunk by chunk; the closing quotes of strings are among them."""
    if b"\\" in data:  # from left to right, so that a quote after two backslashes ends the string
        data = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    in_string = False
    for start in range(0, len(data), _CHUNK):
        chunk = np.frombuffer(data, np.uint8, min(_CHUNK, len(data) - start), start)
        inside = np.logical_xor.accumulate(chunk == _QUOTE) ^ in_string
        in_string = bool(inside[-1])
        yield chunk[~inside]


def number_lists(vectors: NDArray[np.float32]) -> list[bytes]:
    """Return each row of `vectors`, `[n, size]` float32, as a JSON array.

    A number has up to 9 digits, which make the same float32 again; as the double that it equals it would have 17.
    """
    from pydantic_core import to_json  # fifteen times as fast as the standard library

    doubles = vectors.astype(np.float64)
    with np.errstate(divide="ignore"):
        shift = _NUMBER_DIGITS - 1 - np.floor(np.log10(np.abs(doubles)))
    # These powers of ten are exact, so the quotient is the double that is nearest to the decimal number.
    powers = _POWERS[np.clip(shift, 0, len(_POWERS) - 1).astype(np.int64)]
    shown = np.where(shift < len(_POWERS), np.rint(doubles * powers) / powers, doubles)
    return [to_json(row.tolist()) for row in shown]
