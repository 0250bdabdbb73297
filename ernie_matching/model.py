"""The pairwise ranker in training: one network scores both titles of a triple, in one forward pass."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import Tensor, nn

from ernie_matching.data import EncodedTriples
from paddle_ranker.losses import PairwiseLoss
from paddle_ranker.pair_encoder import EncodedPairs


class PairwiseExamples:
    """Triples as the trainer takes them.

    Args:
        triples: n encoded triples.
        loss: a pairwise loss of (positive logits, negative logits, margin).
        margin: what the loss asks the positive to be ahead by.
        pad_id: id of the padding.
    """

    def __init__(self, triples: EncodedTriples, loss: PairwiseLoss, margin: float, pad_id: int):
        self.lengths = triples.lengths
        self._pairs = EncodedPairs.concat([triples.positives, triples.negatives])
        self._loss, self._margin, self._pad_id = loss, margin, pad_id

    def loss(self, network: nn.Layer, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the triples `indices`."""
        both = np.concatenate([indices, indices + len(self.lengths)])  # positives, then their negatives
        input_ids, token_type_ids = self._pairs.pad(both, self._pad_id)
        logits = network(paddle.to_tensor(input_ids), paddle.to_tensor(token_type_ids))
        positive, negative = paddle.split(logits, 2)
        return self._loss(positive, negative, self._margin), {}
