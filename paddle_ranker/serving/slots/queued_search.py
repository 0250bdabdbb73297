"""A search on the server: words and vectors of an index, fused, then ordered by the ranker; under one deadline."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Optional, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Array, Floats, Vectors
from paddle_ranker.errors import ParameterError, RankerError
from paddle_ranker.retrieval.index.model_urls import ModelUrl, ServiceFailed
from paddle_ranker.retrieval.snapshots.searchable import ShardError, Snapshot
from paddle_ranker.retrieval.stages.fusion import Fusion
from paddle_ranker.retrieval.stages.ranking import CandidateRanking
from paddle_ranker.retrieval.stages.search import Search, SearchSettings, select_searchers
from paddle_ranker.retrieval.stages.search_engine import run_searches
from paddle_ranker.retrieval.stored.candidate_indexes import Like
from paddle_ranker.retrieval.stored.manifest import VECTORS
from paddle_ranker.retrieval.values.bounds import LONGEST_QUERY
from paddle_ranker.retrieval.values.listing import Listing
from paddle_ranker.retrieval.words.query_parsing import ParsedQuery
from paddle_ranker.retrieval.work.turns import TooLate, idle, wait_for
from paddle_ranker.serving.core.faults import OVERLOADED, TIMED_OUT, UNAVAILABLE, Fault
from paddle_ranker.serving.core.jobs import Check
from paddle_ranker.serving.core.server_config import RANKER_SLOT
from paddle_ranker.serving.slots.index_options import INDEX
from paddle_ranker.serving.slots.index_slot import IndexSlot, ServedIndex
from paddle_ranker.serving.slots.slots import Slots
from paddle_ranker.serving.slots.tower_options import TOWER_SLOT

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.metrics.calibration import ListScores, SearchScores
    from paddle_ranker.model.tower import TowerInfo
    from paddle_ranker.serving.slots.ranker_slot import RankerSlot
    from paddle_ranker.serving.slots.services import Scores
    from paddle_ranker.serving.slots.tower_slot import TowerSlot

_ANSWERING = 0.1  # share of the deadline that is reserved for writing the answer; also its maximum in seconds
SEARCHES = 100  # distinct queries after which their scores are compared
_MEASURES = {"tenth": "tenth best logit of a list", "spread": "standard deviation of a list's logits"}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Query:
    """A search as a request describes it.

    text: the parsed query
    settings: how the index is searched
    listing: which documents are shown
    fusion: a name in `FUSIONS`; None: the server's own fusion
    like: an example document or file to search by, beside `text` or in its place
    """

    text: ParsedQuery
    settings: SearchSettings
    listing: Listing
    fusion: Optional[str] = None
    like: Optional[Like] = None


@dataclass(frozen=True)
class FoundSearch:
    """A finished search.

    search: the search, with its candidates and scores
    index: the index with the snapshot that was searched
    query_read: number of the query's code points that were used, if it was too long; else None
    """

    search: Search
    index: ServedIndex
    query_read: Optional[int]


class _Read:
    """The part of a query that the models read.

    Args:
        text: the query, without the end that no encoder ever reads.
        encoder: the ranker's pair encoder, if it may read less than `text` beside long titles; None: the ranker reads
            all of `text`.
        is_cut: whether `text` is only the beginning of the query.
    """

    def __init__(self, text: str, encoder: Optional[PairEncoder] = None, is_cut: bool = False):
        self.text, self._encoder, self._was_cut = text, encoder, is_cut
        self._tokens = self._kept = 0 if encoder is None else encoder.count_tokens(text)

    @classmethod
    def of(cls, text: str, encoders: Sequence[PairEncoder]) -> _Read:
        """Cut the query to the part that all `encoders` read beside the shortest title. This tokenizes it."""
        # The query gets a pair's tokens except special tokens and one token of the title.
        rooms = [(encoder, encoder.max_seq_length - encoder.template.pair_tokens - 1) for encoder in encoders]
        end = min([len(text), *(encoder.characters_of(text, room) for encoder, room in rooms)])
        return cls(text[:end], encoders[0] if len(encoders) == 1 else None, end < len(text))

    @property
    def check(self) -> Optional[Check]:
        """The `Job.check` that records how much of `text` the ranker reads; None without an encoder."""
        return None if self._encoder is None else self._note

    def _note(self, first: int, lengths: Array, most: int) -> None:
        assert self._encoder is not None
        template = self._encoder.template
        titles = lengths - self._tokens - template.pair_tokens
        kept, _ = template.truncated(np.full(len(lengths), self._tokens), titles, most - template.pair_tokens)
        self._kept = min(self._kept, int(kept.min()))

    @property
    def is_cut(self) -> bool:
        """Whether a part of the query was not read beside some title."""
        return self._was_cut or self._kept < self._tokens

    def characters(self) -> int:
        """Return how many code points of the query were read beside the longest title. This tokenizes the query."""
        if self._encoder is None or self._kept == self._tokens:  # a part may have more tokens than the whole text
            return len(self.text)
        return self._encoder.characters_of(self.text, self._kept)


class DriftCheck:
    """Comparison of the first searches' scores with the scores that the ranker was calibrated on. Thread-safe.

    It detects a ranker that is served with an index for which it was not calibrated. It stores two numbers for each
    search until there are enough searches, then nothing.

    Args:
        expected: scores in the calibration; None: nothing is compared.
        ranker, index: names of both, for the log.

    Attributes:
        unfamiliar: the result of `SearchScores.unlike` once `judge` has found that the scores differ, else None.
    """

    def __init__(self, expected: Optional[SearchScores], ranker: str, index: str):
        self._expected, self._names = expected, (ranker, index)
        self._lists: dict[int, ListScores] = {}  # by the query's hash, since a repeated query tells nothing new
        self._lock = threading.Lock()
        self.unfamiliar: Optional[dict[str, object]] = None

    def wants(self, rank_top: int) -> bool:
        """Return whether a search that ranks `rank_top` documents is comparable with the calibration."""
        return self._expected is not None and rank_top == self._expected.top

    def note(self, query: str, logits: Floats) -> bool:
        """Record a query's calibrated logits, `[n]`, once. Return True if it is time to call `judge`."""
        from paddle_ranker.metrics.calibration import ListScores

        with self._lock:
            if self._expected is not None and len(self._lists) < SEARCHES:
                self._lists.setdefault(hash(query), ListScores.of(logits))
                return len(self._lists) == SEARCHES
        return False

    def judge(self) -> None:
        """Compare the recorded scores with the calibration's, and log if they differ."""
        with self._lock:
            expected, self._expected = self._expected, None
            lists, self._lists = [*self._lists.values()], {}
        self.unfamiliar = None if expected is None else expected.unlike(lists)
        if self.unfamiliar is not None:
            _LOG.warning(
                "%s may be wrong for %s: in the first %d searches its scores are unlike those that it was calibrated "
                "with (%s: median %s, not %s); calibrate it with --index for this index, or train it on such documents",
                *self._names, len(lists), _MEASURES[str(self.unfamiliar["measure"])],
                self.unfamiliar["seen"], self.unfamiliar["expected"],
            )  # fmt: skip


