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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, is_dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import NamedTuple, Optional, Protocol, Union, get_args, get_origin, get_type_hints

import numpy as np

from paddle_ranker.errors import DataError, RankerError, UsageError, brief, listed, refuse_text, shortened
from paddle_ranker.retrieval.adding import Added
from paddle_ranker.retrieval.collection import Collection, Matches, how_searched, restricting
from paddle_ranker.retrieval.exact import Vectors
from paddle_ranker.retrieval.facets import (
    DATES,
    NUMBERS,
    Counts,
    Facets,
    FieldSample,
    FieldScale,
    Wanted,
    facets_of,
)
from paddle_ranker.retrieval.filters import Filter, FilterError
from paddle_ranker.retrieval.indexes import Document, Hits
from paddle_ranker.retrieval.manifest import MILVUS, WORDS, IndexInfo, facts_of, info_of
from paddle_ranker.retrieval.reading import ParsedQuery, Synonyms, WordQuery
from paddle_ranker.retrieval.schema import FieldTower
from paddle_ranker.retrieval.searchable import Anew, Asking, ShardError
from paddle_ranker.retrieval.sorting import SortedDocument, merged, sort_keys
from paddle_ranker.retrieval.values import MOMENTS, CommonTypes, Value, is_value
from paddle_ranker.retrieval.words import ASKED, Asked, CountedQuery, Totals, Word, WordSearcher, shortest_first
from paddle_ranker.retrieval.work import check, idle, in_turn, locking, reserve
from paddle_ranker.storage.untrusted import Unchecked

_KEPT_SECONDS = 30.0  # that a shard keeps what a search sees, after the search's last call
_MOST_KEPT = 32  # generations that a shard keeps for searches, beside the latest
_WRITE_SECONDS = 10.0  # that a shard waits for another process which writes to its folder
_CURRENT_SECONDS = 1.0  # that the facts of the shards are not asked for again, but by searches
_LOOK_SECONDS = 0.1  # between two looks whether a search is still waited for
_MOST_ANEW = 3  # times that a search is begun anew because shards have changed meanwhile
_OF_WRITES = 20  # times as long a shard has for adding documents as for other calls
_MOST_MERGED = 2  # versions of all shards, whose facts are kept together
_AT_ONCE = 256  # documents that are fetched at a time
_HELD = 1 << 22  # code points of documents that a search keeps, as it shows those that it has ranked
_MATCHES = 8  # queries whose matching documents a shard keeps for totals and facets
_NO_FIELDS: Mapping[str, float] = {}
_DEEPEST = 200  # lists and objects of a value of a field inside each other
_JSON: Mapping[type, object] = {
    **{kind: kind for kind in (str, int, float, bool, type(None))},
    list: list[object],
    dict: dict[str, object],
}
_MOST = 1 << 48  # what a shard counts


class Call(Protocol):
    """Transport to a shard: calls `ShardService.call` there."""

    def __call__(self, name: str, *args: Unchecked) -> Future[Unchecked]: ...


class Facts(NamedTuple):
    """A version of a shard: its `index.json`, the names of its documents' fields, BM25's totals if it has words."""

    info: IndexInfo
    fields: list[str]
    totals: Optional[Totals]


class _SentFacts(NamedTuple):
    """`Facts` as they are sent: `info` is what `manifest.facts_of` says."""

    info: object
    fields: list[str]
    totals: Optional[Totals]


class Answer(NamedTuple):
    """Answer of a shard, which `_read` checks: what comes from a shard is data.

    version: generation that was asked
    facts: of this version, None if the caller knows them
    """

    version: int
    facts: Optional[_SentFacts]
    result: Unchecked


class Refused(NamedTuple):
    """Error of a call because of what was asked, not because the shard failed: a name in `_REFUSALS`, and its text."""

    kind: str
    problem: str


class _Gone(UsageError):
    """A shard no longer has the generation that a search sees."""


_REFUSALS: Mapping[str, type[RankerError]] = {
    "gone": _Gone,
    "filter": FilterError,
    "usage": UsageError,
    "data": DataError,
}


