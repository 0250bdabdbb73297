"""Multi-head self-attention under the parameter names of Paddle's `MultiHeadAttention`."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.model.dropout import Dropout, Masks


class Attention(nn.Layer):
    """Attend from some positions of a sequence to all its positions (Vaswani et al., 2017).

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
            hidden: `[batch, length, size]`, from which keys and values are computed.
            mask: added to the products of queries and keys, `[batch, 1 or heads, 1 or queries, length]`.
        """
        q = self._split(self.q_proj(query) * (self.head_size**-0.5))
        k, v = self._split(self.k_proj(hidden)), self._split(self.v_proj(hidden))
        products = paddle.matmul(q, k, transpose_y=True)
        weights = self.dropout(F.softmax(products + mask.astype(products.dtype)))
        attended = paddle.matmul(weights, v).transpose([0, 2, 1, 3])
        return self.out_proj(attended.reshape([0, 0, self.heads * self.head_size]))

    def for_one(self, query: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return what `forward` returns for a single query a sequence, `[batch, 1, size]`, at a fraction of the work.

        No token's key or value is computed. q . (K h + b) = (q K) . h + q . b, and softmax cancels the last term, which
        is the same for every token. The sum of a_i (V h_i + c) is V (sum of a_i h_i) + c, as the weights sum to 1.
        This is the absorption of DeepSeek-V2 (2024, section 2.1.2). There is no dropout on the weights.
        """
        heads, size = [self.heads, self.head_size], self.heads * self.head_size
        q = (self.q_proj(query) * (self.head_size**-0.5)).reshape([-1, *heads]).transpose([1, 0, 2])
        keys = self.k_proj.weight.reshape([size, *heads]).transpose([1, 2, 0])
        values = self.v_proj.weight.reshape([size, *heads]).transpose([1, 0, 2])
        products = paddle.matmul(paddle.matmul(q, keys).transpose([1, 0, 2]), hidden, transpose_y=True)
        weights = F.softmax(products + mask.squeeze(2).astype(products.dtype))
        summed = paddle.matmul(weights, hidden).transpose([1, 0, 2])
        # The bias before the heads are joined: oneDNN's bf16 passes add it to the wrong shape after that.
        attended = paddle.matmul(summed, values).transpose([1, 0, 2]) + self.v_proj.bias.reshape(heads)
        return self.out_proj(attended.reshape([-1, 1, size]))

    def _split(self, states: Tensor) -> Tensor:
        """Reshape `[batch, length, size]` into `[batch, heads, length, head_size]`."""
        return states.reshape([0, 0, self.heads, self.head_size]).transpose([0, 2, 1, 3])
