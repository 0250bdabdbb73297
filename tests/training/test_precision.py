"""Mixed precision with a dynamic loss scale, and gradient checkpointing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle
import pytest

from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.training import precision as module
from paddle_ranker.training.precision import LARGEST_SCALE, Precision
from paddle_ranker.training.training_options import TrainingOptions
from tests.tiny import make_network
from tests.training_runs import parameters, run

pytestmark = pytest.mark.unit


def inputs() -> tuple[paddle.Tensor, paddle.Tensor]:
    ids = np.random.RandomState(0).randint(5, 60, (4, 12))
    return paddle.to_tensor(ids), paddle.to_tensor((np.arange(12) > 5).astype("int64")[None].repeat(4, 0))


def gradients(network: Any, scale: float = 1.0) -> dict[str, np.ndarray]:
    paddle.seed(5)
    (network(*inputs()).square().mean() * scale).backward()
    found = {name: p.grad.numpy().copy() for name, p in network.named_parameters() if p.grad is not None}
    network.clear_gradients()
    return found


def test_a_products_inputs_outputs_and_gradients_are_rounded() -> None:
    network = paddle.nn.Sequential(paddle.nn.Linear(1, 1, bias_attr=False))
    network[0].weight.set_value(np.array([[1.0]], dtype="float32"))
    x = paddle.to_tensor([[1.0 + 2.0**-9]], stop_gradient=False)  # bfloat16 has 8 bits: between 1 and 1 + 2**-7
    half = Precision(network, use_amp=True)
    (network(x) * (1.0 + 2.0**-9)).backward()
    assert network(x).item() == 1.0 and x.grad.item() == 1.0 and network[0].weight.grad.item() == 1.0
    network.eval()
    assert network(x).item() == 1.0 + 2.0**-9  # evaluation is in single precision
    network.train()
    half.close()
    assert network(x).item() == 1.0 + 2.0**-9


def test_a_gpu_takes_bfloat16_where_it_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    for has_bfloat16, dtype in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda answer=has_bfloat16: answer)
        assert Precision(make_network(), use_amp=True).dtype == dtype


def test_mixed_precision_is_near_single_precision_and_not_it() -> None:
    network = make_network(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    network.train()
    single = gradients(network)["head.weight"]
    for dtype, tolerance in (("bfloat16", 0.05), ("float16", 0.01)):
        half = Precision(network, use_amp=True, dtype=dtype)
        rounded = gradients(network)["head.weight"]
        half.close()
        assert not np.array_equal(rounded, single)
        assert np.abs(rounded - single).max() < tolerance * np.abs(single).max()


def test_the_scale_halves_at_an_overflow_and_doubles_after_good_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GOOD_STEPS", 3)
    scaler = Precision(make_network(), use_amp=True, scale_loss=8.0)
    assert [scaler.update(norm) for norm in (1.0, math.inf, 1.0, 1.0)] == [True, False, True, True]
    assert scaler.scale == 4.0
    saved = scaler.state()
    assert scaler.update(1.0) and scaler.scale == 8.0
    other = Precision(make_network(), use_amp=True)
    other.restore(saved)
    assert other.update(1.0) and other.scale == 8.0  # the good steps were counted from the saved state
    off = Precision(make_network(), use_amp=False, scale_loss=8.0)
    assert off.scale == 1.0 and not off.update(math.nan) and off.diverged and off.report == ""


def test_another_half_precision_type_begins_with_the_first_scale(capsys: pytest.CaptureFixture[str]) -> None:
    grown = Precision(make_network(), use_amp=True, dtype="bfloat16", scale_loss=2.0**30)
    grown.update(math.inf)
    other = Precision(make_network(), use_amp=True, dtype="float16", scale_loss=8.0)
    other.restore(grown.state())
    assert (other.scale, other.skipped) == (8.0, 1) and "continues in float16" in capsys.readouterr().err


def test_a_scale_that_overflows_costs_steps_and_not_the_training(tmp_path: Any, examples: Any) -> None:
    settings: Any = {"use_amp": True, "amp_dtype": "float16", "epochs": 8}
    untouched = parameters(make_network())
    network = make_network()
    with pytest.raises(RankerError, match=r"all 2 steps were skipped.* from 1\.09951e\+12 down to 5\.49756e\+11; try"):
        run(tmp_path / "a", examples, network, scale_loss=2.0**40, max_steps=2, **settings)
    np.testing.assert_array_equal(parameters(network), untouched)  # both steps were skipped
    skipping, high = run(tmp_path / "b", examples, scale_loss=2.0**40, **settings)
    never, usual = run(tmp_path / "c", examples, **settings)
    assert 2 < skipping.skipped < skipping.steps and never.skipped == 0
    assert np.isfinite(parameters(high)).all() and not np.array_equal(parameters(high), parameters(usual))


def test_skipped_steps_are_counted_on_by_a_resumed_run(tmp_path: Any, examples: Any) -> None:
    settings: Any = {"use_amp": True, "amp_dtype": "float16", "epochs": 8, "scale_loss": 2.0**40, "save_step": 1}
    whole, _ = run(tmp_path / "a", examples, **settings)
    stopped, _ = run(tmp_path / "b", examples, max_minutes=1e-9, **settings)  # after its first step, which is skipped
    assert (stopped.steps, stopped.skipped, stopped.finished) == (1, 1, False)
    assert run(tmp_path / "b", examples, resume=True, **settings)[0].skipped == whole.skipped


def test_the_scale_stays_within_what_the_option_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GOOD_STEPS", 1)
    scaler = Precision(make_network(), use_amp=True, scale_loss=2.0**39)
    assert [scaler.update(1.0) and scaler.scale for _ in range(3)] == [2.0**40] * 3
    with pytest.raises(UsageError, match=r"scale_loss.*at most"):
        TrainingOptions(scale_loss=1e38)
    assert TrainingOptions(scale_loss=2.0**40).scale_loss == LARGEST_SCALE


def test_gradients_that_are_no_numbers_without_a_scale_end_the_training(tmp_path: Any, examples: Any) -> None:
    network = make_network()
    network.head.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(RankerError, match=r"the gradient's norm is nan at step 1 \(training records"):
        run(tmp_path, examples, network=network)
    network = make_network()
    network.head.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(RankerError, match=r"the gradient's norm is nan at step \d\d \("):  # the scale was not the cause
        run(tmp_path, examples, network=network, use_amp=True, epochs=40)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    network = make_network(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_hidden_layers=3)
    network.train()
    plain = gradients(network)
    network.encoder.gradient_checkpointing = True
    for name, gradient in gradients(network).items():
        np.testing.assert_allclose(gradient, plain[name], atol=1e-6, err_msg=name)


def test_with_dropout_the_second_pass_draws_what_the_first_drew() -> None:
    network = make_network(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3, num_hidden_layers=3)
    network.train()
    network.encoder.gradient_checkpointing = True
    weight = network.encoder.encoder.layers[0].linear1.weight
    gradient = gradients(network)["encoder.encoder.layers.0.linear1.weight"]
    # Check against a finite difference; with another dropout in the second pass the two would be unrelated.
    start, direction = weight.numpy().copy(), gradient / np.linalg.norm(gradient)
    losses = []
    for offset in (-1e-3, 1e-3):
        weight.set_value(start + offset * direction)
        paddle.seed(5)
        losses.append(float(network(*inputs()).square().mean()))
    assert (losses[1] - losses[0]) / 2e-3 == pytest.approx(float(np.linalg.norm(gradient)), rel=0.02)


def test_checkpointing_seeds_change_from_step_to_step() -> None:
    network = make_network(hidden_dropout_prob=0.3, num_hidden_layers=3)
    network.train()
    network.encoder.gradient_checkpointing = True
    paddle.seed(1)
    first, second = network(*inputs()).numpy(), network(*inputs()).numpy()
    paddle.seed(1)
    np.testing.assert_array_equal(network(*inputs()).numpy(), first)
    assert not np.array_equal(first, second)
