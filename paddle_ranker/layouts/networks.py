"""Encoders of tokens with boxes on a page: LayoutLM (Xu et al., 2020) and LiLT (Wang et al., 2022)."""

from __future__ import annotations

from typing import Optional

import paddle
from paddle import Tensor, nn

from paddle_ranker.layouts.kind import LayoutLMConfig, LiltConfig
from paddle_ranker.model.networks.attention import attend
from paddle_ranker.model.networks.bert import Attention, Embeddings, Encoder, EncoderLayer, _at, places_of, types_of
from paddle_ranker.model.networks.dropout import Dropout, Masks


class _BoxEmbeddings(Embeddings):
    """BERT's embeddings, and tables for the coordinates, heights and widths of boxes."""

    def __init__(self, config: LayoutLMConfig, masks: Masks, size: int):
        super().__init__(config, masks)
        for name in ("x", "y", "h", "w"):
            table = nn.Embedding(config.max_2d_position_embeddings, size)
            setattr(self, f"{name}_position_embeddings", table)

    def of_boxes(self, token_type_ids: Tensor) -> list[Tensor]:
        """Return the embeddings of boxes' left, top, right, bottom, height, width: `[batch, length, size]` each."""
        boxes = places_of(token_type_ids, 4)
        left, top, right, bottom = (boxes[:, :, number] for number in range(4))
        height, width = (paddle.maximum(size, paddle.zeros_like(size)) for size in (bottom - top, right - left))
        x, y = self.x_position_embeddings, self.y_position_embeddings
        sides = [x(left), y(top), x(right), y(bottom)]
        return [*sides, self.h_position_embeddings(height), self.w_position_embeddings(width)]


class LayoutLMEmbeddings(_BoxEmbeddings):
    """BERT's embeddings plus those of the tokens' boxes."""

    def __init__(self, config: LayoutLMConfig, masks: Masks):
        super().__init__(config, masks, config.hidden_size)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> Tensor:
        boxes = paddle.add_n(self.of_boxes(token_type_ids))
        # Not super(), which Paddle 2.6 does not find in a network that it makes static.
        return Embeddings.forward(self, input_ids, types_of(token_type_ids), boxes if extra is None else boxes + extra)


class LayoutLMEncoder(Encoder):
    """Encoder of LayoutLM: a BERT whose tokens also have boxes."""

    config: LayoutLMConfig
    embeddings_class = LayoutLMEmbeddings


