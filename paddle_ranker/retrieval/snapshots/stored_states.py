"""Stored states of documents, for one ranker: what computes them, keeps them in segments, and scores by them.

`index.json` describes them (`RankerStates`), and each segment has a folder of them. A guest has the kind that there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional, Protocol

from paddle_ranker.array_types import Floats, Integers
from paddle_ranker.errors import CheckpointError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.registry import Registry
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import RankerStates
from paddle_ranker.retrieval.stored.schema import Schema
from paddle_ranker.retrieval.stored.segments import SegmentStates

if TYPE_CHECKING:
    from paddle_ranker.retrieval.snapshots.searchable import Searchable, Snapshot
    from paddle_ranker.scoring.ranker import Ranker

ComputeStates = Callable[[Path, Iterable[Document], Schema, str], None]  # into an empty folder, as a type of numbers


class StatesScorer(Protocol):
    """Scorer of a search's candidates by their stored states; it reads the text of a candidate that has none."""

    def logits(self, now: Snapshot, query: str, texts: Sequence[str], whole: Mapping[int, str]) -> Floats:
        """Return the logits of candidates' texts, `[n]`.

        whole: ids of the candidates whose whole text is ranked, by index of the text
        """


class StatesKind(NamedTuple):
    """How states are stored.

    copy_ranker: (ranker, index folder, type of the numbers) copies a ranker into an index; raises `CheckpointError` for
        one that has no states
    digest_of: the digest of a ranker, as in `RankerStates`
    open_ranker: (its copy, how, texts of a batch) to what computes states
    open: (folder of a segment's states, their description, number of documents) raises `ValueError` if they do not fit
    merge: (empty folder, blocks of rows in folders of states) writes the states of the rows, in their order
    scorer: what scores by the states of an index; None, with a note why, if the ranker cannot use them
    """

    copy_ranker: Callable[[str, Path, str], RankerStates]
    digest_of: Callable[[str], str]
    open_ranker: Callable[[Path, LoadOptions, int], ComputeStates]
    open: Callable[[Path, RankerStates, int], SegmentStates]
    merge: Callable[[Path, Iterable[tuple[Path, Integers]]], None]
    scorer: Callable[[Searchable, Ranker], Optional[StatesScorer]]


STATES_KINDS: Registry[StatesKind] = Registry("stored states", "--store_states", recipes="states")
RANKER_STATES = "ranker_states"  # name of the kind


def kind_of_states(index: Path) -> StatesKind:
    """Return how the states of an index are stored; raises `CheckpointError` if this installation has no such kind."""
    if RANKER_STATES not in STATES_KINDS:
        raise CheckpointError(
            f"{index}: has stored states (--store_states), which this installation lacks; open it by one that has "
            "them, or build it anew without"
        )
    return STATES_KINDS[RANKER_STATES]
