"""What people say of results, to the log and back: `POST /v1/feedback`, `GET /v1/judge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional, cast

import httpx
import pytest
from starlette.routing import Router

from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema import Schema
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.search_log import (
    FeedbackLine,
    LogReader,
    SearchIds,
    SearchLine,
    SearchLog,
    Shown,
    digest_of,
)
from paddle_ranker.serving.http import feedback
from paddle_ranker.serving.http.feedback import JudgeTable, routes
from paddle_ranker.serving.http.middleware import Middleware
from tests.conftest import largest_file
from tests.serving_cases import Application

pytestmark = pytest.mark.unit

CLICK = {"search_id": "search-1", "query": "苹果", "id": "a", "position": 1, "event": "click"}


class Index:
    """An index of documents a to z."""

    limits = Limits()
    ids = "abcdefghijklmnopqrstuvwxyz"

    def deadline(self, stated: Optional[float]) -> float:
        return float("1e18") if stated is None else stated

    def __init__(self, log: Optional[SearchLog], highest_label: int) -> None:
        self.log, self.options = log, SimpleNamespace(highest_label=highest_label)
        self.asked: list[int] = []

    schema = Schema()

    def documents_of(self, ids: Sequence[str]) -> dict[str, Document]:
        self.asked.append(len(ids))
        return {id: Document(id, f"文 {id}", {"year": 2020}) for id in ids if id in self.ids}


class Site(Application):
    """The routes alone."""

    def __init__(self, log: Optional[SearchLog], highest_label: int = 1):
        self.index = Index(log, highest_label)
        self.ids = SearchIds(b"secret" if log is None else log.secret())
        self.app = Middleware(Router(routes(cast(Any, self.index), self.ids)), Metrics())

    def say(self, headers: Mapping[str, str] = {}, **changes: Any) -> httpx.Response:
        """Send feedback on a search of the log, with the id that its answer had."""
        said = {**CLICK, **changes}
        if "query" not in changes:
            said["search_id"] = self.ids.given_out(said["search_id"], said["query"])
        return self.ask("POST", "/v1/feedback", said, **headers)

    def judge(self, offset: Any = 0) -> Any:
        answer = self.ask("GET", f"/v1/judge?offset={offset}")
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def log(tmp_path: Path) -> Any:
    log = SearchLog(tmp_path / "log")
    yield log
    log.close()


def search(ids: str, query: str = "苹果", search_id: str = "search-1", **parameters: Any) -> SearchLine:
    """A search whose ranker turned recall's order around."""
    shown = [
        Shown(id, {"fused": len(ids) - place, "ranked": place + 1}, None, digest_of(f"文 {id}"))
        for place, id in enumerate(ids)
    ]
    return SearchLine(search_id, query, {}, shown, parameters)


def test_a_confirmed_line_is_in_the_log_as_it_was_sent(log: SearchLog) -> None:
    site = Site(log)
    answer = site.say(dwell_ms=1200)
    assert (answer.status_code, answer.json()) == (200, {"logged": True})
    assert site.say(event="judged", label=1, position=None).status_code == 200
    click, judged = LogReader(log.folder)
    assert click == FeedbackLine("search-1", "苹果", "a", "click", 1, None, 1200, click.time)
    assert judged == FeedbackLine("search-1", "苹果", "a", "judged", None, 1, None, judged.time)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"search_id": "spaces are not in it"}, "search_id"),
        ({"event": "buy"}, "event"),
        ({"position": 0}, "position"),
        ({"query": None}, "query"),
        ({"id": ""}, "id"),
        ({"dwell_ms": -1}, "dwell_ms"),
        ({"label": 1}, "label"),
        ({"event": "judged"}, "label"),
        ({"event": "judged", "label": 5000}, "label"),
        ({"event": "judged", "label": 2}, "label"),  # of those that /judge offers
        ({"user": "nobody asks for this"}, "user"),
        ({"search_id": "made-up-0", "query": "苹果"}, "search_id"),
        ({"search_id": SearchIds(b"another").given_out("search-1", "苹果"), "query": "苹果"}, "search_id"),
    ],
)
def test_what_is_no_feedback_is_refused_and_not_logged(log: SearchLog, changes: dict[str, Any], field: str) -> None:
    answer = Site(log).say(**changes)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert "Value error" not in answer.json()["error"]  # pydantic's own words
    assert list(LogReader(log.folder)) == []


def test_bodies_and_offsets_that_are_none_are_refused(log: SearchLog) -> None:
    site = Site(log)
    assert site.ask("POST", "/v1/feedback", b"{").status_code == 400
    assert site.ask("POST", "/v1/feedback", b"[1]" * 100_000).status_code == 413
    assert site.say(query="x" * (Limits().characters + 1)).status_code == 413
    for offset in ("-1", "x", "1e9", "9999999", "%D9%A3"):
        assert site.ask("GET", f"/v1/judge?offset={offset}").status_code == 422


def test_without_a_log_there_is_nothing_here() -> None:
    site = Site(None)
    assert site.say().status_code == site.ask("GET", "/v1/judge").status_code == 404
    assert "--search_log" in site.say().json()["error"]


def test_a_full_disk_is_said_and_feedback_may_be_sent_again(log: SearchLog) -> None:
    site = Site(log)
    assert site.say().status_code == 200
    (path,) = log.folder.glob("*.jsonl")
    with largest_file(path.stat().st_size + 9):
        answer = site.say()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert site.say().status_code == 200


