"""ELECTRA: BERT with embeddings that may be narrower than its layers, and a pooler with gelu (Clark et al., 2020)."""

from __future__ import annotations

from typing import Optional

from paddle import Tensor, nn

from paddle_ranker.model.config import ElectraConfig
from paddle_ranker.model.dropout import Masks
from paddle_ranker.model.encoder import Embeddings, Encoder, Pooler


class NarrowEmbeddings(Embeddings):
    """Embeddings of `embedding_size` that a linear layer makes as wide as the layers."""

    def __init__(self, config: ElectraConfig, masks: Masks):
        super().__init__(config, masks, config.embedding_size)
        self.project = nn.Linear(config.embedding_size, config.hidden_size)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> Tensor:
        # Not super(), which Paddle 2.6 does not find in a network that it makes static.
        hidden = self.project(Embeddings.forward(self, input_ids, token_type_ids, None))
        return hidden if extra is None else hidden + extra


class ElectraEncoder(Encoder):
    """ELECTRA's discriminator."""

    config: ElectraConfig

    def _make_embeddings(self) -> nn.Layer:
        if self.config.embedding_size == self.config.hidden_size:
            return super()._make_embeddings()
        return NarrowEmbeddings(self.config, self.masks)

    def _make_pooler(self) -> nn.Layer:
        return Pooler(self.config.hidden_size, "gelu")
