"""Batches: every example once, little padding, a random order that the seed decides."""

from __future__ import annotations

import numpy as np
import pytest

from paddle_ranker.batching import WINDOW, scoring_batches, training_batches

pytestmark = pytest.mark.unit


@pytest.fixture
def lengths() -> np.ndarray:
    return np.random.RandomState(0).randint(10, 64, 5003)


def test_training_uses_every_example_once(lengths: np.ndarray) -> None:
    batches = training_batches(lengths, 32, seed=1, epoch=1)
    assert sorted(np.concatenate(batches)) == list(range(5003))
    assert max(len(batch) for batch in batches) == 32


def test_the_seed_and_the_epoch_decide_the_order(lengths: np.ndarray) -> None:
    first = training_batches(lengths, 32, seed=1, epoch=1)
    assert all((a == b).all() for a, b in zip(first, training_batches(lengths, 32, seed=1, epoch=1)))
    for other in (training_batches(lengths, 32, seed=2, epoch=1), training_batches(lengths, 32, seed=1, epoch=2)):
        assert any(len(a) != len(b) or (a != b).any() for a, b in zip(first, other))


def test_buckets_save_padding(lengths: np.ndarray) -> None:
    def padded(batches: list[np.ndarray]) -> int:
        return sum(lengths[batch].max() * len(batch) for batch in batches)

    shuffled = np.random.RandomState(1).permutation(5003)
    plain = [shuffled[i : i + 32] for i in range(0, 5003, 32)]
    bucketed = padded(training_batches(lengths, 32, seed=1, epoch=1))
    assert bucketed < 1.05 * lengths.sum() < padded(plain) / 1.3


def test_buckets_keep_the_order_random(lengths: np.ndarray) -> None:
    batches = training_batches(lengths, 32, seed=1, epoch=1)
    means = [lengths[batch].mean() for batch in batches]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.25  # short and long batches come mixed
    # Who shares a batch with example 0 changes from epoch to epoch.
    mates = [
        set(next(batch for batch in training_batches(lengths, 32, 1, epoch) if 0 in batch)) - {0} for epoch in range(6)
    ]
    assert len(set.intersection(*mates)) == 0
    assert len(lengths) > WINDOW * 32  # else the test above would prove little


def test_scoring_batches_respect_their_limits_and_lose_nothing(lengths: np.ndarray) -> None:
    lengths = np.append(lengths, 900)  # longer than the budget: alone in its batch
    batches = list(scoring_batches(lengths, max_tokens=640, max_rows=40))
    assert sorted(np.concatenate(batches)) == list(range(5004))
    assert batches[0].tolist() == [5003]
    assert all(lengths[batch].max() * len(batch) <= 640 and len(batch) <= 40 for batch in batches[1:])


def test_no_pairs_make_no_batches() -> None:
    assert list(scoring_batches(np.array([], dtype=np.int64), 640, 40)) == []
