"""Qwen3: a causal decoder, whose last token's state stands for the text (Yang et al., 2025).

A token attends to itself and to earlier tokens. So padding after a text changes nothing, and a common beginning of
several texts is computed once: in a reranker's pairs, the instruction and the query (`Qwen3Encoder.pooled`). An
exported graph computes once only the beginning that all pairs of a batch share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Optional

import numpy as np
import paddle
from paddle import Tensor, nn

from paddle_ranker.array_types import Array
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoders.qwen3 import Qwen3Config
from paddle_ranker.model.networks.attention import MASKED, attend
from paddle_ranker.model.networks.bert import Encoder, activation_named
from paddle_ranker.model.networks.dropout import Dropout, Masks
from paddle_ranker.model.networks.rotary import angles_of, rotary_table, rotated

BLOCK = 512  # tokens whose queries are computed together; long texts take no memory for the square of their length
_LEAST_SHARED = 8  # a common beginning of fewer tokens is not computed separately


class Prefixes(NamedTuple):
    """Keys and values of the prefixes of a batch. A prefix is the tokens with which one or more rows begin.

    layers: keys and values of each layer, `[prefixes, longest, width]` each
    lengths: number of tokens of each prefix, `[prefixes]`
    of_row: index of each row's prefix, `[rows]`
    """

    layers: list[tuple[Tensor, Tensor]]
    lengths: Array
    of_row: Array

    @property
    def is_beyond(self) -> Array:
        """Whether a key is padding after the row's prefix, `[rows, 1, 1, longest]` bool."""
        places = np.arange(self.layers[0][0].shape[1])
        is_beyond: Array = (places >= self.lengths[self.of_row][:, None])[:, None, None]
        return is_beyond


class _Before(NamedTuple):
    """Keys and values of the prefixes that the rows of a batch attend to.

    layers: keys and values of each layer, as in `Prefixes`
    of_row: index of each row's prefix, `[rows]` int64
    mask: additive mask of the prefixes' padding, `[rows, 1, 1, longest]`
    """

    layers: list[tuple[Tensor, Tensor]]
    of_row: Tensor
    mask: Tensor


class _Block(NamedTuple):
    """Attention queries that are computed together, and the mask of their keys.

    start, stop: the queries' tokens, from `start` up to, not including, `stop`; `stop` None: to the last token
    mask: additive mask of the prefix's keys, if any, then of the keys before `stop`
    """

    start: int
    stop: Optional[int]
    mask: Tensor


@dataclass
class _Context:
    """Further inputs of every layer.

    angles: angles of each token's position, see `rotated`
    blocks: the blocks in which queries are computed
    before: prefixes that the rows attend to, or None
    kept: list to which each layer appends its keys and values; None: they are not kept
    """

    angles: Tensor
    blocks: list[_Block]
    before: Optional[_Before] = None
    kept: Optional[list[tuple[Tensor, Tensor]]] = None


