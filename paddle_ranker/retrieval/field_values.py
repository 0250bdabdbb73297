"""Sorted values of a field, in which a filter's condition is found by binary search.

values = FieldValues(b'["zh", "en", 2020]', "keyword")
values.meeting(Condition("lang", "=", ("zh",), "keyword"))  # [True, False, False]
values.ranks  # [2, 1, 0]
"""

from __future__ import annotations

import json
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Optional, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans, Integers
from paddle_ranker.errors import CheckpointError
from paddle_ranker.retrieval.facets import DATES, NUMBERS, Positions
from paddle_ranker.retrieval.filters import ORDERED, Condition
from paddle_ranker.retrieval.turns import checked, once
from paddle_ranker.retrieval.typed_values import (
    BOOLEAN,
    DATE,
    LARGE,
    MISSING,
    NUMBER,
    TEXT,
    TYPES,
    Value,
    ValueRange,
    order_value,
    text_order,
)

_BETWEEN = len(b", ")
_SORTED_AT_ONCE = 1 << 12  # keys that are sorted in one call, during which the GIL is held
K = TypeVar("K", bound=tuple[object, ...])
T = TypeVar("T")
_COMPARE: dict[str, Callable[..., Booleans]] = {  # type: ignore[explicit-any]  # of numbers, and of arrays of them
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip


class FieldValues:
    """Distinct values of a segment's field; a value takes 13 bytes of memory, a number or date 17.

    A value's code is its index among the values. A list meets a condition if one of its items does.

    Args:
        line: the values as a list in JSON, as `json.dumps` writes it; the bytes are kept.
        type: type of the field, a name in `typed_values.TYPES`.

    Raises `CheckpointError` for any other line.
    """

    def __init__(self, line: NDArray[np.uint8], type: str):
        values, lengths = None, list[int]()
        try:
            values = json.loads(bytes(line))
            lengths = [len(json.dumps(value, ensure_ascii=False).encode("utf-8")) for value in values]
        except (ValueError, TypeError, RecursionError):
            pass
        if not isinstance(values, list) or sum(lengths) + _BETWEEN * max(len(lengths) - 1, 0) + len(b"[]") != len(line):
            raise CheckpointError("the values of a field are not as they were written; build the index anew")
        self._count, self._type, self._line, self._owners = len(values), TYPES[type], line, None
        self._starts = np.cumsum([1, *(length + _BETWEEN for length in lengths)], dtype=np.int64)
        flat: Iterable[Optional[Value]] = (next(iter(self._type.values(value)), None) for value in values)
        if any(isinstance(value, list) for value in values):
            item_lists = [self._type.values(value) for value in values]
            self._owners = np.repeat(np.arange(len(values)), [len(items) for items in item_lists])
            self._firsts = np.cumsum([0, *map(len, item_lists)])
            flat = (item for items in item_lists for item in items)
        kinds, numbers, texts = bytearray(), list[Union[int, float]](), dict[int, str]()
        for index, item in enumerate(flat):
            kinds.append(MISSING if item is None else item.kind)
            numbers.append(0 if item is None or isinstance(item.of, str) else item.of)
            if item is not None and item.kind == TEXT:
                texts[index] = str(item.of)
        self._kinds = np.frombuffer(bytes(kinds), np.uint8)
        # Positions of booleans, numbers and dates. Numbers of more than 53 bits are compared exactly, see `_alike`.
        self._positions: Positions = np.empty(0)
        if DATE in kinds:
            self._positions = np.array(numbers, np.int64)
        elif NUMBER in kinds or BOOLEAN in kinds:
            self._positions = np.array(numbers, np.float64)
        self._texts = np.array(sorted(texts, key=texts.__getitem__), np.int32)

    def __len__(self) -> int:
        return self._count

    def values(self, code: int) -> tuple[Value, ...]:
        """Return the items of the value with this code: a list's items, a single value, or none for null."""
        return self._type.values(self._read(code))

    def numeric_values(self) -> Optional[tuple[str, Integers, Positions]]:
        """Return `facets.NUMBERS` or `facets.DATES`, the codes of the values other than null, and their positions.

        A position is a number, or the microseconds of a date since 1970. Returns None if there are lists, values of
        other kinds or of both kinds, or numbers so large that different ones are equal as float64.
        """
        codes = np.flatnonzero(self._kinds != MISSING)
        positions = self._positions[codes] if len(self._positions) else self._positions
        kinds = {*self._kinds[codes].tolist()}
        if self._owners is not None or kinds - {NUMBER, DATE} or len(kinds) != 1 or self._are_large.any():
            return None
        return DATES if kinds == {DATE} else NUMBERS, codes, positions

    @property
    def _are_large(self) -> Booleans:
        """Which items are numbers so large that different ones may be equal as float64."""
        return (self._kinds == NUMBER) & (np.abs(self._positions) >= LARGE) if len(self._positions) else np.array(False)

    @property
    def ranks(self) -> NDArray[np.int32]:
        """Rank of each value among the distinct values, in the order of `order_value`, `[values]`; -1 for null.

        A list has the rank of its first item.
        """
        return self._ranked[0]

    def doubled_rank(self, value: Value) -> int:
        """Return twice the rank of a value; if the field lacks the value, the odd number between its neighbours."""
        firsts = _Sorted(lambda code: self._order_of(code), self._ranked[1])
        rank = bisect_left(firsts, value.order)
        return 2 * rank - (rank == len(firsts) or firsts[rank] != value.order)

    @once
    def _ranked(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Rank of each value, `[values]`, and code of the first value of each rank."""
        ranks = np.full(self._count, -1, np.int32)
        if self._owners is None:
            codes = indices = np.flatnonzero(self._kinds != MISSING)
        else:
            codes = np.flatnonzero(np.diff(self._firsts))
            indices = self._firsts[codes]
        kinds = np.unique(self._kinds[indices])
        if len(kinds) == 1 and kinds[0] in (BOOLEAN, NUMBER, DATE) and not self._are_large[indices].any():
            _, firsts, inverse = np.unique(self._positions[indices], return_index=True, return_inverse=True)
            ranks[codes] = inverse
            return ranks, codes[firsts].astype(np.int32)
        first_codes, last = list[int](), None
        for order, code in _in_order((self._order_of(code), code) for code in codes.tolist()):
            if order != last:
                first_codes.append(code)
            ranks[code], last = len(first_codes) - 1, order
        return ranks, np.array(first_codes, np.int32)

    def _order_of(self, code: int) -> tuple[object, ...]:
        value = order_value(self.values(code))
        assert value is not None
        return value.order

    def meeting(self, condition: Condition) -> Booleans:
        """Return which values meet a condition of their type, `[values] bool`."""
        if condition.operator in ORDERED:
            is_met = self._ordered(condition.operator, condition.intervals)
        else:
            is_met = self._equal(condition.intervals)
        if self._owners is not None:
            is_met = np.bincount(self._owners[is_met], minlength=len(self)) > 0
            if any(interval.kind == MISSING for interval in condition.intervals):
                is_met |= np.diff(self._firsts) == 0
        return ~is_met if condition.operator == "!=" else is_met

    def _ordered(self, sign: str, intervals: Sequence[ValueRange]) -> Booleans:
        """Return which items compare by `sign` with one of the intervals, `[items] bool`.

        `<` and `>=` compare with an interval's low end, `<=` and `>` with its high end.
        """
        compare, is_met = _COMPARE[sign], np.zeros(len(self._kinds), bool)
        for interval in intervals:
            bound = interval.low if sign in ("<", ">=") else interval.high
            if interval.kind == TEXT:
                among = bisect_right if sign in ("<=", ">") else bisect_left
                orders = _Sorted(lambda code: text_order(self._text_at(code)), self._folded)
                index = among(orders, text_order(str(bound)))
                is_met[self._folded[:index] if sign in ("<", "<=") else self._folded[index:]] = True
            elif len(self._positions):
                is_met |= compare(self._positions, self._position(bound)) & (self._kinds == interval.kind)
                for index in self._alike([interval]):
                    is_met[index] = compare(self._item(index).of, bound)
        return is_met

    def _equal(self, intervals: Sequence[ValueRange]) -> Booleans:
        """Return which items lie in one of the intervals, `[items] bool`."""
        is_equal = np.zeros(len(self._kinds), bool)
        for kind in {interval.kind for interval in intervals}:
            of_kind, same_kind = self._kinds == kind, [interval for interval in intervals if interval.kind == kind]
            if kind == MISSING:
                is_equal |= of_kind
            elif kind == TEXT:
                for interval in same_kind:
                    index = bisect_left(_Sorted(self._text_at, self._texts), str(interval.low))
                    # Equal values have several spellings: 1.5 and "1.5" are one keyword.
                    while index < len(self._texts) and self._text_at(code := int(self._texts[index])) == interval.low:
                        is_equal[code], index = True, index + 1
            elif len(self._positions):
                bounds = sorted((self._position(interval.low), self._position(interval.high)) for interval in same_kind)
                lows, highs = np.array(bounds, self._positions.dtype).T
                indices = np.searchsorted(lows, self._positions, "right") - 1 if len(same_kind) > 1 else np.array(0)
                highs = np.maximum.accumulate(highs)[indices]
                is_equal |= (self._positions >= lows[0]) & (self._positions <= highs) & of_kind
                wanted = {interval.low for interval in same_kind}
                for index in self._alike(same_kind):
                    is_equal[index] = self._item(index).of in wanted
        return is_equal

    def _position(self, bound: Union[bool, int, float, str]) -> Union[int, float]:
        return int(bound) if self._positions.dtype == np.int64 else float(bound)

    def _alike(self, intervals: Sequence[ValueRange]) -> list[int]:
        """Return the indices of items to compare exactly: as float64, they equal a large bound of an interval."""
        large = [
            float(interval.low)
            for interval in intervals
            if interval.kind == NUMBER and abs(float(interval.low)) >= LARGE
        ]
        if not large:
            return []
        indices: list[int] = np.flatnonzero(np.isin(self._positions, large) & (self._kinds == NUMBER)).tolist()
        return indices

    @once
    def _folded(self) -> NDArray[np.int32]:
        """Indices of the texts in the order of `typed_values.text_order`, for `<` and `>` between texts."""
        keys = ((text_order(self._text_at(code)), code) for code in self._texts.tolist())
        return np.array([code for _, code in _in_order(keys)], np.int32)

    def _read(self, code: int) -> object:
        value: object = json.loads(bytes(self._line[self._starts[code] : self._starts[code + 1] - _BETWEEN]))
        return value

    def _item(self, index: int) -> Value:
        """Return an item by its index among all items; a value that is no list is one item."""
        if self._owners is None:
            return self.values(index)[0]
        owner = int(self._owners[index])
        return self.values(owner)[index - int(self._firsts[owner])]

    def _text_at(self, index: int) -> str:
        return str(self._item(index).of)


def _in_order(keys: Iterable[tuple[K, int]]) -> Iterator[tuple[K, int]]:
    """Yield (key, number) pairs sorted by key; other searches may run between blocks."""
    rest, runs = iter(checked(keys)), list[list[tuple[K, int]]]()
    while run := sorted(islice(rest, _SORTED_AT_ONCE)):
        runs.append(run)
    return checked(merge(*runs))


class _Sorted(Sequence[T]):
    """Keys in ascending order, each computed when it is read."""

    def __init__(self, read: Callable[[int], T], codes: NDArray[np.int32]):
        self._read, self._codes = read, codes

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, index: int) -> T:  # type: ignore[override]
        return self._read(int(self._codes[index]))