class _Seen:
    """Generation of a shard that searches see; `used` is the time of the last call."""

    def __init__(self, collection: Collection):
        self.collection, self.used = collection, time.monotonic()
        self.matching = lru_cache(maxsize=_MATCHES)(collection.matching)

    @property
    def facts(self) -> _SentFacts:
        now = self.collection.generation
        return _SentFacts(facts_of(now.info), now.fields, None if now.words is None else now.words.totals)

    @property
    def words(self) -> WordSearcher:
        words = self.collection.generation.words
        assert words is not None  # nothing of words is asked without them
        return words

    def matches(self, query: Optional[Asked], restricted: Optional[ParsedQuery]) -> Matches:
        """Return the documents that match a query."""
        return self.matching(query, restricted)


class Read(NamedTuple):
    """A question to a shard.

    answer: answers it, given what is searched and what was asked
    kind: type of the answer, see `_require`
    fits: whether an answer of the type fits what was asked; given the answer, the shard's facts and what was asked
    """

    answer: Callable[..., Unchecked]  # type: ignore[explicit-any]  # any function
    kind: object
    fits: Callable[..., bool] = lambda *_: True  # type: ignore[explicit-any]


def _is_count(value: int) -> bool:
    return 0 <= value < _MOST


def _are_facts(sent: _SentFacts, info: IndexInfo) -> bool:
    """Return whether facts of a shard fit its `index.json`."""
    if (totals := sent.totals) is None or info.words is None:
        return totals is None and info.words is None
    numbers = [totals.documents, *totals.lengths]
    return len(totals.lengths) == len(info.schema.words) and all(map(_is_count, numbers))


def _are_hits(found: list[Hits], facts: Facts, by: str, queries: Sequence[Asked], top_k: int, *_: object) -> bool:
    spans = [one.passages for one in found if one.passages is not None]
    return len(found) == len(queries) and all(
        len(one.ids) == len({*one.ids}) == len(one.scores) <= top_k + _titled(one, top_k)
        and not (np.diff(one.scores) > 0).any()
        and (one.passages is None or len(one.passages) == len(one.ids))
        for one in found
    ) and all(0 <= span[0] < span[1] for own in spans for span in own if span is not None)  # fmt: skip


def _titled(hits: Hits, top_k: int) -> int:
    """Return how many hits have the query as their title; less than -`top_k` if that cannot be."""
    if hits.titled is None:
        return 0
    count = int(np.count_nonzero(hits.titled))
    return count if len(hits.titled) == len(hits.ids) and count <= top_k else -top_k - 1


def _is_scale(found: FieldScale) -> bool:
    if found.scale is None:
        return True
    kind, positions, counts = found.scale
    return (
        kind in (NUMBERS, DATES)
        and 0 < len(positions) == len(counts)
        and bool((positions[1:] > positions[:-1]).all() and ((counts >= 0) & (counts < _MOST)).all())
        and (
            kind == NUMBERS
            or (positions.dtype.kind == "i" and MOMENTS[0] <= positions[0] <= positions[-1] < MOMENTS[1])
        )
    )


def _are_counted(found: Mapping[str, Counts], facts: Facts, query: Asked, restricted: object,
                 wanted: Facets) -> bool:  # fmt: skip
    counts = [one for own in found.values() for one in own.items()]
    return {*found} == {*wanted} and all(is_value(value) and _is_count(count) for value, count in counts)


