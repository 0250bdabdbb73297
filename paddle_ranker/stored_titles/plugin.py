"""Score a search's candidates by the stored states of a server's index, with the parts of its ranker.

Importing this module registers it, and is fast.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Optional

from paddle_ranker.errors import RankerError
from paddle_ranker.serving.slots.stored_states import SERVED_STATES, STATES

if TYPE_CHECKING:
    from paddle_ranker.retrieval.snapshots.searchable import Snapshot
    from paddle_ranker.retrieval.stored.manifest import IndexInfo
    from paddle_ranker.serving.core.server_config import ServeConfig
    from paddle_ranker.serving.slots.ranker_slot import ServedRanker
    from paddle_ranker.stored_titles.stored_ranker import SplitRanker
    from paddle_ranker.stored_titles.stored_scores import StoredCandidates

_LOG = logging.getLogger(__name__)


class StoredScoring:
    """Scoring by an index's stored states, with the parts of the ranker that computed the states.

    Without stored states, it scores nothing.
    """

    def __init__(self) -> None:
        self._split: Optional[SplitRanker] = None
        self._problem = "the index had none when the models were loaded; reload the models"

    def open(self, now: Snapshot, ranker: ServedRanker, config: ServeConfig) -> None:
        """If `ranker` computed the index's states, split it into its parts and warm up the parts. Else log the reason.

        The parts also compute the states of new documents, unless their states could differ from those of the index's
        own copy of the ranker.

        now: a snapshot of the index
        ranker: the server's loaded ranker, whose queue the parts share
        config: the server's options
        """
        states, scorer = now.info.states, ranker.scorer
        if states is None:
            return
        from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
        from paddle_ranker.serving.slots.ranker_slot import QUERIES, TITLES
        from paddle_ranker.serving.slots.self_check import warm_up
        from paddle_ranker.stored_titles.document_states import write_states
        from paddle_ranker.stored_titles.stored_scores import split_for
        from paddle_ranker.stored_titles.title_states import StoredPairs

        try:
            if not isinstance(now, LocalSnapshot):
                raise RankerError("they are on other machines")
            split = split_for(states, ranker.model, config.batch_size)
        except RankerError as error:
            self._problem = str(error)
            _LOG.warning("the index's stored states are not used, texts are read instead: %s", self._problem)
            return
        scorer.others = {StoredPairs: split.compute}  # type: ignore[dict-item]  # gets `StoredPairs` only
        truncated, title = split.encoder.truncated, split.title_states(TITLES[:1])
        longest, short = (split.encoder.encode_queries([text]) for text in (TITLES[-1] * 12, QUERIES[0]))
        warm_up(scorer, split.pairs(longest, title), split.pairs(short, title))
        split.encoder.truncated = truncated  # count only users' queries
        if config.precision == "fp32" and config.max_seq_length is None:
            now.models.lend_states_ranker(partial(write_states, split))
        self._split = split

    def problem(self, info: IndexInfo) -> Optional[str]:
        """Return why an index's stored states are not used. Return None if they are used or the index has no states."""
        states = info.states
        if states is None:
            return None
        if self._split is None:
            return self._problem
        from paddle_ranker.stored_titles.stored_scores import is_made_by

        return None if is_made_by(states, self._split.states_info) else "another ranker made them; reload the models"

    def candidates(self, now: Snapshot, query: str, whole: Mapping[int, str]) -> Optional[StoredCandidates]:
        """Read the stored states of the candidates of a search for `query`, or None if states are not used.

        whole: for each candidate that is ranked by its whole document, the document's id by the candidate's index
        """
        if self._split is None or now.info.states is None or self.problem(now.info) is not None:
            return None
        from paddle_ranker.stored_titles.stored_scores import stored_candidates

        return stored_candidates(self._split, now, query, whole)


SERVED_STATES.add(STATES, StoredScoring)
