"""ModernBERT: rotary positions, local attention in most layers, gated feed-forward layers (Warner et al., 2024)."""

from __future__ import annotations

from typing import Optional, Union

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.modernbert import ModernBertConfig
from paddle_ranker.model.networks.attention import attend
from paddle_ranker.model.networks.banded import Band, attend_first, attend_locally
from paddle_ranker.model.networks.bert import Encoder, activation_named, pool_states
from paddle_ranker.model.networks.dropout import Dropout, Masks
from paddle_ranker.model.networks.rotary import angles_of, rotary_table, rotated


class ModernBertEncoder(Encoder):
    """Encoder of ModernBERT; the configuration chooses whether it pools the first token's state or the mean."""

    config: ModernBertConfig

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        size = self.config.hidden_size // self.config.num_attention_heads
        for name, theta in (("global", self.config.global_rope_theta), ("local", self.config.local_rope_theta)):
            table = rotary_table(self.config.max_position_embeddings, size, theta)
            self.register_buffer(f"{name}_angles", paddle.to_tensor(table), persistable=False)

    def _make_embeddings(self) -> nn.Layer:
        return _ModernBertEmbeddings(self.config, self.masks)

    def _make_layers(self) -> nn.Layer:
        return _ModernBertLayers(self.config, self.masks)

    def _make_pooler(self) -> nn.Layer:
        return _Pooler(self.config)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        hidden, context = self._begin(input_ids, token_type_ids, extra)
        return self.encoder.norm(self._through(self.encoder.layers, hidden, *context))

    def states(self, input_ids: Tensor, token_type_ids: Tensor) -> list[Tensor]:
        hidden, context = self._begin(input_ids, token_type_ids, None)
        states = self._states_of(self.encoder.layers, hidden, *context)
        return [*states[:-1], self.encoder.norm(states[-1])]

    def _begin(
        self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]
    ) -> tuple[Tensor, tuple[object, ...]]:
        """Return the embedded tokens, and the `context` of `_ModernBertLayer.forward`."""
        hidden, mask = self._embed(input_ids, token_type_ids, extra)
        ones = paddle.ones_like(input_ids[:1])
        places = paddle.cumsum(ones, axis=1) - ones  # exports with a dynamic length
        angles = (angles_of(table, places[0]) for table in (self.global_angles, self.local_angles))
        window = min(self.config.local_attention // 2, self.config.max_position_embeddings)
        return hidden, (mask, Band(mask, window, self.longest), *angles)

    def pooled(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        if self.config.classifier_pooling != "cls":
            return self.pool(self(input_ids, token_type_ids, extra), input_ids)
        hidden, context = self._begin(input_ids, token_type_ids, extra)
        hidden = self._through(self.encoder.layers[:-1], hidden, *context)
        first = self.encoder.layers[-1](hidden, *context, first_token_only=True)
        return self.pooler(self.encoder.norm(first)[:, 0])

    def pool(self, states: Tensor, input_ids: Tensor) -> Tensor:
        """Return the pooled output, `[batch, hidden]`, of the first token's state or of the mean of all states."""
        pooling = "first" if self.config.classifier_pooling == "cls" else "mean"
        return self.pooler(pool_states(states, input_ids != self.config.pad_token_id, pooling))


class _BiaslessNorm(nn.LayerNorm):
    """LayerNorm without a trained bias. It adds zeros, since Paddle Inference computes wrong values without a bias."""

    def __init__(self, size: int, epsilon: float):
        super().__init__(size, epsilon=epsilon, bias_attr=False)
        self.size, self.epsilon = size, epsilon
        self.register_buffer("zeros", paddle.zeros([size]), persistable=False)

    def forward(self, states: Tensor) -> Tensor:
        return F.layer_norm(states, self.size, self.weight, self.zeros, self.epsilon)


def _norm(config: ModernBertConfig) -> nn.LayerNorm:
    if not config.norm_bias:
        return _BiaslessNorm(config.hidden_size, config.layer_norm_eps)
    return nn.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)


def _linear(inputs: int, outputs: int, bias: bool) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias_attr=None if bias else False)


