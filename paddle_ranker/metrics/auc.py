"""The area under the ROC curve (AUC) over all pairs: its value, its confidence interval and its test."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.array_types import Floats, Integers
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.intervals import Statistic
from paddle_ranker.metrics.ranking import RELEVANT, changes, check_scores, ordered_pairs
from paddle_ranker.metrics.significance import Difference

_MATRIX_CELLS = 20_000_000  # up to this many queries x pairs, `auc_difference` holds a matrix of counts


def count_relevant(labels: Floats) -> int:
    """Return how many pairs are relevant; raises `DataError` if all or none are, since AUC needs both classes."""
    count = int((labels >= RELEVANT).sum())
    if count in (0, len(labels)):
        what = "none" if count == 0 else "each"
        raise DataError(
            f"AUC needs relevant pairs (label >= 1) and others: {what} of the {len(labels):,} is relevant; "
            "measure on a file that has both"
        )
    return count


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the AUC: how often a relevant pair scores above a non-relevant pair, where a tie counts a half.

    The value is exact (the Mann-Whitney statistic of ranks). Raises `DataError` if all pairs are relevant or none is,
    and as `check_scores` does.
    """
    labels, scores = check_scores(labels, scores)
    count = count_relevant(labels)
    ordered = ordered_pairs(np.zeros(len(labels), np.int64), labels >= RELEVANT, scores)
    return float(ordered.sum() / (count * (len(labels) - count)))


def auc_of(numbers: Integers, labels: Floats, scores: Floats) -> Statistic:
    """Return the AUC over all pairs as a statistic in which a pair counts as often as its query was drawn.

    The pairs are sorted once; each draw then takes only a few sums over the pairs.

    numbers: index of each pair's query, from 0, `[pairs]`
    labels, scores: the pairs' labels and scores, `[pairs]` each
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
    """Return the index where each run of equal values begins in sorted `values`, `[runs]`."""
    is_new = changes(values)
    is_new[:1] = True
    return np.flatnonzero(is_new)


def auc_difference(numbers: Integers, labels: Floats, scores: tuple[Floats, Floats]) -> Difference:
    """Return a function for `swap_test` that computes the difference of two systems' AUC after swaps.

    The systems' scores may have different scales. Since AUC depends on ranks alone, each score is first replaced by its
    rank among all scores of its system.

    numbers: index of each pair's query, from 0, `[pairs]`
    labels: label of each pair, `[pairs]`
    scores: the first and the second system's scores, `[pairs]` each
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
        first = np.hstack([~swapped, swapped]).astype(np.float64)  # 1 for results that now belong to the first system
        other = 1.0 - first
        differences = np.einsum("bi,bi->b", first @ counts, first) - np.einsum("bi,bi->b", other @ counts, other)
        return np.asarray(differences, np.float64)

    return all_at_once


def _ordered_counts(groups: Integers, relevant: NDArray[np.bool_], ranks: Floats, count: int) -> Floats:
    """Count, for groups i and j, how often a relevant pair of i ranks above a non-relevant pair of j.

    The result has the shape `[count, count]`. A tie counts a half.

    groups: index of each pair's group, below `count`, `[pairs]`
    relevant, ranks: which pairs are relevant, and their ranks, `[pairs]` each
    """
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
    """Return the function of `auc_difference` in a form that needs little memory, but reads all pairs for each swap.

    query, relevant, ranks: query, relevance and rank of all pairs of the first system, followed by those of the second,
        `[2 * pairs]` each
    second: True for the pairs of the second system, `[2 * pairs]`
    total: number of combinations of a relevant and a non-relevant pair
    """
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
