"""Filters on the fields of documents: `lang=zh`, `year>=2020`, `lang in zh,en`; several conditions hold together.

allowed = Filter.parse(["lang=zh", "year>=2020"])
allowed.matches({"lang": "zh", "year": 2021})
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Optional, Union

from paddle_ranker.data.labels import number_of
from paddle_ranker.errors import UsageError, listed, quoted

_CONDITION = re.compile(r"\s*([^\s=!<>]+)(?:\s*(!=|<=|>=|=|<|>)|\s+(in)\s)(.*)", re.S)
_NAMED = {"eq": "=", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "in": "in"}
Number = Union[float, Decimal]
LARGE = 2.0**53  # from here on several whole numbers are one double
ORDER: dict[str, Callable[[Number, Number], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip


def exact_number(value: object) -> Optional[Number]:
    """Return a number by which no two of different values, such as ids of 19 digits, are equal; None for no number."""
    number = number_of(value)
    return number if number is None or abs(number) < LARGE else Decimal(str(value))


@dataclass(frozen=True)
class Condition:
    """A field, an operator (=, !=, <, <=, >, >=, in) and what it compares with.

    Equal are texts, numbers and truth values that are written alike, and numbers of the same value, `7` and `7.0`.
    Order is that of numbers where both sides are numbers, and of characters where neither is. Documents without the
    field meet `!=` alone.
    """

    field: str
    operator: str
    values: tuple[str, ...]

    def holds(self, value: object) -> bool:
        """Return whether a document with this value of the field, None for none, meets the condition."""
        if self.operator in ("=", "in", "!="):
            return self._equals(value) != (self.operator == "!=")
        if value is None or isinstance(value, bool) or not isinstance(value, (str, int, float)):
            return False
        given, wanted = exact_number(value), exact_number(self.values[0])
        if given is not None and wanted is not None:
            return ORDER[self.operator](given, wanted)
        if given is not None or wanted is not None:
            return False
        order: int = (str(value) > self.values[0]) - (str(value) < self.values[0])
        return ORDER[self.operator](order, 0)

    def _equals(self, value: object) -> bool:
        """Return whether a value equals one of the condition's; their number does not matter to its time."""
        if isinstance(value, bool):
            return str(value).lower() in self.lower
        if not isinstance(value, (str, int, float)):
            return False
        return str(value) in self.texts or (bool(self.numbers) and exact_number(value) in self.numbers)

    @cached_property
    def texts(self) -> frozenset[str]:
        """The values as they are written."""
        return frozenset(self.values)

    @cached_property
    def lower(self) -> frozenset[str]:
        """The values in small letters, as truth values are compared."""
        return frozenset(value.lower() for value in self.values)

    @cached_property
    def numbers(self) -> frozenset[Number]:
        """Those of the values that are numbers."""
        return frozenset(number for number in map(exact_number, self.values) if number is not None)


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Filter:
    """Conditions on the fields of a document, all of which must hold."""

    conditions: tuple[Condition, ...]

    @classmethod
    def parse(cls, conditions: Iterable[str]) -> Filter:
        """Parse conditions such as `lang=zh`; raises `UsageError` for what is none."""
        found = []
        for text in conditions:
            match = _CONDITION.fullmatch(text)
            if match is None:
                raise UsageError(
                    f"condition {quoted(text)}: expected FIELD=VALUE, with =, !=, <, <=, > or >=, or FIELD in A,B,C"
                )
            field, compared, is_list, values = match.groups()
            one = tuple(part.strip() for part in values.split(",")) if is_list else (values.strip(),)
            found.append(Condition(field, compared or "in", one))
        return cls(tuple(found))

    @classmethod
    def of(cls, conditions: Mapping[str, object]) -> Filter:
        """Make a filter of an object: `{"lang": "zh", "kind": ["a", "b"], "year": {"gte": 2020, "lt": 2024}}`.

        Operators are eq, ne, gt, gte, lt, lte and in. Raises `UsageError` for what is none.
        """
        found = []
        for field, wanted in conditions.items():
            compared = wanted if isinstance(wanted, Mapping) else {"in" if isinstance(wanted, list) else "eq": wanted}
            for name, value in compared.items():
                if name not in _NAMED:
                    raise UsageError(f"{field}: {quoted(name)} is no operator, only {listed(_NAMED)}")
                values = value if name == "in" and isinstance(value, list) else [value]
                if not all(isinstance(one, (str, int, float)) for one in values):
                    raise UsageError(
                        f"{field}: compares with {quoted(value)}, expected a text, a number or a truth value"
                    )
                found.append(Condition(field, _NAMED[name], tuple(map(_written, values))))
        return cls(tuple(found))

    def matches(self, fields: Mapping[str, object]) -> bool:
        """Return whether a document with these fields meets all conditions."""
        return all(one.holds(fields.get(one.field)) for one in self.conditions)
