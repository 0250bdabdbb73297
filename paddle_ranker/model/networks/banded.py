"""Attention to near tokens and to global tokens, at a cost that grows linearly with the length.

Tokens attend in blocks: the queries of a block attend to the keys of that block, of the blocks beside it, and of the
global tokens (Longformer: Beltagy et al., 2020; BigBird: Zaheer et al., 2020). The values are those of the formula over
all pairs of tokens with a mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from paddle_ranker.model.networks.attention import MASKED, attend
from paddle_ranker.model.networks.dropout import Dropout

# `python -m benchmarks.banded` compares blocks of 32, 64 and 128 tokens, and finds the length.
BLOCK = 64
SHORTEST = 1.5  # blocks are faster than all pairs if a text has this many times the keys of a block


class Band:
    """Local attention of a batch: over all pairs of tokens if texts are short, in blocks if they are long.

    mask: mask of padding, added to the products with each key, `[batch, 1, 1, length]`
    window: number of tokens to either side that a token attends to; at most the number of positions
    longest: maximum length of the model's texts. An exported graph chooses blocks by this length; in dynamic mode, the
        length of the batch decides
    global_tokens: as in `attend_banded`
    """

    def __init__(self, mask: Tensor, window: int, longest: int, global_tokens: int = 0):
        self.padding, self.window, self.global_tokens = mask, window, global_tokens
        keys = (2 * _reach(window, BLOCK) + 1) * BLOCK
        self.is_long = bool((mask.shape[3] if paddle.in_dynamic_mode() else longest) >= SHORTEST * keys)
        self.mask = mask if self.is_long else mask + mask_of_far(mask, window, global_tokens)


def attend_locally(band: Band, q: Tensor, k: Tensor, v: Tensor, heads: int, dropout: Dropout) -> Tensor:
    """Compute local attention, by blocks or over all pairs as `band` chooses; return `[batch, length, width]`.

    q, k, v, heads, dropout: as in `attend_banded`
    """
    if band.is_long:
        return attend_banded(q, k, v, band.padding, heads, dropout, band.window, band.global_tokens)
    return attend(q, k, v, band.mask, heads, dropout)


def attend_first(band: Band, q: Tensor, k: Tensor, v: Tensor, heads: int, dropout: Dropout) -> Tensor:
    """Compute the first token's attention; return its attended values, `[batch, 1, width]`.

    q: query of the first token, `[batch, 1, width]`
    k, v, heads, dropout: as in `attend_banded`
    """
    if band.is_long and not band.global_tokens:
        near = band.window + 1
        return attend(q, k[:, :near], v[:, :near], band.padding[:, :, :, :near], heads, dropout)
    return attend(q, k, v, band.mask[:, :, :1], heads, dropout)


def mask_of_far(mask: Tensor, window: int, global_tokens: int) -> Tensor:
    """Return a mask, `[1, 1, length, length]`: `MASKED` for tokens too far apart to attend to each other, else 0.

    mask, window, global_tokens: as in `attend_banded`
    """
    places = paddle.cumsum(paddle.ones_like(mask[:1], "int64"), axis=3)  # exports with a dynamic length
    apart = places.transpose([0, 1, 3, 2]) - places
    # Squares, since absolute values give another mask in Paddle Inference; integers, since bf16 rounds floats.
    far = (apart * apart > paddle.full([1], window**2, "int64")).astype(mask.dtype)
    if global_tokens:
        is_local = (places > paddle.full([1], global_tokens, "int64")).astype(mask.dtype)
        far = far * is_local * is_local.transpose([0, 1, 3, 2])
    return far * MASKED


def attend_banded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    heads: int,
    dropout: Dropout,
    window: int,
    global_tokens: int = 0,
    block: int = 0,
) -> Tensor:
    """Compute attention in a window; return the attended values, `[batch, length, width]`.

    q, k, v, heads, dropout: as in `attend`, with as many queries as keys
    mask: added to the products with each key, `[batch, 1, 1, length]`
    window: number of tokens to either side that a token attends to
    global_tokens: number of tokens at the beginning that attend to all tokens, and to which all tokens attend
    block: number of tokens whose queries are computed together; 0: `BLOCK`
    """
    block = block or BLOCK  # no default: Paddle does not know this module's names when it converts a signature
    if paddle.in_dynamic_mode() and q.shape[1] <= global_tokens:
        return attend(q, k, v, mask, heads, dropout)
    reach = _reach(window, block)
    apart = np.arange(-reach * block, (reach + 1) * block) - np.arange(block)[:, None]
    far = np.where(np.abs(apart) > window, np.float32(MASKED), np.float32(0))
    band = paddle.to_tensor(far).astype(mask.dtype)
    if not global_tokens:
        return attend_in_blocks(q, k, v, near_keys(mask, reach, block) + band, heads, dropout, reach, block)
    # The band excludes global tokens, since a token would otherwise attend to them twice.
    places = paddle.cumsum(paddle.ones_like(mask, "int64"), axis=-1)
    is_global = (places <= paddle.full([1], global_tokens, "int64")).astype(mask.dtype)
    near = near_keys(mask + is_global * MASKED, reach, block) + band
    of_global = mask[:, :, :, :global_tokens].unsqueeze(1) + paddle.zeros_like(near[:, :, :, :, :1])
    masks = paddle.concat([of_global, near], axis=-1)
    seen = [states[:, :global_tokens] for states in (k, v)]
    attended = attend_in_blocks(q, k, v, masks, heads, dropout, reach, block, seen)
    first = attend(q[:, :global_tokens], k, v, mask, heads, dropout)
    return paddle.concat([first, attended[:, global_tokens:]], axis=1)


def attend_in_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    heads: int,
    dropout: Dropout,
    reach: int,
    block: int,
    seen: Sequence[Tensor] = (),
) -> Tensor:
    """Compute attention of each block's queries to the keys of near blocks; return `[batch, length, width]`.

    q, k, v, heads, dropout: as in `attend_banded`
    mask: added to the products of queries and keys, `[batch, blocks, 1, 1 or block, seen + keys]`. The last axis has
        the `seen` keys, then the near keys in the order of `near_keys`
    reach: number of blocks to either side whose keys the queries of a block attend to
    block: tokens of a block; the last block may have fewer
    seen: further keys and values for all queries, `[batch, seen, width]` each; (): none
    """
    width = q.shape[2]
    keys, values = _keys(k, seen[:1], heads, reach, block), _keys(v, seen[1:], heads, reach, block)
    queries = _near(q * (width // heads) ** -0.5, heads, 0, block)
    # Of four dimensions, since Paddle Inference on a CPU multiplies transposed matrices of five dimensions wrongly.
    batch, blocks = sizes_of(queries)[:2]
    queries, keys, values, mask = (
        states.reshape([batch * blocks, *states.shape[2:]]) for states in (queries, keys, values, mask)
    )
    products = paddle.matmul(queries, keys, transpose_y=True)
    weights = dropout(F.softmax(products + mask.astype(products.dtype)))
    attended = paddle.matmul(weights, values).transpose([0, 2, 1, 3]).reshape([batch, -1, width])
    return attended[:, : sizes_of(q)[1]]


def _reach(window: int, block: int) -> int:
    """Return the number of blocks on each side of a block that hold the `window` tokens next to the block."""
    return -(-window // block)


def sizes_of(states: Tensor) -> list[int]:
    """Return the sizes of a tensor's dimensions: integers; in a graph, a tensor for each size that varies."""
    if paddle.in_dynamic_mode():
        return list(states.shape)
    sizes = paddle.shape(states)
    return [sizes[axis] if size < 0 else size for axis, size in enumerate(states.shape)]


