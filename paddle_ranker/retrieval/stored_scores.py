"""Scores of a search's candidates by the stored states of an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np

from paddle_ranker.errors import refuse_text
from paddle_ranker.metrics.ranking import Floats
from paddle_ranker.options import note
from paddle_ranker.retrieval.collection import Collection
from paddle_ranker.retrieval.searchable import Searchable
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.scoring.stored_ranker import SplitRanker


class StoredScorer:
    """Logits of a search's candidates: from stored states where there are, else from texts."""

    def __init__(self, ranker: Ranker, split: SplitRanker):
        self._ranker, self._split = ranker, split

    def logits(self, now: Searchable, query: str, texts: Sequence[str], whole: Mapping[int, str]) -> Floats:
        """Return the logits of the texts of candidates, `[n]` float64.

        now: the snapshot that is searched
        whole: of texts that are a whole document, by their numbers, its id
        """
        refuse_text(texts, "texts")
        found, is_left, numbers = np.empty(len(texts)), np.ones(len(texts), bool), [*whole]
        if isinstance(now, Collection) and numbers:
            states_of_query = self._split.query_states([query])
            room = self._split.encoder.max_seq_length - len(states_of_query.tokens)
            places, states = now.states_of([*whole.values()], room)
            if states is not None and places:
                rows = [numbers[place] for place in places]
                found[rows], is_left[rows] = self._split.logits(states_of_query, states), False
        left = np.flatnonzero(is_left).tolist()
        read = [texts[number] for number in left]
        found[left] = self._ranker.score([query] * len(left), read, logits=True)
        return found


def stored_scorer(collection: Searchable, ranker: Ranker) -> Optional[StoredScorer]:
    """Return the scorer by an index's stored states; None without states, or, with a note, if the ranker has others."""
    states = collection.info.states
    if states is None:
        return None
    split, why = SplitRanker.of(ranker), ""
    if not isinstance(collection, Collection):
        why = "they are on other machines"
    elif split is None:
        is_split = ranker.info.stored_titles
        why = f"the ranker runs in {ranker.loaded.engine.name}" if is_split else "the ranker's encoder is not split"
    elif (split.states_info.ranker, split.states_info.layers) != (states.ranker, states.layers):
        why = f"another ranker made them ({states.ranker}; this one is {split.states_info.ranker})"
    if not why and split is not None:
        return StoredScorer(ranker, split)
    note(f"the index's stored states are not used, texts are read instead: {why}")
    return None
