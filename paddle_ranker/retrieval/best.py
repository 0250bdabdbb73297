"""The best of many scores, found part by part."""

from __future__ import annotations

from typing import Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.metrics.ranking import Floats, Integers

_SAMPLE = 1 << 14


class Best:
    """Keep the `k` best scores of what is added, and the numbers that they belong to; equal scores by number."""

    def __init__(self, k: int):
        self.k = k
        self._numbers, self._scores = np.empty(0, np.int64), np.empty(0, np.float64)
        self.least = -np.inf  # no lower score can be among the best

    def add(self, numbers: Integers, scores: NDArray[Union[np.float32, np.float64]]) -> None:
        """Add scores, `[n]`, of numbers, `[n]`, that were not added before."""
        if len(scores) > _SAMPLE and len(self._scores) < self.k <= _SAMPLE:
            # The k-th best of a part bounds the k-th best of all from below, and costs less to find.
            self.least = max(self.least, float(np.partition(scores[:_SAMPLE], -self.k)[-self.k]))
        if self.least > -np.inf:
            kept = np.flatnonzero(scores >= self.least)
            numbers, scores = numbers[kept], scores[kept]
        all_numbers = np.concatenate([self._numbers, numbers])
        all_scores = np.concatenate([self._scores, scores.astype(np.float64)])
        if len(all_scores) > self.k:
            self.least = max(self.least, float(np.partition(all_scores, -self.k)[-self.k]))
            good = all_scores >= self.least
            all_numbers, all_scores = all_numbers[good], all_scores[good]
        self._numbers, self._scores = self._first(all_numbers, all_scores)

    def found(self) -> tuple[Integers, Floats]:
        """Return the numbers and scores, best first."""
        return self._numbers, self._scores

    def _first(self, numbers: Integers, scores: Floats) -> tuple[Integers, Floats]:
        order = np.lexsort((numbers, -scores))[: self.k]
        return numbers[order], scores[order]
