"""Randomisation tests equal SciPy's and values counted by hand; Holm's correction equals the textbook's steps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from paddle_ranker.metrics import auc
from paddle_ranker.metrics.auc import auc_difference, roc_auc
from paddle_ranker.metrics.significance import holm, randomisation_test, swap_test

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ([3, 2, 1], 2 / 8),  # |sums| of the 8 sign patterns of 3, 2, 1: 6 4 2 0 0 2 4 6; two of them reach 6
        ([3, -2, 1], 6 / 8),  # 3 - 2 + 1 = 2: six of the eight reach it
        ([3, 0, 2, 1, 0], 2 / 8),  # no difference changes nothing
        ([0] * 5, 1),
        ([], 1),
        ([0.1, 0.2, -0.3], 1),  # tied sums in another order count as equal: 0.1 + 0.2 is not 0.3 in binary
        ([0.1, 0.2, 0.3, 0.1 + 0.2], 2 / 16),
    ],
)
def test_counted_by_hand(values: list[float], share: float) -> None:
    assert randomisation_test(np.array(values, float)) == share


@pytest.mark.parametrize("queries", [4, 9, 12])
def test_every_sign_pattern_is_scipys_exact_test(queries: int) -> None:
    from scipy.stats import permutation_test

    values = np.random.default_rng(queries).normal(0.3, 1.0, queries)
    theirs = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert randomisation_test(values) == pytest.approx(theirs, abs=1e-12)


def test_drawn_patterns_are_near_scipys_and_reproducible() -> None:
    from scipy.stats import permutation_test

    values = np.random.default_rng(0).normal(0.15, 1.0, 120)
    theirs = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=10_000, random_state=1).pvalue
    ours = randomisation_test(values)
    assert ours == pytest.approx(theirs, abs=0.02)
    assert ours == randomisation_test(values) != randomisation_test(values, seed=2)
    assert randomisation_test(np.ones(200)) == 1 / 10_001  # never 0


@pytest.mark.parametrize("cells", [20_000_000, 0])  # by counts of queries' pairs, and by sorting all pairs
def test_auc_swaps_the_queries_ranks(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auc, "_MATRIX_CELLS", cells)
    generator = np.random.default_rng(4)
    numbers = np.sort(generator.integers(0, 5, 30))
    labels = generator.integers(0, 2, 30).astype(float)
    # The two scales are unrelated; both have ties.
    scores = np.round(labels + generator.normal(size=30), 1), 100 * np.round(generator.normal(size=30), 1) - 900
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in scores]
    difference = auc_difference(numbers, labels, scores)
    patterns = np.array(list(itertools.product([False, True], repeat=5)))
    found = difference(patterns)
    for pattern, value in zip(patterns, found):
        swapped = pattern[numbers]
        first, second = np.where(swapped, ranks[1], ranks[0]), np.where(swapped, ranks[0], ranks[1])
        assert value == pytest.approx(roc_auc(labels, first) - roc_auc(labels, second), abs=1e-12)
    assert found[0] == pytest.approx(roc_auc(labels, scores[0]) - roc_auc(labels, scores[1]), abs=1e-12)
    as_extreme = np.abs(found) >= abs(found[0]) - 1e-9
    assert swap_test(difference, 5) == as_extreme.mean()


def test_holm_step_by_step() -> None:
    # sorted 0.01 0.02 0.03 0.04: times 4 3 2 1 is 0.04 0.06 0.06 0.04, none below the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
