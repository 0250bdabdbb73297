"""A graph finds what an exact search does, whatever a filter or removals leave of the topic that a query is about."""

from __future__ import annotations

from typing import Optional

import numpy as np
import pytest

from paddle_ranker.commands.index import main
from paddle_ranker.retrieval.collection import Collection
from paddle_ranker.retrieval.exact import Vectors
from paddle_ranker.retrieval.filters import Filter
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.retrieval.manifest import IndexInfo, VectorsInfo

pytestmark = pytest.mark.unit
SIZE, COUNT = 64, 4000


def made_up(topic: int, count: int, seed: int) -> Vectors:
    """Return vectors of a topic, `[count, SIZE]`, around many centres that lie together."""
    draw, own = np.random.default_rng(seed), np.random.default_rng(topic)
    centres = own.normal(size=SIZE) * 1.5 + own.normal(size=(count // 40 + 20, SIZE))
    found = centres[draw.integers(len(centres), size=count)] + 0.6 * draw.normal(size=(count, SIZE))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Make an index of two topics, 79% and 21%, of which the first has a small part of its own."""
    counts = [int(COUNT * 0.79), COUNT - int(COUNT * 0.79)]
    vectors = np.concatenate([made_up(topic, count, 3) for topic, count in enumerate(counts)])
    fields = [{"topic": "ab"[n >= counts[0]], "half": n % 2, "part": n % 20} for n in range(COUNT)]
    order = np.random.default_rng(5).permutation(COUNT)
    info = IndexInfo(None, VectorsInfo("faiss", SIZE, hnsw_m=16))
    collection = Collection.create(tmp_path_factory.mktemp("graph") / "index", info)
    collection.add((Document(f"{n}", f"{n}", fields[n]) for n in order), lambda ids: vectors[[*map(int, ids)]])
    return collection


def recall(index: Collection, topic: int, where: Optional[str] = None) -> float:
    queries, allowed = made_up(topic, 100, 7), None if where is None else Filter.parse([where])
    found = index.search("vectors", queries, 10, allowed), index.search_exactly(queries, 10, allowed)
    return float(np.mean([len({*a.ids} & {*b.ids}) / len(b.ids) for a, b in zip(*found)]))


@pytest.mark.parametrize("costs", [1, 200])
@pytest.mark.parametrize("where", [None, "topic=a", "topic=b", "half=1", "topic=a and half=1", "topic=b and half=0",
                                   "topic=a and part<8"])  # fmt: skip
def test_a_filter_against_the_query_s_topic_loses_no_answers(
    index: Collection, where: Optional[str], costs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.faiss_index.LEAST", 50)
    monkeypatch.setattr("paddle_ranker.retrieval.faiss_index._GRAPH_COSTS", costs)  # 1: the graph as long as it helps
    assert [recall(index, topic, where) >= 0.95 for topic in (0, 1, 2)] == [True] * 3


def test_removed_documents_vectors_find_what_is_left(
    index: Collection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.faiss_index._GRAPH_COSTS", 1)
    index.remove([one.id for one in index.documents() if one.fields["topic"] == "b"])
    assert recall(index, 1) >= 0.95 and recall(index, 0) >= 0.95
    assert main(["check", str(index.folder), "--sample", "50"]) == 0
    shown = capsys.readouterr().out
    assert (
        "filters: recall@10 against exact search 1.0000 at least" in shown
        or "filters: recall@10 against exact search 0.9" in shown
    )
    assert "50 removed documents' as queries: recall@10 against exact search" in shown
