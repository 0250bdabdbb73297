"""Shards of an index in other processes or on other machines, searched as if all were in one folder.

service = ShardService("index-1")  # beside the folder of a shard
calls = [lambda name, *args: pool.submit(service.call, name, *args), ...]  # here: a transport for each shard
with SearchEngine(RemoteCollection(calls), SearchSettings()) as searcher:
    searcher.search("query")

A document must be in one shard only. Searches read a `RemoteSnapshot`. Scores, ties, totals and facets are the same as
if `open_shards` had opened the shards' folders in the order of the calls. A search first adds up the shards' statistics
and document frequencies; each shard then scores its documents by the sums.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import DataError, UsageError, refuse_text
from paddle_ranker.retrieval.snapshots.searchable import Added, LookupRequest, StaleSnapshot, phrase_filter_of
from paddle_ranker.retrieval.snapshots.sorting import merge_sorted, sort_keys
from paddle_ranker.retrieval.stored.candidate_indexes import Document, Hits, Like
from paddle_ranker.retrieval.stored.content_files import ContentFiles
from paddle_ranker.retrieval.stored.manifest import WORDS, IndexInfo
from paddle_ranker.retrieval.stored.schema import FieldTower
from paddle_ranker.retrieval.values.facets import Counts, Facets, FieldSample, FieldScale, Wanted, facets_of
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.listing import SortedDocument
from paddle_ranker.retrieval.values.typed_values import CommonTypes, Value
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery
from paddle_ranker.retrieval.words.query_rewriting import WordQuery
from paddle_ranker.retrieval.words.synonyms import Synonyms
from paddle_ranker.retrieval.words.word_search import AnyQuery, CountedQuery, Word, WordSearcher, shortest_first
from paddle_ranker.retrieval.work.turns import locking, reserve
from paddle_ranker.scale.remote_calls import Call, MergedFacts, ShardCalls
from paddle_ranker.scale.shard_service import Facts
from paddle_ranker.storage.prefetch import chunks
from paddle_ranker.storage.untrusted import Unchecked

_CURRENT_SECONDS = 1.0  # seconds for which facts of shards count as current; searches always get the newest facts
_AT_ONCE = 256  # documents that are added or fetched at a time
_MOST_RESTARTS = 3  # times that a search begins again because shards have changed meanwhile
_HELD = 1 << 22  # code points of ranked documents that a search keeps, to show them without fetching them again
_NO_FIELDS: Mapping[str, float] = {}


class RemoteCollection:
    """Shards in other processes or on other machines, as one collection.

    Args:
        calls: a transport to each shard, in the order of their documents.
        partial: if some shards fail, search the other shards; `RemoteSnapshot.shards` counts the failed ones. If False,
            a failure raises `ShardError`.
        timeout: seconds that a shard has for each call.

    Attributes:
        writer: adds and removes documents.

    Raises `UsageError` for shards that were not built alike. The next search calls a failed shard again; with
    `partial`, a shard that timed out is called again only after `timeout` seconds.
    """

    def __init__(self, calls: Sequence[Call], *, partial: bool = False, timeout: float = 30.0):
        self._calls = ShardCalls(calls, partial, timeout)
        self.writer = RemoteWriter(self._calls)
        self._ask_facts(range(len(calls)))
        self._calls.merged()  # raises for shards of other kinds

    def _ask_facts(self, numbers: Iterable[int]) -> None:
        if failed := self._calls.send("facts", dict.fromkeys(numbers, ()))().failures():
            self._calls.require(failed, failed)

    @property
    def info(self) -> IndexInfo:
        return self._calls.merged().info

    @property
    def fields(self) -> list[str]:
        return self._calls.merged().fields

    def __len__(self) -> int:
        return self.info.count

    @property
    def is_current(self) -> bool:
        """Whether the shards answered within the last second. Even if not, a search sees all additions."""
        return time.monotonic() < self._calls.answered_at + _CURRENT_SECONDS

    def refresh(self) -> bool:
        """Ask the shards for their generations; return whether any shard has a newer one."""
        before, resting = self.info.generation, self._calls.resting()
        self._ask_facts(number for number in range(len(self._calls)) if number not in resting)
        return self.info.generation > before

    def snapshot(self) -> RemoteSnapshot:
        """Return a snapshot for one search; each shard answers all its calls from the same generation."""
        return RemoteSnapshot(self._calls)

    def require_address(self) -> None:
        """Do nothing: shards never have their vectors in Milvus."""

    def close(self) -> None:
        """Do nothing: the caller closes the transports."""


class RemoteWriter:
    """Writer of documents to shards elsewhere; every shard must answer."""

    def __init__(self, calls: ShardCalls):
        self._calls, self._writing = calls, threading.Lock()

    def add(self, documents: Iterable[Document]) -> Added:
        """Add documents, or replace documents of the same ids; new documents go to the smallest shard.

        Raises `ShardError` if a shard fails. Documents that the other shards have added by then stay; add all documents
        again.
        """
        refuse_text(documents, "documents", Document)
        added = Added(0, 0, 0)
        with self._writing:
            for batch in chunks(documents, _AT_ONCE):
                missing = self._all("missing", [document.id for document in batch])
                ids = {document.id for document in batch}
                owners = {id: number for number, lacking in missing.items() for id in ids - {*lacking}}
                sizes = {number: facts.info.count for number, (_, facts) in self._calls.latest.items()}
                shares: dict[int, list[Document]] = {}
                for document in batch:
                    if document.id not in owners:
                        owners[document.id] = min(sizes, key=lambda number: (sizes[number], number))
                        sizes[owners[document.id]] += 1
                    shares.setdefault(owners[document.id], []).append(document)
                done = self._calls.all("add", {number: (share,) for number, share in shares.items()})
                added = Added(*map(sum, zip(added, *done.values())))
        return added

    def remove(self, ids: Iterable[str]) -> int:
        """Remove documents by id; return how many of the ids existed. Every shard must answer."""
        refuse_text(ids, "ids")
        with self._writing:
            return sum(self._all("remove", list(ids)).values())

    def _all(self, name: str, *args: Unchecked) -> dict[int, Unchecked]:
        return self._calls.all(name, dict.fromkeys(range(len(self._calls)), args))


class RemoteSnapshot:
    """Snapshot of shards in other processes or on other machines, for one search; methods as in `LocalSnapshot`.

    The answers to the first call fix the generation of each shard. A shard that fails in the first call is left out. If
    a shard fails in a later call, or no longer has its generation, a method raises `StaleSnapshot`, so that the search
    begins again. If partial answers are not allowed, each failure raises `ShardError`.

    Args:
        calls: calls to the shards.
        lost: numbers of shards that are not called.
        restarts: how often the search has begun again.
    """

    files: Optional[ContentFiles] = None

    def __init__(self, calls: ShardCalls, lost: Iterable[int] = (), restarts: int = 0):
        self._calls, self._lost, self._restarts = calls, calls.resting() | {*lost}, restarts
        self._pinned: Optional[dict[int, tuple[int, Facts]]] = None  # by shard: version that the search sees
        self._pinning = threading.Lock()
        self._counts: dict[Word, int] = {}  # number of live documents in all shards, by word
        self._owners: dict[str, int] = {}  # the shard of a document that was found, by id
        self._documents, self._held = dict[str, Document](), 0  # fetched, and the code points of their texts

    @property
    def _all(self) -> MergedFacts:
        """Merged facts of the generations that this search sees; before the first call, the shards' latest facts."""
        return self._calls.merged(self._pinned)

    @property
    def info(self) -> IndexInfo:
        return self._all.info

    @property
    def fields(self) -> list[str]:
        if self._pinned is None:
            self._ask("facts")
        return self._all.fields

    @property
    def shards(self) -> Mapping[str, int]:
        return {"total": len(self._calls), "failed": len(self._lost)}

    def __len__(self) -> int:
        return self.info.count

    def tower(self, field: str) -> FieldTower:
        """Return the tower of a vector field; each of its calls goes to one shard, which computes the vectors."""
        return _RemoteTower(self._calls, field)

    def like_vectors(self, field: str, like: Like) -> Vectors:
        """Return the vector of an example: of a file from any shard, of a document from the shard that has it."""
        if like.kind:
            computed: Vectors = self._calls.any("like_vectors", field, tuple(like))
            return computed
        answers = self._ask("like_vectors", field, tuple(like))
        vectors: Vectors = np.concatenate([*answers.values()])[:1]
        return vectors

    def begin_search(self, request: LookupRequest) -> Callable[[], list[Hits]]:
        """Begin to search all shards; return a function that waits for their hits and merges them.

        Equal scores are in the shards' order.
        """
        queries = request.queries
        if request.by == WORDS:
            queries = self._counted([query for query in queries if not isinstance(query, np.ndarray)])
        where, fields = self._typed(request.where), dict(request.fields)
        shard_request = request._replace(queries=queries, where=where, fields=fields)
        received = self._begin("search", dict.fromkeys(self._alive, tuple(shard_request)))

        def receive() -> list[Hits]:
            answers = received()
            for number, hit_lists in answers.items():
                self._owners.update((id, number) for hits in hit_lists for id in hits.ids)
            return [_best(shard_hits, request.top_k) for shard_hits in zip(*answers.values())]

        return receive

    def rewrite_query(self, query: ParsedQuery, prefix: bool = False, synonyms: Optional[Synonyms] = None) -> WordQuery:
        words = self._all.words
        wanted = None if words is None else _Wanted(words)
        rewriter = None if words is None or wanted is None else words.rewriter_of(wanted)
        if words is None or wanted is None or rewriter is None:
            return WordQuery(query.text, query.text)
        rewriter.rewrite(query)
        self._count([*((token,) for token in wanted.tokens), *words.words_in(query.text)[0]])  # in one round
        rewriter = words.rewriter_of(_KnownWords(self, words))
        assert rewriter is not None
        return rewriter.rewrite(query, prefix, synonyms)

    def did_you_mean(self, query: WordQuery) -> Optional[str]:
        words = self._all.words
        rewriter = None if words is None else words.rewriter_of(_KnownWords(self, words))
        return None if rewriter is None else rewriter.did_you_mean(query)

    def words_given(self, query: WordQuery) -> dict[str, str]:
        (counted,), words = self._counted([query]), self._all.words
        return {} if words is None else words.given_of(counted)

    def word_weights(self, query: AnyQuery) -> dict[str, float]:
        (counted,), words = self._counted([query]), self._all.words
        return {} if words is None else words.weights_of(counted)

    def query_weight(self, query: AnyQuery) -> float:
        (counted,), words = self._counted([query]), self._all.words
        return 0.0 if words is None else words.total_weight(counted)

    def phrase_filter(self, query: ParsedQuery) -> Optional[ParsedQuery]:
        existing, left = list[str](), list(query.phrases)
        while left:
            phrases = [*existing, *left]
            most = max(map(len, self._ask("phrases", phrases).values()))  # each shard stops at a phrase that it lacks
            existing, left = phrases[:most], phrases[most + 1 :]
        return phrase_filter_of(query, existing)

    def matching(self, query: Optional[AnyQuery], phrase_filter: Optional[ParsedQuery] = None) -> RemoteMatches:
        return RemoteMatches(self, query, phrase_filter)

    def explain_words(
        self, query: AnyQuery, ids: Sequence[str], fields: Mapping[str, float] = _NO_FIELDS
    ) -> dict[str, dict[str, float]]:
        (counted,) = self._counted([query])
        answers = self._ask_owners(ids, lambda owned: ("explain_words", counted, owned, dict(fields)))
        return {id: added for answer, _ in answers for id, added in answer.items()}

    def type_of(self, field: str) -> str:
        return self.types_of([field])[field]

    def scale(self, field: str) -> FieldScale:
        return FieldScale.merged([*self._ask("scale", field, self.type_of(field)).values()])

    def field_values(self, most: int) -> dict[str, FieldSample]:
        samples = [*self._ask("field_values", most, self.types_of(self.fields)).values()]
        names = sorted({name for sample in samples for name in sample})
        return {name: FieldSample.merged([sample[name] for sample in samples if name in sample]) for name in names}

    def values(self, field: str, ids: Sequence[str]) -> list[tuple[Value, ...]]:
        by_id = dict[str, tuple[Value, ...]]()
        type = self.type_of(field) if ids else ""
        for shard_values, shard_ids in self._ask_owners(ids, lambda owned: ("values", field, type, owned)):
            by_id.update((id, values) for id, values in zip(shard_ids, shard_values) if values)
        return [by_id.get(id, ()) for id in ids]

    def missing(self, ids: Iterable[str]) -> list[str]:
        wanted = list(dict.fromkeys(ids))
        answers = [set(answer) for answer in self._ask("missing", wanted).values()]
        return [id for id in wanted if all(id in answer for answer in answers)]

    def documents_of(self, ids: Sequence[str]) -> dict[str, Document]:
        documents = {id: self._documents[id] for id in ids if id in self._documents}
        answers = self._ask_owners([id for id in ids if id not in documents], lambda owned: ("documents_of", owned))
        for id, document in (item for answer, _ in answers for item in answer.items()):
            documents[id] = document
            reserve(sys.getsizeof(document.text))
            self._held += len(document.text)
            if self._held <= _HELD:
                self._documents[id] = document
        return {id: documents[id] for id in ids if id in documents}

    def each(self, ids: Sequence[str]) -> Iterator[tuple[str, Document]]:
        for part in chunks(ids, _AT_ONCE):
            yield from self.documents_of(part).items()

    def _typed(self, where: Optional[Filter]) -> Optional[Filter]:
        """Return `where` with the types of its fields in all shards; raises `FilterError` as `Condition.typed` does."""
        if where is None or where.is_typed:
            return where
        fields = self.fields
        types = self.types_of([condition.field for condition in where.conditions if condition.field in fields])
        return where.typed(fields, types.__getitem__)

    def types_of(self, fields: Sequence[str]) -> dict[str, str]:
        """Return the types of fields by name; undeclared types come from the shards."""
        declared = {name: self.info.schema.type_of(name) for name in fields}
        others = [name for name, type in declared.items() if not type]
        if others and (self._pinned is None or any(name not in self._all.types for name in others)):
            common_types = {name: CommonTypes() for name in others}
            for answer in self._ask("common_types", others).values():
                for name, types in answer.items():
                    common_types[name].merge(types)
            self._all.types.update({name: common.undeclared_type for name, common in common_types.items()})
        return {name: type or self._all.types[name] for name, type in declared.items()}

    def _counted(self, queries: Sequence[AnyQuery]) -> list[AnyQuery]:
        """Return queries with the statistics and document frequencies of all shards."""
        words = self._all.words
        if words is None:
            return [*queries]
        plain = [query.query if isinstance(query, CountedQuery) else query for query in queries]
        words_of_queries = [[*words.words_in(query)[0]] for query in plain]
        self._count([word for query_words in words_of_queries for word in query_words])
        statistics = self._all.statistics
        assert statistics is not None
        return [
            CountedQuery(query, statistics, {word: self._counts[_plain(word)] for word in query_words})
            for query, query_words in zip(plain, words_of_queries)
        ]

    def _count(self, words: Iterable[Word]) -> None:
        """Add words to `_counts`, each with the number of documents of all shards that have the word."""
        missing = list(dict.fromkeys(word for word in map(_plain, words) if word not in self._counts))
        if missing or self._pinned is None:
            counts = self._ask("counts", missing).values()
            self._counts.update(zip(missing, map(sum, zip(*counts))))

    def _ask_owners(
        self, ids: Sequence[str], call: Callable[[list[str]], tuple[Unchecked, ...]]
    ) -> list[tuple[Unchecked, list[str]]]:
        """Call, for each id, the shard that has the document; for an id whose shard is unknown, call all shards.

        Returns, for each called shard, its result and the ids of its call.

        call: called with ids; returns the name and the arguments of the call to a shard
        """
        shares: dict[int, list[str]] = {}
        for id in dict.fromkeys(ids):
            for number in [self._owners[id]] if id in self._owners else self._alive:
                shares.setdefault(number, []).append(id)
        calls = {number: call(shard_ids) for number, shard_ids in shares.items()}
        if not calls:
            return []
        (name, *_), *_ = calls.values()
        results = self._each(name, {number: tuple(arguments) for number, (_, *arguments) in calls.items()})
        lost = dict[int, BaseException]()
        for number, result in results.items():
            if isinstance(result, dict) and any(id in self._owners and id not in result for id in shares[number]):
                lost[number] = DataError("it does not have the documents that it found")
        if lost:
            self._fail(lost)
        return [(result, shares[number]) for number, result in results.items()]

    @property
    def _alive(self) -> list[int]:
        return [number for number in range(len(self._calls)) if number not in self._lost]

    def _ask(self, name: str, *args: Unchecked) -> dict[int, Unchecked]:
        """Send the same call to every shard that is not left out; return the answers by shard, in the shards' order."""
        return self._each(name, dict.fromkeys(self._alive, args))

    def _each(self, name: str, args: Mapping[int, tuple[Unchecked, ...]]) -> dict[int, Unchecked]:
        return self._begin(name, args)()

    def _begin(self, name: str, args: Mapping[int, tuple[Unchecked, ...]]) -> Callable[[], dict[int, Unchecked]]:
        """Send a call to shards at the same time; return a function that waits for their answers, by shard."""
        if self._pinned is not None:
            return self._send(name, args)
        with locking(self._pinning):  # the first answers decide what a search sees
            answers = self._send(name, {number: args[number] for number in args if number not in self._lost})()
        return lambda: answers

    def _send(self, name: str, args: Mapping[int, tuple[Unchecked, ...]]) -> Callable[[], dict[int, Unchecked]]:
        pinned = self._pinned
        receive_answers = self._calls.send(name, args, pinned)

        def receive() -> dict[int, Unchecked]:
            answers = receive_answers()
            if answers.is_gone and self._restarts < _MOST_RESTARTS:
                raise StaleSnapshot(self._fresh(()))
            if failed := answers.failures():
                self._fail(failed)
            if pinned is None:
                self._pinned = answers.seen
            return answers.results

        return receive

    def _fail(self, failed: Mapping[int, BaseException]) -> None:
        """Leave out failed shards. After the first call, raise `StaleSnapshot`, so that the search begins again.

        Raises `ShardError` if the other shards may not answer alone.
        """
        lost = self._lost | {*failed}
        self._calls.require(lost, failed)
        if self._pinned is not None:
            raise StaleSnapshot(self._fresh(failed))
        self._lost = lost

    def _fresh(self, failed: Iterable[int]) -> RemoteSnapshot:
        return RemoteSnapshot(self._calls, self._lost | {*failed}, self._restarts + 1)


