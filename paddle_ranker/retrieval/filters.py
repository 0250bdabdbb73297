"""Filters on the fields of documents: `lang=zh`, `year>=2020`, `lang in zh,en`; several conditions hold together.

allowed = Filter.parse(["lang=zh and year>=2020", '"publication date" < 2024-07', 'title="salt and pepper"'])
allowed.matches({"lang": "zh", "year": 2021, "publication date": "2024-03-01", "title": "salt and pepper"})
"""

from __future__ import annotations

import calendar
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Optional, Union

from paddle_ranker.data.labels import number_of
from paddle_ranker.errors import UsageError, listed, quoted

_QUOTED = r'"[^"]*"|' + r"'[^']*'"
_CONDITION = re.compile(rf"\s*({_QUOTED}|[^=!<>]*?[^=!<>\s])\s*(?:(==|!=|<=|>=|=|<|>)|(?<=\s)(in)\s)(.*)", re.S | re.I)
_TOKEN_STARTS = r"(?<![^\s=<>!,(\[])"  # a quote within a word is an apostrophe
_JOINED = re.compile(rf"{_TOKEN_STARTS}(?:{_QUOTED})|(?:^|(?<=\s))(and|or)(?=\s|$)", re.I)
_ITEMS = re.compile(rf"\s*({_QUOTED}|[^,]*?)\s*(?:,|$)")
_NAMED = {"eq": "=", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "in": "in"}
_EQUALITIES = ("=", "!=", "in")
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,6})\d*)?)?(?:Z|([+-]\d\d):?(\d\d))?)?)?)?",
    re.ASCII,
)
_MICROSECOND, _DAY = timedelta(microseconds=1), 86_400_000_000
Number = Union[float, Decimal]
LARGE = 2.0**53  # from here on several whole numbers are one double
ORDER: dict[str, Callable[[Number, Number], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip
# The kinds of a field's values, as errors name them; digits are a text that is a number.
TRUTH, NUMBER, DIGITS, DATE, TEXT, OBJECT = "truth values", "numbers", "texts of digits", "dates", "texts", "objects"


class FilterError(UsageError):
    """A filter that cannot be meant: it is malformed, or compares with what the documents do not have."""


class Written(str):
    """A value without a type, of the command line: `7` stands for the number and for the text that is written so."""


Value = Union[str, int, float, bool, None]


def exact_number(value: object) -> Optional[Number]:
    """Return a number by which no two of different values, such as ids of 19 digits, are equal; None for no number."""
    number = double_of(value)
    return number if number is None or abs(number) < LARGE else Decimal(str(value))


def double_of(value: object) -> Optional[float]:
    """Return a number as a double, infinity for a larger whole number; None for no number."""
    number = number_of(value)
    if number is None and isinstance(value, int) and not isinstance(value, bool):
        return math.inf if value > 0 else -math.inf
    return number


def period_of(value: object) -> Optional[tuple[int, int]]:
    """Return the first microsecond of an ISO 8601 date, month, year or time, and the first one after it; UTC if unsaid.

    Returns None for anything else.
    """
    match = _DATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone, zone_minutes = match.groups()
    try:
        at = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0),
            int((fraction or "").ljust(6, "0")),
        )  # fmt: skip
    except ValueError:
        return None
    start = (at - datetime(1970, 1, 1)) // _MICROSECOND
    start -= 60_000_000 * (60 * int(zone) + int(f"{zone[0]}{zone_minutes}")) if zone else 0
    if hour is not None:
        return start, start + (1 if fraction else 1_000_000 if second else 60_000_000)
    if day is not None:
        return start, start + _DAY
    days = calendar.monthrange(at.year, at.month)[1] if month else 365 + calendar.isleap(at.year)
    return start, start + days * _DAY


def kinds_of(value: object) -> frozenset[str]:
    """Return the kinds of a value, whose comparison with others makes sense; none for null."""
    if isinstance(value, bool):
        return frozenset([TRUTH])
    if isinstance(value, (int, float)):
        return frozenset([NUMBER])
    if not isinstance(value, str):
        return frozenset() if value is None else frozenset([OBJECT])
    digits = [DIGITS] * (number_of(value) is not None)
    return frozenset([*digits, *[DATE] * (period_of(value) is not None)] or [TEXT])


