"""A loss of a plugin: `--loss squared_hinge`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paddle_ranker.training.losses.loss_registry import LOSSES, Loss

if TYPE_CHECKING:
    from paddle import Tensor


def squared_hinge(logits: Tensor, relevant: Any, margin: float) -> Tensor:
    """Return the mean of max(0, margin - s l)^2 with s = 1 for a relevant title, else -1."""
    import paddle

    signs = paddle.to_tensor(2.0 * relevant - 1.0, dtype="float32")
    violations = paddle.clip(margin - signs * logits, min=0.0)  # relu would turn NaN into 0
    return paddle.square(violations).mean()


LOSSES.add("squared_hinge", Loss(squared_hinge, "max(0, margin - s l)^2", "pairs with noisy labels", margin=1.0))
