"""BigBird: tokens attend to near blocks of tokens, and to the first and the last block (Zaheer et al., 2020)."""

from __future__ import annotations

import math
from typing import Optional, Union

import numpy as np
import paddle
from paddle import Tensor, nn

from paddle_ranker.model.encoders.big_bird import BigBirdConfig
from paddle_ranker.model.networks.attention import MASKED, attend
from paddle_ranker.model.networks.banded import attend_in_blocks, near_keys
from paddle_ranker.model.networks.bert import Attention, Encoder, Pooler
from paddle_ranker.model.networks.dropout import Dropout, Masks


class BigBirdEncoder(Encoder):
    """Encoder of BigBird.

    A text's result does not depend on its batch: it equals the result of transformers for that text alone.
    """

    config: BigBirdConfig

    def _make_layers(self) -> nn.Layer:
        layers = super()._make_layers()
        for layer in layers.layers:
            layer.self_attn = _BigBirdAttention(self.config, self.masks)
        return layers

    def _make_pooler(self) -> nn.Layer:
        return Pooler(self.config.hidden_size, self.config.hidden_act)

    def _embed(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> tuple[Tensor, Mask]:
        # Not super(), which Paddle 2.6 does not find in a network that it makes static.
        hidden, mask = Encoder._embed(self, input_ids, token_type_ids, extra)
        longest = input_ids.shape[1] if paddle.in_dynamic_mode() else self.longest  # a graph's lengths are unknown
        if longest <= self.config.longest_full:
            return hidden, mask
        return hidden, _Blocks(input_ids, mask, self.config)


class _BigBirdAttention(Attention):
    """Attention to all tokens if the mask is a tensor, to blocks of tokens if it is `_Blocks`."""

    def __init__(self, config: BigBirdConfig, masks: Masks):
        super().__init__(config.hidden_size, config.num_attention_heads, config.attention_probs_dropout_prob, masks)

    def forward(self, query: Tensor, hidden: Tensor, mask: Mask) -> Tensor:
        """Return the attended values, `[batch, queries, size]`; `query` is `hidden` or its first token."""
        q, k, v = self.q_proj(query), self.k_proj(hidden), self.v_proj(hidden)
        if isinstance(mask, _Blocks) and query is hidden:
            return self.out_proj(mask.attend_sparsely(q, k, v, self.heads, self.dropout))
        return self.out_proj(attend(q, k, v, _padding(mask), self.heads, self.dropout))

    def for_one(self, query: Tensor, hidden: Tensor, mask: Mask) -> Tensor:
        """Compute `forward` for the first token, which attends to all tokens: `[batch, 1, size]`."""
        return Attention.for_one(self, query, hidden, _padding(mask))


def _padding(mask: Mask) -> Tensor:
    return mask.padding if isinstance(mask, _Blocks) else mask


class _Blocks:
    """Blocks that the tokens of a batch attend to.

    A text's last block ends with its last token, and a text of at most `longest_full` tokens has full attention. So a
    text's states do not depend on the other texts of its batch.
    """

    def __init__(self, input_ids: Tensor, mask: Tensor, config: BigBirdConfig):
        self.padding, self.block, self.full = mask, config.block_size, config.longest_full
        table = paddle.to_tensor(np.arange(config.max_position_embeddings) // self.block)
        # All constants are integer tensors, see `Embeddings._positions`; the table saves a division.
        zero, one, size, full = (paddle.full([1], number, "int64") for number in (0, 1, self.block, self.full))
        ends = paddle.cumsum(paddle.ones_like(input_ids), axis=1)
        places, length = ends - one, ends[:, -1:]
        pad = paddle.full([1], config.pad_token_id, "int64")
        tokens = paddle.maximum((ends * (input_ids != pad).astype("int64")).max(axis=1, keepdim=True), one)
        row = paddle.cumsum(paddle.ones_like(length), axis=0) - one
        last = paddle.gather(table, (tokens - one).reshape([-1])).reshape([-1, 1])
        number = paddle.gather(table, places[0]).unsqueeze(0)
        is_first, is_last = number == zero, number == last
        of_last = last * size + paddle.to_tensor(np.arange(self.block))
        self.of_last = row * length + paddle.minimum(of_last, length - one)
        self.mask = self._mask(is_first, is_last, of_last >= length, config.num_random_blocks)
        # Index of each token's result among those by blocks, by full attention, of the first and of the last block.
        dense, first = paddle.minimum(length, full), paddle.minimum(length, size)
        # Sums of products: ONNX Runtime fails at the expansions of `where`.
        of_long = places + is_last.astype("int64") * (length + dense + first - last * size)
        of_long = of_long + is_first.astype("int64") * (length + dense)
        is_short = (tokens <= full).astype("int64")
        result = is_short * (length + paddle.minimum(places, dense - one)) + (one - is_short) * of_long
        self.result = row * (length + dense + first + size) + result

    def _mask(self, is_first: Tensor, is_last: Tensor, is_beyond: Tensor, random_blocks: int) -> Tensor:
        """Return the mask for `attend_in_blocks`.

        is_first, is_last: whether each token is in the first block, and in the last block of its text
        is_beyond: whether each position of a text's last block lies outside the batch's length
        random_blocks: number of random blocks in transformers, each of which the first block replaces
        """
        padding, dtype = self.padding, self.padding.dtype
        is_global = paddle.logical_or(is_first, is_last).astype(dtype).unsqueeze([1, 2])
        near = near_keys(padding + is_global * MASKED, 1, self.block)
        last = paddle.gather(padding.reshape([-1]), self.of_last.reshape([-1])).reshape([-1, self.block])
        last = (last + is_beyond.astype(dtype) * MASKED).unsqueeze([1, 2, 3])
        # A key that is counted n times has n times the weight.
        first = padding[:, :, :, : self.block].unsqueeze(1) + math.log(1 + random_blocks)
        blocks = paddle.zeros_like(near[:, :, :, :, :1])
        return paddle.concat([first + blocks, last + blocks, near], axis=-1)

    def attend_sparsely(self, q: Tensor, k: Tensor, v: Tensor, heads: int, dropout: Dropout) -> Tensor:
        """Compute the attention to blocks; return the attended values, `[batch, length, width]`.

        q, k, v, heads, dropout: as in `attend_in_blocks`
        """
        shape = [-1, self.block, q.shape[2]]
        queries, *seen = (
            paddle.concat([states[:, : self.block], _at(states, self.of_last).reshape(shape)], axis=1)
            for states in (q, k, v)
        )
        by_blocks = attend_in_blocks(q, k, v, self.mask, heads, dropout, 1, self.block, seen)
        short_q, short_k, short_v = (states[:, : self.full] for states in (q, k, v))
        dense = attend(short_q, short_k, short_v, self.padding[:, :, :, : self.full], heads, dropout)
        of_global = attend(queries, k, v, self.padding, heads, dropout)
        # The sizes are one tensor: ONNX Runtime refuses a shape that is joined of several.
        return _at(paddle.concat([by_blocks, dense, of_global], axis=1), self.result).reshape(paddle.shape(q))


Mask = Union[Tensor, _Blocks]  # a mask over all pairs of tokens, or the blocks that each block attends to


def _at(states: Tensor, indices: Tensor) -> Tensor:
    """Return the states of the chosen tokens, `[batch * chosen, width]`.

    states: `[batch, length, width]`
    indices: `[batch, chosen]` indices into the batch's flattened tokens
    """
    return paddle.gather(states.reshape([-1, states.shape[2]]), indices.reshape([-1]))
