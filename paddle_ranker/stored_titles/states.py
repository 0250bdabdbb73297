"""How indexes store states of documents; importing this module registers it, and is fast."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from paddle_ranker.array_types import Integers
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.retrieval.snapshots.stored_states import RANKER_STATES, STATES_KINDS, ComputeStates, StatesKind
from paddle_ranker.retrieval.stored.manifest import RankerStates
from paddle_ranker.stored_titles.title_states import StatesWriter, TitleStates

if TYPE_CHECKING:
    from paddle_ranker.retrieval.snapshots.searchable import Searchable
    from paddle_ranker.retrieval.snapshots.stored_states import StatesScorer
    from paddle_ranker.scoring.ranker import Ranker

_AT_ONCE = 256  # documents whose states are copied at a time


def _copy_ranker(source: str, index: Path, dtype: str) -> RankerStates:
    from paddle_ranker.stored_titles.document_states import copy_ranker

    return copy_ranker(source, index, dtype)


def _digest_of(source: str) -> str:
    from paddle_ranker.stored_titles.stored_ranker import SplitRanker

    return SplitRanker.open(source).states_info.ranker


def _open_ranker(folder: Path, options: LoadOptions, batch_size: int) -> ComputeStates:
    from paddle_ranker.stored_titles.document_states import write_states
    from paddle_ranker.stored_titles.stored_ranker import SplitRanker

    return partial(write_states, SplitRanker.open(folder, options, batch_size))


def _scorer(collection: Searchable, ranker: Ranker) -> Optional[StatesScorer]:
    from paddle_ranker.stored_titles.stored_scores import stored_scorer

    return stored_scorer(collection, ranker)


def _open(folder: Path, wanted: RankerStates, documents: int) -> TitleStates:
    """Open the states of a segment; raises `ValueError` unless they are those that index.json says it has."""
    if not folder.is_dir():
        raise ValueError("it has no stored states, as index.json says")
    states = TitleStates.open(folder)
    facts = states.info.ranker, states.info.layers, states.info.width, states.info.dtype, states.info.titles
    if facts != (wanted.ranker, wanted.layers, wanted.width, wanted.dtype, documents):
        raise ValueError("its stored states are not those that index.json states")
    return states


def _merge(target: Path, blocks: Iterable[tuple[Path, Integers]]) -> None:
    """Write the states of rows of segments, whose folders are given, into an empty folder, in their order."""
    writer: Optional[StatesWriter] = None
    for folder, of_folder in groupby(blocks, lambda block: block[0]):
        states = TitleStates.open(folder)
        writer = writer or StatesWriter(target, states.info)
        for _, rows in of_folder:
            for start in range(0, len(rows), _AT_ONCE):
                writer.append(states.take(rows[start : start + _AT_ONCE]))
    if writer is not None:
        writer.finish()


STATES_KINDS.add(RANKER_STATES, StatesKind(_copy_ranker, _digest_of, _open_ranker, _open, _merge, _scorer))
