"""LoRA (Hu et al., 2022): train a matrix of low rank that is added to a frozen matrix.

The encoder's own parameters get no gradients and no optimizer moments, which otherwise take three times the memory of
the weights. A saved model has the sums of both matrices, so that programs that load it need no support for adapters.
"""

from __future__ import annotations

import paddle
from paddle import Tensor, nn

from paddle_ranker.errors import UsageError

_SCALE = 2.0  # alpha / rank in the paper
# Attributes that hold adapters -> whether the matrix that they adapt is `[outputs, inputs]`; Paddle's own is transposed
_ADAPTERS = {"adapter": True, "addition": False}
_NAMES = [[name] for name in _ADAPTERS]
_WHOLE = "pooler."  # part of an encoder that is trained as a whole, since it may be new


class Adapter(nn.Layer):
    """Product of two narrow matrices, added to a frozen matrix; the product starts as zeros, since `up` does."""

    def __init__(self, inputs: int, outputs: int, rank: int):
        super().__init__()
        draw = nn.initializer.Uniform(-(inputs**-0.5), inputs**-0.5)
        self.down = self.create_parameter([inputs, rank], default_initializer=draw)
        self.up = self.create_parameter([rank, outputs], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, states: Tensor) -> Tensor:
        return paddle.matmul(paddle.matmul(states, self.down), self.up) * _SCALE


def add_adapters(encoder: nn.Layer, rank: int) -> None:
    """Freeze an encoder's parameters except its pooler's, and add an adapter of rank `rank` to each of its matrices.

    Raises `UsageError` if the encoder has no matrices between its layers' states.
    """
    layers = [
        layer
        for name, layer in encoder.named_sublayers()
        if (isinstance(layer, nn.Linear) or _has_place(layer)) and not name.startswith(_WHOLE)
    ]
    if not layers:
        raise UsageError(
            f"--lora_rank {rank}: adapters are for encoders with linear layers, this is a "
            f"{encoder.config.model_type}: leave it out, and train all parameters"
        )
    for name, parameter in encoder.named_parameters():
        parameter.stop_gradient = not name.startswith(_WHOLE)
    for layer in layers:
        sizes = layer.weight.shape
        if _has_place(layer):
            layer.adapter = Adapter(sizes[1], sizes[0], rank)
        else:
            layer.addition = Adapter(sizes[0], sizes[1], rank)
            layer.register_forward_post_hook(_added)


def _has_place(layer: nn.Layer) -> bool:
    """Return whether a layer adds an adapter by itself, as those of Qwen3 do; its matrix is `[outputs, inputs]`."""
    return hasattr(layer, "adapter")


def _added(layer: nn.Layer, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + layer.addition(inputs[0])


def weight_of(layer: nn.Linear) -> Tensor:
    """Return a layer's matrix, `[inputs, outputs]`, with its adapter's product if it has one."""
    adapter = getattr(layer, "addition", None)
    return layer.weight if adapter is None else layer.weight + paddle.matmul(adapter.down, adapter.up) * _SCALE


def merged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add each adapter's product to the matrix that it adapts; return all parameters by name.

    state: the parameters by name, adapters included; the result has no adapters
    """
    parameters = {name: value for name, value in state.items() if name.split(".")[-2:-1] not in _NAMES}
    for name, up in state.items():
        layer, _, part = name.rpartition(".")
        layer, _, adapter = layer.rpartition(".")
        if part == "up" and adapter in _ADAPTERS:
            product = paddle.matmul(state[f"{layer}.{adapter}.down"], up).detach() * _SCALE
            weight = state[f"{layer}.weight"].detach()
            parameters[f"{layer}.weight"] = weight + (product.transpose([1, 0]) if _ADAPTERS[adapter] else product)
    return parameters
