"""Schedules, learning rates by part and the gradient's norm, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest

from paddle_ranker.training.trainer import (
    constant,
    cosine,
    gradients_of,
    layer_factor,
    linear,
    make_optimizer,
    rate_factor,
    scale_gradients,
    squared_norm,
)
from tests.tiny import make_network

pytestmark = pytest.mark.unit


def test_the_linear_schedule_rises_and_falls_linearly() -> None:
    factors = [rate_factor(step, 10, 0.2, linear) for step in range(11)]
    assert factors == pytest.approx([0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])
    assert rate_factor(0, 10, 0.0, linear) == 1.0
    assert rate_factor(12, 10, 0.2, linear) == 0.0  # never below


def test_the_cosine_and_the_constant_schedule() -> None:
    half = math.sqrt(0.5) / 2
    factors = [rate_factor(step, 4, 0.0, cosine) for step in range(5)]
    assert factors == pytest.approx([1, 0.5 + half, 0.5, 0.5 - half, 0])
    assert [rate_factor(step, 4, 0.5, constant) for step in range(5)] == [0, 0.5, 1, 1, 1]


def test_layers_far_from_the_head_learn_more_slowly() -> None:
    factors = {
        "encoder.embeddings.word_embeddings.weight": 0.125,
        "encoder.embeddings.layer_norm.weight": 0.125,
        "encoder.encoder.layers.0.linear1.weight": 0.25,
        "encoder.encoder.layers.1.linear1.weight": 0.5,
        "encoder.pooler.dense.weight": 1.0,
        "head.weight": 1.0,
        "match_embeddings.weight": 1.0,
    }
    assert {name: layer_factor(name, 2, 0.5) for name in factors} == factors


def test_each_parameter_steps_at_its_own_rate_and_matrices_alone_decay() -> None:
    network = make_network()
    before = {name: p.numpy().copy() for name, p in network.named_parameters()}
    optimizer, schedule = make_optimizer(
        network,
        learning_rate=0.1,
        part_factors={"head": 3.0},
        layer_decay=0.5,
        weight_decay=0.5,
        warmup_proportion=0.0,
        schedule="linear",
        total_steps=4,
    )
    for p in network.parameters():
        p.grad = paddle.ones_like(p)  # AdamW's first step is then the learning rate
    optimizer.step()
    for name, p in network.named_parameters():
        rate = 0.1 * (3.0 if name.startswith("head.") else layer_factor(name, 2, 0.5))
        decay = 0.5 if p.ndim > 1 else 0.0
        np.testing.assert_allclose(p.numpy(), before[name] * (1 - rate * decay) - rate, atol=1e-5, err_msg=name)
    schedule.step()
    assert optimizer.get_lr() == pytest.approx(0.075)


def test_the_norm_is_that_of_all_gradients_together(monkeypatch: pytest.MonkeyPatch) -> None:
    network = paddle.nn.Sequential(paddle.nn.Linear(2, 2), paddle.nn.Linear(2, 1))
    network(paddle.to_tensor(np.random.RandomState(0).randn(3, 2).astype("float32"))).square().mean().backward()
    gradients = gradients_of(network)
    flat = np.concatenate([p.grad.numpy().ravel() for p in network.parameters()])
    expected = pytest.approx(float(np.linalg.norm(flat)) ** 2, rel=1e-6)
    assert squared_norm(gradients).item() == expected
    monkeypatch.setattr("paddle.device.get_device", lambda: "gpu:0")  # there gradients are joined
    assert squared_norm(gradients).item() == expected
    scale_gradients(gradients, 0.5)
    halved = np.concatenate([p.grad.numpy().ravel() for p in network.parameters()])
    np.testing.assert_array_equal(halved, flat * np.float32(0.5))  # the optimizer's input
