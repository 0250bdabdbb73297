"""Multi-head self-attention under the parameter names of Paddle's `MultiHeadAttention`."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.dropout import Dropout, Masks


class Attention(nn.Layer):
    """Attend from some places of a sequence to all of them (Vaswani et al., 2017).

    Args:
        size: width of the hidden states, a multiple of `heads`.
        dropout: probability that an attention weight is dropped in training.
    """

    def __init__(self, size: int, heads: int, dropout: float, masks: Masks):
        super().__init__()
        self.heads, self.head_size = heads, size // heads
        self.q_proj = nn.Linear(size, size)
        self.k_proj = nn.Linear(size, size)
        self.v_proj = nn.Linear(size, size)
        self.out_proj = nn.Linear(size, size)
        self.dropout = Dropout(dropout, masks)

    def forward(self, query: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return the attended values, `[batch, queries, size]`.

        Args:
            query: `[batch, queries, size]`.
            hidden: `[batch, length, size]`, what keys and values are made of.
            mask: added to the products of queries and keys, `[batch, 1, 1, length]`.
        """
        q = self._split(self.q_proj(query) * (self.head_size**-0.5))
        k, v = self._split(self.k_proj(hidden)), self._split(self.v_proj(hidden))
        products = paddle.matmul(q, k, transpose_y=True)
        weights = self.dropout(F.softmax(products + mask.astype(products.dtype)))
        attended = paddle.matmul(weights, v).transpose([0, 2, 1, 3])
        return self.out_proj(attended.reshape([0, 0, self.heads * self.head_size]))

    def _split(self, states: Tensor) -> Tensor:
        """Return `[batch, heads, length, head_size]` of `[batch, length, size]`."""
        return states.reshape([0, 0, self.heads, self.head_size]).transpose([0, 2, 1, 3])
