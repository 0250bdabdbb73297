"""Count many numbers or dates of a field by ranges with round bounds, which filters take.

ranges_of("number", [1994, 2003, 2011, ...])  # 1990 to 2000, 2000 to 2010, ...
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import count
from typing import NamedTuple, Optional, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Floats, Integers
from paddle_ranker.errors import ParameterError, quoted
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.typed_values import DAY, TYPES, Value, moment_text
from paddle_ranker.retrieval.work.steps import in_order, run_steps
from paddle_ranker.retrieval.work.turns import checked

NUMBERS, DATES = "number", "date"
MOST_RANGES, FEW_VALUES = 10, 12  # most ranges of a field; up to `FEW_VALUES` values are counted one by one
_EPOCH = date(1970, 1, 1).toordinal()
_SKEWED = 0.6  # if an equally wide range has a larger share of the values, widths grow with the numbers
_DAYS, _MONTHS, _YEARS = (1, 2, 5, 10), (1, 3, 6), (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
Bound = Union[int, float, str]
Positions = Union[Floats, Integers]


class Wanted(NamedTuple):
    """Request to count the values of a field.

    type: type of the field, a name in `typed_values.TYPES`
    where: only documents that meet this filter are counted; None: all
    """

    type: str
    where: Optional[Filter]


Facets = Mapping[str, Wanted]  # by field
Counts = Counter[Value]


@dataclass(frozen=True)
class Range:
    """Range of values, and number of documents in the range.

    is_closed: whether the range includes `end`
    """

    start: Bound
    end: Bound
    is_closed: bool
    count: int

    @property
    def condition(self) -> dict[str, Bound]:
        """The range as a condition for `Filter.of`: `{"gte": 1990, "lt": 2000}`."""
        return {"gte": self.start, "lte" if self.is_closed else "lt": self.end}


class Scale(NamedTuple):
    """Distribution of a field's numbers or dates over documents.

    kind: `NUMBERS`, or `DATES`, which are microseconds since 1970
    positions: `[n]`, the distinct values, ascending, at least one
    counts: `[n]`, number of documents with each value
    """

    kind: str
    positions: Positions
    counts: Integers

    @property
    def ends(self) -> tuple[Bound, Bound]:
        """The least and the greatest value: numbers, or dates as texts such as 2020-01-31."""
        low, high = self.positions[[0, -1]].tolist()
        return (_number(low), _number(high)) if self.kind == NUMBERS else (moment_text(low, 2), moment_text(high, 2))


class FieldScale(NamedTuple):
    """Distribution of the numbers or dates that documents have in a field.

    scale: the distribution; None if the field has no numbers or dates, or `has_others`
    has_others: whether the field also has other values, or has both numbers and dates
    is_large: whether the field has too many values to read them all
    """

    scale: Optional[Scale]
    has_others: bool = False
    is_large: bool = False

    @classmethod
    def merged(cls, parts: Sequence[FieldScale], is_large: bool = False) -> FieldScale:
        """Merge the distributions of several segments or shards."""
        scales = [part.scale for part in parts if part.scale is not None]
        is_large = is_large or any(part.is_large for part in parts)
        has_others = any(part.has_others for part in parts) or len({scale.kind for scale in scales}) > 1
        if has_others or not scales:
            return cls(None, has_others, is_large)
        positions = np.concatenate([scale.positions for scale in scales])
        order = np.argsort(positions, kind="stable")  # merges the parts, each of which is in order
        positions, counts = positions[order], np.concatenate([scale.counts for scale in scales])[order]
        starts = np.flatnonzero(np.append(True, np.diff(positions) != 0))
        positions, counts = positions[starts], np.add.reduceat(counts, starts)
        is_counted = counts > 0
        scale = Scale(scales[0].kind, positions[is_counted], counts[is_counted]) if is_counted.any() else None
        return cls(scale, False, is_large)

    @property
    def ranges(self) -> Optional[dict[str, int]]:
        """Number of documents by range, each a condition in JSON; None if values are counted one by one instead."""
        if self.scale is None or not (self.is_large or len(self.scale.positions) > FEW_VALUES):
            return None
        return {json.dumps(interval.condition): interval.count for interval in ranges_of(*self.scale)}


class FieldSample(NamedTuple):
    """Sample of a field's values.

    type: type of the field, a name in `typed_values.TYPES`
    values: distinct values; for a list, its items
    has_lists: whether some documents have lists
    are_all: whether the sample holds all values
    """

    type: str
    values: list[Value]
    has_lists: bool = False
    are_all: bool = True

    @classmethod
    def of(cls, type: str, values: Sequence[object]) -> FieldSample:
        """Make a sample of the values that some documents have in a field."""
        items = {item.key: item for value in values for item in TYPES[type].values(value)}
        return cls(type, [*items.values()], any(isinstance(value, list) for value in values))

    @classmethod
    def merged(cls, samples: Sequence[FieldSample]) -> FieldSample:
        """Merge the samples of several segments or shards; they must have the same type."""
        items = {item.key: item for sample in samples for item in sample.values}
        has_lists, are_all = any(sample.has_lists for sample in samples), all(sample.are_all for sample in samples)
        return cls(samples[0].type, [*items.values()], has_lists, are_all)


def facets_of(
    wanted: Facets,
    scales: Callable[[], Sequence[Mapping[str, FieldScale]]],
    values: Callable[[Facets], Sequence[Mapping[str, Counts]]],
) -> dict[str, dict[str, int]]:
    """Return counts of documents by field and range, or by field and value; see `Matches.facets`.

    wanted: the fields to count
    scales: called without arguments; returns the distributions by field of each segment or shard
    values: called with the fields whose values are counted one by one; returns counts by field of each segment or shard
    """
    of_parts, facets = scales(), dict[str, dict[str, int]]()
    of_fields = {name: FieldScale.merged([part[name] for part in of_parts]) for name in wanted}
    others = {name: field for name, field in wanted.items() if of_fields[name].ranges is None}
    for name in others:
        if of_fields[name].is_large:
            raise ParameterError("facets", f"{quoted(name)} has too many values to count")
    counted = values(others) if others else ()
    for name in wanted:
        counts = sum((part[name] for part in counted if name in part), Counts())  # without counts of 0
        facets[name] = of_fields[name].ranges or _spelled(counts)
    return facets


def _spelled(counts: Counts) -> dict[str, int]:
    """Return the counts by value in JSON, the most frequent first.

    All dates are written with the precision of the most precise date, such as days; counts of dates that are then
    written alike are summed.
    """
    unit, spelled = max((value.unit for value in checked(counts)), default=0), dict[str, int]()
    keys = [(value.order, number, value) for number, value in enumerate(checked(counts))]
    for run in run_steps(in_order(keys)):
        for _, _, value in checked(run):
            text = json.dumps(value.json(unit), ensure_ascii=False)
            spelled[text] = spelled.get(text, 0) + counts[value]
    by_count = run_steps(in_order([(-count, number, text) for number, (text, count) in enumerate(spelled.items())]))
    return {text: -count for run in by_count for count, _, text in run}


def ranges_of(kind: str, positions: Positions, counts: Integers) -> list[Range]:
    """Return the ranges that have values, ascending, with their counts; the arguments are the fields of a `Scale`.

    The last range of numbers may include its end. A range of dates never includes its end.
    """
    low, high = positions.min(), positions.max()
    if kind == DATES:
        bounds, names = _date_bounds(int(low), int(high))
        return _counted(np.array(bounds, np.int64), names, positions, counts)
    numbers = _equal_bounds(float(low), float(high))
    equal = _counted(np.array(numbers), numbers, positions, counts)
    if low < 0 or high == 0 or _most(equal) <= _SKEWED * int(counts.sum()):
        return equal
    numbers = _growing_bounds(positions[positions > 0], has_zero=bool(low == 0))
    return min(equal, _counted(np.array(numbers), numbers, positions, counts), key=_most)


def _most(ranges: list[Range]) -> int:
    return max(interval.count for interval in ranges)


def _counted(
    bounds: Union[NDArray[np.float64], NDArray[np.int64]], names: list[Bound], positions: Positions, counts: Integers
) -> list[Range]:
    is_closed = bool(positions.max() >= bounds[-1])
    indices = np.clip(np.searchsorted(bounds, positions, "right") - 1, 0, len(bounds) - 2)
    totals = np.bincount(indices, weights=counts, minlength=len(bounds) - 1).astype(np.int64).tolist()
    last = len(totals) - 1
    return [
        Range(names[index], names[index + 1], is_closed and index == last, total)
        for index, total in enumerate(totals)
        if total
    ]


def _round_steps(least: float) -> Iterator[tuple[float, int]]:
    """Yield steps 1, 2 and 5 times a power of ten, from about `least` up, each with its number of decimals."""
    for power in count(math.floor(math.log10(least))):
        for factor in (1, 2, 5):
            yield float(f"{factor}e{power}"), max(0, -power)


def _equal_bounds(low: float, high: float) -> list[Bound]:
    """Return equally spaced bounds, multiples of a round step, from at most `low` to at least `high`."""
    steps = _round_steps((high - low) / MOST_RANGES or 1.0)
    step, decimals = next(
        (step, decimals) for step, decimals in steps if math.ceil(high / step) - math.floor(low / step) <= MOST_RANGES
    )
    first, last = math.floor(low / step), math.ceil(high / step)
    # Multiples are rounded, because 3 * 0.1 is not 0.3.
    return [_number(round(number * step, decimals)) for number in range(first, max(last, first + 1) + 1)]


def _growing_bounds(positive: Positions, has_zero: bool) -> list[Bound]:
    """Return bounds around positive numbers, 1, 2, 5, 10, ... or powers of ten; the first bound is 0 if `has_zero`."""
    low, high = float(positive.min()), float(positive.max())
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    bounds = [float(f"{factor}e{power}") for power in powers for factor in (1, 2, 5)]
    first, last = bisect_right(bounds, low) - 1, bisect_left(bounds, high)
    if last - first + has_zero > MOST_RANGES:
        step = math.ceil(len(powers) / (MOST_RANGES - has_zero))
        bounds = [float(f"1e{power}") for power in range(powers[0], powers[-1] + step, step)]
        first, last = bisect_right(bounds, low) - 1, bisect_left(bounds, high)
    return [*([0] if has_zero else []), *map(_number, bounds[first : max(last, first + 1) + 1])]


def _number(value: float) -> Bound:
    return int(value) if value.is_integer() else value


def _date_bounds(low: int, high: int) -> tuple[list[int], list[Bound]]:
    """Return the bounds of ranges that cover two dates: in microseconds, and as texts.

    Neighbouring bounds are one round number of days, months or years apart.

    low, high: the dates, in microseconds since 1970
    """
    start, end = (_date(_EPOCH + at // DAY) for at in (low, high))
    months = 12 * (end.year - start.year) + end.month - start.month + 1
    spans = (
        (end.toordinal() - start.toordinal() + 1, _DAYS, start.toordinal(), len("2020-01-01")),
        (months, _MONTHS, 12 * start.year + start.month - 1, len("2020-01")),
        (end.year - start.year + 1, _YEARS, start.year, len("2020")),
    )
    fitting = ((step, *spec) for spec in spans for step in spec[1] if spec[0] <= (MOST_RANGES - 1) * step)
    step, span, _, first, characters = next(fitting)
    units = range(step * (first // step), first + span + step, step)
    if characters == len("2020-01-01"):
        dates = [_date(unit) for unit in units]
    elif characters == len("2020-01"):
        dates = [_month(*divmod(unit, 12)) for unit in units]
    else:
        dates = [_month(unit, 0) for unit in units]
    microseconds = [DAY * (day.toordinal() - _EPOCH) for day in dates]
    return microseconds, [day.isoformat()[:characters] for day in dates]


def _date(ordinal: int) -> date:
    return date.fromordinal(min(max(1, ordinal), date.max.toordinal()))


def _month(year: int, month: int) -> date:
    if year > date.max.year:
        return date.max.replace(day=1)
    return date(max(1, year), month + 1, 1)
