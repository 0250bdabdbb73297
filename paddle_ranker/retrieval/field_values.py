"""The values of a field, arranged so that a condition of a filter is a search among them and not a pass over all.

values = FieldValues(b'["zh", "en", 2020]')
values.meeting(Condition("lang", "=", ("zh",)))  # [True, False, False]
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import partial
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.errors import CheckpointError
from paddle_ranker.metrics.ranking import Booleans, Integers
from paddle_ranker.retrieval.facets import DATES, NUMBERS, Positions
from paddle_ranker.retrieval.filters import LARGE, ORDER, Condition, double_of, kinds_of, period_of

_BETWEEN = len(b", ")


class FieldValues:
    """The different values of a field of a segment; what is kept of each takes 20 bytes, of a date 12 more.

    The values of a list are values of their own, and what one of them meets the list meets.

    Args:
        line: the values as a list in JSON, as `json.dumps` writes it; it is kept.

    Attributes: `kinds`, those of the values, as `kinds_of` says; `value(code)`, a value by its number.

    Raises `CheckpointError` for any other line.
    """

    def __init__(self, line: NDArray[np.uint8]):
        values, lengths = None, list[int]()
        try:
            values = json.loads(bytes(line))
            lengths = [len(json.dumps(value, ensure_ascii=False).encode("utf-8")) for value in values]
        except (ValueError, TypeError, RecursionError):
            pass
        if not isinstance(values, list) or sum(lengths) + _BETWEEN * max(len(lengths) - 1, 0) + len(b"[]") != len(line):
            raise CheckpointError("the values of a field are not as they were written; build the index anew")
        self._count, self._owners = len(values), None
        starts = np.cumsum([1, *(length + _BETWEEN for length in lengths)], dtype=np.int64)
        self.value: Callable[[int], object] = partial(_value, line, starts)
        self._read = self.value
        if any(isinstance(value, list) for value in values):
            several = [(value or [None]) if isinstance(value, list) else [value] for value in values]
            self._owners = np.repeat(np.arange(len(values)), [len(own) for own in several])
            firsts = np.cumsum([0, *map(len, several)])
            self._read = partial(_value_of_list, self._read, self._owners, firsts)
            values = [one for own in several for one in own]
        self.kinds: frozenset[str] = frozenset().union(*set(map(kinds_of, values)))
        numbers = map(double_of, values)
        self._numbers = np.array([np.nan if number is None else number for number in numbers], np.float64)
        self._constants = {code: value for code, value in enumerate(values) if value is None or isinstance(value, bool)}
        texts = {code: value for code, value in enumerate(values) if isinstance(value, str)}
        self._codes = np.array(sorted(texts, key=texts.__getitem__), np.int32)
        self._texts = _Texts(self._read, self._codes)
        periods = ((code, period_of(text)) for code, text in texts.items())
        dates = {code: period[0] for code, period in periods if period is not None}
        self._dated, self._times = np.array([*dates], np.int32), np.array([*dates.values()], np.int64)

    def __len__(self) -> int:
        return self._count

    def scale(self, declared: str = "") -> Optional[tuple[str, Integers, Positions]]:
        """Return `facets.NUMBERS` or `facets.DATES`, if all values are such, the values' codes, and their positions.

        Values without a position are null, and dates are as of `period_of`. Returns None for lists, for numbers so
        large that doubles do not tell them apart, and for texts of digits, unless a type is declared.

        declared: the field's type in the schema
        """
        texts = len(self._codes)
        others = len(self._numbers) - list(self._constants.values()).count(None)
        if self._owners is not None or not others or declared not in ("", "stored", NUMBERS, DATES):
            return None
        codes = np.flatnonzero(np.abs(self._numbers) < LARGE)
        if declared != DATES and len(codes) == others and (declared == NUMBERS or not texts):
            return NUMBERS, codes, self._numbers[codes]
        is_digits = texts and np.isfinite(self._numbers[self._codes]).all()
        if declared != NUMBERS and len(self._dated) == others and (declared == DATES or not is_digits):
            return DATES, self._dated.astype(np.int64), self._times
        return None

    def meeting(self, condition: Condition) -> Booleans:
        """Return which values meet a condition, as `Condition.holds` says, `[values] bool`."""
        found = self._meeting(condition)
        large = [number for number in map(float, condition.numbers) if abs(number) >= LARGE]
        for code in np.flatnonzero(np.isin(self._numbers, large)).tolist() if large else ():  # doubles do not tell
            found[code] = condition.meets(self._read(code))
        if self._owners is not None:
            found = np.bincount(self._owners[found], minlength=len(self)) > 0
        return ~found if condition.operator == "!=" else found

    def _meeting(self, condition: Condition) -> Booleans:
        """Return which values, those of lists one by one, meet a condition; `!=` as if it were `=`."""
        if condition.operator not in ORDER:
            return self._equal(condition)
        value, compared = condition.values[0], ORDER[condition.operator]
        wanted, found = double_of(value), np.zeros(len(self._numbers), bool)
        if wanted is not None:
            found = np.asarray(compared(self._numbers, wanted))  # type: ignore[arg-type]
        if condition.period is not None:
            found[self._dated[compared(self._times, condition.moment)]] = True  # type: ignore[arg-type]
        elif wanted is None:
            among = bisect_right if condition.operator in ("<=", ">") else bisect_left
            place = among(self._texts, str(value))
            found[self._codes[:place] if condition.operator in ("<", "<=") else self._codes[place:]] = True
        return found

    def _equal(self, condition: Condition) -> Booleans:
        found: Booleans = np.isin(self._numbers, [*map(float, condition.numbers)])
        found[self._codes] = False  # texts equal as they are written
        for text in condition.texts:
            found[self._codes[bisect_left(self._texts, text) : bisect_right(self._texts, text)]] = True
        for code, value in self._constants.items():
            found[code] = value in condition.constants
        return found


class _Texts:
    """The texts among the values, in the order of their characters; each is read when it is asked for."""

    def __init__(self, read: Callable[[int], object], codes: NDArray[np.int32]):
        self._read, self._codes = read, codes

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, place: int) -> str:
        return str(self._read(int(self._codes[place])))


def _value(line: NDArray[np.uint8], starts: NDArray[np.int64], code: int) -> object:
    found: object = json.loads(bytes(line[starts[code] : starts[code + 1] - _BETWEEN]))
    return found


def _value_of_list(read: Callable[[int], object], owners: Integers, firsts: Integers, code: int) -> object:
    owner = int(owners[code])
    found = read(owner)
    return (found or [None])[code - int(firsts[owner])] if isinstance(found, list) else found
