"""Form batches of examples of similar length, so that they need little padding.

All pairs of a batch are padded to its longest pair. Scoring sorts all pairs by length. Training shuffles, then sorts
only within windows of many batches, so that batches still differ from epoch to epoch.

The order of an epoch is a function of (seed, epoch) and is never in memory as a whole, so ten million examples take no
more memory than a thousand. A resumed training begins with the window in which it stopped. With `max_tokens` or groups,
a resumed training first forms all windows before that one again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional, Protocol, Union

import numpy as np

from paddle_ranker.encoding.columns import Columns, EncodedPairs, offsets_of, ragged_positions

WINDOW = 50  # batches per window: little padding remains, and an epoch of 6,000 triples has 4 windows
_OPEN = 8  # micro-batches tried for a group; trying more would pad short groups to the length of long pairs
_LONG = 512  # tokens of a row up to which the cost of scoring is linear, see `rows_within`
ROUNDS = 8  # rounds of `permuted`, enough to give each of the six orders of three examples equally often

Batch = list[np.ndarray]  # indices of each micro-batch


@dataclass(frozen=True)
class BatchPlan:
    """Rules of forming batches.

    batch_size: maximum examples in a micro-batch
    parts: micro-batches in a batch: processes x accumulation steps
    max_tokens: maximum padded tokens in a micro-batch (a single example may have more); 0 sets no limit
    seed: seed of the order, together with the epoch
    """

    batch_size: int
    parts: int = 1
    max_tokens: int = 0
    seed: int = 0

    def most_examples(self, longest: int, rows_each: int) -> int:
        """Return how many examples a micro-batch may have if its longest pair has `longest` tokens; at least 1.

        rows_each: pairs per example
        """
        if not self.max_tokens:
            return self.batch_size
        return max(1, min(self.batch_size, self.max_tokens // (rows_each * max(1, longest))))


@dataclass(frozen=True)
class Groups:
    """Groups of examples that must share a micro-batch: group g is `members[offsets[g]:offsets[g + 1]]`, not empty.

    offsets: [groups + 1] int64
    members: [n] int64, each example's index once
    """

    offsets: np.ndarray
    members: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, keys: Union[Sequence[str], np.ndarray]) -> Groups:
        """Group the examples whose `keys` [n] are equal.

        Groups are in the order of the first occurrence of their keys if keys are texts, else in ascending order.
        """
        if isinstance(keys, np.ndarray):
            codes = keys
        else:
            code_of: dict[str, int] = {}
            codes = np.fromiter((code_of.setdefault(key, len(code_of)) for key in keys), np.int64, len(keys))
        members = np.argsort(codes, kind="stable").astype(np.int64, copy=False)
        ordered = codes[members]
        first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(codes) else np.empty(0, np.int64)
        return cls(np.append(first, len(codes)), members)


class Batchable(Protocol):
    """Interface of examples for batching."""

    @property
    def rows_each(self) -> int:
        """Number of pairs in an example."""
        ...

    @property
    def groups(self) -> Optional[Groups]:
        """Groups of examples that must share a micro-batch, or None."""
        ...

    def __len__(self) -> int: ...

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the token count of the longest pair of each example in `indices` [m], `[m]`."""
        ...


def training_batches(examples: Batchable, plan: BatchPlan, epoch: int, skip: int = 0) -> Iterator[Batch]:
    """Yield the batches of an epoch: shuffled examples, sorted by length within windows of shuffled batches.

    A batch is a list of exactly `plan.parts` index arrays. Without groups, their sizes differ by at most one, and the
    last arrays may be empty. Without `max_tokens` and groups, a batch's examples depend on the product `batch_size *
    parts` only. A group is never split; a group larger than a micro-batch is a micro-batch by itself.

    epoch: with the seed, it determines the order
    skip: number of batches to skip at the beginning of the epoch
    """
    first_window = 0
    if _are_uniform(examples, plan):
        first_window, skip = divmod(skip, WINDOW)
    for number, batches in _windows(examples, plan, epoch, first_window):
        if skip < len(batches):
            # Numbers start at 1, since [seed, epoch] and [seed, epoch, 0] are equal seeds to NumPy.
            order = np.random.default_rng([plan.seed, epoch, number + 1]).permutation(len(batches))
            for place in order[skip:]:
                yield batches[place]
        skip = max(0, skip - len(batches))


def count_batches(examples: Batchable, plan: BatchPlan, epoch: int) -> int:
    """Return the number of batches of an epoch.

    With `max_tokens` or groups, counting takes four bytes per example, and seconds for ten million examples.
    """
    if _are_uniform(examples, plan):
        return math.ceil(len(examples) / (plan.batch_size * plan.parts))
    return sum(len(batches) for _, batches in _windows(_HeldLengths(examples), plan, epoch))