class RemoteMatches:
    """Documents of a snapshot that match a query; see `Matches`."""

    def __init__(self, now: RemoteSnapshot, query: Optional[AnyQuery], phrase_filter: Optional[ParsedQuery]):
        self._now, self._of = now, (query.query if isinstance(query, CountedQuery) else query, phrase_filter)

    def count(self, where: Optional[Filter]) -> int:
        return sum(self._now._ask("matches", *self._of, self._now._typed(where)).values())

    def facets(self, wanted: Mapping[str, Optional[Filter]]) -> dict[str, dict[str, int]]:
        def scales() -> list[Mapping[str, FieldScale]]:
            return [*self._now._ask("scales", *self._of, typed).values()]

        def values(others: Facets) -> list[Mapping[str, Counts]]:
            return [*self._now._ask("facet_values", *self._of, dict(others)).values()]

        types = self._now.types_of([*wanted])
        typed = {name: Wanted(types[name], self._now._typed(where)) for name, where in wanted.items()}
        return facets_of(typed, scales, values)

    def first(
        self,
        sort: Sequence[str],
        count: int,
        after: Optional[SortedDocument] = None,
        where: Optional[Filter] = None,
    ) -> list[SortedDocument]:
        names = [name.removeprefix("-") for name in sort]
        types = [*map(self._now.types_of(names).__getitem__, names)]
        arguments = [*sort], count, after, self._now._typed(where), types
        answers = self._now._ask("first", *self._of, *arguments)
        for number, documents in answers.items():
            self._now._owners.update((document.id, number) for document in documents)
        return merge_sorted(answers.values(), sort_keys(sort, types), count)


