"""A shard that sends anything else than an answer has failed, and nothing that it sends is raised."""

from __future__ import annotations

import copy
import math
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.errors import UsageError
from paddle_ranker.retrieval.index.shards import open_shards
from paddle_ranker.retrieval.snapshots.searchable import ShardError, StaleSnapshot
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.work.turns import idle
from paddle_ranker.scale.remote import RemoteCollection
from paddle_ranker.scale.remote_calls import Call
from paddle_ranker.scale.shard_service import Answer, Refused, ShardService
from tests.checkout import ONCE
from tests.scale.test_remote import QUERY, folders, pool, said, searched, searcher_of, through, vectors_of
from tests.scale.test_remote import SETTINGS as SETTINGS

pytestmark = pytest.mark.unit
__all__ = ["folders", "pool"]


class Odd:
    """A value that is of no use, and an error with a text that cannot be read."""

    def __str__(self) -> str:
        raise SystemExit("of a shard's choice")

    __repr__ = __str__


class OddError(BaseException):
    __str__ = Odd.__str__


OTHERS: list[Any] = [None, True, -1, 2**70, math.nan, math.inf, "x", "\ud800", [], {}, Odd(), ValueError("x"),
                     np.zeros(3, np.float32), "long" * 100_000]  # fmt: skip


def changed(value: Any, top: bool = True) -> Iterator[Any]:
    """Yield a value with each thing in it replaced by others, left out, or doubled."""
    yield from (other for other in OTHERS if type(other) is not type(value) or top or other is not value)
    if isinstance(value, np.ndarray):
        yield from (value[:-1], value[None], value.astype(np.float16), value.astype(object), value.tolist())
        for odd in (math.nan, math.inf, -math.inf, -1):
            if len(value) and (value.dtype.kind == "f" or odd == -1):
                other = value.copy()
                other.flat[-1] = odd
                yield other
        yield value[::-1]
    elif isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        yield from (value[:-1], [*value, *value])
        for place in {0, len(value) - 1} if value else ():
            for other in changed(value[place], False):
                yield type(value)([*value[:place], other, *value[place + 1 :]])
    elif isinstance(value, dict):
        for name in [*value][:2]:
            yield {key: one for key, one in value.items() if key != name}
            yield {**value, "more": value[name], 3: value[name]}
            for other in changed(value[name], False):
                found = copy.copy(value)
                found[name] = other
                yield found
        yield dict(value) if isinstance(value, Counter) else Counter()
    elif hasattr(value, "_fields"):
        yield tuple(value)
        for name in value._fields:
            for other in changed(getattr(value, name), False):
                yield value._replace(**{name: other})
    elif is_dataclass(value):
        for field in fields(value):
            for other in changed(getattr(value, field.name), False):
                yield replace(value, **{field.name: other})  # type: ignore[type-var]


class Lying:
    """Transport that puts the n-th change of an answer in place of the answer to a call."""

    def __init__(self, call: Call, name: str, number: int):
        self._call, self._name, self._number, self.lies, self.is_over = call, name, number, 0, False

    def __call__(self, name: str, *args: Any) -> Future[Any]:
        future = self._call(name, *args)
        if name != self._name or self.is_over:
            return future
        with idle():  # the shard computes in this process, perhaps with one core
            answer, lie = future.result(), Future[Any]()
        found = next((one for n, one in enumerate(changed(answer)) if n == self._number), self)
        if found is self:
            self.is_over = True
            return future
        self.lies += 1
        if isinstance(found, BaseException):
            lie.set_exception(found)
        else:
            lie.set_result(found)
        return lie


CALLS = ["facts", "counts", "phrases", "search", "matches", "scales", "facet_values", "explain_words", "documents_of",
         "values", "first", "near", "common_types"]  # fmt: skip