def near_keys(mask: Tensor, reach: int, block: int) -> Tensor:
    """Return the mask of the keys near each block, `[batch, blocks, 1, 1, (2 reach + 1) block]`.

    mask: added to the products with each key, `[batch, 1, 1, length]`
    reach, block: as in `attend_in_blocks`
    """
    return _near(mask.reshape([0, -1, 1]), 1, reach, block, MASKED).transpose([0, 1, 2, 4, 3])


def _keys(states: Tensor, seen: Sequence[Tensor], heads: int, reach: int, block: int) -> Tensor:
    """Return the keys (or values) that each block attends to, `[batch, blocks, heads, seen + keys, size]`.

    states: keys (or values) of all tokens, `[batch, length, width]`
    seen: a tensor of further keys (or values) for all queries, `[batch, seen, width]`, or ()
    """
    near = _near(states, heads, reach, block)
    if not seen:
        return near
    of_all = _split(seen[0].unsqueeze(1), heads) + paddle.zeros_like(near[:, :, :, :1])
    return paddle.concat([of_all, near], axis=3)


def _near(states: Tensor, heads: int, reach: int, block: int, beyond: float = 0.0) -> Tensor:
    """Return the states of each block and the blocks near it, `[batch, blocks, heads, (2 reach + 1) block, size]`.

    states: `[batch, length, width]`
    beyond: value of the states before the first token and after the last one
    """
    batch, length, width = sizes_of(states)
    blocks = (length + block - 1) // block
    # Not F.pad, which crashes in Paddle Inference. The second edge is cut to whole blocks.
    edges = [paddle.full([batch, size, width], beyond, states.dtype) for size in (reach * block, (reach + 1) * block)]
    states = paddle.concat(([edges[0]] if reach else []) + [states, edges[1]], axis=1)
    states = _split(states[:, : (blocks + 2 * reach) * block].reshape([0, -1, block, width]), heads)
    if not reach:
        return states
    return paddle.concat([states[:, first : first + blocks] for first in range(2 * reach + 1)], axis=3)


def _split(blocks: Tensor, heads: int) -> Tensor:
    """Reshape `[batch, blocks, block, width]` to `[batch, blocks, heads, block, size]`."""
    return blocks.reshape([0, 0, 0, heads, -1]).transpose([0, 1, 3, 2, 4])
