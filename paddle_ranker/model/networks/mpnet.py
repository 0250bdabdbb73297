"""MPNet: BERT whose attention has biases by relative positions, the same in all layers (Song et al., 2020)."""

from __future__ import annotations

import math
from typing import Optional

import numpy as np
import paddle
from paddle import Tensor, nn

from paddle_ranker.encoding.columns import Array
from paddle_ranker.model.config import EncoderConfig
from paddle_ranker.model.encoder import Encoder

BUCKETS, _FARTHEST = 32, 128  # as transformers has them, whatever the configuration


class MPNetEncoder(Encoder):
    """MPNet's encoder."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        self._buckets = relative_buckets(config.max_position_embeddings)

    def _make_layers(self) -> nn.Layer:
        layers = super()._make_layers()
        layers.relative_attention_bias = nn.Embedding(BUCKETS, self.config.num_attention_heads)
        return layers

    def _embed(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        # Not super(), which Paddle 2.6 does not find in a network that it makes static.
        hidden, mask = Encoder._embed(self, input_ids, token_type_ids, extra)
        # All numbers are tensors of integers: with Python's, an ONNX file computes in floats, which bf16 rounds.
        places = paddle.cumsum(paddle.ones_like(input_ids[0]), axis=0)  # a length that stays free when exported
        apart = places.unsqueeze(1) - places.unsqueeze(0)
        middle = paddle.full([1], len(self._buckets) // 2, "int64")
        buckets = paddle.gather(paddle.to_tensor(self._buckets), apart.reshape([-1]) + middle)
        biases = self.encoder.relative_attention_bias(buckets.reshape(paddle.shape(apart)))
        return hidden, mask + biases.transpose([2, 0, 1]).unsqueeze(0)

    def pooled(self, input_ids: Tensor, token_type_ids: Tensor, extra: Optional[Tensor] = None) -> Tensor:
        """Return the pooled output of the first token, `[batch, hidden]`; arguments as in `forward`."""
        hidden, mask = self._embed(input_ids, token_type_ids, extra)
        hidden = self._through(self.encoder.layers[:-1], hidden, mask)
        return self.pooler(self.encoder.layers[-1](hidden, mask[:, :, :1], first_token_only=True)[:, 0])


def relative_buckets(positions: int) -> Array:
    """Return the bucket of each relative position, `[2 positions - 1]`, from a token behind the other to one before.

    Half the buckets are of tokens behind; near tokens have one each, farther ones share them by logarithms.
    """
    apart = np.arange(1 - positions, positions)  # the place of the query's token less that of the key's
    distance, half = np.abs(apart), BUCKETS // 2
    near = half // 2
    shares = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(near))
    far = near + (shares / np.float32(math.log(_FARTHEST / near)) * np.float32(half - near)).astype(np.int64)
    found = np.where(distance < near, distance, np.minimum(far, half - 1))
    return np.asarray(found + half * (apart < 0), np.int64)