_READS: dict[str, Read] = {  # type: ignore[explicit-any]  # of a type of arrays
    "facts": Read(lambda seen: None, None),
    "counts": Read(
        lambda seen, words: seen.words.counts_of(words),
        list[int],
        lambda found, facts, words: (
            len(found) == len(words)
            and 0 <= min(found, default=0) <= max(found, default=0) <= (facts.totals.documents if facts.totals else 0)
        ),
    ),
    "near": Read(
        lambda seen, word, unfinished: seen.words.near(word, unfinished),
        list[tuple[str, int]],
        lambda found, *_: all(_is_count(distance) for _, distance in found),
    ),
    "beginning": Read(
        lambda seen, prefix, most: seen.words.beginning(prefix, most),
        list[str],
        lambda found, facts, prefix, most: len(found) <= most and all(one.startswith(prefix) for one in found),
    ),
    "common_types": Read(
        lambda seen, fields: {name: seen.collection.generation.common_types(name) for name in fields},
        dict[str, CommonTypes],
        lambda found, facts, fields: {*found} == {*fields},
    ),
    "phrases": Read(
        lambda seen, phrases: seen.collection.generation.found_phrases(phrases, required=True),
        list[str],
        lambda found, facts, phrases: found == [one for one in phrases if one in found],
    ),
    "search": Read(lambda seen, *args: seen.collection.search(*args), list[Hits], _are_hits),
    "matches": Read(
        lambda seen, query, restricted, where: seen.matches(query, restricted).count(where),
        int,
        lambda found, *_: _is_count(found),
    ),
    "first": Read(
        lambda seen, query, restricted, *args: seen.matches(query, restricted).first(*args),
        list[SortedDocument],
        lambda found, facts, query, restricted, sort, count, *_: (
            len({one.id for one in found}) == len(found) <= count
            and all(
                len(one.values) == len(sort) and all(value is None or is_value(value) for value in one.values)
                for one in found
            )
        ),
    ),
    "scales": Read(
        lambda seen, query, restricted, wanted: seen.matches(query, restricted).scales(wanted),
        dict[str, FieldScale],
        lambda found, facts, query, restricted, wanted: {*found} == {*wanted} and all(map(_is_scale, found.values())),
    ),
    "facet_values": Read(
        lambda seen, query, restricted, wanted: seen.matches(query, restricted).values(wanted),
        dict[str, Counts],
        _are_counted,
    ),
    "explain_words": Read(
        lambda seen, *args: seen.collection.explain_words(*args),
        dict[str, dict[str, float]],
        lambda found, facts, query, ids, *_: {*found} <= {*ids},
    ),
    "documents_of": Read(
        lambda seen, ids: seen.collection.documents_of(ids),
        dict[str, Document],
        lambda found, facts, ids: {*found} <= {*ids} and all(id == one.id for id, one in found.items()),
    ),
    "values": Read(
        lambda seen, field, type, ids: seen.collection.values(field, ids, type),
        list[tuple[Value, ...]],
        lambda found, facts, field, type, ids: (
            len(found) == len(ids) and all(is_value(one) for own in found for one in own)
        ),
    ),
    "missing": Read(
        lambda seen, ids: seen.collection.missing(ids), list[str], lambda found, facts, ids: {*found} <= {*ids}
    ),
    "count": Read(lambda seen, where: seen.collection.count(where), int, lambda found, *_: _is_count(found)),
    "scale": Read(
        lambda seen, field, type: seen.collection.scale(field, type), FieldScale, lambda found, *_: _is_scale(found)
    ),
    "field_values": Read(
        lambda seen, most, types: seen.collection.field_values(most, types),
        dict[str, FieldSample],
        lambda found, facts, most, types: all(
            one.type == types.get(name) and all(map(is_value, one.values)) for name, one in found.items()
        ),
    ),
    "query_vectors": Read(
        lambda seen, field, queries: seen.collection.tower(field).query_vectors(queries),
        Vectors,
        lambda found, facts, field, queries: found.shape == (len(queries), facts.info.vector_fields[field].info.size),
    ),
}
_WRITES: dict[str, Read] = {  # type: ignore[explicit-any]
    "add": Read(
        lambda collection, documents: collection.add(documents), Added, lambda found, *_: all(map(_is_count, found))
    ),
    "remove": Read(
        lambda collection, ids: collection.remove(ids), int, lambda found, facts, ids: 0 <= found <= len(ids)
    ),
}
_MAY_REFUSE = {"search", "query_vectors", *_WRITES}  # what was asked; all shards do, for they were built alike


def _require(found: Unchecked, kind: Unchecked, depth: int = 0) -> None:
    """Raise `ValueError` unless a value is of a type, with all that is in it: finite numbers, texts without surrogates.

    kind: as in an annotation; `object` is a value of JSON
    """
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if kind is object:
        kind = _JSON.get(type(found))
        if kind is None:
            raise ValueError(f"a {brief(type(found).__name__)} is no value of a field")
    origin: object = get_origin(kind)
    inner = get_args(kind)
    if origin is Union:
        for one in inner[:-1]:
            with suppress(ValueError):
                return _require(found, one, depth)
        return _require(found, inner[-1], depth)
    if origin is np.ndarray:
        dtype = np.dtype(get_args(inner[1])[0])
        if type(found) is not np.ndarray or found.dtype != dtype or not np.isfinite(found).all():
            raise ValueError(f"expected finite numbers of {dtype}")
        return None
    wanted = type(None) if kind is None else dict if origin is Mapping else origin or kind
    if type(found) is not wanted:
        raise ValueError(f"a {brief(type(found).__name__)}, expected {brief(str(kind))}")
    if origin in (list, frozenset):
        for one in found:
            _require(one, inner[0], depth + 1)
    elif origin in (dict, Counter, Mapping):
        for name, value in found.items():
            _require(name, inner[0], depth + 1)
            _require(value, inner[1] if len(inner) > 1 else int, depth + 1)
    elif origin is tuple:
        each = [inner[0]] * len(found) if inner[1:] == (...,) else inner
        if len(each) != len(found):
            raise ValueError(f"{len(found)} values, expected {len(each)}")
        for one, of in zip(found, each):
            _require(one, of, depth + 1)
    elif (hints := _hints(kind)) is not None:
        for name, of in hints.items():
            _require(getattr(found, name), of, depth + 1)
    elif isinstance(found, str):
        found.encode("utf-8")  # raises a `ValueError` for half of a surrogate pair
    elif isinstance(found, (int, float)) and not abs(found) <= sys.float_info.max:  # NaN, too
        raise ValueError("a number that is not finite")
    return None


