"""Read JSON that callers send, within bounds; write vectors as JSON."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.serving.core.faults import INVALID, TOO_LARGE, Fault
from paddle_ranker.storage.untrusted import Unchecked

_CHUNK = 1024 * 1024  # bytes that are counted at a time
_LEAST_PAIRS = 64  # bounds allow for this many pairs at least, so that there is room for other fields
_NUMBER_DIGITS = 9  # digits that restore a float32
_POWERS = np.array([float(10**power) for power in range(23)])  # larger ones are no doubles


class JsonBounds(NamedTuple):
    """Maximum contents of JSON that a caller sends.

    structures: count of names, arrays and objects together, which are slow to parse
    values: count of values of any kind
    """

    structures: int
    values: int


@cache
def json_bounds(pairs: int) -> JsonBounds:
    """Return the bounds for the JSON of a request with `pairs` pairs.

    They are far above what any client sends, and far below what the bytes of a request could hold. They leave room for
    fields of documents that nobody reads, and for pairs as tokens, where each token is a value.
    """
    pairs = max(pairs, _LEAST_PAIRS)
    return JsonBounds(structures=256 * pairs, values=4096 * pairs)


@cache
def text_bounds(pairs: int) -> JsonBounds:
    """Return the bounds for the JSON of a request with `pairs` texts or pairs of texts, not arrays of tokens."""
    pairs = max(pairs, _LEAST_PAIRS)
    return JsonBounds(structures=64 * pairs, values=128 * pairs)


def check_json(data: bytes, bounds: JsonBounds) -> None:
    """Raise `Fault(TOO_LARGE)` if JSON holds more than `bounds`. Bytes that are not JSON may pass.

    The unparsed bytes are counted, in linear time: parsing 16 MiB of empty arrays would take half a gigabyte, and
    seconds in which no other thread runs.
    """
    if len(data) <= bounds.structures:
        return
    if b"\\" in data:  # from left to right, so that a quote after two backslashes ends the string
        data = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    structures = values = 0
    in_string = False
    for start in range(0, len(data), _CHUNK):
        chunk = np.frombuffer(data, np.uint8, min(_CHUNK, len(data) - start), start)
        inside = np.logical_xor.accumulate(chunk == ord('"')) ^ in_string
        in_string = bool(inside[-1])
        counts = np.bincount(chunk[~inside], minlength=256)
        structures += int(counts[[ord("["), ord("{"), ord(":")]].sum())
        values += int(counts[ord(",")])
        for count, most, what in (
            (structures, bounds.structures, "arrays, objects and names"),
            (values, bounds.values, "values"),
        ):
            if count > most:
                raise Fault(TOO_LARGE, f"holds more than the {most:,} {what} of a request", field="body")


def parse_json(data: bytes, bounds: Optional[JsonBounds] = None) -> Unchecked:
    """Return the JSON value that `data` holds in UTF-8. Raises `Fault(INVALID)`, which says what is wrong.

    The parser refuses numbers of more than 4300 digits and values that are nested more than 200 deep.

    bounds: checked before parsing, see `check_json`; None: no bounds
    """
    from pydantic_core import from_json

    if bounds is not None:
        check_json(data, bounds)
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise not_json(str(error)) from error


def not_json(reason: str) -> Fault:
    """Return the fault of a body that is not JSON, with the parser's reason."""
    hint = ": half of a surrogate pair" if "hex escape" in reason else ""
    return Fault(INVALID, f"is not JSON ({reason}{hint})", field="body")


def number_lists(vectors: NDArray[np.float32]) -> list[bytes]:
    """Return each row of `vectors`, `[n, size]` float32, as a JSON array.

    A number has at most 9 digits, which determine a float32. Written as a double it would have 17.
    """
    from pydantic_core import to_json  # fifteen times as fast as the standard library

    doubles = vectors.astype(np.float64)
    with np.errstate(divide="ignore"):
        shift = _NUMBER_DIGITS - 1 - np.floor(np.log10(np.abs(doubles)))
    # These powers of ten are exact, so the quotient is the double that is nearest to the decimal number.
    powers = _POWERS[np.clip(shift, 0, len(_POWERS) - 1).astype(np.int64)]
    shown = np.where(shift < len(_POWERS), np.rint(doubles * powers) / powers, doubles)
    return [to_json(row.tolist()) for row in shown]
