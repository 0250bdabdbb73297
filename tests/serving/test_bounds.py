"""Whatever a caller sends in a field: the server's event loop does little, and answers with the request's own faults.

Each field of each route's request is sent empty, short, typical, at a bound and far beyond, alone and in GET addresses.
What the loop does is counted in calls of functions, which are the same on every machine.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from paddle_ranker.commands import search
from paddle_ranker.errors import UsageError
from paddle_ranker.notebook import Index
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.query import SearchedQuery
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from tests.checkout import ONCE
from tests.conftest import Call
from tests.serving.test_search import Site
from tests.tiny import write_ranker

pytestmark = pytest.mark.server
TEXT = "水稻病害 rice disease "
BASE: dict[str, dict[str, Any]] = {
    "POST /v1/search": {"query": TEXT},
    "POST /v1/rerank": {"query": TEXT, "documents": [TEXT]},
    "POST /v1/documents": {"documents": [{"id": "new", "text": TEXT}]},
    "PATCH /v1/documents": {"documents": [{"id": "d1", "text": TEXT}]},
    "DELETE /v1/documents": {"ids": ["none"]},
    "POST /v1/feedback": {"search_id": "1", "query": TEXT, "id": "d1", "position": 1, "event": "click"},
}
SIZES = (0, 1, 10, 100, 1000, 1001, 100_000, 100_001)
HARD = ('"', "a-", '"a" ', "-b ", "中", "\u0300", "\\", "a'", "1.", "(", "\U0001f600", "\x00", "ﬁ", " ", "i\u0307")
_MOST_CALLS = 10_000  # of functions, on the loop, for a request


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    base = tmp_path_factory.mktemp("bounds")
    info = IndexInfo(WordsInfo("standard"), None, schema=Schema((Field("title", "text", title=True),)))
    with Collection.create(base / "index", info) as collection:
        collection.writer.add(
            Document(f"d{n}", TEXT * 5, {"title": f"{TEXT} {n}", "year": n, "kind": "a"}) for n in range(50)
        )
    made = Site(index=base / "index", model=write_ranker(base / "model"), writable=True, search_log=base / "log")
    yield made
    made.close()


class Answer(NamedTuple):
    """An answer, and how many functions the loop's thread called for it."""

    status: int
    text: str
    calls: int


def ask(site: Site, method: str, address: str, body: bytes = b"", **headers: str) -> Answer:
    """Ask the application itself: a client would be counted, too."""
    path, _, query = address.partition("?")
    given = [(b"host", b"127.0.0.1"), *((name.encode(), value.encode()) for name, value in headers.items())]
    scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path}
    scope.update(
        root_path="", raw_path=path.encode(), query_string=query.encode(), headers=given, server=("127.0.0.1", 80)
    )
    sent, calls = list[Any](), 0

    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    async def run() -> None:
        sys.setprofile(count)
        try:
            await site.app(scope, receive, send)
        finally:
            sys.setprofile(None)

    site.loop.run_until_complete(run())
    return Answer(sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:]).decode(), calls)


