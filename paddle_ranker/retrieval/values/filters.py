"""Filters on the fields of documents, such as `lang=zh and year>=2020`; a document must meet all conditions.

allowed = Filter.parse(["lang=zh and year>=2020", '"publication date" < 2024-07', 'title="salt and pepper"'])
collection.snapshot().matching(None).count(allowed)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Union

from paddle_ranker.data.files.cell_formats import Spellings
from paddle_ranker.errors import ParameterError, listed, quoted, spelling_hint
from paddle_ranker.retrieval.values.typed_values import MISSING, STORED, TYPES, UntypedValue, ValueRange, plain

_QUOTED = r'"[^"]*"|' + r"'[^']*'"
# Parsing takes time linear in a text: no two neighbouring repetitions match the same character.
_CONDITION = re.compile(rf"({_QUOTED}|[^=!<>]*?[^=!<>\s])\s*(?:(==|!=|<=|>=|=|<|>)|(?<=\s)(in)\s)(.*)", re.S | re.I)
_TOKEN_STARTS = r"(?<![^\s=<>!,(\[])"  # a quote within a word is an apostrophe
_JOINED = re.compile(rf"{_TOKEN_STARTS}(?:{_QUOTED})|(?:^|(?<=\s))(and|or)(?=\s|$)", re.I)
_ITEMS = re.compile(rf"\s*((?:{_QUOTED})\s*(?=,|$)|[^,]*)(?:,|$)")
_NAMED = {"eq": "=", "ne": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "in": "in"}
_EXAMPLES = {"number": "5", "date": "2024-12-31", "boolean": "true"}  # values by type, for messages
ORDERED = ("<", "<=", ">", ">=")


class FilterError(ParameterError):
    """Error: a filter is malformed, or compares a field with values that the field cannot have."""

    def __init__(self, problem: str):
        super().__init__("where", problem)


def no_field(name: str, fields: Iterable[str]) -> str:
    """Return the error message for a name that is no field of the documents.

    fields: names of the documents' fields
    """
    names = [*fields]
    has = listed(names) if names else "none at all"
    return f"{quoted(name)} is no field of these documents, which have {has}{spelling_hint(name, names)}"


Value = Union[str, int, float, bool, None]


@dataclass(frozen=True, eq=False)
class Condition:
    """Condition of a filter: a field, an operator (=, !=, <, <=, >, >=, in) and the values to compare with.

    Values are read and compared by the field's type, see `typed_values.ValueType`. A period such as 2024-03 equals all
    dates that begin in it. A list meets `!=` if no item is equal; it meets any other condition if one of its items
    does. A document without the field has the value null.

    type: type of the field, a name in `typed_values.TYPES`; "" until `typed` sets it
    """

    field: str
    operator: str
    values: tuple[Value, ...]
    type: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[object, ...]:
        """Key for equality and hashing, which distinguishes 1 from true, and 7 from the text "7"."""
        return self.field, self.operator, self.type, tuple((type(value), value) for value in self.values)

    @cached_property
    def intervals(self) -> tuple[ValueRange, ...]:
        """Intervals of field values that equal a value of the condition."""
        type = TYPES[self.type]
        return tuple(dict.fromkeys(chain.from_iterable(type.intervals(value, self.operator) for value in self.values)))

    @property
    def meets_missing(self) -> bool:
        """Whether a document without a value of the field meets the condition."""
        return any(interval.kind == MISSING for interval in self.intervals) != (self.operator == "!=")

    def typed(self, fields: Sequence[str], type_of: Callable[[str], str]) -> Condition:
        """Return the condition with its field's type.

        fields: names of the documents' fields
        type_of: called with a field's name; returns its type

        Raises `FilterError` if the field is not in `fields`, or if its type does not allow the comparison.
        """
        if self.type:
            return self
        if self.field not in fields:
            raise FilterError(no_field(self.field, fields))
        typed = replace(self, type=type_of(self.field))
        for value in self.values:
            if not TYPES[typed.type].intervals(value, self.operator):
                problem = f"which {self.operator} {quoted(value)} cannot compare; {typed._advice(value)}"
                raise FilterError(f"{quoted(self.field)} holds {TYPES[typed.type].what}, {problem}")
        return typed

    def _advice(self, value: Value) -> str:
        """Return advice about a value that the type refuses: how to spell it, or to change the field or the filter."""
        spellings = Spellings()
        spellings.add(str(value))
        if self.operator in ORDERED and self.type in ("keyword", STORED):
            is_date = TYPES["date"].fits(value) and not TYPES["number"].fits(value)
            kind = "date" if is_date else spellings.looks_like() or "number, or :date"
            return f"texts have no order, so compare with = or in; or build the index with --field {self.field}:{kind}"
        spelling = spellings.chosen()
        meant = None if spelling is None else spelling.read(str(value))
        if isinstance(meant, list) or meant is None or not TYPES[self.type].intervals(meant, self.operator):
            example = _EXAMPLES.get(self.type)
            return "correct the filter" if example is None else f"compare as in {self.field}{self.operator}{example}"
        return f"write {meant if isinstance(meant, str) else json.dumps(meant)}"


@dataclass(frozen=True)
class Filter:
    """Conditions on the fields of a document, all of which must be met."""

    conditions: tuple[Condition, ...]

    @property
    def is_typed(self) -> bool:
        return all(condition.type for condition in self.conditions)

    def typed(self, fields: Sequence[str], type_of: Callable[[str], str]) -> Filter:
        """Return the filter with its fields' types; see `Condition.typed`."""
        return Filter(tuple(condition.typed(fields, type_of) for condition in self.conditions))

    @classmethod
    def parse(cls, conditions: Iterable[str]) -> Filter:
        """Parse conditions such as `lang=zh` or `lang=zh and year>=2020`; raises `FilterError` for other texts.

        Names and values in quotes may have any characters; a value in quotes is a text.
        """
        return cls(tuple(_parsed(part) for text in conditions for part in _parts(text)))

    @classmethod
    def of(cls, conditions: Mapping[str, object]) -> Filter:
        """Make a filter from a mapping: `{"lang": "zh", "kind": ["a", "b"], "year": {"gte": 2020, "lt": 2024}}`.

        Operators are eq, ne, gt, gte, lt, lte and in. Raises `FilterError` for other operators and malformed
        conditions.
        """
        parsed = []
        for field, wanted in conditions.items():
            wanted = plain(wanted)
            compared = wanted if isinstance(wanted, Mapping) else {"in" if isinstance(wanted, list) else "eq": wanted}
            if not compared:
                raise FilterError(f"{field}: {{}} has no operator; name one of {listed(_NAMED)}")
            for name, value in compared.items():
                value = plain(value)
                if name not in _NAMED:
                    hint = spelling_hint(str(name), _NAMED)
                    raise FilterError(f"{field}: {quoted(name)} is no operator, only {listed(_NAMED)}{hint}")
                if name == "in" and not isinstance(value, list):
                    raise FilterError(f"{field}: in takes a list, not {quoted(value)}")
                values = value if isinstance(value, list) and name == "in" else [value]
                for item in values:
                    _require_comparable(field, name, item)
                parsed.append(Condition(field, _NAMED[name], tuple(values)))
        return cls(tuple(parsed))