@cache
def _hints(kind: type) -> Optional[dict[str, object]]:
    """Return the types of the fields of a named tuple or a data class; None for another class."""
    return get_type_hints(kind) if is_dataclass(kind) or hasattr(kind, "_fields") else None


class ShardService:
    """A shard's folder, open where it is; a `RemoteCollection` asks it.

    Any number of threads may call it. It takes up what others add to the folder, and adds documents itself.

    Raises `CheckpointError` for a folder that is no index, `UsageError` for one that cannot be a shard.
    """

    def __init__(self, folder: Union[str, Path]):
        self._collection, self._lock = Collection.open(folder), threading.Lock()
        self._seen: dict[int, _Seen] = {}  # by generation
        _require_shard(self._collection.info, str(folder))

    def call(self, name: str, *args: Unchecked) -> Union[Answer, Refused]:
        """Answer a call of a `RemoteCollection`: a name of a fixed table, the version and what the caller knows of it.

        Only errors of the shard are raised; one about what was asked is an answer.
        """
        version, known, *given = args
        try:
            if name in _WRITES:
                with self._collection.writing(time.monotonic() + _WRITE_SECONDS):
                    result = _WRITES[name].answer(self._collection, *given)
                seen = self._at(None)
            elif name in _READS:
                seen = self._at(version)
                result = in_turn(partial(_READS[name].answer, seen, *given))
            else:
                raise UsageError(f"shards have no {brief(name)}; use the same version of paddle_ranker everywhere")
        except (UsageError, DataError) as error:
            kind = next(name for name, one in _REFUSALS.items() if isinstance(error, one))
            return Refused(kind, str(error))
        version = seen.collection.info.generation
        return Answer(version, None if version == known else seen.facts, result)

    def close(self) -> None:
        """Close the folder."""
        self._collection.close()

    def _at(self, version: Optional[int]) -> _Seen:
        """Return what is searched: a generation that is still kept, or what the folder holds now."""
        with self._lock:
            if version not in self._seen:
                if not self._collection.is_current:
                    self._collection.refresh()
                now = self._collection.snapshot()
                version = now.info.generation if version is None else version
                self._seen.setdefault(now.info.generation, _Seen(now))
            if version not in self._seen:
                raise _Gone(f"{self._collection.folder}: generation {version} is no longer kept; search again")
            clock, latest = time.monotonic(), self._collection.info.generation
            self._seen[version].used = clock
            others = sorted(self._seen.keys() - {latest, version}, key=lambda one: self._seen[one].used)
            for place, old in enumerate(others, start=1):
                if clock - self._seen[old].used > _KEPT_SECONDS or place <= len(others) - _MOST_KEPT:
                    del self._seen[old]
            return self._seen[version]


