"""DeBERTa-v2 and -v3: disentangled attention between contents and relative positions (He et al., 2021)."""

from __future__ import annotations

from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.array_types import Array
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.deberta import DebertaConfig
from paddle_ranker.model.networks.bert import Encoder, EncoderLayer, Pooler, activation_named
from paddle_ranker.model.networks.dropout import Dropout, Masks


class DebertaEncoder(Encoder):
    """Encoder of DeBERTa."""

    config: DebertaConfig

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        span = self.config.span
        self._buckets = (relative_buckets(self.config) + span).clip(0, 2 * span - 1)

    def _make_embeddings(self) -> nn.Layer:
        return _DebertaEmbeddings(self.config, self.masks)

    def _make_layers(self) -> nn.Layer:
        return _DebertaLayers(self.config, self.masks)

    def _make_pooler(self) -> nn.Layer:
        return Pooler(self.config.hidden_size, self.config.pooler_hidden_act)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        hidden, context = self._after_first(input_ids, token_type_ids, extra)
        return self._through(self.encoder.layers[1:], hidden, *context)

    def states(self, input_ids: Tensor, token_type_ids: Tensor) -> list[Tensor]:
        """Return the layers' states as `Encoder.states` does; the first layer's output replaces the embeddings."""
        hidden, context = self._after_first(input_ids, token_type_ids, None)
        return [hidden, *self._states_of(self.encoder.layers[1:], hidden, *context)]

    def _after_first(
        self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the first layer's output, and the inputs that all layers share: mask, `_places`, positions."""
        hidden, mask = self._embed(input_ids, token_type_ids, extra)
        layers, context = self.encoder.layers, [mask]
        if self.config.relative_attention:
            context += [self._places(input_ids), self.encoder.relative(input_ids)]
        states = self._through(layers[:1], hidden, *context)
        if self.encoder.conv is not None:
            is_token = (input_ids != self.config.pad_token_id).astype(states.dtype).unsqueeze(-1)
            states = self.encoder.conv(hidden, states, is_token)
        return states, context

    def pooled(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        hidden, context = self._after_first(input_ids, token_type_ids, extra)
        if len(self.encoder.layers) > 1:
            hidden = self._through(self.encoder.layers[1:-1], hidden, *context)
            hidden = self.encoder.layers[-1](hidden, *context, first_token_only=True)
        return self.pooler(hidden[:, 0])

    def _places(self, input_ids: Tensor) -> Tensor:
        """Return for each pair of tokens the index of its relative position's bucket, `[2, length, length]` int64.

        Indices are into the flattened products of tokens and positions, `[length, 2 span]`. Element (i, j) of the first
        matrix points into row i of the products, element (i, j) of the second matrix into row j. Both point to the
        bucket of i - j.
        """
        # All constants are integer tensors, see `Embeddings._positions` in bert.py.
        ones = paddle.ones_like(input_ids[0])
        middle, width = (paddle.full([1], n, "int64") for n in (len(self._buckets) // 2, 2 * self.config.span))
        places = paddle.cumsum(ones, axis=0)  # exports with a dynamic length
        apart = places.unsqueeze(1) - places.unsqueeze(0)
        buckets = paddle.gather(paddle.to_tensor(self._buckets), apart.reshape([-1]) + middle)
        buckets, rows = buckets.reshape(paddle.shape(apart)), (places - ones) * width
        return paddle.stack([buckets + rows.unsqueeze(1), buckets + rows.unsqueeze(0)])


def relative_buckets(config: DebertaConfig) -> Array:
    """Return the bucket of each relative position from -n to n, `[2 n + 1]` int64; n is `max_position_embeddings`.

    Near positions have a bucket each, farther positions share buckets on a logarithmic scale.
    """
    most = config.max_position_embeddings
    positions = np.arange(-most, most + 1)
    size, farthest = config.position_buckets, config.max_relative_positions
    farthest = farthest if farthest > 0 else most
    if size <= 0:
        return positions
    middle = size // 2
    apart = np.where(np.abs(positions) < middle, middle - 1, np.abs(positions)).astype(np.float32)
    scale = np.log(np.float32((farthest - 1) / middle))
    logarithmic = np.ceil(np.log(apart / np.float32(middle)) / scale * np.float32(middle - 1)) + middle
    return np.where(apart <= middle, positions, np.sign(positions) * logarithmic).astype(np.int64)


class _DebertaEmbeddings(nn.Layer):
    def __init__(self, config: DebertaConfig, masks: Masks):
        super().__init__()
        size = config.embedding_size or config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size)
        self.position_embeddings = None
        if config.position_biased_input:
            self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size) if config.type_vocab_size else None
        self.project = nn.Linear(size, config.hidden_size, bias_attr=False) if size != config.hidden_size else None
        self.layer_norm = nn.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob, masks)
        self.pad_id = config.pad_token_id

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> Tensor:
        hidden = self.word_embeddings(input_ids)
        if self.position_embeddings is not None:
            hidden = hidden + self.position_embeddings(paddle.cumsum(paddle.ones_like(input_ids), axis=1) - 1)
        if self.token_type_embeddings is not None:
            types = self.token_type_embeddings
            hidden = hidden + (types.weight[0] if len(types.weight) == 1 else types(token_type_ids))
        hidden = hidden if self.project is None else self.project(hidden)
        hidden = self.layer_norm(hidden if extra is None else hidden + extra)
        is_token = (input_ids != self.pad_id).astype(hidden.dtype).unsqueeze(-1)
        return self.dropout(hidden * is_token)


class _DebertaAttention(nn.Layer):
    """Disentangled attention: content to content, content to positions, positions to content."""

    def __init__(self, config: DebertaConfig, masks: Masks):
        super().__init__()
        size = config.hidden_size
        self.heads, self.head_size = config.num_attention_heads, size // config.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(size, size) for _ in range(4))
        self.kinds = [kind for kind in ("c2p", "p2c") if kind in config.pos_att_type]
        self.scale = (self.head_size * (1 + len(self.kinds))) ** -0.5
        is_own = config.relative_attention and not config.share_att_key
        self.pos_k_proj = nn.Linear(size, size) if is_own and "c2p" in self.kinds else None
        self.pos_q_proj = nn.Linear(size, size) if is_own and "p2c" in self.kinds else None
        self.dropout = Dropout(config.attention_probs_dropout_prob, masks)
        self.position_dropout = Dropout(config.hidden_dropout_prob, masks)

    def forward(self, query: Tensor, hidden: Tensor, mask: Tensor, *positions: Tensor) -> Tensor:
        """Return the attended values, `[batch, queries, size]`.

        query: `hidden`, or the first token's state alone, `[batch, 1, size]`
        hidden: `[batch, length, size]`
        positions: `DebertaEncoder._places` and the embeddings of relative positions, `[2 span, size]`, or empty
        """
        q, k, v = self._split(self.q_proj(query)), self._split(self.k_proj(hidden)), self._split(self.v_proj(hidden))
        products = paddle.matmul(q * self.scale, k, transpose_y=True)
        if positions:
            places, relative = positions
            places = places if query is hidden else places[:, :1]
            relative = self.position_dropout(relative).unsqueeze(0)
            if "c2p" in self.kinds:
                keys = self._split((self.pos_k_proj or self.k_proj)(relative))
                products = products + _gathered(paddle.matmul(q * self.scale, keys, transpose_y=True), places[0])
            if "p2c" in self.kinds:
                queries = self._split((self.pos_q_proj or self.q_proj)(relative))
                products = products + _gathered(paddle.matmul(k * self.scale, queries, transpose_y=True), places[1])
        weights = self.dropout(F.softmax(products + mask.astype(products.dtype)))
        attended = paddle.matmul(weights, v).transpose([0, 2, 1, 3])
        return self.out_proj(attended.reshape([0, 0, self.heads * self.head_size]))

    def _split(self, states: Tensor) -> Tensor:
        return states.reshape([0, 0, self.heads, self.head_size]).transpose([0, 2, 1, 3])


def _gathered(products: Tensor, places: Tensor) -> Tensor:
    """Gather elements of `products`, `[batch, heads, rows, 2 span]`, as `[batch, heads, queries, length]`.

    places: indices of the elements in the flattened last two axes, `[queries, length]`
    """
    batch, heads, length = paddle.shape(products)[0], products.shape[1], paddle.shape(places)[1]
    flat = products.reshape([0, 0, -1])
    return paddle.gather(flat, places.reshape([-1]), axis=2).reshape([batch, heads, -1, length])


class _DebertaLayer(EncoderLayer):
    def __init__(self, config: DebertaConfig, masks: Masks):
        super().__init__(config, masks)
        self.self_attn = _DebertaAttention(config, masks)

    def forward(self, hidden: Tensor, mask: Tensor, *positions: Tensor, first_token_only: bool = False) -> Tensor:
        """Return the output, `[batch, length, size]`; with `first_token_only`, `[batch, 1, size]`."""
        query = hidden[:, :1] if first_token_only else hidden
        attended = self.norm1(query + self.dropout1(self.self_attn(query, hidden, mask, *positions)))
        return self.norm2(attended + self.dropout2(self.linear2(self.activation(self.linear1(attended)))))


class _DebertaConvolution(nn.Layer):
    def __init__(self, config: DebertaConfig, masks: Masks):
        super().__init__()
        size, kernel = config.hidden_size, config.conv_kernel_size
        self.groups = config.conv_groups
        self.conv = nn.Conv1D(size, size, kernel, padding=(kernel - 1) // 2, groups=self.groups)
        self.norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob, masks)
        self.activation = activation_named(config.conv_act)

    def forward(self, embedded: Tensor, states: Tensor, is_token: Tensor) -> Tensor:
        convolved = self._convolved(embedded) * is_token
        return self.norm(states + self.activation(self.dropout(convolved))) * is_token

    def _convolved(self, states: Tensor) -> Tensor:
        """Convolve along the tokens by matrix products, since Paddle Inference lacks convolution in bf16."""
        kernel = self.conv.weight.shape[2]
        sides = [paddle.zeros_like(states[:, :1])] * ((kernel - 1) // 2)
        padded = paddle.concat([*sides, states, *sides], axis=1)
        weights = paddle.split(self.conv.weight.transpose([2, 1, 0]), self.groups, axis=-1)  # [kernel, inputs, outputs]
        outputs = []
        for inputs, weight in zip(paddle.split(padded, self.groups, axis=-1), weights):
            near = (inputs[:, place : place - kernel + 1 or None] for place in range(kernel))
            outputs.append(sum(paddle.matmul(shifted, weight[place]) for place, shifted in enumerate(near)))
        return paddle.concat(outputs, axis=-1) + self.conv.bias


class _DebertaLayers(nn.Layer):
    def __init__(self, config: DebertaConfig, masks: Masks):
        super().__init__()
        size = config.hidden_size
        self.layers = nn.LayerList([_DebertaLayer(config, masks) for _ in range(config.num_hidden_layers)])
        self.rel_embeddings = nn.Embedding(2 * config.span, size) if config.relative_attention else None
        self.rel_norm = nn.LayerNorm(size, epsilon=config.layer_norm_eps) if config.has_rel_norm else None
        self.conv = _DebertaConvolution(config, masks) if config.conv_kernel_size else None

    def relative(self, input_ids: Tensor) -> Tensor:
        """Return the embeddings of relative positions, `[2 span, size]`; they do not depend on the ids."""
        assert self.rel_embeddings is not None
        table = self.rel_embeddings.weight
        if self.rel_norm is None:
            return table
        # Paddle Inference folds constants when it loads a graph, and fails at a norm of parameters alone.
        return self.rel_norm(table + 0 * input_ids[:1, :1].astype(table.dtype))
