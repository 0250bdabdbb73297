"""Values are what their field's type says, for every caller: filters, facets, groups, orders, shards, HTTP."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union
from urllib.parse import urlencode

import numpy as np
import pytest

from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shards import open_shards
from paddle_ranker.retrieval.snapshots.searchable import Searchable
from paddle_ranker.retrieval.stages.search import Search, SearchSettings
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.field_values import FieldValues
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.values.filters import Condition, Filter, FilterError
from paddle_ranker.retrieval.values.listing import Listing
from paddle_ranker.retrieval.values.typed_values import TYPES, order_value, period_of
from tests.checkout import ONCE
from tests.elsewhere import elsewhere
from tests.serving.test_search import Site

pytestmark = pytest.mark.unit

# Type of the field, the value that is stored, the value that is asked for, and whether they are equal.
EQUAL: list[tuple[str, Any, Any, bool]] = [
    ("number", "2020.0", 2020, True), ("number", 2020, "2020.0", True), ("number", "0.50", "0.5", True),
    ("number", "5", 5.0, True), ("number", " 5 ", "5", True), ("number", "007", 7, True),
    ("number", "1e3", 1000, True), ("number", -0.0, 0, True), ("number", "-0.0", 0, True),
    ("number", 2**53 + 1, 2**53, False), ("number", str(2**53 + 1), 2**53 + 1, True),
    ("number", 10**300, str(10**300), True), ("number", 1e300, "1e300", True), ("number", 5, "5.1", False),
    ("number", "N/A", None, True), ("number", "NaN", None, True), ("number", "", None, True),
    ("number", "<NA>", None, True), ("number", 0, None, False), ("number", "5", None, False),
    ("number", "nan", 0, False), ("date", "2024-03-02 00:00:00", "2024-03-02", True),
    ("date", "2024-03-02", "2024-03-02T00:00:00Z", True),
    ("date", "2024-03-02T10:00:00+05:30", "2024-03-02T04:30:00Z", True),
    ("date", "2024-03-02T01:00+05:30", "2024-03-02", False), ("date", "2024-03-02T01:00+05:30", "2024-03-01", True),
    ("date", "2024-03-05", "2024-03", True), ("date", "2024-03-05", "2024", True), ("date", "2024-03-05", 2024, True),
    ("date", "2024-03-05", "2024-04", False), ("date", "2024-03", "2024-03-05", False), ("date", 2020, "2020", True),
    ("date", "2020", 2020, True), ("date", "2024-03-01 12:00:00+00", "2024-03-01T12:00:00Z", True),
    ("date", "2024-03-01T10Z", "2024-03-01T10:00Z", True), ("date", "2024-03-01T24:00:00", "2024-03-02", True),
    ("date", "2024-03-01T24:00:00", "2024-03-01", False), ("date", "2024-W09-5", "2024-03-01", True),
    ("date", "2024-02-27", "2024-W09", True), ("date", "2024-061", "2024-03-01", True),
    ("date", "20240301T120000Z", "2024-03-01T12:00", True), ("date", "20240301", "2024-03-01", True),
    ("date", "2016-12-31T23:59:60Z", "2016-12-31", True), ("date", "2016-12-31T23:59:60Z", "2017-01-01", False),
    ("date", "2017-01-01T05:29:60+05:30", "2016-12-31", True), ("date", "1969-12-31T23:59:59.999999", "1969", True),
    ("date", "0001-01-01", "0001", True), ("date", "9999-12-31T23:59:59Z", "9999-12", True),
    ("date", "1066-10-14", "1066", True), ("date", "2024-03-01T12:00:00.25Z", "2024-03-01T12:00:00Z", True),
    ("date", "2024-03-01T12:00:00.123456789Z", "2024-03-01T12:00:00.123456Z", True),
    ("date", "2024-03-01 12:00:00 +0100", "2024-03-01T11:00:00Z", True), ("date", "NaT", None, True),
    ("date", "2024", None, False), ("boolean", "True", True, True), ("boolean", True, "true", True),
    ("boolean", "FALSE", True, False), ("boolean", "false", False, True), ("boolean", "None", None, True),
    ("keyword", "true", "true", True), ("keyword", True, "true", True), ("keyword", True, True, True),
    ("keyword", "True", "true", False), ("keyword", 1.5, "1.5", True), ("keyword", "1.5", 1.5, True),
    ("keyword", 5.0, "5", True), ("keyword", "5.0", "5", False), ("keyword", "007", "7", False),
    ("keyword", "1.10", "1.1", False), ("keyword", "NA", "NA", True), ("keyword", "NA", None, False),
    ("keyword", "", None, True), ("keyword", None, None, True), ("stored", 7, 7.0, True),
    ("stored", True, True, True), ("stored", ["a", None, "b"], "b", True), ("stored", [None], None, True),
    ("stored", [], None, True), ("stored", {"a": 1}, None, False), ("number", [1, None, "2.0"], 2, True),
    ("number", [None], None, True),
]  # fmt: skip
REFUSED: list[tuple[str, Any]] = [
    ("number", True), ("number", "soon"), ("number", "1e400"), ("number", 10**400), ("number", "inf"),
    ("number", "1_0"), ("number", float("inf")), ("number", {"a": 1}), ("date", "2024-02-30"), ("date", "2023-366"),
    ("date", "2021-W53"), ("date", "10000-01-01"), ("date", "-0044-03-15"), ("date", "0000"),
    ("date", "2024-03-01T24:01"), ("date", "2024-03-01T12:00:60Z"), ("date", "2024-03T10:00"),
    ("date", "2024-03-01T10:00+24:00"), ("date", "0001-01-01T00:00+05:30"), ("date", "9999-12-31T24:00"),
    ("date", "soon"), ("date", True), ("date", 20.5), ("boolean", 1), ("boolean", "yes"), ("keyword", {"a": 1}),
    ("keyword", float("inf")),
]  # fmt: skip
INFO = WordsInfo("standard")
Place = Union[Searchable, Site]


def index(folder: Path, documents: Sequence[Document], *fields: Field, parts: int = 1) -> Path:
    with Collection.create(folder, IndexInfo(INFO, None, schema=Schema(fields))) as collection:
        for start in range(parts):
            collection.writer.add(documents[start::parts], merge=False)
    return folder


def searched(
    where: Place,
    condition: Union[str, Mapping[str, Any], None] = None,
    *,
    facets: Sequence[str] = (),
    by_address: bool = False,
    **more: Any,
) -> tuple[list[str], dict[str, list[tuple[Any, int]]]]:
    """Return the ids that one of the doors finds, and the facets."""
    if isinstance(where, Site):
        asked = {**more, "top_k": 100, **({"facets": [*facets]} if facets else {})}
        asked |= {} if condition is None else {"where": condition}
        if by_address:
            texts = {name: ",".join(own) if isinstance(own, list) else own for name, own in asked.items()}
            texts |= {} if condition is None else {"where": json.dumps(condition)}
            response = where.ask("GET", f"/v1/search?{urlencode({'q': 'rice', **texts})}")
        else:
            response = where.ask("POST", "/v1/search", {"query": "rice", **asked})
        answer = response.json()
        assert response.status_code == 200, answer
        counted = {
            name: [(one["value"], one["count"]) for one in own] for name, own in answer.get("facets", {}).items()
        }
        return [hit["id"] for hit in answer["hits"]], counted
    filters = Filter.parse([condition]) if isinstance(condition, str) else Filter.of(condition) if condition else None
    search = Search(where.snapshot(), "rice", ["words"], SearchSettings(), Listing(1000, where=filters, **more))
    if search.sort:
        search.find_sorted()
    else:
        search.fuse({"words": search.begin_lookup("words")()[0]})
    search.finish()
    counted = {name: [(json.loads(one), n) for one, n in own.items()] for name, own in search.facets(facets).items()}
    return [one.id for one in search.results()], counted


def written(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, (bool, int, float)) else f"'{value}'"


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    """Open an index with a field for each row of the table: here, as shards, as shards elsewhere, and on a server."""
    base = tmp_path_factory.mktemp("table")
    stored = {f"f{n}": value for n, (_, value, _, _) in enumerate(EQUAL)}
    fields = [Field(f"f{n}", kind, list=isinstance(value, list)) for n, (kind, value, _, _) in enumerate(EQUAL)]
    folder = index(base / "one", [Document("a", "rice", stored)], *fields)
    empty = index(base / "two", [Document("b", "wheat")], *fields)
    site = Site(index=folder)
    yield {"folder": Collection.open(folder), "shards": open_shards([folder, empty]),
           **dict(zip(["elsewhere"], elsewhere([empty, folder]))), "server": site}  # fmt: skip
    site.close()


@pytest.mark.thorough(keep=20)
@pytest.mark.parametrize("number", range(len(EQUAL)))
def test_two_spellings_are_equal_for_all_or_for_none(doors: dict[str, Place], number: int) -> None:
    kind, value, asked, is_equal = EQUAL[number]
    name = f"f{number}"
    ways: list[tuple[Any, bool]] = [
        ({name: asked}, is_equal), ({name: {"eq": asked}}, is_equal), ({name: {"in": [asked]}}, is_equal),
        ({name: {"ne": asked}}, not is_equal),
    ]  # fmt: skip
    texts = [(f"{name}={written(asked)}", is_equal), (f"{name}!={written(asked)}", not is_equal)]
    texts += [(f"{name} in {written(asked)}", is_equal)]
    ordered = kind in ("number", "date") and asked is not None and not isinstance(value, list)
    if ordered:
        ways.append(({name: {"gte": asked, "lte": asked}}, is_equal))
        texts.append((f"{name}>={written(asked)} and {name}<={written(asked)}", is_equal))
        has_value = bool(TYPES[kind].values(value))
        for sign in ("lt", "gt"):  # exactly one of <, = and > holds
            other = {"lt": "gt", "gt": "lt"}[sign]
            found = [searched(doors["folder"], {name: {one: asked}})[0] for one in (sign, other)]
            assert (found.count(["a"]) == 1) == (has_value and not is_equal)
    for where, place in doors.items():
        for condition, holds in ways:
            assert (searched(place, condition)[0] == ["a"]) is holds, (where, condition)
            if where == "server":
                assert (searched(place, condition, by_address=True)[0] == ["a"]) is holds, condition
        for text, holds in () if where == "server" else texts:
            assert (searched(place, text)[0] == ["a"]) is holds, (where, text)
        counted = searched(place, facets=[name])[1][name] if kind != "stored" or not isinstance(value, dict) else []
        for one, count in counted:  # what a facet shows finds what it counts
            assert count == 1 and searched(place, {name: one})[0] == ["a"], (where, one)
        assert bool(counted) == (searched(place, {name: {"ne": None}})[0] == ["a"]) or isinstance(value, dict)


@pytest.mark.parametrize(("kind", "value"), REFUSED)
def test_a_value_that_does_not_fit_is_refused_by_name(tmp_path: Path, kind: str, value: Any) -> None:
    folder = index(tmp_path / "index", [Document("a", "rice")], Field("f", kind))
    with Collection.open(folder, write=True) as collection:
        with pytest.raises(DataError, match=r"f is|cannot be stored"):
            collection.writer.add([Document("b", "rice", {"f": value})])
        if kind != "keyword" and not isinstance(value, (dict, float)):
            with pytest.raises(FilterError, match="'f' holds"):
                collection.snapshot().matching(None).count(Filter.of({"f": value}))
        assert len(collection) == 1


@pytest.mark.parametrize(
    ("kind", "bounds"),
    [
        ("keyword", ["M", "5", 5, 2.5, "2024-12", "N/A"]),
        ("stored", ["M", "2024-12"]),
        ("boolean", ["true"]),
        (None, ["M", 5, "2024-12-01"]),
    ],
)
def test_an_order_of_texts_or_truth_values_is_refused_at_every_door(
    tmp_path: Path, kind: Optional[str], bounds: Sequence[Any]
) -> None:
    value: Any = True if kind == "boolean" else "Anna"
    fields = [] if kind is None else [Field("f", kind)]
    folder = index(tmp_path / "index", [Document("a", "rice", {"f": value})], *fields)
    site, snapshot = Site(index=folder), Collection.open(folder).snapshot()
    for (sign, name), bound in product({"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}.items(), bounds):
        for filters in (Filter.of({"f": {name: bound}}), Filter.parse([f"f {sign} {bound}"])):
            with pytest.raises(FilterError, match=r"'f' holds .* cannot compare"):
                snapshot.matching(None).count(filters)
        response = site.ask("POST", "/v1/search", {"query": "rice", "where": {"f": {name: bound}}})
        assert response.status_code == 422 and "'f' holds" in response.json()["error"], response.json()
    site.close()


@pytest.mark.parametrize(
    "text",
    [
        " " * 100_000,
        f"a in x{' ' * 100_000}y",
        "a " * 50_000,
        "a in" * 25_000,
        "' \" " * 25_000,
        f"a in {',' * 99_000}'x",
    ],
)
def test_a_condition_is_parsed_in_linear_time(text: str) -> None:
    start = time.process_time()
    with suppress(FilterError):
        Filter.parse([text])
    assert time.process_time() - start < 20  # a minute and a half, when it was quadratic


def test_a_declared_field_without_values_finds_nothing(tmp_path: Path) -> None:
    kinds = ("keyword", "number", "date", "boolean", "stored")
    fields = [Field(f"a_{kind}", kind) for kind in kinds]
    folder = index(tmp_path / "index", [Document("a", "rice"), Document("b", "rice")], *fields)
    site = Site(index=folder)
    places: list[Place] = [Collection.open(folder), open_shards([folder]), *elsewhere([folder]), site]
    for place in places:
        for kind, asked in zip(kinds, ("x", 1, "2024", True, "x")):
            name = f"a_{kind}"
            assert searched(place, {name: asked})[0] == [] and len(searched(place, {name: {"ne": asked}})[0]) == 2
            assert searched(place, facets=[name]) == (["a", "b"], {name: []})
            assert searched(place, sort=[f"-{name}"])[0] == searched(place, group_by=name)[0] == ["a", "b"]
    assert site.ask("GET", "/v1/index").json()["fields"] == {}
    site.close()


def test_documents_without_a_value_are_groups_of_their_own(tmp_path: Path) -> None:
    levels = [1, None, 2, None, "1.0", True, "N/A", [], [None], 1.0]
    documents = [Document(f"d{n}", "rice", {"level": level}) for n, level in enumerate(levels)]
    for kind, wanted in (("stored", [0, 1, 2, 3, 4, 5, 6, 7, 8]), ("number", [0, 1, 2, 3, 6, 7, 8])):
        own = [one for one in documents if kind == "stored" or one.id != "d5"]
        folder = index(tmp_path / kind, own, Field("level", kind, list=True), parts=3)
        site = Site(index=folder)
        places: list[Place] = [Collection.open(folder), open_shards([folder]), *elsewhere([folder]), site]
        for place in places:
            assert sorted(searched(place, group_by="level")[0]) == [f"d{n}" for n in wanted], kind
        pages, answer = list[str](), dict[str, Any](cursor="")
        while answer["cursor"] is not None:
            answer = site.search("rice", group_by="level", top_k=2, cursor=answer["cursor"])
            pages += [hit["id"] for hit in answer["hits"]]
        assert sorted(pages) == [f"d{n}" for n in wanted]
        site.close()


class Drawn(NamedTuple):
    """A value, which may be spelled in several ways; `at` orders it among others of its type."""

    at: Any
    spellings: list[Any]


def numbers(draw: random.Random) -> Drawn:
    large = 2**53 + draw.randint(0, 3), -(2**60) - draw.randint(0, 2)
    value: Union[int, float] = draw.choice([draw.randint(-5, 20), draw.randint(0, 8) / 4, *large])
    if isinstance(value, float):
        return Drawn(value, [value, f"{value:.3f}", f"{value:e}"])
    return Drawn(value, [value, str(value), f" {value}", *([f"{value}.0", float(value)] if abs(value) < 2**53 else [])])


def dates(draw: random.Random) -> Drawn:
    at = datetime(draw.choice([1969, 2024]), draw.randint(1, 3), draw.randint(1, 3), tzinfo=timezone.utc)
    spellings: list[Any] = [f"{at:%Y-%m-%d}", f"{at:%Y-%m-%d %H:%M:%S}", f"{at:%Y-%j}", f"{at:%G-W%V-%u}"]
    if draw.random() < 0.5:
        at += timedelta(hours=draw.randint(0, 23), minutes=draw.choice([0, 30]))
        zones = [timezone(timedelta(minutes=one)) for one in (0, 330, -480)]
        spellings = [at.astimezone(zone).isoformat(sep, "minutes") for zone in zones for sep in " T"]
        spellings.append(f"{at:%Y%m%dT%H%M}Z")
    return Drawn(at.timestamp(), spellings)


def booleans(draw: random.Random) -> Drawn:
    value = draw.random() < 0.5
    return Drawn(value, [value, str(value), str(value).lower(), str(value).upper()])


def keywords(draw: random.Random) -> Drawn:
    value = draw.choice(["zh", "Zh", "é", "E", "f", "7", "true", "NA", "1.5", "水", "a,b"])
    others: dict[str, list[Any]] = {"7": [7, 7.0], "true": [True], "1.5": [1.5]}
    return Drawn(value, [value, *others.get(value, [])])


DRAWN: dict[str, Callable[[random.Random], Drawn]] = {
    "number": numbers, "date": dates, "boolean": booleans, "keyword": keywords
}  # fmt: skip


def place_of(kind: str, at: Any) -> Any:
    return (at.lower().replace("é", "e"), at) if kind == "keyword" else at


def met(sign: str, at: Any, low: Any, high: Any) -> bool:
    return bool({"lt": at < low, "lte": at <= high, "gt": at > high, "gte": at >= low}.get(sign, low <= at <= high))


@pytest.mark.thorough(keep=4)
@ONCE
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
@pytest.mark.parametrize("kind", [*DRAWN])
def test_all_callers_agree_with_values_that_were_drawn(tmp_path: Path, kind: str, declared: bool) -> None:
    draw = random.Random(f"{kind}{declared}")
    truth: dict[str, list[Any]] = {}
    documents = []
    for number in range(60):
        own = [DRAWN[kind](draw) for _ in range(draw.choice([0, 1, 1, 1, 1, 2]))]
        if not declared:  # else they would be of several types
            is_exact = kind in ("keyword", "boolean")
            own = [one._replace(spellings=[one.at] if is_exact else [*map(str, one.spellings)]) for one in own]
        values = [draw.choice(one.spellings) for one in own]
        none = draw.choice([None, *(["N/A", "nan", ""] if declared and kind != "keyword" else [])])
        given = values if len(values) > 1 else values[0] if values else none
        truth[f"d{number:02}"] = [one.at for one in own]
        documents.append(Document(f"d{number:02}", "rice", {"f": given, "g": given if len(values) < 2 else None}))
    fields = [Field(name, kind, list=name == "f") for name in "fg"] if declared else []
    one = index(tmp_path / "one", documents, *fields, parts=3)
    halves = [index(tmp_path / f"half{n}", documents[n::2], *fields) for n in range(2)]
    site = Site(index=one)
    places: list[Place] = [Collection.open(one), open_shards(halves), *elsewhere(halves), site]
    for _ in range(25):
        asked = DRAWN[kind](draw)
        spelling = asked.at if kind in ("keyword", "boolean") and not declared else draw.choice(asked.spellings)
        exact = Drawn(asked.at, [spelling])
        sign = draw.choice(["eq", "ne", "in", *(["lt", "lte", "gt", "gte"] if kind in ("number", "date") else [])])
        low = high = exact.at
        if kind == "date":  # a day, or a minute
            high = low + (86400 if len(str(spelling)) <= 10 else 60) - 1
        wanted = [id for id, own in truth.items() if any(met(sign, at, low, high) for at in own) != (sign == "ne")]
        condition = {"f": {sign: [spelling] if sign == "in" else spelling}}
        signs = {"eq": "=", "ne": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "in": " in "}
        for place in places:
            assert sorted(searched(place, condition)[0]) == wanted, condition
            if place is site:
                assert sorted(searched(place, condition, by_address=True)[0]) == wanted, condition
            else:
                text = f"f{signs[sign]}{written(asked.at if kind == 'keyword' else spelling)}"
                assert sorted(searched(place, text)[0]) == wanted, text
    counts = Counter(at for own in truth.values() for at in {*own})
    firsts = {id: own[0] for id, own in truth.items() if own}
    for place in places:
        counted = searched(place, facets=["f"])[1]["f"]
        assert sum(count for _, count in counted) == sum(counts.values())
        assert len({str(value) for value, _ in counted}) == len(counted)
        if not any(isinstance(value, dict) for value, _ in counted):
            assert sorted(count for _, count in counted) == sorted(counts.values())
        for value, count in counted:
            assert len(searched(place, {"f": value})[0]) == count, value
        for name, descending in (("f", False), ("-f", True)):
            found = [id for id in searched(place, sort=[name])[0] if id in firsts]
            keys = [place_of(kind, firsts[id]) for id in found]
            assert keys == sorted(keys, reverse=descending) and len(keys) == len(firsts)
            ends = [id for id in searched(place, sort=[name])[0] if id not in firsts]
            assert searched(place, sort=[name])[0][len(firsts) :] == ends
        alone = [own[0] for own in truth.values() if len(own) == 1]
        others = sum(len(own) != 1 for own in truth.values())
        assert len(searched(place, group_by="g")[0]) == len({*alone}) + others
    site.close()


def test_a_field_that_is_not_declared_has_the_type_of_all_its_values(tmp_path: Path) -> None:
    """Also where another shard has the other values."""
    columns: dict[str, tuple[list[Any], dict[Any, list[int]]]] = {
        "text_numbers": (["5", "5.0", "10", "N/A"], {5: [0, 1], "5": [0, 1]}),
        "codes": (["007", "7", "10", None], {"7": [1], "007": [0]}),
        "accents": (["café", "cafe\u0301", "CAFÉ", "cafe"], {"café": [0, 1], "cafe\u0301": [0, 1], "cafe": [3]}),
        "mixed": ([5, "5", 10, "x"], {5: [0], "5": [1], "x": [3]}),
        "truths": ([True, "true", False, None], {True: [0], "true": [1], False: [2]}),
        "text_truths": (["True", "false", "TRUE", "nan"], {True: [0, 2], "true": [0, 2]}),
        "dates": (["2024-03-02", "2024-03-02T05:30:00+05:30", "2024-04", None], {"2024-03-02": [0, 1], "2024-04": [2]}),
        "no_dates": (["2024-03-02", "2024-03-02 00:00:00", "soon", None], {"2024-03-02": [0], "soon": [2]}),
        "objects": ([[[1]], [[1.0]], [[2]], None], {None: [3]}),
        "nested.a": ([{"a": 1}, {"a": 1.0}, [{"a": 2}, {"a": 1}], {"b": 1}], {1: [0, 1, 2], 2: [2], None: [3]}),
    }
    documents = [
        Document(f"d{n}", "rice", {name.split(".")[0]: values[n] for name, (values, _) in columns.items()})
        for n in range(4)
    ]
    halves = [index(tmp_path / f"half{n}", documents[n::2]) for n in range(2)]
    whole = index(tmp_path / "whole", documents, parts=4)
    for place in (Collection.open(whole), open_shards(halves), *elsewhere(halves)):
        for name, (_, asked) in columns.items():
            for value, wanted in asked.items():
                assert sorted(searched(place, {name: value})[0]) == [f"d{n}" for n in wanted], (name, value)
        with pytest.raises(FilterError, match="'objects' holds objects"):
            searched(place, {"objects": "a"})
        assert searched(place, facets=["text_numbers"])[1]["text_numbers"] == [(5, 2), (10, 1)]


def test_years_beside_dates_in_a_field_of_dates_are_in_order_of_time(tmp_path: Path) -> None:
    days = ["2021-05", 2020, "2019-12-31T23:00:00-05:00", "2021", "2020-01-01", "N/A", "1066"]
    documents = [Document(f"d{n}", "rice", {"day": day}) for n, day in enumerate(days)]
    collection = Collection.open(index(tmp_path / "index", documents, Field("day", "date"), parts=2))
    assert searched(collection, sort=["day"])[0] == ["d6", "d4", "d1", "d2", "d3", "d0", "d5"]  # equal ones by hash
    assert searched(collection, facets=["day"])[1]["day"] == [  # as finely as the finest: each finds what it counts
        ("2020-01-01T00:00:00Z", 2), ("1066-01-01T00:00:00Z", 1), ("2020-01-01T04:00:00Z", 1),
        ("2021-01-01T00:00:00Z", 1), ("2021-05-01T00:00:00Z", 1),
    ]  # fmt: skip


def test_values_are_ranked_and_met_as_each_by_itself() -> None:
    given = ["zh", 7, "7", 7.0, "007", "", "é", True, False, "true", 2.5, 2**60, 2**60 + 1, -1, "-1", None, "2024-03",
             ["zh", 7], [], [None, "7"], {"a": 7}, [[7]], "E", "f"]  # fmt: skip
    for kind, type in TYPES.items():
        values = [one for one in given if all(type.fits(item) for item in (one if isinstance(one, list) else [one]))]
        arranged = FieldValues(np.frombuffer(json.dumps(values, ensure_ascii=False).encode(), np.uint8), kind)
        orders = [None if (own := order_value(type.values(one))) is None else own.order for one in values]
        assert len(arranged) == len(values)
        ranks: list[Optional[int]] = [None if rank < 0 else rank for rank in arranged.ranks.tolist()]
        for one, rank in zip(orders, ranks):
            assert (one is None) == (rank is None)
            for other, below in zip(orders, ranks):
                if one is not None and other is not None and rank is not None and below is not None:
                    assert (one < other, one == other) == (rank < below, rank == below)
        for asked in (7, "7", "zh", 2**60, 2**60 + 1, True, None, "2024-03-05", "nothing"):
            intervals = type.intervals(asked, "=")
            found = arranged.meeting(Condition("f", "=", (asked,), kind)).tolist()
            keys = [[value.key for value in type.values(one)] for one in values]
            wanted = [
                any(one.kind == key[0] and one.low <= key[1] <= one.high for key in own for one in intervals)  # type: ignore[operator]
                or (not own and any(not one.kind for one in intervals))
                for own in keys
            ]
            assert found == wanted, (kind, asked)
    for line in (b'["a","b"]', b"12", b"{}", b'["a"', b"[" * 9999):
        with pytest.raises(CheckpointError, match="not as they were written"):
            len(FieldValues(np.frombuffer(line, np.uint8), "keyword"))


def test_a_period_ends_where_the_next_begins() -> None:
    for text, after in (
        ("2024", "2025"), ("2024-02", "2024-03"), ("2024-02-29", "2024-03-01"), ("2024-W09", "2024-W10"),
        ("2024-366", "2025-001"), ("1969-12-31T23", "1970-01-01"), ("2024-03-01T10:59", "2024-03-01T11"),
        ("2024-03-01T10:59:59", "2024-03-01T11:00Z"), ("2024-03-01T10:59:59.999999", "2024-03-01T11:00"),
    ):  # fmt: skip
        one, other = period_of(text), period_of(after)
        assert one is not None and other is not None and one[1] == other[0], text