def _require_shard(info: IndexInfo, name: str) -> None:
    if any(one.info.method == MILVUS for one in info.vector_fields.values()):
        raise UsageError(f"{name}: has its vectors in Milvus, which searches one index at a time")
    if info.others:
        raise UsageError(f"{name}: is searched by {listed(info.others)}, which needs all documents in one folder")


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
    """Shards elsewhere as one collection, for `Search` and `Searcher`; see `Collection` for its methods.

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
        self._is_snapshot, self._begun_anew = False, 0
        self._lost: set[int] = set()  # shards that failed
        self._rest_until: dict[int, float] = {}  # by shard that did not answer; snapshots share it
        self._pinning = threading.Lock()
        self._counts: dict[Word, int] = {}  # of words, live documents in all shards
        self._owners: dict[str, int] = {}  # the shard of a document that was found, by id
        self._documents, self._held = dict[str, Document](), 0  # that were fetched, and the code points of their texts
        self._send("facts", dict.fromkeys(range(len(self._calls)), ()))()
        self.searchers = self.info.searchers

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

    def begin_search(self, asked: Asking) -> Callable[[], list[Hits]]:
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

    def how(self, by: str, ef: Optional[int] = None, nprobe: Optional[int] = None) -> str:
        return how_searched(self.info, by, ef, nprobe)

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

    def holding(self, query: ParsedQuery) -> Optional[ParsedQuery]:
        now, found, left = self._now, list[str](), list(query.phrases)
        while left:
            asked = [*found, *left]
            most = max(map(len, now._ask("phrases", asked).values()))  # each shard has those up to one of them
            found, left = asked[:most], asked[most + 1 :]
        return restricting(query, found)

    def matching(self, query: Optional[Asked], restricted: Optional[ParsedQuery] = None) -> RemoteMatches:
        return RemoteMatches(self._now, query, restricted)

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

        It raises `ShardError` for shards that fail, or `Anew` if a search can go on without them.

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
            self._wait([*futures.values()], self._timeout * (_OF_WRITES if name in _WRITES else 1))
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
                        answer = _read(future.result(), name, args[number], known[number], pinned is not None)
                        self._require_alike(answer)
                    except ValueError as problem:
                        failed[number] = DataError(f"its answer to {name} is malformed: {problem}")
                        continue
                    if isinstance(answer, RankerError):
                        refused[number] = answer
                    else:
                        seen[number], results[number] = answer[0], answer[1]
            if any(isinstance(one, _Gone) for one in refused.values()) and self._begun_anew < _MOST_ANEW:
                raise Anew(self._anew(()))
            if refused and (name in _WRITES or name not in _READS or (name in _MAY_REFUSE and not results)):
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
            raise Anew(self._anew(failed))
        self._lost = lost

    def _anew(self, failed: Iterable[int]) -> RemoteCollection:
        found = self.snapshot()
        found._lost, found._begun_anew = self._lost | {*failed}, self._begun_anew + 1
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


def _read(
    answer: Unchecked, name: str, args: Sequence[Unchecked], known: Optional[tuple[int, Facts]], is_pinned: bool
) -> Union[RankerError, tuple[tuple[int, Facts], Unchecked]]:
    """Return the version and the facts of a shard, and its result; or why it has refused what was asked.

    known: what is known of the shard; is_pinned: it was asked for just that

    Raises `ValueError` for what is no answer to a call.
    """
    if type(answer) is Refused:
        _require(answer, Refused)
        if answer.kind not in _REFUSALS:
            raise ValueError(f"{brief(answer.kind)} is no reason to refuse")
        return _REFUSALS[answer.kind](shortened(answer.problem))
    if type(answer) is not Answer:
        raise ValueError(f"a {brief(type(answer).__name__)}")
    version, sent, result = answer
    _require(version, int)
    if sent is None:
        if known is None or version != known[0]:
            raise ValueError(f"nothing is known of version {version}")
        facts = known[1]
    else:
        _require(sent, _SentFacts)
        try:
            facts = Facts(info_of(sent.info), sent.fields, sent.totals)
        except (KeyError, TypeError, UsageError) as error:
            raise ValueError(f"index.json: {brief(str(error))}") from None
        if facts.info.generation != version or not _are_facts(sent, facts.info):
            raise ValueError("facts of something else")
    if is_pinned and (known is None or version != known[0]):
        raise ValueError(f"version {version} was not asked for")
    read = {**_READS, **_WRITES}[name]
    _require(result, read.kind)
    if not read.fits(result, facts, *args):
        raise ValueError("it does not fit what was asked")
    return (version, facts), result


def _text_of(error: BaseException) -> str:
    """Return the text of an error that a shard has sent."""
    try:
        return str(error)
    except BaseException:  # that it has chosen
        return "an error without a text"


class RemoteMatches:
    """Documents of a snapshot that match a query; see `Matches`."""

    def __init__(self, now: RemoteCollection, query: Optional[Asked], restricted: Optional[ParsedQuery]):
        self._now, self._of = now, (query.query if isinstance(query, CountedQuery) else query, restricted)

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
