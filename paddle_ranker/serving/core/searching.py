"""A search on the server: words and vectors of an index, fused, then ordered by the ranker; under one deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Optional, Union

import numpy as np

from paddle_ranker.encoding.columns import Array
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import RankerError, listed, quoted
from paddle_ranker.metrics.ranking import Floats
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.retrieval.collection import VECTORS
from paddle_ranker.retrieval.exact import Vectors
from paddle_ranker.retrieval.filters import Filter, FilterError
from paddle_ranker.retrieval.fusion import Candidates, Fusion, by_score
from paddle_ranker.retrieval.indexes import Document, Hits
from paddle_ranker.retrieval.vector_search import EXACT
from paddle_ranker.retrieval.vectors import normalised
from paddle_ranker.serving.core.faults import OVERLOADED, TIMED_OUT, UNAVAILABLE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.index_options import IndexSlotOptions
from paddle_ranker.serving.core.index_slot import IndexSlot, ServedIndex
from paddle_ranker.serving.core.jobs import Check
from paddle_ranker.serving.core.ranker_slot import RankerSlot
from paddle_ranker.serving.core.scores import Scores
from paddle_ranker.serving.core.tower_slot import TowerSlot

_LONG_QUERY = 4  # shorter queries than a pair's tokens divided by this are never cut: a character is no more tokens
_LONGEST = 1000  # code points of a query that are used at all
_ANSWERING = 0.1  # of a caller's time is kept for the answer, at most so many seconds
RANK = "rank"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Query:
    """What a search asks for.

    use: names of searchers; none: all
    fusion: a name of `FUSIONS`; None: the server's own
    recall: documents that each searcher finds
    rank_top: so many of the fused list are ordered by the ranker; 0: none
    is_cut: `text` is only the beginning of what was asked
    """

    text: str
    use: tuple[str, ...] = ()
    where: Optional[Filter] = None
    fusion: Optional[str] = None
    recall: int = 100
    rank_top: int = 0
    offset: int = 0
    top_k: int = 10
    min_probability: float = 0.0
    is_cut: bool = False


@dataclass
class SearchOutcome:
    """What a search found.

    text: of the query, as much as is used
    index: as it was searched
    order: places in `candidates` of the whole list, in its last order; `fused`, their fused scores by place; and
        `fused_rank`, from 1
    logits, probabilities: of the ranker, by place in `candidates`
    query_read: of a query that is too long, how many code points were used; None: all of it was
    documents: at least those that are shown, by id
    took: milliseconds of each stage
    degraded: stages that were left out, because they would be late
    cut: how many ranked documents were left out, because their probability is too low
    shown: the part of `order` that was asked for
    """

    text: str
    index: ServedIndex
    candidates: Candidates
    fusion: Fusion
    fused: Floats
    order: list[int]
    fused_rank: dict[int, int]
    took: dict[str, float]
    exact: bool
    documents: Mapping[str, Document]
    logits: dict[int, float] = field(default_factory=dict)
    probabilities: dict[int, float] = field(default_factory=dict)
    ranked: bool = False
    degraded: list[str] = field(default_factory=list)
    cut: int = 0
    shown: list[int] = field(default_factory=list)
    query_read: Optional[int] = None


class _Read:
    """As much of a query as is used.

    Args:
        text: the query, without what is never read.
        encoder: of the ranker, for a query of which it may read less beside long titles; None: it reads `text`.
        is_cut: whether the query was longer.
    """

    def __init__(self, text: str, encoder: Optional[PairEncoder] = None, is_cut: bool = False):
        self.text, self._encoder, self._was_cut = text, encoder, is_cut
        self._tokens = self._kept = 0 if encoder is None else encoder.count_tokens(text)

    @classmethod
    def of(cls, text: str, encoders: Sequence[PairEncoder]) -> _Read:
        """Return what is used of a long query; tokenizes it."""
        # Of a pair's tokens, the special ones and one of the title are not the query's.
        rooms = [(one, one.max_seq_length - one.template.pair_tokens - 1) for one in encoders]
        end = min([_LONGEST, *(one.characters_of(text, room) for one, room in rooms)])
        return cls(text[:end], encoders[0] if len(encoders) == 1 else None, end < len(text))

    @property
    def check(self) -> Optional[Check]:
        """What notes how much of the query is read beside titles; None where all of it is."""
        return None if self._encoder is None else self._note

    def _note(self, first: int, lengths: Array, most: int) -> None:
        assert self._encoder is not None
        template = self._encoder.template
        titles = lengths - self._tokens - template.pair_tokens
        kept, _ = template.truncated(np.full(len(lengths), self._tokens), titles, most - template.pair_tokens)
        self._kept = min(self._kept, int(kept.min()))

    @property
    def is_cut(self) -> bool:
        """Whether the query was longer than what is used, everywhere or beside some title."""
        return self._was_cut or self._kept < self._tokens

    def characters(self) -> int:
        """Return how many code points were used beside the longest title; tokenizes."""
        if self._encoder is None or self._kept == self._tokens:  # a beginning may have more tokens than all of it
            return len(self.text)
        return self._encoder.characters_of(self.text, self._kept)


class SearchPipeline:
    """Searches with the slots of a server.

    Args:
        index: the slot of the index.
        tower: makes vectors of queries; None: vectors are not searched.
        ranker: orders what was found; None: it stays in the fused order.
    """

    def __init__(self, index: IndexSlot, tower: Optional[TowerSlot], ranker: Optional[RankerSlot]):
        self.index, self.tower, self.ranker = index, tower, ranker

    def versions(self, index: ServedIndex) -> dict[str, object]:
        """Return what answers: the index and its version, and the models' folders; JSON-ready."""
        return {
            "index": {"name": index.name, "version": index.collection.info.generation},
            "tower": None if self.tower is None else self.tower.ready().folder.name,
            "ranker": None if self.ranker is None else self.ranker.ready().folder.name,
        }

    def searchers(self, index: ServedIndex) -> tuple[str, ...]:
        """Return the names by which this server can search an index."""
        return tuple(name for name in index.collection.searchers if name != VECTORS or self.tower is not None)

    async def search(self, query: Query, stated: Optional[float]) -> SearchOutcome:
        """Search; `stated` is the caller's deadline, see `Slot.deadline`. Raises `Fault`."""
        began, deadline = time.monotonic(), self.index.deadline(stated)
        self.index.begin()
        try:
            read = await self._read(query.text, deadline)
            query = replace(query, text=read.text, rank_top=query.rank_top if self.ranker is not None else 0)
            found = await self._recall(query, deadline)
            top = found.order[: query.rank_top]
            if top:
                late = deadline - min(_ANSWERING, _ANSWERING * (deadline - began))
                await self._rank(query, found, top, late, read)
            if read.is_cut or query.is_cut:
                found.query_read = await self.index.run(read.characters, deadline=deadline)
        finally:
            self.index.end()
        if query.min_probability > 0 and found.ranked:
            kept = [place for place in found.order if found.probabilities.get(place, 1.0) >= query.min_probability]
            found.cut, found.order = len(found.order) - len(kept), kept
        found.shown = found.order[query.offset : query.offset + query.top_k]
        found.took["total"] = _since(began)
        return found

    async def _read(self, text: str, deadline: float) -> _Read:
        """Return as much of a query as is used: what the ranker reads of it beside the shortest title."""
        encoders = () if self.ranker is None else self.ranker.encoders
        least = min((encoder.max_seq_length // _LONG_QUERY for encoder in encoders), default=_LONGEST)
        if len(text) <= least:
            return _Read(text)
        return await self.index.run(_Read.of, text, encoders, deadline=deadline)

    async def _recall(self, query: Query, deadline: float) -> SearchOutcome:
        """Ask all searchers at once, and fuse what they find."""
        index, took = await self.index.current(deadline), dict[str, float]()
        names = self._chosen(index, query.use)
        own = index.fusion if query.fusion in (None, index.fusion.method) else Fusion(str(query.fusion))
        weights = {name: own.weights[name] for name in names if name in own.weights}
        fusion = replace(own, weights=weights if any(weights.values()) else {})
        others = [name for name in names if name != VECTORS]
        search = partial(_timed, took, index, query, self.index.options)
        asking = [
            asyncio.ensure_future(self.index.run(search, name, [query.text], deadline=deadline)) for name in others
        ]
        try:
            hits: dict[str, Hits] = {}
            if VECTORS in names:
                began = time.monotonic()
                vectors = await self._vectors(query.text, deadline)
                took["encode"] = _since(began)
                hits[VECTORS] = await self.index.run(search, VECTORS, vectors, deadline=deadline)
            for name, one in zip(others, asking):
                hits[name] = await one
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        exact, in_order = self._is_exact(index, names), {name: hits[name] for name in names}
        return await self.index.run(_fused, query, index, in_order, fusion, took, exact, deadline=deadline)

    def _chosen(self, index: ServedIndex, use: Sequence[str]) -> tuple[str, ...]:
        there = self.searchers(index)
        for name in use:
            if name not in there:
                raise Fault(UNPROCESSABLE, f"{quoted(name)} is not searched here, only {listed(there)}", field="use")
        return tuple(name for name in there if name in use) if use else there

    @staticmethod
    def _is_exact(index: ServedIndex, names: Sequence[str]) -> bool:
        vectors = index.collection.info.vectors
        return VECTORS not in names or vectors is None or vectors.method == EXACT

    async def _vectors(self, text: str, deadline: float) -> Vectors:
        assert self.tower is not None
        found = await self.tower.vectors([text], is_query=True, deadline=deadline, field="query")
        return comparable(found.vectors, self.tower.info)

    async def _rank(self, query: Query, found: SearchOutcome, top: Sequence[int], deadline: float, read: _Read) -> None:
        """Order the first documents by the ranker; leave them where that would be late, unless the server refuses."""
        assert self.ranker is not None
        most = self.ranker.limits.characters  # of an index that was built elsewhere; a ranker reads far less
        texts = [found.documents[found.candidates.ids[place]].text[:most] for place in top]
        began = time.monotonic()
        try:
            asked = [query.text] * len(texts)
            scores = await self.ranker.score_pairs(asked, texts, deadline=deadline, check_lengths=read.check)
        except Fault as fault:
            if fault.kind not in (TIMED_OUT, OVERLOADED) or not self.index.options.degrade:
                raise
            fault.settled()
            found.degraded.append(RANK)
            return
        _reorder(found, top, scores)
        found.ranked = True
        found.took[RANK] = _since(began)


def comparable(vectors: Vectors, info: TowerInfo) -> Vectors:
    """Return a tower's vectors, `[n, size]`, as an index holds them: 1 long if they are compared by their cosine."""
    return normalised(vectors) if info.similarity == "cosine" and not info.normalize else vectors


def _timed(
    took: dict[str, float],
    index: ServedIndex,
    query: Query,
    options: IndexSlotOptions,
    name: str,
    asked: Union[Sequence[str], Vectors],
) -> Hits:
    began = time.monotonic()
    try:
        (hits,) = index.collection.search(name, asked, query.recall, query.where, options.ef, options.nprobe)
    except FilterError as error:
        raise Fault(UNPROCESSABLE, str(error), field="filter") from error
    except RankerError as error:  # of Milvus, which does not answer
        _LOG.warning("%s cannot be searched: %s", name, error)
        problem = f"{name} cannot be searched now; see the server's log"
        raise Fault(UNAVAILABLE, problem, retry_after=1.0) from error
    took[name] = _since(began)
    return hits


def _fused(
    query: Query, index: ServedIndex, hits: Mapping[str, Hits], fusion: Fusion, took: dict[str, float], exact: bool
) -> SearchOutcome:
    """Return the fused list, with the documents that are ranked or shown."""
    began = time.monotonic()
    candidates = Candidates.of(hits)
    scores = fusion.scores(candidates)
    order = by_score(scores, candidates.ids)
    ranks = {place: rank for rank, place in enumerate(order, start=1)}
    took["fuse"] = _since(began)
    moved = query.rank_top if query.min_probability > 0 else 0  # so far others may move up for those that are left out
    wanted = dict.fromkeys([*order[: query.rank_top], *order[query.offset : query.offset + query.top_k + moved]])
    documents = index.collection.documents_of([candidates.ids[place] for place in wanted])
    return SearchOutcome(query.text, index, candidates, fusion, scores, order, ranks, took, exact, documents)


def _reorder(found: SearchOutcome, top: Sequence[int], scores: Scores) -> None:
    ids = [found.candidates.ids[place] for place in top]
    shares = found.fusion.shares(found.candidates)[list(top)] if found.fusion.recall_weight else np.zeros(len(top))
    order = by_score(scores.logits + found.fusion.recall_weight * shares, ids)
    found.order[: len(top)] = [top[number] for number in order]
    found.logits = dict(zip(top, scores.logits.tolist()))
    found.probabilities = dict(zip(top, scores.probabilities.tolist()))


def _since(began: float) -> float:
    return round(1000 * (time.monotonic() - began), 3)