def mean_fill(examples: Batchable, plan: BatchPlan) -> tuple[float, float]:
    """Return (mean number of examples, mean number of groups) of a micro-batch, over the first epoch."""
    windows = _windows(_HeldLengths(examples), plan, epoch=1)
    count = sum(1 for _, batches in windows for batch in batches for part in batch if len(part))
    groups = len(examples) if examples.groups is None else len(examples.groups)
    return len(examples) / max(1, count), groups / max(1, count)


class _HeldLengths:
    """Lengths of all examples, cached in memory. They are read in file order, since random order is much slower."""

    def __init__(self, examples: Batchable):
        self.rows_each, self.groups = examples.rows_each, examples.groups
        self._lengths = np.empty(len(examples), np.int32)
        for start in range(0, len(examples), 1 << 16):
            indices = np.arange(start, min(len(examples), start + (1 << 16)))
            self._lengths[indices] = examples.lengths(indices)

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        chosen: np.ndarray = self._lengths[indices]
        return chosen


def _are_uniform(examples: Batchable, plan: BatchPlan) -> bool:
    """Return whether all batches but the last have the same number of examples."""
    return not plan.max_tokens and examples.groups is None


def _windows(examples: Batchable, plan: BatchPlan, epoch: int, first: int = 0) -> Iterator[tuple[int, list[Batch]]]:
    """Yield (index, batches) of each window from `first` on, a window's longest examples first."""
    groups = examples.groups
    units = len(examples) if groups is None else len(groups)
    examples_a_window = WINDOW * plan.batch_size * plan.parts
    size = examples_a_window if groups is None else math.ceil(examples_a_window * units / max(1, len(examples)))
    for number in range(first, math.ceil(units / max(1, size))):
        positions = np.arange(number * size, min(units, (number + 1) * size))
        chosen = permuted(positions, units, (plan.seed, epoch))
        if groups is None:
            yield number, _cut(examples, chosen, plan)
        else:
            yield number, _pack(examples, groups, chosen, plan)


def _cut(examples: Batchable, chosen: np.ndarray, plan: BatchPlan) -> list[Batch]:
    """Divide the examples `chosen` into batches, longest first, so that a batch's first example is its longest."""
    lengths = examples.lengths(chosen)
    order = np.argsort(-lengths, kind="stable")
    batches: list[Batch] = []
    start = 0
    while start < len(order):
        end = start + plan.parts * plan.most_examples(int(lengths[order[start]]), examples.rows_each)
        batch = chosen[order[start:end]]
        batches.append([batch[part :: plan.parts] for part in range(plan.parts)])  # all parts equally long on average
        start = end
    return batches


def _pack(examples: Batchable, groups: Groups, chosen: np.ndarray, plan: BatchPlan) -> list[Batch]:
    """Divide the groups `chosen` into batches of whole groups, beginning with the group with the longest pair."""
    sizes = groups.offsets[chosen + 1] - groups.offsets[chosen]
    members = groups.members[ragged_positions(groups.offsets[chosen], sizes)]
    offsets = offsets_of(sizes)
    longest = np.maximum.reduceat(examples.lengths(members), offsets[:-1])
    order = np.argsort(-longest, kind="stable")
    room = [plan.most_examples(int(length), examples.rows_each) for length in longest[order]]
    held = _fill(sizes[order].tolist(), room)
    parts = [
        np.concatenate([members[offsets[group] : offsets[group + 1]] for group in order[places]]) for places in held
    ]
    parts += [members[:0]] * (-len(parts) % plan.parts)
    return [parts[start : start + plan.parts] for start in range(0, len(parts), plan.parts)]


def _fill(sizes: Sequence[int], room: Sequence[int]) -> list[list[int]]:
    """Distribute groups over micro-batches by best fit: a group goes where it leaves the least room.

    sizes: number of examples in each group, the group with the longest pair first
    room: for each group, how many examples a micro-batch that begins with the group may have

    Returns the indices of the groups in each micro-batch.
    """
    held: list[list[int]] = []
    left: list[int] = []
    for group, size in enumerate(sizes):
        recent = range(max(0, len(held) - _OPEN), len(held))
        fitting = [(left[place] - size, place) for place in recent if left[place] >= size]
        if fitting:
            place = min(fitting)[1]
            held[place].append(group)
            left[place] -= size
        else:
            held.append([group])
            left.append(room[group] - size)
    return held


