"""Values of nested fields by their paths.

fields = {"product": {"name": "Drill"}, "sizes": [{"cm": 4}, {"cm": 6}]}
by_path(fields)               # {"product.name": "Drill", "sizes.cm": [4, 6]}
value_at(fields, "sizes.cm")  # [4, 6]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

ROLES = ("id", "title", "text")  # of the columns that documents are made of; all others are fields
BETWEEN = "."
INNER = ("fields", "metadata")  # objects whose members are fields
MOST_PARTS = 100  # an object with more paths, such as one with a key per user, is one value
_DEEPEST, _LONGEST = 32, 256  # levels, and characters of a path; an object beyond them is one value
_OF_ROWS = ("id", "text")


def by_path(fields: Mapping[str, Any], whole: Collection[str] = (), named: Collection[str] = ()) -> dict[str, Any]:
    """Return the values of fields, and of the members of objects in them, by path.

    The values of a path within a list of objects are a list.

    whole: paths whose values are not taken apart, such as those of fields that are declared as stored
    named: further paths to look up, which may be within those of `whole`
    """
    if not any(map(_has_objects, fields.values())):
        return dict(fields)
    found, listed = dict[str, Any](), set[str]()

    def add(path: str, value: Any, is_listed: bool) -> None:
        if path not in found and not is_listed:
            found[path] = value
            return
        listed.add(path)
        before = found.get(path, [])
        found[path] = [*_items(before), *_items(value)]

    def visit(path: str, value: Any, is_listed: bool, depth: int) -> None:
        is_apart = _has_objects(value) and path not in whole and depth < _DEEPEST
        if is_apart and isinstance(value, dict):
            names = [f"{path}{BETWEEN}{name}" if depth else str(name) for name in value]
            if max(map(len, names), default=0) <= _LONGEST or not depth:
                for name, item in zip(names, value.values()):
                    visit(name, item, is_listed, depth + 1)
                return
        if is_apart and isinstance(value, list):
            for item in value:
                visit(path, item, True, depth + 1)
            return
        add(path, value, is_listed)

    visit("", {**fields}, False, 0)
    for path in named:
        if path not in found and (value := value_at(fields, path)) is not None:
            found[path] = value
    return found


def value_at(fields: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path as `by_path` does, and an object as it is; None if there is none."""
    if path in fields or BETWEEN not in path:
        return _without_objects(fields.get(path))
    found = [(_without_objects(value), is_listed) for value, is_listed in _values_at(fields, path, False)]
    if len(found) == 1 and not found[0][1]:
        return found[0][0]
    return [item for value, _ in found for item in _items(value)] if found else None


def _without_objects(value: Any) -> Any:
    """Return a value; if it is a list of objects and others, only the others."""
    if not isinstance(value, list) or not _has_objects(value):
        return value
    return [item for item in value if not isinstance(item, dict)] or value


def _values_at(value: Any, path: str, is_listed: bool) -> Iterator[tuple[Any, bool]]:
    """Yield each value at a path, and whether it is in a list of objects."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                yield from _values_at(item, path, True)
        return
    if path in value:
        yield value[path], is_listed
    place = path.find(BETWEEN)
    while place >= 0:
        inner = value.get(path[:place])
        if isinstance(inner, (dict, list)):
            yield from _values_at(inner, path[place + 1 :], is_listed)
        place = path.find(BETWEEN, place + 1)


def _has_objects(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


class Paths:
    """Paths of the fields of many rows.

    Attributes:
        whole: names of the fields with more than `MOST_PARTS` paths, which are not taken apart.
    """

    def __init__(self, whole: Collection[str] = (), named: Collection[str] = ()) -> None:
        """Create the object; the arguments as in `by_path`."""
        self._given, self._named, self.whole = frozenset(whole), frozenset(named), set[str]()
        self._seen = dict[str, set[str]]()

    def of(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row's values by path."""
        if not any(map(_has_objects, fields.values())):
            return dict(fields)
        whole = self._given | self.whole
        for name in [name for name, value in fields.items() if _has_objects(value) and name not in whole]:
            seen = self._seen.setdefault(name, set())
            seen.update(by_path({name: fields[name]}, whole))
            if len(seen) > MOST_PARTS:
                self.whole.add(name)
        return by_path(fields, self._given | self.whole, self._named)

    def is_dropped(self, path: str) -> bool:
        """Return whether a path that an earlier row had belongs to a field that is not taken apart any more."""
        return path not in self._named and any(path.startswith(f"{name}{BETWEEN}") for name in self.whole)


def unwrapped(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the members of `fields` and `metadata` as its own; those that it has already stay inside."""
    moved = dict(row)
    for name in INNER:
        inner = row.get(name)
        if isinstance(inner, dict):
            moved.pop(name)
            kept = {key: value for key, value in inner.items() if key in moved or key in _OF_ROWS}
            moved.update(
                {key: value for key, value in inner.items() if key not in kept}, **({name: kept} if kept else {})
            )
    return moved


def replaced(fields: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return fields with another value at a path; None removes the value.

    A path that goes on within an object of the fields changes the object; any other path is a field's name.
    """
    place = -1 if path in fields else path.find(BETWEEN)
    while place >= 0:
        inner = fields.get(path[:place])
        if isinstance(inner, dict):
            return {**fields, path[:place]: replaced(inner, path[place + 1 :], value)}
        place = path.find(BETWEEN, place + 1)
    changed = {**fields, path: value}
    return {name: item for name, item in changed.items() if name != path or value is not None}


def with_texts(value: Any, change: Callable[[str, str], object], path: str = "") -> Any:
    """Return a value with each text in it replaced by `change(path, text)`."""
    if isinstance(value, str):
        return change(path, value)
    if isinstance(value, dict):
        return {
            name: with_texts(item, change, f"{path}{BETWEEN}{name}" if path else name) for name, item in value.items()
        }
    return [with_texts(item, change, path) for item in value] if isinstance(value, list) else value


def text_of_values(fields: Mapping[str, Any]) -> str:
    """Return the values of fields as a text, for a document without a text; the words of truth values are left out."""
    texts = list[str]()
    for value in by_path(fields).values():
        for item in _items(value):
            if isinstance(item, (dict, list)):
                texts.append(json.dumps(item, ensure_ascii=False))
            elif not isinstance(item, bool) and str(item).strip():
                texts.append(str(item))
    return " ".join(texts)
