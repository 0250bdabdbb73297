"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest

from paddle_ranker.evaluation import mean_margin_loss
from paddle_ranker.losses import (
    DEFAULT_MARGINS,
    PAIRWISE_LOSSES,
    SHIFT_INVARIANT,
    margin_for,
    margin_on_logits,
    margin_on_probabilities,
    rank_net,
    rank_net_and_cross_entropy,
)

pytestmark = pytest.mark.unit


def tensors() -> tuple[paddle.Tensor, paddle.Tensor]:
    positive = paddle.to_tensor([2.0, 0.0, -1.0], stop_gradient=False)
    return positive, paddle.to_tensor([0.5, 0.0, 1.0])


def test_margin_on_logits() -> None:
    positive, negative = tensors()
    loss = margin_on_logits(positive, negative, 1.0)  # differences 1.5, 0, -2 -> 0, 1, 3
    assert float(loss) == pytest.approx(4 / 3, abs=1e-6)
    loss.backward()
    assert positive.grad.numpy().tolist() == pytest.approx([0, -1 / 3, -1 / 3])


def test_margin_on_probabilities() -> None:
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    differences = [sigmoid(2) - sigmoid(0.5), 0.0, sigmoid(-1) - sigmoid(1)]
    expected = sum(max(0.0, 0.2 - d) for d in differences) / 3
    assert float(margin_on_probabilities(*tensors(), 0.2)) == pytest.approx(expected, abs=1e-6)


def test_rank_net() -> None:
    expected = sum(math.log1p(math.exp(-d)) for d in (1.5, 0.0, -2.0)) / 3
    assert float(rank_net(*tensors(), 0.0)) == pytest.approx(expected, abs=1e-6)


def test_rank_net_and_cross_entropy() -> None:
    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    order = sum(softplus(-d) for d in (1.5, 0.0, -2.0)) / 3
    labels = sum(softplus(-p) + softplus(n) for p, n in ((2.0, 0.5), (0.0, 0.0), (-1.0, 1.0))) / 6
    assert float(rank_net_and_cross_entropy(*tensors(), 0.0)) == pytest.approx(order + labels, abs=1e-6)


@pytest.mark.parametrize("name", sorted(PAIRWISE_LOSSES))
def test_what_is_called_shift_invariant_is(name: str) -> None:
    positive, negative = tensors()
    loss, margin = PAIRWISE_LOSSES[name], DEFAULT_MARGINS[name]
    moved = float(loss(positive + 3.0, negative + 3.0, margin))
    assert (moved == pytest.approx(float(loss(positive, negative, margin)), abs=1e-6)) is (name in SHIFT_INVARIANT)


@pytest.mark.parametrize("name", sorted(PAIRWISE_LOSSES))
def test_a_logit_that_is_not_a_number_shows_in_the_loss(name: str) -> None:
    positive, negative = tensors()
    assert math.isnan(float(PAIRWISE_LOSSES[name](positive * float("nan"), negative, 1.0)))


def test_only_the_margin_on_probabilities_loses_its_gradient_where_scores_saturate() -> None:
    gradients = {}
    for loss, margin in ((margin_on_logits, 1.0), (margin_on_probabilities, 0.2)):
        positive = paddle.to_tensor([-12.0], stop_gradient=False)
        loss(positive, paddle.to_tensor([12.0]), margin).backward()
        gradients[loss.__name__] = abs(float(positive.grad))
    assert gradients["margin_on_logits"] == pytest.approx(1.0)
    assert gradients["margin_on_probabilities"] < 1e-4


def test_the_margin_follows_the_loss() -> None:
    assert margin_for("margin_probability", None) == 0.2
    assert margin_for("margin_logit", None) == 1.0
    assert margin_for("margin_logit", 0.1) == 0.1


def test_mean_margin_loss_of_a_file() -> None:
    queries = ["a", "a", "b", "a", "b"]
    labels = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    logits = np.array([2.0, 1.5, 0.0, 3.0, 9.0])
    # query a: 2.0 against 1.5 and 3.0, margin 1: 0.5 and 2; query b has no negative
    assert mean_margin_loss(queries, labels, logits, 1.0, probabilities=False) == pytest.approx(1.25)
    assert math.isnan(mean_margin_loss(["a"], np.ones(1), np.ones(1), 1.0, probabilities=True))
