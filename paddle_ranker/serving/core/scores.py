"""What every protocol of the server asks for scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional, Protocol

import numpy as np

from paddle_ranker.model.info import RankerInfo
from paddle_ranker.serving.core.limits import Limits


class Scores(NamedTuple):
    """Of every pair its probability and its logit (calibrated where the ranker is), `[n]` float64 each."""

    probabilities: np.ndarray
    logits: np.ndarray


class ScoringService(Protocol):
    """Score pairs; to be awaited in the server's event loop, whatever the number of callers.

    Attributes: `info`, what the ranker is; `limits`, what a request may ask for.
    """

    @property
    def info(self) -> RankerInfo: ...

    @property
    def limits(self) -> Limits: ...

    async def score_pairs(
        self, queries: Sequence[str], titles: Sequence[str], *, deadline: Optional[float] = None
    ) -> Scores:
        """Score (queries[i], titles[i]).

        Args:
            deadline: when, on `time.monotonic()`'s clock, nobody waits for the answer any more.

        Raises `Fault`: over a limit, overloaded, too late, or not ready. Cancelled, it takes its pairs off the queue.
        """
        ...

    async def score_tokens(
        self, input_ids: np.ndarray, token_type_ids: np.ndarray, *, deadline: Optional[float] = None
    ) -> Scores:
        """Score pairs given as int64 `[n, length]` ids and token types, padded with the ranker's own padding id.

        Raises as `score_pairs` does; `Fault(INVALID)` for an id or a token type that the ranker does not have, and
        for pairs longer than its positions.
        """
        ...
