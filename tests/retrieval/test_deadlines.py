"""Every kind of request ends soon after its deadline, and long work that is done once goes on with the next caller."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages.explanations import explained_results
from paddle_ranker.retrieval.stages.fusion import Fusion
from paddle_ranker.retrieval.stages.search import Search, SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stages.suggestions import TitleSuggestions
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.retrieval.words.query_parsing import parse_query
from paddle_ranker.retrieval.work import steps
from paddle_ranker.retrieval.work.steps import Kept, Steps, in_order, order_of_numbers, run_steps
from paddle_ranker.retrieval.work.turns import Abandoned, Caller, Turns
from paddle_ranker.serving.http import search_routes
from tests.checkout import ONCE
from tests.retrieval.test_sorting import page

pytestmark = pytest.mark.unit
COUNT, MOST_EVENTS = 5000, 40_000  # documents; calls of Python and C between two checks
SCHEMA = Schema((Field("title", "text", title=True), Field("tags", "keyword", list=True)))
Door = Callable[[Collection], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def document(n: int) -> Document:
        fields = {
            "title": f"paper {n}" if n % 2 else "untitled paper",
            "kind": f"k{n * 7919 % 100_003}",
            "level": n * 7919 % 100_003,
            "at": f"2024-{1 + n % 12:02}-{1 + n % 28:02}T{n % 24:02}:{n % 60:02}:{n // 60 % 60:02}",
            "tags": [f"t{n % 20}", f"x{n}"],
            "group": f"g{n % 100}",
        }
        return Document(f"d{n}", f"rice field unique{n} {'paddy' * (n % 3 == 0)}", fields)

    def vectors_of(texts: Sequence[str]) -> Vectors:
        return np.array([[len(text), n % 7, 2] for n, text in enumerate(texts)], np.float32)

    path = tmp_path_factory.mktemp("deadlines") / "index"
    info = IndexInfo(WordsInfo("standard"), VectorsInfo("exact", 3), schema=SCHEMA)
    with Collection.create(path, info) as collection:
        collection.writer.add([document(n) for n in range(COUNT)], vectors_of, merge=False)
        collection.writer.remove([f"d{n}" for n in range(0, COUNT, 101)])
    return path


def asking(
    query: str = "rice",
    by: str = "words",
    settings: Optional[dict[str, Any]] = None,
    then: Callable[[Search], object] = Search.results,
    **more: Any,
) -> Door:
    def door(collection: Collection) -> object:
        (search,) = SearchEngine(collection, SearchSettings((by,), **(settings or {}))).run([query], **more)
        return then(search)

    return door


def suggesting(collection: Collection) -> object:
    titles = TitleSuggestions()
    titles.follow(collection.snapshot())
    return lambda: [titles.find(typed, 100) for typed in ("pa", "untitled", "paper 1")]


FIELDS: dict[str, Door] = {
    "equal": asking(where=Filter.of({"kind": ["k7919", "k5"]})),
    "number": asking(where=Filter.of({"level": {"gte": 5}})),
    "date": asking(where=Filter.of({"at": {"gte": "2024-06"}})),
    "list": asking(where=Filter.of({"tags": ["t1", "x7"]})),
    "facets": asking(then=lambda search: search.facets(["level", "at", "kind", "tags", "group"])),
    "sort": asking(sort=["-kind"]),
    "sort by a list": asking(sort=["tags", "level"]),
    "sort by a date": asking(sort=["at"], top_k=2000),
    "group": asking(group_by="kind", settings={"depth": 2000}),
    "fields": lambda collection: search_routes._fields(collection.snapshot()),
}
DOORS: dict[str, Door] = {
    **FIELDS,
    "many values": asking(where=Filter.of({"kind": [f"k{n}" for n in range(1000)]})),
    "words": asking("rice field paddy", top_k=1000),
    "vectors": asking("", "vectors", like="d1", top_k=1000),
    "total": asking(then=Search.total),
    "title": asking("untitled paper"),
    "prefix": asking("rice unique1", settings={"prefix": True}),
    "mistyped": asking("rcie unqiue12 feild"),
    "did you mean": asking(then=lambda search: search.collection.did_you_mean(search.query.words)),
    "phrase": asking('"rice field unique7"'),
    "exclusion": asking('rice -"field unique7"'),
    "required": asking("+rice +field"),
    "explain": asking("rice field paddy unique1", then=explained_results, top_k=500),
    "features": asking(fusion=Fusion(features={"coverage": 1.0})),
    "near duplicates": asking(group_by="content", settings={"depth": 1000}),
    "sorted groups": asking(sort=["level"], group_by="group", settings={"depth": 2000}),
    "page after": lambda collection: page(collection, ["level"], page(collection, ["level"])[1]),
    "export": lambda collection: collection.snapshot().after("d5", 4000),
    "documents": lambda collection: collection.snapshot().documents_of([f"d{n}" for n in range(4000)]),
    "values": lambda collection: collection.snapshot().values("kind", [f"d{n}" for n in range(4000)]),
}


class Counting(Caller):
    """Caller who leaves at the `most`-th check; counts the checks, and the most calls between two of them."""

    def __init__(self, most: int = sys.maxsize):
        super().__init__()
        self.checks, self._most, self.calls, self.most_calls = 0, most, 0, 0

    @property
    def has_left(self) -> bool:
        self.checks += 1
        self.most_calls, self.calls = max(self.most_calls, self.calls), 0
        return self.checks >= self._most

    def count_calls(self, work: Callable[[], object]) -> None:
        """Run `work`, and count the calls of functions in Python and in C."""

        def count(frame: object, event: str, argument: object) -> None:
            self.calls += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            self.run(work, Turns(1))
        finally:
            sys.setprofile(before)
        self.most_calls = max(self.most_calls, self.calls)


@ONCE
@pytest.mark.parametrize("name", DOORS)
def test_every_request_checks_its_deadline_again_and_again(folder: Path, name: str) -> None:
    collection, caller = Collection.open(folder), Counting()
    collection.snapshot().rewrite_query(parse_query("qzxwvkj"))  # as a server does when it opens an index
    caller.count_calls(partial(DOORS[name], collection))
    assert caller.checks > 2 and caller.most_calls <= MOST_EVENTS, (caller.checks, caller.most_calls)
    if name in FIELDS:
        assert caller.checks >= COUNT // steps.AT_ONCE


@ONCE
def test_suggestions_check_their_deadline(folder: Path) -> None:
    find, caller = suggesting(Collection.open(folder)), Counting()
    assert callable(find)
    caller.count_calls(find)
    assert caller.checks > 100 and caller.most_calls <= MOST_EVENTS


@ONCE
@pytest.mark.parametrize("name", FIELDS)
def test_what_one_caller_has_arranged_the_next_one_finds(folder: Path, name: str) -> None:
    whole = Counting()
    expected = whole.run(partial(FIELDS[name], Collection.open(folder)), Turns(1))
    warm, collection = Counting(), Collection.open(folder)
    FIELDS[name](collection)
    warm.run(partial(FIELDS[name], collection), Turns(1))
    collection, patience = Collection.open(folder), warm.checks + 10  # too little for a field whose values are not read
    assert whole.checks > patience
    for _ in range(whole.checks):
        try:
            assert Counting(patience).run(partial(FIELDS[name], collection), Turns(1)) == expected
            break
        except Abandoned:
            continue
    else:
        raise AssertionError("no caller was answered")


def test_steps_are_done_once_and_begin_again_after_an_error() -> None:
    done, is_damaged = list[int](), True

    def counting() -> Steps[int]:
        for number in range(200):
            done.append(number)
            if is_damaged and number == 3:
                raise ValueError("damaged")
            yield
        return len(done)

    kept = Kept(counting)
    with pytest.raises(ValueError, match="damaged"):
        kept.result()
    is_damaged = False
    done.clear()
    callers = [Counting(20) for _ in range(3)]
    for caller in callers:
        with pytest.raises(Abandoned):
            caller.run(kept.result, Turns(1))
    results = list[int]()
    threads = [threading.Thread(target=lambda: results.append(kept.result())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [*range(200)] and results == [200] * 4 and kept.result() == 200


def numbers(seed: int) -> Iterator[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    yield generator.integers(0, 50, 3000)
    yield generator.normal(size=3000)
    yield np.zeros(3000)
    yield np.arange(3000)[::-1]
    yield np.empty(0)


def test_sorting_in_steps_is_sorting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_SORTED_AT_ONCE", 8)
    monkeypatch.setattr(steps, "_NUMBERS_AT_ONCE", 8)
    for values in numbers(3):
        assert run_steps(order_of_numbers(values)).tolist() == np.argsort(values, kind="stable").tolist()
        keys = [(value, number) for number, value in enumerate(values.tolist())]
        runs = run_steps(in_order(keys))
        assert [key for run in runs for key in run] == sorted(keys) and max(map(len, runs)) <= 8
