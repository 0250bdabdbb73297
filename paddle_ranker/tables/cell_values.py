"""Numbers and dates in the texts of cells and questions, as TAPAS reads them (Herzig et al., 2020).

values_in("from May 5, 2010")    # [(2010.0, 5.0, 5.0)]
values_in("1,200 or more")    # [1200.0]
"""

from __future__ import annotations

import calendar
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Optional, Union

from paddle_ranker.data.rows.labels import number_of

Date = tuple[Optional[float], Optional[float], Optional[float]]  # year, month, day
Value = Union[float, Date]

# Formats of dates, each with the parts that it states; the first that fits counts.
_FORMATS = [
    ("%B", "m"), ("%Y", "y"), ("%Ys", "y"), ("%b %Y", "ym"), ("%B %Y", "ym"), ("%B %d", "md"), ("%b %d", "md"),
    ("%d %b", "md"), ("%d %B", "md"), ("%B %d, %Y", "ymd"), ("%d %B %Y", "ymd"), ("%m-%d-%Y", "ymd"),
    ("%Y-%m-%d", "ymd"), ("%Y-%m", "ym"), ("%d %b %Y", "ymd"), ("%b %d, %Y", "ymd"), ("%d.%m.%Y", "ymd"),
    ("%A, %b %d", "md"), ("%A, %B %d", "md"),
]  # fmt: skip
_SHAPES = {
    "%A": f"(?:{'|'.join(calendar.day_name)})", "%B": f"(?:{'|'.join(calendar.month_name[1:])})", "%Y": r"\d{4}",
    "%b": f"(?:{'|'.join(calendar.month_abbr[1:])})", "%d": r"\d{1,2}", "%m": r"\d{1,2}",
}  # fmt: skip
_FIRST_YEAR, _LAST_YEAR = 1700, 2016
_NUMBER = re.compile(r"((^|\s)[+-])?((\.\d+)|(\d+(,\d\d\d)*(\.\d*)?))")
_WORD = re.compile(r"[^\W_]+")
_ORDINAL = re.compile(r"(st|nd|rd|th)$")
_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve",
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth",
)
_NAMED = {word: float(number) for words in _WORDS for number, word in enumerate(words.split())}
_MOST_CHARACTERS = 2048  # of a cell or question in which values are looked for; a model of 512 tokens reads fewer
_KEPT_CHARACTERS = 64  # of a text whose values are kept: those of a caller's long texts would take memory for ever
_LEAST_SHARE = 0.7  # minimum share of a column's cells with values of its type; columns below have no values


def _pattern(form: str) -> re.Pattern[str]:
    shape = form.replace(".", r"\.").replace(" ", r"\s+")
    for field, pattern in _SHAPES.items():
        shape = shape.replace(field, pattern)
    return re.compile(rf"(?<![^\W_])(?=({shape})(?![^\W_]))", re.IGNORECASE)  # dates may overlap, hence the lookahead


_DATES = [(form, parts, _pattern(form)) for form, parts in _FORMATS]


@lru_cache(maxsize=1 << 14)
def _date(text: str, form: str, parts: str) -> Optional[Date]:
    try:
        date = datetime.strptime(text, form)
    except ValueError:
        return None
    if not _FIRST_YEAR <= date.year <= _LAST_YEAR:
        return None
    year, month, day = (
        float(number) if part in parts else None for part, number in zip("ymd", (date.year, date.month, date.day))
    )
    return year, month, day


def _number(text: str) -> Optional[float]:
    return number_of(_ORDINAL.sub("", text).replace(",", ""))


def values_in(text: str) -> tuple[Value, ...]:
    """Return the numbers and dates in the first 2,048 characters of a text, in order.

    A value within a longer value is left out.
    """
    text = " ".join(text[: 4 * _MOST_CHARACTERS].lower().split())[:_MOST_CHARACTERS]
    return _kept_values(text) if len(text) <= _KEPT_CHARACTERS else _values(text)


def _values(text: str) -> tuple[Value, ...]:
    values: dict[tuple[int, int], list[Value]] = {}
    for match in _NUMBER.finditer(text):
        number = _number(match.group())
        if number is not None:
            values.setdefault(match.span(), []).append(number)
    for match in _WORD.finditer(text):
        if match.span() in values:
            continue
        for number in (_number(match.group()), _NAMED.get(match.group())):
            if number is not None:
                values.setdefault(match.span(), []).append(number)
    dates: dict[tuple[int, int], Date] = {}
    for form, parts, pattern in _DATES:
        for match in pattern.finditer(text):
            if match.span(1) not in dates and (date := _date(match[1], form, parts)) is not None:
                dates[match.span(1)] = date
    for span, date in dates.items():
        values.setdefault(span, []).append(date)
    kept, last = list[tuple[int, int]](), -1
    for start, end in sorted(values, key=lambda span: (span[0], -span[1])):
        if end > last:  # else a span that begins at or before it reaches as far
            kept.append((start, end))
            last = end
    return tuple(value for span in kept for value in values[span])


_kept_values = lru_cache(maxsize=1 << 14)(_values)


def column_values(cells: Sequence[str]) -> dict[int, Value]:
    """Return, by row, the first value of the column's type in each cell; a row without a value is absent.

    The column's type is the type, number or date, that more cells have; in a tie it is date. Returns {} if too few
    cells have a value of that type.
    """
    values_of_cells = [values_in(cell) if cell else () for cell in cells]
    counts = Counter(
        kind for values in values_of_cells if values for kind in {isinstance(value, tuple) for value in values}
    )
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
    dates = [value for value in values.values() if isinstance(value, tuple)]
    if 0 < len(dates) < len(values):
        return {}
    parts = tuple(part for part in range(3) if all(date[part] is not None for date in dates)) if dates else None
    sums: dict[int, int] = {}
    for common, (asked, least, most) in _summaries(tuple(question), parts).items():
        for row, value in values.items():
            key: Any = value if common is None else tuple(value[part] for part in common)  # type: ignore[index]
            sums[row] = sums.get(row, 0) | (key in asked) | 2 * (least < key) | 4 * (most > key)
    return sums


@lru_cache(maxsize=1 << 6)
def _summaries(
    question: tuple[Value, ...], parts: Optional[tuple[int, ...]]
) -> dict[Optional[tuple[int, ...]], tuple[frozenset[Any], Any, Any]]:
    """Return the values of a question that can be compared with a column's: all of them, the least and the greatest.

    They are grouped by the parts of dates that both state.

    parts: parts that all dates of the column state; None for a column of numbers
    """
    groups: dict[Optional[tuple[int, ...]], set[Any]] = {}
    for value in question:
        if not isinstance(value, tuple):
            if parts is None:
                groups.setdefault(None, set()).add(value)
        elif common := tuple(part for part in parts or () if value[part] is not None):
            groups.setdefault(common, set()).add(tuple(value[part] for part in common))
    return {common: (frozenset(keys), min(keys), max(keys)) for common, keys in groups.items()}
