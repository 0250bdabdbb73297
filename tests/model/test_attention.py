"""The fused kernel of attention: computes the formula, is used where it may be, and not where it is wrong.

No GPU is needed: the networks are told that there is one, and the kernel is Paddle's function on a CPU or a stand-in.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from paddle_ranker.model.families import config_from
from paddle_ranker.model.networks import attention
from paddle_ranker.model.networks.bert import Encoder, MPNetEncoder
from paddle_ranker.model.networks.dropout import Dropout, Masks
from paddle_ranker.model.networks.modernbert import ModernBertEncoder
from tests.model.family_cases import expected
from tests.model.test_bert import batch
from tests.tiny import CONFIG

pytestmark = pytest.mark.unit

Kernel = Callable[..., paddle.Tensor]
PADDLES: Kernel = F.scaled_dot_product_attention
NEW_PADDLE = int(paddle.__version__.split(".")[0]) > 2  # 2.6 has no such function for a CPU and a mask

COMPARED = 3  # calls that compare the kernel with the formula, before the first use


def by_hand(
    q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, mask: paddle.Tensor, rate: float, training: bool
) -> paddle.Tensor:
    """Compute as the kernel does: its layout, its scale, and no gradient of the mask."""
    products = paddle.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[3] ** 0.5 + mask.detach()
    return paddle.einsum("bhqk,bkhd->bqhd", F.softmax(products), v)


class Calls:
    """Pretended GPU whose kernel notes its calls."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.kernel: Kernel = PADDLES if NEW_PADDLE else by_hand
        self.found: list[tuple[float, bool]] = []
        self._patch = patch
        patch.setattr(attention, "_HALF", (paddle.float32,))
        patch.setattr(F, "scaled_dot_product_attention", self)
        attention._is_right.cache_clear()

    def __call__(self, *tensors: paddle.Tensor, training: bool) -> paddle.Tensor:
        q, k, v, mask, rate = tensors
        batch, queries, heads, size = q.shape
        assert k.shape == v.shape == [batch, k.shape[1], heads, size] and mask.dtype == q.dtype
        assert mask.shape in ([batch, 1, queries, k.shape[1]], [batch, heads, queries, k.shape[1]])
        self.found.append((rate, training))
        return self.kernel(q, k, v, mask, rate, training=training)

    def are_on(self, is_on_gpu: bool) -> None:
        self._patch.setattr(attention, "_is_on_gpu", lambda states: is_on_gpu)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def small(name: str) -> Encoder:
    """Create an encoder with heads of 8, without dropout."""
    paddle.seed(3)
    without: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if name == "bert":
        return Encoder(dataclasses.replace(CONFIG, **without))
    config: Any = dataclasses.replace(config_from({**expected()[name]["config"], "num_attention_heads": 2}), **without)
    return {"modernbert": ModernBertEncoder, "mpnet": MPNetEncoder}[name](config)


def answers(network: Encoder, packed: bool) -> list[np.ndarray]:
    """Return states of a padded batch, and the gradients of all parameters."""
    network.clear_gradients()
    ids, types = batch(80)
    if packed:
        places = paddle.arange(4).unsqueeze(1) * 20 + paddle.to_tensor([0, 9])
        states = network.at(ids, types, places, documents=types)
    else:
        states = network(ids, types)[:, :11]
    states.pow(2).mean().backward()
    gradients = [value.grad for _, value in sorted(network.named_parameters()) if value.grad is not None]
    return [states.numpy(), *(value.numpy() for value in gradients)]


@pytest.mark.parametrize(("name", "packed"), [("bert", False), ("bert", True), ("modernbert", False)])
def test_a_network_computes_the_same_with_the_kernel(name: str, packed: bool, calls: Calls) -> None:
    network = small(name)
    calls.are_on(False)
    alone = answers(network, packed)
    assert not calls.found
    calls.are_on(True)
    fused = answers(network, packed)
    assert len(calls.found) == COMPARED + network.config.num_hidden_layers
    assert len(fused) == len(alone)
    for ours, theirs in zip(fused, alone):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_biases_in_the_mask_get_their_gradients(calls: Calls) -> None:
    network = small("mpnet")
    calls.are_on(True)
    alone = answers(network, packed=False)
    assert not calls.found and np.abs(network.encoder.relative_attention_bias.weight.grad.numpy()).max() > 0
    with paddle.no_grad():
        states = network(*batch(80))[:, :11]
    assert len(calls.found) == COMPARED + network.config.num_hidden_layers
    np.testing.assert_allclose(states.numpy(), alone[0], atol=2e-6)


def test_graphs_have_the_formula(calls: Calls) -> None:
    network = small("bert")
    network.eval()
    calls.are_on(True)
    spec = [paddle.static.InputSpec([None, None], "int64") for _ in range(2)]
    static = paddle.jit.to_static(network.forward, input_spec=spec, full_graph=True)
    states = static(*batch(80)).numpy()
    assert not calls.found
    calls.are_on(False)
    np.testing.assert_allclose(states, network(*batch(80)).numpy(), atol=2e-6)


def test_the_weights_get_dropout_in_training_alone(calls: Calls) -> None:
    calls.kernel, states = by_hand, paddle.randn([2, 3, 16])
    calls.are_on(True)
    layer = Dropout(0.25, Masks())
    for training in (True, False):
        layer.training = training
        attention.attend(states, states, states, paddle.zeros([1, 1, 1, 3]), 2, layer)
    assert calls.found[COMPARED:] == [(0.25, True), (0.25, False)]


def failing(*tensors: paddle.Tensor, training: bool) -> paddle.Tensor:
    raise NotImplementedError("(Unimplemented) no such kernel in this build")


def without_mask(q: Any, k: Any, v: Any, mask: Any, rate: float, training: bool) -> paddle.Tensor:
    return by_hand(q, k, v, paddle.zeros_like(mask), rate, training)


def scaled_twice(q: Any, k: Any, v: Any, mask: Any, rate: float, training: bool) -> paddle.Tensor:
    return by_hand(q * q.shape[3] ** -0.5, k, v, mask, rate, training)


def not_numbers(q: Any, k: Any, v: Any, mask: Any, rate: float, training: bool) -> paddle.Tensor:
    return by_hand(q, k, v, mask, rate, training) * float("nan")


def wrong_backwards(q: Any, k: Any, v: Any, mask: Any, rate: float, training: bool) -> paddle.Tensor:
    return by_hand(q, k.detach() * 2 - k, v, mask, rate, training)


@pytest.mark.parametrize("kernel", [failing, without_mask, scaled_twice, not_numbers, wrong_backwards])
def test_a_kernel_that_is_wrong_is_named_once_and_not_used(
    kernel: Kernel, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    network = small("bert")
    calls.are_on(False)
    alone = network(*batch(80)).numpy()
    calls.kernel = kernel
    calls.are_on(True)
    for _ in range(2):
        np.testing.assert_array_equal(network(*batch(80)).numpy(), alone)
    assert len(calls.found) in (1, COMPARED)
    assert capsys.readouterr().err.count("attention without a fused kernel") == 1
