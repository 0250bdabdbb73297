"""Engine dygraph: Paddle runs the network itself, operation by operation, for models that are not exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Optional

import paddle
from paddle import Tensor, nn

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.model.model_kind import RANKER_SIGNATURE, Signature
from paddle_ranker.scoring.engines.engine import fastest_tokens
from paddle_ranker.scoring.engines.inputs import InputLimits

_TYPES = {"bf16": "bfloat16", "fp16": "float16"}


class DygraphEngine:
    """Engine that runs the network itself, without dropout and gradients.

    network: takes the signature's inputs in their order; returns one tensor or several. `network.configs` are the
        configurations of the network's encoders
    signature: names the network's inputs
    outputs: names of the tensors that the network returns, in their order; default: `signature.read`
    precision: precision of matrix products: fp32, and on GPUs bf16 or fp16
    """

    name = "dygraph"

    def __init__(
        self,
        network: nn.Layer,
        signature: Signature = RANKER_SIGNATURE,
        outputs: Optional[Sequence[str]] = None,
        precision: str = "fp32",
    ):
        self.network = network
        self.limits = InputLimits(signature, network.configs)
        self._inputs = signature.input_names
        self.outputs = tuple(outputs or signature.read)
        self.precision = precision
        self._device = _device_of(network)
        self.batch_tokens = fastest_tokens(self._device, 0)

    def run(self, arrays: Arrays) -> Arrays:
        return dict(zip(self.outputs, self.call(self.network, arrays)))

    def call(self, function: Callable[..., object], arrays: Arrays) -> list[Array]:  # type: ignore[explicit-any]
        """Call `function`, the network or one of its methods, on the inputs; return its outputs that are not None."""
        if self._device != "cpu" or paddle.device.get_device() != "cpu":
            paddle.device.set_device(self._device)  # CUDA begins each thread with the first GPU
        training = self.network.training
        self.network.eval()
        try:
            with paddle.no_grad(), self._products():
                outputs = function(*(paddle.to_tensor(arrays[name]) for name in self._inputs))
        finally:
            if training:
                self.network.train()
        tensors = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return [_read(tensor) for tensor in tensors if tensor is not None]

    def _products(self) -> AbstractContextManager[None]:
        """Return the context in which matrix products have the engine's precision."""
        if self.precision == "fp32":
            return nullcontext()
        context: AbstractContextManager[None] = paddle.amp.auto_cast(True, level="O1", dtype=_TYPES[self.precision])
        return context


def _device_of(network: nn.Layer) -> str:
    """Return the device of a network's parameters; Paddle's current device may by now be that of another model."""
    place = next((parameter.place for parameter in network.parameters()), None)
    if place is None or not (place.is_gpu_place() or place.is_cpu_place()):
        return str(paddle.device.get_device())
    return f"gpu:{place.gpu_device_id()}" if place.is_gpu_place() else "cpu"


def _read(tensor: Tensor) -> Array:
    is_half = tensor.dtype in (paddle.float16, paddle.bfloat16)  # NumPy has no bfloat16
    array: Array = (tensor.astype("float32") if is_half else tensor).numpy()
    return array
