"""Shards elsewhere against the same folders in one process (`Shards`), by equality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.retrieval.collection import Collection
from paddle_ranker.retrieval.exact import Vectors
from paddle_ranker.retrieval.fusion import Fusion
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.retrieval.manifest import IndexInfo, VectorsInfo, WordsInfo
from paddle_ranker.retrieval.remote import Call, RemoteCollection, ShardService
from paddle_ranker.retrieval.schema import Field, Schema
from paddle_ranker.retrieval.search import Search, SearchSettings, filter_of
from paddle_ranker.retrieval.searchable import Searchable
from paddle_ranker.retrieval.shards import Shards

pytestmark = pytest.mark.unit
SIZE, COUNT = 8, 90
SCHEMA = Schema(
    (
        Field("title", "text", 3.0, title=True, analyser="accents"),
        Field("text", "text", analyser="jieba"),
        Field("kind", "keyword"),
        Field("year", "number"),
    ),
    passage_tokens=20,
)
INFO = IndexInfo(WordsInfo("standard"), VectorsInfo("exact", SIZE), schema=SCHEMA)
WORDS = ["kubernetes", "deployment", "rolling", "updates", "docker", "水稻", "病害", "诊断", "防治", "老年人", "护理"]


def vectors_of(texts: Sequence[str]) -> Vectors:
    rows = [np.random.default_rng([ord(char) for char in text]).normal(size=SIZE) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32).reshape(-1, SIZE)


def document(number: int) -> Document:
    draw = np.random.default_rng(number % 31)  # the texts, and so the scores, of some are equal
    text = "。".join(" ".join(draw.choice(WORDS, 6)) for _ in range(1 + number % 4))
    fields: dict[str, object] = {
        "title": " ".join(draw.choice(WORDS, 3)),
        "kind": "abc"[number % 3],
        "year": 1990 + number % 23,
    }
    return Document(f"d{number * 7 % COUNT:02}", text, {**fields, **({"rare": [number, "x"]} if number > 80 else {})})


def made(folder: Path, documents: Sequence[Document]) -> Path:
    with Collection.create(folder, INFO) as collection:
        for start in range(0, len(documents), 17):
            collection.add(documents[start : start + 17], vectors_of, merge=False)
        collection.remove(["d07", "d21", "d59"])
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write four shards; one is empty, and some documents are removed."""
    root, documents = tmp_path_factory.mktemp("shards"), [document(number) for number in range(COUNT)]
    shares: Sequence[Sequence[Document]] = documents[:11], documents[11:60], [], documents[60:]
    return [made(root / f"shard{number}", share) for number, share in enumerate(shares)]


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def through(pool: Executor, service: ShardService) -> Call:
    return lambda name, *args: pool.submit(service.call, name, *args)


def remote(pool: Executor, folders: Sequence[Path], **options: Any) -> RemoteCollection:
    return RemoteCollection([through(pool, ShardService(folder)) for folder in folders], **options)


class StubRanker:
    reader = None

    def score(self, queries: Sequence[str], titles: Sequence[str], *, logits: bool) -> Any:
        return np.array([float(len(set(q) & set(t))) for q, t in zip(queries, titles)])


def said(search: Search) -> dict[str, Any]:
    """Return all that a finished search says."""
    collection, ids = search.collection, [one.id for one in search.results()]
    has_words = "words" in search.searchers
    return {
        "results": search.results(),
        "total": search.total(),
        "facets": search.facets(["kind", "year", "rare"]) if has_words else None,
        "terms": collection.explain_words(search.words, ids, search.fusion.fields),
        "weights": collection.word_weights(search.words),
        "given": collection.words_given(search.words),
        "words": search.words,
        "better": collection.better_spelled(search.words),
        "unfound": search.unfound,
        "position": search.position(),
        "similar": search.similar,
    }


def searched(collection: Searchable, query: str, settings: SearchSettings, **given: Any) -> Search:
    searchers = settings.by or collection.searchers
    search = Search(collection.snapshot(), query, searchers, settings, **given)
    vectors = vectors_of([search.model_text])
    hits = {name: search.lookup(name, vectors if name == "vectors" else None)[0] for name in searchers}
    search.fuse(hits)
    if settings.rank_top:
        scores = StubRanker().score([query] * 99, search.to_rank(), logits=True)
        search.rank(scores, scores)
    search.finish()
    return search


CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("水稻 病害 kubernetes", {}, {}),
    ("rolling updates", {"by": ("words",)}, {"top_k": 100}),
    ("rolling updates", {"by": ("vectors",)}, {"top_k": 100}),
    (
        "deployment 护理",
        {"fusion": Fusion("weighted", {"words": 2.0}, fields={"title": 9.0})},
        {"where": "kind in a,b"},
    ),
    ("kuberentes deploymnt", {}, {"top_k": 3}),
    ("水到病害", {}, {}),
    ("dock", {"prefix": True}, {}),
    ('"rolling updates" docker -kubernetes', {}, {}),
    ('"docker docker docker docker" "老年人" "no such" updates', {}, {"where": "year>=2000 and rare=x"}),
    ("老年人 docker", {"literal": True}, {"sort": ("-year", "kind")}),
    ("老年人 docker", {}, {"group_by": "kind", "group_size": 2}),
    ("老年人 docker", {}, {"group_by": "content"}),
    ("水稻", {}, {"offset": 5, "top_k": 5}),
    ("nothing qzxwvkj", {"by": ("words",)}, {}),
]


@pytest.mark.parametrize(("query", "settings", "given"), CASES)
@pytest.mark.parametrize("rank_top", [0, 7])
def test_shards_elsewhere_answer_as_shards_here(
    folders: list[Path], pool: Executor, query: str, settings: dict[str, Any], given: dict[str, Any], rank_top: int
) -> None:
    here, elsewhere = Shards(folders), remote(pool, folders)
    how = SearchSettings(depth=20, rank_top=rank_top, **settings)
    given = {**given, "where": filter_of(given.get("where"))}
    whole, parts = (searched(one, query, how, **given) for one in (here, elsewhere))
    assert said(parts) == said(whole)
    page = whole.position()
    if page is not None and "offset" not in given:
        assert said(searched(elsewhere, query, how, after=page, **given)) == said(
            searched(here, query, how, after=page, **given)
        )
