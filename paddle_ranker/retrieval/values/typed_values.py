"""Typed values of documents' fields, for filters, facets, groups, sorting and ranges.

number, date = TYPES["number"], TYPES["date"]
number.values("2020.0") == number.values(2020)
date.intervals("2024-03", "=")  # the moments of March; `date.values("2024-03-02T10:00+05:30")` is one of them
"""

from __future__ import annotations

import calendar
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, Optional, Union
from unicodedata import normalize

from paddle_ranker.data.files.cell_formats import is_no_value, is_plain_number
from paddle_ranker.data.rows.labels import number_of
from paddle_ranker.lexical.analyser import analyser
from paddle_ranker.storage.untrusted import Unchecked

# Kinds of values, in the order in which values of several kinds are sorted.
MISSING, BOOLEAN, NUMBER, DATE, TEXT, OBJECT = range(6)
# Precision of dates, which decides how a date is written; dates are equal if they begin at the same moment.
_YEAR, _MONTH, _DAY, _SECOND, _MICROSECOND = range(5)
LONGEST_SORTED = 256  # code points of a text by which it is sorted
LARGE = 2.0**53  # from this number on, different integers can be equal as float64
DAY = 86_400_000_000  # microseconds
_EPOCH = datetime(1970, 1, 1)
# The first microsecond of the year 1, and that after the year 9999.
MOMENTS = (datetime.min - _EPOCH) // timedelta(microseconds=1), 253_402_300_800_000_000
_DATE = re.compile(
    r"(?P<year>\d{4})"
    r"(?:-(?P<month>\d\d)(?:-(?P<day>\d\d))?|(?P<basic>\d{4})|-?W(?P<week>\d\d)(?:-?(?P<weekday>[1-7]))?"
    r"|-(?P<ordinal>\d{3}))?"
    r"(?:[Tt ](?P<hour>\d\d)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?)?"
    r"(?: ?(?:[Zz]|UTC|(?P<zone>[+\-\u2212]\d\d)(?::?(?P<zone_minute>\d\d))?))?)?",
    re.ASCII,
)
_LONGEST_DATE, _MOST_DIGITS = 64, 309  # characters; digits of the largest doubles
_WHOLE = re.compile(r"[+-]?\d+")
_EQUALITIES = ("=", "!=", "in")
Number = Union[int, float]


def plain(value: Unchecked) -> Unchecked:
    """Convert NumPy's numbers and arrays, dates, tuples and sets to JSON's numbers, texts and lists."""
    if value is None or (isinstance(value, (str, int, float, list, dict)) and type(value).__module__ == "builtins"):
        return value
    if isinstance(value, (tuple, set, frozenset)):
        return [plain(item) for item in value]
    if type(value).__name__ == "datetime64":  # whose `item` is a number of nanoseconds
        return str(value)
    for method in ("isoformat", "tolist"):  # dates; scalars and arrays of NumPy
        if hasattr(value, method):
            return getattr(value, method)()
    return float(value) if isinstance(value, Decimal) else value


class UntypedValue(str):
    """Value without a type, from the command line: `7` stands for the number 7 and for the text "7"."""


class Value(NamedTuple):
    """Value of a field; `key` compares values for equality, `order` sorts them.

    kind: MISSING, BOOLEAN, NUMBER, DATE, TEXT or OBJECT
    of: a truth value, a number, a date's first microsecond since 1970, a text, or an object as JSON
    unit: precision of a date, 0 to 4: year, month, day, second or microsecond; 0 for other kinds
    """

    kind: int
    of: Union[bool, int, float, str]
    unit: int = 0

    @property
    def key(self) -> tuple[int, Union[bool, int, float, str]]:
        """Key for equality: the value without its spelling."""
        return self.kind, self.of

    @property
    def order(self) -> tuple[object, ...]:
        """Sort key of the value; texts are compared by `text_order`."""
        return (self.kind, *text_order(self.of)) if isinstance(self.of, str) else (self.kind, self.of)

    def json(self, unit: int = 0) -> object:
        """Return the value for JSON; a date is written with the precision `unit`, or with its own if that is finer."""
        if self.kind == DATE:
            return moment_text(int(self.of), max(unit, self.unit))
        if self.kind == OBJECT:
            content: object = json.loads(str(self.of))
            return content
        is_whole = self.kind == NUMBER and isinstance(self.of, float) and self.of.is_integer() and abs(self.of) < LARGE
        return int(self.of) if is_whole else self.of


