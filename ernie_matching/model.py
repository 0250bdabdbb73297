"""The pairwise ranker in training: one network scores both titles of a triple, in one forward pass."""

from __future__ import annotations

from typing import Optional

import numpy as np
import paddle
from paddle import Tensor, nn

from ernie_matching.data import EncodedTriples
from paddle_ranker.batching import Groups
from paddle_ranker.losses import PairwiseLoss


class PairwiseExamples:
    """Triples as the trainer takes them.

    Args:
        triples: n encoded triples.
        loss: a pairwise loss of (positive logits, negative logits, margin).
        margin: what the loss asks the positive to be ahead by.
        pad_id: id of the padding.
    """

    rows_each = 2
    groups: Optional[Groups] = None

    def __init__(self, triples: EncodedTriples, loss: PairwiseLoss, margin: float, pad_id: int):
        self._triples = triples
        self._loss, self._margin, self._pad_id = loss, margin, pad_id

    def __len__(self) -> int:
        return len(self._triples)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of the longer pair of each triple of `indices` [m], `[m]`."""
        return self._triples.lengths(indices)

    def weight(self, indices: np.ndarray) -> float:
        """Return what the loss of `indices` is a mean over: their number."""
        return float(len(indices))

    def loss(self, network: nn.Layer, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the triples `indices`."""
        both = np.concatenate([2 * indices, 2 * indices + 1])  # positives, then their negatives
        input_ids, token_type_ids = self._triples.pairs.pad(both, self._pad_id)
        logits = network(paddle.to_tensor(input_ids), paddle.to_tensor(token_type_ids))
        positive, negative = paddle.split(logits, 2)
        return self._loss(positive, negative, self._margin), {}
