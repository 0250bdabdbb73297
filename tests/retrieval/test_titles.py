"""A document whose whole title is the query comes first, however documents are searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional, cast

import numpy as np
import pytest

from paddle_ranker import Index
from paddle_ranker.array_types import Vectors
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shards import open_shards
from paddle_ranker.retrieval.snapshots.searchable import Searchable
from paddle_ranker.retrieval.stages.fusion import TITLE, TITLE_MATCH, Fusion
from paddle_ranker.retrieval.stages.search import Search, SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stages.weight_learning import JudgedList, learn_title
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.listing import Listing
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.scoring.ranker import Ranker
from tests.elsewhere import HAS_ELSEWHERE, elsewhere
from tests.serving.test_search import Site

pytestmark = pytest.mark.unit
SCHEMA = Schema((Field("title", "text", 3.0, title=True), Field("kind", "keyword")))
INFO = IndexInfo(WordsInfo("standard"), VectorsInfo("exact", 2), schema=SCHEMA)
FAMILY = 40
TITLES = ["Git", "git", "Web Server", "水稻病害", "C++", "GIT!"]


def documents() -> list[Document]:
    """Return a family of each title, whose texts repeat it in few words, and a long text of each title."""
    found = [
        Document(f"{place}-{n:02}", f"{title} {title} {title}", {"title": f"{title} {title} x{n}", "kind": "family"})
        for place, title in enumerate(TITLES)
        for n in range(FAMILY)
    ]
    long = "a long text that says other things " * 30
    found += [
        Document("short", "nginx nginx serves pages of the web", {"title": "nginx light", "kind": "pair"}),
        Document("long", "nginx nginx nginx nginx", {"title": "nginx nginx module of others for lua", "kind": "pair"}),
    ]
    return [*found, *(Document(f"whole{n}", long, {"title": title, "kind": "whole"}) for n, title in enumerate(TITLES))]


def vectors_of(texts: Sequence[str]) -> Vectors:
    """Return vectors by which long texts are the farthest from any query."""
    return np.array([[0.0, 1.0] if len(text) > 500 else [1.0, 0.0] for text in texts], np.float32).reshape(-1, 2)


class FarRanker:
    """A ranker to which a long text is the worst."""

    pair_encoder, row_encoder, info = None, None, SimpleNamespace(calibration=None)

    def scored(self, queries: Sequence[str], titles: Sequence[str]) -> Any:
        return np.array([-5.0 if len(title) > 500 else 5.0 for title in titles]), {}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write two shards, the second of which has the whole titles, and a folder of both."""
    root, every = tmp_path_factory.mktemp("titles"), documents()
    shares = {"one": every[:100], "two": every[100:], "both": every}
    for name, share in shares.items():
        with Collection.create(root / name, INFO) as collection:
            for start in range(0, len(share), 60):
                collection.writer.add(share[start : start + 60], vectors_of, merge=False)
    return [root / name for name in shares]


@pytest.fixture(params=["folder", "shards", *(["elsewhere"] if HAS_ELSEWHERE else [])])
def collection(request: pytest.FixtureRequest, folders: list[Path]) -> Searchable:
    if request.param == "folder":
        return Collection.open(folders[2])
    if request.param == "shards":
        return open_shards(folders[:2])
    (shards,) = elsewhere(folders[:2])
    return shards


@pytest.mark.parametrize("by", [("words",), ("words", "vectors")])
@pytest.mark.parametrize("method", ["rrf", "weighted"])
@pytest.mark.parametrize("ranker", [None, FarRanker()])
def test_whole_titles_come_first(
    collection: Searchable, by: tuple[str, ...], method: str, ranker: Optional[FarRanker]
) -> None:
    def searcher(title: float) -> SearchEngine[Any]:
        # Fewer documents than the family has are found by each searcher.
        settings = SearchSettings(by, Fusion(method, title=title), depth=10, rank_top=20)
        return SearchEngine(collection, settings, vectors_of, cast(Optional[Ranker], ranker))

    whole = {
        "Git": {0, 1, 5},
        "ｇＩＴ": {0, 1, 5},
        "web  server.": {2},
        "水稻病害": {3},
        "《水稻病害》": {3},
        "c++": {4},
    }
    for query, places in whole.items():
        found = [one.id for one in searcher(1.0).search(query, 8)]
        assert {*found[: len(places)]} == {f"whole{place}" for place in places}, query
        assert not any(id.startswith("whole") for id in found[len(places) :])
        assert not any(one.id.startswith("whole") for one in searcher(0.0).search(query, 8))
    for query in ("git x3", "server web", "c", "水稻"):
        assert not any(one.id.startswith("whole") for one in searcher(1.0).search(query, 8))
    filtered = searcher(1.0).search("git", 8, Filter.parse(["kind=family"]))
    assert len(filtered) == 8 and not any(one.id.startswith("whole") for one in filtered)


