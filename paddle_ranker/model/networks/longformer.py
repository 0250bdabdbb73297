"""Longformer: tokens attend to a window, and a ranker's first token to all tokens (Beltagy et al., 2020)."""

from __future__ import annotations

from typing import Optional

import paddle
from paddle import Tensor, nn

from paddle_ranker.model.encoders.longformer import LongformerConfig
from paddle_ranker.model.networks.attention import attend
from paddle_ranker.model.networks.banded import Band, attend_locally
from paddle_ranker.model.networks.bert import Attention, Encoder, attend_once
from paddle_ranker.model.networks.dropout import Masks


class LongformerEncoder(Encoder):
    """Encoder of Longformer.

    As in transformers, `pooled` makes the first token global, since a ranker reads it; `forward` has no global tokens.
    """

    config: LongformerConfig

    def _make_layers(self) -> nn.Layer:
        layers = super()._make_layers()
        for layer in layers.layers:
            layer.self_attn = _LongformerAttention(self.config, self.masks)
        return layers

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        hidden, mask = self._embed(input_ids, token_type_ids, extra)
        return self._through(self.encoder.layers, hidden, self._band(mask, 0))

    def states(self, input_ids: Tensor, token_type_ids: Tensor) -> list[Tensor]:
        hidden, mask = self._embed(input_ids, token_type_ids, None)
        return self._states_of(self.encoder.layers, hidden, self._band(mask, 0))

    def pooled(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        hidden, mask = self._embed(input_ids, token_type_ids, extra)
        band = self._band(mask, 1)
        hidden = self._through(self.encoder.layers[:-1], hidden, band)
        return self.pooler(self.encoder.layers[-1](hidden, band, first_token_only=True)[:, 0])

    def _band(self, mask: Tensor, global_tokens: int) -> Band:
        window = min(self.config.attention_window // 2, self.config.max_position_embeddings)
        return Band(mask, window, self.longest, global_tokens)


class _LongformerAttention(Attention):
    """Attention to a band of tokens; the attention of a global token has separate projections."""

    def __init__(self, config: LongformerConfig, masks: Masks):
        size = config.hidden_size
        super().__init__(size, config.num_attention_heads, config.attention_probs_dropout_prob, masks)
        self.q_global, self.k_global, self.v_global = (nn.Linear(size, size) for _ in range(3))

    def forward(self, query: Tensor, hidden: Tensor, mask: Band) -> Tensor:
        """Return the attended values, `[batch, queries, size]`.

        query: `hidden`, or its first token's state if that token is global
        mask: the band of tokens that each token attends to
        """
        if query is not hidden:
            return self.for_one(query, hidden, mask)
        q, k, v = self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden)
        attended = attend_locally(mask, q, k, v, self.heads, self.dropout)
        if mask.global_tokens:
            attended = paddle.concat([self._of_global(hidden[:, :1], hidden, mask), attended[:, 1:]], axis=1)
        return self.out_proj(attended)

    def for_one(self, query: Tensor, hidden: Tensor, mask: Band) -> Tensor:
        """Compute the attention of the global first token, `[batch, 1, size]`."""
        return self.out_proj(self._of_global(query, hidden, mask))

    def _of_global(self, query: Tensor, hidden: Tensor, band: Band) -> Tensor:
        if not self.training:
            return attend_once(query, hidden, band.padding, self.heads, self.q_global, self.k_global, self.v_global)
        q, k, v = self.q_global(query), self.k_global(hidden), self.v_global(hidden)
        return attend(q, k, v, band.padding, self.heads, self.dropout)
