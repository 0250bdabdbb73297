"""Attention in a band: equal to the formula over all pairs of tokens with a mask, in values, gradients and graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from paddle_ranker.model.encoders.modernbert import ModernBertConfig
from paddle_ranker.model.networks.attention import MASKED, attend
from paddle_ranker.model.networks.banded import BLOCK, attend_banded
from paddle_ranker.model.networks.dropout import Dropout, Masks
from paddle_ranker.model.networks.modernbert import ModernBertEncoder

pytestmark = pytest.mark.unit

HEADS, WIDTH = 2, 8
CASES = {  # length, window, global tokens
    "one token": (1, 3, 0),
    "one token, global": (1, 3, 1),
    "shorter than the window": (5, 64, 0),
    "each token alone": (70, 0, 0),
    "a whole block": (BLOCK, BLOCK, 0),
    "one token more than blocks": (2 * BLOCK + 1, 3, 1),
    "odd window and length": (201, 37, 2),
    "a window of several blocks": (333, 2 * BLOCK + 5, 1),
    "global beyond a block": (150, 9, BLOCK + 3),
    "all global": (70, 3, 70),
    "more global than tokens": (5, 3, 7),
}


def inputs(length: int, rows: int = 2) -> tuple[list[paddle.Tensor], paddle.Tensor]:
    """Return queries, keys and values, and a mask with padding in the middle of the first row and behind the others."""
    draw = np.random.default_rng(length)
    hidden = np.zeros([rows, 1, 1, length], np.float32)
    hidden[0, ..., length // 3 : length // 2] = MASKED
    hidden[1:, ..., length - length // 4 :] = MASKED
    states = [paddle.to_tensor(draw.standard_normal([rows, length, WIDTH], np.float32)) for _ in range(3)]
    for tensor in states:
        tensor.stop_gradient = False
    return states, paddle.to_tensor(hidden)


def by_mask(q: Any, k: Any, v: Any, mask: Any, window: int, global_tokens: int) -> paddle.Tensor:
    """Compute the formula over all pairs of tokens."""
    places = np.arange(q.shape[1])
    apart = np.abs(places[:, None] - places) > window
    is_global = places < global_tokens
    apart &= ~is_global & ~is_global[:, None]
    both = mask + paddle.to_tensor((apart * np.float32(MASKED))[None, None])
    return attend(q, k, v, both, HEADS, Dropout(0.0, Masks()))


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_formula(case: str) -> None:
    length, window, global_tokens = CASES[case]
    found = []
    for banded in (True, False):
        (q, k, v), mask = inputs(length)
        values = (
            attend_banded(q, k, v, mask, HEADS, Dropout(0.0, Masks()), window, global_tokens)
            if banded
            else by_mask(q, k, v, mask, window, global_tokens)
        )
        kept = values * (mask.reshape([2, -1, 1]) == 0).astype("float32")  # what padding returns is never used
        kept.pow(2).sum().backward()
        found.append([kept, q.grad, k.grad, v.grad])
    for ours, wanted in zip(*found):
        np.testing.assert_allclose(ours.numpy(), wanted.numpy(), atol=1e-5)


def test_local_layers_compute_a_band_of_long_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 513 tokens: 9 blocks of 64 queries, each with the keys of 3 blocks."""
    sizes: list[int] = []
    softmax = F.softmax

    def counted(products: paddle.Tensor) -> paddle.Tensor:
        sizes.append(products.size)
        return softmax(products)

    monkeypatch.setattr(F, "softmax", counted)
    config = ModernBertConfig(
        50, 16, num_hidden_layers=4, num_attention_heads=HEADS, intermediate_size=8, local_attention=16
    )
    encoder = ModernBertEncoder(config)
    encoder.eval()
    for length, local in ((20, 20 * 20), (513, 9 * BLOCK * 3 * BLOCK)):
        sizes.clear()
        ids = paddle.full([1, length], 7, "int64")
        encoder(ids, paddle.zeros_like(ids))
        assert sizes == [HEADS * count for count in (length * length, local, local, length * length)]