class LiltEmbeddings(_BoxEmbeddings):
    """RoBERTa's embeddings, followed by a narrower embedding of the token's box: `[batch, length, hidden + layout]`."""

    config: LiltConfig

    def __init__(self, config: LiltConfig, masks: Masks):
        super().__init__(config, masks, config.hidden_size // 6)
        self.box_position_embeddings = nn.Embedding(config.max_position_embeddings, config.layout_size)
        self.box_linear_embeddings = nn.Linear(config.hidden_size, config.layout_size)
        self.layout_norm = nn.LayerNorm(config.layout_size, epsilon=config.layer_norm_eps)
        self.layout_dropout = Dropout(config.hidden_dropout_prob, masks)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> Tensor:
        types = types_of(token_type_ids)
        layout = self.box_linear_embeddings(paddle.concat(self.of_boxes(token_type_ids), axis=-1))
        layout = layout + self.box_position_embeddings(self._positions(input_ids, types))
        layout = self.layout_dropout(self.layout_norm(layout))
        return paddle.concat([Embeddings.forward(self, input_ids, types, extra), layout], axis=-1)


class _LiltAttention(Attention):
    """Attention of states and of layouts with shared weights: the softmax of the sum of both products.

    A head's query of states and its query of layouts are concatenated, and so are keys and values. One multiplication
    then computes the sum of both products.
    """

    def __init__(self, config: LiltConfig, masks: Masks):
        super().__init__(config.hidden_size, config.num_attention_heads, config.attention_probs_dropout_prob, masks)
        size = config.layout_size
        self.layout_q, self.layout_k, self.layout_v = (nn.Linear(size, size) for _ in range(3))
        self.layout_out = nn.Linear(size, size)
        self.sizes = self.head_size, self.head_size // config.channel_shrink_ratio

    def both(self, query: list[Tensor], hidden: list[Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attended values of states and of layouts, `[batch, queries, size]` each.

        query, hidden: two tensors each, of states and of layouts, see `Attention.forward`
        """
        root = sum(self.sizes) ** 0.5  # `attend` divides by this root; each product needs the root of its size instead
        q, layout_q = self.q_proj(query[0]) * (root / self.sizes[0] ** 0.5), self.layout_q(query[1])
        q = self._joined(q, layout_q * (root / self.sizes[1] ** 0.5))
        k = self._joined(self.k_proj(hidden[0]), self.layout_k(hidden[1]))
        v = self._joined(self.v_proj(hidden[0]), self.layout_v(hidden[1]))
        attended = attend(q, k, v, mask, self.heads, self.dropout).reshape([0, 0, self.heads, sum(self.sizes)])
        state, layout = attended[:, :, :, : self.sizes[0]], attended[:, :, :, self.sizes[0] :]
        return self.out_proj(state.flatten(2)), self.layout_out(layout.flatten(2))

    def _joined(self, state: Tensor, layout: Tensor) -> Tensor:
        """Concatenate states and layouts head by head, `[batch, length, sum of both widths]`."""
        parts = (part.reshape([0, 0, self.heads, size]) for part, size in zip((state, layout), self.sizes))
        return paddle.concat([*parts], axis=-1).flatten(2)


class LiltLayer(EncoderLayer):
    """Layer of LiLT, whose input and output are states and layouts side by side, `[batch, length, hidden + layout]`."""

    def __init__(self, config: LiltConfig, masks: Masks):
        super().__init__(config, masks)
        size, inner = config.layout_size, config.intermediate_size // config.channel_shrink_ratio
        self.self_attn = _LiltAttention(config, masks)
        self.layout_linear1, self.layout_linear2 = nn.Linear(size, inner), nn.Linear(inner, size)
        self.layout_norm1, self.layout_norm2 = (nn.LayerNorm(size, epsilon=config.layer_norm_eps) for _ in range(2))
        self.size = config.hidden_size

    def forward(
        self, hidden: Tensor, mask: Tensor, first_token_only: bool = False, indices: Optional[Tensor] = None
    ) -> Tensor:
        query = hidden[:, :1] if first_token_only else hidden if indices is None else _at(hidden, indices)
        query = self._apart(query)
        state, layout = self.self_attn.both(query, self._apart(hidden), mask)
        state, layout = self.norm1(query[0] + self.dropout1(state)), self.layout_norm1(query[1] + self.dropout1(layout))
        of_state = self.linear2(self.activation(self.linear1(state)))
        of_layout = self.layout_linear2(self.activation(self.layout_linear1(layout)))
        state = self.norm2(state + self.dropout2(of_state))
        return paddle.concat([state, self.layout_norm2(layout + self.dropout2(of_layout))], axis=-1)

    def _apart(self, hidden: Tensor) -> list[Tensor]:
        # Not paddle.split, which Paddle Inference cannot load in bf16.
        return [hidden[:, :, : self.size], hidden[:, :, self.size :]]


class LiltEncoder(Encoder):
    """Encoder of LiLT: a RoBERTa and a narrower transformer of boxes, which share their attention weights."""

    config: LiltConfig
    embeddings_class, layer_class = LiltEmbeddings, LiltLayer

    def _after(self, layers: nn.LayerList, hidden: Tensor, mask: Tensor) -> Tensor:
        return self._through(layers, hidden, mask)[:, :, : self.config.hidden_size]

    def _pooled_after(self, layers: nn.LayerList, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = self._through(layers[:-1], hidden, mask)
        return self.pooler(layers[-1](hidden, mask, first_token_only=True)[:, 0, : self.config.hidden_size])

    def states(self, input_ids: Tensor, token_type_ids: Tensor) -> list[Tensor]:
        return [state[:, :, : self.config.hidden_size] for state in Encoder.states(self, input_ids, token_type_ids)]

    def at(
        self, input_ids: Tensor, token_type_ids: Tensor, indices: Tensor, documents: Optional[Tensor] = None
    ) -> Tensor:
        return Encoder.at(self, input_ids, token_type_ids, indices, documents)[:, :, : self.config.hidden_size]
