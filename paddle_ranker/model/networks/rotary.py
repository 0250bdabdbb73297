"""Rotary positions: queries and keys are rotated by angles that grow with their positions (Su et al., 2021)."""

from __future__ import annotations

import numpy as np
import paddle
from paddle import Tensor

from paddle_ranker.array_types import Array


def rotary_table(positions: int, size: int, theta: float) -> Array:
    """Return a table of rotary positions, `[positions, size]` float32: in each row the cosines, then the sines.

    Networks look angles up, since OpenVINO in bf16 rounds floats computed from positions.

    size: size of a head's query or key; even
    theta: base of the angles
    """
    inverse = (1.0 / theta ** (np.arange(0, size, 2, dtype=np.float32) / size)).astype(np.float32)
    angles = np.arange(positions, dtype=np.float32)[:, None] * inverse
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def angles_of(table: Tensor, positions: Tensor) -> Tensor:
    """Look up the cosines and sines of `positions`, `[length]`; return both as `[2, 1, length, 1, size]`."""
    parts = paddle.split(paddle.gather(table, positions), 2, axis=-1)
    return paddle.stack([paddle.concat([part, part], axis=-1) for part in parts]).unsqueeze([1, 3])


def rotated(states: Tensor, angles: Tensor) -> Tensor:
    """Rotate states, `[batch, length, heads, size]`; `angles` is the result of `angles_of` for their positions."""
    half = states.shape[-1] // 2
    turned = paddle.concat([-states[..., half:], states[..., :half]], axis=-1)
    return states * angles[0].astype(states.dtype) + turned * angles[1].astype(states.dtype)