@dataclass(frozen=True)
class Condition:
    """A field, an operator (=, !=, <, <=, >, >=, in) and what it compares with.

    A text equals what is written like it, a number each number of its value. Order is that of time where both sides are
    dates, of numbers where both are numbers, and of characters for a value that is neither. A list meets what one of
    its values meets, and `!=` if none is equal. A document without a value has null.
    """

    field: str
    operator: str
    values: tuple[Value, ...]

    def holds(self, value: object) -> bool:
        """Return whether a document with this value of the field, None for none, meets the condition."""
        several = (value or [None]) if isinstance(value, list) else [value]
        return any(map(self.meets, several)) != (self.operator == "!=")

    def meets(self, value: object) -> bool:
        """Return whether one value that is no list meets the condition; `!=` as if it were `=`."""
        if self.operator in _EQUALITIES:
            return self._equals(value)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            return False
        given, wanted = exact_number(value), exact_number(self.values[0])
        if given is not None and wanted is not None:
            return ORDER[self.operator](given, wanted)
        if not isinstance(value, str):
            return False
        if self.period is not None:
            at = period_of(value)
            return at is not None and ORDER[self.operator](at[0], self.moment)
        if wanted is not None:
            return False
        order: int = (value > str(self.values[0])) - (value < str(self.values[0]))
        return ORDER[self.operator](order, 0)

    def _equals(self, value: object) -> bool:
        """Return whether a value equals one of the condition's; their number does not matter to its time."""
        if value is None or isinstance(value, bool):
            return value in self.constants
        if isinstance(value, str):
            return value in self.texts
        return isinstance(value, (int, float)) and exact_number(value) in self.numbers

    @cached_property
    def texts(self) -> frozenset[str]:
        """The values as they are written, without null."""
        return frozenset(_written(value) for value in self.values if value is not None)

    @cached_property
    def constants(self) -> frozenset[Optional[bool]]:
        """Those of the values that are true, false or null."""
        named = {"true": True, "false": False}
        found: set[Optional[bool]] = {named[text.lower()] for text in self.texts if text.lower() in named}
        return frozenset(found | {None for value in self.values if value is None or _is_written_null(value)})

    @cached_property
    def numbers(self) -> frozenset[Number]:
        """Those of the values that are numbers."""
        return frozenset(number for number in map(exact_number, self.values) if number is not None)

    @cached_property
    def period(self) -> Optional[tuple[int, int]]:
        """The time that the first value stands for, as of `period_of`; None if it is no date."""
        return period_of(str(self.values[0]))

    @property
    def moment(self) -> int:
        """The microsecond with which a date is compared: all of a year, or day, is equal to it."""
        assert self.period is not None
        start, end = self.period
        return start if self.operator in ("<", ">=") else end - 1

    def require_possible(self, there: Sequence[str], kinds: frozenset[str]) -> None:
        """Raise `FilterError` if no document has the field, or none of its values can be compared so.

        there: names of fields; kinds: those of the field's values, none if unknown
        """
        if self.field not in there:
            known = listed(there) if there else "none at all"
            raise FilterError(f"{quoted(self.field)} is no field of these documents, which have {known}")
        for value in self.values if kinds else ():
            if not self._is_possible(value, kinds):
                found = f"{quoted(self.field)} holds {listed(sorted(kinds))}"
                raise FilterError(f"{found}, which {self.operator} {quoted(value)} cannot compare; correct the filter")

    def _is_possible(self, value: Value, kinds: frozenset[str]) -> bool:
        own, texts = kinds_of(value), kinds & {TEXT, DATE, DIGITS}
        if self.operator in _EQUALITIES:
            is_number, is_truth = own & {NUMBER, DIGITS}, str(value).lower() in ("true", "false")
            is_null = value is None or _is_written_null(value)
            return bool(texts or is_null or (NUMBER in kinds and is_number) or (TRUTH in kinds and is_truth))
        if TEXT in own:
            return TEXT in kinds
        dates = {DATE} if period_of(str(value)) is not None else set()
        return bool(kinds & (dates | ({NUMBER, DIGITS} if number_of(value) is not None else set())))


