"""Searches sorted by fields against Python's `sorted` over all rows: every document that matches, page by page."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import UsageError
from paddle_ranker.lexical.postings import text_hashes
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shards import open_shards
from paddle_ranker.retrieval.snapshots import sorting
from paddle_ranker.retrieval.snapshots.searchable import Searchable
from paddle_ranker.retrieval.stages.search import Search, SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.listing import Listing, unpack_position
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.retrieval.work import steps
from paddle_ranker.retrieval.work.turns import Abandoned, Caller, Turns
from tests.checkout import ONCE
from tests.elsewhere import elsewhere
from tests.serving.test_search import Site

pytestmark = pytest.mark.unit
COUNT, SIZE = 700, 3
SCHEMA = Schema((Field("name", "text"), Field("at", "date"), Field("level", "number", list=True)))
INFO = IndexInfo(WordsInfo("standard"), VectorsInfo("exact", SIZE), schema=SCHEMA)
ORDERS = [["level"], ["-level"], ["at", "-level"], ["-at"], ["name"], ["-name"], ["kind", "-at"], ["-mixed", "level"],
          ["mixed"], ["-kind", "name"], ["nothing"]]  # fmt: skip


def vectors_of(texts: Sequence[str]) -> Vectors:
    return np.array([[len(text), 1, 2] for text in texts], np.float32)


def documents() -> list[Document]:
    draw, made = random.Random(7), list[Document]()
    for number in range(COUNT):
        fields: dict[str, Any] = {
            "name": draw.choice(["Äpfel", "apfel", "Apfel", "zebra", "Zoë", "水稻", "x" * 300, "x" * 300 + "y"]),
            "at": draw.choice(["2024", "2024-03-02", "2024-03-02T05:30:00+05:30", 2020, "1066-10-14", "N/A"]),
            "level": draw.choice([[2**53 + 1], 2**53, "2.0", [2, 9], [None, 7], -1.5, "N/A", 0]),
            "kind": draw.choice(["b", "a", "C", "é"]),
            "mixed": draw.choice([3, "3", "text", 2.5, False]),
            "nothing": None,
        }
        kept = {name: value for name, value in fields.items() if draw.random() > 0.2}
        text = draw.choice(["rice field", "rice", "rice paddy", "wheat"])
        made.append(Document(f"d{number}", text, kept))
    return made


DOCUMENTS = documents()
GONE = {f"d{number}" for number in range(0, COUNT, 11)}
LIVE = [one for one in DOCUMENTS if one.id not in GONE]
RICE = [one for one in LIVE if "rice" in one.text]


def folded(text: str) -> tuple[str, str]:
    plain = unicodedata.normalize("NFD", text[:256].casefold())
    return "".join(char for char in plain if not unicodedata.combining(char)), text[:256]


MOMENTS = {"2024": 3, "2024-03-02": 4, "2024-03-02T05:30:00+05:30": 4, 2020: 2, "1066-10-14": 1}


def key(field: str, document: Document) -> Any:
    """Return what orders a document by a field, None without a value."""
    value = document.fields.get(field)
    first = next((one for one in (value if isinstance(value, list) else [value]) if one is not None), None)
    if first is None or (first == "N/A" and field in ("at", "level")):
        return None
    if field == "at":
        return MOMENTS[first]
    if field == "level":
        return Fraction(first)
    if field == "mixed":  # truth values, numbers, texts
        kind = [bool, float, str].index(float if type(first) is int else type(first))
        return (kind, folded(first) if kind == 2 else first)
    return folded(first)


def by_hash(document: Document) -> int:
    return int.from_bytes(hashlib.blake2b(document.id.encode(), digest_size=8).digest(), "little")


def ordered(rows: Sequence[Document], sort: Sequence[str]) -> list[str]:
    """Return the ids in order: equal ones by hash, those without a value last."""
    found = sorted(rows, key=by_hash)
    for name in reversed(sort):
        field, known = name.lstrip("-"), [*found]
        found = sorted((one for one in known if key(field, one) is not None), key=lambda one: key(field, one),
                       reverse=name.startswith("-"))  # fmt: skip
        found += [one for one in known if key(field, one) is None]
    return [one.id for one in found]


def built(folder: Path, rows: Sequence[Document], parts: int) -> Path:
    with Collection.create(folder, INFO) as collection:
        for start in range(parts):
            collection.writer.add(rows[start::parts], vectors_of, merge=False)
        collection.writer.remove(GONE)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Searchable]]:
    base = tmp_path_factory.mktemp("sorting")
    shards = [built(base / f"shard{number}", DOCUMENTS[number::3], number) for number in (1, 2)]
    shards.append(built(base / "shard0", DOCUMENTS[0::3], 3))
    whole = Collection.open(built(base / "whole", DOCUMENTS, 4))
    yield {"folder": whole, "shards": open_shards(shards), **dict(zip(["elsewhere"], elsewhere(shards)))}


def page(
    collection: Searchable, sort: Sequence[str], after: Optional[bytes] = None, by: str = "words", query: str = "rice",
    **more: Any,
) -> tuple[list[str], Optional[bytes]]:  # fmt: skip
    position = None if after is None else unpack_position(after)
    search = Search(collection.snapshot(), query, [by], SearchSettings(), Listing(sort=sort, after=position, **more))
    search.find_sorted()
    search.finish()
    found = search.page.position()
    return [one.id for one in search.results()], None if found is None else found.packed()


def pages(collection: Searchable, sort: Sequence[str], size: int, **more: Any) -> list[str]:
    shown, after = page(collection, sort, None, top_k=size, **more)
    while after is not None:
        assert len(shown) % size == 0
        more_shown, after = page(collection, sort, after, top_k=size, **more)
        shown += more_shown
    return shown


@pytest.mark.parametrize("sort", ORDERS, ids=",".join)
def test_all_that_match_come_in_order(places: dict[str, Searchable], sort: list[str]) -> None:
    wanted = ordered(RICE, sort)
    for name, where in places.items():
        assert page(where, sort, top_k=1000)[0] == wanted, name
        assert pages(where, sort, 83) == wanted, name
        assert page(where, sort, top_k=9, offset=200)[0] == wanted[200:209], name
        (results,) = SearchEngine(where, SearchSettings(("words",))).search_many(["rice"], 20, sort=sort)
        assert [one.id for one in results] == wanted[:20]


def test_without_words_all_that_meet_the_filter_match(places: dict[str, Searchable]) -> None:
    levels = (2**53, "2.0", [2**53 + 1], [2, 9], [None, 7])
    high = [one for one in LIVE if one.fields.get("level") in levels]
    for where in places.values():
        assert page(where, ["-kind"], by="vectors", top_k=1000)[0] == ordered(LIVE, ["-kind"])
        some = Filter.parse(["level>=2"])
        assert page(where, ["name"], by="vectors", top_k=1000, where=some)[0] == ordered(high, ["name"])
        search = Search(
            where.snapshot(), 'rice -field "rice"', ["words"], SearchSettings(), Listing(sort=["at"], top_k=1000)
        )
        search.find_sorted()
        search.finish()
        assert [one.id for one in search.results()] == ordered([one for one in RICE if "field" not in one.text], ["at"])


@ONCE
def test_blocks_and_equal_hashes_change_nothing(
    places: dict[str, Searchable], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sorting, "_AT_ONCE", 16)
    monkeypatch.setattr(steps, "_SORTED_AT_ONCE", 4)
    monkeypatch.setattr(steps, "_NUMBERS_AT_ONCE", 4)
    for sort in ORDERS:
        assert pages(places["folder"], sort, 50) == ordered(RICE, sort)

    def few(texts: Any) -> Any:
        return text_hashes(texts) % np.uint64(3)

    # Not in `segments`, which finds titles and ids by hashes alone.
    for module in ("stored.segment_writing", "snapshots.snapshot", "snapshots.open_segments", "snapshots.sorting"):
        monkeypatch.setattr(f"paddle_ranker.retrieval.{module}.text_hashes", few)
    monkeypatch.setattr(f"{__name__}.by_hash", lambda one: (int(few([one.id])[0]), one.id))
    changed = Collection.open(built(tmp_path / "few", DOCUMENTS, 2))
    assert pages(changed, ["kind"], 7) == ordered(RICE, ["kind"])


@ONCE
def test_each_document_that_keeps_its_values_is_shown_once_while_others_change(tmp_path: Path) -> None:
    for seed, sort in enumerate((["-level", "kind"], ["name"], ["at"])):
        draw, folder = random.Random(seed), tmp_path / f"{seed}"
        built(folder, DOCUMENTS[:200], 3)
        collection = Collection.open(folder, write=True)
        stay, shown, number = (
            {one.id for one in collection.snapshot().documents() if "rice" in one.text},
            list[str](),
            0,
        )
        found, after = page(collection, sort, top_k=9)
        shown += found
        while after is not None:
            there = [one.id for one in collection.snapshot().documents()]
            gone = draw.sample(there, 4) + (found[-2:] if draw.random() < 0.5 else [])  # the last one of a page, too
            collection.writer.remove(gone)
            changed = draw.sample([id for id in there if id not in gone], 3)
            rows = [draw.choice(DOCUMENTS) for _ in changed]
            collection.writer.add([Document(id, one.text, one.fields) for id, one in zip(changed, rows)], vectors_of)
            stay -= {*gone, *changed}
            number += 1
            collection.writer.add([Document(f"n{number}", "rice", draw.choice(DOCUMENTS).fields)], vectors_of)
            found, after = page(collection, sort, after, top_k=9)
            shown += found
        times = Counter(shown)
        assert all(times[id] == 1 for id in stay), sort
        collection.close()


def test_a_server_pages_by_its_cursor(tmp_path: Path) -> None:
    site = Site(index=built(tmp_path / "index", DOCUMENTS, 2))
    try:
        wanted, asked = ordered(RICE, ["-level", "kind"]), {"sort": ["-level", "kind"], "by": ["words"], "top_k": 60}
        cursor: Optional[str] = ""
        shown = list[dict[str, Any]]()
        while cursor is not None:
            answer = site.search("rice", cursor=cursor, explain=True, total=True, **asked)
            cursor, shown = answer["cursor"], shown + answer["hits"]
            assert answer["total"] == len(RICE) and not answer["ranked"] and {*answer["took_ms"]} >= {"read", "sort"}
        assert [hit["id"] for hit in shown] == wanted
        assert [hit["rank"] for hit in shown] == [hit["stages"]["sorted"]["rank"] for hit in shown]
        assert [hit["rank"] for hit in shown] == [*range(1, len(wanted) + 1)]
        assert all([one["term"] for one in hit["signals"]["words"]["terms"]] == ["rice"] for hit in shown)
        groups = site.search("rice", sort=["kind"], group_by="kind", by=["words"])["hits"]
        firsts = {key("kind", one) for one in RICE}
        assert len({hit["fields"].get("kind") for hit in groups}) <= len(firsts)
        for more, status, says in (
            ({"rank_top": 5}, 422, "beside sort"),
            ({"min_probability": 0.5}, 422, "beside sort"),
            ({"fusion": "rrf"}, 422, "beside sort"),
            ({"depth": 50}, 422, "beside sort"),
            ({"offset": 9000}, 413, "page by cursor"),
        ):
            refused = site.ask("POST", "/v1/search", {"query": "rice", **asked, **more})
            assert refused.status_code == status and says in refused.text, more
        other = site.search("rice", cursor="", by=["words"])["cursor"]
        refused = site.ask("POST", "/v1/search", {"query": "rice", **asked, "cursor": other})
        assert refused.status_code == 422 and "cursor" in refused.text
    finally:
        site.close()


@pytest.mark.parametrize("sort", [[], ["level"], ["kind", "-at"]], ids=",".join)
def test_without_a_query_all_documents_are_listed_the_newest_first(
    places: dict[str, Searchable], sort: list[str]
) -> None:
    wanted, old = ordered(LIVE, sort or ["-at"]), [one for one in LIVE if one.fields.get("kind") == "a"]
    for name, where in places.items():
        assert pages(where, sort, 83, query=" ") == wanted, name
        engine = SearchEngine(where, SearchSettings())  # by vectors, too, without a tower
        assert [one.id for one in engine.search("", 20, sort=sort)] == wanted[:20], name
        (search,) = engine.run([""], 5, "kind=a", sort=sort)
        assert [one.id for one in search.results()] == ordered(old, sort or ["-at"])[:5], name
        assert search.total() == len(old) and search.facets(["kind"])["kind"]['"a"'] == len(old)
        assert not search.wants_ranking and not search.nothing_close and not search.dropped()
        with pytest.raises(UsageError, match=r"queries\[1\]: is empty"):
            engine.search_many(["rice", ""])


def test_without_dates_a_page_of_the_list_costs_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info, rows = IndexInfo(WordsInfo("standard"), None), [Document(f"d{n}", "rice") for n in range(600)]
    with Collection.create(tmp_path / "index", info) as collection:
        collection.writer.add(rows[:400])
        collection.writer.add(rows[400:], merge=False)
    monkeypatch.setattr(sorting, "_AT_ONCE", 8)
    looked_at = list[int]()
    monkeypatch.setattr(sorting, "check", lambda: looked_at.append(8))
    listed, after, wanted = list[str](), None, ordered(rows, [])
    while after is not None or not listed:
        looked_at.clear()
        shown, after = page(collection, [], after, query="", top_k=10)
        listed += shown
        assert sum(looked_at) <= 100
    assert listed == wanted
    assert pages(collection, [], 7, query="") == wanted
    collection.close()


@pytest.mark.parametrize(
    "data", [b"\2", b"\2[]", b'\2[0,"a",[]]', b"\2[1,2,[]]", b'\2[1,"a",[[9,1,0]]]', b'\2[1,"a",[3]]']
)
def test_other_bytes_are_no_sorted_position(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack_position(data)


def test_a_position_of_another_order_is_refused(places: dict[str, Searchable]) -> None:
    after = page(places["folder"], ["kind"], top_k=5)[1]
    for sort in (["kind", "at"], []):
        with pytest.raises(UsageError, match="another order"):
            page(places["folder"], sort, after)
    with pytest.raises(UsageError, match="'none' is no field"):
        SearchEngine(places["folder"], SearchSettings(("words",))).search("rice", sort=["none"])


@pytest.mark.parametrize("sort", [["name"], ["level"], ["-mixed"]], ids=",".join)
def test_sorting_ends_at_each_check_once_nobody_waits(tmp_path: Path, sort: list[str]) -> None:
    folder, checks = built(tmp_path / "index", DOCUMENTS, 2), 0

    class Leaving(Caller):
        left = -1

        @property
        def has_left(self) -> bool:
            nonlocal checks
            checks += 1
            return self.left == 0 or checks == self.left

    def run(left: int) -> int:
        nonlocal checks
        caller, collection, checks = Leaving(), Collection.open(folder), 0
        caller.left = left
        caller.run(partial(page, collection, sort), Turns(1))
        return checks

    whole = run(-1)
    assert whole > 20
    for left in range(2, whole, max(1, whole // 40)):
        with pytest.raises(Abandoned):
            run(left)
