"""The network as it is, run by Paddle operation by operation: for training, and where nothing was exported."""

from __future__ import annotations

import numpy as np
import paddle

from paddle_ranker.model.network import RankerNetwork


class DygraphEngine:
    """Run the network as it is, without dropout and gradients."""

    name = "dygraph"
    precision = "fp32"

    def __init__(self, network: RankerNetwork):
        self.network = network

    def logits(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        """Return float32 `[batch]` logits of int64 `[batch, length]` ids and token types."""
        training = self.network.training
        self.network.eval()
        try:
            with paddle.no_grad():
                return self.network(paddle.to_tensor(input_ids), paddle.to_tensor(token_type_ids)).numpy()
        finally:
            if training:
                self.network.train()
