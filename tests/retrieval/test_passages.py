"""Passages: where texts are cut, and searches by their vectors against every product in NumPy, however divided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import CheckpointError
from paddle_ranker.lexical.passages import best_span, cut_passages, estimated_ends
from paddle_ranker.model.model_folder import TOWER, identify
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.ingestion import Cutter
from paddle_ranker.retrieval.index.towers import copy_tower
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.scoring.ranker import Ranker
from tests.tiny import write_tower

pytestmark = pytest.mark.unit
SIZE = 8
SCHEMA = Schema((Field("title", "text", 2.0, title=True),), passage_tokens=20)
WORDS = "水稻病害诊断防治老年人护理语言文化经济增长教育法律深度学习"


def vectors_of(texts: Sequence[str]) -> Vectors:
    rows = [np.random.default_rng(sum(n * ord(c) for n, c in enumerate(t, 1))).normal(size=SIZE) for t in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def text_of(number: int) -> str:
    draw = np.random.default_rng(number)
    return "".join("".join(draw.choice([*WORDS], 9)) + "。" for _ in range(1 + number % 7))


DOCUMENTS = [Document(f"d{n:03}", text_of(n), {"title": f"题{n}", "odd": n % 2}) for n in range(120)]


def best(query: str, documents: Sequence[Document], k: int) -> list[tuple[str, float]]:
    (asked,) = vectors_of([query])
    scores = {
        one.id: max(float(vectors_of([SCHEMA.model_text(one, one.text[start:end])])[0] @ asked) for start, end in spans)
        for one, spans in zip(documents, Cutter(SCHEMA).spans(documents))
    }
    return sorted(scores.items(), key=lambda one: -one[1])[:k]


@pytest.mark.parametrize("method", ["exact", "faiss"])
@pytest.mark.parametrize("is_divided", [False, True])
def test_a_document_counts_by_its_best_passage(tmp_path: Path, method: str, is_divided: bool) -> None:
    if method == "faiss":
        pytest.importorskip("faiss")
    info = IndexInfo(WordsInfo("standard"), VectorsInfo(method, SIZE, structure="sq8"), schema=SCHEMA)
    with Collection.create(tmp_path / "index", info) as collection:
        step = 11 if is_divided else len(DOCUMENTS)
        for start in range(0, len(DOCUMENTS), step):
            collection.writer.add(DOCUMENTS[start : start + step], vectors_of)
        collection.writer.add([Document("d003", "换", {"title": "新"})], vectors_of)
        collection.writer.remove(["d010"])
        there = [one for one in DOCUMENTS if one.id not in ("d003", "d010")]
        there.append(Document("d003", "换", {"title": "新"}))
        for where, kept in (
            (None, there),
            (Filter.of({"odd": 1}), [one for one in there if one.fields.get("odd") == 1]),
        ):
            queries = [f"问{n}" for n in range(5)]
            found = collection.snapshot().search("vectors", vectors_of(queries), 10, where)
            for query, hits in zip(queries, found):
                wanted = best(query, kept, 10)
                assert hits.ids == [id for id, _ in wanted]
                assert hits.scores == pytest.approx([score for _, score in wanted], abs=1e-6)
        assert collection.snapshot().verify()[0] > 0
        collection.writer.merge(None)
        (hits,) = collection.snapshot().search("vectors", vectors_of(["问0"]), len(there) + 5)
        assert sorted(hits.ids) == sorted(one.id for one in there)
        (exact,) = collection.snapshot().search_exactly(vectors_of(["问0"]), 7)
        assert exact.ids == hits.ids[:7]


def test_the_ranker_reads_the_passage_that_was_found(tmp_path: Path) -> None:
    class StubRanker:
        pair_encoder, row_encoder, info = None, None, SimpleNamespace(calibration=None)
        read: list[str] = []

        def scored(self, queries: Sequence[str], titles: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
            self.read += titles
            return np.zeros(len(titles)), {}

    info = IndexInfo(None, VectorsInfo("exact", SIZE), schema=SCHEMA)
    with Collection.create(tmp_path / "index", info) as collection:
        collection.writer.add(DOCUMENTS[:20], vectors_of)
        stub = StubRanker()
        results = SearchEngine(collection, SearchSettings(), vectors_of, cast(Ranker, stub)).search("问", 20)
        (asked,) = vectors_of(["问"])
        for one in results:
            start, end = one.passage
            assert (start, end) in Cutter(SCHEMA).spans([Document(one.id, one.text)])[0]
            read = SCHEMA.model_text(Document(one.id, one.text, one.fields), one.text[start:end])
            assert read in stub.read and float(vectors_of([read])[0] @ asked) == pytest.approx(one.score, abs=1e-6)


def test_vectors_of_passages_are_not_computed_again(tmp_path: Path) -> None:
    made: list[str] = []

    def counted(texts: Sequence[str]) -> Vectors:
        made.extend(texts)
        if len(made) > 150:
            raise KeyboardInterrupt
        return vectors_of(texts)

    info = IndexInfo(None, VectorsInfo("exact", SIZE), schema=SCHEMA)
    with Collection.create(tmp_path / "index", info) as collection:
        collection.writer.add(DOCUMENTS[:30], counted)
        before = len(made)
        assert before == sum(map(len, Cutter(SCHEMA).spans(DOCUMENTS[:30])))
        collection.writer.add(
            [Document(f"other{n}", one.text, one.fields) for n, one in enumerate(DOCUMENTS[:30])], counted
        )
        assert len(made) == before and len(collection) == 60


def test_passages_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with Collection.create(
        tmp_path / "index", IndexInfo(None, VectorsInfo("exact", SIZE), schema=SCHEMA)
    ) as collection:
        collection.writer.add(DOCUMENTS[:20], vectors_of)
    (path,) = tmp_path.glob("index/segment-*/passages.npy")
    whole = np.load(path)
    for change in (whole[::-1], whole[1:], np.where(whole == 19, 25, whole)):
        np.save(path, change[: len(whole)])
        with pytest.raises(CheckpointError, match="damaged"):
            Collection.open(tmp_path / "index")


TEXTS = ["", "短", "一二三。" * 60, "word " * 300, "x" * 1000, "混合 mixed 文本。 " * 50]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("tokens", [1, 20, 128])
@pytest.mark.parametrize("share", [0, 4, 2])
def test_passages_cover_the_text(text: str, tokens: int, share: int) -> None:
    (ends,), overlap = estimated_ends([text]), tokens // share if share else 0
    spans = cut_passages(text, ends, tokens, overlap)
    inside = [np.count_nonzero((ends > start) & (ends <= end)) for start, end in spans]
    assert max(inside) <= tokens and (len(spans) > 1) == (len(ends) > tokens)
    assert (spans[0][0], spans[-1][1]) == (0, len(text)) and all(start < end for start, end in spans if text)
    for (before, end), (start, _) in zip(spans, spans[1:]):
        assert before < start <= end and np.count_nonzero((ends > start) & (ends <= end)) <= overlap


@pytest.mark.parametrize(("tokens", "least"), [(1, 2), (1, 1), (7, 8), (7, 3)])
def test_a_text_is_counted_a_few_times_even_if_nothing_fits(tokens: int, least: int) -> None:
    counted: list[str] = []

    def count(part: str) -> int:
        counted.append(part)
        return least if len(part) < 3 else 2 + len(part)

    spans = cut_passages("长" * 3000, np.array([3000]), tokens, count=count)
    assert (spans[0][0], spans[-1][1]) == (0, 3000) and all(one[1] == two[0] for one, two in zip(spans, spans[1:]))
    assert sum(map(len, counted)) < 20 * 3000


def test_sentences_are_whole_and_the_best_span_has_the_words() -> None:
    sentences = "一二三四五六七。" * 3
    ends = np.arange(1, len(sentences) + 1)
    assert cut_passages(sentences, ends, 8) == [(0, 8), (8, 16), (16, 24)]
    assert cut_passages(sentences, ends, 16) == [(0, 8), (8, 24)]
    assert cut_passages(sentences, ends, 16, 8) == [(0, 16), (8, 24)]
    text = "开头。" + "无关的话。" * 100 + "水稻的病害。" + "别的。" * 100
    start, end = best_span(text, {"水稻": 5.0, "病害": 5.0, "话": 0.1}, 40)
    assert "水稻的病害" in text[start:end] and end - start == 40 and text[start - 1] == "。"
    assert best_span(text, {}, 40) == (0, 40) and best_span("短", {"短": 1.0}, 40) == (0, 1)


def test_the_best_span_holds_the_heaviest_words() -> None:
    """Against sums over all spans that begin with a word; without sentences, that could move the beginning."""
    draw = np.random.default_rng(0)
    for _ in range(200):
        text = "".join(draw.choice([*"一是的水稻病害"], draw.integers(60, 300)))
        weights = {"".join(draw.choice([*"一是的水稻"], draw.integers(1, 4))): draw.random() for _ in range(6)}
        weights = {word: weight for word, weight in weights.items() if text.count(word) <= len(text) // 50}
        starts = [place for word in weights for place in range(len(text)) if text.startswith(word, place)]
        totals = [sum(weights[word] * (word in text[start : start + 40]) for word in weights) for start in starts]
        start, _ = best_span(text, weights, 50)
        best = min(s for s, total in zip(starts, totals) if total > max(totals) - 1e-9) if starts else 0
        assert start == min(0 if best <= 10 else best, len(text) - 50)


def test_a_collection_counts_the_tokens_of_its_own_tower(tmp_path: Path) -> None:
    copied = copy_tower(write_tower(tmp_path / "tower"), tmp_path / "index")  # which reads 32 tokens
    schema = replace(SCHEMA, passage_overlap=8)
    info = IndexInfo(None, VectorsInfo("exact", copied.size), copied.copy, schema=schema)
    encoder = identify(tmp_path / "tower").row_encoder(TOWER)
    with Collection.create(tmp_path / "index", info) as collection:
        collection.writer.add(DOCUMENTS[:20])
        (hits,) = collection.snapshot().search("vectors", Tower.open(tmp_path / "tower").query_vectors(["水稻"]), 20)
        found = dict(zip(hits.ids, hits.passages or ()))
        for one, spans in zip(DOCUMENTS, Cutter(schema, encoder).spans(DOCUMENTS[:20])):
            assert (found[one.id] or (0, len(one.text))) in spans
    with Collection.open(tmp_path / "index") as collection:
        assert collection.info.schema == schema
