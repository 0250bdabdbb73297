"""Sorted values of a field, in which a filter's condition is found by binary search.

values = FieldValues(b'["zh", "en", 2020]', "keyword")
values.meeting(Condition("lang", "=", ("zh",), "keyword"))  # [True, False, False]
values.ranks  # [2, 1, 0]
"""

from __future__ import annotations

import json
import operator
from array import array
from bisect import bisect_left, bisect_right
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Optional, TypeVar, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans, Integers
from paddle_ranker.errors import CheckpointError
from paddle_ranker.retrieval.values.facets import DATES, NUMBERS, Positions
from paddle_ranker.retrieval.values.filters import ORDERED, Condition
from paddle_ranker.retrieval.values.typed_values import (
    BOOLEAN,
    DATE,
    LARGE,
    MISSING,
    NUMBER,
    OBJECT,
    TEXT,
    TYPES,
    Value,
    ValueRange,
    order_value,
)
from paddle_ranker.retrieval.work.steps import AT_ONCE, Kept, Steps, in_order, order_of_numbers, places_in_order
from paddle_ranker.retrieval.work.turns import checked

_SEPARATOR = ", "
_BETWEEN = len(_SEPARATOR)
_PIECE = 1 << 16  # bytes of a line that are decoded at once
T = TypeVar("T")
_COMPARE: dict[str, Callable[..., Booleans]] = {  # type: ignore[explicit-any]  # of numbers, and of arrays of them
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip


def value_lists(line: NDArray[np.uint8]) -> Iterator[tuple[list[object], list[int]]]:
    """Yield lists of up to 256 values of a field, each with the byte positions where its values begin in the line.

    To parse all values at once would hold up other threads.

    line: a list in JSON, as `json.dumps` writes it

    Raises `ValueError` for any other line.
    """
    size, start, end, parse = _PIECE, len(b"["), len(line) - len(b"]"), json.JSONDecoder().raw_decode
    if bytes(line[:start]) != b"[" or bytes(line[end:]) != b"]":
        raise ValueError("a line is no list")
    while start < end:
        is_last, place, first = start + size >= end, 0, start
        text = getincrementaldecoder("utf-8")().decode(bytes(line[start : min(start + size, end)]), is_last)
        is_ascii, values, starts = text.isascii(), list[object](), list[int]()
        while place < len(text):
            try:
                value, after = parse(text, place)
            except ValueError:
                if is_last:
                    raise
                break  # the value goes on
            except RecursionError as error:
                raise ValueError("a value is nested too deeply") from error
            if not text.startswith(_SEPARATOR, after) and not (is_last and after == len(text)):
                if is_last or after + _BETWEEN <= len(text):
                    raise ValueError("a value does not end as it should")
                break
            values.append(value)
            starts.append(start)
            start += (after - place if is_ascii else len(text[place:after].encode())) + _BETWEEN
            place = after + _BETWEEN
            if len(values) == AT_ONCE:
                yield values, starts
                values, starts = [], []
        if values:
            yield values, starts
        size = _PIECE if start > first else 2 * size
    if start not in (end + _BETWEEN, len(b"[")):
        raise ValueError("a line ends with no value")


class _Arranged(NamedTuple):
    """Values of a field, arranged for searching. An item is a value, or an item of a list.

    starts: `[values + 1]`, where each value begins in the line
    kinds: `[items]`, kind of each item. In a field without lists each value is an item, and null has the kind `MISSING`
    positions: `[items]`, each boolean, number or date as a number, 0 for an item of another kind; empty if all items
        are of other kinds. Numbers of more than 53 bits are compared exactly, see `FieldValues._alike`
    texts: indices of the items that are texts, sorted by text
    owners: `[items]`, the code of the value that has the item; None if the field has no lists
    firsts: `[values + 1]`, index of the first item of each value; empty if the field has no lists
    """

    starts: Integers
    kinds: NDArray[np.uint8]
    positions: Positions
    texts: NDArray[np.int32]
    owners: Optional[Integers] = None
    firsts: Integers = np.empty(0, np.int64)

    @property
    def are_large(self) -> Booleans:
        """Which items are numbers so large that different ones may be equal as float64."""
        return (self.kinds == NUMBER) & (np.abs(self.positions) >= LARGE) if len(self.positions) else np.array(False)


class FieldValues:
    """Distinct values of a segment's field; a value takes 13 bytes of memory, a number or date 17.

    A value's code is its index among the values. The values are read when a method first needs them. Methods raise
    `CheckpointError` if `line` is not in the form of `json.dumps`.

    Args:
        line: the values as a list in JSON, as `json.dumps` writes it; the bytes are kept.
        type: type of the field, a name in `typed_values.TYPES`.
    """

    def __init__(self, line: NDArray[np.uint8], type: str):
        self._type, self._line = TYPES[type], line
        self._arranging, self._ranking = Kept(self._arrange), Kept(self._rank)

    @property
    def _arranged(self) -> _Arranged:
        return self._arranging.result()

    def _arrange(self) -> Steps[_Arranged]:
        """Read and arrange the values; raises `CheckpointError` if the line is not in the form of `json.dumps`."""
        starts, sizes, kinds, has_lists = array("q"), array("i"), bytearray(), False
        is_date, texts = self._type is TYPES["date"], list[tuple[str, int]]()
        dates, numbers = array("q"), array("d")
        try:
            for values, begins in value_lists(self._line):
                starts.extend(begins)
                for value in values:
                    items, has_lists = self._type.values(value), has_lists or isinstance(value, list)
                    sizes.append(len(items))
                    for item in items:
                        if item.kind == TEXT:
                            texts.append((str(item.of), len(kinds)))
                        kinds.append(item.kind)
                        position = 0 if isinstance(item.of, str) else item.of
                        if is_date:
                            dates.append(int(position))
                        else:
                            numbers.append(float(position))
                yield
        except ValueError as error:
            problem = "the values of a field are not as they were written; build the index anew"
            raise CheckpointError(problem) from error
        starts.append(len(self._line) - len(b"]") + _BETWEEN)
        text_places = yield from places_in_order(texts)
        counts, of_items = np.frombuffer(sizes, np.int32), np.frombuffer(bytes(kinds), np.uint8)
        positions: Positions = np.array(dates, np.int64) if is_date else np.array(numbers, np.float64)
        if not np.isin(of_items, (BOOLEAN, NUMBER, DATE)).any():
            positions = np.empty(0)
        if has_lists:
            owners, firsts = np.repeat(np.arange(len(counts)), counts), np.cumsum(np.append(0, counts))
            return _Arranged(np.frombuffer(starts, np.int64), of_items, positions, text_places, owners, firsts)
        codes, of_values = np.flatnonzero(counts), np.full(len(counts), MISSING, np.uint8)
        of_values[codes] = of_items
        if len(positions):
            positions = positions[np.maximum(np.cumsum(counts) - 1, 0)]
            positions[counts == 0] = 0
        texts_of = codes[text_places].astype(np.int32)
        return _Arranged(np.frombuffer(starts, np.int64), of_values, positions, texts_of)

    def __len__(self) -> int:
        return len(self._arranged.starts) - 1

    def values(self, code: int) -> tuple[Value, ...]:
        """Return the value with this code as its items: those of a list, one for another value, none for null."""
        return self._type.values(self._read(code))

    def numeric_values(self) -> Optional[tuple[str, NDArray[np.int32], Positions]]:
        """Return `facets.NUMBERS` or `facets.DATES`, the `ranks`, and the position of each rank, ascending.

        A position is a number, or the microseconds of a date since 1970. Returns None if there are lists, values of
        other kinds or of both kinds, or numbers so large that different ones are equal as float64.
        """
        arranged = self._arranged
        kinds = {*np.flatnonzero(np.bincount(arranged.kinds, minlength=OBJECT + 1)).tolist()} - {MISSING}
        if arranged.owners is not None or kinds - {NUMBER, DATE} or len(kinds) != 1 or arranged.are_large.any():
            return None
        ranks, firsts = self._ranking.result()
        return DATES if kinds == {DATE} else NUMBERS, ranks, arranged.positions[firsts]

    @property
    def ranks(self) -> NDArray[np.int32]:
        """Rank of each value among the distinct values, in the order of `order_value`, `[values]`; -1 for null.

        A list has the rank of its first item.
        """
        return self._ranking.result()[0]

    def doubled_rank(self, value: Value) -> int:
        """Return twice the rank of a value; if the field lacks the value, the odd number between its neighbours."""
        firsts = _Sorted(lambda code: self._order_of(code), self._ranking.result()[1])
        rank = bisect_left(firsts, value.order)
        return 2 * rank - (rank == len(firsts) or firsts[rank] != value.order)

    def _rank(self) -> Steps[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """Return the rank of each value, `[values]`, and for each rank the code of the first value that has it."""
        arranged = yield from self._arranging.steps()
        ranks, firsts = np.full(len(arranged.starts) - 1, -1, np.int32), array("i")
        if arranged.owners is None:
            codes = places = np.flatnonzero(arranged.kinds != MISSING)
        else:
            codes = np.flatnonzero(np.diff(arranged.firsts))
            places = arranged.firsts[codes]
        (kinds,) = np.nonzero(np.bincount(arranged.kinds[places]))
        if len(kinds) == 1 and kinds[0] in (BOOLEAN, NUMBER, DATE) and not arranged.are_large[places].any():
            positions = arranged.positions[places]
            order = yield from order_of_numbers(positions)
            is_new = np.append(True, np.diff(positions[order]) != 0)
            ranks[codes[order]] = np.cumsum(is_new) - 1
            return ranks, codes[order[is_new]].astype(np.int32)
        keys, start, last = list[tuple[tuple[object, ...], int]](), 0, None
        for values, _ in value_lists(self._line):
            for code, value in enumerate(values, start):
                if (first := order_value(self._type.values(value))) is not None:
                    keys.append((first.order, code))
            start += len(values)
            yield
        for run in (yield from in_order(keys)):
            for value_order, code in run:
                if value_order != last:
                    firsts.append(code)
                ranks[code], last = len(firsts) - 1, value_order
            yield
        return ranks, np.frombuffer(firsts, np.int32)

    def _order_of(self, code: int) -> tuple[object, ...]:
        value = order_value(self.values(code))
        assert value is not None
        return value.order

    def meeting(self, condition: Condition) -> Booleans:
        """Return which values meet a condition of the field's type, `[values] bool`; for lists see `Condition`."""
        if condition.operator in ORDERED:
            is_met = self._ordered(condition.operator, condition.intervals)
        else:
            is_met = self._equal(condition.intervals)
        if (owners := self._arranged.owners) is not None:
            is_met = np.bincount(owners[is_met], minlength=len(self)) > 0
            if any(interval.kind == MISSING for interval in condition.intervals):
                is_met |= np.diff(self._arranged.firsts) == 0
        return ~is_met if condition.operator == "!=" else is_met

    def _ordered(self, sign: str, intervals: Sequence[ValueRange]) -> Booleans:
        """Return which items compare by `sign` with one of the intervals, `[items] bool`.

        `<` and `>=` compare with an interval's low end, `<=` and `>` with its high end.
        """
        compare, arranged = _COMPARE[sign], self._arranged
        is_met, positions = np.zeros(len(arranged.kinds), bool), arranged.positions
        for interval in checked(intervals):
            bound = interval.low if sign in ("<", ">=") else interval.high
            if len(positions):
                is_met |= compare(positions, self._position(bound)) & (arranged.kinds == interval.kind)
                for place in checked(self._alike([interval])):
                    is_met[place] = compare(self._item(place).of, bound)
        return is_met

    def _equal(self, intervals: Sequence[ValueRange]) -> Booleans:
        """Return which items lie in one of the intervals, `[items] bool`."""
        arranged, positions = self._arranged, self._arranged.positions
        is_equal, texts = np.zeros(len(arranged.kinds), bool), _Sorted(self._text_at, arranged.texts)
        for kind in {interval.kind for interval in intervals}:
            of_kind, same_kind = arranged.kinds == kind, [interval for interval in intervals if interval.kind == kind]
            if kind == MISSING:
                is_equal |= of_kind
            elif kind == TEXT:
                for interval in checked(same_kind):
                    # Equal values have several spellings: 1.5 and "1.5" are one keyword.
                    same = slice(bisect_left(texts, str(interval.low)), bisect_right(texts, str(interval.low)))
                    is_equal[arranged.texts[same]] = True
            elif len(positions):
                bounds = sorted((self._position(interval.low), self._position(interval.high)) for interval in same_kind)
                lows, highs = np.array(bounds, positions.dtype).T
                places = np.searchsorted(lows, positions, "right") - 1 if len(same_kind) > 1 else np.array(0)
                highs = np.maximum.accumulate(highs)[places]
                is_equal |= (positions >= lows[0]) & (positions <= highs) & of_kind
                wanted = {interval.low for interval in same_kind}
                for place in checked(self._alike(same_kind)):
                    is_equal[place] = self._item(place).of in wanted
        return is_equal

    def _position(self, bound: Union[bool, int, float, str]) -> Union[int, float]:
        return int(bound) if self._arranged.positions.dtype == np.int64 else float(bound)

    def _alike(self, intervals: Sequence[ValueRange]) -> list[int]:
        """Return the indices of items that equal a large bound as float64, and so must be compared exactly."""
        large = [
            float(interval.low)
            for interval in intervals
            if interval.kind == NUMBER and abs(float(interval.low)) >= LARGE
        ]
        if not large:
            return []
        arranged = self._arranged
        places: list[int] = np.flatnonzero(np.isin(arranged.positions, large) & (arranged.kinds == NUMBER)).tolist()
        return places

    def _read(self, code: int) -> object:
        start, following = self._arranged.starts[code : code + 2].tolist()
        value: object = json.loads(bytes(self._line[start : following - _BETWEEN]))
        return value

    def _item(self, place: int) -> Value:
        """Return an item by its index among all items; a value that is no list is one item."""
        arranged = self._arranged
        if arranged.owners is None:
            return self.values(place)[0]
        owner = int(arranged.owners[place])
        return self.values(owner)[place - int(arranged.firsts[owner])]

    def _text_at(self, index: int) -> str:
        return str(self._item(index).of)


class _Sorted(Sequence[T]):
    """Keys in ascending order, each computed when it is read."""

    def __init__(self, read: Callable[[int], T], codes: NDArray[np.int32]):
        self._read, self._codes = read, codes

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, index: int) -> T:  # type: ignore[override]
        return self._read(int(self._codes[index]))
