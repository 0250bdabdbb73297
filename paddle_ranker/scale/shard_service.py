"""Service of a shard of an index: the calls that it answers, and the checks that a caller makes of its answers.

service = ShardService("index-1")  # beside the folder of a shard
answer = service.call("documents_of", None, None, ids)  # at the shard
read_answer(answer, "documents_of", (ids,), None, False)  # at the caller

Answers come from other machines and are not trusted: `read_answer` refuses an answer that does not fit the call.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import NamedTuple, Optional, Union, get_args, get_origin, get_type_hints

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import CheckpointError, DataError, RankerError, UsageError, brief, listed, shortened
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.snapshots.searchable import Added
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stored.candidate_indexes import Document, Hits, Like, LikeError
from paddle_ranker.retrieval.stored.manifest import MANIFEST, IndexInfo, facts_of, info_of
from paddle_ranker.retrieval.values.facets import (
    DATES,
    NUMBERS,
    Counts,
    Facets,
    FieldSample,
    FieldScale,
)
from paddle_ranker.retrieval.values.filters import FilterError
from paddle_ranker.retrieval.values.listing import SortedDocument
from paddle_ranker.retrieval.values.typed_values import MOMENTS, CommonTypes, Value, is_value
from paddle_ranker.retrieval.words.word_search import AnyQuery, CollectionStatistics, WordSearcher
from paddle_ranker.retrieval.work.turns import in_turn
from paddle_ranker.storage.untrusted import Unchecked
from paddle_ranker.unicode.variants import common_form

_KEPT_SECONDS = 30.0  # a shard keeps a generation for this long after a search's last call
_MOST_KEPT = 32  # generations that a shard keeps for searches, beside the latest
_WRITE_SECONDS = 10.0  # a shard waits this long for another process that writes to its folder
_MATCHES = 8  # queries whose matching documents are cached, for totals and facets
_DEEPEST = 200  # nesting of lists and objects in an answer
_MOST = 1 << 48  # counts in answers are below this
_JSON: Mapping[type, object] = {
    **{kind: kind for kind in (str, int, float, bool, type(None))},
    list: list[object],
    dict: dict[str, object],
}


class Facts(NamedTuple):
    """Facts about a version of a shard.

    info: contents of its index.json
    fields: names of its documents' fields
    statistics: BM25's statistics; None if words are not searched
    has_variants: whether words have other spellings, see `WordSearcher.alike`
    """

    info: IndexInfo
    fields: list[str]
    statistics: Optional[CollectionStatistics]
    has_variants: bool


class _SentFacts(NamedTuple):
    """`Facts` in the form in which they are sent; `info` is the result of `manifest.facts_of`."""

    info: object
    fields: list[str]
    statistics: Optional[CollectionStatistics]
    has_variants: bool


class Answer(NamedTuple):
    """Answer of a shard; `read_answer` checks it.

    version: the generation that answered
    facts: facts of this generation; None if the caller has them
    result: the result of the call
    """

    version: int
    facts: Optional[_SentFacts]
    result: Unchecked


class Refused(NamedTuple):
    """Answer to a call whose arguments are not valid.

    kind: name of the error's class, in `_REFUSALS`
    problem: the error's message
    """

    kind: str
    problem: str


class Gone(UsageError):
    """Error: a shard no longer has the generation with which a search began."""


_REFUSALS: Mapping[str, type[RankerError]] = {
    "gone": Gone,
    "filter": FilterError,
    "like": LikeError,
    "usage": UsageError,
    "data": DataError,
}


class _Seen:
    """Open generation of a shard, for searches that began with it.

    used: time of the latest call, on `time.monotonic()`'s clock
    """

    def __init__(self, snapshot: LocalSnapshot):
        self.snapshot, self.used = snapshot, time.monotonic()
        self.matching = lru_cache(maxsize=_MATCHES)(snapshot.matching)

    @property
    def facts(self) -> _SentFacts:
        now, words = self.snapshot.generation, self.snapshot.generation.words
        statistics = None if words is None else words.statistics
        return _SentFacts(facts_of(now.info), now.fields, statistics, words is not None and words.has_variants)

    @property
    def words(self) -> WordSearcher:
        words = self.snapshot.generation.words
        assert words is not None  # callers know from the facts whether words are searched
        return words


class Operation(NamedTuple):
    """Kind of call that a shard answers.

    answer: called with a generation and the arguments of the call; returns the result. If the call is in `WRITES`, the
        folder's writer replaces the generation
    kind: type of the result, see `_require`
    fits: called with the result, the shard's facts and the arguments; returns whether the result fits them
    """

    answer: Callable[..., Unchecked]  # type: ignore[explicit-any]  # any function
    kind: object
    fits: Callable[..., bool] = lambda *_: True  # type: ignore[explicit-any]


def _is_count(value: int) -> bool:
    return 0 <= value < _MOST


def _are_facts(sent: _SentFacts, info: IndexInfo) -> bool:
    """Return whether the statistics that a shard sent fit `info`, its index.json."""
    if (statistics := sent.statistics) is None or info.words is None:
        return statistics is None and info.words is None
    numbers = [statistics.documents, *statistics.lengths]
    return len(statistics.lengths) == len(info.schema.words) and all(map(_is_count, numbers))


def _are_hits(results: list[Hits], facts: Facts, by: str, queries: Sequence[AnyQuery], top_k: int, *_: object) -> bool:
    spans = [hits.passages for hits in results if hits.passages is not None]
    return len(results) == len(queries) and all(
        len(hits.ids) == len({*hits.ids}) == len(hits.scores) <= top_k + _whole_titles(hits, top_k)
        and not (np.diff(hits.scores) > 0).any()
        and (hits.passages is None or len(hits.passages) == len(hits.ids))
        for hits in results
    ) and all(0 <= span[0] < span[1] for span_list in spans for span in span_list if span is not None)  # fmt: skip


def _whole_titles(hits: Hits, top_k: int) -> int:
    """Return how many hits have the query as their whole title; if the hits are invalid, a number below -`top_k`."""
    if hits.titles is None:
        return 0
    count = int(np.count_nonzero(hits.titles == 1))
    is_possible = len(hits.titles) == len(hits.ids) and count <= top_k
    return count if is_possible and bool(((hits.titles >= 0) & (hits.titles <= 1)).all()) else -top_k - 1


def _is_scale(field_scale: FieldScale) -> bool:
    if field_scale.scale is None:
        return True
    kind, positions, counts = field_scale.scale
    return (
        kind in (NUMBERS, DATES)
        and 0 < len(positions) == len(counts)
        and bool((positions[1:] > positions[:-1]).all() and ((counts >= 0) & (counts < _MOST)).all())
        and (
            kind == NUMBERS
            or (positions.dtype.kind == "i" and MOMENTS[0] <= positions[0] <= positions[-1] < MOMENTS[1])
        )
    )


def _are_counted(counted: Mapping[str, Counts], facts: Facts, query: AnyQuery, phrase_filter: object,
                 wanted: Facets) -> bool:  # fmt: skip
    counts = [item for field_counts in counted.values() for item in field_counts.items()]
    return {*counted} == {*wanted} and all(is_value(value) and _is_count(count) for value, count in counts)


READS: dict[str, Operation] = {  # type: ignore[explicit-any]  # of a type of arrays
    "facts": Operation(lambda seen: None, None),
    "counts": Operation(
        lambda seen, words: seen.words.counts_of(words),
        list[int],
        lambda result, facts, words: (
            len(result) == len(words)
            and 0
            <= min(result, default=0)
            <= max(result, default=0)
            <= (facts.statistics.documents if facts.statistics else 0)
        ),
    ),
    "near": Operation(
        lambda seen, word, unfinished: seen.words.near(word, unfinished),
        list[tuple[str, int]],
        lambda result, *_: all(_is_count(distance) for _, distance in result),
    ),
    "beginning": Operation(
        lambda seen, prefix, most: seen.words.beginning(prefix, most),
        list[str],
        lambda result, facts, prefix, most: (
            len(result) <= most and all(common_form(word).startswith(common_form(prefix)) for word in result)
        ),
    ),
    "alike": Operation(
        lambda seen, words: seen.words.alike(words),
        list[list[str]],
        lambda result, facts, words: (
            len(result) == len(words)
            and all(common_form(other) == common_form(word) for word, others in zip(words, result) for other in others)
        ),
    ),
    "common_types": Operation(
        lambda seen, fields: {name: seen.snapshot.generation.common_types(name) for name in fields},
        dict[str, CommonTypes],
        lambda result, facts, fields: {*result} == {*fields},
    ),
    "phrases": Operation(
        lambda seen, phrases: seen.snapshot.generation.found_phrases(phrases, required=True),
        list[str],
        lambda result, facts, phrases: result == [phrase for phrase in phrases if phrase in result],
    ),
    "search": Operation(lambda seen, *args: seen.snapshot.search(*args), list[Hits], _are_hits),
    "matches": Operation(
        lambda seen, query, phrase_filter, where: seen.matching(query, phrase_filter).count(where),
        int,
        lambda result, *_: _is_count(result),
    ),
    "first": Operation(
        lambda seen, query, phrase_filter, *args: seen.matching(query, phrase_filter).first(*args),
        list[SortedDocument],
        lambda result, facts, query, phrase_filter, sort, count, *_: (
            len({document.id for document in result}) == len(result) <= count
            and all(
                len(document.values) == len(sort) and all(value is None or is_value(value) for value in document.values)
                for document in result
            )
        ),
    ),
    "scales": Operation(
        lambda seen, query, phrase_filter, wanted: seen.matching(query, phrase_filter).scales(wanted),
        dict[str, FieldScale],
        lambda result, facts, query, phrase_filter, wanted: (
            {*result} == {*wanted} and all(map(_is_scale, result.values()))
        ),
    ),
    "facet_values": Operation(
        lambda seen, query, phrase_filter, wanted: seen.matching(query, phrase_filter).values(wanted),
        dict[str, Counts],
        _are_counted,
    ),
    "explain_words": Operation(
        lambda seen, *args: seen.snapshot.explain_words(*args),
        dict[str, dict[str, float]],
        lambda result, facts, query, ids, *_: {*result} <= {*ids},
    ),
    "documents_of": Operation(
        lambda seen, ids: seen.snapshot.documents_of(ids),
        dict[str, Document],
        lambda result, facts, ids: {*result} <= {*ids} and all(id == document.id for id, document in result.items()),
    ),
    "values": Operation(
        lambda seen, field, type, ids: seen.snapshot.values(field, ids, type),
        list[tuple[Value, ...]],
        lambda result, facts, field, type, ids: (
            len(result) == len(ids) and all(is_value(value) for values in result for value in values)
        ),
    ),
    "missing": Operation(
        lambda seen, ids: seen.snapshot.missing(ids), list[str], lambda result, facts, ids: {*result} <= {*ids}
    ),
    "scale": Operation(
        lambda seen, field, type: seen.snapshot.scale(field, type), FieldScale, lambda result, *_: _is_scale(result)
    ),
    "field_values": Operation(
        lambda seen, most, types: seen.snapshot.field_values(most, types),
        dict[str, FieldSample],
        lambda result, facts, most, types: all(
            sample.type == types.get(name) and all(map(is_value, sample.values)) for name, sample in result.items()
        ),
    ),
    "like_vectors": Operation(
        lambda seen, field, like: seen.snapshot.like_vectors(field, Like(*like)),
        Vectors,
        lambda result, facts, field, like: (
            result.ndim == 2 and len(result) <= 1 and result.shape[1] == facts.info.vector_fields[field].info.size
        ),
    ),
    "query_vectors": Operation(
        lambda seen, field, queries: seen.snapshot.tower(field).query_vectors(queries),
        Vectors,
        lambda result, facts, field, queries: result.shape == (len(queries), facts.info.vector_fields[field].info.size),
    ),
}
WRITES: dict[str, Operation] = {  # type: ignore[explicit-any]
    "add": Operation(
        lambda writer, documents: writer.add(documents), Added, lambda result, *_: all(map(_is_count, result))
    ),
    "remove": Operation(
        lambda writer, ids: writer.remove(ids), int, lambda result, facts, ids: 0 <= result <= len(ids)
    ),
}
# Calls whose arguments may come from a user. If one shard refuses them, all do, because all are built alike.
MAY_REFUSE = {"search", "query_vectors", "like_vectors", *WRITES}


def _require(value: Unchecked, kind: Unchecked, depth: int = 0) -> None:
    """Raise `ValueError` unless a value and all values inside it have the annotated types.

    Numbers must be finite, and texts without surrogates.

    kind: a type as in annotations; `object` means any value of JSON
    depth: nesting of the value in the whole answer
    """
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if kind is object:
        kind = _JSON.get(type(value))
        if kind is None:
            raise ValueError(f"a {brief(type(value).__name__)} is no value of a field")
    origin: object = get_origin(kind)
    inner = get_args(kind)
    if origin is Union:
        for option in inner[:-1]:
            with suppress(ValueError):
                return _require(value, option, depth)
        return _require(value, inner[-1], depth)
    if origin is np.ndarray:
        dtype = np.dtype(get_args(inner[1])[0])
        if type(value) is not np.ndarray or value.dtype != dtype or not np.isfinite(value).all():
            raise ValueError(f"expected finite numbers of {dtype}")
        return None
    wanted = type(None) if kind is None else dict if origin is Mapping else origin or kind
    if type(value) is not wanted:
        raise ValueError(f"a {brief(type(value).__name__)}, expected {brief(str(kind))}")
    if origin in (list, frozenset):
        for item in value:
            _require(item, inner[0], depth + 1)
    elif origin in (dict, Counter, Mapping):
        for key, item in value.items():
            _require(key, inner[0], depth + 1)
            _require(item, inner[1] if len(inner) > 1 else int, depth + 1)
    elif origin is tuple:
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        if len(kinds) != len(value):
            raise ValueError(f"{len(value)} values, expected {len(kinds)}")
        for item, item_kind in zip(value, kinds):
            _require(item, item_kind, depth + 1)
    elif (hints := _hints(kind)) is not None:
        for key, item_kind in hints.items():
            _require(getattr(value, key), item_kind, depth + 1)
    elif isinstance(value, str):
        value.encode("utf-8")  # raises a `ValueError` for half of a surrogate pair
    elif isinstance(value, (int, float)) and not abs(value) <= sys.float_info.max:  # NaN, too
        raise ValueError("a number that is not finite")
    return None


@cache
def _hints(kind: type) -> Optional[dict[str, object]]:
    """Return the types of the fields of a named tuple or dataclass; None for another class."""
    return get_type_hints(kind) if is_dataclass(kind) or hasattr(kind, "_fields") else None


class ShardService:
    """Service of an index folder as a shard, which a `RemoteCollection` calls; thread-safe.

    Searches also see documents that other processes add to the folder. Raises `CheckpointError` for a folder that is no
    index, `UsageError` for an index that cannot be a shard.
    """

    def __init__(self, folder: Union[str, Path]):
        self._collection, self._lock = Collection.open(folder), threading.Lock()
        self._seen: dict[int, _Seen] = {}  # by generation
        _require_shard(self._collection.info, str(folder))

    def call(self, name: str, *args: Unchecked) -> Union[Answer, Refused]:
        """Answer a call of a `RemoteCollection`.

        name: the call, a name in `READS` or `WRITES`
        args: the generation to read (None: the newest), the generation whose facts the caller has, and the arguments

        Returns `Refused` for invalid arguments; raises only errors of the shard.
        """
        version, cached, *arguments = args
        try:
            if name in WRITES:
                with self._collection.writer.writing(time.monotonic() + _WRITE_SECONDS):
                    result = WRITES[name].answer(self._collection.writer, *arguments)
                seen = self._at(None)
            elif name in READS:
                seen = self._at(version)
                result = in_turn(partial(READS[name].answer, seen, *arguments))
            else:
                raise UsageError(f"shards have no {brief(name)}; use the same version of paddle_ranker everywhere")
        except (UsageError, DataError) as error:
            kind = next(name for name, error_class in _REFUSALS.items() if isinstance(error, error_class))
            return Refused(kind, error.problem if isinstance(error, (FilterError, LikeError)) else str(error))
        version = seen.snapshot.info.generation
        return Answer(version, None if version == cached else seen.facts, result)

    def close(self) -> None:
        self._collection.close()

    def _at(self, version: Optional[int]) -> _Seen:
        """Return a generation, by default the newest; raises `Gone` if the generation `version` is no longer kept."""
        with self._lock:
            if version not in self._seen:
                if not self._collection.is_current:
                    self._collection.refresh()
                now = self._collection.snapshot()
                version = now.info.generation if version is None else version
                self._seen.setdefault(now.info.generation, _Seen(now))
            if version not in self._seen:
                raise Gone(f"{self._collection.folder}: generation {version} is no longer kept; search again")
            clock, latest = time.monotonic(), self._collection.info.generation
            self._seen[version].used = clock
            others = sorted(self._seen.keys() - {latest, version}, key=lambda generation: self._seen[generation].used)
            for number, old in enumerate(others, start=1):
                if clock - self._seen[old].used > _KEPT_SECONDS or number <= len(others) - _MOST_KEPT:
                    del self._seen[old]
            return self._seen[version]


def _require_shard(info: IndexInfo, name: str) -> None:
    if info.vectors is not None and info.vectors.are_elsewhere:
        raise UsageError(f"{name}: has its vectors in {info.vectors.method}, which searches one index at a time")
    if info.others:
        raise UsageError(f"{name}: is searched by {listed(info.others)}, which needs all documents in one folder")


def read_answer(
    answer: Unchecked, name: str, args: Sequence[Unchecked], cached: Optional[tuple[int, Facts]], is_pinned: bool
) -> Union[RankerError, tuple[tuple[int, Facts], Unchecked]]:
    """Check the answer of a shard; return ((version, facts), result), or the error of a refused call.

    Raises `ValueError` if the answer does not fit the call.

    cached: version and facts of the shard that the caller has
    is_pinned: whether the call was for the cached version
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
        if cached is None or version != cached[0]:
            raise ValueError(f"nothing is known of version {version}")
        facts = cached[1]
    else:
        _require(sent, _SentFacts)
        try:
            facts = Facts(info_of(sent.info, Path(MANIFEST)), sent.fields, sent.statistics, sent.has_variants)
        except (CheckpointError, UsageError) as error:
            raise ValueError(brief(str(error))) from None
        if facts.info.generation != version or not _are_facts(sent, facts.info):
            raise ValueError("facts of something else")
    if is_pinned and (cached is None or version != cached[0]):
        raise ValueError(f"version {version} was not asked for")
    read = {**READS, **WRITES}[name]
    _require(result, read.kind)
    if not read.fits(result, facts, *args):
        raise ValueError("it does not fit what was asked")
    return (version, facts), result
