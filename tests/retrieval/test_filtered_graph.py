"""A graph finds what an exact search does, whatever a filter or removals leave of the topic that a query is about."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.commands.index import main
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.snapshots.vector_search import searched_exactly
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from tests.checkout import ONCE

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
    collection.writer.add((Document(f"{n}", f"{n}", fields[n]) for n in order), lambda ids: vectors[[*map(int, ids)]])
    return collection


def require_recall(index: Collection, topic: int, where: Optional[str] = None) -> None:
    """Fail, naming the queries that miss documents and these, where the recall of the best ten is below 0.95."""
    queries, allowed = made_up(topic, 100, 7), None if where is None else Filter.parse([where])
    found = (
        index.snapshot().search("vectors", queries, 10, allowed),
        index.snapshot().search_exactly(queries, 10, allowed),
    )
    shares = [len({*a.ids} & {*b.ids}) / len(b.ids) for a, b in zip(*found)]
    missed = {n: [(id, round(score, 4)) for id, score in zip(b.ids, b.scores.tolist()) if id not in a.ids]
              for n, (a, b) in enumerate(zip(*found))}  # fmt: skip
    shown = {n: (own, found[0][n].scores.round(4).tolist()) for n, own in missed.items() if own}
    assert np.mean(shares) >= 0.95, f"topic {topic}, {where}: recall {np.mean(shares):.4f}; missed, found: {shown}"


@pytest.mark.parametrize("costs", [1, 200])
@pytest.mark.parametrize("where", [None, "topic=a", "topic=b", "half=1", "topic=a and half=1", "topic=b and half=0",
                                   "topic=a and part<8"])  # fmt: skip
def test_a_filter_against_the_query_s_topic_loses_no_answers(
    index: Collection, where: Optional[str], costs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.vectors.faiss_index.LEAST", 50)
    monkeypatch.setattr(
        "paddle_ranker.retrieval.vectors.faiss_index._GRAPH_COSTS", costs
    )  # 1: the graph as long as it helps
    for topic in (0, 1, 2):
        require_recall(index, topic, where)


def test_removed_documents_vectors_find_what_is_left(
    index: Collection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("paddle_ranker.retrieval.vectors.faiss_index._GRAPH_COSTS", 1)
    index.writer.remove([one.id for one in index.snapshot().documents() if one.fields["topic"] == "b"])
    require_recall(index, 1)
    require_recall(index, 0)
    assert main(["check", str(index.folder), "--sample", "50"]) == 0
    shown = capsys.readouterr().out
    assert (
        "filters: recall@10 against exact search 1.0000 at least" in shown
        or "filters: recall@10 against exact search 0.9" in shown
    )
    assert "50 removed documents' as queries: recall@10 against exact search" in shown


@pytest.mark.parametrize("structure", [pytest.param("ivf_pq", marks=[pytest.mark.slow, ONCE]), "ivf_sq8"])
def test_lists_lose_no_answers_with_and_without_filters(tmp_path: Path, structure: str) -> None:
    count = 10_400
    counts = [int(count * 0.79), count - int(count * 0.79)]
    vectors = np.concatenate([made_up(topic, own, 3) for topic, own in enumerate(counts)])
    fields = [{"topic": "ab"[n >= counts[0]], "half": n % 2, "part": n % 20} for n in range(count)]
    collection = Collection.create(tmp_path / "index", IndexInfo(None, VectorsInfo("faiss", SIZE, structure=structure)))
    order = np.random.default_rng(5).permutation(count).tolist()
    documents = (Document(f"{n}", f"{n}", fields[n]) for n in order)
    collection.writer.add(documents, lambda ids: vectors[[*map(int, ids)]], merge=False)
    merge_segments_of(collection)
    (part,) = collection.snapshot().parts
    opened = part.segment.vectors["vectors"].index
    assert opened is not None
    assert searched_exactly(collection.info.vector_fields["vectors"].info, [count, 7]).startswith("7 vectors")
    for topic in (0, 1, 2):
        for where in (None, "topic=a", "topic=b", "half=1", "topic=a and part<8"):
            require_recall(collection, topic, where)


def merge_segments_of(collection: Collection) -> None:
    """Make one segment of all, as builds of many documents do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paddle_ranker.retrieval.index.merging.MOST_SEGMENTS", 1)
        collection.writer.merge(None)
