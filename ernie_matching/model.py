"""The pairwise ranker in training: one network scores both titles of each triple in one forward pass."""

from __future__ import annotations

import numpy as np
from paddle import Tensor, nn

from paddle_ranker.training.examples import RankingExamples


class PairwiseExamples(RankingExamples):
    """Training examples from triples: each triple is a query with two titles, labelled 1 and 0."""

    def loss(self, network: nn.Layer, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the triples at `indices`, and an empty dict of further measures."""
        rows = np.concatenate([2 * indices, 2 * indices + 1])  # all positives, then all negatives
        triples = np.tile(np.arange(len(indices)), 2)
        return self.loss_of(self.logits(network, rows), rows, queries=triples), {}
