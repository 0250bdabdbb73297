"""`search-serve --mcp`: the SDK's own client lists, searches and fetches, in both eras of the protocol; its bounds."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the SDK of the Model Context Protocol needs Python 3.10")

import httpx
from mcp import Client, MCPError

from paddle_ranker.mcp import tools
from paddle_ranker.mcp.http import MOST_BYTES
from paddle_ranker.mcp.protocol import make_server
from paddle_ranker.mcp.tools import MOST_TEXT, SearchTools, ToolCall
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.work import turns
from paddle_ranker.serving.core.byte_budget import ByteBudget
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.search_log import LogReader, SearchLine
from paddle_ranker.serving.process.worker import make_app
from paddle_ranker.serving.slots import queued_search
from tests.mcp.cases import ERAS, LiveApp, client_of, index_of, mode_of, soon
from tests.serving_cases import OpenedSite, ask_app, close_slots, opened_slots
from tests.started import until
from tests.tiny import write_index, write_ranker, write_tower

pytestmark = pytest.mark.parity
LONG = "深度学习" * (MOST_TEXT // 4) + "水稻病害"
ODD = Document(
    "of all/kinds?",
    LONG,
    {"title": "T", "url": "https://docs.example/1", "note": "x" * 9000, "list": [1] * 5000, "year": 1999},
)
ASK = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": {"query": "水稻"}}}
ACCEPT = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("mcp")
    return {"index": index_of(base, ODD), "model": write_ranker(base / "ranker")}


@pytest.fixture(scope="module")
def site(folders: dict[str, Path]) -> Iterator[OpenedSite]:
    made = OpenedSite(**folders, mcp=True)
    yield made
    close_slots(made.slots)


def answer_of(result: Any) -> Any:
    """Return a tool's answer, after comparing its two forms: one text item with the JSON of the object."""
    assert not result.is_error, result
    (text,) = result.content
    assert text.type == "text" and json.loads(text.text) == result.structured_content
    return result.structured_content


@pytest.mark.parametrize("era", ERAS)
def test_the_tools_are_listed_searched_and_fetched(era: str, site: OpenedSite) -> None:
    async def run() -> None:
        async with client_of(site.app, era) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert [*listed] == ["search", "fetch", "search_documents"]
            for tool in listed.values():
                assert tool.annotations.read_only_hint and not tool.annotations.open_world_hint
                assert tool.output_schema["type"] == tool.input_schema["type"] == "object"
            assert [*listed["search"].input_schema["properties"]] == ["query"]
            assert listed["fetch"].input_schema["required"] == ["id"]
            about = listed["search_documents"].description
            assert '"year": integer, from 1999 to 2003' in about and '"lang": string, one of "en", "zh"' in about
            found = answer_of(await client.call_tool("search", {"query": "水稻研究"}))["results"]
            asked = (await ask_app(site.app, "POST", "/v1/search", {"query": "水稻研究"})).json()["hits"]
            assert [one["id"] for one in found] == [hit["id"] for hit in asked]
            assert all([*one] == ["id", "title", "url"] and all(one.values()) for one in found)
            fetched = answer_of(await client.call_tool("fetch", {"id": found[0]["id"]}))
            assert [*fetched] == ["id", "title", "text", "url", "metadata"]
            stored = (await ask_app(site.app, "GET", f"/v1/documents/{found[0]['id']}")).json()
            assert fetched["text"] == stored["text"] and fetched["metadata"] == stored["fields"]
            assert {one["id"]: one["url"] for one in found}[fetched["id"]] == fetched["url"]

    soon(run())


@pytest.mark.parametrize("era", ERAS)
def test_filters_facets_and_order_are_those_of_the_routes(era: str, site: OpenedSite) -> None:
    page = {"facets": ["lang"], "top_k": 2, "offset": 1, "sort": None}
    asked = {"query": "研究", "where": {"year": {"gte": 2001}}, **page}

    async def run() -> None:
        async with client_of(site.app, era) as client:
            for more in ({}, {"sort": ["-year"]}):
                found = answer_of(await client.call_tool("search_documents", {**asked, **more}))
                body = {**asked, **more, "total": True, "snippet": 500}  # null is as good as left out
                same = (await ask_app(site.app, "POST", "/v1/search", body)).json()
                assert [one["id"] for one in found["results"]] == [hit["id"] for hit in same["hits"]]
                assert [one["passage"] for one in found["results"]] == [hit["snippet"]["text"] for hit in same["hits"]]
                assert found["facets"] == same["facets"] and found["total"] == same["total"] == 3
                assert ("probability" in found["results"][0]) == (not more)

    soon(run())


