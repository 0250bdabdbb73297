"""Whether something that was exported scores as the network does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Callable

import numpy as np
import paddle
from paddle import nn

from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import RankerError
from paddle_ranker.model.exported import OUTPUTS

# A logit that is 4e-5 off moves its probability by 1e-5 at the most. Of a logit beyond 1 it is a share: float32
# has no more digits.
TOLERANCES = {"predict": 1e-5, "logit": 4e-5}
PAIRS = 48
CHECKS = 4  # pairs that an exported folder names the probabilities of
_LARGEST_BATCH = 8

Batch = tuple[np.ndarray, np.ndarray]  # input_ids and token_type_ids, int64 [batch, length]
Outputs = list[np.ndarray]  # predict and logit, float32 [batch, 1]


@dataclass(frozen=True)
class Parity:
    """The largest absolute differences from the network over `pairs` pairs in `batches` batches."""

    pairs: int
    batches: int
    predict: float
    logit: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, JSON-ready."""
        return asdict(self)


def parity_batches(pair_encoder: PairEncoder, seed: int = 0) -> Iterator[Batch]:
    """Yield encoded pairs of words of the ranker's vocabulary: short and cut ones, alone and together, with padding.

    Titles share words with their queries, so that match levels and lexical features have something to see.
    """
    random = np.random.default_rng(seed)
    encoder = getattr(pair_encoder, "members", (pair_encoder,))[0]
    special = {encoder.pad_id, encoder.cls_id, encoder.sep_id, encoder.unk_id}
    words = [token.removeprefix("##") for token, number in encoder.token_to_id.items() if number not in special]
    lengths = np.geomspace(1, pair_encoder.max_seq_length, PAIRS).astype(int)
    queries, titles = [], []
    for length in random.permutation(lengths):
        query = random.choice(words, 1 + min(length, 12) // 2)
        shared = query[: random.integers(0, len(query) + 1)]
        queries.append(" ".join(query))
        titles.append(" ".join([*random.choice(words, length), *shared]))
    truncated = encoder.truncated
    pairs = pair_encoder.encode(queries, titles)
    encoder.truncated = truncated  # no pair of a user's was cut
    start = 0
    while start < len(pairs):
        rows = np.arange(start, min(len(pairs), start + int(random.integers(1, _LARGEST_BATCH + 1))))
        yield pairs.pad(rows, pair_encoder.pad_id)
        start += len(rows)


def network_outputs(network: nn.Layer, batches: Sequence[Batch]) -> list[Outputs]:
    """Return what the dygraph network says of every batch."""
    with paddle.no_grad():
        return [[array.numpy() for array in network(*map(paddle.to_tensor, batch))] for batch in batches]


def checks_of(network: nn.Layer, batches: Sequence[Batch], pad_id: int) -> list[dict[str, Any]]:
    """Return the shortest pairs and their probabilities, JSON-ready, to see by that a loaded model is the one exported.

    Each is `{"input_ids": [...], "token_type_ids": [...], "probability": p}`, without padding.
    """
    rows = [(ids[row], types[row]) for ids, types in batches for row in range(len(ids))]
    pairs = [(ids[None, : _length(ids, pad_id)], types[None, : _length(ids, pad_id)]) for ids, types in rows]
    pairs = sorted(pairs, key=lambda pair: pair[0].shape[1])[:CHECKS]
    return [
        {
            "input_ids": ids[0].tolist(),
            "token_type_ids": types[0].tolist(),
            "probability": float(outputs[0][0, 0]),
        }
        for (ids, types), outputs in zip(pairs, network_outputs(network, pairs))
    ]


def _length(ids: np.ndarray, pad_id: int) -> int:
    """Return how many ids there are before the padding."""
    return int(np.flatnonzero(ids != pad_id)[-1]) + 1


def compare(
    expected: Sequence[Outputs], batches: Sequence[Batch], run: Callable[[np.ndarray, np.ndarray], Outputs], name: str
) -> Parity:
    """Score the batches by `run`, and the first pair of each alone; return how far that is from `expected`.

    Raises `RankerError` where a probability or a logit differs by more than `TOLERANCES`, or is no number.
    """
    differences = dict.fromkeys(OUTPUTS, 0.0)
    for batch, wanted in zip(batches, expected):
        alone = [array[:1] for array in batch]
        for inputs, rows in ((batch, len(batch[0])), (alone, 1)):
            found = run(inputs[0], inputs[1])
            for output, ours, theirs in zip(OUTPUTS, wanted, found):
                gap = np.abs(ours[:rows].astype(np.float64) - theirs)
                excess = gap / np.maximum(1.0, np.abs(ours[:rows]))
                differences[output] = max(differences[output], float(gap.max()))
                if theirs.shape != ours[:rows].shape or not excess.max() <= TOLERANCES[output]:
                    raise RankerError(
                        f"{name} does not score as the ranker does: {output} differs by {gap.max():.2g} in a batch of "
                        f"{rows} pairs of {inputs[0].shape[1]} tokens (allowed: {TOLERANCES[output]:g}); nothing "
                        "was written. Run python -m paddle_ranker doctor, and report it with its output"
                    )
    return Parity(sum(len(ids) for ids, _ in batches), len(batches), differences["predict"], differences["logit"])
