"""LoRA (Hu et al., 2022): train a matrix of low rank that is added to a frozen matrix.

The encoder's own parameters get no gradients and no optimizer moments, which otherwise take three times the memory of
the weights. A saved model has the sums of both matrices, so that programs that load it need no support for adapters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import paddle
from paddle import Tensor, nn

from paddle_ranker.errors import UsageError

if TYPE_CHECKING:
    from paddle_ranker.model.bert import Encoder

_SCALE = 2.0  # alpha / rank in the paper
_ADAPTER = ".adapter."


class Adapter(nn.Layer):
    """Product of two narrow matrices, added to a frozen matrix; the product starts as zeros, since `up` does."""

    def __init__(self, inputs: int, outputs: int, rank: int):
        super().__init__()
        draw = nn.initializer.Uniform(-(inputs**-0.5), inputs**-0.5)
        self.down = self.create_parameter([inputs, rank], default_initializer=draw)
        self.up = self.create_parameter([rank, outputs], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, states: Tensor) -> Tensor:
        return paddle.matmul(paddle.matmul(states, self.down), self.up) * _SCALE


def add_adapters(encoder: Encoder, rank: int) -> None:
    """Freeze an encoder's parameters, and add an adapter of rank `rank` to each matrix of its layers.

    Raises `UsageError` if the encoder is not of the family qwen3.
    """
    from paddle_ranker.model.networks.qwen3 import Linear

    layers = [layer for layer in encoder.sublayers() if isinstance(layer, Linear)]
    if not layers:
        raise UsageError(
            f"--lora_rank {rank}: adapters are for encoders of the family qwen3, this is a "
            f"{encoder.config.model_type}: leave it out, and train all parameters"
        )
    for parameter in encoder.parameters():
        parameter.stop_gradient = True
    for layer in layers:
        outputs, inputs = layer.weight.shape
        layer.adapter = Adapter(inputs, outputs, rank)


def merged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add each adapter's product to the matrix that it adapts, `[outputs, inputs]`; return all parameters by name.

    state: the parameters by name, adapters included; the result has no adapters
    """
    parameters = {name: value for name, value in state.items() if _ADAPTER not in name}
    for name, up in state.items():
        layer, _, part = name.rpartition(_ADAPTER)
        if part == "up":
            addition = paddle.matmul(state[f"{layer}{_ADAPTER}down"], up).detach() * _SCALE
            parameters[f"{layer}.weight"] = state[f"{layer}.weight"].detach() + addition.transpose([1, 0])
    return parameters
