"""Searches on the server: the answer's shape and order; `test_contract.py` compares it with other callers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Optional, cast
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from pydantic_core import to_json
from starlette.routing import Route

from paddle_ranker import Index, Ranker
from paddle_ranker.commands import index, judgments
from paddle_ranker.commands.evaluate_recall import main as evaluate
from paddle_ranker.commands.mine import main as mine
from paddle_ranker.commands.search import main as search_main
from paddle_ranker.data.rows.beir import write_beir
from paddle_ranker.data.rows.records import Triple, read_records
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.lexical.highlights import SharedWords
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.merging import MOST_SEGMENTS
from paddle_ranker.retrieval.index.towers import copy_tower
from paddle_ranker.retrieval.snapshots.vector_search import search_vectors
from paddle_ranker.retrieval.stages.fusion import Fusion, Signal
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.values.bounds import MOST_NAMES
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.retrieval.work import turns
from paddle_ranker.serving.core.faults import INTERNAL, OVERLOADED, TIMED_OUT, Fault, FaultKind
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.search_log import FeedbackLine, LogReader, SearchLine
from paddle_ranker.serving.http.endpoints import ENDPOINTS
from paddle_ranker.serving.process.worker import make_app
from paddle_ranker.serving.slots import queued_search
from paddle_ranker.serving.slots.index_slot import IndexSlot
from paddle_ranker.serving.slots.reload import Reloader
from paddle_ranker.serving.slots.slot_kinds import SLOTS, fit_models, serve_options, served_by, with_tower_of_index
from paddle_ranker.serving.slots.slots import Slots
from paddle_ranker.serving.slots.tower_slot import TowerSlot
from tests.conftest import Call, largest_file
from tests.serving_cases import SECONDS, Application, ask_app, close_slots, opened_slots
from tests.started import until
from tests.tiny import change_json, write_index, write_ranker, write_tower

pytestmark = pytest.mark.parity
WORDS = ["深度学习", "水稻病害", "老年人护理", "语言文化", "经济增长", "教育法律"]
TEXTS = [f"{one}在{other}中的研究" for one in WORDS for other in WORDS]
DOCUMENTS = [
    Document(f"d{n}", text, {"year": 2000 + n % 10, "lang": "en" if n % 3 else "zh"}) for n, text in enumerate(TEXTS)
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("search")
    index = write_index(base / "index", write_tower(base / "tower"), DOCUMENTS)
    return {"index": index, "model": write_ranker(base / "ranker")}


class Site(Application):
    """The server's, with its models, in one loop."""

    def __init__(self, **options: Any):
        self.config, self.slots = opened_slots(**options)
        self.loop = asyncio.new_event_loop()
        self.metrics = Metrics()
        self.app = make_app(self.slots, self.config, self.metrics)

    def close(self) -> None:
        close_slots(self.slots)
        self.loop.close()

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        return self.loop.run_until_complete(ask_app(self.app, method, path, body, **more))

    def search(self, query: str, **asked: Any) -> dict[str, Any]:
        found = self.ask("POST", "/v1/search", {"query": query, **asked})
        assert found.status_code == 200, found.text
        return dict(found.json())


@pytest.fixture(scope="module")
def site(folders: dict[str, Path]) -> Iterator[Site]:
    made = Site(**folders)
    yield made
    made.close()


def test_an_answer_says_what_answered(site: Site) -> None:
    answer = site.search("水稻病害研究", top_k=50, rank_top=5)
    assert answer["ranked"] is True and answer["model"] == "ranker" and answer["exact"] is True
    assert answer["index"] == {"name": "index", "version": 1, "documents": len(TEXTS)}
    assert set(answer["took_ms"]) == {"read", "words", "encode", "vectors", "fuse", "rank", "total"}
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, len(answer["hits"]) + 1))
    assert [hit["rank"] for hit in answer["hits"] if hit["stages"].get("ranked")] == [1, 2, 3, 4, 5]


def test_what_ranking_dropped_and_whether_probabilities_are_calibrated(folders: dict[str, Path], site: Site) -> None:
    fused = [hit["id"] for hit in site.search("水稻病害研究", top_k=8, rank_top=0)["hits"]]
    whole = site.search("水稻病害研究", top_k=100, explain=True)
    least = sorted(hit["probability"] for hit in whole["hits"] if hit["id"] in fused)[2]
    ended = {hit["id"]: hit for hit in whole["hits"]}
    assert "dropped" not in whole and whole["calibrated"] is False
    for asked in ({"top_k": 8}, {"top_k": 8, "min_probability": least}, {"top_k": 8, "snippet": 5, "fields": ["year"]}):
        answer = site.search("水稻病害研究", explain=True, **asked)
        shown, dropped = [hit["id"] for hit in answer["hits"]], {hit["id"]: hit for hit in answer["dropped"]}
        assert dropped and [*dropped] == [id for id in fused if id not in shown]
        for id, hit in dropped.items():
            is_cut = hit["probability"] < asked.get("min_probability", 0)
            assert hit["stages"]["ranked"]["rank"] == hit["rank"] == ended[id]["rank"] and hit["signals"]
            assert hit["reason"] == ("cut" if is_cut else "moved") and ("snippet" in hit) == ("snippet" in asked)
        assert sum(hit["reason"] == "cut" for hit in dropped.values()) == 2 * ("min_probability" in asked)
    for more in (
        {"offset": 8},
        {"rank_top": 0},
        {"explain": False},
        {"sort": ["year"]},
        {"group_by": "lang", "top_k": 2},
    ):
        assert "dropped" not in site.search("水稻病害研究", **{"top_k": 8, "explain": True, **more}), more