def _require_comparable(field: str, name: str, value: object) -> None:
    is_constant, has_order = value is None or isinstance(value, bool), _NAMED[name] in ORDERED
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if (is_constant and has_order) or not (is_constant or isinstance(value, (str, int, float))) or not is_finite:
        hint = "; in takes several" if isinstance(value, list) else ""
        wanted = "a text or a number" if has_order else "a text, a number, a truth value or null"
        raise FilterError(f"{field}: {name} compares with {quoted(value)}, expected {wanted}{hint}")


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
    match = _CONDITION.fullmatch(text.lstrip())
    if match is None:
        raise FilterError(
            f"condition {quoted(text.strip())}: expected FIELD=VALUE, with =, !=, <, <=, > or >=, or FIELD in A,B,C; "
            "quote a name or value that holds such words or signs"
        )
    name, compared, is_list, rest = match.groups()
    rest = rest.strip()
    if is_list and rest[:1] + rest[-1:] in ("()", "[]"):
        rest = rest[1:-1]
    values = [item[1].strip() for item in _ITEMS.finditer(rest)][: -1 if rest else None] if is_list else [rest]
    sign = "in" if is_list else compared.replace("==", "=")
    return Condition(_name(name), sign, tuple(_value(text, item) for item in values))


def _name(text: str) -> str:
    return text[1:-1] if re.fullmatch(_QUOTED, text) else text


def _value(condition: str, text: str) -> str:
    if re.fullmatch(_QUOTED, text):
        return text[1:-1]
    if text[:1] in set("\"'=<>!"):
        raise FilterError(f"condition {quoted(condition.strip())}: quote the value {quoted(text)} as a whole")
    return UntypedValue(text)