def values() -> Iterator[Any]:
    """Yield values of a field: short, typical, at and beyond bounds, of its types and of others."""
    yield from (None, True, 0, -1, 1, 10**18, 1.5, "", [], {}, [None], [[]], {"a": None})
    yield from ("a" * size for size in SIZES)
    yield from (part * (1000 // len(part)) for part in HARD)
    yield from (part * (100_000 // len(part)) for part in HARD)
    yield from ([text] * size for text in ("year", "a") for size in SIZES[1:6])
    yield from ({"year": [1] * size} for size in SIZES[1:6])
    yield {f"f{n}": 1 for n in range(2000)}


def bodies(base: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in schema["properties"]:
        for value in values():
            yield name, {**base, name: value}
        if isinstance(items := base.get(name), list) and isinstance(items[0], dict):
            for field in (*items[0], "title", "kind"):
                for value in values():
                    yield field, {**base, name: [{**items[0], field: value}]}


@pytest.mark.thorough(keep=3)
@ONCE
@pytest.mark.parametrize("route", BASE)
def test_no_field_of_a_request_costs_the_loop_more_than_its_bytes(site: Site, route: str) -> None:
    (method, path), described = route.split(" "), site.ask("GET", "/openapi.json").json()
    content = described["paths"][path][method.lower()]["requestBody"]["content"]["application/json"]["schema"]
    name = content["$ref"].rpartition("/")[2] if "$ref" in content else content["anyOf"][0]["$ref"].rpartition("/")[2]
    asked = 0
    for field, body in bodies(BASE[route], described["components"]["schemas"][name]):
        given = json.dumps(body).encode()
        shown = brief(body.get(field, body))
        packed = [(gzip.compress(given), {"content-encoding": "gzip"})] if len(given) > 10_000 else []
        for data, more in ((given, dict[str, str]()), *packed):
            answer = ask(site, method, path, data, **more)
            assert answer.status < 500 and answer.calls < _MOST_CALLS, (field, shown, answer)
            asked += 1
    assert asked > 80


@pytest.mark.parametrize("path", ["/v1/search", "/v1/suggest", "/v1/documents", "/v1/judge"])
def test_no_parameter_of_an_address_does_either(site: Site, path: str) -> None:
    parameters = site.ask("GET", "/openapi.json").json()["paths"][path]["get"].get("parameters", [])
    for name in [one["name"] for one in parameters if one["in"] == "query"]:
        for value in values():
            if isinstance(value, (str, int)) and len(str(value)) <= 60_000:
                given = urlencode({"q": TEXT, name: value} if path in ("/v1/search", "/v1/suggest") else {name: value})
                answer = ask(site, "GET", f"{path}?{given}")
                assert answer.status < 500 and answer.calls < _MOST_CALLS, (name, brief(value), answer)


def brief(value: object) -> str:
    return f"{str(value)[:40]}, {len(str(value)):,} characters"


def test_the_loop_does_the_same_for_a_query_of_any_length(site: Site) -> None:
    def calls(size: int) -> int:
        body = json.dumps({"query": "a" * size}).encode()
        return min(ask(site, "POST", "/v1/search", body).calls for _ in range(3))

    assert abs(calls(9) - calls(9000)) < 300


BESIDE_SORT = "stands beside sort, which scores and ranks nothing"
BESIDE_NOTHING = "stands beside an empty query, which lists documents"
# What callers ask for, which callers can ask for it, and how all of them are refused.
OUT_OF_BOUNDS: list[tuple[dict[str, Any], str, str, str]] = [
    ({"query": '"a" ' * 17}, "http python command", "query", "more than the 16 phrases and exclusions"),
    ({"query": f'"{"a" * 2000}"'}, "http python command", "query", "does not end within the 1,000"),
    ({"query": "-field"}, "http python", "query", "says only what must not be there"),
    ({"by": ["none"]}, "http python command", "by", "cannot be searched by 'none', only by words"),
    ({"top_k": 0}, "http python command", "top_k", "must be at least 1"),
    ({"depth": 0}, "http python command", "depth", "must be at least 1"),
    ({"offset": -1}, "http python", "offset", "is -1, must be at least 0"),
    ({"rank_top": -1}, "http python", "rank_top", "is -1, must be at least 0"),
    ({"group_size": 0}, "http", "group_size", "is 0, must be at least 1"),
    ({"group_size": 3}, "http", "group_size", "is about the groups of group_by"),
    ({"snippet": 0}, "http", "snippet", "is 0, must be at least 1"),
    ({"field_size": 0}, "http", "field_size", "is 0, must be at least 1"),
    ({"min_probability": 2.0}, "http", "min_probability", "is 2.0, must be at least 0 and at most 1"),
    ({"min_probability": 0.5, "rank_top": 0}, "http", "min_probability", "ranked, and rank_top is 0"),
    ({"top_k": 101}, "http", "top_k", "is 101, at most 100 are allowed"),
    ({"depth": 1001}, "http", "depth", "is 1,001, at most 1,000 are allowed"),
    ({"rank_top": 1001}, "http", "rank_top", "is 1,001, at most 1,000 are allowed"),
    ({"fields": ["none"]}, "http", "fields", "'none' is no field of these documents"),
    ({"group_by": "none"}, "http python command", "group_by", "'none' is no field of these documents"),
    ({"where": {"year": [*range(1001)]}}, "http python command", "where", "1,001 values, at most 1,000 are allowed"),
    (
        {"where": {"kind": ["a" * 60_000] * 2}},
        "http python command",
        "where",
        "120,000 characters, at most 100,000 are allowed",
    ),
    ({"where": {"year": {"near": 1}}}, "http python", "where", "'near' is no operator"),
    ({"facets": ["none"]}, "http python", "facets", "'none' is no field of these documents"),
    ({"facets": ["year"] * 17}, "http python", "facets", "has 17 names, at most 16 are allowed"),
    ({"sort": ["-none"]}, "http python", "sort", "'none' is no field of these documents"),
    ({"facets": ["year", "year"]}, "http python", "facets", "names 'year' more than once"),
    ({"sort": ["year", "-year"]}, "http python", "sort", "names 'year' more than once"),
    ({"sort": ["year"] * 17}, "http python", "sort", "has 17 names, at most 16 are allowed"),
    ({"sort": ["year"], "offset": 8185}, "http python", "offset", "reaches beyond the first 8,192 sorted documents"),
    ({"sort": ["year"], "fusion": "rrf"}, "http python", "fusion", BESIDE_SORT),
    ({"sort": ["year"], "like": {"id": "d1"}}, "http python", "like", BESIDE_SORT),
    ({"sort": ["year"], "ranker": "none"}, "python", "ranker", BESIDE_SORT),
    ({"sort": ["year"], "rank_top": 5}, "http", "rank_top", BESIDE_SORT),
    ({"sort": ["year"], "depth": 5}, "http", "depth", BESIDE_SORT),
    ({"sort": ["year"], "min_probability": 0.5}, "http", "min_probability", BESIDE_SORT),
    (
        {"query": " ", "sort": ["year"], "offset": 8185},
        "http python",
        "offset",
        "beyond the first 8,192 sorted documents",
    ),
    ({"query": "", "offset": 8185}, "http python", "offset", "reaches beyond the first 8,192 sorted documents"),
    ({"query": "", "by": ["words"]}, "http python command", "by", BESIDE_NOTHING),
    ({"query": " ", "literal": True}, "http python command", "literal", BESIDE_NOTHING),
    ({"query": "", "literal": True, "sort": ["year"]}, "http python", "literal", BESIDE_NOTHING),
    ({"query": "", "prefix": True}, "http", "prefix", BESIDE_NOTHING),
    ({"query": "", "fusion": "rrf"}, "http python command", "fusion", BESIDE_NOTHING),
    ({"query": "", "ranker": "none"}, "python command", "ranker", BESIDE_NOTHING),
    ({"query": "", "rank_top": 5}, "http", "rank_top", BESIDE_NOTHING),
    ({"query": "", "min_probability": 0.5}, "http", "min_probability", BESIDE_NOTHING),
    ({"query": "", "depth": 5}, "http", "depth", BESIDE_NOTHING),
    ({"cursor": "a" * 200_000}, "http", "cursor", "has 200,000 characters, at most 174,786 are allowed"),
    ({"cursor": "a", "offset": 1}, "http", "cursor", "stands beside offset"),
]


@pytest.mark.parametrize(
    ("given", "callers", "parameter", "problem"),
    OUT_OF_BOUNDS,
    ids=[f"{parameter}: {problem}" for *_, parameter, problem in OUT_OF_BOUNDS],
)
def test_all_callers_are_refused_alike_before_a_search_begins(
    site: Site, given: dict[str, Any], callers: str, parameter: str, problem: str, call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    begun, given = list[SearchedQuery](), {"query": "rice", **given}
    monkeypatch.setattr(SearchedQuery, "choose_searchers", begun.append)
    messages = list[str]()
    if "http" in callers:
        answer = site.ask("POST", "/v1/search", given)
        assert answer.status_code == (413 if problem.endswith(("are allowed", "sorted documents")) else 422)
        assert answer.json()["field"] == parameter
        messages.append(answer.json()["error"])
    if "python" in callers:
        with Index(site.config.index) as index, pytest.raises(UsageError) as refused:
            index.search(**{**given, **({"like": given["like"]["id"]} if "like" in given else {})})
        messages.append(str(refused.value))
    if "command" in callers:
        where = [f"{name} in {','.join(map(str, values))}" for name, values in given.pop("where", {}).items()]
        options = {"by": ",".join(given.pop("by", ())), "where": " and ".join(where), "index": site.config.index}
        options |= {name: value for name, value in given.items() if name != "query"}
        more = [f"--{name}={value}" for name, value in options.items() if value != ""]
        status, _, err = call(search.main, given["query"], *more)
        assert status == 2 and problem in err and parameter in err.lower()
    assert all(one.startswith(f"{parameter}: ") and problem in one for one in messages) and len({*messages}) <= 1
    assert not begun


def test_a_least_probability_is_refused_without_a_ranker(site: Site) -> None:
    made = Site(index=site.config.index)
    try:
        answer = made.ask("POST", "/v1/search", {"query": "rice", "min_probability": 0.5})
    finally:
        made.close()
    assert answer.status_code == 422 and "there is no ranker" in answer.json()["error"]
