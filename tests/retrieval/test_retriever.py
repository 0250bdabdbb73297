"""Searches of an index by words and vectors together, and then by a ranker, against lists worked out apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional, cast

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import UsageError
from paddle_ranker.lexical.bm25 import BM25
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.fusion import Fusion
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.scoring.ranker import Ranker
from tests.tiny import write_tokenizer

pytestmark = pytest.mark.unit
TEXTS = ["水稻病害诊断", "水稻病虫", "病害统计", "水稻种植", "老年人护理", "稻田养鱼", "护理病害"]
SIZE = 4


def vectors_of(texts: Sequence[str]) -> Vectors:
    rows = [np.random.default_rng(sum(map(ord, text))).normal(size=SIZE) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    folder = tmp_path_factory.mktemp("retriever") / "index"
    with Collection.create(folder, IndexInfo(WordsInfo("bigram"), VectorsInfo("exact", SIZE))) as collection:
        documents = [Document(f"d{n}", text, {"year": 2000 + n}) for n, text in enumerate(TEXTS)]
        collection.writer.add(documents, vectors_of)
    yield Collection.open(folder)


class StubRanker:
    """Gives a pair the number of characters that both texts share as its logit; counts what it is asked."""

    pair_encoder: Optional[PairEncoder] = None
    row_encoder, info = None, SimpleNamespace(calibration=None)

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def scored(self, queries: Sequence[str], titles: Sequence[str]) -> Any:
        self.asked += zip(queries, titles)
        return np.array([float(len(set(q) & set(t))) for q, t in zip(queries, titles)]), {}


def ranks_of(query: str, ids: Sequence[str]) -> dict[str, dict[str, tuple[float, int]]]:
    """Return each searcher's score and rank of the documents, from the formulas."""
    texts = [TEXTS[int(id[1:])] for id in ids]
    bm25 = BM25("bigram", normalised=False)
    bm25.fit([], TEXTS)
    words = bm25.score([query] * len(texts), texts)
    cosines = (vectors_of(texts) @ vectors_of([query])[0]).astype(float)
    found = {}
    for name, scores in (("words", words), ("vectors", cosines)):
        order = [n for n in np.argsort(-scores, kind="stable").tolist() if name == "vectors" or scores[n] > 0]
        found[name] = {ids[n]: (float(scores[n]), rank) for rank, n in enumerate(order, start=1)}
    return found


def test_a_result_has_what_each_searcher_says_and_the_fused_score(index: Collection) -> None:
    ids = [f"d{n}" for n in range(len(TEXTS))]
    retriever = SearchEngine(index, SearchSettings(fusion=Fusion("rrf", title=0.0)), vectors_of)
    for query, results in zip(("水稻病害", "护理"), retriever.search_many(["水稻病害", "护理"], 10)):
        by = ranks_of(query, ids)
        sums = {id: sum(1 / (60 + found[id][1]) for found in by.values() if id in found) for id in ids}
        assert {result.id: result.score for result in results} == pytest.approx(sums)
        assert [r.score for r in results] == sorted((r.score for r in results), reverse=True)
        for result in results:
            assert result.text == TEXTS[int(result.id[1:])] and result.fields == {"year": 2000 + int(result.id[1:])}
            wanted = {name: found[result.id] for name, found in by.items() if result.id in found}
            assert {name: (one.score, one.rank) for name, one in result.searchers.items()} == {
                name: (pytest.approx(score, abs=1e-5), rank) for name, (score, rank) in wanted.items()
            }
    assert retriever.search("水稻病害", 3) == retriever.search("水稻病害", 10)[:3]


def test_a_filter_holds_for_all_searchers(index: Collection) -> None:
    retriever = SearchEngine(index, SearchSettings(), vectors_of)
    for where in ("year>=2001 and year<2004", ["year>=2001", "year<2004"]):
        assert {result.id for result in retriever.search("水稻病害", where=where)} == {"d1", "d2", "d3"}
    by_words = SearchEngine(index, SearchSettings(("words",)))
    assert [(one.id, one.score) for one in by_words.search("护理", where="year=2006")] == [
        (one.id, one.searchers["words"].score) for one in by_words.search("护理") if one.id == "d6"
    ]


