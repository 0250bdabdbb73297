"""Scores of searches' candidates by the stored states of an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.options import note
from paddle_ranker.retrieval.snapshots.open_segments import Generation
from paddle_ranker.retrieval.snapshots.searchable import Searchable, Snapshot
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stored.manifest import RankerStates
from paddle_ranker.retrieval.work.turns import check, idle, reserve
from paddle_ranker.scoring.loading import ScoringRanker
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.stored_titles.stored_ranker import SplitRanker
from paddle_ranker.stored_titles.title_states import StatesInfo, StoredPairs, TextStates, TitleStates, joined


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
    most = split.encoder.max_seq_length - int(encoded.lengths[0])
    indices, states = states_of(now.generation, [*whole.values()], most)
    return StoredCandidates(numbers[indices], split.pairs(encoded, states)) if indices and states is not None else None


def states_of(now: Generation, ids: Sequence[str], most: int) -> tuple[list[int], Optional[TextStates]]:
    """Return (indices in `ids`, states) of the documents that have stored states of at most `most` tokens."""
    indices, tokens = list[int](), 0
    rows: list[tuple[TitleStates, list[int]]] = []
    locations = now.find(ids)
    for number, part in enumerate(now.parts):
        here = ((n, locations[id]) for n, id in enumerate(ids) if id in locations)
        pairs = [(n, location.row) for n, location in here if location.part == number]
        states = part.segment.states
        if isinstance(states, TitleStates) and pairs:
            lengths = states.lengths_of([row for _, row in pairs]).tolist()
            fitting = [pair for pair, length in zip(pairs, lengths) if 0 < length <= most]
            indices += [index for index, _ in fitting]
            rows.append((states, [row for _, row in fitting]))
            tokens += sum(length for length in lengths if length <= most)
    if not indices:
        return [], None
    numbers = tokens * (rows[0][0].info.width + rows[0][0].info.matches)
    check()
    reserve(numbers * np.dtype(np.float32).itemsize)
    with now.reading():
        return indices, reduce(joined, (states.take(wanted) for states, wanted in rows))


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
