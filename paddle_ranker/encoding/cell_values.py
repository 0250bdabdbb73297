"""Numbers and dates in the texts of cells and questions, as TAPAS reads them (Herzig et al., 2020).

values_in("from May 5, 2010")    # [(2010.0, 5.0, 5.0)]
values_in("1,200 or more")    # [1200.0]
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Optional, Union

from paddle_ranker.data.labels import number_of

Date = tuple[Optional[float], Optional[float], Optional[float]]  # year, month, day
Value = Union[float, Date]

# Formats of dates, each with the parts that it states; the first that fits counts.
_FORMATS = [
    ("%B", "m"), ("%Y", "y"), ("%Ys", "y"), ("%b %Y", "ym"), ("%B %Y", "ym"), ("%B %d", "md"), ("%b %d", "md"),
    ("%d %b", "md"), ("%d %B", "md"), ("%B %d, %Y", "ymd"), ("%d %B %Y", "ymd"), ("%m-%d-%Y", "ymd"),
    ("%Y-%m-%d", "ymd"), ("%Y-%m", "ym"), ("%d %b %Y", "ymd"), ("%b %d, %Y", "ymd"), ("%d.%m.%Y", "ymd"),
    ("%A, %b %d", "md"), ("%A, %B %d", "md"),
]  # fmt: skip
_SHAPES = {"%A": r"\w+", "%B": r"\w+", "%Y": r"\d{4}", "%b": r"\w{3}", "%d": r"\d{1,2}", "%m": r"\d{1,2}"}
_FIRST_YEAR, _LAST_YEAR = 1700, 2016
_MOST_WORDS = 5  # most words of a date
_NUMBER = re.compile(r"((^|\s)[+-])?((\.\d+)|(\d+(,\d\d\d)*(\.\d*)?))")
_ORDINAL = re.compile(r"(st|nd|rd|th)$")
_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve",
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth",
)
_NAMED = {word: float(number) for words in _WORDS for number, word in enumerate(words.split())}
_LEAST_SHARE = 0.7  # minimum share of a column's cells with values of its type; columns below have no values


def _pattern(form: str) -> re.Pattern[str]:
    shape = form.replace(".", r"\.").replace(" ", r"\s+")
    for field, pattern in _SHAPES.items():
        shape = shape.replace(field, pattern)
    return re.compile(f"^{shape}$")


_DATES = [(form, parts, _pattern(form)) for form, parts in _FORMATS]


def _date(text: str) -> Optional[Date]:
    text = re.sub(r"Sept\b", "Sep", text)
    for form, parts, pattern in _DATES:
        if not pattern.match(text):
            continue
        try:
            date = datetime.strptime(text, form)
        except ValueError:
            continue
        if _FIRST_YEAR <= date.year <= _LAST_YEAR:
            year, month, day = (
                float(number) if part in parts else None
                for part, number in zip("ymd", (date.year, date.month, date.day))
            )
            return year, month, day
    return None


def _number(text: str) -> Optional[float]:
    return number_of(_ORDINAL.sub("", text).replace(",", ""))


def _spans(text: str, words: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each span of one to `words` words; a word is a run of letters and digits."""
    starts: list[int] = []
    for place, char in enumerate(text):
        if not char.isalnum():
            continue
        if place == 0 or not text[place - 1].isalnum():
            starts.append(place)
        if place + 1 == len(text) or not text[place + 1].isalnum():
            for start in starts[-words:]:
                yield start, place + 1


@lru_cache(maxsize=1 << 16)
def values_in(text: str) -> tuple[Value, ...]:
    """Return the numbers and dates in a text, in order. A value within a longer value is left out."""
    text = " ".join(text.lower().split())
    values: dict[tuple[int, int], list[Value]] = {}
    for match in _NUMBER.finditer(text):
        number = _number(match.group())
        if number is not None:
            values.setdefault(match.span(), []).append(number)
    for span in _spans(text, 1):
        if span in values:
            continue
        word = text[slice(*span)]
        for number in (_number(word), _NAMED.get(word)):
            if number is not None:
                values.setdefault(span, []).append(number)
    for span in _spans(text, _MOST_WORDS):
        date = _date(text[slice(*span)])
        if date is not None:
            values.setdefault(span, []).append(date)
    kept: list[tuple[int, int]] = []
    for start, end in sorted(values, key=lambda span: (span[0] - span[1], span[0])):
        if not any(first <= start and end <= last for first, last in kept):
            kept.append((start, end))
    return tuple(value for span in sorted(kept) for value in values[span])


def column_values(cells: Sequence[str]) -> dict[int, Value]:
    """Return, by row, the first value of the column's type in each cell; a row without a value is absent.

    The column's type is the type, number or date, that more cells have; in a tie it is date. Returns {} if too few
    cells have a value of that type.
    """
    values_of_cells = [values_in(cell) for cell in cells]
    counts = Counter(kind for values in values_of_cells for kind in {isinstance(value, tuple) for value in values})
    if not counts or max(counts.values()) < len(cells) * _LEAST_SHARE:
        return {}
    is_date = counts[True] == max(counts.values())
    firsts = (
        next((value for value in values if isinstance(value, tuple) == is_date), None) for values in values_of_cells
    )
    return {row: value for row, value in enumerate(firsts) if value is not None}


def _key_of(values: Sequence[Value]) -> Optional[Callable[[Value], Any]]:
    """Return the function by whose result to compare values: a number itself, or the parts that all dates state.

    Returns None if the values cannot be compared: numbers with dates, or dates without a common part.
    """
    dates = [value for value in values if isinstance(value, tuple)]
    if not dates:
        return lambda value: value
    parts = [part for part in range(3) if all(date[part] is not None for date in dates)]
    if len(dates) < len(values) or not parts:
        return None
    return lambda date: tuple(date[part] for part in parts)  # type: ignore[index]


def ranks(values: dict[int, Value]) -> dict[int, tuple[int, int]]:
    """Return, by row, the rank of a column's value from the smallest and its rank from the largest.

    Ranks begin at 1; equal values have equal ranks. Returns {} if the values cannot be compared.
    """
    key = _key_of([*values.values()])
    if key is None:
        return {}
    keys = {row: key(value) for row, value in values.items()}
    order = {value: number for number, value in enumerate(sorted({*keys.values()}), 1)}
    return {row: (order[value], len(order) + 1 - order[value]) for row, value in keys.items()}


def relations(question: Sequence[Value], values: dict[int, Value]) -> dict[int, int]:
    """Return, by row, how the question's values compare with the row's value, as a sum.

    The sum has 1 if a value of the question equals the row's value, 2 if a value is less, and 4 if a value is greater.

    question: values in the question
    values: values of a column, by row
    """
    sums: dict[int, int] = {}
    for value in question:
        key = _key_of([*values.values(), value]) if values else None
        if key is None:
            continue
        in_question = key(value)
        for row, other in values.items():
            in_row = key(other)
            sums[row] = sums.get(row, 0) | (1 if in_question == in_row else 2 if in_question < in_row else 4)
    return sums
