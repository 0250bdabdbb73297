"""Values of nested fields by path: what stands where, with bounds, and one way in agrees with the other."""

from __future__ import annotations

from typing import Any

import pytest

from paddle_ranker.data.rows.field_paths import (
    MOST_PARTS,
    Paths,
    by_path,
    replaced,
    text_of_values,
    unwrapped,
    value_at,
)

pytestmark = pytest.mark.unit
DEEP: dict[str, Any] = {}
for _ in range(100):
    DEEP = {"a": DEEP or 1}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"a": 1, "b": ["x"]}, {"a": 1, "b": ["x"]}),
        ({"a": {"b": {"c": 1}, "d": None}}, {"a.b.c": 1, "a.d": None}),
        ({"a": [{"b": 1}, {"b": 2, "c": "x"}, {}]}, {"a.b": [1, 2], "a.c": ["x"]}),
        ({"a": [{"b": [1, 2]}, {"b": 3}, {"b": None}]}, {"a.b": [1, 2, 3]}),
        ({"a": [{"b": [{"c": 1}, {"c": 2}]}, {"b": {"c": 3}}]}, {"a.b.c": [1, 2, 3]}),
        ({"a": [1, {"b": 2}]}, {"a": [1], "a.b": [2]}),
        ({"a.b": 1, "a": {"c": 2}}, {"a.b": 1, "a.c": 2}),
        ({"a": {"b.c": 1}}, {"a.b.c": 1}),
        ({"a": {}, "c": [[1], [2]]}, {"c": [[1], [2]]}),
    ],
)
def test_parts_of_objects_are_found_by_their_paths(fields: dict[str, Any], found: dict[str, Any]) -> None:
    assert by_path(fields) == found
    assert {path: value_at(fields, path) for path in found} == found


def test_what_is_declared_is_not_taken_apart_and_its_parts_are_found_if_they_are_declared() -> None:
    fields = {"a": {"b": {"c": 1}, "d": 2}}
    assert by_path(fields, {"a"}) == {"a": fields["a"]}
    assert by_path(fields, {"a"}, {"a.b.c"}) == {"a": fields["a"], "a.b.c": 1}
    assert by_path(fields, {"a.b"}) == {"a.b": {"c": 1}, "a.d": 2}


def test_objects_cost_no_more_than_their_size() -> None:
    long = {"k" * 1000: {str(number): 0 for number in range(1000)}}
    assert by_path({"a": long}) == {"a": long}  # no path repeats the long name a thousand times
    (path,) = by_path({"x": DEEP})
    assert path.count(".") < 32
    paths = Paths()
    for number in range(3 * MOST_PARTS):  # such as a rating by user
        last = paths.of({"ratings": {f"u{number}": 5}, "size": {"cm": 4}})
    assert paths.whole == {"ratings"} and last == {"ratings": {f"u{3 * MOST_PARTS - 1}": 5}, "size.cm": 4}
    assert paths.is_dropped("ratings.u1") and not paths.is_dropped("size.cm")


def test_a_row_keeps_what_metadata_has_twice() -> None:
    row = {"id": "1", "year": 2020, "metadata": {"year": 1999, "author": {"name": "Ann"}, "id": "x"}}
    assert unwrapped(row) == {
        "id": "1", "year": 2020, "author": {"name": "Ann"}, "metadata": {"year": 1999, "id": "x"},
    }  # fmt: skip


def test_a_value_is_replaced_where_it_stands() -> None:
    fields = {"a": {"b": 1, "c": 2}, "d.e": 3}
    assert replaced(fields, "a.b", 5) == {"a": {"b": 5, "c": 2}, "d.e": 3}
    assert replaced(fields, "d.e", None) == {"a": {"b": 1, "c": 2}}
    assert replaced(fields, "x.y", 4) == {**fields, "x.y": 4}
    assert fields == {"a": {"b": 1, "c": 2}, "d.e": 3}


def test_the_text_of_a_row_without_one_are_its_values() -> None:
    assert text_of_values({"a": {"b": "Saw"}, "n": 5, "ok": True, "none": None, "c": ["x", " "]}) == "Saw 5 x"
