"""The cross-encoder in training: a network scores each pair and learns whether it is relevant."""

from __future__ import annotations

import numpy as np
from paddle import Tensor, nn

from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.training.examples import RankingExamples


class LabeledExamples(RankingExamples):
    """Training examples from labelled pairs."""

    def loss(self, network: nn.Layer, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the pairs at `indices`, and their `accuracy`, the share classified correctly."""
        logits = self.logits(network, indices)
        right = (logits.numpy() > 0) == (self.pair_labels(indices) >= RELEVANT)
        return self.loss_of(logits, indices), {"accuracy": float(right.mean())}
