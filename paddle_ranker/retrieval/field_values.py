"""The values of a field, arranged so that a condition of a filter is a search among them and not a pass over all.

values = FieldValues(b'["zh", "en", 2020]')
values.meeting(Condition("lang", "=", ("zh",)))  # [True, False, False]
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.data.labels import number_of
from paddle_ranker.errors import CheckpointError
from paddle_ranker.metrics.ranking import Booleans
from paddle_ranker.retrieval.filters import LARGE, ORDER, Condition

_BETWEEN = len(b", ")


class FieldValues:
    """The different values of a field of a segment; what is kept of each takes 20 bytes.

    Args:
        line: the values as a list in JSON, as `json.dumps` writes it; it is kept.

    Raises `CheckpointError` for any other line.
    """

    def __init__(self, line: NDArray[np.uint8]):
        values = json.loads(bytes(line))
        lengths = [len(json.dumps(value, ensure_ascii=False).encode("utf-8")) for value in values]
        if sum(lengths) + _BETWEEN * max(len(values) - 1, 0) + len(b"[]") != len(line):
            raise CheckpointError("the values of a field are not as they were written; build the index anew")
        numbers = [number_of(value) for value in values]
        self._numbers = np.array([np.nan if number is None else number for number in numbers], np.float64)
        self._truths = {value: code for code, value in enumerate(values) if isinstance(value, bool)}
        texts = {
            code: str(value)
            for code, (value, number) in enumerate(zip(values, numbers))
            if number is None and isinstance(value, (str, int, float)) and not isinstance(value, bool)
        }
        self._codes = np.array(sorted(texts, key=texts.__getitem__), np.int32)
        starts = np.cumsum([1, *(length + _BETWEEN for length in lengths)], dtype=np.int64)
        self._read = partial(_value, line, starts)
        self._texts = _Texts(self._read, self._codes)

    def __len__(self) -> int:
        return len(self._numbers)

    def meeting(self, condition: Condition) -> Booleans:
        """Return which values meet a condition, as `Condition.holds` says, `[values] bool`."""
        found = self._meeting(condition)
        large = [number for number in map(float, condition.numbers) if abs(number) >= LARGE]
        for code in np.flatnonzero(np.isin(self._numbers, large)).tolist() if large else ():  # doubles do not tell
            found[code] = condition.holds(self._read(code))
        return found

    def _meeting(self, condition: Condition) -> Booleans:
        if condition.operator in ("=", "in", "!="):
            found = self._equal(condition)
            return ~found if condition.operator == "!=" else found
        wanted, compared = number_of(condition.values[0]), ORDER[condition.operator]
        if wanted is not None:
            return np.asarray(compared(self._numbers, wanted))  # type: ignore[arg-type]
        among = bisect_right if condition.operator in ("<=", ">") else bisect_left
        place = among(self._texts, condition.values[0])
        found = np.zeros(len(self), bool)
        found[self._codes[:place] if condition.operator in ("<", "<=") else self._codes[place:]] = True
        return found

    def _equal(self, condition: Condition) -> Booleans:
        found: Booleans = np.isin(self._numbers, [*map(float, condition.numbers)])
        for text in condition.texts:
            place = bisect_left(self._texts, text)
            if place < len(self._texts) and self._texts[place] == text:
                found[self._codes[place]] = True
        for truth, code in self._truths.items():
            found[code] = str(truth).lower() in condition.lower
        return found


class _Texts:
    """The values that are no numbers and no truth values, in the order of their characters; each is read when asked."""

    def __init__(self, read: Callable[[int], object], codes: NDArray[np.int32]):
        self._read, self._codes = read, codes

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, place: int) -> str:
        return str(self._read(int(self._codes[place])))


def _value(line: NDArray[np.uint8], starts: NDArray[np.int64], code: int) -> object:
    found: object = json.loads(bytes(line[starts[code] : starts[code + 1] - _BETWEEN]))
    return found
