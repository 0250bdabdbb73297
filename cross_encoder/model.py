"""The cross-encoder in training: one network scores each pair, and learns whether it is relevant."""

from __future__ import annotations

from typing import Optional

import numpy as np
import paddle
from paddle import Tensor, nn

from cross_encoder.data import EncodedLabels
from paddle_ranker.encoding.batching import Groups
from paddle_ranker.encoding.columns import gather
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.training.losses.expression import RankingLoss


class LabeledExamples:
    """Labelled pairs as the trainer takes them.

    Args:
        data: n encoded labelled pairs; where it has their queries, a query's pairs share a batch.
        loss: by default the binary cross-entropy of one logit, which is the published two-class head's cross-entropy.
            One that compares titles needs the queries, one that learns from a teacher its scores.
    """

    rows_each = 1

    def __init__(self, data: EncodedLabels, loss: Optional[RankingLoss] = None):
        loss = loss or RankingLoss("bce")
        if loss.expression.compares_titles and data.queries is None:
            raise ValueError(f"{loss.expression.text} needs the queries: encode_labels(..., with_queries=True)")
        self.groups: Optional[Groups] = None if data.queries is None else Groups.of(data.queries)
        self.pairs = data.pairs
        self._data, self._loss = data, loss

    def __len__(self) -> int:
        return len(self._data)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of the pairs `indices`, `[m]` int64."""
        return self._data.pairs.lengths_of(indices)

    def pair_labels(self, indices: np.ndarray) -> np.ndarray:
        """Return the labels of the pairs `indices`, both `[m]`."""
        return gather(self._data.labels, indices)

    def weight(self, indices: np.ndarray) -> float:
        """Return how many examples the loss of `indices` is a mean over."""
        return float(len(indices))

    def loss(self, network: nn.Layer, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the pairs `indices`, and the `accuracy`: the share that is rightly told apart."""
        batch = self._data.pairs.pad(indices)
        logits = network(*map(paddle.to_tensor, batch.values())).astype("float32")
        labels = gather(self._data.labels, indices)
        queries = None if self._data.queries is None else gather(self._data.queries, indices)
        teacher = None if self._data.teacher is None else gather(self._data.teacher, indices)
        accuracy = float(((logits.numpy() > 0) == (labels >= RELEVANT)).mean())
        return self._loss(logits, labels, queries, teacher), {"accuracy": accuracy}
