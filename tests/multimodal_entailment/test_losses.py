"""The losses of three classes, by hand and by other formulas."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from sklearn.utils.class_weight import compute_class_weight

from multimodal_entailment.examples import ClassLoss, class_weights, focal_losses
from paddle_ranker.errors import DataError, UsageError

pytestmark = pytest.mark.unit
LOGITS = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, -1.0], [-1.0, 3.0, 0.5], [0.3, -0.2, 1.5]], np.float32)
LABELS = np.array([0, 1, 1, 2])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_is_what_its_formula_says(gamma: float) -> None:
    p = np.exp(LOGITS)[np.arange(4), LABELS] / np.exp(LOGITS).sum(axis=1)
    losses = focal_losses(paddle.to_tensor(LOGITS), paddle.to_tensor(LABELS), gamma)
    np.testing.assert_allclose(losses.numpy(), -((1 - p) ** gamma) * np.log(p), rtol=1e-5)


def test_without_weights_and_gamma_it_is_paddles_cross_entropy() -> None:
    ours = ClassLoss(class_weights("none", [1, 2, 1]))(paddle.to_tensor(LOGITS), LABELS)
    assert float(ours) == pytest.approx(float(F.cross_entropy(paddle.to_tensor(LOGITS), paddle.to_tensor(LABELS))))
    weights = np.array([2.0, 1.0, 0.5], np.float32)
    ours = ClassLoss(weights)(paddle.to_tensor(LOGITS), LABELS)
    theirs = F.cross_entropy(
        paddle.to_tensor(LOGITS), paddle.to_tensor(LABELS).unsqueeze(-1), weight=paddle.to_tensor(weights)
    )
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    loss, tensor = ClassLoss([2.0, 1.0, 0.5], 2.0), paddle.to_tensor(LOGITS)
    whole = loss.weight(LABELS)
    parts = [(tensor[:1], LABELS[:1]), (tensor[1:], LABELS[1:])]
    summed = sum(float(loss(logits, labels)) * loss.weight(labels) / whole for logits, labels in parts)
    assert summed == pytest.approx(float(loss(tensor, LABELS)), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_sure_prediction_has_a_finite_gradient_and_not_a_number_stays_one(gamma: float) -> None:
    logits = paddle.to_tensor(np.array([[80.0, 0.0, 0.0], [0.0, 0.0, 300.0]], np.float32), stop_gradient=False)
    loss = ClassLoss([1.0, 1.0, 1.0], gamma)(logits, np.array([0, 0]))
    loss.backward()
    assert np.isfinite(logits.grad.numpy()).all() and float(loss) == pytest.approx(150.0)
    bad = LOGITS.copy()
    bad[2, 0] = np.nan
    assert math.isnan(float(ClassLoss([1.0, 1.0, 1.0], gamma)(paddle.to_tensor(bad), LABELS)))


def test_weights_of_classes() -> None:
    counts = [10, 30, 60]
    labels = np.repeat([0, 1, 2], counts)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 2]), y=labels)
    np.testing.assert_allclose(class_weights("balanced", counts), expected)
    assert class_weights("none", counts).tolist() == [1, 1, 1]
    assert class_weights("2,2,0.5", counts).tolist() == [2, 2, 0.5]
    with pytest.raises(DataError, match=r"no training examples \(\[10, 0, 60\]\)"):
        class_weights("balanced", [10, 0, 60])
    for wrong in ("balance", "1,2", "1,2,0", "1,2,nan", "1,2,-1"):
        with pytest.raises(UsageError, match="--class_weights"):
            class_weights(wrong, counts)