def _written(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_written_null(value: Value) -> bool:
    return isinstance(value, Written) and value == "null"


@dataclass(frozen=True)
class Filter:
    """Conditions on the fields of a document, all of which must hold.

    is_checked: the collection has the fields, and values that can be compared so, if not in the part that is searched
    """

    conditions: tuple[Condition, ...]
    is_checked: bool = dataclass_field(default=False, compare=False)

    @classmethod
    def parse(cls, conditions: Iterable[str]) -> Filter:
        """Parse conditions such as `lang=zh` or `lang=zh and year>=2020`; raises `FilterError` for what is none.

        A name or value in quotes is a text, whatever is in it.
        """
        return cls(tuple(_parsed(part) for text in conditions for part in _parts(text)))

    @classmethod
    def of(cls, conditions: Mapping[str, object]) -> Filter:
        """Make a filter of an object: `{"lang": "zh", "kind": ["a", "b"], "year": {"gte": 2020, "lt": 2024}}`.

        Operators are eq, ne, gt, gte, lt, lte and in. Raises `FilterError` for what is none.
        """
        found = []
        for field, wanted in conditions.items():
            compared = wanted if isinstance(wanted, Mapping) else {"in" if isinstance(wanted, list) else "eq": wanted}
            if not compared:
                raise FilterError(f"{field}: {{}} has no operator; name one of {listed(_NAMED)}")
            for name, value in compared.items():
                if name not in _NAMED:
                    raise FilterError(f"{field}: {quoted(name)} is no operator, only {listed(_NAMED)}")
                if name == "in" and not isinstance(value, list):
                    raise FilterError(f"{field}: in takes a list, not {quoted(value)}")
                values = value if isinstance(value, list) and name == "in" else [value]
                for one in values:
                    _require_comparable(field, name, one)
                found.append(Condition(field, _NAMED[name], tuple(values)))
        return cls(tuple(found))

    def matches(self, fields: Mapping[str, object]) -> bool:
        """Return whether a document with these fields meets all conditions."""
        return all(one.holds(fields.get(one.field)) for one in self.conditions)


def _require_comparable(field: str, name: str, value: object) -> None:
    is_constant, has_order = value is None or isinstance(value, bool), _NAMED[name] in ORDER
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if (is_constant and has_order) or not (is_constant or isinstance(value, (str, int, float))) or not is_finite:
        several = "; in takes several" if isinstance(value, list) else ""
        wanted = "a text or a number" if has_order else "a text, a number, a truth value or null"
        raise FilterError(f"{field}: {name} compares with {quoted(value)}, expected {wanted}{several}")


def _parts(text: str) -> list[str]:
    """Return the conditions between `and`; raises `FilterError` for `or`."""
    parts, start = [], 0
    for match in _JOINED.finditer(text):
        joined = (match[1] or "").lower()
        if joined == "or":
            raise FilterError(f"{quoted(text)}: and joins conditions, or does not; write FIELD in A,B, or quote it")
        if joined:
            parts.append(text[start : match.start()])
            start = match.end()
    return [*parts, text[start:]]


def _parsed(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise FilterError(
            f"condition {quoted(text.strip())}: expected FIELD=VALUE, with =, !=, <, <=, > or >=, or FIELD in A,B,C; "
            "quote a name or value that holds such words or signs"
        )
    name, compared, is_list, rest = match.groups()
    rest = rest.strip()
    if is_list and rest[:1] + rest[-1:] in ("()", "[]"):
        rest = rest[1:-1]
    values = [one[1] for one in _ITEMS.finditer(rest)][: -1 if rest else None] if is_list else [rest]
    sign = "in" if is_list else compared.replace("==", "=")
    return Condition(_name(name), sign, tuple(_value(text, one) for one in values))


def _name(text: str) -> str:
    return text[1:-1] if re.fullmatch(_QUOTED, text) else text


def _value(condition: str, text: str) -> str:
    if re.fullmatch(_QUOTED, text):
        return text[1:-1]
    if text[:1] in set("\"'=<>!"):
        raise FilterError(f"condition {quoted(condition.strip())}: quote the value {quoted(text)} as a whole")
    return Written(text)
