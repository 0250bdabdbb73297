"""What the load test asks for: a model as each server takes it, and requests over real pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from benchmarks.inference import export_peers
from benchmarks.inference_models import copy_ranker, export_rankers, write_rankers
from benchmarks.inputs import graded_pairs_and_vocabulary
from benchmarks.serving_dialects import Asked, Dialect
from benchmarks.serving_load import Request
from benchmarks.training import SHAPES
from paddle_ranker.data.records import LabeledPair, RecordFile
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import UsageError

EXPORTED = "exported"


@dataclass(frozen=True)
class Work:
    """Queries, each with its titles; the same pairs one by one are the single-title requests."""

    asked: list[Asked]
    description: str

    @property
    def single(self) -> list[Asked]:
        """Each pair as a request of its own."""
        return [
            Asked(one.query, [title], one.pairs.take(np.array([row])), one.pad_id)
            for one in self.asked
            for row, title in enumerate(one.titles)
        ]


def make_work(
    folder: Path,
    *,
    shape: str,
    model: Optional[str],
    file: Optional[str],
    vocab: Optional[str],
    queries: int,
    titles: int,
    seed: int,
    peer_python: Optional[str],
    onnx: bool,
) -> Work:
    """Write the model into `folder`, exported and for the peers, and the pairs; return the requests.

    Args:
        peer_python: who writes the peers' ONNX file; None: nobody.
        onnx: whether ours needs one.
    """
    path, vocabulary = graded_pairs_and_vocabulary(file, vocab)
    graded = list(RecordFile(path, LabeledPair))
    if model:
        encoder, _ = copy_ranker(folder, Path(model))
    else:
        encoder, _ = write_rankers(folder, SHAPES[shape], vocabulary, graded, seed)
    asked = draw(graded, encoder, queries, titles, seed)
    flat = [[one.query for one in asked for _ in one.titles], [title for one in asked for title in one.titles]]
    (folder / "pairs.json").write_text(json.dumps(flat), encoding="utf-8")
    pairs = encoder.encode(*flat)
    export_rankers(folder, pairs, onnx=onnx)
    if peer_python is not None:
        export_peers(peer_python, folder)
    tokens = f"{pairs.lengths.mean():.1f} tokens a pair"
    return Work(asked, f"{len(asked)} queries of {path.name} with {titles} titles each, {tokens}")


def draw(graded: Sequence[LabeledPair], encoder: PairEncoder, queries: int, titles: int, seed: int) -> list[Asked]:
    """Draw queries, each with its own titles first; they are few, so those of others make up the list."""
    own: dict[str, list[str]] = {}
    for pair in graded:
        own.setdefault(pair.query, []).append(pair.title)
    if len(own) < queries:
        raise UsageError(f"the file has {len(own)} queries, fewer than --queries {queries}")
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(own))[:queries].tolist()
    texts, asked = list(own), []
    for number in chosen:
        query = texts[number]
        others = [graded[row].title for row in random.integers(len(graded), size=titles).tolist()]
        listed = (own[query] + others)[:titles]
        asked.append(Asked(query, listed, encoder.encode([query] * titles, listed), encoder.pad_id))
    return asked


def requests(dialect: Dialect, asked: Sequence[Asked]) -> list[Request]:
    """Return the bytes that ask for these titles."""
    return [Request(dialect.write(one), len(one.titles)) for one in asked]
