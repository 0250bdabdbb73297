"""The inference benchmark's input for its processes: pairs, batches, and the commands that all of them answer.

The peers run in a separate environment, so this module imports no third-party package but NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.peers.answers import Stopwatch
from benchmarks.peers.work import load_pairs, save_pairs
from paddle_ranker.encoding.columns import EncodedPairs


@dataclass(frozen=True)
class InferenceWork:
    """The settings of every system."""

    shape: dict[str, Any]  # fields of EncoderConfig
    pad_id: int
    max_seq_length: int
    batch_size: int  # for systems that form batches of a fixed number of pairs
    padded_length: int  # for the published code
    threads: int
    device: str = "cpu"  # or gpu


@dataclass(frozen=True)
class Pairs:
    """The pairs, both as texts and as token ids."""

    queries: list[str]
    titles: list[str]
    encoded: EncodedPairs


class System(Protocol):
    """A measured system."""

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits of the pairs at `rows` [n], in that order, `[n]`."""
        ...


class Forward(Protocol):
    """A model that takes `[batch, length]` int64 ids and token types and returns logits, `[batch]` or `[batch, 1]`."""

    def __call__(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray: ...


class BatchedSystem:
    """A system that scores in batches of a fixed number of pairs.

    Args:
        padded_length: tokens to which every batch is padded, in the given order, as the published code does. 0 sorts
            pairs by length, and pads to the batch's longest pair.
    """

    def __init__(self, forward: Forward, pairs: Pairs, work: InferenceWork, padded_length: int = 0):
        self._forward, self._encoded, self._work = forward, pairs.encoded, work
        self._padded_length = padded_length

    def score(self, rows: np.ndarray) -> np.ndarray:
        logits = np.zeros(len(rows))
        for places in self._batches(rows):
            ids, types = self._encoded.pad(rows[places]).values()
            missing = self._padded_length - ids.shape[1]
            if missing > 0:
                ids = np.pad(ids, ((0, 0), (0, missing)), constant_values=self._work.pad_id)
                types = np.pad(types, ((0, 0), (0, missing)))
            logits[places] = np.asarray(self._forward(ids, types)).reshape(-1)
        return logits

    def _batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        lengths = self._encoded.lengths_of(rows)
        order = np.arange(len(rows)) if self._padded_length else np.argsort(-lengths, kind="stable")
        for start in range(0, len(rows), self._work.batch_size):
            yield order[start : start + self._work.batch_size]


def save_inference_work(folder: Path, work: InferenceWork, pairs: Pairs) -> None:
    """Write work and pairs into `folder`, for `load_inference_work`."""
    (folder / "work.json").write_text(json.dumps(asdict(work)), encoding="utf-8")
    (folder / "texts.json").write_text(json.dumps([pairs.queries, pairs.titles]), encoding="utf-8")
    save_pairs(folder / "pairs.npz", pairs.encoded)


def load_inference_work(folder: Path) -> tuple[InferenceWork, Pairs]:
    """Read the work and the pairs that `save_inference_work` wrote."""
    work = InferenceWork(**json.loads((folder / "work.json").read_text(encoding="utf-8")))
    queries, titles = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    return work, Pairs(queries, titles, load_pairs(folder / "pairs.npz"))


def answer_as(system: System) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function that answers `{"pairs": n}`: score the first n pairs; return the times and the `logits`."""

    def answer(command: dict[str, Any]) -> dict[str, Any]:
        watch = Stopwatch()
        logits = system.score(np.arange(command["pairs"]))
        took = watch.took()
        return {"pairs": command["pairs"], **took, "logits": np.asarray(logits, dtype=np.float64).tolist()}

    return answer
