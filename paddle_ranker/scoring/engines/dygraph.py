"""The network itself, which Paddle runs operation by operation: in training, and for models that are not exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import paddle
from paddle import nn

from paddle_ranker.encoding.columns import Arrays
from paddle_ranker.model.opened import RANKER_SIGNATURE, Signature
from paddle_ranker.scoring.engines.base import fastest_tokens
from paddle_ranker.scoring.engines.inputs import InputLimits


class DygraphEngine:
    """Engine that runs the network itself, without dropout and gradients.

    Args:
        network: takes the signature's inputs in their order; returns one tensor or several. Its `configs` are the
            configurations of its encoders.
        signature: names the network's inputs.
        outputs: names of the tensors that the network returns, in their order; default: `signature.read`.
    """

    name = "dygraph"
    precision = "fp32"

    def __init__(
        self, network: nn.Layer, signature: Signature = RANKER_SIGNATURE, outputs: Optional[Sequence[str]] = None
    ):
        self.network = network
        self.limits = InputLimits(signature, network.configs)
        self._inputs = signature.input_names
        self._outputs = tuple(outputs or signature.read)
        self._device = paddle.device.get_device()
        self.batch_tokens = fastest_tokens(self._device, 0)

    def run(self, arrays: Arrays) -> Arrays:
        """Return a dict from output name to array."""
        if self._device != "cpu":
            paddle.device.set_device(self._device)  # CUDA begins each thread with the first GPU
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
