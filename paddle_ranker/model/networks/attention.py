"""Scaled dot-product attention (Vaswani et al., 2017), by a fused kernel if the GPU has one.

In half precision on NVIDIA GPUs since Ampere, the kernel FlashAttention (Dao, 2023) never writes the matrix of weights.
Without the kernel, mixed precision writes the matrix in half precision and again in fp32 for the softmax, and keeps it
for the backward pass. Paddle 2.6 adds a projection's bias in fp32, so it uses the kernel only if projections have none.
"""

from __future__ import annotations

import functools
from typing import Callable

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from paddle_ranker.array_types import Array
from paddle_ranker.model.networks.dropout import Dropout, Masks
from paddle_ranker.notes import note

# Added to products of masked keys, as in PaddleNLP; exp(-1e4) is exactly 0 in float32, so padding changes no score.
MASKED = -1e4
_HALF = (paddle.float16, paddle.bfloat16)
_LARGEST_HEAD = 128  # the backward pass of larger heads exists for A100 and H100 alone
_TOLERANCE = 0.03  # above the error of bfloat16, below the error of attention that ignores the mask


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int, dropout: Dropout) -> Tensor:
    """Compute attention; return the attended values, `[batch, queries, width]`.

    q: queries, `[batch, queries, width]`; their products with keys are divided by the root of a head's size
    k, v: keys and values, `[batch, length, width]`
    mask: added to the products of queries and keys, `[1 or batch, 1 or heads, 1 or queries, length]`
    heads: number of heads, a divisor of `width`
    dropout: dropout of the weights
    """
    compute = _fused if _has_kernel(q, heads, mask) else _formula
    return compute(q, k, v, mask, heads, dropout)


def _formula(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int, dropout: Dropout) -> Tensor:
    width = q.shape[-1]
    shape = [0, 0, heads, width // heads]
    q = q * (width // heads) ** -0.5  # before the reshape: Paddle Inference on a CPU fuses it with the projection
    q, k, v = (states.reshape(shape).transpose([0, 2, 1, 3]) for states in (q, k, v))
    products = paddle.matmul(q, k, transpose_y=True)
    weights = dropout(F.softmax(products + mask.astype(products.dtype)))
    return paddle.matmul(weights, v).transpose([0, 2, 1, 3]).reshape([0, 0, width])


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: int, dropout: Dropout) -> Tensor:
    width = q.shape[-1]
    mask = mask.astype(q.dtype).expand([q.shape[0], mask.shape[1], q.shape[1], k.shape[1]])
    split = (states.reshape([0, 0, heads, width // heads]) for states in (q, k, v))
    attended = F.scaled_dot_product_attention(*split, mask, dropout.probability, training=dropout.training)
    return attended.reshape([0, 0, width])


def _has_kernel(q: Tensor, heads: int, mask: Tensor) -> bool:
    if not paddle.in_dynamic_mode() or q.dtype not in _HALF or not _is_on_gpu(q):
        return False
    # The kernel returns no gradient of the mask, which MPNet's biases need.
    size = q.shape[-1] // heads
    return mask.stop_gradient and size % 8 == 0 and size <= _LARGEST_HEAD and _is_right(q.dtype, size)


def _is_on_gpu(states: Tensor) -> bool:
    return bool(states.place.is_gpu_place()) and _capability() >= (8, 0)


@functools.cache
def _capability() -> tuple[int, int]:
    major, minor = paddle.device.cuda.get_device_capability()
    return major, minor


@functools.cache
def _is_right(dtype: paddle.dtype, size: int) -> bool:
    """Return whether the fused kernel's values and gradients are close to those of `_formula` on a padded batch.

    dtype: type of the queries, keys and values
    size: width of a head

    Builds of Paddle have different kernels. A kernel that fails or is wrong is reported once and not used.
    """
    rng = np.random.default_rng(0)

    def random(length: int) -> Tensor:
        return paddle.to_tensor(rng.standard_normal([2, length, 2 * size], "float32")).astype(dtype)

    differences = []
    try:
        with paddle.amp.auto_cast(False), paddle.enable_grad():
            for queries in (130, 20, 1):  # more than one block of the kernel; fewer than keys; one query
                values = [random(queries), random(130), random(130), random(queries)]
                hidden = rng.random([2, 1, queries, 130]) < np.array([0.0, 0.5]).reshape([2, 1, 1, 1])
                mask = paddle.to_tensor(np.where(hidden, np.float32(-1e4), np.float32(0)))
                computed = _with_gradients(_fused, values, mask)
                expected = _with_gradients(_formula, [states.astype("float32") for states in values], mask)
                differences += [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(computed, expected)]
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        note(f"attention without a fused kernel: Paddle's fails here ({str(error).strip().splitlines()[-1]})")
        return False
    largest = float(np.max(differences))
    if not largest <= _TOLERANCE:  # also if it is NaN
        note(f"attention without a fused kernel: Paddle's differs from the formula by {largest:.2g} of its values")
        return False
    return True


def _with_gradients(
    compute: Callable[[Tensor, Tensor, Tensor, Tensor, int, Dropout], Tensor], values: list[Tensor], mask: Tensor
) -> list[Array]:
    """Return the output of `compute`, and the gradients of queries, keys and values, as arrays.

    compute: `_fused` or `_formula`
    values: queries, keys, values, and last the gradient of the output
    """
    q, k, v, gradient = (states.detach() for states in values)
    for states in (q, k, v):
        states.stop_gradient = False
    output = compute(q, k, v, mask, 2, Dropout(0.0, Masks()))
    return [tensor.astype("float32").numpy() for tensor in (output, *paddle.grad(output, [q, k, v], gradient))]
