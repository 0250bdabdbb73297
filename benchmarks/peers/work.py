"""A training benchmark's input for its processes: encoded triples, and the rule for making batches.

This module does not import Paddle: PyTorch's processes must not load it, and ours only after `runtime.prepare`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Optional

import numpy as np

from paddle_ranker.encoding.batching import WINDOW, BatchPlan, Groups, training_batches
from paddle_ranker.encoding.columns import EncodedPairs


@dataclass(frozen=True)
class BenchmarkTriples:
    """The pairs (query, title) of n triples, and separately their pairs (query, neg_title)."""

    positives: EncodedPairs
    negatives: EncodedPairs

    @property
    def lengths(self) -> np.ndarray:
        """Return the token count of the longer pair of each triple, `[n]`."""
        return np.maximum(self.positives.lengths, self.negatives.lengths)


@dataclass(frozen=True)
class TrainingWork:
    """The settings of every system's training: the encoder's shape, and how its batches are made."""

    shape: dict[str, Any]  # fields of EncoderConfig
    pad_id: int
    never_match: list[int]
    batch_size: int
    threads: int
    seed: int
    learning_rate: float = 5e-5
    max_grad_norm: float = 1.0
    device: str = "cpu"  # or gpu


class BenchmarkExamples:
    """Examples from triples with the interface that `training_batches` needs: their lengths."""

    rows_each = 2
    groups: Optional[Groups] = None

    def __init__(self, lengths: np.ndarray):
        self._lengths = lengths

    def __len__(self) -> int:
        return len(self._lengths)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the token count of the longer pair of each triple at `indices`."""
        chosen: np.ndarray = self._lengths[indices]
        return chosen


def batches_forever(work: TrainingWork, triples: BenchmarkTriples) -> Iterator[np.ndarray]:
    """Yield the indices of each batch, over endless epochs, as this toolkit's trainer forms batches."""
    examples, plan = BenchmarkExamples(triples.lengths), BatchPlan(work.batch_size, seed=work.seed)
    for epoch in count(1):
        for (indices,) in training_batches(examples, plan, epoch):
            yield indices


def save_work(folder: Path, work: TrainingWork, triples: BenchmarkTriples) -> None:
    (folder / "work.json").write_text(json.dumps(asdict(work)), encoding="utf-8")
    save_pairs(folder / "positives.npz", triples.positives)
    save_pairs(folder / "negatives.npz", triples.negatives)


def load_work(folder: Path) -> tuple[TrainingWork, BenchmarkTriples]:
    """Read the work and the triples that `save_work` wrote."""
    work = TrainingWork(**json.loads((folder / "work.json").read_text(encoding="utf-8")))
    return work, BenchmarkTriples(load_pairs(folder / "positives.npz"), load_pairs(folder / "negatives.npz"))


def save_pairs(file: Path, pairs: EncodedPairs) -> None:
    """Write pairs without places to a file."""
    np.savez(file, ids=pairs.ids, offsets=pairs.offsets, second_starts=pairs.second_starts)


def load_pairs(file: Path) -> EncodedPairs:
    """Read the pairs that `save_pairs` wrote."""
    with np.load(file, allow_pickle=False) as arrays:
        return EncodedPairs(arrays["ids"], arrays["offsets"], arrays["second_starts"])


def typical_batches(lengths: np.ndarray, batch_size: int, count: int, seed: int) -> np.ndarray:
    """Choose the examples of `count` batches that represent a window of training batches, which are sorted by length.

    A window is drawn at random and sorted into batches as in training, and batches are taken from it at equal
    distances. Given only these examples, the trainer forms the same batches again (but for examples of equal length).

    Args:
        lengths: token count of each example, `[n]`.

    Returns:
        Indices, `[count * batch_size]`; fewer if there are not enough examples.
    """
    window = np.random.default_rng(seed).permutation(len(lengths))[: batch_size * WINDOW]
    window = window[np.argsort(lengths[window], kind="stable")]
    whole = max(1, len(window) // batch_size)
    places = ((np.arange(min(count, whole)) + 0.5) * whole / min(count, whole)).astype(int)
    return np.concatenate([window[place * batch_size : (place + 1) * batch_size] for place in places])
