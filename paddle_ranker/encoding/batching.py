"""Form batches of examples of similar length, so that little is spent on padding.

All pairs of a batch are padded to its longest pair. Scoring sorts all pairs by length; training shuffles first and
sorts only within windows of many batches, so that the examples that share a batch stay random from epoch to epoch.

The order of an epoch is a function of (seed, epoch) and is never held in memory as a whole, so ten million examples
cost what a thousand do. A resumed training starts at the window where it stopped, or, with `max_tokens` or groups,
forms the earlier windows again to find it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional, Protocol, Union

import numpy as np

from paddle_ranker.encoding.columns import offsets_of, ragged_positions

WINDOW = 50  # batches a window; at 50 nearly all padding is gone and an epoch of 6,000 triples still mixes 4 windows
PACKING = 2  # how groups are packed, see `_fill`; an interrupted training goes on as it began
_OPEN = 8  # micro-batches that a group is tried in: more fill no better, and a short group would be padded to long ones
_LONG = 512  # tokens of a row that count for a batch's size where none is trained on
ROUNDS = 8  # of `permuted`; even three examples come in each of their six orders equally often

Batch = list[np.ndarray]  # the indices of each micro-batch


@dataclass(frozen=True)
class BatchPlan:
    """How batches are formed.

    `batch_size`: most examples in a micro-batch. `parts`: micro-batches in a batch, processes times accumulation steps.
    `max_tokens`: most padded tokens in a micro-batch (a single example may have more); 0: no limit.
    `seed`: decides the order, together with the epoch. `packing`: version of the packing of groups, 2 or the older 1.
    """

    batch_size: int
    parts: int = 1
    max_tokens: int = 0
    seed: int = 0
    packing: int = PACKING

    def most_examples(self, longest: int, rows_each: int) -> int:
        """Return how many examples fit into a micro-batch whose longest pair has `longest` tokens; at least one."""
        if not self.max_tokens:
            return self.batch_size
        return max(1, min(self.batch_size, self.max_tokens // (rows_each * max(1, longest))))


@dataclass(frozen=True)
class Groups:
    """Examples that must share a micro-batch: group g holds `members[offsets[g]:offsets[g + 1]]`, at least one example.

    `offsets` [groups + 1] int64; `members` [n] int64, the index of every example once.
    """

    offsets: np.ndarray
    members: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, keys: Union[Sequence[str], np.ndarray]) -> Groups:
        """Put the examples with equal `keys` [n] into one group, in their order."""
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
    """What batching needs to know about the examples."""

    @property
    def rows_each(self) -> int:
        """Number of pairs that one example adds to a batch."""
        ...

    @property
    def groups(self) -> Optional[Groups]:
        """Examples that must share a micro-batch; None: no two examples must."""
        ...

    def __len__(self) -> int: ...

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the token count of the longest pair of each example in `indices` [m], `[m]`."""
        ...


def training_batches(examples: Batchable, plan: BatchPlan, epoch: int, skip: int = 0) -> Iterator[Batch]:
    """Yield one epoch of batches: shuffled examples, sorted by length within windows; a window's batches are shuffled.

    A batch is a list of exactly `plan.parts` index arrays. Without groups their sizes differ by at most one; if there
    are too few examples, the later arrays are empty. Without `max_tokens` and groups, which examples share a batch
    depends on the product `batch_size * parts` only. A group is never split: if it is larger than a micro-batch, it
    gets a micro-batch of its own.

    Args:
        epoch: decides the order, together with the seed; equal seeds and epochs give equal batches.
        skip: number of batches to skip at the beginning of the epoch.
    """
    first_window = 0
    if _are_uniform(examples, plan):
        first_window, skip = divmod(skip, WINDOW)
    for number, batches in _windows(examples, plan, epoch, first_window):
        if skip < len(batches):
            # Numbered from 1, since [seed, epoch] and [seed, epoch, 0] are the same seed to NumPy.
            order = np.random.default_rng([plan.seed, epoch, number + 1]).permutation(len(batches))
            for place in order[skip:]:
                yield batches[place]
        skip = max(0, skip - len(batches))


def count_batches(examples: Batchable, plan: BatchPlan, epoch: int) -> int:
    """Return how many batches `training_batches` yields for the epoch.

    With `max_tokens` or groups this holds all lengths, four bytes each, and takes seconds for ten million examples.
    """
    if _are_uniform(examples, plan):
        return math.ceil(len(examples) / (plan.batch_size * plan.parts))
    return sum(len(batches) for _, batches in _windows(_HeldLengths(examples), plan, epoch))


