"""Dropout that draws its masks with NumPy on a CPU, several times faster than Paddle's dropout.

Paddle's dropout (a Mersenne Twister and a division per value) takes a tenth of a small encoder's training step. This
dropout takes 16 bits of a fast generator and a comparison per value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from paddle_ranker.array_types import Array

if TYPE_CHECKING:
    from paddle.autograd import PyLayerContext

_STEPS = 1 << 16  # probabilities are rounded to multiples of 1 / _STEPS


class Masks:
    """Source of a network's dropout masks. Call `restart` before each forward pass in training."""

    def __init__(self) -> None:
        self._bits = np.random.SFC64(0)

    def restart(self) -> None:
        """Start a sequence of masks that depends only on Paddle's random state (`paddle.seed`).

        On a GPU, Paddle draws the masks, and this method does nothing.
        """
        if _on_cpu():
            self._bits = np.random.SFC64(_drawn(2**31 - 1))

    @staticmethod
    def draw() -> int:
        """Draw a seed from Paddle's random state; on a GPU, without synchronizing with the device."""
        if _on_cpu():
            return _drawn(2**30)
        return int(paddle.framework.core.default_cpu_generator().random() % 2**30)

    def apply(self, hidden: Tensor, probability: float) -> Tensor:
        """Set each value to 0 with `probability`, and divide the others by 1 - `probability`."""
        if not _on_cpu():
            return F.dropout(hidden, probability, mode="upscale_in_train")
        dropped = round(probability * _STEPS)
        size = int(np.prod(hidden.shape))
        kept = self._bits.random_raw((size + 3) // 4).view(np.uint16)[:size] >= dropped
        return _Masked.apply(hidden, kept, _STEPS / (_STEPS - dropped))


def _drawn(below: int) -> int:
    """Draw an integer from 0 to below `below` from Paddle's random state."""
    # NumPy 2.4 and later refuse `int` of an array with a dimension, which Paddle makes of the tensor.
    return int(paddle.randint(0, below, [1]).item())


class _Masked(PyLayer):
    """Product of a tensor and a mask, which keeps one byte per value for the backward pass instead of both factors."""

    @staticmethod
    def forward(ctx: PyLayerContext, hidden: Tensor, kept: Array, scale: float) -> Tensor:
        ctx.kept, ctx.scale = kept, scale
        return hidden * _mask(kept, scale, hidden)

    @staticmethod
    def backward(ctx: PyLayerContext, gradient: Tensor) -> Tensor:
        return gradient * _mask(ctx.kept, ctx.scale, gradient)


def _mask(kept: Array, scale: float, like: Tensor) -> Tensor:
    return paddle.to_tensor((kept * np.float32(scale)).reshape(like.shape))


class Dropout(nn.Layer):
    """Dropout with masks from `masks` in training; the identity otherwise."""

    def __init__(self, probability: float, masks: Masks):
        super().__init__()
        self.probability, self._masks = probability, masks

    def forward(self, hidden: Tensor) -> Tensor:
        return self._masks.apply(hidden, self.probability) if self.training and self.probability else hidden


def _on_cpu() -> bool:
    return bool(paddle.device.get_device() == "cpu")
