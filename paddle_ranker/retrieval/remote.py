"""Shards of an index that other processes or machines hold, searched as if all were in one folder.

service = ShardService("index-1")  # beside the folder of a shard
calls = [lambda name, *args: pool.submit(service.call, name, *args), ...]  # here: a transport for each shard
with Searcher(RemoteCollection(calls), SearchSettings()) as searcher:
    searcher.search("query")

Scores, ties, totals and facets are those of `Shards` of the same folders in the same order, to the last digit: a search
first adds up the shards' totals and document frequencies, then each shard scores its documents by these numbers. Only
the shards that have a document are asked for it. A document must be in one shard only.
"""

from __future__ import annotations

import copy
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import Optional, Protocol, Union

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import DataError, RankerError, UsageError, brief, refuse_text
from paddle_ranker.retrieval.adding import Added
from paddle_ranker.retrieval.facets import (
    Counts,
    Facets,
    FieldSample,
    FieldScale,
    Wanted,
    facets_of,
)
from paddle_ranker.retrieval.filters import Filter
from paddle_ranker.retrieval.indexes import Document, Hits
from paddle_ranker.retrieval.manifest import WORDS, IndexInfo
from paddle_ranker.retrieval.reading import ParsedQuery, Synonyms, WordQuery
from paddle_ranker.retrieval.schema import FieldTower
from paddle_ranker.retrieval.searchable import LookupRequest, ShardError, StaleSnapshot, phrase_filter_of
from paddle_ranker.retrieval.shard_service import MAY_REFUSE, READS, WRITES, Facts, Gone, read_answer
from paddle_ranker.retrieval.sorting import SortedDocument, merged, sort_keys
from paddle_ranker.retrieval.values import CommonTypes, Value
from paddle_ranker.retrieval.words import ASKED, Asked, CountedQuery, Totals, Word, WordSearcher, shortest_first
from paddle_ranker.retrieval.work import check, idle, locking, reserve
from paddle_ranker.storage.untrusted import Unchecked

_CURRENT_SECONDS = 1.0  # that the facts of the shards are not asked for again, but by searches
_LOOK_SECONDS = 0.1  # between two looks whether a search is still waited for
_MOST_RESTARTS = 3  # times that a search begins again because shards have changed meanwhile
_OF_WRITES = 20  # times as long a shard has for adding documents as for other calls
_MOST_MERGED = 2  # versions of all shards, whose facts are kept together
_AT_ONCE = 256  # documents that are fetched at a time
_HELD = 1 << 22  # code points of documents that a search keeps, as it shows those that it has ranked
_NO_FIELDS: Mapping[str, float] = {}


class Call(Protocol):
    """Transport to a shard: calls `ShardService.call` there."""

    def __call__(self, name: str, *args: Unchecked) -> Future[Unchecked]: ...


@dataclass(frozen=True)
class _Merged:
    """Facts of all shards together; `types` of fields that are not declared are added when they are asked for."""

    info: IndexInfo
    fields: list[str]
    totals: Optional[Totals]
    words: Optional[WordSearcher]
    types: dict[str, str]

    @classmethod
    def of(cls, several: Mapping[int, Facts]) -> _Merged:
        """Merge facts by shard; raises `UsageError` for shards that were not built alike."""
        infos = {number: one.info for number, one in several.items()}
        first, *_ = infos
        for number, info in infos.items():
            if not info.same_kind(infos[first]):
                raise UsageError(
                    f"shard {number + 1} was built otherwise than shard {first + 1}, as index info shows; build it "
                    "with the same tower, words and fields"
                )
        info = replace(
            infos[first],
            segments=tuple(segment for one in infos.values() for segment in one.segments),
            generation=sum(one.generation for one in infos.values()),
        )
        fields = sorted({name for one in several.values() for name in one.fields})
        totals = Totals.of([one.totals for one in several.values() if one.totals is not None])
        words = info.words
        if words is None:
            return cls(info, fields, None, None, {})
        tokenizers = info.schema.tokenizers(words.tokenizer)
        return cls(
            info, fields, totals, WordSearcher([], tokenizers, words.k1, words.b, info.schema.weights, totals), {}
        )


