"""`paddle-ranker report-searches`: counts of hand-worked logs, as JSON, as text and as a page."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from paddle_ranker.commands.report_searches import main
from paddle_ranker.serving.core.search_log import FeedbackLine, SearchLine, SearchLog, Shown
from tests.conftest import Call

pytestmark = pytest.mark.unit


def search(id: str, query: str, ids: str, day: int = 22, **parameters: Any) -> SearchLine:
    shown = [Shown(one, {"fused": rank}, None, "1f") for rank, one in enumerate(ids, 1)]
    return SearchLine(id, query, {}, shown, parameters, time=f"2026-11-{day}T23:59:59.000Z")


def click(id: str, document: str, event: str = "click") -> FeedbackLine:
    return FeedbackLine(id, "", document, event, position=99, time="2026-11-24T09:00:00.000Z")


LINES = [
    search("s1", "Apple 手机", "abc"),
    search("s2", "ＡPPLE  手机", "abc", 23),
    search("s3", "Apple 手机", "def", 23, offset=3),  # the next page of s2
    search("s4", "水稻", "", 23),
    search("s5", "水稻", "a", 25),
    replace(search("s6", "<b>x\x1b</b>", "ab", 25), nothing_close=True),
    search("s7", "ap", "abc", prefix=True),
    search("s8", "appl", "abc", prefix=True),
]
CLICKS = [
    *(click("s1", "c"), click("s1", "c"), click("s1", "a"), click("s1", "b", "relevant")),
    *(click("s3", "e"), click("s7", "a"), click("s6", "z"), click("gone", "a")),
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two processes' files, one of them torn and there twice."""
    for lines in (CLICKS, LINES):  # a click may be in the file that is read first
        writer = SearchLog(tmp_path / "log")
        for line in lines:
            if isinstance(line, SearchLine):
                writer.search(line)
            else:
                writer.feedback(line)
        writer.close()
    path = max((tmp_path / "log").iterdir(), key=lambda one: one.stat().st_size)
    shutil.copy(path, path.with_name("z-copy.jsonl"))
    with path.open("ab") as stream:
        stream.write(b'{"time":"2026')
    return tmp_path / "log"


def counts(searches: int, without: int, rate: Any, clicks: int, rank: Any, far: int = 0) -> dict[str, Any]:
    counted = {"searches": searches, "without_results": without, "nothing_close": far}
    return {**counted, "click_rate": rate, "clicks": clicks, "mean_rank": rank}


def test_counts(log: Path, call: Call) -> None:
    status, printed, _ = call(main, log, "--format", "json")
    assert status == 0
    phone = {"query": "Apple 手机", **counts(2, 0, 0.5, 3, 3.0)}  # ranks 3 and 1 of s1, 5 of s3
    rice = {"query": "水稻", **counts(2, 1, 0.0, 0, None)}
    other = {"query": "<b>x\x1b</b>", **counts(1, 0, 0.0, 0, None, 1)}
    short = {"query": "ap", **counts(1, 0, 1.0, 1, 1.0)}  # while typing, and clicked
    assert json.loads(printed) == {
        "first_day": "2026-11-22",
        "last_day": "2026-11-25",
        "queries": 4,
        **counts(6, 1, pytest.approx(1 / 3), 4, 2.5, 1),
        "left_out": {
            "searches while typing": 1,
            "further pages of searches": 1,
            "clicks on documents that the search did not show": 1,
            "clicks on searches that are not in the log": 1,
            "damaged lines": 1,
        },
        "days": [
            {"day": "2026-11-22", **counts(1, 0, 1.0, 2, 2.0)},
            {"day": "2026-11-23", **counts(2, 1, 0.0, 1, 5.0)},
            {"day": "2026-11-25", **counts(3, 0, pytest.approx(1 / 3), 1, 1.0, 1)},
        ],
        "most_frequent": [phone, rice, other, short],
        "queries_without_results": [rice],
        "queries_with_nothing_close": [other],
        "queries_without_clicks": [other, rice],
    }


def test_days_and_top(log: Path, call: Call) -> None:
    status, printed, _ = call(
        main, log, "--since", "2026-11-23", "--until", "2026-11-24", "--top", 1, "--format", "json"
    )
    report = json.loads(printed)
    assert status == 0 and report["left_out"]["searches of other days"] == 4
    assert [one["query"] for one in report["most_frequent"]] == ["水稻"]
    assert [one["day"] for one in report["days"]] == ["2026-11-23"] and report["searches"] == 2


def test_text_and_page(log: Path, call: Call, tmp_path: Path) -> None:
    status, printed, _ = call(main, log, "--report", tmp_path / "searches.html")
    assert status == 0
    assert "2026-11-22 to 2026-11-25: 6 searches of 4 queries" in printed
    assert "without results 1, nothing close 1 (16.7%), click rate 33.3%, mean rank of 4 clicks 2.5" in printed
    assert "searches while typing: 1" in printed and "\x1b" not in printed
    assert re.search(r"^ +2 +1 +0\.0% +水稻$", printed, re.M)
    page = (tmp_path / "searches.html").read_text("utf-8")
    assert "&lt;b&gt;x" in page and "Apple 手机" in page and "searches while typing: 1" in page
    assert not re.search(r'<script|<link|(src|href)="(?!data:)', page)
    first, second = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    drawn = ["".join(ElementTree.fromstring(base64.b64decode(one)).itertext()) for one in (first, second)]
    assert "without results" in drawn[0] and "mean rank" in drawn[1]