WRONG = [
    ("fetch", {"id": "nothing"}, "there is no document 'nothing'"),
    ("fetch", {"id": ""}, "id: String should have at least 1 character"),
    ("fetch", {"id": "d0", "start": 99}, "start: is 99, and the text has 4 characters"),
    ("fetch", {}, "id: Field required"),
    ("search", {"query": "水稻", "limit": 3}, "limit: is not permitted, there are query"),
    ("search", {"query": 7}, "query: Input should be a valid string"),
    ("search", {"query": "  "}, "query: is empty"),
    ("search", {"query": "x" * 1001}, "query: String should have at most 1000 characters"),
    ("search_documents", {"query": "水稻", "where": {"lan": "zh"}}, "did you mean lang?"),
    ("search_documents", {"query": "水稻", "top_k": 101}, "top_k: is 101"),
    ("search_documents", {"query": "水稻", "top_k": 0}, "top_k"),
    ("search_documents", {"query": "水稻", "facets": ["no"]}, "facets: 'no' is no field"),
]


@pytest.mark.parametrize("era", ERAS)
def test_wrong_calls_say_what_is_wrong_to_the_model(era: str, site: OpenedSite) -> None:
    async def run() -> None:
        async with client_of(site.app, era) as client:
            for name, arguments, problem in WRONG:
                result = await client.call_tool(name, arguments)
                assert result.is_error and problem in result.content[0].text, (name, arguments, result)
                assert result.structured_content is None
            with pytest.raises(MCPError, match="there is no tool 'delete', only search, fetch, search_documents"):
                await client.call_tool("delete", {"id": "d0"})
            with pytest.raises(MCPError, match=r"body: has \d+ bytes, above the 65,536 of a request"):
                await client.call_tool("search", {"query": "x" * 1_000_000})
            assert answer_of(await client.call_tool("search", {"query": "水稻"}))["results"]

    soon(run())


def test_a_long_document_is_read_in_parts_and_long_values_are_cut(site: OpenedSite) -> None:
    async def run() -> None:
        async with client_of(site.app, ERAS[1]) as client:
            first = answer_of(await client.call_tool("fetch", {"id": ODD.id}))
            assert (
                first["title"] == "深度学习" * 20 and first["url"] == "https://docs.example/1"
            )  # the schema has no title
            assert first["metadata"]["_text"] == {"start": 0, "end": MOST_TEXT, "characters": len(LONG)}
            assert first["metadata"]["_cut"] == ["note", "list"] and first["metadata"]["note"] == "x" * 1000 + "…"
            assert "list" not in first["metadata"] and first["metadata"]["year"] == 1999
            rest = answer_of(await client.call_tool("fetch", {"id": ODD.id, "start": MOST_TEXT}))
            assert first["text"] + rest["text"] == LONG
            found = answer_of(
                await client.call_tool("search_documents", {"query": "深度学习", "where": {"year": 1999}})
            )
            assert found["cut"] == ["note", "list"] and len(found["results"][0]["passage"]) <= 500

    soon(run())


def test_results_beyond_the_longest_answer_are_left_out_and_counted(
    site: OpenedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "_MOST_ANSWER", 700)

    async def run() -> None:
        async with client_of(site.app, ERAS[1]) as client:
            asked = await ask_app(site.app, "POST", "/v1/search", {"query": "研究"})
            whole = [hit["id"] for hit in asked.json()["hits"]]
            shown: list[str] = []
            while len(shown) < len(whole):
                page = {"query": "研究", "offset": len(shown)}
                found = answer_of(await client.call_tool("search_documents", page))
                shown += [one["id"] for one in found["results"]]
                assert found.get("left_out", 0) == len(whole) - len(shown)
            assert shown == whole

    soon(run())


URLS = [
    (None, "d1", "http://127.0.0.1:8600/?q=%E8%80%81%E5%B9%B4%E4%BA%BA%E7%A0%94%E7%A9%B6&open=d1"),
    (None, ODD.id, "https://docs.example/1"),
    ("url", ODD.id, "https://docs.example/1"),
    ("https://shop.example/{sku}?y={year}", "d1", "https://shop.example/a%2F1?y=2001"),
    ("https://shop.example/{id}", ODD.id, "https://shop.example/of%20all%2Fkinds%3F"),
    ("sku", "d1", "http://127.0.0.1:8600/?q=%E8%80%81%E5%B9%B4%E4%BA%BA%E7%A0%94%E7%A9%B6&open=d1"),  # no address
]


