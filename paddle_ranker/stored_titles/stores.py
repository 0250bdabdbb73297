"""What `--store` does in commands that score a file; importing this module registers it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from paddle_ranker.scoring.scoring_options import BY_STORE, TITLES, PredictOptions

if TYPE_CHECKING:
    from paddle_ranker.data.rows.records import Pair


def _score(options: PredictOptions, store: str) -> Iterator[tuple[Pair, float]]:
    from paddle_ranker.stored_titles.stored_ranker import score_stored_pairs

    return score_stored_pairs(options, store)


BY_STORE.add(TITLES, _score)