def mean_fill(examples: Batchable, plan: BatchPlan) -> tuple[float, float]:
    """Return how many examples and how many groups a micro-batch of the first epoch holds on average."""
    windows = _windows(_HeldLengths(examples), plan, epoch=1)
    count = sum(1 for _, batches in windows for batch in batches for part in batch if len(part))
    groups = len(examples) if examples.groups is None else len(examples.groups)
    return len(examples) / max(1, count), groups / max(1, count)


class _HeldLengths:
    """The lengths of all examples in memory; reading them in file order is much faster on a disk than random order."""

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
    """Tell whether all batches but the last hold the same number of examples."""
    return not plan.max_tokens and examples.groups is None


def _windows(examples: Batchable, plan: BatchPlan, epoch: int, first: int = 0) -> Iterator[tuple[int, list[Batch]]]:
    """Yield each window's number and its batches, from the longest examples to the shortest."""
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
    """Divide examples into batches, the longest first: the first example of a batch decides its padded length."""
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
    """Fill micro-batches with whole groups, beginning with the group that has the longest pair."""
    sizes = groups.offsets[chosen + 1] - groups.offsets[chosen]
    members = groups.members[ragged_positions(groups.offsets[chosen], sizes)]
    offsets = offsets_of(sizes)
    longest = np.maximum.reduceat(examples.lengths(members), offsets[:-1])
    order = np.argsort(-longest, kind="stable")
    room = [plan.most_examples(int(length), examples.rows_each) for length in longest[order]]
    held = _fill(sizes[order].tolist(), room, _OPEN if plan.packing > 1 else 1)
    parts = [
        np.concatenate([members[offsets[group] : offsets[group + 1]] for group in order[places]]) for places in held
    ]
    parts += [members[:0]] * (-len(parts) % plan.parts)
    return [parts[start : start + plan.parts] for start in range(0, len(parts), plan.parts)]


def _fill(sizes: Sequence[int], room: Sequence[int], tried: int) -> list[list[int]]:
    """Return the groups of each micro-batch, by best fit: a group goes into the micro-batch that it fills most.

    Args:
        sizes: number of examples in each group, the group with the longest pair first.
        room: number of examples that fit into a micro-batch that begins with this group.
        tried: how many micro-batches, the latest ones begun, are tried; 1 fills one after another, as version 1 did.
    """
    held: list[list[int]] = []
    left: list[int] = []
    for group, size in enumerate(sizes):
        recent = range(max(0, len(held) - tried), len(held))
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
    """Return the values at `positions` [m] of a pseudo-random permutation of `range(n)`, without making all of it.

    A generalised Feistel network over a x b >= n cells, each round adding a hash of one coordinate to the other, with
    cycle walking (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002, methods 2 and 3). It is not
    cryptographically secure.

    For ten million numbers, NumPy's `Generator.permutation` takes 0.5 s and 76 MB an epoch, this function 1.5 s and no
    memory (measured on one core). NumPy's order differs, so an interrupted training could not continue with it.

    Args:
        key: non-negative numbers that decide the order.

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
    """Mix the bits of `values` [m] uint64: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def most_tokens(batch_size: int, max_seq_length: int) -> int:
    """Return the padded tokens of a batch that is not trained on: `batch_size` rows of `max_seq_length`, or of 512.

    Attention's memory grows with the square of the length: 32 rows of 8,192 tokens would take 100 GB.
    """
    return batch_size * min(max_seq_length, _LONG)


def rows_within(length: int, max_tokens: int, max_rows: int) -> int:
    """Return how many rows of `length` tokens a batch takes: at least one.

    That is `max_tokens` padded tokens, where the tokens of a row beyond 512 count by as much more as each attends to
    more tokens: 32 rows of 512 hold as much attention as 8 of 1,024 or 2 of 2,048.
    """
    return max(1, min(max_rows, max_tokens * _LONG // (max(1, length) * max(_LONG, length))))


def scoring_batches(lengths: np.ndarray, max_tokens: int, max_rows: int) -> Iterator[np.ndarray]:
    """Yield index batches sorted by length, each of as many rows as `rows_within` gives for its longest.

    A pair that is too long for `max_tokens` gets a batch of its own. Every index of `lengths` (`[n]`) occurs once.
    """
    order = np.argsort(-lengths, kind="stable")  # longest first: memory peaks at once, not at the end
    start = 0
    while start < len(order):
        rows = rows_within(int(lengths[order[start]]), max_tokens, max_rows)
        yield order[start : start + rows]
        start += rows