class _ModernBertEmbeddings(nn.Layer):
    def __init__(self, config: ModernBertConfig, masks: Masks):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layer_norm = _norm(config)
        self.dropout = Dropout(config.hidden_dropout_prob, masks)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> Tensor:
        hidden = self.word_embeddings(input_ids)
        return self.dropout(self.layer_norm(hidden if extra is None else hidden + extra))


class _ModernBertAttention(nn.Layer):
    def __init__(self, config: ModernBertConfig, masks: Masks):
        super().__init__()
        size = config.hidden_size
        self.heads, self.head_size = config.num_attention_heads, size // config.num_attention_heads
        self.qkv_proj = _linear(size, 3 * size, config.attention_bias)
        self.out_proj = _linear(size, size, config.attention_bias)
        self.dropout = Dropout(config.attention_probs_dropout_prob, masks)

    def forward(
        self, hidden: Tensor, mask: Union[Tensor, Band], angles: Tensor, first_token_only: bool = False
    ) -> Tensor:
        """Return the attended values, `[batch, length, size]`; with `first_token_only`, `[batch, 1, size]`.

        mask: a tensor that is added to the products of queries and keys, or the `Band` of keys that each query attends
            to
        """
        parts = self.qkv_proj(hidden).reshape([0, 0, 3 * self.heads, self.head_size])
        q, k, v = paddle.split(parts, 3, axis=2)
        q = q[:, :1] if first_token_only else rotated(q, angles)  # at position 0, the rotation is the identity
        q, k, v = (states.reshape([0, 0, self.heads * self.head_size]) for states in (q, rotated(k, angles), v))
        if isinstance(mask, Band):
            attended = (attend_first if first_token_only else attend_locally)(mask, q, k, v, self.heads, self.dropout)
        else:
            attended = attend(q, k, v, mask, self.heads, self.dropout)
        return self.out_proj(attended)


class _ModernBertLayer(nn.Layer):
    def __init__(self, config: ModernBertConfig, masks: Masks, number: int):
        super().__init__()
        self.is_local = number % config.global_attn_every_n_layers != 0
        self.norm1 = _norm(config) if number else nn.Identity()  # `_ModernBertEmbeddings` normalises already
        self.norm2 = _norm(config)
        self.self_attn = _ModernBertAttention(config, masks)
        self.linear1 = _linear(config.hidden_size, 2 * config.intermediate_size, config.mlp_bias)
        self.linear2 = _linear(config.intermediate_size, config.hidden_size, config.mlp_bias)
        self.activation = activation_named(config.hidden_act)
        self.dropout = Dropout(config.hidden_dropout_prob, masks)

    def forward(self, hidden: Tensor, *context: object, first_token_only: bool = False) -> Tensor:
        """Return the layer's output, `[batch, length, size]`; with `first_token_only`, `[batch, 1, size]`.

        context: the mask of global attention, the band of local attention, and the angles of each
        """
        mask, angles = context[self.is_local :: 2]
        attended = self.self_attn(self.norm1(hidden), mask, angles, first_token_only)
        hidden = (hidden[:, :1] if first_token_only else hidden) + attended
        inner, gate = paddle.split(self.linear1(self.norm2(hidden)), 2, axis=-1)
        return hidden + self.linear2(self.dropout(self.activation(inner) * gate))


class _ModernBertLayers(nn.Layer):
    def __init__(self, config: ModernBertConfig, masks: Masks):
        super().__init__()
        self.layers = nn.LayerList(
            [_ModernBertLayer(config, masks, number) for number in range(config.num_hidden_layers)]
        )
        self.norm = _norm(config)


class _Pooler(nn.Layer):
    def __init__(self, config: ModernBertConfig):
        super().__init__()
        self.dense = _linear(config.hidden_size, config.hidden_size, config.classifier_bias)
        self.activation = activation_named(config.classifier_activation)
        self.norm = _norm(config)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(pooled)))
