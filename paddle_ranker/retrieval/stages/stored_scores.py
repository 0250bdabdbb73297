"""Scores of searches' candidates by a ranker, and by the stored states of an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.options import note
from paddle_ranker.retrieval.index.model_urls import UrlRanker
from paddle_ranker.retrieval.snapshots.searchable import Searchable, Snapshot
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stages.ranking import CandidateRanking
from paddle_ranker.retrieval.stored.manifest import RankerStates
from paddle_ranker.retrieval.work.turns import idle
from paddle_ranker.scoring.loading import ScoringRanker
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.scoring.stored_ranker import SplitRanker
from paddle_ranker.scoring.table_answers import answers_of
from paddle_ranker.scoring.title_states import StatesInfo, StoredPairs

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder


class StoredCandidates(NamedTuple):
    """Candidates of a search that have stored states.

    rows: indices of the candidates among the texts of the search, `[n]`
    pairs: pairs of the query with each candidate
    """

    rows: NDArray[np.int64]
    pairs: StoredPairs


def split_for(states: RankerStates, opened: ScoringRanker, batch_size: int) -> SplitRanker:
    """Return an open ranker as a `SplitRanker`, which scores with the stored states of an index.

    Raises `RankerError` if another ranker made the states, or if the ranker cannot be split.
    """
    split = SplitRanker.of(opened, batch_size)
    if not is_made_by(states, split.states_info):
        raise CheckpointError(f"another ranker made them ({states.ranker}; this one is {split.states_info.ranker})")
    return split


def is_made_by(states: RankerStates, ranker: StatesInfo) -> bool:
    """Return whether a ranker computed an index's stored states."""
    return (states.ranker, states.layers, states.width) == (ranker.ranker, ranker.layers, ranker.width)


def stored_candidates(
    split: SplitRanker, now: Snapshot, query: str, whole: Mapping[int, str]
) -> Optional[StoredCandidates]:
    """Read the stored states of a search's candidates; return None if no states are usable beside the query.

    split: the parts of the ranker
    now: the snapshot that is searched
    whole: ids of the candidates whose whole text is ranked, by index of the text among the texts of the search
    """
    if not isinstance(now, LocalSnapshot) or not whole:
        return None
    encoded, numbers = split.encoder.encode_queries([query]), np.array([*whole], np.int64)
    indices, states = now.states_of([*whole.values()], split.encoder.max_seq_length - int(encoded.lengths[0]))
    return StoredCandidates(numbers[indices], split.pairs(encoded, states)) if indices and states is not None else None


class StoredScorer:
    """Scorer of a search's candidates, which reads stored states if a candidate has them, else its text."""

    def __init__(self, ranker: Ranker, split: SplitRanker):
        self._ranker, self._split = ranker, split

    def logits(self, now: Snapshot, query: str, texts: Sequence[str], whole: Mapping[int, str]) -> Floats:
        """Return the logits of candidates' texts, `[n]` float64; for `now` and `whole` see `stored_candidates`."""
        logits, is_left = np.empty(len(texts)), np.ones(len(texts), bool)
        stored = stored_candidates(self._split, now, query, whole)
        with idle():
            if stored is not None:
                logits[stored.rows], is_left[stored.rows] = self._split.logits_of(stored.pairs), False
            left = np.flatnonzero(is_left).tolist()
            read = [texts[number] for number in left]
            logits[left] = self._ranker.score([query] * len(left), read, logits=True)
        return logits


def stored_scorer(collection: Searchable, ranker: Ranker) -> Optional[StoredScorer]:
    """Return the scorer by an index's stored states; None if there are none, or if the ranker cannot use them.

    Logs the reason why the ranker cannot use the states.
    """
    states = collection.info.states
    if states is None:
        return None
    try:
        if not isinstance(collection.snapshot(), LocalSnapshot):
            raise CheckpointError("they are on other machines")
        return StoredScorer(ranker, split_for(states, ranker.loaded, ranker.batch_size))
    except RankerError as error:
        note(f"the index's stored states are not used, texts are read instead: {error}")
        return None


class SearchRanker:
    """Ranker of a `SearchEngine`: scores the texts of searches, and names the cells that answer.

    Attributes:
        pair_encoder: encoder that truncates the ranker's pairs; None if it is given whole texts.
        is_calibrated: whether its probabilities are calibrated; False if that is unknown.
    """

    def __init__(self, collection: Searchable, ranker: Union[Ranker, UrlRanker]):
        self._ranker, self._stored = ranker, None
        self.pair_encoder: Optional[PairEncoder] = None
        self.is_calibrated = False
        if not isinstance(ranker, UrlRanker):
            self._stored = stored_scorer(collection, ranker)
            self.pair_encoder, self.is_calibrated = ranker.pair_encoder, ranker.info.calibration is not None

    def logits(self, rankings: Sequence[CandidateRanking], texts: Sequence[Sequence[str]]) -> list[Floats]:
        """Score the texts of each search's `to_rank`; return `[texts] float64` per search."""
        if self._stored is not None:
            stored = self._stored
            return [
                stored.logits(ranking.query.collection, ranking.query.model_text, own, ranking.whole)
                for ranking, own in zip(rankings, texts)
            ]
        queries = [ranking.query.model_text for ranking, own in zip(rankings, texts) for _ in own]
        flat = [text for own in texts for text in own]
        ends = np.cumsum([len(own) for own in texts])
        if isinstance(self._ranker, UrlRanker):
            with idle():
                return np.split(self._ranker.logits(queries, flat), ends[:-1])
        with idle():
            logits, outputs = self._ranker.scored(queries, flat)
        for ranking, own, end in zip(rankings, texts, ends.tolist()):
            rows = {name: array[end - len(own) : end] for name, array in outputs.items()}
            ranking.answer_of = answers_of(self._ranker.row_encoder, ranking.query.model_text, own, rows)
        return np.split(logits, ends[:-1])