def order_value(values: Sequence[Value]) -> Optional[Value]:
    """Return the value by which a document is sorted: the first of its values in a field; None if it has no value.

    A text is cut to `LONGEST_SORTED` code points. All JSON objects get the same value, so they sort as equal.
    """
    if not values:
        return None
    first = values[0]
    if first.kind == OBJECT:
        return Value(OBJECT, "null")
    return first._replace(of=str(first.of)[:LONGEST_SORTED]) if first.kind == TEXT else first


def is_value(value: Value) -> bool:
    """Return whether a value that another process has sent is valid."""
    types: dict[int, tuple[type, ...]] = {BOOLEAN: (bool,), NUMBER: (int, float), DATE: (int,)}
    if type(value.of) not in types.get(value.kind, (str,)) or value.kind not in range(BOOLEAN, OBJECT + 1):
        return False
    if value.kind == OBJECT:
        try:
            json.loads(str(value.of))
        except (ValueError, RecursionError):
            return False
    return value.unit == 0 if value.kind != DATE else MOMENTS[0] <= value.of < MOMENTS[1] and value.unit in range(5)  # type: ignore[operator]


class ValueRange(NamedTuple):
    """Values from `low` to `high`, both included; the kind `MISSING` means documents without a value."""

    kind: int
    low: Union[bool, int, float, str]
    high: Union[bool, int, float, str]


class ValueType(NamedTuple):
    """Type of values.

    what: describes the values, for messages
    read: called with a document's value; returns a `Value`, or None if the document's value counts as missing, such as
        `N/A` in a field of numbers; raises `ValueError` for a value that no field of this type may hold
    """

    what: str
    read: Callable[[object], Optional[Value]]

    def fits(self, value: object) -> bool:
        """Return whether a field of this type may hold a value (not a list)."""
        try:
            self.read(value)
        except ValueError:
            return False
        return True

    def values(self, value: object) -> tuple[Value, ...]:
        """Return a document's value as typed items: those of a list, one for another value, none without a value."""
        items = []
        for item in value if isinstance(value, list) else (value,):
            try:
                typed = self.read(item)
            except ValueError:
                typed = _object(item)
            if typed is not None:
                items.append(typed)
        return tuple(items)

    def intervals(self, value: object, operator: str) -> list[ValueRange]:
        """Convert a filter's value to ranges; [] if values of this type cannot be compared with it.

        Only numbers and dates have an order.
        """
        is_equality, ranges = operator in _EQUALITIES, list[ValueRange]()
        if is_equality and (value is None or (isinstance(value, UntypedValue) and value == "null")):
            ranges.append(ValueRange(MISSING, "", ""))
        if self is TYPES[STORED] and isinstance(value, UntypedValue):
            candidates = [TYPES[name] for name in ("boolean", "number")] if is_equality else [TYPES["number"]]
            fitting = [
                candidate for candidate in candidates if candidate.fits(value) and candidate.read(value) is not None
            ]
            for value_type in fitting:
                ranges += value_type.intervals(value, operator)
            if fitting and not is_equality:
                return ranges
        try:
            typed = self.read(value)
        except ValueError:
            return ranges
        if typed is None:
            return ranges or ([ValueRange(MISSING, "", "")] if is_equality else [])
        if not is_equality and typed.kind not in (NUMBER, DATE):
            return []
        high = typed.of
        if typed.kind == DATE:
            period = period_of(value)
            assert period is not None
            high = period[1] - 1
        return [*ranges, ValueRange(typed.kind, typed.of, high)] if typed.kind != OBJECT else ranges


def text_order(text: str) -> tuple[str, str]:
    """Return a sort key that ignores case and accents; texts that differ in nothing else are ordered by code point."""
    return _folding()(text), text


