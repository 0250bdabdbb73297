"""ELECTRA's network, whose embeddings may be narrower than its layers."""

from __future__ import annotations

from typing import Optional

from paddle import Tensor, nn

from paddle_ranker.model.encoders.electra import ElectraConfig
from paddle_ranker.model.networks.bert import Embeddings, Encoder, Pooler
from paddle_ranker.model.networks.dropout import Masks


class NarrowEmbeddings(Embeddings):
    """Embeddings of `embedding_size`, and a linear layer to `hidden_size`."""

    def __init__(self, config: ElectraConfig, masks: Masks):
        super().__init__(config, masks, config.embedding_size)
        self.project = nn.Linear(config.embedding_size, config.hidden_size)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> Tensor:
        # Not super(), which Paddle 2.6 does not find in a network that it makes static.
        hidden = self.project(Embeddings.forward(self, input_ids, token_type_ids, None))
        return hidden if extra is None else hidden + extra


class ElectraEncoder(Encoder):
    """ELECTRA's discriminator: its pooler applies gelu, its embeddings may be narrow (Clark et al., 2020)."""

    config: ElectraConfig

    def _make_embeddings(self) -> nn.Layer:
        if self.config.embedding_size == self.config.hidden_size:
            return super()._make_embeddings()
        return NarrowEmbeddings(self.config, self.masks)

    def _make_pooler(self) -> nn.Layer:
        return Pooler(self.config.hidden_size, "gelu")
