"""Dropout drawn by NumPy: shares, scale, gradients and random state."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddle_ranker.model.networks.bert import Attention
from paddle_ranker.model.networks.dropout import Dropout, Masks

pytestmark = pytest.mark.unit


def masks(seed: int = 1) -> Masks:
    paddle.seed(seed)
    made = Masks()
    made.restart()
    return made


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_the_share_and_the_mean(probability: float) -> None:
    dropped = Dropout(probability, masks())(paddle.ones([1000, 1000])).numpy()
    assert (dropped == 0).mean() == pytest.approx(probability, abs=0.002)  # four deviations
    assert np.unique(dropped).tolist() == pytest.approx([0.0, 1 / (1 - probability)], rel=2e-5)
    assert dropped.mean() == pytest.approx(1.0, abs=0.004)
    by_place = dropped.mean(axis=0)  # no column is favoured
    assert by_place.std() == pytest.approx(np.sqrt(probability / (1 - probability) / 1000), rel=0.1)


def test_the_gradient_passes_where_the_value_does() -> None:
    x = paddle.ones([3, 5, 7], dtype="float32")
    x.stop_gradient = False
    dropped = Dropout(0.5, masks())(x)
    dropped.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), dropped.numpy())


def test_masks_follow_from_the_seed_and_go_on_from_layer_to_layer() -> None:
    x = paddle.ones([64])
    source = masks(3)
    first, second = Dropout(0.5, source)(x).numpy(), Dropout(0.5, source)(x).numpy()
    source = masks(3)
    np.testing.assert_array_equal(Dropout(0.5, source)(x).numpy(), first)
    np.testing.assert_array_equal(Dropout(0.5, source)(x).numpy(), second)
    assert not np.array_equal(first, second) and not np.array_equal(Dropout(0.5, masks(4))(x).numpy(), first)


def test_nothing_is_dropped_in_evaluation_or_at_probability_0() -> None:
    layer = Dropout(0.5, masks())
    layer.eval()
    assert (layer(paddle.ones([100])) == 1).all() and (Dropout(0.0, masks())(paddle.ones([100])) == 1).all()


def test_attention_is_paddles() -> None:
    paddle.seed(1)
    theirs, ours = paddle.nn.MultiHeadAttention(8, 2), Attention(8, 2, 0.0, masks())
    ours.set_state_dict(theirs.state_dict())
    x = paddle.randn([3, 5, 8])
    mask = paddle.to_tensor(np.where(np.arange(5) < 4, 0.0, -1e4).astype("float32")).reshape([1, 1, 1, 5])
    np.testing.assert_allclose(ours(x, x, mask).numpy(), theirs(x, x, x, mask).numpy(), atol=1e-6)
    np.testing.assert_allclose(ours(x[:, :1], x, mask).numpy(), theirs(x, x, x, mask)[:, :1].numpy(), atol=1e-6)
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