def test_pairs_come_by_disagreement_until_they_are_judged(log: SearchLog) -> None:
    log.search(search("abcde"))
    log.search(search("1234", "桃子", "search-2"))  # documents that were removed since
    site = Site(log)
    site.say(id="c")  # written after the search
    found = site.judge()
    assert [pair["id"] for pair in found["pairs"]] == ["a", "e", "b", "d", "c"]  # 4, 4, 2, 2, 0 ranks apart
    assert (found["labels"], found["judged"], found["left"]) == ([0, 1], 0, 5)
    assert found["pairs"][1] == {
        "search_id": site.ids.given_out("search-1", "苹果"),
        "query": "苹果",
        "id": "e",
        "position": 5,
        "text": "文 e",
        "fields": {"year": 2020},
        "highlights": [],
        "stages": {"fused": {"rank": 1}, "ranked": {"rank": 5}},
    }
    site.say(id="a", event="irrelevant")
    site.say(id="e", event="relevant")
    found = site.judge(offset=1)
    assert [pair["id"] for pair in found["pairs"]] == ["d", "c"]
    assert (found["judged"], found["left"]) == (2, 3)
    site.say(id="a", event="unjudged")
    assert [pair["id"] for pair in site.judge()["pairs"]] == ["a", "b", "d", "c"]


def test_pairs_of_the_least_sure_answers_come_first(log: SearchLog) -> None:
    shown = [Shown(id, {"words": place}, None, digest_of(f"文 {id}")) for place, id in enumerate("ab", start=1)]
    ranked = [replace(one, probability=probability) for one, probability in zip(shown, (0.3, 0.1))]
    for number, (query, documents, lead, is_far) in enumerate(
        (
            ("sure", shown, 0.9, None),
            ("sorted", shown, None, None),
            ("level", shown, 0.02, None),
            ("ranked", ranked, 0.9, None),
            ("far", shown, 0.9, True),
        )
    ):
        log.search(SearchLine(f"search-{number}", query, {}, documents, {}, nothing_close=is_far, lead=lead))
    log.search(SearchLine("search-9", "further", {}, shown, {"offset": 10}, lead=0.01))
    log.search(SearchLine("search-8", "unfin", {}, shown, {"prefix": True}, nothing_close=True))
    site = Site(log)
    site.say()
    pairs = [(pair["query"], pair["id"]) for pair in site.judge()["pairs"]]
    order = ("far", "level", "ranked", "sure", "further", "sorted")
    assert pairs == [(query, id) for query in order for id in "ab"]


def test_lines_of_another_process_are_seen_whatever_their_order(log: SearchLog, tmp_path: Path) -> None:
    site = Site(log, highest_label=3)
    site.say(id="b", event="judged", label=2)  # before any search is known
    assert site.judge() == {"labels": [0, 1, 2, 3], "pairs": [], "judged": 1, "left": 0, "changed": 0}
    other = SearchLog(log.folder)
    other.search(search("ab", offset=20))
    other.close()
    found = site.judge()
    assert [(pair["id"], pair["position"]) for pair in found["pairs"]] == [("a", 21)]
    assert (found["judged"], found["left"]) == (1, 1)


def test_what_the_query_has_too_is_marked(log: SearchLog) -> None:
    log.search(search("a", "文 a"))
    site = Site(log)
    site.say()
    (pair,) = site.judge()["pairs"]
    assert pair["highlights"] == [{"start": 0, "end": 3, "level": 2}]


def test_few_documents_are_read_for_a_page(log: SearchLog) -> None:
    site = Site(log)
    log.search(search("abcdefghijklmnopqrstuvwxyz"))
    site.say()
    assert len(site.judge(6)["pairs"]) == 20 and site.index.asked == [20]
    for number in range(60):
        log.search(search("abcdefghijklmnopqrstuvwxyz", f"q{number}", f"search-{number}"))
    site.index.ids = ""  # another index, which has none of them
    site.say()
    found = site.judge()
    assert (found["pairs"], found["left"]) == ([], 0) and len(site.index.asked) < 10


def test_a_page_of_another_site_says_nothing(log: SearchLog) -> None:
    site = Site(log)
    for where, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert site.say(headers={"Sec-Fetch-Site": where}).status_code == status
    assert len(list(LogReader(log.folder))) == 2


def test_a_flood_of_searches_pushes_out_neither_pairs_nor_judgments(log: SearchLog) -> None:
    table = JudgeTable(most=6 * (feedback._PER_PAIR + 3))
    table.add(search("abc"))
    table.add(FeedbackLine("search-1", "苹果", "a", "relevant"))
    for number in range(100):
        table.add(search("abc", f"{number:2}", f"search-{number}"))
    assert {(query, id) for query, id, _ in table.unjudged(9)} == {("苹果", "c"), (" 0", "a"), ("苹果", "b")}
    assert table.counts() == (1, 3)
    for id in "bcde":
        table.add(FeedbackLine("search-1", "苹果", id, "relevant"))
    assert table.counts()[0] == 3  # the latest


def test_pairs_and_judgments_are_of_the_text_that_was_shown(log: SearchLog) -> None:
    def shown(id: str, number: int, text: str, second: int) -> SearchLine:
        line = SearchLine(f"search-{number}", "苹果", {}, [Shown(id, {"fused": 1}, None, digest_of(text))], {})
        return replace(line, time=f"2026-11-22T09:00:{second:02}.000Z")

    site = Site(log)
    for line in (shown("a", 1, "文 a", 1), shown("b", 2, "old", 1), shown("c", 3, "old", 1), shown("c", 4, "文 c", 2)):
        log.search(line)
    site.say(id="c", event="relevant", search_id="search-3")  # of the old text
    found = site.judge()
    assert [pair["id"] for pair in found["pairs"]] == ["a", "c"]
    assert (found["judged"], found["left"], found["changed"]) == (0, 2, 1)
    site.say(id="c", event="relevant", search_id="search-4")
    assert site.judge()["judged"] == 1