@pytest.mark.thorough(keep=4)
@ONCE
@pytest.mark.parametrize("name", CALLS)
def test_no_change_of_an_answer_is_more_than_a_failed_shard(folders: list[Path], pool: Executor, name: str) -> None:
    calls: list[Call] = [through(pool, ShardService(folder)) for folder in folders]
    query, where = ("dockr" if name == "near" else QUERY), "rare!=0" if name == "common_types" else None
    wanted = [
        one.id for one in searcher_of(open_shards([folders[0], *folders[2:]])).run([query], 9, where)[0].results()
    ]
    number = failed = 0
    while True:
        lying = Lying(calls[1], name, number)
        try:
            elsewhere = RemoteCollection([calls[0], lying, *calls[2:]], partial=True)
            (search,) = searcher_of(elsewhere).run([query], 9, where, group_by="year")
            matching = search.collection.matching(search.query.words, search.query.phrase_filter)
            assert matching.count(search.listing.where) >= 0
            if name == "first":
                matching.first(["-year", "kind"], 5, None, search.listing.where)
            search.facets(["kind", "year", "rare"])
            ids = [one.id for one in search.results()]
            terms = search.collection.explain_words(search.query.words, ids)
            assert {*terms} == {*ids} and all(math.isfinite(one.score) for one in search.results())
            failed += search.collection.shards["failed"]  # type: ignore[index]
        except Exception as error:
            # A shard may say that values are too many, or be another index.
            is_usage = isinstance(error, UsageError) and re.search("too many values|built otherwise", str(error))
            assert isinstance(error, (StaleSnapshot, ShardError)) or is_usage, (number, repr(error))
            failed += 1
        except BaseException as error:
            raise AssertionError(number) from error
        if lying.is_over or not lying.lies:
            break
        number += 1
    assert number > 14 and failed > 0.6 * number, (number, failed)
    assert wanted


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Refused("usage", "x"),
        Refused("odd", "x"),
        Refused("usage", 3),  # type: ignore[arg-type]
        Refused("gone", "x" * 10_000_000),
        Answer(10**30, None, None),
        OddError(),
        KeyboardInterrupt("of a shard's choice"),
        SystemExit(3),
    ],
)
@pytest.mark.parametrize("lied_at", ["search", "documents_of", "counts", "values", "explain_words"])
def test_what_a_shard_sends_is_not_raised(folders: list[Path], pool: Executor, answer: Any, lied_at: str) -> None:
    calls: list[Call] = [through(pool, ShardService(folder)) for folder in folders]

    def call(name: str, *args: Any) -> Future[Any]:
        if name != lied_at:
            return calls[1](name, *args)
        found = Future[Any]()
        (found.set_exception if isinstance(answer, BaseException) else found.set_result)(answer)
        return found

    rest = searcher_of(open_shards([folders[0], *folders[2:]])).run([QUERY])[0]
    (search,) = searcher_of(RemoteCollection([calls[0], call, *calls[2:]], partial=True)).run([QUERY], group_by="year")
    if search.shards != {"total": 4, "failed": 0}:
        assert search.shards == {"total": 4, "failed": 1} and search.results()
    else:
        assert lied_at == "explain_words" and rest.results()
    with pytest.raises((ShardError, StaleSnapshot), match=r"shard 2 of 4 failed|search again") as caught:
        found = searcher_of(RemoteCollection([calls[0], call, *calls[2:]]))
        (search,) = found.run([QUERY], group_by="year")
        search.collection.explain_words(search.query.words, [one.id for one in search.results()])
    assert len(str(caught.value)) < 1000


def test_vectors_of_queries_are_numbers_of_the_right_size(folders: list[Path], pool: Executor) -> None:
    call = through(pool, ShardService(folders[0]))
    good = vectors_of(["水稻", "病害"])

    def lying(found: Any) -> RemoteCollection:
        def answer(name: str, *args: Any) -> Future[Any]:
            if name != "query_vectors":
                return call(name, *args)
            future = Future[Any]()
            future.set_result(Answer(args[1], None, found))
            return future

        return RemoteCollection([answer])

    assert (lying(good).snapshot().tower("vectors").query_vectors(["水稻", "病害"]) == good).all()
    for bad in (good[:1], good[:, :-1], good.astype(np.float64), good * np.nan, good.tolist(), None):
        with pytest.raises(ShardError, match="malformed"):
            lying(bad).snapshot().tower("vectors").query_vectors(["水稻", "病害"])


def test_all_values_of_fields_are_read(tmp_path: Path, folders: list[Path], pool: Executor) -> None:
    """What a folder holds passes the checks."""
    here, elsewhere = open_shards(folders), RemoteCollection([through(pool, ShardService(one)) for one in folders])
    assert said(searched(elsewhere, "水稻 docker", SETTINGS)) == said(searched(here, "水稻 docker", SETTINGS))
    odd = {"n": None, "deep": [[[{"a": [1, 2.5, None, True, "x"]}]]], "big": 2**80, "list": [1, "a"]}
    with_odd = replace(next(iter(here.snapshot().documents())), id="odd", fields={"title": "odd", **odd})
    folder = tmp_path / "odd"
    from tests.scale.test_remote import made  # the folder of one document

    made(folder, [with_odd, Document("d07", "水稻"), Document("d21", "水稻"), Document("d59", "水稻")])
    one = RemoteCollection([through(pool, ShardService(folder))])
    assert one.snapshot().documents_of(["odd"])["odd"].fields == with_odd.fields
    assert one.snapshot().values("deep", ["odd"])[0][0].json() == odd["deep"][0]  # type: ignore[index]
