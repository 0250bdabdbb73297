"""How sure a measure is: bootstrap intervals over queries.

Titles of one query share its difficulty, so queries are drawn, not pairs. The difference of two systems is taken
within each draw (paired): what makes a query hard for both falls out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.errors import DataError
from paddle_ranker.metrics import measures as metrics
from paddle_ranker.metrics.measures import RELEVANT, Floats, add_by_query, check_pairs, rank

# From how often each query was drawn, [draws, queries], to the measure of each draw, [draws].
Statistic = Callable[[Floats], Floats]
MEASURES = ("auc", "mrr@10", "ndcg@10", "map", "p@1", "p@5", "p@10", "r@10", "pairs_ordered")
CELLS_AT_ONCE = 4_000_000  # draws x queries (or pairs) held in memory together


@dataclass(frozen=True)
class Interval:
    """A measure of the data as given, and the bounds that hold it with the stated confidence."""

    estimate: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Say whether a difference is established."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_interval(
    statistic: Statistic, queries: int, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 1000
) -> Interval:
    """Return the percentile interval (Efron 1979) of `statistic` over draws of `queries` queries with replacement.

    Draws for which the statistic is NaN (an AUC of one class) are left out. The same seed draws the same queries, so
    intervals of several measures are of the same draws.
    """
    one = {"": statistic}
    return bootstrap_intervals(one, queries, confidence=confidence, resamples=resamples, seed=seed)[""]


def bootstrap_intervals(
    statistics: Mapping[str, Statistic],
    queries: int,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 1000,
) -> dict[str, Interval]:
    """Return the intervals of several statistics over the same draws, as `bootstrap_interval` each."""
    if queries < 2:
        raise DataError(f"{queries} query: an interval over queries needs at least 2")
    generator = np.random.default_rng(seed)
    shares = np.full(queries, 1.0 / queries)
    chunk = max(1, CELLS_AT_ONCE // queries)
    values: dict[str, list[Floats]] = {name: [] for name in statistics}
    for done in range(0, resamples, chunk):
        drawn = generator.multinomial(queries, shares, size=min(chunk, resamples - done)).astype(np.float64)
        for name, statistic in statistics.items():
            values[name].append(statistic(drawn))
    tail = 50.0 * (1.0 - confidence)
    intervals = {}
    for name, statistic in statistics.items():
        low, high = np.nanpercentile(np.concatenate(values[name]), [tail, 100.0 - tail])
        intervals[name] = Interval(float(statistic(np.ones((1, queries)))[0]), float(low), float(high))
    return intervals


def mean_of(values: Floats) -> Statistic:
    """Make the statistic "mean over queries" of `values` (`[queries] float64`)."""
    return lambda drawn: drawn @ values / drawn.sum(axis=1)


def ratio_of(numerators: Floats, denominators: Floats) -> Statistic:
    """Make the statistic "sum over sum" of two values a query (both `[queries] float64`)."""

    def statistic(drawn: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return (drawn @ numerators) / (drawn @ denominators)

    return statistic


def auc_of(
    queries: Union[Sequence[str], NDArray[Any]],
    labels: ArrayLike,
    scores: ArrayLike,
    judged: Optional[NDArray[np.bool_]] = None,
) -> Statistic:
    """Make the statistic "AUC over all pairs" (`judged`: over these), each counting as often as its query was drawn.

    Pairs are sorted once; a draw then costs two cumulative sums over the pairs.
    """
    numbers, labels, scores = check_pairs(queries, labels, scores)
    if judged is not None:
        numbers, labels, scores = numbers[judged], labels[judged], scores[judged]
    order = np.argsort(scores, kind="stable")
    numbers = numbers[order]
    relevant = labels[order] >= RELEVANT
    new_score = metrics.changes(scores[order])
    new_score[:1] = True
    starts = np.flatnonzero(new_score)  # of runs of equal scores

    def one_draw(drawn: Floats) -> float:
        weights = drawn[numbers]
        positive = np.add.reduceat(np.where(relevant, weights, 0.0), starts)
        negative = np.add.reduceat(np.where(relevant, 0.0, weights), starts)
        below = np.cumsum(negative) - 0.5 * negative
        total = positive.sum() * negative.sum()
        return float(positive @ below / total) if total else float("nan")

    return lambda drawn: np.array([one_draw(row) for row in drawn])


def difference(statistic: Statistic, baseline: Statistic) -> Statistic:
    """Make the statistic of the paired difference: both are taken of the same draws."""
    return lambda drawn: statistic(drawn) - baseline(drawn)


def ranking_statistics(
    queries: Union[Sequence[str], NDArray[Any]],
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    ids: Optional[Sequence[str]] = None,
    judged: Optional[NDArray[np.bool_]] = None,
) -> dict[str, Statistic]:
    """Return the statistics of `MEASURES` by name: those of `evaluate_ranking`, and P@1, P@5, P@10, R@10.

    Args:
        queries, labels, scores: one a pair, as for `evaluate_ranking`.
        ids: the documents' ids: equal scores in trec_eval's order (`metrics.rank`).
        judged: `[pairs] bool`, which pairs somebody judged (default: all): AUC and `pairs_ordered` are over these.
    """
    numbers, labels, scores = check_pairs(queries, labels, scores)
    ranking = rank(queries, labels, scores, ids)
    known = np.ones(len(labels), bool) if judged is None else judged
    pairs = numbers[known], labels[known], scores[known]
    return {
        "auc": auc_of(queries, labels, scores, judged),
        **{name: mean_of(values) for name, values in metrics.measures_by_query(ranking).items()},
        "pairs_ordered": ratio_of(
            add_by_query(pairs[0], metrics.ordered_pairs(*pairs), ranking.queries),
            add_by_query(pairs[0], metrics.comparable_pairs(*pairs[:2]), ranking.queries),
        ),
    }


def ranking_intervals(
    queries: Union[Sequence[str], NDArray[Any]],
    labels: ArrayLike,
    scores: ArrayLike,
    baseline_scores: Optional[ArrayLike] = None,
    *,
    measures: Sequence[str] = ("auc", "ndcg@10"),
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 1000,
) -> dict[str, Interval]:
    """Return each measure's interval; with `baseline_scores` that of the paired difference `scores - baseline`."""
    statistics = ranking_statistics(queries, labels, scores)
    if baseline_scores is not None:
        others = ranking_statistics(queries, labels, baseline_scores)
        statistics = {name: difference(statistics[name], others[name]) for name in measures}
    count = len(set(queries))
    return {
        name: bootstrap_interval(statistics[name], count, confidence=confidence, resamples=resamples, seed=seed)
        for name in measures
    }