def test_each_searcher_finds_as_many_as_are_asked_for(index: Collection) -> None:
    few = SearchEngine(index, SearchSettings(depth=2), vectors_of)
    (one,) = few.run(["水稻病害"], 1)
    assert one.fused.candidates.ranks.max() == 2 and len(few.search("水稻病害", 7)) == 7
    other = few.search("水稻病害", 7, fusion="weighted")
    assert [one.id for one in other] == [
        one.id
        for one in SearchEngine(index, SearchSettings(fusion=Fusion("weighted")), vectors_of).search("水稻病害", 7)
    ]


@pytest.mark.parametrize("weight", [0.0, 20.0])
def test_a_ranker_orders_the_first_results_alone(index: Collection, weight: float) -> None:
    stub, queries = StubRanker(), ["水稻病害", "老人护理"]
    fusion = Fusion(recall_weight=weight)
    settings = SearchSettings(fusion=fusion, rank_top=3)
    plain = SearchEngine(index, settings, vectors_of).search_many(queries, 6)
    ranked = SearchEngine(index, settings, vectors_of, cast(Ranker, stub)).search_many(queries, 6)
    assert stub.asked == [(query, one.text) for query, found in zip(queries, plain) for one in found[:3]]
    for query, before, after in zip(queries, plain, ranked):
        last = {one.id: len(set(query) & set(one.text)) + weight * one.score / 2 for one in before[:3]}
        assert [one.id for one in after[:3]] == sorted(last, key=lambda id: (-last[id], id))
        assert after[3:] == before[3:] and after[4].logit is None
        for one in after[:3]:
            assert one.logit == len(set(query) & set(one.text)) and one.score == {b.id: b.score for b in before}[one.id]
            assert one.probability == pytest.approx(1 / (1 + np.exp(-one.logit)))
    # fewer results than are ranked
    assert [one.id for one in SearchEngine(index, settings, vectors_of, cast(Ranker, stub)).search(queries[0], 2)] == [
        one.id for one in ranked[0][:2]
    ]


def test_what_an_index_cannot_do_is_named(index: Collection) -> None:
    with pytest.raises(UsageError, match="by 'titles', only by words, vectors"):
        SearchEngine(index, SearchSettings(("titles",)))
    with pytest.raises(UsageError, match="has no tower that makes vectors of queries"):
        SearchEngine(index, SearchSettings()).search("水稻")
    with pytest.raises(UsageError, match="top_k: is 0, must be at least 1"):
        SearchEngine(index, SearchSettings(("words",))).search("水稻", 0)
    with pytest.raises(UsageError, match="condition 'year'"):
        SearchEngine(index, SearchSettings(("words",))).search("水稻", where="year")


def test_a_search_keeps_its_snapshot_while_documents_go(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add([Document("a", "水稻病害"), Document("b", "水稻种植")])
        (search,) = SearchEngine(collection, SearchSettings()).run(["水稻"])
        collection.writer.remove(["a"])
        assert {one.id for one in search.results()} == {"a", "b"}
        assert [one.id for one in SearchEngine(collection, SearchSettings()).search("水稻")] == ["b"]


def test_a_ranker_reads_the_title_and_the_part_of_a_long_text_with_the_querys_words(tmp_path: Path) -> None:
    schema = Schema((Field("title", "text", weight=2.0, title=True),))
    long = "田" * 300 + "。水稻病害怎样防治。" + "田" * 300
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None, schema=schema)) as collection:
        collection.writer.add([Document("long", long, {"title": "手册"}), Document("short", "水稻", {"title": "词"})])
        stub = StubRanker()
        write_tokenizer(tmp_path)
        stub.pair_encoder = PairEncoder.from_folder(
            tmp_path, 42
        )  # of which 3 special tokens, 4 of the query, 2 of the title
        found = SearchEngine(collection, SearchSettings(), ranker=cast(Ranker, stub)).search("水稻病害")
        read = {one.id: one.passage for one in found}
        assert read == {"short": (0, 2), "long": (301, 334)}
        assert sorted(title for _, title in stub.asked) == sorted([f"手册 {long[301:334]}", "词 水稻"])
        assert {one.id: one.title for one in found} == {"long": "手册", "short": "词"}
