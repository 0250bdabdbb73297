"""Whether one system is better than another: paired randomisation tests over queries, and Holm's correction.

    p = randomisation_test(ndcg_of_a - ndcg_of_b)        # one difference a query
    adjusted = holm([p, other_p])

A randomisation test asks how often a difference at least as large comes up when, for each query, a coin decides which
system's result is called whose. It assumes nothing about how the differences are distributed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from paddle_ranker.metrics.measures import RELEVANT, Floats, Integers, changes

PERMUTATIONS = 10_000
_CELLS_AT_ONCE = 4_000_000
_MATRIX_CELLS = 20_000_000
# Sums of the same terms in another order differ by rounding: such a difference counts as equal.
_ROUNDING = 1e-9

# From which queries' results change places, [permutations, queries] bool, to the difference then, [permutations].
Difference = Callable[[NDArray[np.bool_]], Floats]


def randomisation_test(differences: Floats, *, permutations: int = PERMUTATIONS, seed: int = 1000) -> float:
    """Return the two-sided p-value of Fisher's randomisation test of a mean difference (Smucker et al. 2007).

    Args:
        differences: `[queries] float64`, one system's value less the other's.
        permutations: how many of the 2^queries ways to change signs are drawn; all are gone through where they are
            not more. Drawn ones give p = (1 + as extreme) / (1 + drawn), which is never 0.
    """
    moved = differences[differences != 0]  # a query without a difference has none either way
    return swap_test(lambda swapped: np.where(swapped, -moved, moved).sum(axis=1), len(moved), permutations, seed)


def swap_test(difference: Difference, queries: int, permutations: int = PERMUTATIONS, seed: int = 1000) -> float:
    """Return the two-sided p-value of `difference` when, for each query, two systems' results may change places."""
    observed = abs(float(difference(np.zeros((1, queries), bool))[0]))
    limit = observed - _ROUNDING * max(observed, 1e-3)
    exact = queries < 63 and 2**queries <= permutations
    count = 2**queries if exact else permutations
    generator = np.random.default_rng(seed)
    extreme, chunk = 0, max(1, _CELLS_AT_ONCE // max(queries, 1))
    for done in range(0, count, chunk):
        some = min(chunk, count - done)
        if exact:
            swapped = (np.arange(done, done + some)[:, None] >> np.arange(queries)) & 1 == 1
        else:
            swapped = generator.integers(0, 2, (some, queries), dtype=np.int8) == 1
        extreme += int((np.abs(difference(swapped)) >= limit).sum())
    return extreme / count if exact else (1 + extreme) / (1 + count)


def auc_difference(numbers: Integers, labels: Floats, scores: tuple[Floats, Floats]) -> Difference:
    """Make the difference of two systems' AUC over all pairs.

    The systems' scores need not have one scale, so a query's pairs change places by their rank among all pairs of
    their system: AUC depends on ranks alone.

    Args:
        numbers, labels: `[pairs]`, each pair's query from 0, and label.
        scores: `[pairs]` of either system.
    """
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
    new_rank = changes(ranks[order])
    new_rank[:1] = True
    starts = np.flatnonzero(new_rank)

    def auc(chosen: NDArray[np.bool_]) -> float:
        positive = np.add.reduceat((chosen & relevant).astype(np.float64), starts)
        negative = np.add.reduceat((chosen & ~relevant).astype(np.float64), starts)
        return float(positive @ (np.cumsum(negative) - 0.5 * negative)) / total

    def one(swapped: NDArray[np.bool_]) -> float:
        first = second == swapped[query]
        return auc(first) - auc(~first)

    return lambda swapped: np.array([one(draw) for draw in swapped])


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are (Holm 1979): the chance of any false alarm stays below each.

    The smallest is multiplied by their number, the next by one less, and none falls below the one before.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.array(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(value) for value in adjusted]