def test_all_ways_agree(folders: list[Path]) -> None:
    ways: list[Searchable] = [Collection.open(folders[2]), open_shards(folders[:2]), *elsewhere(folders[:2])]

    def said(collection: Searchable, query: str) -> tuple[Any, ...]:
        search = Search(collection.snapshot(), query, ("words",), SearchSettings(depth=7), Listing(7))
        search.fuse({"words": search.begin_lookup("words")()[0]})
        search.finish()
        candidates = search.fused.candidates
        return candidates.ids, candidates.scores.tolist(), candidates.titles.tolist(), search.results()

    for query in (*TITLES, "x7 git", "x7 git web"):
        first, *others = [said(one, query) for one in ways]
        assert all(one == first for one in others)
        assert first[2].count(1.0) == {"git": 3, "GIT!": 3, "Git": 3, "x7 git": 0, "x7 git web": 0}.get(query, 1)
        assert ({*first[2]} == {0.0}) is (query == "x7 git web")


def test_titles_follow_the_documents(tmp_path: Path) -> None:
    schema = Schema()  # texts are titles
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None, schema=schema)) as collection:
        collection.writer.add(Document(f"d{n}", f"vim vim vim {n}") for n in range(30))
        engine = SearchEngine(collection, SearchSettings())
        for n in range(12):  # also after segments are merged
            collection.writer.add([Document("whole", "An editor, vim" if n % 3 == 1 else "Vim")])
            assert (engine.search("vim")[0].id == "whole") is (n % 3 != 1)
        collection.writer.merge(None)
        assert engine.search("vim")[0].id == "whole"
        collection.writer.remove(["whole"])
        assert engine.search("vim")[0].id != "whole"


@pytest.mark.parametrize("by", [("words",), ("words", "vectors")])
@pytest.mark.parametrize("method", ["rrf", "weighted"])
def test_short_titles_with_all_words_gain(collection: Searchable, by: tuple[str, ...], method: str) -> None:
    def first(query: str, weight: float) -> list[str]:
        settings = SearchSettings(by, Fusion(method, title=weight), depth=FAMILY)
        return [
            one.id
            for one in SearchEngine(collection, settings, vectors_of).search(query, 2, Filter.parse(["kind=pair"]))
        ]

    # The long title has the query twice, and so has the better score by its words.
    assert first("nginx", 1.0) == ["short", "long"]
    assert first("nginx", 0.0) == ["long", "short"]
    assert first("nginx light", 1.0)[0] == "short"


def test_a_title_is_explained(folders: list[Path]) -> None:
    site = Site(index=folders[2])
    try:
        first, second = site.search("git", top_k=2, explain=True, by=["words"])["hits"]
        signals, words = first["signals"], first["stages"]["words"]["score"]
        by_terms = sum(term["added"] for term in signals["words"]["terms"])
        assert signals[TITLE_MATCH] == {"value": 1.0, "added": pytest.approx(words - by_terms), "to": "words"}
        assert signals[TITLE] == {
            "value": 1.0,
            "added": pytest.approx(first["stages"]["fused"]["score"] - words),
            "to": "fused",
        }
        assert second["id"] in ("whole1", "whole5") and first["id"] == "whole0"
        third = site.search("git", top_k=4, explain=True, by=["words"])["hits"][3]
        assert TITLE not in third["signals"] and third["signals"][TITLE_MATCH]["added"] > 0
        assert third["signals"][TITLE_MATCH]["value"] == 0.2  # half of 2 of 5 tokens: Git Git x0
    finally:
        site.close()


@pytest.mark.parametrize(("is_right", "weight"), [(True, 1.0), (False, 0.5)])
def test_the_weight_of_titles_is_learned(is_right: bool, weight: float) -> None:
    lists = []
    for query in range(40):
        labels = np.zeros(20)
        labels[0 if is_right else 1 + query % 3] = 1.0
        titled = np.arange(20) == 0
        scores = np.linspace(1.0, 0.0, 20)[(np.arange(20) - 1) % 20]  # the titled one is the last
        lists.append(JudgedList(f"q{query}", [f"d{n}" for n in range(20)], scores[:, None], labels, titled))
    given = {one.query: dict(zip(one.ids, one.inputs[:, 0].tolist())) for one in lists}
    learned, held_out = learn_title(lists, given)
    assert learned == weight
    assert all(own["d0"] == given[query]["d0"] + weight for query, own in held_out.items())  # behind the others at 0.5
    plain = [JudgedList(one.query, one.ids, one.inputs, one.labels) for one in lists]
    assert learn_title(plain, given) == (1.0, given)


@pytest.mark.parametrize("name", ["photo", "gnome-photo", "gnome-photo-tests"])
@pytest.mark.parametrize("length", [10, 40, 160])
@pytest.mark.parametrize("mentions", [0, 3])
def test_one_word_in_a_name_outweighs_no_two_words_in_a_text(
    tmp_path: Path, name: str, length: int, mentions: int
) -> None:
    """By the weights that a build infers, of texts of one length, also if the text repeats the name's word."""
    others = [f"w{n}" for n in range(length)]
    rows = [
        {"id": "name", "name": name, "text": " ".join(["photo"] * mentions + others[mentions:])},
        {"id": "text", "name": "shotwell", "text": " ".join(["photo editor", *others[2:]])},
        *({"id": f"d{n}", "name": f"name{n}", "text": " ".join(others)} for n in range(20)),
        {"id": "editor", "name": "vim", "text": " ".join(["editor", *others])},
    ]
    with Index.build(rows, tmp_path / "index") as built:
        found = [hit.id for hit in built.search("photo editor")]
        assert found[0] == "text" and "name" in found
