"""Pages of a list, and of a search, while documents are added, replaced, removed, merged and recut."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.lexical.postings import text_hashes
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shard_builds import recut
from paddle_ranker.retrieval.index.shards import open_index
from paddle_ranker.retrieval.stages.search import Search, SearchSettings
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.values.listing import Listing, Position, SortedPosition, unpack_position
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from tests.checkout import ONCE

pytestmark = pytest.mark.unit
COUNT, SIZE, LIMIT = 60, 4, 7
AnyPosition = Union[Position, SortedPosition]
WAYS: dict[str, dict[str, Any]] = {
    "scores": {},
    "words": {"searchers": ["words"]},
    "sorted and grouped": {"sort": ["-year"], "group_by": "year", "group_size": 2},
    "grouped": {"group_by": "year", "group_size": 2},
    "alike": {"group_by": "content"},
    "ranked": {"rank_top": 9},
}


def vectors_of(texts: Sequence[str]) -> Vectors:
    rows = [np.random.default_rng([ord(char) for char in text]).normal(size=SIZE) for text in texts]
    return np.array(rows, np.float32).reshape(-1, SIZE)


class Changing:
    """An index that changes at random; `stay` has the ids of the documents that were there all the time."""

    def __init__(self, folder: Path, seed: int):
        self.draw, self._folder, self._number = random.Random(seed), folder, 0
        info = IndexInfo(WordsInfo("bigram"), VectorsInfo("exact", SIZE))
        self.index = Collection.create(folder / "0", info)
        self._add([f"d{n}" for n in range(COUNT)])
        self.stay = self.ids()

    def ids(self) -> set[str]:
        return {one.id for one in self.index.snapshot().documents()}

    def _add(self, ids: Sequence[str]) -> None:
        words = ["水稻", "病害", "rice", "field", "water", "诊断"]
        for id in ids:
            text = "水稻 " + " ".join(self.draw.choices(words, k=self.draw.randint(1, 40)))
            self.index.writer.add([Document(id, text, {"year": self.draw.randint(0, 20)})], vectors_of, merge=False)

    def change(self, page: Sequence[str]) -> None:
        """Change something: what a page has shown, most often."""
        there = sorted(self.ids())
        some = self.draw.sample(there, min(len(there), self.draw.randint(1, 9)))
        what = self.draw.choice(["remove", "remove page", "replace", "replace page", "add", "merge", "recut", "open"])
        if what.startswith("remove"):
            self.index.writer.remove(some if what == "remove" else page)
        elif what.startswith("replace"):
            self._add(some if what == "replace" else [id for id in page if id in there])
        elif what == "add":
            self._add([f"n{self.draw.random()}" for _ in range(self.draw.randint(1, 5))])
        elif what == "merge":
            self.index.writer.merge(None)
        elif what == "recut":
            self._number += 1
            recut(self.index, self._folder / f"{self._number}", self.draw.randint(2, 4))
            self.index.close()
            self.index = open_index(self._folder / f"{self._number}", write=True)
        else:
            self.index.close()
            self.index = open_index(self.index.folder, write=True)
        self.stay &= self.ids()


@ONCE
def test_a_listing_shows_each_document_that_stays_once(tmp_path: Path) -> None:
    for seed in range(3):
        changing, shown, after = Changing(tmp_path / f"{seed}", seed), list[str](), None
        while page := [one.id for one in changing.index.snapshot().after(after, LIMIT)]:
            shown, after = [*shown, *page], page[-1]
            if len(page) < LIMIT:
                break
            changing.change(page)
        assert not [id for id, times in Counter(shown).items() if times > 1], seed
        assert changing.stay <= {*shown}, seed
        changing.index.close()


def test_equal_hashes_are_listed_by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(texts: Any) -> Any:
        return text_hashes(texts) % np.uint64(3)

    monkeypatch.setattr("paddle_ranker.retrieval.stored.segments.text_hashes", few)
    monkeypatch.setattr("paddle_ranker.retrieval.stored.segment_writing.text_hashes", few)
    monkeypatch.setattr("paddle_ranker.retrieval.snapshots.snapshot.text_hashes", few)
    monkeypatch.setattr("paddle_ranker.retrieval.snapshots.open_segments.text_hashes", few)
    changing, shown, after = Changing(tmp_path, 1), list[str](), None
    while page := [one.id for one in changing.index.snapshot().after(after, 5)]:
        shown, after = [*shown, *page], page[-1]
    assert sorted(shown) == sorted(changing.ids())


@pytest.mark.thorough(keep=2)
@ONCE
@pytest.mark.parametrize("way", WAYS)
def test_the_pages_of_a_search_show_each_document_that_stays_once(tmp_path: Path, way: str) -> None:
    how = dict(WAYS[way])
    settings = SearchSettings(depth=1000, rank_top=how.pop("rank_top", 0))
    searchers = how.pop("searchers", ["words", "vectors"])
    for seed in range(2):
        changing = Changing(tmp_path / f"{seed}", seed)
        shown, after, fields = list[str](), None, dict[str, object]()
        while True:
            now = changing.index.snapshot()
            search = Search(now, "水稻", searchers, settings, Listing(LIMIT, after=after, **how))
            found = {name: search.begin_lookup(name, vectors_of(["水稻"]) if name == "vectors" else None)()[0]
                     for name in searchers}  # fmt: skip
            if search.sort:
                search.find_sorted()
            else:
                search.fuse(found)
            if settings.rank_top:
                texts = search.ranking.to_rank(search.settings.rank_top)
                logits = np.array([float(len(text)) for text in texts])
                search.ranking.rank(logits, 1 / (1 + np.exp(-logits)))
            search.finish()
            page = [one.id for one in search.results()]
            fields.update((one.id, one.fields["year"]) for one in search.results())
            assert search.page.offset == len(shown), seed
            shown += page
            after = packed(search.page.position())
            if after is None:
                break
            assert len(page) == LIMIT, seed
            changing.change(page)
        assert not [id for id, times in Counter(shown).items() if times > 1], seed
        missed = changing.stay - {*shown}
        if "grouped" in way:  # of each missed document's group two others that are there were shown
            there, years = changing.ids(), {one.id: one.fields["year"] for one in changing.index.snapshot().documents()}
            groups = Counter(years[id] for id in shown if id in there)
            assert all(groups[years[id]] >= 2 for id in missed), seed
        elif way != "alike":
            assert not missed, seed
        changing.index.close()


def packed(position: Optional[AnyPosition]) -> Optional[AnyPosition]:
    return None if position is None else unpack_position(position.packed())


@pytest.mark.parametrize("data", [b"", b"\2", b"\0abc", b"\1" + bytes(7)])
def test_other_bytes_are_no_position(data: bytes) -> None:
    with pytest.raises(ValueError):
        Position.unpacked(data)
