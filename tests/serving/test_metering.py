"""Work that callers cause: counted before it begins, large work apart from small work, memory until the answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.lexical.highlights import SharedWords
from paddle_ranker.retrieval.index import ingestion
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.field_values import FieldValues
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.work.turns import Caller, Turns
from paddle_ranker.serving.core.byte_budget import Share
from paddle_ranker.serving.slots.queued_search import _QueuedModels
from tests.serving.test_search import Site
from tests.serving_cases import SECONDS
from tests.tiny import write_ranker

pytestmark = pytest.mark.unit
LONG = 30_000  # characters of a document
DOCUMENTS = [
    Document(f"d{n:03}", f"水稻{n}" + "的研究" * (LONG // 3 if n < 40 else 1), {"year": n, "kind": f"k{n}"})
    for n in range(120)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metering") / "index"
    with Collection.create(folder, IndexInfo(WordsInfo("standard"), None)) as collection:
        collection.writer.add(DOCUMENTS)
    return folder


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    made = Site(index=folder, writable=True)
    yield made
    made.close()


def seen(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, say: Callable[..., Any]) -> list[Any]:
    """Return what `say` says of each call of a method from now on."""
    calls, real = list[Any](), getattr(owner, name)

    def call(*given: Any, **more: Any) -> Any:
        calls.append(say(*given))
        return real(*given, **more)

    monkeypatch.setattr(owner, name, call)
    return calls


def thread(*_: Any) -> str:
    return threading.current_thread().name.rpartition("_")[0]


def test_only_shown_documents_are_held(folder: Path, tmp_path: Path) -> None:
    """Those that a ranker reads are read a few at a time, and what it reads of them alone is kept."""
    engine = SearchEngine.open(folder, SearchSettings(rank_top=30), ranker=write_ranker(tmp_path / "ranker"))
    held: list[int] = []
    (found,) = Caller(reserve=held.append).run(lambda: engine.run(["水稻研究"], top_k=1))
    assert len(found.page.documents) == 1 and len(found.ranking.logits) == 30
    assert sum(held) < 3 * 3.1 * LONG + 30 * 1000  # one document and its answer, and 30 passages


def test_the_documents_of_an_answer_count_in_the_budget_of_bytes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    held = seen(monkeypatch, Share, "reserve_answer", lambda _, size: size)
    for ask in (
        lambda: site.search("水稻", top_k=3, where={"year": {"lt": 40}}),
        lambda: site.ask("GET", "/v1/documents?limit=100").json(),
        lambda: site.ask("GET", "/v1/documents/d000").json(),
    ):
        held.clear()
        assert ask()
        assert sum(held) > 3 * LONG


def test_an_answer_looks_at_so_much_text(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = seen(monkeypatch, SharedWords, "highlights", lambda _, text: len(text))
    assert len(site.search("水稻", top_k=100)["hits"]) == 100
    assert sum(looked) <= 400_000 and max(looked) == 4000
    looked.clear()
    site.search("水稻", top_k=100, fields=["year"])
    assert sum(looked) == 0


def test_a_document_has_only_so_large_fields(site: Site) -> None:
    document = {"id": "x", "text": "水稻", "note": "a" * 500_000}
    answer = site.ask("POST", "/v1/documents", {"documents": [document]})
    assert answer.status_code == 413 and "documents[0].fields" in answer.text and "500,0" in answer.text


def test_words_of_additions_are_worked_out_while_others_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None)) as collection:
        collection.writer.add(DOCUMENTS[40:50])
    site = Site(index=tmp_path / "index", writable=True)
    try:
        served = site.slots["index"].ready().collection  # type: ignore[attr-defined]
        locked = seen(monkeypatch, ingestion, "postings_of", lambda *_: served.writer._lock is not None)
        threads = seen(monkeypatch, ingestion, "postings_of", thread)
        for size in (10, 30_000):
            given = [{"id": f"new{size}", "text": "水稻 " * size}]
            assert site.ask("POST", "/v1/documents", {"documents": given}).status_code == 200
        repeated = [{"id": "twice", "text": "水稻"}] * 2
        assert site.ask("POST", "/v1/documents", {"documents": repeated}).status_code == 422
        changed = [{"id": "new10", "kind": "b"}]
        assert site.ask("PATCH", "/v1/documents", {"documents": changed}).status_code == 200
        assert locked == [False] * 3 and threads == ["index-preparing"] * 3
        assert site.search("水稻", top_k=1)["hits"][0]["id"] in ("new10", "new30000")
    finally:
        site.close()


def test_fields_are_described_once_a_version_and_arranged_once_for_filters(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Collection.create(tmp_path / "other", IndexInfo(WordsInfo("standard"), None)) as collection:
        collection.writer.add([Document("a", "水稻", {"colour": "red"})])
    slot = site.slots["index"]
    mine, slot.folder = slot.folder, tmp_path / "other"  # of the same generation
    assert set(site.ask("GET", "/v1/index").json()["fields"]) == {"year", "kind"}
    own = slot.switch(slot.load())
    assert set(site.ask("GET", "/v1/index").json()["fields"]) == {"colour"}
    slot.folder = mine
    slot.switch(own)
    described = seen(monkeypatch, LocalSnapshot, "field_values", lambda *_: 1)
    for _ in range(3):
        assert set(site.ask("GET", "/v1/index").json()["fields"]) == {"year", "kind"}
    assert len(described) == 1
    arranged = seen(monkeypatch, FieldValues, "__init__", thread)
    for _ in range(3):
        site.search("水稻", where={"kind": "k3"}, fields=[])
    assert arranged == ["index"]


def test_searches_go_on_while_the_tower_of_a_field_computes() -> None:
    turns, order = Turns(1), list[str]()

    class Tower:
        def query_vectors(self, texts: list[str]) -> Any:
            other = threading.Thread(target=lambda: Caller().run(lambda: order.append("other"), turns))
            other.start()
            other.join(SECONDS)
            order.append("tower")
            return np.zeros((1, 2), np.float32)

        def query_read(self, text: str) -> Optional[int]:
            return None

    index: Any = SimpleNamespace(snapshot=SimpleNamespace(tower=lambda field: Tower()))
    nothing: Any = None
    models = _QueuedModels(nothing, index, nothing, nothing, 0.0, 1.0)
    assert Caller().run(lambda: models.begin_vectors("title", ["a"]).result(), turns).shape == (1, 2)
    assert order == ["other", "tower"]
