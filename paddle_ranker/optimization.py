"""The optimizer of a training run: AdamW, its parameter groups and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle
from paddle import nn


def linear_warmup_decay(step: int, total_steps: int, warmup_proportion: float) -> float:
    """Return the factor on the learning rate: 0 to 1 over the warm-up, then linearly to 0 at `total_steps`."""
    warmup = int(warmup_proportion * total_steps)
    if step < warmup:
        return step / warmup
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup))


def make_optimizer(
    network: nn.Layer,
    *,
    learning_rate: float,
    new_parts: Sequence[str],
    new_parts_factor: float,
    weight_decay: float,
    warmup_proportion: float,
    total_steps: int,
    max_grad_norm: float,
) -> tuple[paddle.optimizer.AdamW, paddle.optimizer.lr.LambdaDecay]:
    """Return AdamW over the network's parameters and the schedule that drives it.

    Args:
        learning_rate: the peak rate.
        new_parts: prefixes of parameters that start from nothing; their rate is `new_parts_factor` times the peak.
        weight_decay: applied to matrices only, not to biases and LayerNorm.
        max_grad_norm: clip the gradient's global norm there; 0 does not clip.
    """
    schedule = paddle.optimizer.lr.LambdaDecay(
        learning_rate, lambda step: linear_warmup_decay(step, total_steps, warmup_proportion)
    )
    trained = [(name, p) for name, p in network.named_parameters() if not p.stop_gradient]
    new = [p for name, p in trained if name.startswith(tuple(new_parts))] if new_parts else []
    new_names = {p.name for p in new}
    groups: list[dict[str, Any]] = [{"params": [p for _, p in trained if p.name not in new_names]}]
    if new:
        groups.append({"params": new, "learning_rate": new_parts_factor})
    decayed = {p.name for _, p in trained if p.ndim > 1}
    optimizer = paddle.optimizer.AdamW(
        learning_rate=schedule,
        parameters=groups,
        weight_decay=weight_decay,
        apply_decay_param_fun=lambda name: name in decayed,
        grad_clip=nn.ClipGradByGlobalNorm(max_grad_norm) if max_grad_norm else None,
    )
    return optimizer, schedule
