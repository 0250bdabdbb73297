"""The inference benchmark's input for its processes: pairs, batches, and the commands that all of them answer.

The peers run in a separate environment, so this module imports no third-party package but NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from benchmarks.peers.answers import Stopwatch
from paddle_ranker.encoding.columns import EncodedPairs

LOGISTIC_LIMIT = 60.0  # logits are clipped to this size; beyond it sigmoid is 0 or 1 to within 1e-26


@dataclass(frozen=True)
class InferenceWork:
    """The work of every system: first `offline` pairs, then `latency_titles` pairs for each of `queries`."""

    shape: dict[str, Any]  # fields of EncoderConfig
    pad_id: int
    max_seq_length: int
    batch_size: int  # for systems that form batches of a fixed number of pairs
    padded_length: int  # for the published code
    threads: int
    offline: int
    queries: int
    latency_titles: int


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
        padded_length: pad every batch to this many tokens, in the order given, as the published code does; 0: sort
            pairs by length first, and pad to the batch's longest pair.
    """

    def __init__(self, forward: Forward, pairs: Pairs, work: InferenceWork, padded_length: int = 0):
        self._forward, self._encoded, self._work = forward, pairs.encoded, work
        self._padded_length = padded_length

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits of the pairs at `rows` [n], `[n]`."""
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
    np.savez(folder / "pairs.npz", **vars(pairs.encoded))


def load_inference_work(folder: Path) -> tuple[InferenceWork, Pairs]:
    """Read the work and the pairs that `save_inference_work` wrote."""
    work = InferenceWork(**json.loads((folder / "work.json").read_text(encoding="utf-8")))
    queries, titles = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    with np.load(folder / "pairs.npz", allow_pickle=False) as arrays:
        encoded = EncodedPairs(*(arrays[name] for name in ("ids", "offsets", "second_starts")))
    return work, Pairs(queries, titles, encoded)


def answer_as(system: System, work: InferenceWork) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function that answers the commands of the inference benchmark.

    `{"do": "offline", "pairs": n}` scores the first n pairs; `{"do": "latency", "query": q, "titles": k}` scores the
    first k titles of latency query q. Both return `pairs`, `seconds` and `cpu_seconds`. `{"do": "scores", "pairs": n}`
    also returns `logits`. `{"do": "memory"}` returns `peak_mb` (None if unknown).
    """

    def answer(command: dict[str, Any]) -> dict[str, Any]:
        if command["do"] == "memory":
            return {"peak_mb": peak_memory()}
        rows, watch = rows_of(command, work), Stopwatch()
        logits = system.score(rows)
        found: dict[str, Any] = {"pairs": len(rows), **watch.took()}
        if command["do"] == "scores":
            found["logits"] = np.asarray(logits, dtype=np.float64).tolist()
        return found

    return answer


def rows_of(command: dict[str, Any], work: InferenceWork) -> np.ndarray:
    """Return the indices of the pairs that a command scores, `[n]`."""
    if command["do"] == "latency":
        start = work.offline + command["query"] * work.latency_titles
        return np.arange(start, start + command["titles"])
    return np.arange(command["pairs"])


def peak_memory() -> Optional[float]:
    """Return the peak resident memory of this process in MiB, or None if the system is not Linux."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    # getrusage would include the parent process's memory in the peak.
    for line in status.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return None


def sigmoid(logits: Sequence[float]) -> np.ndarray:
    """Return the probabilities of logits, `[n]` float64."""
    values = np.clip(np.asarray(logits, dtype=np.float64), -LOGISTIC_LIMIT, LOGISTIC_LIMIT)
    return np.asarray(1 / (1 + np.exp(-values)))


def matrix_product_operations(shape: dict[str, Any], lengths: np.ndarray) -> float:
    """Return the number of additions and multiplications in all matrix products over pairs of `lengths` [n].

    Padding is not counted. All layers count in full, so a system that skips a part of them may seem to exceed the
    processor's peak.
    """
    size, inner = shape["hidden_size"], shape["intermediate_size"]
    tokens = lengths.astype(np.float64)
    per_token = 2 * (4 * size * size + 2 * size * inner)
    attention = 2 * 2 * size * tokens * tokens
    return float((shape["num_hidden_layers"] * (per_token * tokens + attention)).sum())