@pytest.mark.parametrize("shift", [0.0, 4.0, None])
def test_a_ranker_that_does_not_know_the_likes_of_an_index_is_noted_once(
    folders: dict[str, Path], tmp_path: Path, shift: Optional[float], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(queued_search, "SEARCHES", len(TEXTS))
    with SearchEngine.open(folders["index"], ranker=folders["model"]) as engine:
        logits = [np.sort([*one.ranking.logits.values()]) for one in engine.run(TEXTS)]
    tenth, spread = [one[-10] for one in logits], [one.std() for one in logits]
    moved = np.array(tenth) + (shift or 0)
    scores = None if shift is None else {"top": 50, "tenth": moved.tolist(), "spread": spread}
    calibration = {"method": "platt", "scale": 1.0, "shift": 0.0, "searched": scores}
    shutil.copytree(folders["model"], tmp_path / "ranker")
    change_json(tmp_path / "ranker" / "ranker.json", calibration=calibration)
    here = Site(index=folders["index"], model=tmp_path / "ranker")
    for text in TEXTS[:-1]:
        assert here.search(text)["calibrated"] is True
    for other in ({}, {"rank_top": 9}, {"by": ["words"]}, {"offset": 3}, {"where": {"lang": "zh"}}):
        here.search("水稻" if other else TEXTS[0], **other)  # what was searched already, and parts of searches
    assert "unfamiliar" not in here.ask("GET", "/v1/index").json()
    here.search(TEXTS[-1])
    here.loop.run_until_complete(here.loop.shutdown_default_executor())
    found = here.ask("GET", "/v1/index").json().get("unfamiliar")
    medians = {"measure": "tenth", "expected": np.median(moved).round(2), "seen": np.median(tenth).round(2)}
    assert found == (medians if shift == 4.0 else None)
    here.search("水稻病害")
    assert sum("may be wrong for index" in one.getMessage() for one in caplog.records) == (shift == 4.0)
    here.close()


def test_pages_are_parts_of_one_list(site: Site) -> None:
    # Many documents have the same score: the order of these is that of their ids.
    sorted_by = {"sort": ["-year"], "where": {"year": {"lt": 2007}}, "group_by": "lang", "group_size": 5}
    for how in ({}, {"rank_top": 0}, {"by": ["words"]}, {"rank_top": 12, "fusion": "weighted"}, sorted_by):
        whole = site.search("研究", top_k=100, **how)
        ids = [hit["id"] for hit in whole["hits"]]
        pages = [site.search("研究", top_k=7, offset=start, **how)["hits"] for start in range(0, len(ids) + 7, 7)]
        assert [hit["id"] for page in pages for hit in page] == ids and len(set(ids)) == len(ids)
        assert [hit["rank"] for page in pages for hit in page] == list(range(1, len(ids) + 1))
        assert "cursor" not in whole
        answers: list[dict[str, Any]] = []
        cursor: Any = ""
        while cursor is not None:
            answers.append(site.search("研究", top_k=7, cursor=cursor, explain=bool(cursor), **how))
            cursor = answers[-1]["cursor"]
        assert [[hit["id"] for hit in one["hits"]] for one in answers] == [
            [hit["id"] for hit in page] for page in pages if page
        ]
        assert [hit["rank"] for one in answers for hit in one["hits"]] == list(range(1, len(ids) + 1))
    scores = [
        (-hit["stages"]["words"]["score"], hit["id"]) for hit in site.search("研究", by=["words"], rank_top=0)["hits"]
    ]
    assert scores == sorted(scores)


def test_filters_and_fields(site: Site) -> None:
    years = {document.id: document.fields["year"] for document in DOCUMENTS}
    for wanted, meets in (
        ({"lang": "zh"}, lambda one: one.fields["lang"] == "zh"),
        ({"year": {"gte": 2004, "lt": 2007}, "lang": ["en", "fr"]}, lambda one: 2004 <= one.fields["year"] < 2007
            and one.fields["lang"] == "en"),
        ({"year": {"in": [2001, 2003]}}, lambda one: one.fields["year"] in (2001, 2003)),
        ({"year": {"ne": 2001, "lte": 2002, "gt": 1999}, "lang": {"eq": "zh"}}, lambda one: one.fields["year"]
            in (2000, 2002) and one.fields["lang"] == "zh"),
    ):  # fmt: skip
        hits = site.search("研究", top_k=100, where=wanted, fields=["year"])["hits"]
        assert {hit["id"] for hit in hits} == {one.id for one in DOCUMENTS if meets(one)}
        assert all(hit["fields"] == {"year": years[hit["id"]]} and "text" not in hit for hit in hits)


@pytest.mark.parametrize(
    ("body", "status", "field", "says"),
    [
        ({"query": f'a "{"水" * 8000}"'}, 422, "query", "does not end within the 1,000"),
        ({"query": f'a -"{"水" * 8000}"'}, 422, "query", "does not end within the 1,000"),
        ({"query": '"a" ' * 17}, 422, "query", "more than the 16"),
        ({"query": "a", "by": ["fields"]}, 422, "by", "words, vectors"),
        ({"query": "a", "fusion": "/etc/passwd"}, 422, "fusion", "rrf"),
        ({"query": "a", "fields": ["url"]}, 422, "fields", "text, lang, year"),
        ({"query": "a", "where": {"url": 1}}, 422, "where", "lang, year"),
        ({"query": "a", "where": {"year": {"near": 1}}}, 422, "where", "gte"),
        ({"query": "a", "where": {"year": list(range(1001))}}, 413, "where", "1,000"),
        ({"query": "a", "where": {"lang": ["x" * 60_000, "y" * 60_000]}}, 413, "where", "100,000"),
        ({"query": "a", "where": {"year": [0] * 5000}}, 413, None, "4,000"),  # before anything is made of them
        ({"query": "a", "top_k": 101}, 413, "top_k", "100"),
        ({"query": "a", "depth": 100_000}, 413, "depth", "1,000"),
        ({"query": "a", "offset": -1}, 422, "offset", "at least 0"),
        ({"query": "a", "min_probability": 2}, 422, "min_probability", "at most 1"),
        ({"query": "a", "limit": 3}, 422, "limit", "not permitted"),
        ({"query": "a", "tok_k": 3}, 422, "tok_k", "did you mean top_k?"),
        ({"query": "a", "depth": 0}, 422, "depth", "at least 1"),
        ({"query": "a", "recall": 5}, 422, "recall", "not permitted"),
        ({"query": "a", "by": ["magic"]}, 422, "by", "magic"),
        ({"query": "\ud800"}, 400, "body", "surrogate"),
    ],
)
def test_what_cannot_be_searched_is_refused(site: Site, body: Any, status: int, field: Any, says: str) -> None:
    found = site.ask("POST", "/v1/search", body)
    assert found.status_code == status and found.json().get("field") in (field, "body")
    assert says in found.json()["error"]


def about(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: about(one) for name, one in value.items()}
    if isinstance(value, list):
        return [*map(about, value)]
    return pytest.approx(value, abs=2e-4) if isinstance(value, float) else value


def test_an_answer_is_the_same_where_other_work_goes_first_at_each_check(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = sorted(hit["probability"] for hit in site.search("研究", top_k=30, rank_top=30)["hits"])
    asked: list[dict[str, Any]] = [
        {"rank_top": 30, "min_probability": scores[10], "explain": True},
        {"sort": ["-year"], "group_by": "lang", "group_size": 3, "total": True, "facets": ["lang"], "cursor": ""},
        {"where": {"year": {"gte": 2003}}, "rank_top": 5, "snippet": 20},
    ]
    wanted = [site.search("研究", **one) for one in asked]
    assert wanted[0]["cut"] > 0
    monkeypatch.setattr(turns, "TURNS", turns.Turns(1))
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    each = [ask_app(site.app, "POST", "/v1/search", {"query": "研究", **one}) for one in asked * 8]

    async def at_once() -> list[httpx.Response]:
        return [*await asyncio.gather(*each)]

    found = [one.json() for one in site.loop.run_until_complete(at_once())]
    for answer in (*wanted, *found):
        answer.update(took_ms=None, search_id=None)
    # In other batches logits differ in their last digits.
    assert found == [about(one) for one in wanted] * 8


def test_what_a_server_does_not_do_is_said(site: Site, folders: dict[str, Path]) -> None:
    for method, path, allowed in (
        ("PUT", "/v1/search", "GET, HEAD, POST"),
        ("DELETE", "/v1/documents/d1", "GET, HEAD"),
    ):
        answer = site.ask(method, path, {})
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert answer.json()["message"] == f"'{path}' is not asked by {method}, but by {allowed}; see /docs"
    for method, body in (("POST", {"documents": given(DOCUMENTS[0])}), ("DELETE", {"ids": ["d0"]})):
        answer = site.ask(method, "/v1/documents", body)
        assert answer.status_code == 403 and "--writable" in answer.json()["error"]
    config = serve_options()(model=folders["model"])
    app = make_app(Slots({"ranker": SLOTS["ranker"].make(config)}), config, Metrics())
    for method, path in (("POST", "/v1/search"), ("GET", "/v1/search"), ("GET", "/v1/documents/a")):
        answer = asyncio.run(ask_app(app, method, path, {}))
        assert answer.status_code == 404 and "--index" in answer.json()["error"]


@pytest.fixture
def written(folders: dict[str, Path], tmp_path: Path) -> Iterator[Site]:
    copy = tmp_path / "index"
    shutil.copytree(folders["index"], copy)
    made = Site(index=copy, writable=True, search_log=tmp_path / "log", highest_label=3, documents=40)
    yield made
    made.close()


def given(*documents: Document) -> list[dict[str, Any]]:
    return [{"id": one.id, "text": one.text, "fields": dict(one.fields)} for one in documents]


def test_documents_are_found_once_they_are_confirmed_and_by_other_processes_too(written: Site) -> None:
    index = written.config.index
    other = Collection.open(index)
    new = [Document("new/1", "茶叶价格", {"year": 2025}), DOCUMENTS[0], Document("d1", "茶叶种植", {})]
    answer = written.ask("POST", "/v1/documents", {"documents": given(*new)})
    assert answer.status_code == 200, answer.text
    counts = {"added": 1, "replaced": 1, "unchanged": 1}
    assert answer.json() == {**counts, "index": {"name": "index", "version": 2, "documents": len(TEXTS) + 1}}
    found = written.search("茶叶", by=["words"])
    assert {hit["id"] for hit in found["hits"]} == {"new/1", "d1"} and found["index"]["version"] == 2
    # the vectors are those that the index's own tower makes
    assert other.refresh() and other.snapshot().verify()
    stored = {one.id: vector for one, vector in other.snapshot().sample(100, 0)}
    folder = other.snapshot().tower_folder
    assert folder is not None
    own = Tower.open(folder, for_search=True).vectors(["茶叶价格", "茶叶种植"])
    np.testing.assert_allclose([stored["new/1"], stored["d1"]], own, atol=1e-5)

    lines = Document("a\nb\n", "茶叶", {})
    assert written.ask("POST", "/v1/documents", {"documents": given(lines)}).json()["added"] == 1
    assert written.ask("GET", "/v1/documents/a%0Ab%0A").json()["id"] == lines.id
    assert written.ask("DELETE", "/v1/documents", {"ids": [lines.id]}).json()["removed"] == 1
    got = written.ask("GET", "/v1/documents/new/1")
    assert got.json() == {"id": "new/1", "text": "茶叶价格", "fields": {"year": 2025}, "version": 1}
    assert written.ask("GET", "/v1/documents/d1").json()["version"] == 2
    removed = written.ask("DELETE", "/v1/documents", {"ids": ["new/1", "d1", "none", "none"]})
    assert (removed.json()["removed"], removed.json()["missing"]) == (2, 1)
    assert written.search("茶叶", by=["words"])["hits"] == []
    assert written.ask("GET", "/v1/documents/new/1").status_code == 404

    with Collection.open(index, write=True) as collection:  # another process, while this one serves
        collection.writer.add([Document("elsewhere", "茶叶运输")])
        busy = written.ask("DELETE", "/v1/documents", {"ids": ["d2"]}, **{"X-Request-Timeout-Ms": "1000"})
        assert busy.status_code == 503 and "another process" in busy.json()["error"]
    assert [hit["id"] for hit in written.search("茶叶", by=["words"])["hits"]] == ["elsewhere"]


def test_half_a_request_is_never_applied(written: Site) -> None:
    before = written.search("研究", top_k=100)["hits"]
    new, there = {"id": "new", "text": "茶叶"}, {"id": "d1", "text": "茶叶"}
    for documents, mode, status, says in (
        ([new, {"id": "other", "text": ""}], "replace", 422, "documents[1].text"),
        ([new, {"id": "other", "text": "a", "fields": {"text": 1}}], "replace", 422, "documents[1].fields"),
        ([new, new], "replace", 422, "two of this id"),
        ([new, {"id": "\ud800", "text": "a"}], "replace", 400, "half of a surrogate pair"),
        ([new, {"id": "other", "text": " \u3000"}], "replace", 422, "documents[1].text"),
        ([new, there], "add", 409, "d1"),
        ([new] * 41, "replace", 413, "40"),
        ([], "replace", 400, "is empty"),
        ([new], "append", 422, "mode"),
    ):
        answer = written.ask("POST", "/v1/documents", {"documents": documents, "mode": mode})
        assert answer.status_code == status and says in answer.text, answer.text
    for origin in ("https://elsewhere.example", "http://[", "null", "http://here.example"):
        foreign = written.ask("POST", "/v1/documents", {"documents": [new]}, Origin=origin)
        assert foreign.status_code == 403, origin
    assert written.search("研究", top_k=100)["hits"] == before and written.search("研究")["index"]["version"] == 1
    own = written.ask("POST", "/v1/documents", {"documents": [new], "mode": "add"}, Origin="http://127.0.0.1")
    assert own.json()["added"] == 1


@pytest.fixture
def words(tmp_path: Path) -> Iterator[Site]:
    made = Site(index=of_words(tmp_path / "index", [DOCUMENTS[:3]]), writable=True)
    yield made
    made.close()


def of_words(folder: Path, additions: Sequence[Sequence[Document]]) -> Path:
    with Collection.create(folder, IndexInfo(WordsInfo("bigram"), None)) as collection:
        for documents in additions:
            collection.writer.add(documents, merge=False)
    return folder


def ids(site: Site) -> set[str]:
    return {hit["id"] for hit in site.search("研究", top_k=50)["hits"]}


def test_searches_go_on_where_the_index_can_be_neither_read_nor_written(
    words: Site, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = words.config.index / "index.json"
    there, new = manifest.read_bytes(), {"documents": [{"id": "new", "text": "茶叶研究"}]}
    with largest_file(0):  # a full disk
        for method, body in (("POST", new), ("DELETE", {"ids": ["d0"]})):
            refused = words.ask(method, "/v1/documents", body)
            assert (refused.status_code, "File too large" in refused.json()["error"]) == (503, True)
    assert ids(words) == {"d0", "d1", "d2"}
    manifest.write_bytes(b"{")
    for _ in range(3):
        assert ids(words) == {"d0", "d1", "d2"} and words.ask("GET", "/v1/index").json()["documents"] == 3
    assert words.ask("POST", "/v1/documents", new).status_code == 503
    assert sum("goes on as it was" in one.getMessage() for one in caplog.records) == 1
    manifest.write_bytes(there)
    words.config.index.rename(words.config.index.parent / "elsewhere")
    assert words.ask("POST", "/v1/documents", new).status_code == 503 and ids(words) == {"d0", "d1", "d2"}
    assert not words.config.index.exists()  # nothing is in the way of who puts it back
    (words.config.index.parent / "elsewhere").rename(words.config.index)
    assert words.ask("POST", "/v1/documents", new).json()["added"] == 1 and len(ids(words)) == 4


def test_a_search_keeps_to_the_server_s_limits_and_says_what_it_read(tmp_path: Path) -> None:
    made = Site(index=of_words(tmp_path / "index", [DOCUMENTS[:9]]), hits=3, depth=5, characters=5)
    assert len(made.search("研究")["hits"]) == 3 and len(made.search("研究", offset=3)["hits"]) == 2
    refused = made.ask("POST", "/v1/search", {"query": "研究", "top_k": 4})
    assert (refused.status_code, refused.json()["field"]) == (413, "top_k")
    limits = made.ask("GET", "/v1/index").json()["limits"]
    assert (limits["hits"], limits["depth"], limits["pairs"]) == (3, 5, made.config.pairs)
    assert made.search("水稻病害诊断")["query_read"] == 5 and "query_read" not in made.search("水稻病害诊")
    made.close()


@pytest.mark.parametrize("is_link", [False, True])
@pytest.mark.parametrize("older", [False, True])
def test_an_index_in_the_place_of_another_is_neither_mixed_with_it_nor_changed_for_it(
    words: Site, older: bool, is_link: bool
) -> None:
    folder, new = words.config.index, {"documents": [{"id": "new", "text": "茶叶研究"}]}
    if older:  # what is put there has fewer changes behind it than what is open
        assert words.ask("DELETE", "/v1/documents", {"ids": ["d0"]}).json()["removed"] == 1
        assert words.ask("POST", "/v1/documents", {"documents": given(DOCUMENTS[0])}).json()["added"] == 1
    other = of_words(folder.parent / "other", [DOCUMENTS[10:14], DOCUMENTS[14:16]])
    before = folder.rename(folder.parent / "before")
    if is_link:  # and a link is moved
        folder.symlink_to(before)
        words.slots["index"].switch(words.slots["index"].load())
        folder.unlink()
        folder.symlink_to(other)
    else:
        other.rename(folder)
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "writer.lock"}
    assert ids(words) == {"d0", "d1", "d2"}
    changed = words.ask("POST", "/v1/documents", new)
    assert changed.status_code == (200 if is_link else 503) and ("new" in ids(words)) == is_link
    assert files == {path: path.read_bytes() for path in files}
    words.slots["index"].switch(words.slots["index"].load())
    assert ids(words) == {f"d{n}" for n in range(10, 16)}
    assert words.ask("POST", "/v1/documents", new).json()["added"] == 1


def test_searches_are_logged_with_what_was_shown(written: Site) -> None:
    answer = written.search("水稻", top_k=3, offset=1, where={"lang": "zh"})
    hit = answer["hits"][0]
    said = {"search_id": answer["search_id"], "query": "水稻", "id": hit["id"], "position": 2, "event": "click"}
    assert written.ask("POST", "/v1/feedback", said).status_code == 200
    search, click = LogReader(written.config.search_log)
    assert isinstance(search, SearchLine) and isinstance(click, FeedbackLine)
    assert search.search_id == click.search_id == answer["search_id"].rpartition("-")[0]  # it has no signature
    versions = dict(search.versions)
    digests = versions.pop("digests")
    assert versions == {"index": {"name": "index", "version": 1}, "tower": "tower", "ranker": None}
    assert isinstance(digests, dict) and [*digests] == ["tower"]
    assert [one.id for one in search.shown] == [one["id"] for one in answer["hits"]]
    assert search.lead is not None and 0 <= search.lead <= 1
    assert search.shown[0].ranks == {name: one["rank"] for name, one in hit["stages"].items()}
    assert search.parameters["where"] == {"lang": "zh"} and search.first_position == 2
    asked_about = written.ask("GET", "/v1/judge").json()
    assert asked_about["labels"] == [0, 1, 2, 3] and asked_about["left"] == len(answer["hits"])
    assert {pair["id"]: pair["text"] for pair in asked_about["pairs"]} == {
        one["id"]: one["text"] for one in answer["hits"]
    }
    changed = {**said, "event": "judged", "label": 3}
    for name, value, field in (("query", "水", "search_id"), ("label", 4, "label"), ("event", "buy", "event")):
        refused = written.ask("POST", "/v1/feedback", {**changed, name: value})
        assert (refused.status_code, refused.json()["field"]) == (422, field)
    edited = {"documents": [{"id": hit["id"], "text": "another text"}]}
    assert written.ask("POST", "/v1/documents", edited).json()["replaced"] == 1
    asked_about = written.ask("GET", "/v1/judge").json()
    assert hit["id"] not in [pair["id"] for pair in asked_about["pairs"]] and asked_about["changed"] == 1
    with pytest.raises(UsageError, match="name a folder with --search_log"):
        serve_options()(index="index", highest_label=3)  # type: ignore[call-arg]


def test_an_answer_and_the_log_say_that_nothing_is_close(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(f"{one}第{n}期" for n in range(20) for one in WORDS), "utf-8")
    status = index.main(["build", "--corpus", str(tmp_path / "corpus.txt"), "--output", str(tmp_path / "index")])
    made = Site(index=tmp_path / "index", search_log=tmp_path / "log")
    found = [made.search(query) for query in ("深度学习", "长颈鹿睡在病害旁边", "zzz")]
    made.close()
    assert status == 0 and [one.get("nothing_close") for one in found] == [None, True, True] and found[1]["hits"]
    assert [line.nothing_close for line in LogReader(tmp_path / "log") if isinstance(line, SearchLine)] == [
        None, True, True
    ]  # fmt: skip


def test_training_rows_of_the_log_are_what_the_ranker_read_in_the_search(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    filler = "田地里的作物需要很多照看。" * 8
    texts = [
        f"{one}的第{n}期。{filler * (n % 3)}{one}在{WORDS[n % 6]}中的研究。{filler}" for n, one in enumerate(WORDS * 2)
    ]
    rows = [{"id": f"d{n}", "title": f"{text[:4]}手册", "text": text} for n, text in enumerate(texts)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    built = ["--tower", folders["index"] / "tower", "--passage_tokens", 24, "--output", tmp_path / "index"]
    assert index.main(["build", "--corpus", f"{tmp_path}/corpus.jsonl", "--device", "cpu", *map(str, built)]) == 0
    made, read = Site(index=tmp_path / "index", model=folders["model"], search_log=tmp_path / "log"), {}
    for query in ("深度学习", "老年人护里", "水稻病害的研究"):
        answer = made.search(query, top_k=6, rank_top=6)
        for one in answer.get("corrected", ()):
            query = query.replace(one["from"], one["to"][0])
        for hit in answer["hits"]:
            said = {"search_id": answer["search_id"], "query": answer["query"], "id": hit["id"], "event": "click"}
            assert made.ask("POST", "/v1/feedback", said).status_code == 200
            text = hit["text"][hit["read"]["start"] : hit["read"]["end"]]
            read[query, hit["rank"]] = f"{hit['title']} {text}", hit["logit"], text == hit["text"]
    made.close()
    assert ("老年人护理", 1) in read and {is_whole for *_, is_whole in read.values()} >= {False}
    given = ["--log", tmp_path / "log", "--index", tmp_path / "index", "--output", tmp_path / "out", "--dev_share", 0]
    assert judgments.main([*map(str, given)]) == 0
    written = [*map(json.loads, (tmp_path / "out" / "train.jsonl").read_text("utf-8").splitlines())]
    assert {(row["query"], row["position"]): row["title"] for row in written} == {
        key: text for key, (text, *_) in read.items()
    }
    queries, titles = ([row[name] for row in written] for name in ("query", "title"))
    logits = Ranker.load(folders["model"], device="cpu").score(queries, titles, logits=True)
    assert logits.tolist() == pytest.approx([read[row["query"], row["position"]][1] for row in written], abs=1e-4)


def test_the_log_has_of_a_query_what_was_used(written: Site) -> None:
    assert written.search("水稻", logged=False)["search_id"]
    answer = written.search("水" * 5000, where={"lang": ["x" * 1100]})
    assert written.search("")["hits"]  # a list of documents teaches nothing
    assert answer["query"] == "水" * answer["query_read"] and answer["query_read"] <= 1000
    said = {"search_id": answer["search_id"], "query": answer["query"], "id": "any", "event": "click"}
    assert written.ask("POST", "/v1/feedback", said).status_code == 200
    search, _ = LogReader(written.config.search_log)
    assert search.query == answer["query"] and "where" not in search.parameters  # type: ignore[union-attr]


def test_explanations_add_up(site: Site) -> None:
    for fusion in ("rrf", "weighted"):
        answer = site.search("水稻病害研究", top_k=40, rank_top=4, explain=True, fusion=fusion)
        for hit in answer["hits"]:
            signals, stages = hit["signals"], hit["stages"]
            for name in signals.keys() & {"words", "vectors"}:
                assert signals[name]["value"] == stages[name]["score"]
            added = [one["added"] for one in signals.values() if one["to"] == "fused"]
            assert sum(added) == pytest.approx(stages["fused"]["score"])
            terms = signals.get("words", {"terms": [], "value": 0})
            assert sum(one["added"] for one in terms["terms"]) == pytest.approx(terms["value"])
            for one in terms["terms"]:
                assert [hit["text"][start:end] for start, end in one["at"]] == [one["term"]] * hit["text"].count(
                    one["term"]
                )
            assert ("ranker" in signals) == ("logit" in hit)
            if "logit" in hit:
                assert signals["ranker"] == {"value": hit["logit"], "added": hit["logit"], "to": "ranked"}
                assert signals["match"]["value"] == max((one["level"] for one in hit["highlights"]), default=0)
    assert all("signals" not in hit for hit in site.search("水稻")["hits"])
    (hit,) = site.search("水稻病害", top_k=1, by=["words"])["hits"]
    assert hit["passage"] == {"start": 0, "end": len(hit["text"])}
    assert [hit["text"][one["start"] : one["end"]] for one in hit["highlights"]] == ["水稻病害"] * len(
        hit["highlights"]
    )


@pytest.mark.parametrize(
    "asked",
    [
        {"where": {"year": {"gte": 2003}, "lang": "zh"}, "facets": ["lang"]},
        {"by": ["words"], "depth": 12, "offset": 3},
        {"by": ["vectors"], "group_by": "year"},
        {"rank_top": 5, "fusion": "rrf"},
        {"literal": True, "sort": ["-year"]},
    ],
)
def test_python_answers_as_the_server_does(folders: dict[str, Path], site: Site, asked: dict[str, Any]) -> None:
    answer = site.search("水稻病害", top_k=7, total=True, explain=True, **{"rank_top": 0, **asked})
    ranker = Ranker.load(folders["model"]) if "rank_top" in asked else None
    with Index(folders["index"]) as opened:
        found = opened.search("水稻病害", top_k=7, explain=True, ranker=ranker, **asked)
        assert [one.signals for one in opened.search("水稻病害")] == [None] * 10
        listed = opened.search(" ", where="year>2003", facets="lang", offset=2)
        there = site.search("", where={"year": {"gt": 2003}}, facets=["lang"], total=True, offset=2)
        assert [one.id for one in listed] == [hit["id"] for hit in there["hits"]] and there["total"] > 12
        assert sum(listed.facets["lang"].values()) == there["total"]
        assert there["sort"] == [] and there["ranked"] is False and "rank" not in there["took_ms"]
    shown = [
        {"id": one.id, "text": one.text, "fields": one.fields, "signals": one.signals}
        | ({} if one.logit is None else {"logit": one.logit})
        for one in found
    ]
    hits = [{name: value for name, value in hit.items() if name in shown[0]} for hit in answer["hits"]]
    assert json.loads(to_json(shown)) == about(hits) and len(hits) == 7
    assert all(hit["signals"] for hit in hits) and answer.get("total") == found.total
    counts = {name: {one["value"]: one["count"] for one in values} for name, values in answer.get("facets", {}).items()}
    assert counts == found.facets


def test_signals_of_the_last_stage_are_explained(folders: dict[str, Path], tmp_path: Path) -> None:
    signals = {"words": Signal(2.0), "year": Signal(-0.5, True, False, 2000.0, 4.0), "no field": Signal(1.0, True)}
    Fusion("rrf", recall_weight=1.5, signals=signals).write(tmp_path / "weights.json", {})
    site = Site(**folders, fusion=str(tmp_path / "weights.json"))
    hits = site.search("水稻病害研究", top_k=5, rank_top=5, explain=True)["hits"]
    totals = []
    for hit in hits:
        year, added = hit["fields"].get("year"), {name: one.get("added") for name, one in hit["signals"].items()}
        assert added["year"] == pytest.approx(0.0 if year is None else (year - 2000) * -0.125)
        assert added["words_ranked"] == 2 * hit["signals"]["words_ranked"]["value"] and added["no field"] == 0.0
        totals.append(sum(added[name] for name in ("ranker", "recall", "words_ranked", "year")))
    assert len(totals) == 5 and totals == sorted(totals, reverse=True) and len({*totals}) > 1
    site.close()


def test_a_query_that_is_too_long_is_cut_where_the_ranker_cuts_it(site: Site, folders: dict[str, Path]) -> None:
    encoder = PairEncoder.from_folder(folders["model"], 32)
    query = "水稻病害诊断" * 20_000
    answer = site.search(query, rank_top=8, depth=8)
    most = encoder.max_seq_length - 4  # beside a title of one token
    cut = site.search(query[:most], rank_top=8, depth=8)
    assert [hit["id"] for hit in answer["hits"]] == [hit["id"] for hit in cut["hits"]]
    texts = [hit["text"][hit["read"]["start"] : hit["read"]["end"]] for hit in cut["hits"] if "logit" in hit]
    read = encoder.encode([query[:most]] * len(texts), texts).second_starts.min() - 2  # what is left beside the longest
    assert answer["query_read"] == cut["query_read"] == read < most
    assert site.search(query, rank_top=0)["query_read"] == most
    assert "query_read" not in site.search(query[:most], rank_top=0)
    assert site.search("x" * 3000, rank_top=8)["query_read"] == 1000  # one token as a whole, and many as a shorter word


def test_a_query_that_is_too_long_for_a_tower_alone_is_told_at_every_door(folders: dict[str, Path], call: Call) -> None:
    most = 32 - len("深度") - 2  # beside the prompt of queries, [CLS] and [SEP]
    short, long = "水稻病害", ("水稻病害诊断" * 40)[: most + 9]
    made = Site(index=folders["index"])
    answers = [made.search(query) for query in (short, long[:most], long)]
    made.close()
    assert [one.get("query_read_by") for one in answers] == [None, None, {"vectors": most}]
    assert all("query_read" not in one for one in answers)  # the words are all searched
    assert answers[1]["hits"][0]["stages"]["vectors"] == answers[2]["hits"][0]["stages"]["vectors"]
    with Index(folders["index"]) as opened:
        hits = opened.search(long)
    assert hits.query_read_by == {"vectors": most} and f"vectors reads {most} characters of the query" in repr(hits)
    status, _, errors = call(search_main, "--index", folders["index"], long)
    assert status == 0 and f"too long for the tower of vectors, which reads the first {most} characters" in errors


def test_documents_longer_than_a_request_may_send_are_ranked_by_their_beginning(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker = site.slots["ranker"]
    monkeypatch.setattr(ranker, "limits", dataclasses.replace(ranker.limits, characters=6))
    answer = site.search("水稻病害", rank_top=5, top_k=5)
    assert answer["ranked"] and all(len(hit["text"]) > 6 for hit in answer["hits"])
    (hit,) = (hit for hit in answer["hits"] if hit["rank"] == 1)
    scored = site.ask("POST", "/v1/rerank", {"query": "水稻病害", "documents": [hit["text"][:6]]}).json()["results"]
    assert scored[0]["relevance_score"] == pytest.approx(hit["probability"], abs=1e-6)


def test_documents_below_a_probability_are_left_out(site: Site) -> None:
    whole = site.search("研究", top_k=40, rank_top=20)
    assert whole["cut"] == 0
    least = whole["hits"][7]["probability"]
    cut = site.search("研究", top_k=40, rank_top=20, min_probability=least)
    kept = [*whole["hits"][:8], *whole["hits"][20:]]  # what was not ranked has no probability
    assert [hit["id"] for hit in cut["hits"]] == [hit["id"] for hit in kept] and cut["cut"] == 12
    page = site.search("研究", top_k=3, offset=6, rank_top=20, min_probability=least)
    assert [(hit["rank"], hit["id"]) for hit in page["hits"]] == [(n, kept[n - 1]["id"]) for n in (7, 8, 9)]


def test_an_address_asks_for_the_same(site: Site) -> None:
    def timeless(answer: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in answer.items() if name not in ("took_ms", "search_id")}

    wanted = {"top_k": 3, "offset": 1, "rank_top": 5, "by": ["words", "vectors"], "fields": ["year"], "explain": True}
    condition = {"lang": "zh", "year": {"gte": 2001}}
    address = {**wanted, "by": "words,vectors", "fields": "year", "explain": "true", "where": json.dumps(condition)}
    got = site.ask("GET", f"/v1/search?{urlencode({'q': '水稻病害', **address})}")
    assert timeless(got.json()) == timeless(site.search("水稻病害", **wanted, where=condition))
    apart = urlencode({"q": "水稻病害", **address, "by": ["words", "vectors"]}, doseq=True)  # a list item by item
    assert timeless(site.ask("GET", f"/v1/search?{apart}").json()) == timeless(got.json())
    for wrong, field in (
        ("q=a&top_k=x", "top_k"), ("q=a&where={", "where"), ("q=a&page=2", "page"), ("q=a&q=b", "q"),
        ("q=a&query=b", "q"),
    ):  # fmt: skip
        refused = site.ask("GET", f"/v1/search?{wrong}")
        assert (refused.status_code, refused.json()["field"]) == (422, field)


def test_answers_are_written_beside_the_event_loop(written: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = []

    def noted(write: Callable[[Any], bytes], content: Any) -> bytes:
        writers.append(threading.current_thread())
        return write(content)

    new = Document("long", "茶叶", {"note": "长" * 100_000})
    assert written.ask("POST", "/v1/documents", {"documents": given(new)}).status_code == 200
    monkeypatch.setattr("paddle_ranker.serving.http.search_routes.to_json", partial(noted, to_json))
    monkeypatch.setattr("paddle_ranker.serving.http.document_routes.to_json", partial(noted, to_json))
    written.search("长" * 50_000, top_k=1, fields=["year"])
    assert written.search("茶叶", top_k=1)["hits"][0]["fields"] == new.fields
    assert written.get("/v1/documents/long").json()["fields"] == new.fields
    assert len(writers) == 3 and threading.current_thread() not in writers


def test_an_index_offers_no_more_facets_than_a_search_takes(tmp_path: Path) -> None:
    names = sorted(f"f{number}" for number in range(40))
    documents = [Document(str(n), "研究", fields=dict.fromkeys(names, "ab"[n % 2])) for n in range(20)]
    site = Site(index=of_words(tmp_path / "index", [documents]))
    found, counts = site.ask("GET", "/v1/index").json(), [{"value": "a", "count": 10}, {"value": "b", "count": 10}]
    assert found["limits"]["facets"] == len(found["facets"]) == MOST_NAMES and found["fields"].keys() == {*names}
    assert [*found["facets"], *found["more_facets"]] == names
    for start in range(0, len(found["more_facets"]), MOST_NAMES):  # in turns
        others = found["more_facets"][start : start + MOST_NAMES]
        assert site.search("研究", facets=others)["facets"] == dict.fromkeys(others, counts)
    assert site.search("研究", facets=found["facets"])["facets"].keys() == {*found["facets"]}
    assert site.ask("POST", "/v1/search", {"query": "研究", "facets": names}).status_code == 413
    site.close()


OWN = {"Sec-Fetch-Site": "same-origin", "Origin": "https://the.name.before.a.proxy"}
PAGES: tuple[tuple[dict[str, str], bool], ...] = (
    (OWN, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Origin": "http://127.0.0.1"}, True),
    ({}, True),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Origin": "http://127.0.0.1:9"}, False),
    ({"Origin": "null"}, False),
)


@pytest.mark.parametrize(("headers", "is_own"), PAGES)
def test_other_pages_change_nothing_and_are_not_logged(written: Site, headers: dict[str, str], is_own: bool) -> None:
    changing = 0
    for endpoint in ENDPOINTS.values():
        for route in endpoint.routes(written.slots, written.config) if endpoint.slots == ("index",) else ():
            for method in {"POST", "PUT", "DELETE"} & set(cast(Route, route).methods or ()):
                path = re.sub("{.*}", "d1", cast(Route, route).path)
                status = written.ask(method, path, b"no JSON", **headers).status_code
                assert (status != 403) == (is_own or path == "/v1/search"), path
                changing += path != "/v1/search"
    assert changing >= 3
    answer = written.ask("POST", "/v1/search", {"query": "研究"}, **headers)
    assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"
    written.ask("POST", "/v1/search", {"query": "水稻"})  # of no page: it comes behind the other

    def logged() -> list[str]:
        return [line.query for line in LogReader(written.config.search_log)]

    until(lambda: "水稻" in logged())
    assert ("研究" in logged()) == is_own


def test_what_is_searched_is_described(site: Site) -> None:
    found = site.ask("GET", "/v1/index").json()
    assert (found["name"], found["documents"], found["ranker"], found["tower"]) == ("index", 36, "ranker", "tower")
    year = {"type": "integer", "min": 2000, "max": 2009}
    assert found["fields"] == {"year": year, "lang": {"type": "string", "values": ["en", "zh"]}}
    assert found["facets"] == ["lang", "year"] and found["calibrated"] is False
    assert found["fusions"] == ["rrf", "weighted"] and found["searchers"] == ["words", "vectors"]
    schemas = site.ask("GET", "/openapi.json").json()["components"]["schemas"]
    assert set(schemas["IndexDescription"]["required"]) == set(found) - {"calibrated"}
    assert set(schemas["StoredDocument"]["required"]) == set(site.ask("GET", "/v1/documents/d0").json())


def test_fields_are_described_by_the_values_that_documents_have_now(
    words: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddle_ranker.serving.http.search_routes._VALUE_BYTES", 100)  # of a segment
    urls: list[dict[str, Any]] = [
        {"url": f"https://example.com/{n}", "body": f"{n}" * 200, "list": [n] * 100} for n in range(30)
    ]
    langs: list[dict[str, Any]] = [
        {"lang": "zh", "url": "x", "body": "b"},
        {"lang": "en"},
        {"lang": "fr", "only": "here"},
    ]
    for added in (urls, langs):
        documents = [Document(f"{len(added)}-{n}", "茶叶", fields) for n, fields in enumerate(added)]
        assert words.ask("POST", "/v1/documents", {"documents": given(*documents)}).status_code == 200
    fields = words.ask("GET", "/v1/index").json()["fields"]
    assert fields["url"] == fields["body"] == {"type": "string"}  # of values that are not all there, none is offered
    assert fields["lang"] == {"type": "string", "values": ["en", "fr", "zh"]} and fields["list"] == {"type": "number"}
    (hit,) = words.search("茶叶", where={"lang": "fr"}, fields=["only"])["hits"]
    assert hit["fields"] == {"only": "here"}
    assert words.ask("DELETE", "/v1/documents", {"ids": ["3-2"]}).json()["removed"] == 1
    fields = words.ask("GET", "/v1/index").json()["fields"]
    assert fields["lang"]["values"] == ["en", "zh"] and "only" not in fields


def test_stages_are_counted(site: Site) -> None:
    site.search("水稻", rank_top=3)
    text = site.ask("GET", "/metrics").text
    for stage in ("words", "encode", "vectors", "fuse", "rank", "total"):
        assert re.search(rf'^search_stage_seconds_count{{stage="{stage}"}} [1-9]', text, re.M)
    assert re.search(r'^ranker_requests_total{outcome="ok",protocol="search"} [1-9]', text, re.M)


def test_metrics_tell_the_size_of_index_and_log_and_searches_without_results(tmp_path: Path) -> None:
    folder, log = tmp_path / "index", tmp_path / "log"
    with Collection.create(folder, IndexInfo(WordsInfo("standard"), None)) as collection:
        collection.writer.add([Document("a", "水稻"), Document("b", "护理")])
        collection.writer.add([Document("c", "水稻病害")], merge=False)
    site = Site(index=folder, search_log=log)

    def figures() -> dict[str, float]:
        lines = site.ask("GET", "/metrics").text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:6] == "search")}

    for query, offset in (("水稻", 0), ("没有", 0), ("无", 0), ("水稻", 50)):  # behind the end is not without results
        site.search(query, offset=offset)
    until(lambda: figures()["search_log_bytes"] == sum(one.stat().st_size for one in log.glob("*.jsonl")) > 1000)
    found = figures()
    assert [found[f"search_{name}"] for name in ("documents", "segments", "without_results_total")] == [3, 2, 2]
    with Collection.open(folder, write=True) as collection:  # another process, before the next search
        collection.writer.remove(["a", "c"])
    until(lambda: (figures()["search_documents"], figures()["search_segments"]) == (1, 1))
    assert found["search_log_lost_lines"] == 0
    site.close()


@pytest.mark.parametrize("kind", [TIMED_OUT, OVERLOADED, INTERNAL])
def test_where_ranking_would_be_late_the_fused_order_stays(
    site: Site, kind: FaultKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = site.search("水稻病害", top_k=20, rank_top=0)
    deadlines = []

    async def fail(queries: Sequence[str], titles: Sequence[str], *, deadline: float, check_lengths: Any) -> Any:
        deadlines.append(deadline - time.monotonic())
        raise Fault(kind, "no scores")

    monkeypatch.setattr(site.slots["ranker"], "score_pairs", fail)
    asked: dict[str, Any] = {"query": "水稻病害", "top_k": 20, "rank_top": 5}
    answer = site.ask("POST", "/v1/search", asked, **{"X-Request-Timeout-Ms": "60000"})
    assert deadlines[0] < 60 - 0.1  # time for the answer is left
    if kind is INTERNAL:
        assert answer.status_code == 500
        return
    found = answer.json()
    assert (found["degraded"], found["ranked"]) == (["rank"], False) and "rank" not in found["took_ms"]
    assert [(hit["id"], hit["rank"]) for hit in found["hits"]] == [(hit["id"], hit["rank"]) for hit in fused["hits"]]
    # The pages of a list are all ranked, or all as they were fused.
    first = site.search(**{**asked, "cursor": "", "top_k": 4})
    monkeypatch.undo()
    second = site.search(**{**asked, "cursor": first["cursor"], "top_k": 4})
    assert [hit["id"] for hit in second["hits"]] == [hit["id"] for hit in fused["hits"][4:8]] and not second["ranked"]
    ranked = site.search(**{**asked, "cursor": "", "top_k": 4})
    monkeypatch.setattr(site.slots["ranker"], "score_pairs", fail)
    again = site.ask("POST", "/v1/search", {**asked, "cursor": ranked["cursor"], "top_k": 4})
    assert ranked["ranked"] and again.status_code == kind.http
    monkeypatch.setattr(site.slots["index"], "options", dataclasses.replace(site.config, degrade=False))
    assert site.ask("POST", "/v1/search", asked).status_code == kind.http


def test_no_hit_is_looked_at_after_its_caller_has_left(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    looking, go_on, looked_at = threading.Event(), threading.Event(), []

    def highlights(self: SharedWords, text: str) -> list[Any]:
        looked_at.append(text)
        looking.set()
        assert go_on.wait(SECONDS)
        return []

    async def run() -> None:
        asking = asyncio.ensure_future(ask_app(site.app, "POST", "/v1/search", {"query": "研究", "top_k": 10}))
        await asyncio.get_running_loop().run_in_executor(None, looking.wait, SECONDS)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        go_on.set()

    monkeypatch.setattr(SharedWords, "highlights", highlights)
    site.loop.run_until_complete(run())
    until(lambda: site.slots.of("index", IndexSlot).work.under_way == 0)
    assert len(looked_at) == 1


def test_no_more_searches_are_begun_than_may_be_under_way(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(**folders, queue_searches=1)

    async def held(*arguments: Any, **named: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    async def run() -> int:
        first = asyncio.ensure_future(ask_app(site.app, "POST", "/v1/search", {"query": "水稻", "rank_top": 2}))
        await begun.wait()
        second = await ask_app(site.app, "POST", "/v1/search", {"query": "水稻"})
        first.cancel()  # its caller leaves
        with suppress(asyncio.CancelledError):
            await first
        return second.status_code

    async def make() -> asyncio.Event:
        return asyncio.Event()

    begun = site.loop.run_until_complete(make())
    with monkeypatch.context() as patched:
        patched.setattr(site.slots["ranker"], "score_pairs", held)
        assert site.loop.run_until_complete(run()) == 429
    # The place of the one that left is free again.
    until(lambda: site.ask("POST", "/v1/search", {"query": "水稻"}).status_code == 200)
    site.close()


def test_a_tower_whose_vectors_are_of_another_size_is_refused_before_it_answers(tmp_path: Path) -> None:
    info = IndexInfo(WordsInfo("bigram"), VectorsInfo("exact", 5))
    with Collection.create(tmp_path / "index", info) as collection:
        collection.writer.add([Document("a", "水稻")], lambda texts: np.ones((len(texts), 5), np.float32))
    SLOTS.load_plugins()
    options: Any = {"index": tmp_path / "index", "tower": write_tower(tmp_path / "tower")}
    config = with_tower_of_index(serve_options()(**options))
    slots = Slots({name: kind.make(config) for name, kind in served_by(config).items()})
    reloader = Reloader(slots, Metrics(), JsonLog(), partial(fit_models, config))
    with pytest.raises(CheckpointError, match=r"tower: its vectors have 8 .*index 5; give --tower"):
        asyncio.run(reloader.load())
    assert [slot.model for slot in slots.values()] == [None, None]


def test_searches_look_as_widely_as_the_server_s_options_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower, widths = write_tower(tmp_path / "tower"), list[object]()
    copied = copy_tower(tower, tmp_path / "index")
    info = IndexInfo(WordsInfo("bigram"), VectorsInfo("faiss", copied.size), copied.copy)
    with Collection.create(tmp_path / "index", info) as collection:
        collection.writer.add(DOCUMENTS[:5])

    def search(*arguments: Any) -> Any:
        widths.append(arguments[-1])
        return search_vectors(*arguments)

    monkeypatch.setattr("paddle_ranker.retrieval.snapshots.vector_search.search_vectors", search)
    site = Site(index=tmp_path / "index", ef=700)
    assert len(site.search("研究", by=["vectors"])["hits"]) == 5 and widths == [700]
    site.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ef": 9}, "--ef 9: is about vectors, and none are searched"),
        ({"nprobe": 9}, "--nprobe 9: is about vectors"),
        ({"weights": "words=1,wrods=2"}, "weights of wrods: the search is by words"),
    ],
)
def test_options_that_an_index_has_no_use_for_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    SLOTS.load_plugins()
    config = serve_options()(**{"index": of_words(tmp_path / "index", [DOCUMENTS[:3]]), **options})
    (kind,) = served_by(config).values()
    with pytest.raises(UsageError, match=says):
        kind.make(config).load()


def test_a_reload_takes_up_a_new_index_and_ranker_together(folders: dict[str, Path], tmp_path: Path) -> None:
    index, model = tmp_path / "index", tmp_path / "model"
    shutil.copytree(folders["index"], index)
    shutil.copytree(folders["model"], model)
    site = Site(index=index, model=model)
    before = site.search("水稻", rank_top=3)
    shutil.rmtree(index)
    assert site.search("水稻", rank_top=3)["hits"] == before["hits"]
    write_index(index, write_tower(tmp_path / "other" / "tower", seed=5), DOCUMENTS[:9])
    assert site.search("水稻", rank_top=3)["hits"] == before["hits"]  # another one is not mixed with the old tower
    previous = [slot.switch(slot.load()) for slot in site.slots.values()]
    after = site.search("研究", rank_top=3, top_k=40)
    assert len(after["hits"]) == 9 < before["index"]["documents"] and after["ranked"]
    tower = Tower.open(index / "tower", for_search=True)
    vectors = tower.vectors([one.text for one in DOCUMENTS[:9]]) @ tower.query_vectors(["研究"])[0]
    scores = {hit["id"]: hit["stages"]["vectors"]["score"] for hit in after["hits"]}
    assert scores == {one.id: pytest.approx(float(value), abs=1e-5) for one, value in zip(DOCUMENTS, vectors)}
    assert all(model.close(SECONDS) for model in previous if model is not None)
    site.close()


@pytest.mark.parametrize("leaves", [False, True])
def test_a_change_under_way_outlives_a_reload_and_not_its_caller(
    written: Site, leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower, index = written.slots.of("tower", TowerSlot), written.slots.of("index", IndexSlot)
    vectors = tower.vectors

    async def run() -> list[int]:
        begun, go = asyncio.Event(), asyncio.Event()

        async def held(*given: Any, **named: Any) -> Any:
            begun.set()
            await go.wait()
            return await vectors(*given, **named)

        monkeypatch.setattr(tower, "vectors", held)
        new = {"documents": [{"id": "new", "text": "茶叶"}]}
        adding = asyncio.ensure_future(ask_app(written.app, "POST", "/v1/documents", new))
        await begun.wait()
        if leaves:
            adding.cancel()
        previous = index.switch(index.load())
        assert previous is not None and previous.close()
        if not leaves:  # nothing waits for the vectors of one who has left
            go.set()
        statuses = [] if leaves else [(await adding).status_code]
        monkeypatch.undo()
        later = await ask_app(written.app, "POST", "/v1/documents", {"documents": [{"id": "later", "text": "茶"}]})
        return [*statuses, later.status_code]

    assert written.loop.run_until_complete(run()) == [200] * (2 - leaves)
    assert written.ask("GET", "/v1/documents/new").status_code == (404 if leaves else 200)
    assert written.ask("GET", "/v1/documents/later").status_code == 200


def test_small_segments_are_merged_after_the_answer(written: Site) -> None:
    for number in range(2 * MOST_SEGMENTS):
        answer = written.ask("POST", "/v1/documents", {"documents": [{"id": f"n{number}", "text": f"茶叶{number}"}]})
        assert answer.json()["added"] == 1
    index = written.slots.of("index", IndexSlot)
    until(lambda: len(index.info.segments) <= MOST_SEGMENTS)
    assert len(written.search("茶叶", by=["words"], top_k=100)["hits"]) == 2 * MOST_SEGMENTS


@pytest.mark.parametrize("by_vectors", [True, False])
def test_mining_and_evaluation_have_the_ranker_read_what_the_servers_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, by_vectors: bool
) -> None:
    schema = Schema((Field("title", "text", title=True),), passage_tokens=16 if by_vectors else 0)
    copied = copy_tower(write_tower(tmp_path / "tower"), tmp_path / "index")
    vectors, tower = (VectorsInfo("exact", copied.size), copied.copy) if by_vectors else (None, None)
    info = IndexInfo(WordsInfo("standard"), vectors, tower, schema=schema)
    with Collection.create(tmp_path / "index", info) as collection:
        for number, one in enumerate(WORDS):
            text = "".join(f"{other}的研究。" for other in [*WORDS[number:], *WORDS[:number]]) + f"水稻{one}怎样诊断。"
            collection.writer.add([Document(f"d{number}", text, {"title": one})])
    index, ranker, query = tmp_path / "index", write_ranker(tmp_path / "ranker"), "水稻怎样诊断"
    asked: list[tuple[str, str]] = []
    encode = PairEncoder.encode

    def noted(self: PairEncoder, queries: Sequence[str], titles: Sequence[str], **more: Any) -> Any:
        asked.extend(zip(queries, titles))
        return encode(self, queries, titles, **more)

    def read(run: Callable[[], Any]) -> list[str]:
        asked.clear()
        run()
        return sorted({title for text, title in asked if text == query})

    site = Site(index=index, model=ranker)
    best = site.search(query, top_k=6)["hits"][0]
    write_beir(tmp_path / "beir", (), {"q": query}, {"train": {"q": {best["id"]: 1}}})
    monkeypatch.setattr(PairEncoder, "encode", noted)
    by_server = read(lambda: site.search(query, top_k=6))
    options = "--index", index, "--ranker", ranker, "--device", "cpu"
    judged = "--beir", tmp_path / "beir", "--split", "train", "--baselines", "false"
    by_evaluation = read(lambda: call(evaluate, *options, *judged))
    mined = "--queries", tmp_path / "beir", "--output", tmp_path / "mined.jsonl", "--margin", 0, "--negatives", 9
    by_mining = read(lambda: call(mine, *options, *mined))
    assert len(by_server) == 6 and by_server == by_evaluation == by_mining
    assert all(len(text) < len(best["text"]) for text in by_server)
    rows = read_records(tmp_path / "mined.jsonl", Triple)
    assert len({row.title for row in rows}) == 1 and len({row.neg_title for row in rows}) == 5
    assert {text for row in rows for text in (row.title, row.neg_title)} == {*by_server}
    site.close()
