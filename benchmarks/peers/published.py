"""The published pairwise ranker, as its users have it."""

from __future__ import annotations

import paddle.nn.functional as F
from paddle import Tensor, nn


class PublishedRanker(nn.Layer):
    """PaddleNLP's ERNIE under a linear head, as the published pairwise ranker is built.

    Its sigmoid is left out: who wants probabilities takes it of the logits.
    """

    def __init__(self, shape: dict[str, object]):
        super().__init__()
        from paddlenlp.transformers import ErnieConfig, ErnieModel

        self.ptm = ErnieModel(ErnieConfig(**shape))
        self.dropout = nn.Dropout(0.1)
        self.similarity = nn.Linear(self.ptm.config.hidden_size, 1)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the logits, `[batch, 1]`."""
        pooled = self.ptm(input_ids, token_type_ids)[1]
        return F.linear(self.dropout(pooled), self.similarity.weight, self.similarity.bias)
