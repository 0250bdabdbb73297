"""Read JSON objects of untrusted files into dataclasses; every field declares its type and its range.

    @dataclass(frozen=True)
    class Info:
        size: Annotated[int, Between(1, 65536)]
        pooling: Annotated[str, OneOf("first", "mean")] = "mean"
        sizes: tuple[Positive, ...] = ()

    info = read_declared(Info, Path("info.json"), values)

A number without a range may be any finite number that fits 64 bits.
"""

from __future__ import annotations

import dataclasses
import math
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from paddle_ranker.errors import CheckpointError, brief, listed
from paddle_ranker.notes import note_once
from paddle_ranker.storage.untrusted import Unchecked


class Between(NamedTuple):
    """Range of a number, or of the length of a list; both bounds are allowed values."""

    least: float
    most: float


class OneOf(tuple[str, ...]):
    """The texts that are allowed as a field's value."""

    def __new__(cls, *choices: str) -> OneOf:
        return super().__new__(cls, choices)


MOST = (1 << 63) - 1
_ANY = Between(-MOST, MOST)
LONGEST = 1 << 24  # most tokens of a text that a file may declare
WIDEST = 1 << 20  # longest vector or state that a file may declare
Count = Annotated[int, Between(0, MOST)]
Positive = Annotated[int, Between(1, MOST)]
Length = Annotated[int, Between(1, LONGEST)]
Width = Annotated[int, Between(1, WIDEST)]
WidthOrNone = Annotated[int, Between(0, WIDEST)]  # 0: none

DeclaredT = TypeVar("DeclaredT")


class _Misfit(Exception):
    """A value does not fit its declaration.

    place: where the value is in the file, as `layers[2].size`
    expected: what would fit, such as "a whole number"
    """

    def __init__(self, place: str, value: object, expected: str):
        super().__init__(f"{place} is {brief(str(value))}, expected {expected}")


def read_declared(
    kind: type[DeclaredT], path: Path, values: Unchecked, remedy: str = "copy it again", *, exact: bool = False
) -> DeclaredT:
    """Return an instance of the dataclass `kind` from a JSON object.

    path: the file, for messages
    values: the JSON object
    remedy: advice at the end of the error
    exact: whether fields with a default are required, too, and unknown keys refused; otherwise, unknown keys are logged

    Raises `CheckpointError`, naming the file and the key, if a value has another type or is out of its range, or if a
    key is missing.
    """
    reader = _Reader(exact)
    try:
        instance: DeclaredT = reader.fitted(kind, values, "")
    except (_Misfit, CheckpointError) as error:  # the class's `__post_init__` may raise `CheckpointError`
        raise CheckpointError(f"{path}: damaged ({error}); {remedy}") from error
    if reader.unknown:
        note_once(f"note: {path}: unknown here and not used: {listed(reader.unknown)}")
    return instance


def require_declared(instance: Any) -> None:
    """Raise `CheckpointError`, naming the field, if a field of a dataclass instance does not fit its declaration."""
    kind: Any = type(instance)
    try:
        for name, hint in _hints(kind).items():
            _Reader().fitted(hint, getattr(instance, name), name)
    except _Misfit as error:
        raise CheckpointError(str(error)) from error


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(hints)
    return {name: hints[name] for name in names}


class _Reader:
    """Converter of JSON values to declared types.

    exact: as in `read_declared`

    Attributes:
        unknown: keys that are not declared, in order of occurrence.
    """

    def __init__(self, exact: bool = False) -> None:
        self.unknown: list[str] = []
        self._exact = exact

    def fitted(
        self, hint: Any, value: Unchecked, place: str, within: Union[Between, OneOf, re.Pattern[str]] = _ANY
    ) -> Any:
        """Convert a JSON value to its declared type: a list to a tuple, an object to a dataclass or `TypedDict`.

        hint: the declared type
        value: the value that `json.loads` returned
        place: the value's place in the file, for the error: `layers[2].size`
        within: the declared range, choices, or pattern of the whole text

        Raises `_Misfit` if the value does not fit.
        """
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self.fitted(arguments[0], value, place, arguments[1])
        if origin is Union:
            return None if value is None else self.fitted(arguments[0], value, place, within)
        if hint in (Any, object):
            return value
        if hint in (int, float):
            return self._number(hint, value, place, within)
        if hint in (bool, str, type(None)):
            if type(value) is not hint:
                raise _Misfit(place, value, {bool: "true or false", str: "a text"}.get(hint, "null"))
            if isinstance(within, OneOf) and value not in within:
                raise _Misfit(place, value, f"one of {', '.join(map(repr, within))}")
            if isinstance(within, re.Pattern) and within.fullmatch(value) is None:
                raise _Misfit(place, value, f"a text like {within.pattern}")
            return value
        if origin in (tuple, list):
            return self._list(origin, arguments, value, place, within)
        if origin is dict:
            if not isinstance(value, dict):
                raise _Misfit(place, value, "an object")
            return {name: self.fitted(arguments[1], item, _inside(place, name)) for name, item in value.items()}
        return self._object(hint, value, place)

    def _number(self, hint: type, value: Unchecked, place: str, within: Any) -> Any:
        least, most = within
        is_one = type(value) is int or (hint is float and isinstance(value, float) and math.isfinite(value))
        if is_one and least <= value <= most:
            return value
        what = "a whole number" if hint is int else "a number"
        bounds = f" from {least:,}" if least > -MOST else ""
        bounds += f" to {most:,}" if most < MOST else " up" if bounds else ""
        raise _Misfit(place, value, what + bounds)

    def _list(self, origin: type, arguments: tuple[Any, ...], value: Unchecked, place: str, within: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise _Misfit(place, value, "a list")
        kinds = arguments
        if origin is list or arguments[1:] == (...,):
            kinds = arguments[:1] * len(value)
        least, most = within
        if len(kinds) != len(value) or not max(0, least) <= len(value) <= most:
            wanted = f"{len(kinds)}" if len(kinds) != len(value) else f"{max(0, least)} to {most}"
            raise _Misfit(place, value, f"a list of {wanted} values")
        return origin(
            self.fitted(hint, item, f"{place}[{number}]") for number, (hint, item) in enumerate(zip(kinds, value))
        )

    def _object(self, kind: Any, value: Unchecked, place: str) -> Any:
        """Convert a JSON object to `kind`, a dataclass or a `TypedDict`; see `fitted` for arguments and error."""
        if isinstance(kind, type) and type(value) is kind and dataclasses.is_dataclass(kind):
            return value
        if not isinstance(value, dict):
            raise _Misfit(place or "it", value, "an object")
        hints = _hints(kind)
        self.unknown += [_inside(place, name) for name in value if name not in hints]
        if self._exact and self.unknown:
            raise _Misfit(self.unknown[0], "unknown", "known keys alone")
        if dataclasses.is_dataclass(kind):
            empty = dataclasses.MISSING
            fields = dataclasses.fields(kind)
            needed = [
                field.name for field in fields if self._exact or (field.default is field.default_factory is empty)
            ]
        else:
            needed = list(hints) if kind.__total__ else []
        lacking = [_inside(place, name) for name in needed if name not in value]
        if lacking:
            raise _Misfit(listed(lacking), "missing", "a value")
        items = {name: item for name, item in value.items() if name in hints}
        return kind(**{name: self.fitted(hints[name], item, _inside(place, name)) for name, item in items.items()})


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