class RemoteCollection:
    """Shards elsewhere as one collection, for `Search` and `Searcher`; see `LocalSnapshot` for its methods.

    Args:
        calls: a transport to each shard, in the order of their documents.
        partial: answer from the other shards if some fail; `shards` says how many. Else raises `ShardError`.
        timeout: seconds that a shard has for each call.

    Raises `UsageError` for shards that were not built alike. A shard that has failed is asked again by the next search;
    with `partial` one that did not answer, after `timeout` seconds. All calls of a snapshot see one generation of each
    shard.
    """

    def __init__(self, calls: Sequence[Call], *, partial: bool = False, timeout: float = 30.0):
        if not calls:
            raise UsageError("shards: give a call for at least one")
        self._calls, self._partial, self._timeout = list(calls), partial, timeout
        self._latest: dict[int, tuple[int, Facts]] = {}  # by shard, its latest version; snapshots share these three
        self._facts_at = [0.0]  # when they answered last
        self._merging: dict[object, _Merged] = {}
        self._writing = threading.Lock()
        self._turn = itertools.count()
        self._pinned: Optional[dict[int, tuple[int, Facts]]] = None  # of a snapshot: what it sees
        self._is_snapshot, self._restarts = False, 0
        self._lost: set[int] = set()  # shards that failed
        self._rest_until: dict[int, float] = {}  # by shard that did not answer; snapshots share it
        self._pinning = threading.Lock()
        self._counts: dict[Word, int] = {}  # of words, live documents in all shards
        self._owners: dict[str, int] = {}  # the shard of a document that was found, by id
        self._documents, self._held = dict[str, Document](), 0  # that were fetched, and the code points of their texts
        self._send("facts", dict.fromkeys(range(len(self._calls)), ()))()
        _Merged.of({number: facts for number, (_, facts) in self._latest.items()})

    @property
    def _all(self) -> _Merged:
        """Facts of what is searched; of a snapshot that has seen nothing yet, the latest ones."""
        found = dict(sorted((self._latest if self._pinned is None else self._pinned).items()))
        key = tuple((number, version) for number, (version, _) in found.items())
        merged = self._merging.get(key)
        if merged is None:
            merged = self._merging[key] = _Merged.of({number: facts for number, (_, facts) in found.items()})
            for old in [*self._merging][:-_MOST_MERGED]:
                self._merging.pop(old, None)
        return merged

    @property
    def _now(self) -> RemoteCollection:
        """A snapshot, for what takes several rounds."""
        return self if self._is_snapshot else self.snapshot()

    @property
    def info(self) -> IndexInfo:
        return self._all.info

    @property
    def fields(self) -> list[str]:
        if self._is_snapshot and self._pinned is None:
            self._ask("facts")
        return self._all.fields

    @property
    def shards(self) -> Mapping[str, int]:
        return {"total": len(self._calls), "failed": len(self._lost)}

    @property
    def writer(self) -> RemoteCollection:
        return self

    @property
    def is_current(self) -> bool:
        """Whether the shards were asked just now; a search always finds what was added before it."""
        return time.monotonic() < self._facts_at[0] + _CURRENT_SECONDS

    def refresh(self) -> bool:
        """Look for what was added; return whether there was anything."""
        before = self.info.generation
        self._ask("facts")
        return self.info.generation > before

    def __len__(self) -> int:
        return self.info.count

    def snapshot(self) -> RemoteCollection:
        """Return the collection for one search: all its calls see the generations that the first one finds."""
        found = copy.copy(self)
        found._is_snapshot, found._pinned, found._lost = True, None, self._resting()
        found._pinning, found._counts, found._owners, found._documents = threading.Lock(), {}, {}, {}
        return found

    def require_address(self) -> None:
        """Do nothing: no shard has its vectors in Milvus."""

    def close(self) -> None:
        """Do nothing: the transports belong to who made them."""

    def tower(self, field: str) -> FieldTower:
        """Return the tower of a vector field, which runs where a shard is: each call asks another one."""
        return _RemoteTower(self, field)

    def begin_search(self, asked: LookupRequest) -> Callable[[], list[Hits]]:
        """Begin to search each shard; return a function that merges: equal scores in the order of the shards."""
        refuse_text(asked.queries, "queries", *ASKED)
        now, queries = self._now, asked.queries
        if asked.by == WORDS:
            queries = now._counted([one for one in queries if not isinstance(one, np.ndarray)])
        given = asked._replace(queries=queries, where=now._checked(asked.where), fields=dict(asked.fields))
        received = now._begin("search", dict.fromkeys(now._alive, tuple(given)))

        def merged() -> list[Hits]:
            found = received()
            now._owners.update((id, number) for number, each in found.items() for hits in each for id in hits.ids)
            return [_best([each[place] for each in found.values()], asked.top_k) for place in range(len(queries))]

        return merged

    def read_words(self, query: ParsedQuery, prefix: bool = False, synonyms: Optional[Synonyms] = None) -> WordQuery:
        now, words = self._now, self._all.words
        wanted = None if words is None else _Wanted(words)
        reader = None if words is None or wanted is None else words.reader_of(wanted)
        if words is None or wanted is None or reader is None:
            return WordQuery(query.text, query.text)
        reader.read(query)
        now._count([*((token,) for token in wanted.tokens), *words.words_in(query.text)[0]])  # in one round
        reader = words.reader_of(_KnownWords(now, words))
        assert reader is not None
        return reader.read(query, prefix, synonyms)

    def better_spelled(self, query: WordQuery) -> Optional[str]:
        now, words = self._now, self._all.words
        reader = None if words is None else words.reader_of(_KnownWords(now, words))
        return None if reader is None else reader.better(query)

    def words_given(self, query: WordQuery) -> dict[str, str]:
        now = self._now
        (counted,), words = now._counted([query]), now._all.words
        return {} if words is None else words.given_of(counted)

    def word_weights(self, query: Asked) -> dict[str, float]:
        now = self._now
        (counted,), words = now._counted([query]), now._all.words
        return {} if words is None else words.weights_of(counted)

    def phrase_filter(self, query: ParsedQuery) -> Optional[ParsedQuery]:
        now, found, left = self._now, list[str](), list(query.phrases)
        while left:
            asked = [*found, *left]
            most = max(map(len, now._ask("phrases", asked).values()))  # each shard has those up to one of them
            found, left = asked[:most], asked[most + 1 :]
        return phrase_filter_of(query, found)

    def matching(self, query: Optional[Asked], phrase_filter: Optional[ParsedQuery] = None) -> RemoteMatches:
        return RemoteMatches(self._now, query, phrase_filter)

    def explain_words(
        self, query: Asked, ids: Sequence[str], fields: Mapping[str, float] = _NO_FIELDS
    ) -> dict[str, dict[str, float]]:
        refuse_text(ids, "ids")
        now = self._now
        (counted,) = now._counted([query])
        found = now._ask_owners(ids, lambda own: ("explain_words", counted, own, dict(fields)))
        return {id: added for each, _ in found for id, added in each.items()}

    def count(self, where: Filter) -> int:
        now = self._now
        return sum(now._ask("count", now._checked(where)).values())

    def type_of(self, field: str) -> str:
        return self._types([field])[field]

    def scale(self, field: str) -> FieldScale:
        return FieldScale.united([*self._ask("scale", field, self.type_of(field)).values()])

    def field_values(self, most: int) -> dict[str, FieldSample]:
        each = [*self._ask("field_values", most, self._types(self.fields)).values()]
        names = sorted({name for own in each for name in own})
        return {name: FieldSample.united([own[name] for own in each if name in own]) for name in names}

    def values(self, field: str, ids: Sequence[str]) -> list[tuple[Value, ...]]:
        refuse_text(ids, "ids")
        now, found = self._now, dict[str, tuple[Value, ...]]()
        type = now.type_of(field) if ids else ""
        for each, own in now._ask_owners(ids, lambda own: ("values", field, type, own)):
            found.update((id, values) for id, values in zip(own, each) if values)
        return [found.get(id, ()) for id in ids]

    def missing(self, ids: Iterable[str]) -> list[str]:
        asked = list(dict.fromkeys(ids))
        each = [set(own) for own in self._ask("missing", asked).values()]
        return [id for id in asked if all(id in own for own in each)]

    def documents_of(self, ids: Sequence[str]) -> dict[str, Document]:
        refuse_text(ids, "ids")
        now = self._now
        there = {id: now._documents[id] for id in ids if id in now._documents}
        found = now._ask_owners([id for id in ids if id not in there], lambda own: ("documents_of", own))
        for id, document in (one for each, _ in found for one in each.items()):
            there[id] = document
            reserve(sys.getsizeof(document.text))
            now._held += len(document.text)
            if now._held <= _HELD:
                now._documents[id] = document
        return {id: there[id] for id in ids if id in there}

    def each(self, ids: Sequence[str]) -> Iterator[tuple[str, Document]]:
        refuse_text(ids, "ids")
        now = self._now
        for start in range(0, len(ids), _AT_ONCE):
            yield from now.documents_of(ids[start : start + _AT_ONCE]).items()

    def add(self, documents: Iterable[Document]) -> Added:
        """Add documents, or replace those of the same id where they are; new ones go to the smallest shard.

        Every shard must answer. If one fails, `ShardError` names it, and what others have added stays: add again.
        """
        refuse_text(documents, "documents", Document)
        added = Added(0, 0, 0)
        with self._writing:
            documents = iter(documents)
            while some := list(itertools.islice(documents, _AT_ONCE)):
                each = self._write("missing", [one.id for one in some])
                places = {id: number for number, own in each.items() for id in {one.id for one in some} - {*own}}
                sizes = {number: facts.info.count for number, (_, facts) in self._latest.items()}
                shares: dict[int, list[Document]] = {}
                for one in some:
                    if one.id not in places:
                        places[one.id] = min(sizes, key=lambda number: (sizes[number], number))
                        sizes[places[one.id]] += 1
                    shares.setdefault(places[one.id], []).append(one)
                done = self._send("add", {number: (own,) for number, own in shares.items()}, apart=True)()
                added = Added(*map(sum, zip(added, *done.values())))
        return added

    def remove(self, ids: Iterable[str]) -> int:
        """Remove the documents of these ids and return how many there were; every shard must answer."""
        refuse_text(ids, "ids")
        with self._writing:
            return sum(self._write("remove", list(ids)).values())

    def _write(self, name: str, *args: Unchecked) -> dict[int, Unchecked]:
        return self._send(name, dict.fromkeys(range(len(self._calls)), args), apart=True)()

    def _checked(self, where: Optional[Filter]) -> Optional[Filter]:
        """Return a filter with the types of its fields in all shards; raises `FilterError` as a folder would."""
        if where is None or where.is_typed:
            return where
        there = self.fields
        types = self._types([one.field for one in where.conditions if one.field in there])
        return where.typed(there, types.__getitem__)

    def _types(self, fields: Sequence[str]) -> dict[str, str]:
        """Return the types of fields, of which shards are asked if they are not declared."""
        found = {name: self.info.schema.type_of(name) for name in fields}
        others = [name for name, type in found.items() if not type]
        if others and (self._pinned is None or any(name not in self._all.types for name in others)):
            each, united = [*self._ask("common_types", others).values()], {name: CommonTypes() for name in others}
            for own in each:
                for name, types in own.items():
                    united[name].unite(types)
            self._all.types.update({name: one.undeclared_type for name, one in united.items()})
        return {name: type or self._all.types[name] for name, type in found.items()}

    def _counted(self, queries: Sequence[Asked]) -> list[Asked]:
        """Return queries with the totals and document frequencies of all shards."""
        words = self._all.words
        if words is None:
            return [*queries]
        plain = [one.query if isinstance(one, CountedQuery) else one for one in queries]
        each = [[*words.words_in(one)[0]] for one in plain]
        self._count([word for own in each for word in own])
        totals = self._all.totals
        assert totals is not None
        return [
            CountedQuery(one, totals, {word: self._counts[_plain(word)] for word in own})
            for one, own in zip(plain, each)
        ]

    def _count(self, words: Iterable[Word]) -> None:
        """Count the documents of all shards that have words, of those that are not counted yet."""
        missing = list(dict.fromkeys(one for one in map(_plain, words) if one not in self._counts))
        if missing or self._pinned is None:
            each = self._ask("counts", missing).values()
            self._counts.update(zip(missing, map(sum, zip(*each))))

    def _ask_owners(
        self, ids: Sequence[str], call: Callable[[list[str]], tuple[Unchecked, ...]]
    ) -> list[tuple[Unchecked, list[str]]]:
        """Ask each shard about those of its documents that are known to be there, and about unknown ones."""
        shares: dict[int, list[str]] = {}
        for id in dict.fromkeys(ids):
            for number in [self._owners[id]] if id in self._owners else self._alive:
                shares.setdefault(number, []).append(id)
        calls = {number: call(own) for number, own in shares.items()}
        if not calls:
            return []
        (name, *_), *_ = calls.values()
        found = self._each(name, {number: tuple(given) for number, (_, *given) in calls.items()})
        lost = dict[int, BaseException]()
        for number, result in found.items():
            if isinstance(result, dict) and any(id in self._owners and id not in result for id in shares[number]):
                lost[number] = DataError("it does not have the documents that it found")
        if lost:
            self._fail(lost, False)
        return [(result, shares[number]) for number, result in found.items()]

    @property
    def _alive(self) -> list[int]:
        lost = self._lost if self._is_snapshot else self._resting()
        return [number for number in range(len(self._calls)) if number not in lost]

    def _resting(self) -> set[int]:
        """Return the shards that did not answer in time, and are not asked for as long again: few searches wait."""
        now = time.monotonic()
        found = {number for number, until in self._rest_until.items() if until > now}
        return found if self._partial and len(found) < len(self._calls) else set()

    def _ask(self, name: str, *args: Unchecked) -> dict[int, Unchecked]:
        """Ask every shard the same; return the answers by shard, in their order."""
        return self._each(name, dict.fromkeys(self._alive, args))

    def _each(self, name: str, args: Mapping[int, tuple[Unchecked, ...]]) -> dict[int, Unchecked]:
        return self._begin(name, args)()

    def _begin(self, name: str, args: Mapping[int, tuple[Unchecked, ...]]) -> Callable[[], dict[int, Unchecked]]:
        """Call shards at once; return a function that waits for their answers, by shard."""
        if not self._is_snapshot or self._pinned is not None:
            return self._send(name, args)
        with locking(self._pinning):  # the first answers decide what a search sees
            found = self._send(name, {number: args[number] for number in args if number not in self._lost})()
        return lambda: found

    def _send(
        self, name: str, args: Mapping[int, tuple[Unchecked, ...]], apart: bool = False
    ) -> Callable[[], dict[int, Unchecked]]:
        """Call shards at once; return a function that waits for their answers.

        It raises `ShardError` for shards that fail, or `StaleSnapshot` if a search can go on without them.

        apart: the calls are no part of a search; all must answer
        """
        pinned, futures, failed = self._pinned, dict[int, Future[Unchecked]](), dict[int, BaseException]()
        known = {number: (pinned or self._latest).get(number) for number in args}
        for number, given in args.items():
            version = None if (have := known[number]) is None else have[0]
            try:
                futures[number] = self._calls[number](name, version if pinned else None, version, *given)
            except Exception as error:
                failed[number] = error

        def receive() -> dict[int, Unchecked]:
            results, seen = dict[int, Unchecked](), dict[int, tuple[int, Facts]]()
            refused = dict[int, RankerError]()
            self._wait([*futures.values()], self._timeout * (_OF_WRITES if name in WRITES else 1))
            for number, future in futures.items():
                if not future.done():
                    self._rest_until[number] = time.monotonic() + self._timeout
                    future.cancel()
                    failed[number] = TimeoutError()
                elif future.cancelled():
                    failed[number] = RuntimeError("the call was cancelled")
                elif (error := future.exception()) is not None:
                    failed[number] = error
                else:
                    try:
                        answer = read_answer(future.result(), name, args[number], known[number], pinned is not None)
                        self._require_alike(answer)
                    except ValueError as problem:
                        failed[number] = DataError(f"its answer to {name} is malformed: {problem}")
                        continue
                    if isinstance(answer, RankerError):
                        refused[number] = answer
                    else:
                        seen[number], results[number] = answer[0], answer[1]
            if any(isinstance(one, Gone) for one in refused.values()) and self._restarts < _MOST_RESTARTS:
                raise StaleSnapshot(self._fresh(()))
            if refused and (name in WRITES or name not in READS or (name in MAY_REFUSE and not results)):
                raise next(iter(refused.values()))
            failed.update(refused)
            if pinned is None:
                self._latest.update(seen)
                self._facts_at[0] = time.monotonic()
            if failed:
                self._fail(failed, apart)
            if self._is_snapshot and pinned is None and not apart:
                self._pinned = seen
            return results

        return receive

    def _require_alike(self, answer: Union[RankerError, tuple[tuple[int, Facts], Unchecked]]) -> None:
        """Raise `ValueError` for an answer of an index that was built otherwise than the others."""
        if not isinstance(answer, RankerError):
            (_, facts), _ = answer
            for _, one in [*self._latest.values()][:1]:
                if facts is not one and not facts.info.same_kind(one.info):
                    raise ValueError("its index was built otherwise than the others")

    def _wait(self, futures: Sequence[Future[Unchecked]], seconds: float) -> None:
        """Wait for calls; raises `Abandoned` once nobody waits for the search."""
        left, until = set(futures), time.monotonic() + seconds
        while left and (rest := until - time.monotonic()) > 0:
            check()
            with idle():
                left = wait(left, min(rest, _LOOK_SECONDS)).not_done

    def _fail(self, failed: Mapping[int, BaseException], is_needed: bool) -> None:
        """Note shards that failed, or raise what `_send` says."""
        lost = {*failed, *(self._lost if self._is_snapshot else ())}
        if is_needed or not self._partial or len(lost) == len(self._calls):
            (number, error), total = min(failed.items(), key=lambda one: one[0]), len(self._calls)
            said = (_text_of(error).strip().splitlines() or ["no answer in time"])[-1]
            others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            raise ShardError(
                f"shard {number + 1} of {total}{others} failed: {brief(type(error).__name__)}: {brief(said)}; see its "
                "log and start it again, or search with partial=True"
            )
        if self._pinned is not None:
            raise StaleSnapshot(self._fresh(failed))
        self._lost = lost

    def _fresh(self, failed: Iterable[int]) -> RemoteCollection:
        found = self.snapshot()
        found._lost, found._restarts = self._lost | {*failed}, self._restarts + 1
        return found

    def _any(self, name: str, *args: Unchecked) -> Unchecked:
        """Ask one shard, each time another; if it fails, the next one."""
        total = len(self._calls)
        start = next(self._turn) % total
        for number in range(start, start + total):
            try:
                return self._send(name, {number % total: args}, apart=True)()[number % total]
            except ShardError:
                if number == start + total - 1:
                    raise
        return None