class _RemoteTower:
    """Tower of a vector field that runs at the shards."""

    def __init__(self, calls: ShardCalls, field: str):
        self._calls, self._field = calls, field

    def vectors(self, values: Sequence[Unchecked]) -> Vectors:
        raise UsageError("documents get their vectors where their shard is: add them there")

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        vectors: Vectors = self._calls.any("query_vectors", self._field, list(queries))
        return vectors

    def query_read(self, query: str) -> Optional[int]:
        return None  # not worth a call to a shard


class _Wanted:
    """`KnownWords` without words; records the tokens whose counts a query needs, to fetch all counts in one round."""

    def __init__(self, words: WordSearcher):
        self.tokens_of_word, self.common_spelling = words.tokens_of_word, words.common_spelling
        self.tokens = list[str]()

    def counts(self, tokens: Sequence[str]) -> list[int]:
        self.tokens += tokens
        return [1] * len(tokens)

    def near(self, word: str, unfinished: bool = False) -> list[tuple[str, int]]:
        return []

    def alike(self, words: Sequence[str]) -> list[list[str]]:
        return [[] for _ in words]

    def beginning(self, prefix: str, most: int) -> list[str]:
        return []


class _KnownWords:
    """`KnownWords` of all shards."""

    def __init__(self, now: RemoteSnapshot, words: WordSearcher):
        self._now = now
        self.tokens_of_word, self.common_spelling = words.tokens_of_word, words.common_spelling

    def counts(self, tokens: Sequence[str]) -> list[int]:
        self._now._count((token,) for token in tokens)
        return [self._now._counts[token,] for token in tokens]

    def near(self, word: str, unfinished: bool = False) -> list[tuple[str, int]]:
        return [match for matches in self._now._ask("near", word, unfinished).values() for match in matches]

    def alike(self, words: Sequence[str]) -> list[list[str]]:
        if not words or not self._now._all.has_variants:
            return [[] for _ in words]
        answers = self._now._ask("alike", [*words]).values()
        return [sorted({other for others in of_word for other in others}) for of_word in zip(*answers)]

    def beginning(self, prefix: str, most: int) -> list[str]:
        answers = self._now._ask("beginning", prefix, most).values()
        return sorted({word for answer in answers for word in answer}, key=shortest_first)[:most]


def _plain(word: Word) -> Word:
    """Return a word in the form in which shards count it: if all fields have the same token, that token once."""
    return word[:1] if len({*word}) == 1 else word


def _best(shard_hits: Sequence[Hits], k: int) -> Hits:
    """Return the best `k` hits of several shards, and the best `k` whose whole title is the query.

    Equal scores keep the shards' order.
    """
    scores = np.concatenate([hits.scores for hits in shard_hits])
    titles = np.concatenate([np.zeros(len(hits.ids)) if hits.titles is None else hits.titles for hits in shard_hits])
    order = np.argsort(-scores, kind="stable")
    is_whole = titles[order] == 1
    is_kept = is_whole & (np.cumsum(is_whole) <= k)
    is_kept[:k] = True
    order = order[is_kept]
    ids = [id for hits in shard_hits for id in hits.ids]
    spans = [span for hits in shard_hits for span in hits.passages or [None] * len(hits.ids)]
    has_passages = any(hits.passages is not None for hits in shard_hits)
    passages, matches = [spans[n] for n in order] if has_passages else None, titles[order]
    return Hits([ids[n] for n in order], scores[order], passages, matches if matches.any() else None)
