"""A measure of a plugin: `success@1`, the share of queries whose first title is relevant."""

from __future__ import annotations

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.metrics.measures import MEASURES, QueryMean
from paddle_ranker.metrics.ranking import Ranking


def success_at(ranking: Ranking, k: int) -> Floats:
    """Return 1 for a query with a relevant title among its first k, else 0: `[queries] float64`."""
    found = np.zeros(ranking.queries)
    is_hit = (ranking.labels >= 1) & (ranking.position < k)
    found[ranking.query[is_hit]] = 1.0
    return found


MEASURES.add("success@1", QueryMean("Success@1", "queries whose first title is relevant", success_at, 1))
