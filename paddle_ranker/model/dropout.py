"""Dropout whose masks NumPy draws on a CPU, where that is several times as fast as Paddle's own dropout.

A training step of a small encoder spends a tenth of its time on Paddle's dropout (a Mersenne Twister and a division
for each value). Here a value costs 16 bits of a fast generator and a comparison.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from paddle_ranker.encoding.columns import Array

if TYPE_CHECKING:
    from paddle.autograd import PyLayerContext

_STEPS = 1 << 16  # a probability is rounded to so many


class Masks:
    """The source of a network's dropout masks. `restart` it before each forward pass in training."""

    def __init__(self) -> None:
        self._bits = np.random.SFC64(0)

    def restart(self) -> None:
        """Start a sequence of masks that depends on Paddle's random state (`paddle.seed`) alone."""
        if _on_cpu():
            self._bits = np.random.SFC64(int(paddle.randint(0, 2**31 - 1, [1])))

    def apply(self, hidden: Tensor, probability: float) -> Tensor:
        """Set values to 0 with `probability`, and divide the others by the share that is kept on average."""
        if not _on_cpu():
            return F.dropout(hidden, probability, mode="upscale_in_train")
        dropped = round(probability * _STEPS)
        size = int(np.prod(hidden.shape))
        kept = self._bits.random_raw((size + 3) // 4).view(np.uint16)[:size] >= dropped
        return _Masked.apply(hidden, kept, _STEPS / (_STEPS - dropped))


class _Masked(PyLayer):
    """Multiply by a mask, stored for the backward pass in one byte a value; a product would store both its factors."""

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
