"""Shards elsewhere against the same folders in one process (`open_shards`), by equality."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.managers import BaseManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import DataError, ParameterError, UsageError
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shards import open_shards
from paddle_ranker.retrieval.snapshots.searchable import Searchable, ShardError
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stages.fusion import Fusion
from paddle_ranker.retrieval.stages.search import Search, SearchSettings, filter_of
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document, LikeError
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.listing import Listing
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery
from paddle_ranker.scale.remote import RemoteCollection
from paddle_ranker.scale.remote_calls import Call
from paddle_ranker.scale.shard_service import ShardService
from paddle_ranker.scoring.ranker import Ranker

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
    text = "。".join(" ".join(draw.choice(WORDS, 6)) for _ in range(1 + number % 4)) + " dokcer" * (number == 70)
    text += " " + {40: "cœur", 41: "l'œuvre coeur", 42: "naïve", 43: "naive ひらがな", 44: "ヒラガナ"}.get(number, "")
    fields: dict[str, object] = {
        "title": " ".join(draw.choice(WORDS, 3)),
        "kind": "abc"[number % 3],
        "year": 1990 + number % 23,
    }
    return Document(f"d{number * 7 % COUNT:02}", text, {**fields, **({"rare": [number, "x"]} if number > 80 else {})})


def made(folder: Path, documents: Sequence[Document]) -> Path:
    with Collection.create(folder, INFO) as collection:
        for start in range(0, len(documents), 17):
            collection.writer.add(documents[start : start + 17], vectors_of, merge=False)
        collection.writer.remove(["d07", "d21", "d59"])
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
    pair_encoder, row_encoder, info = None, None, SimpleNamespace(calibration=None)

    def scored(self, queries: Sequence[str], titles: Sequence[str]) -> Any:
        return np.array([float(len(set(q) & set(t))) for q, t in zip(queries, titles)]), {}


def said(search: Search) -> dict[str, Any]:
    """Return all that a finished search says."""
    collection, ids = search.collection, [one.id for one in search.results()]
    has_words, counted = "words" in search.query.searchers, {"kind", "year", "rare"}.intersection(collection.fields)
    return {
        "results": search.results(),
        "total": search.total(),
        "facets": search.facets(sorted(counted)) if has_words else None,
        "terms": collection.explain_words(search.query.words, ids, search.fused.fusion.fields),
        "weights": collection.word_weights(search.query.words),
        "given": collection.words_given(search.query.words),
        "words": search.query.words,
        "better": collection.did_you_mean(search.query.words),
        "unfound": search.query.unfound,
        "weight": collection.query_weight(search.query.words),
        "position": search.page.position(),
        "similar": search.page.similar,
    }


def searched(collection: Searchable, query: str, settings: SearchSettings, **given: Any) -> Search:
    searchers = settings.by or collection.info.searchers
    search = Search(collection.snapshot(), query, searchers, settings, Listing(**given))
    vectors = vectors_of([search.query.model_text])
    if search.sort:
        search.find_sorted()
    else:
        search.fuse(
            {name: search.begin_lookup(name, vectors if name == "vectors" else None)()[0] for name in searchers}
        )
    if search.wants_ranking:
        scores, _ = StubRanker().scored([query] * 99, search.ranking.to_rank(search.settings.rank_top))
        search.ranking.rank(scores, scores)
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
    ("水稻 护里", {}, {}),
    ("dokcer", {}, {}),
    ("dock", {"prefix": True}, {}),
    *(
        (query, {"prefix": prefix}, {})
        for query in ("coeur oeuvre", "naive", "naïve ヒラガナ")
        for prefix in (False, True)
    ),
    ("coe", {"prefix": True}, {}),
    ('"docker" 水稻 病害 -kubernetes', {}, {}),
    ('"docker docker docker docker" "老年人" "no such" updates', {}, {"where": "year>=2000 and rare=x"}),
    ("老年人 docker", {"literal": True}, {"sort": ("-year", "kind")}),
    ("老年人 docker", {}, {"group_by": "kind", "group_size": 2}),
    ("老年人 docker", {}, {"group_by": "content"}),
    ("水稻", {}, {"offset": 5, "top_k": 5}),
    ("nothing qzxwvkj", {"by": ("words",)}, {}),
]


@pytest.mark.parametrize(("query", "how", "asked"), CASES)
@pytest.mark.parametrize("rank_top", [0, 7])
def test_shards_elsewhere_answer_as_shards_here(
    folders: list[Path], pool: Executor, query: str, how: dict[str, Any], asked: dict[str, Any], rank_top: int
) -> None:
    here, elsewhere = open_shards(folders), remote(pool, folders)
    options, asked = (
        SearchSettings(depth=20, rank_top=rank_top, **how),
        {**asked, "where": filter_of(asked.get("where"))},
    )
    whole, parts = (searched(one, query, options, **asked) for one in (here, elsewhere))
    assert said(parts) == said(whole)
    page = whole.page.position()
    if page is not None and "offset" not in asked:
        next_whole, next_parts = (searched(one, query, options, after=page, **asked) for one in (here, elsewhere))
        assert said(next_parts) == said(next_whole)


@pytest.mark.parametrize("query", ["", "水稻 docker"])
def test_documents_like_one_in_another_shard(folders: list[Path], pool: Executor, query: str) -> None:
    for id in ("d14", "d49"):
        collections: list[Searchable] = [open_shards(folders), remote(pool, folders)]
        here, elsewhere = (searcher_of(one).run([query], like=id)[0] for one in collections)
        assert elsewhere.results() == here.results() and here.results()[0].id != id
        assert {name for one in here.results() for name in one.searchers} == {"vectors", *(["words"] if query else [])}
    with pytest.raises(UsageError, match="there is no document 'd07'"):
        searcher_of(remote(pool, folders)).run([query], like="d07")


class Failing:
    """Transport that fails once, at its n-th call (-1: never); `names`: its calls, `ids`: of documents asked for."""

    def __init__(self, call: Call, at: int = -1, hangs: bool = False):
        self._call, self._at, self._hangs, self.names, self.ids = call, at, hangs, list[str](), list[str]()

    def __call__(self, name: str, *args: Any) -> Future[Any]:
        self.names.append(name)
        self.ids += args[-1] if name == "documents_of" else []
        if len(self.names) - 1 != self._at:
            return self._call(name, *args)
        if self._hangs:
            return Future()
        raise ConnectionError("the machine is gone")


SETTINGS = SearchSettings(depth=20, rank_top=7)
QUERY = '"docker" 水稻 病害 -kubernetes'


def searcher_of(collection: Searchable) -> SearchEngine[Any]:
    return SearchEngine(collection, SETTINGS, vectors_of, cast(Ranker, StubRanker()))


@pytest.mark.parametrize(("at", "hangs"), [*((at, False) for at in range(1, 6)), (2, True)])
def test_a_shard_that_fails_is_an_error_or_left_out(folders: list[Path], pool: Executor, at: int, hangs: bool) -> None:
    calls: list[Call] = [through(pool, ShardService(folder)) for folder in folders]

    def opened(is_partial: bool) -> SearchEngine[Any]:
        failing = Failing(calls[1], at, hangs)
        return searcher_of(
            RemoteCollection([calls[0], failing, *calls[2:]], partial=is_partial, timeout=1.5 if hangs else 30)
        )

    with pytest.raises(ShardError, match=r"shard 2 of 4 failed: \w+Error: (the machine is gone|no answer)"):
        opened(False).run([QUERY])
    one, rest, whole = opened(True), open_shards([folders[0], *folders[2:]]), open_shards(folders)
    for expected, failed in ((rest, 1), (whole, 0)):
        (search,) = one.run([QUERY])
        assert search.results() == searcher_of(expected).run([QUERY])[0].results()
        assert search.shards == {"total": 4, "failed": failed}
        if hangs and failed:  # for as long again, no search waits for it
            began = time.monotonic()
            assert one.run([QUERY])[0].shards == {"total": 4, "failed": 1}
            assert time.monotonic() - began < 1.5
            time.sleep(1.5)
    twice: list[Call] = [calls[0], Failing(calls[1], 3), calls[2], Failing(calls[3], 6)]
    (search,) = searcher_of(RemoteCollection(twice, partial=True)).run([QUERY])
    assert search.results() == searcher_of(open_shards([folders[0], folders[2]])).run([QUERY])[0].results()
    assert search.shards == {"total": 4, "failed": 2}
    broken: list[Call] = [Failing(call, 1) for call in calls]
    with pytest.raises(ShardError, match="and 3 more"):
        searcher_of(RemoteCollection(broken, partial=True)).run([QUERY])


def test_a_search_takes_few_rounds(folders: list[Path], pool: Executor) -> None:
    calls = [Failing(through(pool, ShardService(folder))) for folder in folders]
    searcher = searcher_of(RemoteCollection(calls))
    for query, names in (
        ("水稻 docker", ["counts", "alike", "search", "search", "documents_of"]),  # both searches at once
        (QUERY, ["counts", "phrases", "search", "search", "documents_of"]),
    ):
        for call in calls:
            call.names.clear()
            call.ids.clear()
        (found,) = searcher.run([query], 7, where="year>=1990")
        assert sorted(id for call in calls for id in call.ids) == sorted(one.id for one in found.results())
        assert [name for name in calls[1].names if name != "kinds"] == names  # the latter once for each version


def test_what_is_asked_wrongly_is_said_as_by_a_folder(
    folders: list[Path], pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = remote(pool, folders)
    searcher = searcher_of(elsewhere)
    for where, match in (("size=3", "no field of these documents"), ("year=many", "cannot compare")):
        with pytest.raises(ParameterError, match=f"^where: .*{match}"):
            searcher.run(["水稻"], where=where)
    with monkeypatch.context() as patched, pytest.raises(LikeError, match=r"^like: it is damaged$"):
        patched.setattr(LocalSnapshot, "like_vectors", MagicMock(side_effect=LikeError("it is damaged")))
        searcher.run(["水稻"], like="d00")
    with pytest.raises(UsageError, match="no tower"):
        elsewhere.snapshot().tower("vectors").query_vectors(["水稻"])
    with pytest.raises(UsageError, match="no drop"):
        elsewhere.snapshot()._ask("drop")
    with pytest.raises(UsageError, match="at least one"):
        RemoteCollection([])
    assert elsewhere.snapshot().missing(["d00", "none", "d07"]) == ["none", "d07"]
    here = open_shards(folders)
    assert (
        elsewhere.snapshot().matching(None).count(Filter.parse(["rare=x"]))
        == here.snapshot().matching(None).count(Filter.parse(["rare=x"]))
        > 0
    )
    found, wanted = elsewhere.snapshot().field_values(1 << 14), here.snapshot().field_values(1 << 14)
    assert {name: one._replace(values=sorted(one.values)) for name, one in found.items()} == {
        name: one._replace(values=sorted(one.values)) for name, one in wanted.items()
    }
    for field in ("year", "kind"):
        one, other = elsewhere.snapshot().scale(field).scale, here.snapshot().scale(field).scale
        assert (one is None) == (other is None) == (field == "kind")
        assert one is None or other is None or one.ends == other.ends


def test_shards_without_words_are_searched_by_vectors(tmp_path: Path, pool: Executor) -> None:
    folders, documents = [tmp_path / "0", tmp_path / "1"], [document(number) for number in range(40)]
    for folder, share in zip(folders, (documents[:15], documents[15:])):
        with Collection.create(folder, replace(INFO, words=None, schema=Schema(passage_tokens=20))) as collection:
            collection.writer.add(share, vectors_of)
    here, elsewhere = (
        SearchEngine(open_shards(folders), SETTINGS, vectors_of),
        SearchEngine(remote(pool, folders), SETTINGS, vectors_of),
    )
    for group_by in ("kind", "content", None):
        assert elsewhere.search("水稻", 9, "year>1995", group_by=group_by) == here.search(
            "水稻", 9, "year>1995", None, group_by
        )


def test_shards_of_other_kinds_are_refused(folders: list[Path], pool: Executor, tmp_path: Path) -> None:
    with Collection.create(tmp_path / "other", IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add([Document("x", "水稻")])
    Collection.create(tmp_path / "random", IndexInfo(WordsInfo("bigram"), None, others=("random",))).close()
    with pytest.raises(UsageError, match="shard 2: was built otherwise than shard 1"):
        remote(pool, [folders[0], tmp_path / "other"])
    with pytest.raises(UsageError, match="needs all documents in one folder"):
        ShardService(tmp_path / "random")


def words_only(folder: Path, documents: Sequence[Document]) -> Path:
    with Collection.create(folder, replace(INFO, vectors=None, schema=replace(SCHEMA, passage_tokens=0))) as collection:
        collection.writer.add(documents)
    return folder


def test_documents_are_added_where_they_are_or_to_the_smallest_shard(tmp_path: Path, pool: Executor) -> None:
    documents = [document(number) for number in range(COUNT)]
    folders = [words_only(tmp_path / "0", documents[:20]), words_only(tmp_path / "1", documents[20:30])]
    elsewhere = remote(pool, folders)
    before = elsewhere.snapshot()
    with SearchEngine(elsewhere, SearchSettings()) as engine:
        assert before.rewrite_query(ParsedQuery("老年人")) and len(before) == 30
        added = engine.add([replace(documents[3], text="老年人"), documents[4], *documents[40:60]])
        assert (added.new, added.replaced, added.unchanged) == (20, 1, 1)
        sizes = [len(Collection.open(folder)) for folder in folders]
        assert sizes == [25, 25] and len(engine.collection) == 50 and len(before) == 30
        assert Collection.open(folders[0]).snapshot().document(documents[3].id).text == "老年人"
        assert engine.remove([documents[3].id, documents[41].id, "none"]) == 2
        with Collection.open(folders[1], write=True) as other:
            other.writer.add([Document("new", "老年人 unheard", {"later": 1})])
        assert engine.search("unheard", group_by="later", where="later=1")[0].id == "new"
        (found,) = engine.run(["老年人 docker"], 100)
        assert found.results() == SearchEngine(open_shards(folders), SearchSettings()).search("老年人 docker", 100)
        assert found.total() == len(found.results()) < len(before) + 20
        with pytest.raises(DataError, match="its text is empty"):
            engine.add([Document("empty", "")])


def test_a_search_sees_one_generation_of_each_shard(tmp_path: Path, pool: Executor) -> None:
    documents = [document(number) for number in range(COUNT)]
    folders = [words_only(tmp_path / "0", documents[:20]), words_only(tmp_path / "1", documents[20:40])]
    searcher, errors = SearchEngine(remote(pool, folders), SearchSettings(depth=200)), list[Exception]()

    def change() -> None:
        try:
            for number in range(12):
                searcher.add(documents[40 + 4 * number :][:4])
                searcher.remove([documents[number].id])
        except Exception as error:
            errors.append(error)

    changing = threading.Thread(target=change)
    changing.start()
    sizes = set[int]()
    while changing.is_alive():
        (found,) = searcher.run(["老年人 docker 水稻 rolling"], 200)
        assert found.total() == len(found.results()) == len(found.page.order)
        sizes.add(len(found.page.order))
    changing.join()
    assert not errors and len(sizes) > 1


def test_a_search_begins_anew_when_its_generation_is_gone(
    tmp_path: Path, pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddle_ranker.scale.shard_service._KEPT_SECONDS", -1.0)
    service, is_new = ShardService(words_only(tmp_path / "0", [document(1)])), [True]

    def call(name: str, *args: Any) -> Future[Any]:
        if name == "search" and is_new and is_new.pop():
            service.call("add", None, None, [Document("new", "老年人")])
        return pool.submit(service.call, name, *args)

    assert "new" in [one.id for one in SearchEngine(RemoteCollection([call]), SearchSettings()).search("老年人")]


def test_shards_are_processes_and_one_is_killed(folders: list[Path], pool: Executor) -> None:
    managers = [BaseManager(ctx=multiprocessing.get_context("spawn")) for _ in folders[:2]]
    BaseManager.register("ShardService", ShardService)
    try:
        for manager in managers:
            manager.start()
        calls: list[Call] = [
            through(
                pool,
                manager.ShardService(str(folder)),  # type: ignore[attr-defined]
            )
            for manager, folder in zip(managers, folders)
        ]
        one = searcher_of(RemoteCollection(calls, partial=True))
        for expected, failed in ((folders[:2], 0), (folders[:1], 1)):
            (search,) = one.run([QUERY])
            assert search.results() == searcher_of(open_shards(expected)).run([QUERY])[0].results()
            assert search.shards == {"total": 2, "failed": failed}
            managers[1]._process.kill()  # type: ignore[attr-defined]
            managers[1]._process.join()  # type: ignore[attr-defined]
    finally:
        for manager in managers:
            manager.shutdown()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5), min_size=1, max_size=24),
    cuts=st.lists(st.integers(0, 24), max_size=4),
    removed=st.sets(st.integers(0, 23), max_size=5),
    query=st.lists(st.sampled_from([*WORDS, "dokcer", "水到"]), min_size=1, max_size=4),
)
def test_any_corpus_in_any_shards(
    pool: Executor, texts: list[list[str]], cuts: list[int], removed: set[int], query: list[str]
) -> None:
    documents = [
        Document(str(number), " ".join(own), {"title": own[0], "kind": own[-1], "year": len(own)})
        for number, own in enumerate(texts)
    ]
    ends = sorted(min(cut, len(documents)) for cut in cuts)
    with tempfile.TemporaryDirectory() as root:
        folders = []
        for number, (start, end) in enumerate(zip([0, *ends], [*ends, len(documents)])):
            folders.append(words_only(Path(root) / str(number), documents[start:end]))
            with Collection.open(folders[-1], write=True) as collection:
                collection.writer.remove(map(str, removed))
        one = words_only(Path(root) / "one", documents)
        with Collection.open(one, write=True) as collection:
            collection.writer.remove(map(str, removed))
        each: list[Searchable] = [open_shards(folders), Collection.open(one), remote(pool, folders)]
        here, whole, elsewhere = (
            said(searched(one, " ".join(query), SearchSettings(depth=9), where=None)) for one in each
        )
        assert elsewhere == here == whole