class Qwen3Encoder(Encoder):
    """Decoder of Qwen3 without its language model's head; the pooled output is the last token's state."""

    config: Qwen3Config

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        config = self.config
        table = rotary_table(config.max_position_embeddings, config.head_dim, config.rope_theta)
        self.register_buffer("angles", paddle.to_tensor(table), persistable=False)

    def _make_embeddings(self) -> nn.Layer:
        return _Qwen3Embeddings(self.config)

    def _make_layers(self) -> nn.Layer:
        return _Qwen3Layers(self.config, self.masks)

    def _make_pooler(self) -> nn.Layer:
        return nn.Identity()

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        hidden, context = self._begin(input_ids, token_type_ids, extra)
        return self.encoder.norm(self._through(self.encoder.layers, hidden, context))

    def states(self, input_ids: Tensor, token_type_ids: Tensor) -> list[Tensor]:
        hidden, context = self._begin(input_ids, token_type_ids, None)
        states = self._states_of(self.encoder.layers, hidden, context)
        return [*states[:-1], self.encoder.norm(states[-1])]

    def pooled(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        """Return the state of each text's last token, `[batch, hidden]`; arguments as in `forward`.

        Outside training and without `extra`, rows that begin with the same tokens up to the first token of type 1 share
        the computation of this beginning. In an exported graph, only a beginning that all rows share is computed once.
        """
        if not paddle.in_dynamic_mode() and extra is None:
            return self._pooled_in_graph(input_ids, token_type_ids)
        if paddle.in_dynamic_mode() and not self.training and extra is None:
            divided = divide(input_ids.numpy(), token_type_ids.numpy(), self.config.pad_token_id)
            if divided is not None:
                prefixes, lengths, of_row, rest = divided
                before = self.read_prefixes(prefixes, lengths)._replace(of_row=of_row)
                ids = paddle.to_tensor(rest)
                return self._last(self.embeddings(ids), self._context_after(before, rest.shape[1]), ids)
        hidden, context = self._begin(input_ids, token_type_ids, extra)
        return self._last(hidden, context, input_ids)

    def pool(self, states: Tensor, input_ids: Tensor) -> Tensor:
        """Return the last token's state, `[batch, hidden]`, from the states that `forward` returned."""
        return _Last(input_ids, self.config.pad_token_id, states.dtype).of(states)[:, 0]

    def read_prefixes(self, ids: Array, lengths: Array) -> Prefixes:
        """Compute the keys and values of prefixes; a common beginning of all of them is computed once.

        ids: `[prefixes, longest]` int64, padded
        lengths: number of tokens of each prefix, `[prefixes]`
        """
        shared = min(_shared(ids), int(lengths.min()))
        before = None
        if len(ids) > 1 and shared >= _LEAST_SHARED:
            first = self.read_prefixes(ids[:1, :shared], np.array([shared]))
            before = first._replace(of_row=np.zeros(len(ids), np.int64))
            ids = ids[:, shared:]
        tokens = paddle.to_tensor(ids)
        if before is None:
            hidden, context = self._begin(tokens, tokens, None)
        else:
            hidden, context = self.embeddings(tokens), self._context_after(before, ids.shape[1])
        return Prefixes(self._keys_and_values(hidden, context), lengths, np.arange(len(ids)))

    def _keys_and_values(self, hidden: Tensor, context: _Context) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's keys and values, `[batch, length, width]` each; those of `context.before` come first."""
        context.kept = []
        hidden = self._through(self.encoder.layers[:-1], hidden, context)
        last = self.encoder.layers[-1]
        last.self_attn.keys_and_values(last.norm1(hidden), context)
        return context.kept

    def _pooled_in_graph(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Compute `pooled` in an exported graph; only the tokens before type 1 that all rows share are computed once.

        Engines compute different results for an empty prefix. If the rows share no beginning, the first token of the
        first row is the prefix, and a mask hides it from all rows.
        """
        ones = paddle.ones_like(input_ids[0])
        places = paddle.cumsum(ones, axis=0) - ones
        tokens = (input_ids != self.config.pad_token_id).astype("int64").sum(axis=1)
        is_apart = (input_ids != input_ids[:1]).astype("int64").max(axis=0) + token_type_ids.max(axis=0)
        # At least one token of each row follows.
        ends = paddle.where(is_apart > 0, places, ones * (tokens.min() - 1))
        shared = paddle.maximum(ends.min(), paddle.zeros([], "int64"))
        before = input_ids[:1, : paddle.maximum(shared, paddle.ones([], "int64"))]
        hidden, context = self._begin(before, before, None)
        layers = self._keys_and_values(hidden, context)
        rest = input_ids[:, shared:]
        of_row = paddle.zeros_like(tokens)
        is_other = (shared + paddle.zeros_like(before) == 0).astype("float32")
        mask = (is_other + of_row.unsqueeze(1).astype("float32")).unsqueeze([1, 2]) * MASKED
        places = paddle.cumsum(paddle.ones_like(rest[0]), axis=0) - 1
        is_later = (places.unsqueeze(0) > places.unsqueeze(1)).astype("float32").unsqueeze([0, 1]) * MASKED
        seen = mask[:1] + paddle.zeros_like(is_later[:, :, :, :1])
        block = _Block(0, None, paddle.concat([seen, is_later], axis=3))
        context = _Context(angles_of(self.angles, places + shared), [block], _Before(layers, of_row, mask))
        return self._last(self.embeddings(rest), context, rest)

    def _begin(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> tuple[Tensor, _Context]:
        """Return the embedded tokens, and the context for texts without prefixes."""
        if self.training:
            self.masks.restart()
        # Every ranker's graph has both inputs, see `Encoder._embed`.
        input_ids = input_ids + 0 * token_type_ids
        hidden = self.embeddings(input_ids)
        if self.training and self.gradient_checkpointing:
            hidden.stop_gradient = False  # frozen embeddings would otherwise end the backward pass of all layers
        ones = paddle.ones_like(input_ids[:1])
        places = paddle.cumsum(ones, axis=1)  # exports with a dynamic length
        if paddle.in_dynamic_mode():
            blocks = _blocks(input_ids.shape[1])
        else:
            is_later = (places > places.transpose([1, 0])).astype("float32")
            blocks = [_Block(0, None, is_later.unsqueeze([0, 1]) * MASKED)]
        context = _Context(angles_of(self.angles, (places - ones)[0]), blocks)
        return hidden if extra is None else hidden + extra, context

    def _context_after(self, before: Prefixes, length: int) -> _Context:
        """Return the context for tokens, `length` in each row, that follow the prefixes `before`."""
        lengths = before.lengths[before.of_row]
        places = np.minimum(lengths[:, None] + np.arange(length), self.config.max_position_embeddings - 1)
        angles = angles_of(self.angles, paddle.to_tensor(places.reshape(-1)))
        angles = angles.reshape([2, len(lengths), length, 1, -1])
        earlier = _Before(before.layers, paddle.to_tensor(before.of_row), _additive(before.is_beyond))
        return _Context(angles, _blocks(length, before), earlier)

    def _last(self, hidden: Tensor, context: _Context, input_ids: Tensor) -> Tensor:
        """Run the layers; return the state of each row's last token, `[batch, hidden]`.

        The last layer computes only that token.
        """
        hidden = self._through(self.encoder.layers[:-1], hidden, context)
        last = _Last(input_ids, self.config.pad_token_id, hidden.dtype)
        return self.encoder.norm(self.encoder.layers[-1](hidden, context, last))[:, 0]


def divide(ids: Array, types: Array, pad_id: int) -> Optional[tuple[Array, Array, Array, Array]]:
    """Divide pairs, `[batch, length]` ids and types, before their first token of type 1, to compute beginnings once.

    Returns the distinct beginnings, padded, `[prefixes, longest]`; the lengths of the beginnings, `[prefixes]`; the
    index of each pair's beginning, `[batch]`; and the rest of each pair, padded, `[batch, longest rest]`. Returns None
    if dividing saves nothing, or a pair has no token of type 1.
    """
    starts = types.argmax(axis=1)
    if len(ids) < 2 or not (types.any(axis=1) & (starts > 0)).all():
        return None
    number_of: dict[bytes, int] = {}
    of_row = np.array([number_of.setdefault(row[:start].tobytes(), len(number_of)) for row, start in zip(ids, starts)])
    if len(number_of) == len(ids) and min(_shared(ids), starts.min()) < _LEAST_SHARED:
        return None
    first = np.unique(of_row, return_index=True)[1]
    lengths = starts[first]
    places = np.arange(lengths.max())
    prefixes = np.where(places < lengths[:, None], ids[first, : len(places)], pad_id)
    places = starts[:, None] + np.arange(ids.shape[1] - starts.min())
    rest = np.where(places < ids.shape[1], np.take_along_axis(ids, np.minimum(places, ids.shape[1] - 1), 1), pad_id)
    longest = int((rest != pad_id).sum(axis=1).max())
    return prefixes, lengths, of_row, rest[:, : max(1, longest)]


def _shared(ids: Array) -> int:
    """Return the length of the longest common prefix of all rows."""
    return int(np.logical_and.accumulate((ids == ids[:1]).all(axis=0)).sum())


def _blocks(length: int, before: Optional[Prefixes] = None) -> list[_Block]:
    """Divide queries into blocks with masks.

    length: number of tokens of each row
    before: prefixes that the rows follow, or None
    """
    blocks = []
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        is_hidden = np.triu(np.ones((1, 1, stop - start, stop), bool), start + 1)
        if before is not None:
            rows = (len(before.of_row), 1, stop - start)
            parts = [np.broadcast_to(part, (*rows, part.shape[3])) for part in (before.is_beyond, is_hidden)]
            is_hidden = np.concatenate(parts, axis=3)
        blocks.append(_Block(start, stop, _additive(is_hidden)))
    return blocks


def _additive(is_hidden: Array) -> Tensor:
    return paddle.to_tensor(is_hidden.astype(np.float32) * np.float32(MASKED))


class _Last:
    """Last token of each row that is not padding.

    chosen: 1 at that token, 0 at others, `[batch, 1, length]`
    """

    def __init__(self, input_ids: Tensor, pad_id: int, dtype: paddle.dtype):
        tokens = (input_ids != pad_id).astype("int64").sum(axis=1, keepdim=True)
        last = paddle.maximum(tokens, paddle.full([1], 1, "int64"))
        places = paddle.cumsum(paddle.ones_like(input_ids), axis=1)
        self.chosen = (places == last).astype(dtype).unsqueeze(1)
        self._is_later = (places > last).astype("float32").unsqueeze([1, 2])

    def of(self, states: Tensor) -> Tensor:
        """Return the state of each row's last token, `[batch, 1, width]`, from `states`, `[batch, length, width]`."""
        return paddle.matmul(self.chosen, states)

    def block(self, before: Optional[_Before]) -> _Block:
        """Return a block with the rows' last tokens as queries; `before`: the rows' prefixes, or None."""
        mask = self._is_later * MASKED
        return _Block(0, None, mask if before is None else paddle.concat([before.mask, mask], axis=3))


class RMSNorm(nn.Layer):
    """Division by the root mean square, then multiplication by a factor per dimension (Zhang and Sennrich, 2019)."""

    def __init__(self, size: int, epsilon: float):
        super().__init__()
        self.weight = self.create_parameter([size], default_initializer=nn.initializer.Constant(1.0))
        self.epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        wide = states.astype("float32")
        # A sum, since Paddle Inference prints a line for each mean.
        squares = (wide * wide).sum(axis=-1, keepdim=True) * (1.0 / wide.shape[-1])
        scale = paddle.rsqrt(squares + self.epsilon)
        return (wide * scale).astype(states.dtype) * self.weight.astype(states.dtype)


class Linear(nn.Layer):
    """Linear layer whose weight is `[outputs, inputs]`, as in transformers' files, so that loading needs no copy."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False):
        super().__init__()
        self.weight = self.create_parameter([outputs, inputs])
        self.bias = self.create_parameter([outputs], is_bias=True) if bias else None
        self.adapter: Optional[nn.Layer] = None  # see `paddle_ranker.model.networks.lora`

    def forward(self, states: Tensor) -> Tensor:
        if paddle.in_dynamic_mode():
            product = paddle.matmul(states, self.weight, transpose_y=True)
        else:  # engines fold the transposition, and multiply faster by a matrix in this order
            product = paddle.matmul(states, self.weight.transpose([1, 0]))
        if self.adapter is not None:
            product = product + self.adapter(states)
        return product if self.bias is None else product + self.bias.astype(product.dtype)


class _Qwen3Embeddings(nn.Layer):
    def __init__(self, config: Qwen3Config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.word_embeddings(input_ids)


class _Qwen3Attention(nn.Layer):
    def __init__(self, config: Qwen3Config, masks: Masks, number: int):
        super().__init__()
        width, size, bias = config.hidden_size, config.head_dim, config.attention_bias
        self.heads, self.shared, self.size = config.num_attention_heads, config.num_key_value_heads, size
        self.number = number
        self.q_proj = Linear(width, self.heads * size, bias)
        self.k_proj, self.v_proj = (Linear(width, self.shared * size, bias) for _ in range(2))
        self.out_proj = Linear(self.heads * size, width, bias)
        self.q_norm, self.k_norm = (RMSNorm(size, config.layer_norm_eps) for _ in range(2))
        self.dropout = Dropout(config.attention_probs_dropout_prob, masks)

    def keys_and_values(self, hidden: Tensor, context: _Context) -> tuple[Tensor, Tensor]:
        """Return keys and values, `[batch, length, width]` each: of the prefixes, then of `hidden`."""
        k = self.k_norm(self.k_proj(hidden).reshape([0, 0, self.shared, self.size]))
        k, v = rotated(k, context.angles).reshape([0, 0, self.shared * self.size]), self.v_proj(hidden)
        if context.before is not None:
            before = context.before
            seen = (paddle.gather(states, before.of_row) for states in before.layers[self.number])
            k, v = (paddle.concat(states, axis=1) for states in zip(seen, (k, v)))
        if context.kept is not None:
            context.kept.append((k, v))
        return k, v

    def forward(self, hidden: Tensor, context: _Context, last: Optional[_Last] = None) -> Tensor:
        """Return the attended values, `[batch, length, width]`; with `last`, `[batch, 1, width]`."""
        k, v = self.keys_and_values(hidden, context)
        angles, blocks = context.angles, context.blocks
        if last is not None:
            hidden, blocks = last.of(hidden), [last.block(context.before)]
            angles = paddle.matmul(last.chosen.unsqueeze(0).astype(angles.dtype), angles.squeeze(3)).unsqueeze(3)
        q = rotated(self.q_norm(self.q_proj(hidden).reshape([0, 0, self.heads, self.size])), angles)
        attended = [self._of_block(q, k, v, block) for block in blocks]
        return self.out_proj(attended[0] if len(attended) == 1 else paddle.concat(attended, axis=1))

    def _of_block(self, q: Tensor, k: Tensor, v: Tensor, block: _Block) -> Tensor:
        if block.stop is not None:
            keys = block.mask.shape[3]
            q, k, v = q[:, block.start : block.stop], k[:, :keys], v[:, :keys]
        # Heads that share keys become more queries of one head: [batch, group, length, shared heads, size].
        group = self.heads // self.shared
        q = q.reshape([0, 0, self.shared, group, self.size]).transpose([0, 3, 1, 2, 4])
        q = q.reshape([0, -1, self.shared * self.size])
        mask = paddle.concat([block.mask] * group, axis=2)
        attended = attend(q, k, v, mask, self.shared, self.dropout)
        attended = attended.reshape([0, group, -1, self.shared, self.size]).transpose([0, 2, 3, 1, 4])
        return attended.reshape([0, 0, self.heads * self.size])


class _Qwen3Layer(nn.Layer):
    def __init__(self, config: Qwen3Config, masks: Masks, number: int):
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.norm1, self.norm2 = (RMSNorm(width, config.layer_norm_eps) for _ in range(2))
        self.self_attn = _Qwen3Attention(config, masks, number)
        self.gate_proj, self.up_proj = (Linear(width, inner) for _ in range(2))
        self.down_proj = Linear(inner, width)
        self.activation = activation_named(config.hidden_act)

    def forward(self, hidden: Tensor, context: _Context, last: Optional[_Last] = None) -> Tensor:
        """Return the output, `[batch, length, width]`; with `last`, of each row's last token, `[batch, 1, width]`."""
        attended = self.self_attn(self.norm1(hidden), context, last)
        hidden = (hidden if last is None else last.of(hidden)) + attended
        inner = self.norm2(hidden)
        return hidden + self.down_proj(self.activation(self.gate_proj(inner)) * self.up_proj(inner))


class _Qwen3Layers(nn.Layer):
    def __init__(self, config: Qwen3Config, masks: Masks):
        super().__init__()
        self.layers = nn.LayerList([_Qwen3Layer(config, masks, number) for number in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.layer_norm_eps)
