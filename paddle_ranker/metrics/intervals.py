"""Bootstrap confidence intervals over queries.

Titles of one query share the query's difficulty, so queries are drawn, not pairs. The difference of two systems is
taken within each draw (paired), which cancels the difficulty of the query.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import DataError

# A function from the counts of how often each query was drawn, [draws, queries], to each draw's measure, [draws].
Statistic = Callable[[Floats], Floats]
CELLS_AT_ONCE = 4_000_000  # most draws x queries held in memory at once


@dataclass(frozen=True)
class Interval:
    """A measure's value on all queries, and its confidence interval from `low` to `high`; both NaN: no interval.

    A format applies to value and bounds: `f"{interval:+.3f}"` is `+0.031 [-0.017, +0.044]`. Without an interval, it is
    the value alone.
    """

    estimate: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Return True if both bounds are above zero or both are below zero."""
        return self.low > 0 or self.high < 0

    def __format__(self, spec: str) -> str:
        value, low, high = (format(number, spec or ".3f") for number in (self.estimate, self.low, self.high))
        return value if math.isnan(self.low) else f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)


def bootstrap_interval(
    statistic: Statistic,
    queries: int,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 1000,
    draw: Optional[int] = None,
) -> Interval:
    """Return the percentile interval (Efron 1979) of `statistic` over draws of `queries` queries with replacement.

    A draw whose statistic is NaN (such as an AUC of one class) is ignored. The same seed draws the same queries, so
    several measures can be compared on the same draws. Raises `DataError` if there are fewer than 2 queries.

    queries: number of queries that `statistic` is about
    resamples: number of draws
    draw: number of queries per draw; None: `queries`. With a smaller number n, the interval is as wide as that of a
        test with n queries
    """
    statistics = {"": statistic}
    return bootstrap_intervals(statistics, queries, confidence=confidence, resamples=resamples, seed=seed, draw=draw)[
        ""
    ]


def bootstrap_intervals(
    statistics: Mapping[str, Statistic],
    queries: int,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 1000,
    draw: Optional[int] = None,
) -> dict[str, Interval]:
    """Return the intervals of several statistics by name, over the same draws; see `bootstrap_interval`."""
    if queries < 2:
        raise DataError(f"{queries} query: an interval over queries needs at least 2")
    generator = np.random.default_rng(seed)
    shares = np.full(queries, 1.0 / queries)
    chunk = max(1, CELLS_AT_ONCE // queries)
    values: dict[str, list[Floats]] = {name: [] for name in statistics}
    for done in range(0, resamples, chunk):
        drawn = generator.multinomial(draw or queries, shares, size=min(chunk, resamples - done)).astype(np.float64)
        for name, statistic in statistics.items():
            values[name].append(statistic(drawn))
    tail = 50.0 * (1.0 - confidence)
    intervals = {}
    for name, statistic in statistics.items():
        low, high = np.nanpercentile(np.concatenate(values[name]), [tail, 100.0 - tail])
        intervals[name] = Interval(float(statistic(np.ones((1, queries)))[0]), float(low), float(high))
    return intervals


def mean_of(values: Floats) -> Statistic:
    """Return the mean of `values`, one for each query (`[queries] float64`), as a statistic."""
    return lambda drawn: drawn @ values / drawn.sum(axis=1)


def ratio_of(numerators: Floats, denominators: Floats) -> Statistic:
    """Return sum(numerators) / sum(denominators) over queries (both `[queries] float64`), as a statistic."""

    def statistic(drawn: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return (drawn @ numerators) / (drawn @ denominators)

    return statistic


def difference(statistic: Statistic, baseline: Statistic) -> Statistic:
    """Return `statistic` minus `baseline`, both computed on the same draws, as a statistic."""
    return lambda drawn: statistic(drawn) - baseline(drawn)