def _text_of(error: BaseException) -> str:
    """Return the text of an error that a shard has sent."""
    try:
        return str(error)
    except BaseException:  # that it has chosen
        return "an error without a text"


class RemoteMatches:
    """Documents of a snapshot that match a query; see `Matches`."""

    def __init__(self, now: RemoteCollection, query: Optional[Asked], phrase_filter: Optional[ParsedQuery]):
        self._now, self._of = now, (query.query if isinstance(query, CountedQuery) else query, phrase_filter)

    def count(self, where: Optional[Filter]) -> int:
        return sum(self._now._ask("matches", *self._of, self._now._checked(where)).values())

    def facets(self, wanted: Mapping[str, Optional[Filter]]) -> dict[str, dict[str, int]]:
        def scales() -> list[Mapping[str, FieldScale]]:
            return [*self._now._ask("scales", *self._of, typed).values()]

        def values(others: Facets) -> list[Mapping[str, Counts]]:
            return [*self._now._ask("facet_values", *self._of, dict(others)).values()]

        types = self._now._types([*wanted])
        typed = {name: Wanted(types[name], self._now._checked(where)) for name, where in wanted.items()}
        return facets_of(typed, scales, values)

    def first(
        self,
        sort: Sequence[str],
        count: int,
        after: Optional[SortedDocument] = None,
        where: Optional[Filter] = None,
    ) -> list[SortedDocument]:
        names = [name.removeprefix("-") for name in sort]
        types = [*map(self._now._types(names).__getitem__, names)]
        asked = [*sort], count, after, self._now._checked(where), types
        found = self._now._ask("first", *self._of, *asked)
        self._now._owners.update((one.id, number) for number, own in found.items() for one in own)
        return merged(found.values(), sort_keys(sort, types), count)


