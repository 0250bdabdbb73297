"""DistilBERT: BERT without token types, and a pooler with relu (Sanh et al., 2019)."""

from __future__ import annotations

from paddle import nn

from paddle_ranker.model.encoder import Encoder, Pooler


class DistilBertEncoder(Encoder):
    """DistilBERT's encoder."""

    def _make_pooler(self) -> nn.Layer:
        return Pooler(self.config.hidden_size, "relu")
