"""Baselines that see words and no meaning; any ranker is measured beside them.

baseline = BM25("bigram")
baseline.fit(train_queries, train_titles, train_labels)
scores = baseline.score(queries, titles)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.lexical.bm25 import BM25
from paddle_ranker.lexical.features import FEATURES, LexicalFeatures
from paddle_ranker.lexical.linear import LexicalLogistic, NgramLogistic

__all__ = ["BM25", "FEATURES", "Baseline", "LexicalFeatures", "LexicalLogistic", "NgramLogistic"]


class Baseline(Protocol):
    """Something that learns from graded pairs and scores pairs, each by itself."""

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: Sequence[float]) -> None:
        """Learn from pairs, one label each."""

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return one score a pair, `[pairs] float64`; higher is more relevant."""
