"""Mixed precision: matrix products in half precision, all other operations in single, and a dynamic loss scale.

Paddle has no half-precision kernels on a CPU. On a CPU, mixed precision is emulated: the products' inputs and outputs,
and so their gradients, are rounded to half precision but computed in single. That gives a GPU's values, not its speed.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Callable, Optional

import paddle
from paddle import Tensor, nn

from paddle_ranker.options import note

GOOD_STEPS = 2000  # steps without an overflow after which the scale doubles
SMALLEST_SCALE = 2.0**-14  # below, gradients that are still not finite have diverged
LARGEST_SCALE = 2.0**40  # some 30 halvings above the range of half precision: a larger scale would only skip steps


class Precision:
    """Precision of a training: single, or mixed with a loss scale.

    Args:
        network: the network to train.
        use_amp: use mixed precision.
        dtype: `float16`, `bfloat16`, or `auto`: bfloat16 on a CPU and on a device that has it, else float16.
        scale_loss: the first loss scale. It is halved at every overflow, and doubled after `GOOD_STEPS` steps without
            an overflow.

    Attributes:
        scale: the loss scale.
        skipped: number of steps that were skipped because their gradients overflowed.
    """

    def __init__(self, network: nn.Layer, *, use_amp: bool, dtype: str = "auto", scale_loss: float = 32768.0):
        on_cpu = paddle.device.get_device() == "cpu"
        has_bfloat16 = on_cpu or paddle.amp.is_bfloat16_supported()
        self.dtype = ("bfloat16" if has_bfloat16 else "float16") if dtype == "auto" else dtype
        self.use_amp = use_amp
        self.scale = scale_loss if use_amp else 1.0
        self.skipped = 0
        self._good_steps = 0
        self._emulated = use_amp and on_cpu
        self._remove_hooks: list[Callable[[], None]] = []
        if self._emulated:
            for layer in network.sublayers():
                if isinstance(layer, nn.Linear):
                    self._remove_hooks.append(layer.register_forward_pre_hook(self._round_inputs).remove)
                    self._remove_hooks.append(layer.register_forward_post_hook(self._round_output).remove)

    def close(self) -> None:
        """Remove the hooks that emulate mixed precision on a CPU."""
        for remove in self._remove_hooks:
            remove()

    @property
    def report(self) -> str:
        """Return one line for the user about mixed precision; in single precision, return ""."""
        if not self.use_amp:
            return ""
        emulated = f": a CPU has no {self.dtype} kernels, so values are rounded to it and computed in float32"
        return f"mixed precision, {self.dtype}, first loss scale {self.scale:g}{emulated if self._emulated else ''}"

    def forward(self) -> AbstractContextManager[None]:
        """Return the context manager in which to compute the loss."""
        if not self.use_amp or self._emulated:
            return nullcontext()
        context: AbstractContextManager[None] = paddle.amp.auto_cast(True, level="O1", dtype=self.dtype)
        return context

    def update(self, norm: float) -> bool:
        """Adapt the loss scale after a step with gradients of norm `norm`; return whether the norm is finite."""
        if math.isfinite(norm):
            self._good_steps += 1
            if self.use_amp and self._good_steps % GOOD_STEPS == 0:
                self.scale = min(2.0 * self.scale, LARGEST_SCALE)
            return True
        self._good_steps = 0
        self.skipped += 1
        if self.use_amp:
            self.scale /= 2.0
        return False

    @property
    def diverged(self) -> bool:
        """Whether gradients that are not finite mean that the training has diverged.

        They do in single precision, and in mixed precision if the loss scale is too small to be their cause.
        """
        return not self.use_amp or self.scale < SMALLEST_SCALE

    def state(self) -> dict[str, float]:
        is_float16 = float(self.dtype == "float16")
        return {"scale": self.scale, "good_steps": self._good_steps, "skipped": self.skipped, "float16": is_float16}

    def restore(self, state: dict[str, float]) -> None:
        """Restore what `state` returned, without the loss scale if it belongs to another half-precision type."""
        self.skipped = int(state["skipped"])
        was_float16 = bool(state["float16"])
        if self.use_amp and was_float16 != (self.dtype == "float16"):
            note(f"the run continues in {self.dtype}, the type that this device has, and with the first loss scale")
            return
        self.scale, self._good_steps = float(state["scale"]), int(state["good_steps"])

    def _round(self, tensor: Tensor) -> Tensor:
        # Casting to half precision and back also rounds the gradient in the backward pass.
        return tensor.astype(self.dtype).astype("float32")

    def _round_inputs(self, layer: nn.Layer, inputs: tuple[Tensor, ...]) -> Optional[tuple[Tensor, ...]]:
        return tuple(self._round(tensor) for tensor in inputs) if layer.training else None

    def _round_output(self, layer: nn.Layer, inputs: tuple[Tensor, ...], output: Tensor) -> Optional[Tensor]:
        return self._round(output) if layer.training else None