class _RemoteTower:
    """Tower of a field that runs where the shards are."""

    def __init__(self, collection: RemoteCollection, field: str):
        self._collection, self._field = collection, field

    def vectors(self, values: Sequence[Unchecked]) -> Vectors:
        raise UsageError("documents get their vectors where their shard is: add them there")

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        found: Vectors = self._collection._any("query_vectors", self._field, list(queries))
        return found


class _Wanted:
    """Notes the tokens whose counts a query needs, so that they are asked for in one round; see `KnownWords`."""

    def __init__(self, words: WordSearcher):
        self.tokens_of_word, self.tokens = words.tokens_of_word, list[str]()

    def counts(self, tokens: Sequence[str]) -> list[int]:
        self.tokens += tokens
        return [1] * len(tokens)

    def near(self, word: str, unfinished: bool = False) -> list[tuple[str, int]]:
        return []

    def beginning(self, prefix: str, most: int) -> list[str]:
        return []


class _KnownWords:
    """Words of all shards; see `KnownWords`."""

    def __init__(self, now: RemoteCollection, words: WordSearcher):
        self._now, self.tokens_of_word = now, words.tokens_of_word

    def counts(self, tokens: Sequence[str]) -> list[int]:
        self._now._count((token,) for token in tokens)
        return [self._now._counts[token,] for token in tokens]

    def near(self, word: str, unfinished: bool = False) -> list[tuple[str, int]]:
        return [one for own in self._now._ask("near", word, unfinished).values() for one in own]

    def beginning(self, prefix: str, most: int) -> list[str]:
        each = self._now._ask("beginning", prefix, most).values()
        return sorted({word for own in each for word in own}, key=shortest_first)[:most]


def _plain(word: Word) -> Word:
    """Return a word under which its documents are counted: one token, whatever field has it, is one word."""
    return word[:1] if len({*word}) == 1 else word


def _best(several: Sequence[Hits], k: int) -> Hits:
    """Return the best hits of several shards, equal scores in their order."""
    scores = np.concatenate([one.scores for one in several])
    titled = np.concatenate([np.zeros(len(one.ids), bool) if one.titled is None else one.titled for one in several])
    order = np.argsort(-scores, kind="stable")
    is_kept = titled[order] & (np.cumsum(titled[order]) <= k)
    is_kept[:k] = True
    order = order[is_kept]
    ids = [id for one in several for id in one.ids]
    spans = [span for one in several for span in one.passages or [None] * len(one.ids)]
    has_passages = any(one.passages is not None for one in several)
    places = order.tolist()
    passages, named = [spans[n] for n in places] if has_passages else None, titled[order] if titled.any() else None
    return Hits([ids[n] for n in places], scores[order], passages, named)
