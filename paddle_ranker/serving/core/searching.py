"""A search on the server: words and vectors of an index, fused, then ordered by the ranker; under one deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Optional, Union

import numpy as np

from paddle_ranker.errors import listed, quoted
from paddle_ranker.metrics.ranking import Floats
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.retrieval.collection import VECTORS
from paddle_ranker.retrieval.exact import Vectors
from paddle_ranker.retrieval.filters import Filter
from paddle_ranker.retrieval.fusion import Candidates, Fusion
from paddle_ranker.retrieval.indexes import Document, Hits
from paddle_ranker.retrieval.vector_search import EXACT
from paddle_ranker.retrieval.vectors import normalised
from paddle_ranker.serving.core.faults import OVERLOADED, TIMED_OUT, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.index_slot import IndexSlot, ServedIndex
from paddle_ranker.serving.core.ranker_slot import RankerSlot
from paddle_ranker.serving.core.scores import Scores
from paddle_ranker.serving.core.tower_slot import TowerSlot

_ANSWERING = 0.1  # of a caller's time is kept for the answer, at most so many seconds
RANK = "rank"


@dataclass(frozen=True)
class Query:
    """What a search asks for.

    use: names of searchers; none: all
    fusion: a name of `FUSIONS`; None: the server's own
    recall: documents that each searcher finds
    rank_top: so many of the fused list are ordered by the ranker; 0: none
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


@dataclass
class Found:
    """What a search found.

    index: as it was searched
    order: places in `candidates` of the whole list, in its last order; `fused`, their fused scores by place; and
        `fused_rank`, from 1
    logits, probabilities: of the ranker, by place in `candidates`
    documents: at least those that are shown, by id
    took: milliseconds of each stage
    degraded: stages that were left out, because they would be late
    cut: how many ranked documents were left out, because their probability is too low
    shown: the part of `order` that was asked for
    """

    index: ServedIndex
    candidates: Candidates
    fusion: Fusion
    fused: Floats
    order: list[int]
    fused_rank: dict[int, int]
    took: dict[str, float]
    exact: bool
    logits: dict[int, float] = field(default_factory=dict)
    probabilities: dict[int, float] = field(default_factory=dict)
    documents: Mapping[str, Document] = field(default_factory=dict)
    ranked: bool = False
    degraded: list[str] = field(default_factory=list)
    cut: int = 0
    shown: list[int] = field(default_factory=list)


class Searcher:
    """Searches with the slots of a server.

    Args:
        index: the slot of the index.
        tower: makes vectors of queries; None: vectors are not searched.
        ranker: orders what was found; None: it stays in the fused order.
    """

    def __init__(self, index: IndexSlot, tower: Optional[TowerSlot], ranker: Optional[RankerSlot]):
        self.index, self.tower, self.ranker = index, tower, ranker

    def searchers(self, index: ServedIndex) -> tuple[str, ...]:
        """Return the names by which this server can search an index."""
        return tuple(name for name in index.collection.searchers if name != VECTORS or self.tower is not None)

    async def search(self, query: Query, stated: Optional[float]) -> Found:
        """Search; `stated` is the caller's deadline, see `Slot.deadline`. Raises `Fault`."""
        began, deadline = time.monotonic(), self.index.deadline(stated)
        self.index.begin()
        try:
            found = await self._recall(query, deadline)
            top = found.order[: query.rank_top] if self.ranker is not None else []
            shown = found.order[query.offset : query.offset + query.top_k]
            wanted = [found.candidates.ids[place] for place in dict.fromkeys([*top, *shown])]
            found.documents = await self.index.run(found.index.collection.documents_of, wanted, deadline=deadline)
            if top:
                await self._rank(query, found, top, deadline - min(_ANSWERING, _ANSWERING * (deadline - began)))
        finally:
            self.index.end()
        if query.min_probability > 0 and found.ranked:
            kept = [place for place in found.order if found.probabilities.get(place, -1.0) >= query.min_probability]
            found.cut, found.order = len(found.probabilities) - len(kept), kept
        found.shown = found.order[query.offset : query.offset + query.top_k]
        found.took["total"] = _since(began)
        return found

    async def _recall(self, query: Query, deadline: float) -> Found:
        """Ask all searchers at once, and fuse what they find."""
        index, took = await self.index.current(deadline), dict[str, float]()
        names = self._chosen(index, query.use)
        own = index.fusion if query.fusion in (None, index.fusion.method) else Fusion(str(query.fusion))
        fusion = replace(own, weights={name: own.weights[name] for name in names if name in own.weights})
        others = [name for name in names if name != VECTORS]
        asking = [
            asyncio.ensure_future(self.index.run(_timed, took, name, index, query, [query.text], deadline=deadline))
            for name in others
        ]
        try:
            hits: dict[str, Hits] = {}
            if VECTORS in names:
                began = time.monotonic()
                vectors = await self._vectors(query.text, deadline)
                took["encode"] = _since(began)
                hits[VECTORS] = await self.index.run(_timed, took, VECTORS, index, query, vectors, deadline=deadline)
            for name, one in zip(others, asking):
                hits[name] = await one
        finally:
            for one in asking:
                one.cancel()
        in_order = {name: hits[name] for name in names}
        return await self.index.run(
            _fused, index, in_order, fusion, took, self._is_exact(index, names), deadline=deadline
        )

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

    async def _rank(self, query: Query, found: Found, top: Sequence[int], deadline: float) -> None:
        """Order the first documents by the ranker; leave them where that would be late, unless the server refuses."""
        assert self.ranker is not None
        texts = [found.documents[found.candidates.ids[place]].text for place in top]
        began = time.monotonic()
        try:
            scores = await self.ranker.score_pairs([query.text] * len(texts), texts, deadline=deadline)
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
    took: dict[str, float], name: str, index: ServedIndex, query: Query, asked: Union[Sequence[str], Vectors]
) -> Hits:
    began = time.monotonic()
    (hits,) = index.collection.search(name, asked, query.recall, query.where)
    took[name] = _since(began)
    return hits


def _fused(index: ServedIndex, hits: Mapping[str, Hits], fusion: Fusion, took: dict[str, float], exact: bool) -> Found:
    began = time.monotonic()
    candidates = Candidates.of(hits)
    scores = fusion.scores(candidates)
    order = _by_score(scores, candidates.ids)
    ranks = {place: rank for rank, place in enumerate(order, start=1)}
    took["fuse"] = _since(began)
    return Found(index, candidates, fusion, scores, order, ranks, took, exact)


def _by_score(scores: Floats, ids: Sequence[str]) -> list[int]:
    """Return the places of scores, highest first, equal ones by id: the same order whatever found them first."""
    values = (-scores).tolist()
    return sorted(range(len(values)), key=lambda place: (values[place], ids[place]))


def _reorder(found: Found, top: Sequence[int], scores: Scores) -> None:
    ids = [found.candidates.ids[place] for place in top]
    shares = found.fusion.shares(found.candidates)[list(top)] if found.fusion.recall_weight else np.zeros(len(top))
    order = _by_score(scores.logits + found.fusion.recall_weight * shares, ids)
    found.order[: len(top)] = [top[number] for number in order]
    found.logits = dict(zip(top, scores.logits.tolist()))
    found.probabilities = dict(zip(top, scores.probabilities.tolist()))


def _since(began: float) -> float:
    return round(1000 * (time.monotonic() - began), 3)
