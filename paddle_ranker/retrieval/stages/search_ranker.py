"""Scores of searches' candidates by a ranker: by texts, or by the states that an index stores of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.retrieval.index.model_urls import UrlRanker
from paddle_ranker.retrieval.snapshots.searchable import Searchable
from paddle_ranker.retrieval.snapshots.stored_states import RANKER_STATES, STATES_KINDS, StatesScorer
from paddle_ranker.retrieval.stages.ranking import CandidateRanking
from paddle_ranker.retrieval.work.turns import idle
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.scoring.table_answers import answers_of

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder


class SearchRanker:
    """Ranker of a `SearchEngine`: scores the texts of searches, and names the cells that answer.

    Attributes:
        pair_encoder: encoder that truncates the ranker's pairs; None if it is given whole texts.
        is_calibrated: whether its probabilities are calibrated; False if that is unknown.
    """

    def __init__(self, collection: Searchable, ranker: Union[Ranker, UrlRanker]):
        self._ranker = ranker
        self._stored: Optional[StatesScorer] = None
        self.pair_encoder: Optional[PairEncoder] = None
        self.is_calibrated = False
        if not isinstance(ranker, UrlRanker):
            if collection.info.states is not None and RANKER_STATES in STATES_KINDS:  # shards elsewhere may have them
                self._stored = STATES_KINDS[RANKER_STATES].scorer(collection, ranker)
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
