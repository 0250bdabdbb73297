"""Batches: every example once, little padding, a random order that the seed decides, the same after a resume."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Optional

import numpy as np
import pytest

from paddle_ranker.encoding.batching import (
    WINDOW,
    Batch,
    BatchPlan,
    Groups,
    batches_by_query,
    count_batches,
    mean_fill,
    permuted,
    rows_within,
    scoring_batches,
    training_batches,
)
from paddle_ranker.encoding.columns import EncodedPairs, offsets_of

pytestmark = pytest.mark.unit


@dataclass
class Lengths:
    """Examples that are nothing but their lengths; counts how many lengths were asked for."""

    values: np.ndarray
    rows_each: int = 1
    groups: Optional[Groups] = None
    asked: int = 0

    def __len__(self) -> int:
        return len(self.values)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        self.asked += len(indices)
        return self.values[indices]


@pytest.fixture
def lengths() -> np.ndarray:
    return np.random.RandomState(0).randint(10, 64, 5003)


@pytest.fixture
def grouped(lengths: np.ndarray) -> Lengths:
    """5,003 examples in groups of about 4, which lie scattered, and one of 41."""
    keys = np.random.RandomState(1).randint(0, 1200, 5003)
    keys[::125] = 1200
    return Lengths(lengths, rows_each=1, groups=Groups.of(keys))


def all_batches(examples: Any, plan: BatchPlan, epoch: int = 1, skip: int = 0) -> list[Batch]:
    return list(training_batches(examples, plan, epoch, skip))


def joined(batch: Batch) -> np.ndarray:
    return np.concatenate(batch)


def assert_equal_batches(first: list[Batch], second: list[Batch]) -> None:
    assert [[part.tolist() for part in batch] for batch in first] == [[p.tolist() for p in batch] for batch in second]


PLANS = [
    BatchPlan(32),
    BatchPlan(8, parts=4),
    BatchPlan(7, parts=3, seed=5),
    BatchPlan(32, max_tokens=500),
    BatchPlan(16, parts=3, max_tokens=400, seed=2),
]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("in_groups", [False, True])
def test_every_example_comes_once_an_epoch_and_a_resume_leaves_out_the_first_batches(
    grouped: Lengths, plan: BatchPlan, in_groups: bool
) -> None:
    examples = grouped if in_groups else replace(grouped, groups=None)
    batches = all_batches(examples, plan, epoch=2)
    assert sorted(np.concatenate([joined(batch) for batch in batches])) == list(range(5003))
    assert {len(batch) for batch in batches} == {plan.parts}
    assert all(len(joined(batch)) for batch in batches)
    assert count_batches(examples, plan, 2) == len(batches)
    for skip in (0, 1, WINDOW - 1, WINDOW, WINDOW + 3, len(batches) - 1, len(batches), len(batches) + 60):
        assert_equal_batches(all_batches(examples, plan, epoch=2, skip=skip), batches[skip:])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 31, 33])
@pytest.mark.parametrize("plan", PLANS)
def test_fewer_examples_than_a_batch_needs(n: int, plan: BatchPlan) -> None:
    for groups in (None, Groups.of(["x", "y", "x"] * (n // 3) + ["z"] * (n % 3))):
        examples = Lengths(np.arange(n) % 9 + 3, groups=groups)
        batches = all_batches(examples, plan)
        assert sorted(i for batch in batches for part in batch for i in part) == list(range(n))
        assert count_batches(examples, plan, 1) == len(batches)
        assert all(len(batch) == plan.parts for batch in batches)


def test_parts_are_alike_and_change_no_batch_of_which_only_the_last_is_smaller(lengths: np.ndarray) -> None:
    alone, apart = (all_batches(Lengths(lengths), plan) for plan in (BatchPlan(32), BatchPlan(8, parts=4)))
    assert Counter(len(joined(batch)) for batch in apart) == {32: 156, 11: 1}  # 5,003 = 156 * 32 + 11
    assert [sorted(joined(batch)) for batch in alone] == [sorted(joined(batch)) for batch in apart]
    for batch in apart:
        sizes = [len(part) for part in batch]
        assert max(sizes) - min(sizes) <= 1
    means = np.array([[lengths[part].mean() for part in batch] for batch in apart])
    assert np.ptp(means.mean(axis=0)) < 0.5  # of about 37 tokens


def test_the_seed_and_the_epoch_decide_the_order(lengths: np.ndarray, grouped: Lengths) -> None:
    examples = Lengths(lengths)
    first = all_batches(examples, BatchPlan(32, seed=1))
    assert_equal_batches(first, all_batches(examples, BatchPlan(32, seed=1)))
    for plan, epoch in ((BatchPlan(32, seed=2), 1), (BatchPlan(32, seed=1), 2)):
        other = all_batches(examples, plan, epoch)
        assert any(len(a[0]) != len(b[0]) or (a[0] != b[0]).any() for a, b in zip(first, other))
    # Who shares a batch with example 0 changes from epoch to epoch, also of groups.
    for shuffled, size in ((examples, 32), (grouped, 64)):
        epochs = (all_batches(shuffled, BatchPlan(size), epoch) for epoch in range(1, 7))
        mates = [next(frozenset(batch[0]) for batch in batches if 0 in batch[0]) for batches in epochs]
        assert len(set(mates)) > 3 and (shuffled is grouped or len(frozenset.intersection(*mates)) == 1)


def padded(lengths: np.ndarray, batches: list[Batch]) -> int:
    return sum(int(lengths[part].max()) * len(part) for batch in batches for part in batch if len(part))


def test_buckets_save_padding_and_keep_the_order_random(lengths: np.ndarray) -> None:
    shuffled = np.random.RandomState(1).permutation(5003)
    plain = padded(lengths, [[shuffled[i : i + 32] for i in range(0, 5003, 32)]])
    for plan in (BatchPlan(32), BatchPlan(8, parts=4), BatchPlan(64, max_tokens=1000)):
        assert padded(lengths, all_batches(Lengths(lengths), plan)) < 1.05 * lengths.sum() < plain / 1.3
    means = [lengths[batch[0]].mean() for batch in all_batches(Lengths(lengths), BatchPlan(32, seed=1))]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.25  # short and long batches come mixed
    assert len(lengths) > WINDOW * 32  # else this would prove little


@pytest.mark.parametrize("rows_each", [1, 2])
@pytest.mark.parametrize("parts", [1, 3])
def test_the_token_budget_holds_and_is_used(lengths: np.ndarray, rows_each: int, parts: int) -> None:
    examples = Lengths(np.append(lengths, 2000), rows_each)
    plan = BatchPlan(batch_size=64, parts=parts, max_tokens=1600)
    micro = [part for batch in all_batches(examples, plan) for part in batch if len(part)]
    costs = np.array([rows_each * int(examples.values[part].max()) * len(part) for part in micro])
    over = [part.tolist() for part, cost in zip(micro, costs) if cost > 1600]
    assert over == [[5003]]  # longer than the budget: alone
    assert max(len(part) for part in micro) <= 64
    assert np.median(costs) > 0.9 * 1600


def test_small_batches_by_hand() -> None:
    # From the longest down: 10 tokens -> 2 a micro-batch (2 * 10 <= 20), 5 -> 4, and what is left.
    examples = Lengths(np.array([5, 10, 5, 8, 5, 5, 2]))
    batches = all_batches(examples, BatchPlan(batch_size=9, max_tokens=20))
    assert sorted(sorted(examples.values[batch[0]].tolist()) for batch in batches) == [[2], [5, 5, 5, 5], [8, 10]]
    # One example leaves the later parts empty.
    assert_equal_batches(
        all_batches(Lengths(np.array([9])), BatchPlan(4, parts=3)), [[np.array([0]), np.array([]), np.array([])]]
    )
    assert list(scoring_batches(np.array([], dtype=np.int64), 640, 40)) == []
    assert permuted(np.arange(0), 0, (1,)).tolist() == []


def test_lengths_are_not_looked_at_in_vain(lengths: np.ndarray) -> None:
    examples, plan = Lengths(lengths), BatchPlan(8)
    assert count_batches(examples, plan, epoch=1) == 626 and examples.asked == 0
    next(iter(training_batches(examples, plan, epoch=1, skip=6 * WINDOW + 1)))
    assert examples.asked == WINDOW * 8  # of the seventh window alone


def test_groups_by_hand() -> None:
    by_text = Groups.of(["b", "a", "b", "c", "a", "b"])
    assert (by_text.offsets.tolist(), by_text.members.tolist()) == ([0, 3, 5, 6], [0, 2, 5, 1, 4, 3])
    by_number = Groups.of(np.array([7, 3, 7, 9, 3, 7]))
    assert (by_number.offsets.tolist(), by_number.members.tolist()) == ([0, 2, 5, 6], [1, 4, 0, 2, 5, 3])
    assert (Groups.of([]).offsets.tolist(), len(Groups.of([])), len(by_text)) == ([0], 0, 3)


@pytest.mark.parametrize("plan", PLANS)
def test_groups_stay_whole(grouped: Lengths, plan: BatchPlan) -> None:
    groups = grouped.groups
    assert groups is not None
    group_of = np.empty(5003, dtype=int)
    for number in range(len(groups)):
        group_of[groups.members[groups.offsets[number] : groups.offsets[number + 1]]] = number
    micro = [part for batch in all_batches(grouped, plan) for part in batch if len(part)]
    assert sum(len(set(group_of[part])) for part in micro) == len(groups)
    for part in micro:
        cost = len(part) * int(grouped.values[part].max())
        too_large = len(part) > plan.batch_size or (plan.max_tokens and cost > plan.max_tokens)
        assert not too_large or len(set(group_of[part])) == 1  # larger than a micro-batch by itself
    assert any(len(set(group_of[part])) > 1 for part in micro)


def test_groups_pack_by_hand() -> None:
    # Longest pairs: x 9, y 7, z 5, w 3. Four examples fit: x and y, then z alone (w would make five), then w.
    groups = Groups.of(["x", "x", "y", "z", "z", "z", "w", "w"])
    examples = Lengths(np.array([9, 1, 7, 5, 1, 1, 3, 3]), groups=groups)
    batches = all_batches(examples, BatchPlan(batch_size=4, parts=2))
    found = sorted([part.tolist() for part in batch] for batch in batches)
    assert found == [[[0, 1, 2], [3, 4, 5]], [[6, 7], []]]


def test_a_group_goes_where_it_leaves_the_least_room() -> None:
    # Of four examples: v (3) and w (2) begin one each, x (1) fits both and fills v up; y (2) then fits w.
    examples = Lengths(np.array([9, 1, 1, 7, 1, 5, 4, 1]), groups=Groups.of(list("vvvwwxyy")))
    found = all_batches(examples, BatchPlan(batch_size=4))
    assert sorted(part.tolist() for batch in found for part in batch) == [[0, 1, 2, 5], [3, 4, 6, 7]]
    assert mean_fill(examples, BatchPlan(batch_size=4)) == (4, 2)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100, 65_536, 1_000_003])
def test_a_permutation_gives_every_number_once(n: int) -> None:
    whole = permuted(np.arange(n), n, (1, 2))
    assert whole.dtype == np.int64
    assert (np.sort(whole) == np.arange(n)).all()
    some = np.array([n - 1, 0, n // 2, 0])
    assert (permuted(some, n, (1, 2)) == whole[some]).all()  # a slice costs a slice
    if n >= 100:
        assert (permuted(np.arange(n), n, (1, 3)) != whole).mean() > 0.9
        assert (permuted(np.arange(n), n, (2, 2)) != whole).mean() > 0.9


def test_a_permutation_looks_random() -> None:
    # Every order of three and of four comes equally often over the keys: chi-square below its 99.9% point.
    for n, orders, bound in ((3, 6, 20.5), (4, 24, 49.7)):
        counts = Counter(tuple(permuted(np.arange(n), n, (seed, 0)).tolist()) for seed in range(100 * orders))
        assert len(counts) == orders
        assert sum((count - 100) ** 2 / 100 for count in counts.values()) < bound
    # A slice of a large range spreads over all of it, and neighbours do not stay neighbours.
    n = 10_000_000
    slices = [permuted(np.arange(start, start + 1600), n, (3, start)) for start in (0, 5_000_000, n - 1600)]
    for values in slices:
        spread = np.histogram(values, bins=16, range=(0, n))[0]
        assert ((spread - 100) ** 2 / 100).sum() < 37.7  # 99.9% point of 15 degrees of freedom
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.1
    assert len(np.unique(np.concatenate(slices))) > 4790  # three keys: they hardly meet


def test_scoring_batches_respect_their_limits_and_lose_nothing(lengths: np.ndarray) -> None:
    lengths = np.append(lengths, 900)  # longer than the budget: alone in its batch
    batches = list(scoring_batches(lengths, max_tokens=640, max_rows=40))
    assert sorted(np.concatenate(batches)) == list(range(5004))
    assert batches[0].tolist() == [5003]
    assert all(lengths[batch].max() * len(batch) <= 640 and len(batch) <= 40 for batch in batches[1:])


@pytest.mark.parametrize(
    ("length", "rows"), [(1, 128), (100, 128), (128, 128), (512, 32), (513, 31), (1024, 8), (2048, 2), (8192, 1)]
)
def test_long_rows_share_a_batch_with_few(length: int, rows: int) -> None:
    """32 rows of 512 tokens hold as much attention as 8 of 1,024 or 2 of 2,048."""
    assert rows_within(length, 32 * 512, 128) == rows
    assert [len(batch) for batch in scoring_batches(np.full(rows + 1, length), 32 * 512, 128)] == [rows, 1]


def pairs_of(rows: list[tuple[int, int, int]]) -> EncodedPairs:
    """Return pairs of (query's id, its tokens, title's tokens)."""
    ids = np.concatenate([np.repeat([query, 99], [count, title]) for query, count, title in rows]).astype(np.int32)
    lengths = np.array([count + title for _, count, title in rows])
    return EncodedPairs(ids, offsets_of(lengths), np.array([count for _, count, _ in rows], np.int32))


def test_batches_by_query_by_hand() -> None:
    """The titles of a query come together, longest first; tokens of queries do not count, unless they are many."""
    pairs = pairs_of([(1, 10, 5), (2, 10, 30), (1, 10, 20), (1, 10, 7), (2, 10, 30), (2, 10, 5)])
    assert [batch.tolist() for batch in batches_by_query(pairs, 60, 9)] == [[2, 3, 0], [1, 4], [5]]
    assert [batch.tolist() for batch in batches_by_query(pairs, 60, 2)] == [[2, 3], [0, 1], [4, 5]]
    long = pairs_of([(1, 195, 5), (1, 195, 5), (1, 195, 5)])  # 50 tokens each, not 5
    assert [batch.tolist() for batch in batches_by_query(long, 100, 9)] == [[0, 1], [2]]
    assert list(batches_by_query(pairs_of([(1, 1, 1)]).take([]), 60, 9)) == []


def test_batches_by_query_respect_their_limits_and_lose_nothing(lengths: np.ndarray) -> None:
    draw = np.random.default_rng(0)
    pairs = pairs_of([(int(query), 30, int(length)) for query, length in zip(draw.integers(0, 40, 5003), lengths)])
    batches = list(batches_by_query(pairs, max_tokens=640, max_rows=40))
    assert sorted(np.concatenate(batches)) == list(range(5003))
    costs = np.maximum(pairs.lengths - 30, -(-pairs.lengths // 4))
    assert all(len(batch) == 1 or costs[batch].max() * len(batch) <= 640 for batch in batches)
    assert max(map(len, batches)) <= 40
    assert sum(len({pairs[row][0] for row in batch}) for batch in batches) < len(batches) + 40
