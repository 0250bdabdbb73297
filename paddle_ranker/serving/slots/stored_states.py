"""What scores a server's searches by the stored states of its index: the interface, and who adds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Optional, Protocol

from paddle_ranker.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from paddle_ranker.encoding.columns import Columns
    from paddle_ranker.retrieval.snapshots.searchable import Snapshot
    from paddle_ranker.retrieval.stored.manifest import IndexInfo
    from paddle_ranker.serving.core.server_config import ServeConfig
    from paddle_ranker.serving.slots.ranker_slot import ServedRanker


class ServedStates(Protocol):
    """Scoring of a search's candidates by an index's stored states, with the ranker that computed them."""

    def open(self, now: Snapshot, ranker: ServedRanker, config: ServeConfig) -> None:
        """Prepare the server's ranker to score by the states of an index, if it computed them; else log the reason."""

    def problem(self, info: IndexInfo) -> Optional[str]:
        """Return why an index's stored states are not used. Return None if they are used or the index has no states."""

    def candidates(
        self, now: Snapshot, query: str, whole: Mapping[int, str]
    ) -> Optional[tuple[NDArray[np.int64], Columns]]:
        """Read the stored states of the candidates of a search for `query`; return None if states are not used.

        whole: for each candidate that is ranked by its whole document, the document's id by the candidate's index

        Returns the indices of the candidates that have states, `[n]`, and the pairs of the query with each of them.
        """


SERVED_STATES: Registry[Callable[[], ServedStates]] = Registry("scoring by stored states", recipes="plugin")
STATES = "states"  # its name in this registry


def served_states() -> Optional[ServedStates]:
    """Return what scores by the stored states of one index; None if this installation has no stored states."""
    return SERVED_STATES[STATES]() if STATES in SERVED_STATES else None
