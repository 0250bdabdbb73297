"""The network as it is, run by Paddle operation by operation: for training, and where nothing was exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import paddle

from paddle_ranker.encoding.columns import Arrays
from paddle_ranker.model.signature import RANKER, Signature
from paddle_ranker.scoring.engines.inputs import InputLimits


class DygraphEngine:
    """Run the network as it is, without dropout and gradients.

    Args:
        network: takes the signature's inputs in their order; returns one tensor or several. Its `configs` are those of
            the encoders in it.
        signature: what it takes.
        outputs: what it returns, in its order; default: the output that scores are made of alone.
    """

    name = "dygraph"
    precision = "fp32"

    def __init__(self, network: Any, signature: Signature = RANKER, outputs: Optional[Sequence[str]] = None):
        self.network = network
        self.limits = InputLimits(signature, network.configs)
        self._inputs = signature.input_names
        self._outputs = tuple(outputs or (signature.read,))

    def run(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Return the network's outputs by name."""
        training = self.network.training
        self.network.eval()
        try:
            with paddle.no_grad():
                found = self.network(*(paddle.to_tensor(arrays[name]) for name in self._inputs))
        finally:
            if training:
                self.network.train()
        tensors = found if isinstance(found, (tuple, list)) else (found,)
        return {name: tensor.numpy() for name, tensor in zip(self._outputs, tensors)}
