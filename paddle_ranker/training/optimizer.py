"""The optimizer of a training run: AdamW, the learning rate of each part, its schedule, and the gradient's norm."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Callable

import paddle
from paddle import Tensor, nn


def linear(done: float) -> float:
    """Return the factor that falls linearly from 1 to 0 as `done` goes from 0 to 1."""
    return 1.0 - done


def cosine(done: float) -> float:
    """Return the factor that falls from 1 to 0 along half a cosine (Loshchilov and Hutter, 2017, without restarts)."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def constant(done: float) -> float:
    """Return 1."""
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {"linear": linear, "cosine": cosine, "constant": constant}


def rate_factor(step: int, total_steps: int, warmup_proportion: float, decay: Callable[[float], float]) -> float:
    """Return the factor of the learning rate: it rises from 0 to 1 over the warm-up, then follows `decay`."""
    warmup = int(warmup_proportion * total_steps)
    if step < warmup:
        return step / warmup
    return decay(min(1.0, (step - warmup) / max(1, total_steps - warmup)))


_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")


def layer_factor(name: str, layers: int, layer_decay: float) -> float:
    """Return `layer_decay` to the power of a parameter's distance from the head (Clark et al., 2020, ELECTRA).

    The top layer is at distance 1, the embeddings at `layers` + 1, parameters outside the encoder's stack at 0.
    """
    match = _LAYER.search(name)
    if match:
        return float(layer_decay ** (layers - int(match.group(1))))
    return float(layer_decay ** (layers + 1)) if "embeddings." in name and "match_embeddings." not in name else 1.0


def make_optimizer(
    network: nn.Layer,
    *,
    learning_rate: float,
    part_factors: Mapping[str, float],
    layer_decay: float,
    weight_decay: float,
    warmup_proportion: float,
    schedule: str,
    total_steps: int,
) -> tuple[paddle.optimizer.AdamW, paddle.optimizer.lr.LambdaDecay]:
    """Return AdamW over the network's trainable parameters, and its learning rate schedule.

    Args:
        learning_rate: the maximum.
        part_factors: a dict from a prefix of parameter names to the factor of their learning rate.
        layer_decay: see `layer_factor`; 1 is no decay. It does not apply to parameters of `part_factors`.
        weight_decay: applied to matrices only, not to biases and LayerNorm.
        schedule: a name in `SCHEDULES`.
    """
    decay = SCHEDULES[schedule]
    rates = paddle.optimizer.lr.LambdaDecay(
        learning_rate, lambda step: rate_factor(step, total_steps, warmup_proportion, decay)
    )
    trained = [(name, p) for name, p in network.named_parameters() if not p.stop_gradient]
    depths = [int(match.group(1)) for name, _ in trained if (match := _LAYER.search(name))]
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in trained:
        prefix = next((part for part in part_factors if name.startswith(f"{part}.")), None)
        factor = layer_factor(name, max(depths, default=-1) + 1, layer_decay)
        groups.setdefault(factor if prefix is None else part_factors[prefix], []).append(parameter)
    decayed = {p.name for _, p in trained if p.ndim > 1}
    optimizer = paddle.optimizer.AdamW(
        learning_rate=rates,
        parameters=[{"params": members, "learning_rate": factor} for factor, members in groups.items()],
        weight_decay=weight_decay,
        apply_decay_param_fun=lambda name: name in decayed,
    )
    return optimizer, rates


def gradients_of(network: nn.Layer) -> list[Tensor]:
    """Return the gradients of the trainable parameters after a backward pass."""
    return [p.grad for p in network.parameters() if not p.stop_gradient and p.grad is not None]


@paddle.no_grad()
def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of all gradients as one vector.

    Paddle's optimizer would clip each parameter group by its own norm. The product of a row and a column is some forty
    times as fast as `paddle.linalg.norm` on a CPU.
    """
    squares = [paddle.matmul(g.reshape([1, -1]), g.reshape([-1, 1])).reshape([1]) for g in gradients]
    return math.sqrt(float(paddle.add_n(squares))) if squares else 0.0


@paddle.no_grad()
def scale_gradients(gradients: Sequence[Tensor], factor: float) -> None:
    """Multiply the gradients by `factor`, in place."""
    if factor != 1.0:
        for gradient in gradients:
            gradient.scale_(factor)