class QueuedSearch:
    """Runner of searches with the models in a server's slots.

    Args:
        index: the slot of the index.
        tower: computes vectors of queries; None: vectors of whole documents are not searched.
        ranker: orders the first documents; None: they keep the fused order.
    """

    def __init__(self, index: IndexSlot, tower: Optional[TowerSlot], ranker: Optional[RankerSlot]):
        self.index, self.tower, self.ranker = index, tower, ranker
        self._drift_check = DriftCheck(None, "", "")
        self._compared: tuple[object, ...] = ()  # the ranker and the index of `_drift_check`

    @classmethod
    def of(cls, slots: Slots) -> QueuedSearch:
        """Return the runner of searches of a server's index, with its tower and its ranker if it has them."""
        tower = ranker = None
        if TOWER_SLOT in slots:
            from paddle_ranker.serving.slots.tower_slot import TowerSlot

            tower = slots.of(TOWER_SLOT, TowerSlot)
        if RANKER_SLOT in slots:
            from paddle_ranker.serving.slots.ranker_slot import RankerSlot

            ranker = slots.of(RANKER_SLOT, RankerSlot)
        return cls(slots.of(INDEX, IndexSlot), tower, ranker)

    def versions(self, index: ServedIndex) -> dict[str, object]:
        """Return name and version of the index, and names and digests of the tower and the ranker; JSON-ready."""
        models = {"tower": self.tower, "ranker": self.ranker}
        served = {name: None if slot is None else slot.ready() for name, slot in models.items()}
        return {
            "index": {"name": index.name, "version": index.info.generation},
            **{name: None if model is None else model.folder.name for name, model in served.items()},
            "digests": {name: model.digest for name, model in served.items() if model is not None},
        }

    def ranker_facts(self) -> dict[str, object]:
        """Return `{"calibrated": whether the ranker's probabilities are calibrated}`, or `{}` without a ranker."""
        if self.ranker is None:
            return {} if self.index.url_ranker is None else {"calibrated": False}
        return {"calibrated": self.ranker.info.calibration is not None}

    def states_facts(self, index: ServedIndex) -> dict[str, object]:
        """Return whether the ranker uses the index's stored states, and if not, the reason; JSON-ready.

        Returns {} if the index has no stored states, or the server no ranker.
        """
        if self.ranker is None or index.states is None or index.info.states is None:
            return {}
        reason = index.states.problem(index.info)
        return {"states": {"used": reason is None, **({} if reason is None else {"reason": reason})}}

    def drift_check(self, index: ServedIndex) -> DriftCheck:
        """Return the drift check of the ranker with an index. Reloading the ranker or the index begins a new check."""
        served = None if self.ranker is None else self.ranker.ready()
        compared = (served and served.loaded_at, index.folder, index.loaded_at)  # no reference to a model
        if served is not None and compared != self._compared:
            calibration = served.model.info.calibration
            expected = None if calibration is None else calibration.searched
            self._compared, self._drift_check = compared, DriftCheck(expected, served.name, index.name)
        return self._drift_check

    def _note_scores(self, search: Search, index: ServedIndex, query: Query) -> None:
        """Record the scores of a search by all searchers over all documents. When enough are recorded, judge them.

        A search is not recorded if it has a filter, an example or an unfinished last word, or is for a later page.
        """
        drift_check, listing, settings = self.drift_check(index), query.listing, query.settings
        is_part = query.like or listing.offset or listing.after or listing.where or settings.prefix or settings.by
        if is_part or not search.ranking.logits or not drift_check.wants(settings.rank_top):
            return
        if drift_check.note(search.query.text, np.array([*search.ranking.logits.values()])):
            drift_check.judge()

    def searchers(self, index: ServedIndex) -> tuple[str, ...]:
        """Return the names of the searchers that this server can use. `vectors` needs a tower in its slot."""
        has_tower = self.tower is not None or self.index.options.tower_url is not None
        return tuple(name for name in index.info.searchers if name != VECTORS or has_tower)

    @property
    def tower_name(self) -> Optional[str]:
        """Name of the tower of the index, in a slot or behind a URL; None if there is none."""
        if self.tower is not None:
            return self.tower.name
        url = self.index.options.tower_url
        return None if url is None else ModelUrl.parse(url, "--tower").name

    @property
    def ranker_name(self) -> Optional[str]:
        """Name of the ranker, in a slot or behind a URL; None if there is none."""
        if self.ranker is not None:
            return self.ranker.name
        return None if self.index.url_ranker is None else self.index.url_ranker.name

    def search(
        self, query: Query, loop: asyncio.AbstractEventLoop, deadline: float, now: Optional[Snapshot] = None
    ) -> FoundSearch:
        """Search. Called in a thread of the index's slot. Raises `Fault` and `ParameterError`.

        loop: event loop of the models' queues
        now: the snapshot to search (default: the latest)
        """
        began, read, index = time.monotonic(), self._read(query.text.text), self.index.latest()
        searchers = select_searchers(index.info, query.settings, self.searchers(index))
        settings = self._settings(index, query)

        def begin(now: Snapshot) -> list[Search]:
            return [Search(now, replace(query.text, text=read.text), searchers, settings, query.listing, query.like)]

        models = _QueuedModels(self, index, read, loop, began, deadline)
        try:
            (search,) = run_searches(index.snapshot if now is None else now, begin, models)
        except (Fault, ShardError, ParameterError):
            raise
        except RankerError as error:  # such as Milvus, if it does not answer
            _LOG.warning("%s cannot be searched: %s", index.name, error)
            problem = "the index cannot be searched now; see the server's log"
            raise Fault(UNAVAILABLE, problem, retry_after=1.0) from error
        self._note_scores(search, index, query)
        query_read = read.characters() if read.is_cut or query.text.read is not None else None
        return FoundSearch(search, replace(index, seen=search.collection), query_read)

    def _read(self, text: str) -> _Read:
        """Return the part of a query that is used: as much as the ranker reads beside the shortest title."""
        if self.ranker is None:
            return _Read(text)
        from paddle_ranker.encoding.pair_encoder import TOKENS_OF_CHARACTER

        encoders = self.ranker.encoders
        least = min((encoder.max_seq_length // TOKENS_OF_CHARACTER for encoder in encoders), default=LONGEST_QUERY)
        return _Read(text) if len(text) <= least else _Read.of(text, encoders)

    def _settings(self, index: ServedIndex, query: Query) -> SearchSettings:
        options, fusion = self.index.options, index.fusion
        if query.fusion not in (None, fusion.method):
            fusion = Fusion(str(query.fusion), title=fusion.title, fields=fusion.fields)
        rank_top = query.settings.rank_top if self.ranker_name is not None else 0
        settings = replace(query.settings, by=(), fusion=fusion, rank_top=rank_top)
        return replace(settings, ef=options.ef, nprobe=options.nprobe, synonyms=index.synonyms)


class _QueuedModels:
    """Models of a search on the server. The search's texts go through the models' queues, which all requests share.

    Args:
        queued: the runner of searches, which has the slots of the models.
        index: the index with the snapshot that is searched.
        read: the part of the query that is used.
        loop: event loop of the queues.
        began, deadline: start and deadline of the search, on `time.monotonic()`'s clock.
    """

    def __init__(
        self,
        queued: QueuedSearch,
        index: ServedIndex,
        read: _Read,
        loop: asyncio.AbstractEventLoop,
        began: float,
        deadline: float,
    ):
        self._queued, self._index, self._read = queued, index, read
        self._loop, self._deadline = loop, deadline
        self.rank_until = deadline - min(_ANSWERING, _ANSWERING * (deadline - began))

    @property
    def pair_encoder(self) -> Optional[PairEncoder]:
        return None if self._queued.ranker is None else self._queued.ranker.pair_encoder

    @property
    def is_calibrated(self) -> bool:
        return bool(self._queued.ranker_facts().get("calibrated"))

    def begin_vectors(self, field: str, texts: Sequence[str]) -> Future[Vectors]:
        if self._is_queued(field):
            return asyncio.run_coroutine_threadsafe(self._vectors(texts), self._loop)
        future = Future[Vectors]()
        try:
            with idle():  # other searches run while a model or another machine computes
                future.set_result(self._index.snapshot.tower(field).query_vectors(texts))
        except ServiceFailed as error:
            future.set_exception(error)
        return future

    def query_read(self, field: str, text: str) -> Optional[int]:
        if not self._is_queued(field):
            return self._index.snapshot.tower(field).query_read(text)
        tower = self._queued.tower
        encoder = None if tower is None else tower.query_encoder
        return None if encoder is None else encoder.query_read(text)

    def _is_queued(self, field: str) -> bool:
        return field == VECTORS and self._queued.index.options.tower_url is None

    async def _vectors(self, texts: Sequence[str]) -> Vectors:
        tower = self._queued.tower
        assert tower is not None
        computed = await tower.vectors(texts, is_query=True, deadline=self._deadline, field="query")
        return comparable(computed.vectors, tower.info)

    def logits(self, rankings: Sequence[CandidateRanking], texts: Sequence[Sequence[str]]) -> list[Floats]:
        url_ranker = self._queued.index.url_ranker
        if url_ranker is not None:
            with idle():
                return [
                    url_ranker.logits([ranking.query.model_text] * len(own), own)
                    for ranking, own in zip(rankings, texts)
                ]
        try:
            return [self._logits(ranking, own) for ranking, own in zip(rankings, texts)]
        except Fault as fault:
            if fault.kind not in (TIMED_OUT, OVERLOADED):
                raise
            raise TooLate from fault.settled()

    def leave_out(self, search: Search, stage: str, error: Union[TooLate, ServiceFailed]) -> None:
        """Go on without a searcher or the ranker. On later pages, or without `degrade`, raise `Fault`."""
        if not self._queued.index.options.degrade or search.listing.after is not None:
            if isinstance(error.__cause__, Fault):
                raise error.__cause__
            if isinstance(error, ServiceFailed):
                raise Fault(UNAVAILABLE, f"{stage}: its model does not answer", retry_after=1.0) from error
            raise Fault(TIMED_OUT, "the deadline passed before the index was searched") from error
        search.leave_out(stage, error)

    def _logits(self, ranking: CandidateRanking, texts: Sequence[str]) -> Floats:
        """Return the logits of a search's candidates, whose texts are `texts`, `[n]` float64."""
        ranker, query = self._queued.ranker, ranking.query
        assert ranker is not None
        served, most = ranker.ready(), ranker.limits.characters  # a ranker reads far less
        whole = {number: id for number, id in ranking.whole.items() if len(texts[number]) <= most}
        states = self._index.states
        stored = None if states is None else states.candidates(query.collection, query.model_text, whole)
        left = np.arange(len(texts)) if stored is None else np.setdiff1d(np.arange(len(texts)), stored[0])
        cut = [texts[number][:most] for number in left.tolist()]
        scoring: list[tuple[NDArray[np.int64], Coroutine[None, None, Scores]]] = []
        if stored is not None:
            rows, pairs = stored
            scoring.append((rows, ranker.score_encoded(pairs, deadline=self.rank_until)))
        if len(left):
            queries = [query.model_text] * len(cut)
            by_text = ranker.score_pairs(queries, cut, deadline=self.rank_until, check_lengths=self._read.check)
            scoring.append((left, by_text))
        begun = [asyncio.run_coroutine_threadsafe(logits, self._loop) for _, logits in scoring]
        logits = np.empty(len(texts))
        try:
            for (rows, _), future in zip(scoring, begun):
                scores = wait_for(future)
                logits[rows] = scores.logits
            if stored is None and len(left):  # rankers of tables have no stored states
                from paddle_ranker.scoring.table_answers import answers_of

                ranking.answer_of = answers_of(served.model.row_encoder, query.model_text, cut, scores.outputs)
        finally:  # if one is refused, the other one leaves the queue
            for future in begun:
                future.cancel()
        return logits


def comparable(vectors: Vectors, info: TowerInfo) -> Vectors:
    """Scale a tower's vectors, `[n, size]`, as an index stores them: to length 1 if the tower compares by cosine."""
    from paddle_ranker.retrieval.vectors.text_vectors import normalised

    return normalised(vectors) if info.similarity == "cosine" and not info.normalize else vectors
