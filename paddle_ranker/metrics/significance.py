"""Test whether one system is better than another: paired randomisation tests over queries, and Holm's correction.

    p = randomisation_test(ndcg_of_a - ndcg_of_b)        # one difference a query
    adjusted = holm([p, other_p])

A randomisation test asks how often a difference at least as large occurs if, for each query, a coin decides whether the
two systems' results are swapped. It assumes nothing about the distribution of the differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Floats

PERMUTATIONS = 10_000
_CELLS_AT_ONCE = 4_000_000
# The sum of the same terms in another order differs by rounding: sums this close, relatively, count as equal.
_ROUNDING = 1e-9

# A function from a mask of queries whose results are swapped, [permutations, queries] bool, to the differences after
# the swaps, [permutations].
Difference = Callable[[NDArray[np.bool_]], Floats]


def randomisation_test(differences: Floats, *, permutations: int = PERMUTATIONS, seed: int = 1000) -> float:
    """Return the two-sided p-value of Fisher's randomisation test of a mean difference (Smucker et al. 2007).

    differences: `[queries] float64`, the first system's value minus the second system's value
    permutations: number of random sign changes. If the number of all possible sign changes is not larger, each possible
        one is used once instead, and the p-value is exact. Otherwise p = (1 + number of draws with a difference at
        least as large) / (1 + number of draws), which is never 0
    """
    moved = differences[differences != 0]  # the sign of a 0 changes nothing
    return swap_test(lambda swapped: np.where(swapped, -moved, moved).sum(axis=1), len(moved), permutations, seed)


def swap_test(difference: Difference, queries: int, permutations: int = PERMUTATIONS, seed: int = 1000) -> float:
    """Return the two-sided p-value of two systems' difference, by swapping their results for random sets of queries.

    difference: called with which queries are swapped, `[swaps, queries] bool`; returns the systems' differences,
        `[swaps]`
    queries: number of queries
    permutations: as in `randomisation_test`
    """
    observed = abs(float(difference(np.zeros((1, queries), bool))[0]))
    limit = observed - _ROUNDING * max(observed, 1e-3)
    exact = queries < 63 and 2**queries <= permutations
    count = 2**queries if exact else permutations
    generator = np.random.default_rng(seed)
    extreme, chunk = 0, max(1, _CELLS_AT_ONCE // max(queries, 1))
    for done in range(0, count, chunk):
        size = min(chunk, count - done)
        if exact:
            swapped = (np.arange(done, done + size)[:, None] >> np.arange(queries)) & 1 == 1
        else:
            swapped = generator.integers(0, 2, (size, queries), dtype=np.int8) == 1
        extreme += int((np.abs(difference(swapped)) >= limit).sum())
    return extreme / count if exact else (1 + extreme) / (1 + count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values after Holm's correction (1979) for several tests, in the order of `p_values`.

    The smallest of m p-values is multiplied by m, the next by m - 1, and so on. A result is at most 1 and at least the
    result of the next smaller p-value.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.array(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(value) for value in adjusted]
