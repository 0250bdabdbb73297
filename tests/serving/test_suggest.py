"""Suggestions of a server: titles and clicked queries, which follow the index and the log without a stall."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stages.suggestions import TitleSuggestions
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.serving.core.search_log import FeedbackLine, SearchLine, SearchLog, new_search_id
from paddle_ranker.serving.http import suggest
from paddle_ranker.serving.slots.index_slot import IndexSlot
from tests.serving.test_search import Site
from tests.serving_cases import SECONDS, ask_app
from tests.started import until

pytestmark = pytest.mark.unit
TITLES = ["Kubernetes in Action", "Kubernetes", "Docker and Kubernetes", "水稻病害"]


def write(folder: Path, titles: bool = True) -> Path:
    schema = Schema((Field("title", "text", title=True),) if titles else ())
    with Collection.create(folder, IndexInfo(WordsInfo("standard"), None, schema=schema)) as collection:
        collection.writer.add(
            Document(f"d{n}", "a long text " * 20, {"title": title}) for n, title in enumerate(TITLES)
        )
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(suggest, "_LOG_SECONDS", 0.0)
    made = Site(index=write(tmp_path / "index"), writable=True, search_log=tmp_path / "log")
    yield made
    made.close()


def get(site: Site, **asked: object) -> httpx.Response:
    return site.ask("GET", f"/v1/suggest?{urlencode(asked)}")


def texts(site: Site, typed: str, origin: str = "title") -> list[str]:
    answer = get(site, q=typed)
    assert answer.status_code == 200, answer.text
    return [one["text"] for one in answer.json()["suggestions"] if one["from"] == origin]


def test_titles_follow_the_index(site: Site) -> None:
    assert get(site, q="ＫUB", top_k=2).json() == {
        "suggestions": [{"text": "Kubernetes", "from": "title"}, {"text": "Kubernetes in Action", "from": "title"}]
    }
    new = {"documents": [{"id": "new", "text": "any", "fields": {"title": "Kubectl"}}]}
    assert site.ask("POST", "/v1/documents", new).json()["added"] == 1
    until(lambda: texts(site, "kub") == ["Kubectl", "Kubernetes", "Kubernetes in Action", "Docker and Kubernetes"])
    assert site.ask("DELETE", "/v1/documents", {"ids": ["new", "d0"]}).json()["removed"] == 2
    until(lambda: texts(site, "kub") == ["Kubernetes", "Docker and Kubernetes"])
    with Collection.open(site.config.index, write=True) as other:  # another process
        other.writer.add([Document("more", "any", {"title": "Kubeflow"})])
    until(lambda: "Kubeflow" in texts(site, "kub"))


def test_queries_with_clicks_in_two_searches_come_first(site: Site) -> None:
    slot = site.slots["index"]
    assert isinstance(slot, IndexSlot) and slot.log is not None

    def searched(log: SearchLog, query: str, searches: int, clicks: int = 1, **parameters: object) -> None:
        for _ in range(searches):
            id = new_search_id()
            log.search(SearchLine(id, query, {}, [], parameters))
            for _ in range(clicks):
                log.feedback(FeedbackLine(id, query, "d1", "click")).result()

    searched(slot.log, "install kubernetes", 3)
    searched(slot.log, "Kubernetes", 2)
    searched(slot.log, "kubernetes", 2)
    searched(slot.log, "kubernetes operator", 2)
    searched(slot.log, "kube", 9, prefix=True)  # while typing
    searched(slot.log, "kubernetes secret", 1, clicks=5)
    searched(slot.log, "kubernetes unclicked", 9, clicks=0)
    queries = ["Kubernetes", "install kubernetes", "kubernetes operator"]
    until(lambda: texts(site, "kub", "query") == queries)
    assert texts(site, "kub") == ["Kubernetes in Action", "Docker and Kubernetes"]  # each text once
    other = SearchLog(site.config.search_log)  # another process
    searched(other, "kubernetes secret", 1)
    other.close()
    until(lambda: texts(site, "kub", "query") == [*queries, "kubernetes secret"])


def test_titles_come_by_their_documents_clicks(tmp_path: Path) -> None:
    log = SearchLog(tmp_path / "log")
    for search, id in enumerate(["d0", "d0", "d2", "d2", "d2", "gone"]):
        log.feedback(FeedbackLine(f"s{search}", "any", id, "click")).result()
        log.feedback(FeedbackLine(f"s{search}", "any", id, "click")).result()  # a click twice is one
    log.close()
    made = Site(index=write(tmp_path / "index"), writable=True, search_log=tmp_path / "log", suggest_after=0)
    # Those that begin as typed stay before others; without clicks the shortest would be first.
    by_clicks = ["Kubernetes in Action", "Kubernetes", "Docker and Kubernetes"]
    until(lambda: texts(made, "kub") == by_clicks)
    assert made.ask("DELETE", "/v1/documents", {"ids": ["d0"]}).json()["removed"] == 1
    until(lambda: texts(made, "kub") == by_clicks[1:])
    made.close()


def test_titles_alone_are_suggested_if_so_wished(tmp_path: Path) -> None:
    made = Site(index=write(tmp_path / "index"), search_log=tmp_path / "log", suggest_after=0)
    log = SearchLog(tmp_path / "log")
    log.feedback(FeedbackLine("s1", "水稻病害 图片", "d1", "click")).result()
    assert texts(made, "水稻") == ["水稻病害"] and texts(made, "水稻", "query") == []
    log.close()
    made.close()


def test_requests_get_what_is_there_while_more_is_built(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate, follow = threading.Event(), threading.Event(), TitleSuggestions.follow

    def held(self: TitleSuggestions, now: LocalSnapshot) -> None:
        entered.set()
        assert gate.wait(SECONDS)
        follow(self, now)

    monkeypatch.setattr(TitleSuggestions, "follow", held)
    monkeypatch.setattr(suggest, "_WAIT_SECONDS", 0.0)
    assert texts(site, "水") == [] and entered.wait(SECONDS)
    gate.set()
    until(lambda: texts(site, "水") == ["水稻病害"])
    gate.clear()
    assert site.ask("DELETE", "/v1/documents", {"ids": ["d3"]}).json()["removed"] == 1
    assert texts(site, "水") == ["水稻病害"]
    gate.set()
    until(lambda: texts(site, "水") == [])


def test_a_changed_title_is_suggested_at_once(site: Site) -> None:
    for n in range(20):
        title = f"水稻病害 {n}"
        changed = site.ask("PATCH", "/v1/documents", {"documents": [{"id": "d3", "fields": {"title": title}}]})
        assert changed.status_code == 200 and texts(site, "水") == [title]


def test_a_failure_is_logged_once_and_tried_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as failing:
        failing.setattr(LocalSnapshot, "parts", property(lambda self: 1 // 0))
        assert [texts(site, "水") for _ in range(5)] == [[]] * 5
    until(lambda: texts(site, "水") == ["水稻病害"])
    (said,) = [one.getMessage() for one in caplog.records if "suggestions stay" in one.getMessage()]
    assert "ZeroDivisionError" in said


@pytest.mark.parametrize(
    ("asked", "status", "field", "says"),
    [
        ("", 422, "q", "required"),
        ("q=", 422, "q", "is empty"),
        ("q=a&q=b", 422, "q", "2 times"),
        ("q=a&limit=3", 422, "limit", "only q, top_k"),
        ("q=a&top_k=0", 422, "top_k", "at least 1"),
        ("q=a&top_k=101", 413, "top_k", "100"),
    ],
)
def test_what_cannot_be_suggested_is_refused(site: Site, asked: str, status: int, field: str, says: str) -> None:
    answer = site.ask("GET", f"/v1/suggest?{asked}")
    assert (answer.status_code, answer.json()["field"]) == (status, field) and says in answer.json()["error"]


def test_too_many_are_refused_as_searches_are(tmp_path: Path) -> None:
    made = Site(index=write(tmp_path / "index"), queue_searches=1)
    slot, gate = made.slots["index"], threading.Event()
    assert isinstance(slot, IndexSlot)

    async def beside() -> int:
        other = asyncio.ensure_future(slot.run(gate.wait, SECONDS, deadline=time.monotonic() + SECONDS))
        await asyncio.sleep(0)
        status = (await ask_app(made.app, "GET", "/v1/suggest?q=k")).status_code
        gate.set()
        await other
        return int(status)

    assert made.loop.run_until_complete(beside()) == 429
    assert get(made, q="k").status_code == 200
    made.close()


@pytest.mark.parametrize(
    ("titles", "log", "expected"), [(True, False, True), (False, False, False), (False, True, True)]
)
def test_the_index_says_whether_there_are_suggestions(titles: bool, log: bool, expected: bool, tmp_path: Path) -> None:
    made = Site(index=write(tmp_path / "index", titles), **({"search_log": tmp_path / "log"} if log else {}))
    assert made.ask("GET", "/v1/index").json()["suggest"] is expected
    assert texts(made, "long") == []
    made.close()