def test_every_document_has_an_address(site: OpenedSite) -> None:
    async def run(url: Any, id: str) -> str:
        server = make_server(SearchTools(site.slots, url), lambda request: ToolCall(page="http://127.0.0.1:8600"))
        async with Client(server) as client:
            return str(answer_of(await client.call_tool("fetch", {"id": id}))["url"])

    for url, id, address in URLS:
        assert soon(run(url, id)) == address, url
    server = make_server(SearchTools(site.slots, "https://x.example/{isbn}"), lambda request: ToolCall())

    async def misconfigured() -> None:
        async with Client(server) as client:
            for name, arguments in (("search", {"query": "水稻"}), ("fetch", {"id": "d0"})):
                result = await client.call_tool(name, arguments)
                assert result.is_error and "--url: no document has the field 'isbn', only" in result.content[0].text

    soon(misconfigured())


def test_hosts_origins_keys_and_methods_are_checked_before_the_protocol(folders: dict[str, Path]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADDLE_RANKER_API_KEY", "a-key")
        keyed = OpenedSite(**folders, mcp=True)
    open_site = OpenedSite(**folders, mcp=True)
    off = OpenedSite(**folders)
    try:
        key = {"authorization": "Bearer a-key"}
        cases: list[tuple[Any, str, dict[str, str], int]] = [
            (keyed, "POST", {}, 401),
            (keyed, "POST", {"authorization": "Bearer b"}, 401),
            (keyed, "POST", key, 200),
            (keyed, "POST", {**key, "origin": "https://evil.example"}, 403),
            (keyed, "POST", {**key, "sec-fetch-site": "cross-site"}, 403),
            (keyed, "POST", {**key, "origin": "null"}, 403),
            (keyed, "POST", {**key, "origin": "http://127.0.0.1"}, 200),
            (open_site, "POST", {"host": "rebound.example"}, 421),
            (open_site, "POST", {"content-encoding": "br"}, 400),
            (open_site, "POST", {"x-request-timeout-ms": "0"}, 504),
            (open_site, "POST", {"accept": "text/html"}, 406),
            (open_site, "GET", {}, 405),
            (open_site, "DELETE", {}, 405),
            (off, "POST", {}, 404),
        ]
        for asked, method, headers, status in cases:
            answer: httpx.Response = asked.ask(method, "/mcp", ASK, **{**ACCEPT, **headers})
            assert answer.status_code == status, (method, headers, answer.text)
            assert "mcp-session-id" not in answer.headers
            shown = answer.json()
            assert ("result" in shown) == (status == 200) and shown["jsonrpc"] == "2.0", answer.text
            assert status == 200 or shown["error"]["message"]
        assert "start it with --mcp" in off.ask("POST", "/mcp", ASK, **ACCEPT).text
        assert open_site.ask("POST", "/mcp/", ASK, **ACCEPT).status_code == 200  # clients join addresses in both ways
    finally:
        for one in (keyed, open_site, off):
            close_slots(one.slots)


NESTED = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
BODIES = [
    (b"x" * (MOST_BYTES + 1), 413),
    (b"[" * 3000, 413),
    (b"[" + b"1," * 3000 + b"1]", 413),
    (b"not JSON", 400),
    (NESTED + b"[" * 900 + b"]" * 900 + b"}", 400),
    (b"[]", 400),
    (b'"x"', 400),
    (b"\xff\xfe", 400),
    (b"", 400),
]


@pytest.mark.parametrize("era", ERAS)
def test_bodies_are_bounded_before_the_sdk_parses_them(era: str, site: OpenedSite) -> None:
    for body, status in BODIES:
        answer = site.ask("POST", "/mcp", body, **ACCEPT, **{"mcp-protocol-version": era})
        assert answer.status_code == status, (body[:40], answer.text)
    packed = httpx.Request("POST", "http://x", json=ASK).content
    answer = site.ask("POST", "/mcp", gzip.compress(packed), **ACCEPT, **{"content-encoding": "gzip"})
    assert answer.status_code == 200 and answer.json()["result"]["structuredContent"]["results"]


def test_calls_are_counted_and_logged_as_requests_and_as_searches(
    folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config, slots = opened_slots(**folders, mcp=True, search_log=tmp_path / "log", log_texts=True)
    log, metrics, budget = JsonLog(with_texts=True), Metrics(), ByteBudget(1 << 30)
    app = make_app(slots, config, metrics, log=log, budget=budget)

    async def run() -> None:
        async with client_of(app, ERAS[1]) as client:
            await client.call_tool("search", {"query": "水稻研究"})
            await client.call_tool("fetch", {"id": "nothing"})

    soon(run())
    close_slots(slots)  # with the log of searches
    log.close()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith('{"time')]
    calls = [line for line in lines if line.get("protocol") == "mcp"]
    (searched,) = [line for line in calls if "texts" in line]
    assert searched["texts"] == {"query": "水稻研究"} and searched["stages"]["total"] > 0 and searched["pairs"] > 0
    assert [line["outcome"] for line in calls].count("no_such_document") == 1
    text = metrics.render()[0].decode()
    assert 'ranker_requests_total{outcome="no_such_document",protocol="mcp"} 1.0' in text
    (logged,) = [line for line in LogReader(tmp_path / "log") if isinstance(line, SearchLine)]
    assert logged.query == "水稻研究" and logged.shown and budget.held == 0


class Held:
    """Searches that never end by themselves. Attributes: `begun`, `ended`, how many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = self.ended = 0
        monkeypatch.setattr(queued_search, "run_searches", self)

    def __call__(self, *arguments: object) -> Any:
        self.begun += 1
        try:
            while True:
                turns.check()
                time.sleep(0.005)
        finally:
            self.ended += 1


async def _cancel(client: Client, held: Held, name: str) -> None:
    before = held.begun
    calling = asyncio.ensure_future(client.call_tool(name, {"query": "水稻"}))
    while held.begun == before:
        await asyncio.sleep(0.005)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


@pytest.mark.parametrize("name", ["search", "search_documents"])
def test_a_cancelled_call_ends_its_search(name: str, site: OpenedSite, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    with LiveApp(site.app) as live:

        async def over_http() -> None:
            async with Client(live.url, mode=mode_of(ERAS[1])) as client:
                await _cancel(client, held, name)
                while held.ended < 1:
                    await asyncio.sleep(0.005)
            # In the era of `initialize` a cancellation is a message of its own, which no other request may act on: the
            # search ends when its caller leaves.
            async with Client(live.url, mode="legacy") as client:
                await _cancel(client, held, name)

        soon(over_http())
        until(lambda: held.ended == 2)

    async def over_streams() -> None:  # as over standard input and output
        server = make_server(SearchTools(site.slots), lambda request: ToolCall())
        async with Client(server, mode="legacy") as client:
            await _cancel(client, held, name)
            while held.ended < 3:
                await asyncio.sleep(0.005)

    soon(over_streams())
    assert held.begun == 3


def test_names_titles_and_counts_of_any_length_have_their_bounds(tmp_path: Path) -> None:
    many = [
        Document(
            f"m{n}", f"水稻研究{n}", {"title": "题" * 5000, "url": "javascript:alert(1)", "tag": "y" * 300 + str(n)}
        )
        for n in range(99)
    ]
    more = Document("wide", "水稻", {f"field{n}": "深" * 1000 for n in range(300)})
    _, slots = opened_slots(index=index_of(tmp_path, *many, more), mcp=True)
    server = make_server(SearchTools(slots), lambda request: ToolCall())

    async def run() -> None:
        async with Client(server) as client:
            asked = {"query": "水稻研究", "facets": ["tag", "lang"], "top_k": 100}
            found = answer_of(await client.call_tool("search_documents", asked))
            assert len(json.dumps(found, ensure_ascii=False).encode()) < 100_000 and found["left_out"] > 0
            assert 0 < len(found["facets"]["tag"]) < 20 and len(found["facets"]["lang"]) == 2 and "tag" in found["cut"]
            assert all(len(one["title"]) <= 200 and one["url"].startswith("urn:") for one in found["results"])
            wide = answer_of(await client.call_tool("fetch", {"id": "wide"}))["metadata"]
            assert len(json.dumps(wide, ensure_ascii=False).encode()) < 100_000
            assert len(wide) + len(wide["_cut"]) == 301 and "field0" in wide and "field299" in wide["_cut"]
            (about,) = [
                tool.description for tool in (await client.list_tools()).tools if tool.name == "search_documents"
            ]
            assert len(about) < 10_000 and " more\n" in about

    soon(run())
    close_slots(slots)


def test_an_index_without_documents_is_described_and_searched(tmp_path: Path) -> None:
    _, slots = opened_slots(index=write_index(tmp_path / "index", write_tower(tmp_path / "tower"), []))
    server = make_server(SearchTools(slots, "isbn"), lambda request: ToolCall())

    async def run() -> None:
        async with Client(server) as client:
            tools = (await client.list_tools()).tools
            assert "Documents have no fields" in str(tools[2].description) and "0 documents" in str(
                tools[0].description
            )
            assert answer_of(await client.call_tool("search", {"query": "水稻"})) == {"results": []}
            found = answer_of(await client.call_tool("search_documents", {"query": "水稻"}))
            assert found["results"] == [] and found["total"] == 0

    soon(run())
    close_slots(slots)
