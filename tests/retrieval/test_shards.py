"""Shards: several folders against one folder with all their documents, to the digit and in ties."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shards import open_shards
from paddle_ranker.retrieval.stages.search import Search, SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.scoring.ranker import Ranker

pytestmark = pytest.mark.unit
SIZE = 8
SCHEMA = Schema((Field("title", "text", 3.0, title=True), Field("kind", "keyword")), passage_tokens=20)
INFO = IndexInfo(WordsInfo("standard"), VectorsInfo("exact", SIZE), schema=SCHEMA)
LETTERS = "水稻病害诊断防治老年人护理"


def vectors_of(texts: Sequence[str]) -> Vectors:
    rows = [np.random.default_rng([ord(char) for char in text]).normal(size=SIZE) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32).reshape(-1, SIZE)


def document(number: int) -> Document:
    draw = np.random.default_rng(number % 17)  # the texts, and so the scores, of some are equal
    text = "".join("".join(draw.choice([*LETTERS], 9)) + "。" for _ in range(1 + number % 5))
    return Document(f"d{number * 7 % 60:02}", text, {"title": f"题{number % 17}", "kind": "abc"[number % 3]})


DOCUMENTS = [document(number) for number in range(60)]
SHARES = (slice(0, 7), slice(7, 40), slice(40, 60))


class StubRanker:
    pair_encoder, row_encoder, info = None, None, SimpleNamespace(calibration=None)

    def scored(self, queries: Sequence[str], titles: Sequence[str]) -> Any:
        return np.array([float(len(set(q) & set(t))) for q, t in zip(queries, titles)]), {}


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Write `one` with all documents, and three shards; some documents are removed from both."""
    made = [tmp_path / "one", *(tmp_path / f"shard{number}" for number in range(3))]
    for folder, share in zip(made, (slice(0, 60), *SHARES)):
        with Collection.create(folder, INFO) as collection:
            collection.writer.add(DOCUMENTS[share][:5], vectors_of)
            collection.writer.add(DOCUMENTS[share][5:], vectors_of, merge=False)
            collection.writer.remove(["d07", "d21", "d59"])
    return made


def said(search: Search) -> list[Any]:
    found = [
        (one.id, pytest.approx(one.score, abs=1e-9), one.passage, one.title, one.logit, dict(one.searchers))
        for one in search.results()
    ]
    return [*found, search.total(), search.facets(["kind"])]


@pytest.mark.parametrize("ranker", [None, StubRanker()])
def test_shards_answer_as_one_folder_does(folders: list[Path], ranker: Any) -> None:
    settings = SearchSettings(depth=20, rank_top=5)
    one, shards = (
        SearchEngine(collection, settings, vectors_of, cast(Ranker, ranker))
        for collection in (Collection.open(folders[0]), open_shards(folders[1:]))
    )
    assert len(shards.collection) == len(one.collection) == 57
    queries = ["水稻病害", "护理", "题3", "防治老年"]
    for where in (None, "kind in a,b"):
        for whole, parts in zip(one.run(queries, 20, where), shards.run(queries, 20, where)):
            assert said(parts) == said(whole)
            ids = [result.id for result in whole.results()]
            explained, wanted = (each.collection.explain_words(whole.query.text, ids) for each in (parts, whole))
            assert explained == {id: pytest.approx(terms, abs=1e-9) for id, terms in wanted.items()}
    assert [one.id for one in shards.collection.snapshot().documents()] == [
        one.id for one in one.collection.snapshot().documents()
    ]
    assert shards.collection.snapshot().matching(None).count(
        Filter.of({"kind": "a"})
    ) == one.collection.snapshot().matching(None).count(Filter.of({"kind": "a"}))


def test_shards_take_up_what_each_folder_gets(folders: list[Path]) -> None:
    settings = SearchSettings(("words",))
    with SearchEngine.open(folders[1:], settings) as shards:
        assert len(shards.collection.folders) > 1
        collection, before = shards.collection, shards.collection.snapshot()
        collection.refresh()
        unchanged = collection.is_current, collection.refresh()
        for folder in (folders[0], folders[3]):
            with Collection.open(folder, write=True) as written:
                written.writer.add([Document("new", "水稻育种", {"title": "题"})], vectors_of)
                written.writer.remove(["d00"] if folder == folders[0] else [])
        with Collection.open(folders[1], write=True) as written:
            written.writer.remove(["d00"])
        changed = collection.is_current, collection.refresh()
        assert (unchanged, changed, len(before)) == ((True, False), (False, True), 57)
        with SearchEngine.open(folders[0], settings) as one:
            for query in ("水稻", "育种", "题"):
                assert [(r.id, r.score) for r in shards.search(query, 60)] == [
                    (r.id, pytest.approx(r.score, abs=1e-9)) for r in one.search(query, 60)
                ]
        with pytest.raises(UsageError, match="open for reading"):
            shards.remove(["new"])


def test_folders_that_are_no_shards_of_one_collection_are_refused(folders: list[Path], tmp_path: Path) -> None:
    with Collection.create(tmp_path / "other", IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add([Document("x", "水稻")])
    shutil.copytree(folders[1], tmp_path / "copy")
    for named, match in (
        ([folders[1], tmp_path / "other"], "other: was built otherwise than .*shard0"),
        ([folders[1], tmp_path / "copy"], "are copies of one index"),
        (folders[:2], "5 documents are in two of these"),
        ([], "at least one"),
    ):
        with pytest.raises(UsageError, match=match):
            open_shards(named)
    with pytest.raises(UsageError, match="write to one folder"):
        SearchEngine.open(folders[1:], write=True)
    shutil.rmtree(next(path for path in folders[2].glob("segment-*") if path.is_dir()))
    with pytest.raises(CheckpointError, match="is missing"):
        open_shards(folders[1:])
