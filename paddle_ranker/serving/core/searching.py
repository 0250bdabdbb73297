"""A search on the server: words and vectors of an index, fused, then ordered by the ranker; under one deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Callable, Optional, TypeVar

import numpy as np

from paddle_ranker.encoding.columns import Array
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.metrics.ranking import Floats
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.retrieval.collection import WORDS
from paddle_ranker.retrieval.exact import Vectors
from paddle_ranker.retrieval.filters import Filter, FilterError
from paddle_ranker.retrieval.fusion import Fusion
from paddle_ranker.retrieval.indexes import Hits
from paddle_ranker.retrieval.manifest import VECTORS
from paddle_ranker.retrieval.options import DEPTH, TOP_K
from paddle_ranker.retrieval.reading import ParsedQuery
from paddle_ranker.retrieval.search import Position, Search, SearchSettings, chosen
from paddle_ranker.retrieval.searchable import Anew, ShardError
from paddle_ranker.retrieval.stored_scores import StoredCandidates, stored_candidates
from paddle_ranker.retrieval.vectors import normalised
from paddle_ranker.retrieval.work import Hold, Usage
from paddle_ranker.serving.core.familiarity import Familiarity
from paddle_ranker.serving.core.faults import OVERLOADED, TIMED_OUT, UNAVAILABLE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.index_slot import IndexSlot, ServedIndex
from paddle_ranker.serving.core.jobs import Check
from paddle_ranker.serving.core.ranker_slot import RankerSlot
from paddle_ranker.serving.core.tower_slot import TowerSlot

_LONG_QUERY = 4  # shorter queries than a pair's tokens divided by this are never cut: a character is no more tokens
_LONGEST = 1000  # code points of a query that are used at all
_ANSWERING = 0.1  # of a caller's time is kept for the answer, at most so many seconds
RANK = "rank"
R = TypeVar("R")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Query:
    """A search as it is asked for.

    by: names of searchers; none: all
    fusion: a name of `FUSIONS`; None: the server's own
    depth: documents that each searcher finds
    rank_top: so many of the fused list are ordered by the ranker; 0: none
    after, sort, group_by, group_size: as of `Search`
    literal, prefix: as of `SearchSettings`
    is_cut: `asked` is only the beginning of the query
    """

    asked: ParsedQuery
    by: tuple[str, ...] = ()
    where: Optional[Filter] = None
    fusion: Optional[str] = None
    depth: int = DEPTH
    rank_top: int = 0
    offset: int = 0
    after: Optional[Position] = None
    top_k: int = TOP_K
    min_probability: float = 0.0
    sort: tuple[str, ...] = ()
    group_by: Optional[str] = None
    group_size: int = 1
    literal: bool = False
    prefix: bool = False
    is_cut: bool = False


class SearchOutcome(Search):
    """A finished search of the server.

    Attributes beside those of `Search`: `index`, as it was searched; `took`, milliseconds of each stage; `degraded`,
    stages that were left out, because they would be late; `query_read`, of a query that is too long, how many code
    points were used, else None.
    """

    def __init__(self, index: ServedIndex, query: Query, searchers: Sequence[str], settings: SearchSettings):
        super().__init__(
            index.collection,
            query.asked,
            searchers,
            settings,
            top_k=query.top_k,
            offset=query.offset,
            after=query.after,
            where=query.where,
            min_probability=query.min_probability,
            sort=query.sort,
            group_by=query.group_by,
            group_size=query.group_size,
        )
        self.index = index
        self.took: dict[str, float] = {}
        self.degraded: list[str] = []
        self.query_read: Optional[int] = None


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
        self._familiarity = Familiarity(None, "", "")
        self._compared: tuple[object, ...] = ()  # the ranker and the index that it is about

    def versions(self, index: ServedIndex) -> dict[str, object]:
        """Return what answers: the index and its version, and the models' folders; JSON-ready."""
        return {
            "index": {"name": index.name, "version": index.collection.info.generation},
            "tower": None if self.tower is None else self.tower.ready().folder.name,
            "ranker": None if self.ranker is None else self.ranker.ready().folder.name,
        }

    def ranker_facts(self) -> dict[str, object]:
        """Return whether the ranker's probabilities are calibrated; JSON-ready, nothing without a ranker."""
        return {} if self.ranker is None else {"calibrated": self.ranker.info.calibration is not None}

    def states_facts(self, index: ServedIndex) -> dict[str, object]:
        """Return whether the ranker uses the index's stored states; JSON-ready, nothing without states or ranker."""
        if self.ranker is None or index.collection.info.states is None:
            return {}
        reason = index.states_unused(self.ranker.ready())
        return {"states": {"used": reason is None, **({} if reason is None else {"reason": reason})}}

    def familiarity(self, index: ServedIndex) -> Familiarity:
        """Return whether the ranker knows the likes of an index, anew once either is reloaded."""
        served = None if self.ranker is None else self.ranker.ready()
        compared = (served and served.loaded_at, index.folder, index.loaded_at)  # holds no model that is unloaded
        if served is not None and compared != self._compared:
            calibration = served.model.info.calibration
            expected = None if calibration is None else calibration.searched
            self._compared, self._familiarity = compared, Familiarity(expected, served.name, index.name)
        return self._familiarity

    def _note_scores(self, found: SearchOutcome, query: Query) -> None:
        """Note the scores of a search of all documents by all searchers; a thread compares enough of them."""
        familiarity, page = self.familiarity(found.index), query.offset or query.after or query.prefix
        if page or query.by or query.where or not found.logits or not familiarity.wants(query.rank_top):
            return
        if familiarity.note(query.asked.text, np.array([*found.logits.values()])):
            asyncio.get_running_loop().run_in_executor(None, familiarity.judge)

    def searchers(self, index: ServedIndex) -> tuple[str, ...]:
        """Return the names by which this server can search an index."""
        return tuple(name for name in index.collection.searchers if name != VECTORS or self.tower is not None)

    async def search(
        self, query: Query, stated: Optional[float], told: Callable[[SearchOutcome], R], hold: Optional[Hold] = None
    ) -> tuple[SearchOutcome, R]:
        """Search, and return the finished search with what `told` makes of it in a thread. Raises `Fault`.

        stated: the caller's deadline, see `Slot.deadline`
        hold: counts the memory that is held until the answer is written
        """
        began, deadline, usage = time.monotonic(), self.index.deadline(stated), Usage()
        self.index.begin()
        try:
            read = await self._read(query.asked.text, deadline, usage)
            query = replace(
                query,
                asked=replace(query.asked, text=read.text),
                rank_top=query.rank_top if self.ranker is not None else 0,
            )
            index = await self.index.current(deadline)
            while True:
                try:
                    found = await self._candidates(index, query, deadline, usage)
                    if query.rank_top and found.order and (query.after is None or query.after.is_ranked):
                        late = deadline - min(_ANSWERING, _ANSWERING * (deadline - began))
                        await self._rank(found, late, read, hold, usage)
                    finished = await self.index.run(
                        _finish, found, query, read, began, told, deadline=deadline, hold=hold, usage=usage
                    )
                    self._note_scores(found, query)
                    return found, finished
                except Anew as error:
                    index = replace(index, collection=error.collection)
        except ShardError as error:
            _LOG.warning("%s", error)
            raise Fault(UNAVAILABLE, "a shard of the index fails; see the server's log", retry_after=1.0) from error
        finally:
            self.index.end()

    async def _read(self, text: str, deadline: float, usage: Usage) -> _Read:
        """Return as much of a query as is used: what the ranker reads of it beside the shortest title."""
        encoders = () if self.ranker is None else self.ranker.encoders
        least = min((encoder.max_seq_length // _LONG_QUERY for encoder in encoders), default=_LONGEST)
        if len(text) <= least:
            return _Read(text)
        return await self.index.run(_Read.of, text, encoders, deadline=deadline, usage=usage)

    async def _candidates(self, index: ServedIndex, query: Query, deadline: float, usage: Usage) -> SearchOutcome:
        """Ask all searchers at once, and fuse what they find."""
        found = SearchOutcome(index, query, self._chosen(index, query.by), self._settings(index, query))
        asked: dict[str, Optional[Vectors]] = dict.fromkeys(found.searchers)
        if VECTORS not in asked:
            await self.index.run(_fuse, found, asked, {}, deadline=deadline, usage=usage)
            return found
        del asked[VECTORS]
        if WORDS in asked:  # a mistyped word has another vector
            await self.index.run(lambda: found.words, deadline=deadline, usage=usage)
        looking = asyncio.ensure_future(self.index.run(_look, found, asked, deadline=deadline, usage=usage))
        try:
            began = time.monotonic()
            vectors = await self._vectors(found.model_text, deadline)
            found.took["encode"] = _since(began)
            hits = await looking
            await self.index.run(_fuse, found, {VECTORS: vectors}, hits, deadline=deadline, usage=usage)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        return found

    def _settings(self, index: ServedIndex, query: Query) -> SearchSettings:
        options, own = self.index.options, index.fusion
        if query.fusion not in (None, own.method):
            own = Fusion(str(query.fusion), fields=own.fields)
        reading = query.literal, query.prefix, index.synonyms
        return SearchSettings((), own, query.depth, query.rank_top, options.ef, options.nprobe, *reading)

    def _chosen(self, index: ServedIndex, by: Sequence[str]) -> tuple[str, ...]:
        try:
            return chosen(index.collection, by, self.searchers(index))
        except UsageError as error:
            raise Fault(UNPROCESSABLE, str(error), field="by") from error

    async def _vectors(self, text: str, deadline: float) -> Vectors:
        assert self.tower is not None
        found = await self.tower.vectors([text], is_query=True, deadline=deadline, field="query")
        return comparable(found.vectors, self.tower.info)

    async def _rank(
        self, found: SearchOutcome, deadline: float, read: _Read, hold: Optional[Hold], usage: Usage
    ) -> None:
        """Order the first documents by the ranker; leave them where that would be late, unless the server refuses.

        The next page of a ranked list is ranked, too, or refused.
        """
        assert self.ranker is not None
        began = time.monotonic()
        try:
            texts = await self.index.run(found.to_rank, self.ranker.reader, deadline=deadline, hold=hold, usage=usage)
            logits = await self._logits(self.ranker, found, texts, deadline, read, hold, usage)
        except Fault as fault:
            if fault.kind not in (TIMED_OUT, OVERLOADED) or not self.index.options.degrade or found.after is not None:
                raise
            fault.settled()
            found.degraded.append(RANK)
            return
        found.rank(logits, sigmoid(logits))
        found.took[RANK] = _since(began)

    async def _logits(
        self,
        ranker: RankerSlot,
        found: SearchOutcome,
        texts: Sequence[str],
        deadline: float,
        read: _Read,
        hold: Optional[Hold],
        usage: Usage,
    ) -> Floats:
        """Return the logits of the texts of `to_rank`, `[n]` float64, by stored states where the ranker made them."""
        served, most = ranker.ready(), ranker.limits.characters  # a ranker reads far less
        stored: Optional[StoredCandidates] = None
        if found.collection.info.states is not None and found.index.states_unused(served) is None:
            whole = {number: id for number, id in found.whole.items() if len(texts[number]) <= most}
            arguments = served.split, found.collection, found.model_text, whole
            stored = await self.index.run(stored_candidates, *arguments, deadline=deadline, hold=hold, usage=usage)
            stored = stored if served is ranker.ready() else None  # else the models were reloaded meanwhile
        left = np.arange(len(texts)) if stored is None else np.setdiff1d(np.arange(len(texts)), stored.rows)
        scoring = []
        if stored is not None:
            scoring.append((stored.rows, asyncio.ensure_future(ranker.score_stored(stored.pairs, deadline=deadline))))
        if len(left):
            cut = [texts[number][:most] for number in left.tolist()]
            asked = [found.model_text] * len(cut)
            by_text = ranker.score_pairs(asked, cut, deadline=deadline, check_lengths=read.check)
            scoring.append((left, asyncio.ensure_future(by_text)))
        logits, tasks = np.empty(len(texts)), [task for _, task in scoring]
        try:
            for rows, task in scoring:
                logits[rows] = (await task).logits
        finally:  # if one is refused, the other one leaves the queue
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return logits


def comparable(vectors: Vectors, info: TowerInfo) -> Vectors:
    """Return a tower's vectors, `[n, size]`, as an index holds them: 1 long if they are compared by their cosine."""
    return normalised(vectors) if info.similarity == "cosine" and not info.normalize else vectors


def _finish(found: SearchOutcome, query: Query, read: _Read, began: float, told: Callable[[SearchOutcome], R]) -> R:
    found.finish()
    found.query_read = read.characters() if read.is_cut or query.is_cut else None
    found.took["total"] = _since(began)
    return told(found)


def _look(found: SearchOutcome, asked: Mapping[str, Optional[Vectors]]) -> dict[str, Hits]:
    """Ask some searchers for documents; `asked` has the query's vector for those that need it."""
    hits = {}
    for name, own in asked.items():
        began = time.monotonic()
        try:
            (hits[name],) = found.lookup(name, own)
        except FilterError as error:
            raise Fault(UNPROCESSABLE, str(error), field="where") from error
        except (Anew, ShardError):
            raise
        except RankerError as error:  # of Milvus, which does not answer
            _LOG.warning("%s cannot be searched: %s", name, error)
            problem = f"{name} cannot be searched now; see the server's log"
            raise Fault(UNAVAILABLE, problem, retry_after=1.0) from error
        found.took[name] = _since(began)
    return hits


def _fuse(found: SearchOutcome, asked: Mapping[str, Optional[Vectors]], others: Mapping[str, Hits]) -> None:
    hits = {**others, **_look(found, asked)}
    began = time.monotonic()
    found.fuse(hits)
    found.took["fuse"] = _since(began)


def _since(began: float) -> float:
    return round(1000 * (time.monotonic() - began), 3)
