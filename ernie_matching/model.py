"""The pairwise ranker in training: one network scores both titles of each triple in one forward pass."""

from __future__ import annotations

import numpy as np
from paddle import Tensor, nn

from paddle_ranker.array_types import Integers
from paddle_ranker.training.examples import RankingExamples
from paddle_ranker.training.task import Means


class PairwiseExamples(RankingExamples):
    """Training examples from triples: each triple is a query with two titles, labelled 1 and 0."""

    def rows_of(self, indices: Integers) -> Integers:
        return np.concatenate([2 * indices, 2 * indices + 1])  # all positives, then all negatives

    def loss_of_logits(self, network: nn.Layer, logits: Tensor, rows: Integers) -> tuple[Tensor, Means]:
        return self.loss_of(logits, rows, queries=rows // 2), {}