@lru_cache(maxsize=1)
def _folding() -> Callable[[str], str]:
    return analyser("accents").fold


def number_text(number: Number) -> str:
    """Return the shortest JSON of a number."""
    return json.dumps(Value(NUMBER, number).json())


def period_of(value: object) -> Optional[tuple[int, int, int]]:
    """Return the start, end (excluded) and precision of an ISO 8601 date, month, year or time.

    Start and end are microseconds since 1970, the precision is a `Value.unit`. Weeks, ordinal dates and the basic
    format are read, too. A time without a zone is in UTC. A leap second counts as the last microsecond of its day.
    Returns None for other values, and for dates outside of the years 1 to 9999.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1:
        value = str(int(value))
    return _period(str(value).strip()) if isinstance(value, str) and len(value) <= _LONGEST_DATE else None


@lru_cache(maxsize=1 << 10)
def _period(text: str) -> Optional[tuple[int, int, int]]:
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    part = match.groupdict()
    year, month, day, hour = int(part["year"]), part["month"], part["day"], part["hour"]
    if part["basic"] is not None:
        month, day = part["basic"][:2], part["basic"][2:]
    try:
        if part["week"] is not None:
            first, days = date.fromisocalendar(year, int(part["week"]), int(part["weekday"] or 1)), 1
            days = 1 if part["weekday"] else 7
        elif part["ordinal"] is not None:
            days = 1
            first = date(year, 1, 1) + timedelta(int(part["ordinal"]) - 1)
            if first.year != year:
                return None
        else:
            first = date(year, int(month or 1), int(day or 1))
            days = 1 if day else calendar.monthrange(year, first.month)[1] if month else 365 + calendar.isleap(year)
    except (ValueError, OverflowError):
        return None
    start = (datetime(first.year, first.month, first.day) - _EPOCH) // timedelta(microseconds=1)
    if hour is None:
        return start, start + days * DAY, _YEAR if days > 31 else _MONTH if month and not day else _DAY
    hours, minutes, seconds = int(hour), int(part["minute"] or 0), int(part["second"] or 0)
    fraction, zone, zone_minute = part["fraction"], part["zone"] or "+00", int(part["zone_minute"] or 0)
    is_end = (hours, minutes, seconds, int(fraction or 0)) == (24, 0, 0, 0)
    offset = (-1 if zone[0] != "+" else 1) * (60 * int(zone[1:]) + zone_minute)
    if (
        days != 1
        or not (hours < 24 or is_end)
        or minutes > 59
        or seconds > 60
        or int(zone[1:]) > 23
        or zone_minute > 59
    ):
        return None
    start += 60_000_000 * (60 * hours + minutes - offset)
    if seconds == 60:
        if (start + 60_000_000) % DAY:  # leap seconds are inserted before midnight, UTC
            return None
        start += 60_000_000 - 1
        length, unit = 1, _MICROSECOND
    else:
        start += 1_000_000 * seconds + int((fraction or "0")[:6].ljust(6, "0"))
        exact = 1 if fraction else 1_000_000 if part["second"] else 60_000_000 if part["minute"] else 3_600_000_000
        length, unit = exact, _MICROSECOND if start % 1_000_000 else _SECOND if start % DAY else _DAY
    return (start, start + length, unit) if MOMENTS[0] <= start < MOMENTS[1] else None


def moment_text(moment: int, unit: int) -> str:
    """Return a moment (microseconds since 1970) as an ISO 8601 date in UTC, with the precision `unit` (see `Value`)."""
    at = _EPOCH + timedelta(microseconds=moment)
    if unit >= _SECOND:
        return f"{at.isoformat(timespec='seconds' if unit == _SECOND else 'microseconds')}Z"
    return at.date().isoformat()[: (4, 7, 10)[unit]]


def _is_missing(value: object) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and is_no_value(value))


def _number(value: object) -> Optional[Value]:
    if isinstance(value, float) and math.isfinite(value):
        return Value(NUMBER, value)
    if _is_missing(value):
        return None
    if isinstance(value, str) and len(value) <= _MOST_DIGITS and _WHOLE.fullmatch(value.strip()):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and number_of(value) is not None:
        return Value(NUMBER, value)
    number = number_of(value)
    if number is None:
        raise ValueError("no number")
    return Value(NUMBER, number)


def _date(value: object) -> Optional[Value]:
    if _is_missing(value):
        return None
    period = period_of(value)
    if period is None:
        raise ValueError("no date")
    return Value(DATE, period[0], period[2])


def _boolean(value: object) -> Optional[Value]:
    if isinstance(value, bool):
        return Value(BOOLEAN, value)
    if _is_missing(value):
        return None
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return Value(BOOLEAN, value.strip().lower() == "true")
    raise ValueError("no truth value")


def _text(value: str) -> Optional[Value]:
    # An accent is the same as a character of its own or as a mark behind the letter, as macOS writes names of files.
    return Value(TEXT, normalize("NFC", value)) if value and not value.isspace() else None


def _keyword(value: object) -> Optional[Value]:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return Value(TEXT, json.dumps(value))
    if value is None:
        return None
    number = _number(value)
    if number is None or isinstance(number.of, (bool, str)):
        return None
    return Value(TEXT, number_text(number.of))


def _object(value: object) -> Optional[Value]:
    return None if value is None else Value(OBJECT, json.dumps(value, sort_keys=True, ensure_ascii=False))


def _stored(value: object) -> Optional[Value]:
    """Convert a value of JSON to a `Value` of the same type; None for null."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return Value(BOOLEAN, value)
    try:
        return _number(value)
    except ValueError:
        return _object(value)