def permuted(positions: np.ndarray, n: int, key: Sequence[int]) -> np.ndarray:
    """Return the values at `positions` [m] of a pseudo-random permutation of `range(n)`, without computing all of it.

    The permutation is a generalised Feistel network over a x b >= n cells, each round adding a hash of one coordinate
    to the other, with cycle walking (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, methods 2
    and 3). It is not cryptographically secure. A resumed training relies on it, so its order must not change.

    Args:
        key: non-negative numbers that determine the order.

    Returns:
        `[m] int64`; all positions together give every number below `n` once.
    """
    width = math.isqrt(max(0, n - 1)) + 1
    sides = (np.uint64(width), np.uint64(-(-n // width)))
    keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)
    result = np.array(positions, dtype=np.uint64)
    walking = np.arange(len(result))
    while len(walking):
        cells = result[walking]
        coordinates = [cells % sides[0], cells // sides[0]]
        for number in range(ROUNDS):
            moved = number % 2
            step = _hashed(coordinates[1 - moved], keys[number]) % sides[moved]
            coordinates[moved] = (coordinates[moved] + step) % sides[moved]
        result[walking] = coordinates[0] + coordinates[1] * sides[0]
        walking = walking[result[walking] >= n]
    return result.astype(np.int64)


def _hashed(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """Mix the bits of `values` [m] uint64 by the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def most_tokens(batch_size: int, max_seq_length: int) -> int:
    """Return the maximum number of padded tokens in a batch to score: `batch_size` rows, of at most 512 tokens each.

    The memory of attention grows with the square of the length: 32 rows of 8,192 tokens would take 100 GB.
    """
    return batch_size * min(max_seq_length, _LONG)


def batches_of_columns(
    columns: Columns, max_tokens: int, max_rows: int, by_query: bool = False
) -> Iterator[np.ndarray]:
    """Yield the rows' indices, `[batch]`, of each batch; rows are sorted by length or, if `by_query`, by query.

    max_tokens, max_rows: limits of a batch, see `rows_within`
    by_query: whether the network computes each query of a batch once; batches of pairs then come from
        `batches_by_query`
    """
    if by_query and isinstance(columns, EncodedPairs):
        return batches_by_query(columns, max_tokens, max_rows)
    return scoring_batches(columns.lengths, max_tokens, max_rows)


def batches_by_query(pairs: EncodedPairs, max_tokens: int, max_rows: int) -> Iterator[np.ndarray]:
    """Yield the pairs' indices, `[batch]`, of each batch, query by query.

    Such batches are for networks that compute each query of a batch once.

    A pair costs the tokens of its title, but at least a quarter of all its tokens, since the title attends to the
    query.

    max_tokens, max_rows: limits of a batch, as in `scoring_batches`
    """
    lengths, starts = pairs.lengths, pairs.second_starts
    costs = np.maximum(lengths - starts, -(-lengths // 4))
    queries = Groups.of([pairs[row][:start].tobytes().hex() for row, start in enumerate(starts.tolist())])
    query_of = np.empty(len(lengths), np.int64)
    query_of[queries.members] = np.repeat(np.arange(len(queries)), np.diff(queries.offsets))
    order = np.lexsort((-costs, query_of))
    start = 0
    while start < len(order):
        stop, longest = start + 1, costs[order[start]]
        while stop < len(order):
            longest = max(longest, costs[order[stop]])
            if stop - start >= rows_within(int(longest), max_tokens, max_rows):
                break
            stop += 1
        yield order[start:stop]
        start = stop


def rows_within(length: int, max_tokens: int, max_rows: int) -> int:
    """Return how many rows of `length` tokens a batch may have, at least 1.

    Up to 512 tokens, a batch has at most `max_tokens` padded tokens. Longer rows are limited by the cost of attention:
    32 rows of 512 tokens cost as much as 8 of 1,024 or 2 of 2,048.
    """
    return max(1, min(max_rows, max_tokens * _LONG // (max(1, length) * max(_LONG, length))))


def scoring_batches(lengths: np.ndarray, max_tokens: int, max_rows: int) -> Iterator[np.ndarray]:
    """Yield batches, each as indices of `lengths` (`[n]`), longest rows first, of at most `rows_within` rows.

    Each index occurs once. A row longer than `max_tokens` is a batch by itself.
    """
    order = np.argsort(-lengths, kind="stable")  # longest first, so that too little memory shows at once
    start = 0
    while start < len(order):
        rows = rows_within(int(lengths[order[start]]), max_tokens, max_rows)
        yield order[start : start + rows]
        start += rows
