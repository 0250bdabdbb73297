"""The area under the ROC curve over all pairs: its value, its interval and its test."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.errors import DataError
from paddle_ranker.metrics.intervals import Statistic
from paddle_ranker.metrics.ranking import RELEVANT, Floats, Integers, changes, check_scores, ordered_pairs
from paddle_ranker.metrics.significance import Difference

_MATRIX_CELLS = 20_000_000  # queries x pairs whose counts are held in memory


def count_relevant(labels: Floats) -> int:
    """Return how many pairs are relevant; raises `DataError` where all are, or none is: AUC needs both."""
    count = int((labels >= RELEVANT).sum())
    if count in (0, len(labels)):
        what = "none" if count == 0 else "each"
        raise DataError(
            f"AUC needs relevant pairs (label >= 1) and others: {what} of the {len(labels):,} is relevant; "
            "measure on a file that has both"
        )
    return count


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve: how often a relevant pair outscores another, ties counting a half.

    Exact (the Mann-Whitney statistic of ranks). Raises `DataError` where all pairs are relevant, or none is.
    """
    labels, scores = check_scores(labels, scores)
    count = count_relevant(labels)
    ordered = ordered_pairs(np.zeros(len(labels), np.int64), labels >= RELEVANT, scores)
    return float(ordered.sum() / (count * (len(labels) - count)))


def auc_of(numbers: Integers, labels: Floats, scores: Floats) -> Statistic:
    """Make the statistic "AUC over all pairs", each counting as often as its query, `numbers`, was drawn (`[pairs]`).

    Pairs are sorted once; a draw then costs two cumulative sums over the pairs.
    """
    order = np.argsort(scores, kind="stable")
    numbers, relevant = numbers[order], labels[order] >= RELEVANT
    starts = _starts(scores[order])

    def one_draw(drawn: Floats) -> float:
        weights = drawn[numbers]
        positive = np.add.reduceat(np.where(relevant, weights, 0.0), starts)
        negative = np.add.reduceat(np.where(relevant, 0.0, weights), starts)
        below = np.cumsum(negative) - 0.5 * negative
        total = positive.sum() * negative.sum()
        return float(positive @ below / total) if total else float("nan")

    return lambda drawn: np.array([one_draw(row) for row in drawn])


def _starts(values: Floats) -> Integers:
    """Return where runs of equal values start in `values`, `[n]`, which are sorted."""
    is_new = changes(values)
    is_new[:1] = True
    return np.flatnonzero(is_new)


def auc_difference(numbers: Integers, labels: Floats, scores: tuple[Floats, Floats]) -> Difference:
    """Make the difference of two systems' AUC over all pairs.

    The systems' scores need not have one scale, so a query's pairs change places by their rank among all pairs of
    their system: AUC depends on ranks alone.

    Args:
        numbers, labels: `[pairs]`, each pair's query from 0, and label.
        scores: `[pairs]` of either system.
    """
    from scipy.stats import rankdata

    both = np.concatenate([rankdata(values) for values in scores])
    query, relevant = np.concatenate([numbers, numbers]), np.concatenate([labels, labels]) >= RELEVANT
    second = np.arange(len(both)) >= len(numbers)
    total = float(relevant.sum()) * float((~relevant).sum()) / 4.0
    queries = int(numbers.max()) + 1
    if queries * len(numbers) > _MATRIX_CELLS:
        return _auc_by_sorting(query, second, relevant, both, total)
    counts = _ordered_counts(query + queries * second, relevant, both, 2 * queries) / total

    def all_at_once(swapped: NDArray[np.bool_]) -> Floats:
        first = np.hstack([~swapped, swapped]).astype(np.float64)  # whose results are called the first system's
        other = 1.0 - first
        found = np.einsum("bi,bi->b", first @ counts, first) - np.einsum("bi,bi->b", other @ counts, other)
        return np.asarray(found, np.float64)

    return all_at_once


def _ordered_counts(groups: Integers, relevant: NDArray[np.bool_], ranks: Floats, count: int) -> Floats:
    """Count, for each two groups, the relevant pairs of one above the others of the other; ties count a half."""
    owners, above = groups[relevant], ranks[relevant]
    order = np.lexsort((ranks[~relevant], groups[~relevant]))
    below, bounds = ranks[~relevant][order], np.searchsorted(groups[~relevant][order], np.arange(count + 1))
    counts = np.empty((count, count))
    for group in range(count):
        others = below[bounds[group] : bounds[group + 1]]
        lower = np.searchsorted(others, above, "left") + np.searchsorted(others, above, "right")
        counts[:, group] = np.bincount(owners, 0.5 * lower, count)
    return counts


def _auc_by_sorting(
    query: Integers, second: NDArray[np.bool_], relevant: NDArray[np.bool_], ranks: Floats, total: float
) -> Difference:
    """Make the same for many queries, whose counts would not fit into memory: a pass over all pairs each time."""
    order = np.argsort(ranks, kind="stable")
    query, second, relevant = query[order], second[order], relevant[order]
    starts = _starts(ranks[order])

    def auc(chosen: NDArray[np.bool_]) -> float:
        positive = np.add.reduceat((chosen & relevant).astype(np.float64), starts)
        negative = np.add.reduceat((chosen & ~relevant).astype(np.float64), starts)
        return float(positive @ (np.cumsum(negative) - 0.5 * negative)) / total

    def one(swapped: NDArray[np.bool_]) -> float:
        first = second == swapped[query]
        return auc(first) - auc(~first)

    return lambda swapped: np.array([one(draw) for draw in swapped])