STORED = "stored"
TYPES = {
    "boolean": ValueType("truth values", _boolean),
    "number": ValueType("numbers", _number),
    "date": ValueType("dates", _date),
    "keyword": ValueType("texts", _keyword),
    "object": ValueType("objects", _object),
    STORED: ValueType("values of several types", _stored),
}


@dataclass
class CommonTypes:
    """Types that all values of a field fit, which decide the type of an undeclared field.

    names: names of the types
    valued: number of values that are not missing
    missing: number of values that would count as missing in a field of numbers, dates or truth values, such as N/A
    json: the values' types in JSON
    """

    names: tuple[str, ...] = ("boolean", "number", "date", "keyword", "object")
    valued: int = 0
    missing: int = 0
    json: frozenset[str] = frozenset()

    def add(self, value: object) -> tuple[str, ...]:
        """Count a value (not a list); return the types that it fits, () if it counts as missing."""
        if _is_missing(value):
            self.missing += 1
            if isinstance(value, str) and value:
                self._keep(("boolean", "number", "date", "keyword"))
            return ()
        self.valued += 1
        self.json |= {_json_type(value)}
        fits = _fitting(value)
        self._keep(fits)
        return fits

    def _keep(self, fits: Sequence[str]) -> None:
        self.names = tuple(name for name in self.names if name in fits)

    def merge(self, other: CommonTypes) -> None:
        """Count the values of another segment or shard, too."""
        self.names = tuple(name for name in self.names if name in other.names)
        self.valued, self.missing = self.valued + other.valued, self.missing + other.missing
        self.json |= other.json

    @property
    def type(self) -> str:
        """Name of the first type that fits all values; `keyword` if all values are placeholders such as "n/a"."""
        if not self.valued:
            return "keyword" if self.missing else STORED
        return next(iter(self.names), STORED)

    @property
    def undeclared_type(self) -> str:
        """Type of an undeclared field: the common type of its values, or `stored` for several types."""
        return self.type if len(self.json) <= 1 else STORED


def _json_type(value: object) -> str:
    names: dict[type, str] = {str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "object")


def _fitting(value: object) -> tuple[str, ...]:
    """Return the names of the types that a value fits; a text such as "012", a postal code, is no number."""
    if isinstance(value, (dict, list)):
        return ("object",)
    if isinstance(value, str) and len(value) > _MOST_DIGITS:
        return ("keyword",)
    names = [name for name in ("boolean", "number", "date") if TYPES[name].fits(value)]
    if isinstance(value, str):
        names = [*(name for name in names if name != "number" or is_plain_number(value)), "keyword"]
    return tuple(names)
