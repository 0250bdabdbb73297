"""The pairwise ranker in training: one network scores both titles of a triple, in one forward pass."""

from __future__ import annotations

from typing import Optional

import numpy as np
import paddle
from paddle import Tensor, nn

from ernie_matching.data import EncodedTriples
from paddle_ranker.encoding.batching import Groups
from paddle_ranker.encoding.columns import gather
from paddle_ranker.training.losses.expression import RankingLoss


class PairwiseExamples:
    """Triples as the trainer takes them.

    Args:
        triples: n encoded triples.
        loss: of each triple as a query of two titles with the labels 1 and 0.
    """

    rows_each = 2
    groups: Optional[Groups] = None

    def __init__(self, triples: EncodedTriples, loss: RankingLoss):
        if loss.expression.of_teacher and triples.teacher is None:
            raise ValueError(f"{loss.expression.text} needs a teacher's scores: encode_triples(..., loss=...)")
        self.pairs = triples.pairs
        self._triples, self._loss = triples, loss

    def __len__(self) -> int:
        return len(self._triples)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of the longer pair of each triple of `indices` [m], `[m]`."""
        return self._triples.lengths(indices)

    def pair_labels(self, indices: np.ndarray) -> np.ndarray:
        """Return the labels of the pairs `indices`, both `[m]`: 1 of a title, 0 of a neg_title."""
        return (indices + 1) % 2

    def weight(self, indices: np.ndarray) -> float:
        """Return what the loss of `indices` is a mean over: their number."""
        return float(len(indices))

    def loss(self, network: nn.Layer, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the triples `indices`."""
        both = np.concatenate([2 * indices, 2 * indices + 1])  # positives, then their negatives
        batch = self._triples.pairs.pad(both)
        logits = network(*map(paddle.to_tensor, batch.values())).astype("float32")
        labels = np.repeat([1.0, 0.0], len(indices))
        teacher = None if self._triples.teacher is None else gather(self._triples.teacher, both)
        return self._loss(logits, labels, np.tile(np.arange(len(indices)), 2), teacher), {}
