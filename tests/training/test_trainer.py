"""The training loop: its results, output, checkpoints, and how it stops."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from scipy.special import expit
from scipy.stats import entropy

from ernie_matching.model import PairwiseExamples
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.errors import RankerError, error_on_its_way
from paddle_ranker.interrupts import Interrupted
from paddle_ranker.model.network import RankerNetwork
from paddle_ranker.training import learning_curve
from paddle_ranker.training.learning_curve import read_metrics
from tests.tiny import make_network
from tests.training_runs import Altered, at, names, parameters, run

pytestmark = pytest.mark.unit


def mean_loss(network: RankerNetwork, examples: PairwiseExamples) -> float:
    network.eval()
    return float(examples.loss(network, np.arange(len(examples)))[0])


def test_training_lowers_the_loss(tmp_path: Path, examples: PairwiseExamples) -> None:
    before = mean_loss(make_network(), examples)
    _, network = run(tmp_path, examples, epochs=20)
    assert mean_loss(network, examples) < 0.7 * before


def test_the_best_the_last_and_the_scheduled_checkpoints_are_kept(tmp_path: Path, examples: PairwiseExamples) -> None:
    result, _ = run(tmp_path, examples, aucs=[0.6, 0.9, 0.7, 0.8], epochs=3, save_step=5)  # 9 steps
    folder = tmp_path / "checkpoint"
    assert names(folder) == ["best", "last", "model_4", "model_5", "model_9"]
    assert (folder / "best").resolve().name == "model_4" and (folder / "last").resolve().name == "model_9"
    assert result.best == {"step": 4, "auc": 0.9} and result.last == {"step": 9, "auc": 0.5}
    assert result.best_checkpoint == folder / "model_4" and result.last_checkpoint == folder / "model_9"
    assert "0.9" in (folder / "best" / "results").read_text()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, examples: PairwiseExamples) -> np.ndarray:
    """Return the parameters of a run without changes."""
    return parameters(run(tmp_path_factory.mktemp("plain"), examples)[1])


def test_the_same_seed_gives_the_same_parameters(tmp_path: Path, examples: PairwiseExamples) -> None:
    paddle.seed(123)  # earlier draws do not matter
    first = parameters(run(tmp_path / "a", examples)[1])
    paddle.seed(456)
    np.testing.assert_array_equal(parameters(run(tmp_path / "b", examples)[1]), first)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7},
        {"learning_rate": 2e-3},
        {"part_factors": {"head": 1.0}},
        {"part_factors": {"match_embeddings": 10.0}},
        {"layer_lr_decay": 0.5},
        {"schedule": "cosine"},
        {"schedule": "constant"},
        {"max_tokens": 64},
        {"gradient_accumulation_steps": 2},
        {"use_amp": True},
        {"weight_decay": 0.1},
        {"warmup_proportion": 0.5},
        {"max_grad_norm": 0.01},
        {"batch_size": 4},
        {"epochs": 3},
        {"max_steps": 5},
        {"dropout": 0.0},
    ],
)
def test_every_option_changes_the_parameters(
    tmp_path: Path, examples: PairwiseExamples, plain: np.ndarray, changes: dict
) -> None:
    dropout = changes.pop("dropout", 0.1)
    network = make_network(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    result, _ = run(tmp_path, examples, network, **changes)
    assert result.steps == changes.get("max_steps", result.steps)
    # Weight decay is tiny compared with a step at this rate, so compare exactly: the run is deterministic.
    assert not np.array_equal(parameters(network), plain)


def test_a_loss_that_is_not_a_number_stops_with_what_is_needed_to_go_on(
    tmp_path: Path, examples: PairwiseExamples
) -> None:
    poisoned = Altered(examples, lambda call, loss, means: (loss * float("nan") if call == 4 else loss, means))
    with pytest.raises(RankerError) as caught:
        run(tmp_path, poisoned)
    assert f"the loss is nan at step 4 (training records {min(poisoned.indices) + 1}," in str(caught.value)
    assert f"the last good checkpoint is {tmp_path}/checkpoint/model_2" in str(caught.value)


class _FirstOfTwo(ProcessGroup):
    """The first of two processes; the second only adds a signal, at its third step."""

    def __init__(self) -> None:
        self.size, self.rank, self.steps = 2, 0, 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        self.steps += 1
        return values + (np.arange(len(values)) == 0) * (self.steps == 3)

    def sum_gradients(self, network: Any) -> None: ...

    broadcast = sum_gradients

    def require_equal(self, values: Any) -> None: ...

    def wait(self) -> None: ...

    @contextmanager
    def together(self) -> Iterator[None]:
        yield


def test_means_and_signals_are_summed_side_by_side(
    tmp_path: Path, examples: PairwiseExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, float]] = []

    def describe(means: dict[str, float]) -> dict[str, float]:
        logged.append(means)
        return means

    def with_means(count: int) -> Altered:
        means = {f"mean{number}": float(number) for number in range(1, count + 1)}
        return Altered(examples, lambda call, loss, _: (loss, means))

    changes: dict[str, Any] = {"hooks": {"describe": describe}, "logging_steps": 1}
    run(tmp_path / "alone", with_means(8), **changes)
    assert [[*means.values()][1:] for means in logged] == [pytest.approx(list(range(1, 9)))] * 6
    with pytest.raises(ValueError, match=r"9 means beside the loss \(mean1, .*\): at most 8 fit"):
        run(tmp_path / "more", with_means(9), **changes)
    monkeypatch.setattr("tests.training_runs.ProcessGroup", _FirstOfTwo)
    with pytest.raises(Interrupted, match="at step 3 of"):
        run(tmp_path / "two", with_means(8), **changes)
    assert [means["mean8"] / means["mean1"] for means in logged[6:]] == [pytest.approx(8)] * 3


@pytest.fixture
def heeded() -> Iterator[None]:
    """Make the process handle Ctrl-C, which a shell's background job ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("signals", "error", "saved"),
    [(1, Interrupted, "model_4"), (2, KeyboardInterrupt, "model_2")],  # the second signal ends at once
)
def test_the_first_interrupt_ends_the_step_and_saves_it(
    tmp_path: Path, examples: PairwiseExamples, heeded: None, signals: int, error: type[BaseException], saved: str
) -> None:
    def interrupt() -> None:
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(error, match=rf"at step 4 of 6; the last good checkpoint is .*{saved}"):
        run(tmp_path, Altered(examples, at(4, interrupt)))
    assert names(tmp_path / "checkpoint") == ["best", "last", "model_2", *([saved] if signals == 1 else [])]
    assert (tmp_path / "checkpoint" / saved.replace("model", "state") / "optimizer.npz").exists()


@pytest.mark.parametrize("before", ["nothing", "interruption", "error"])
def test_a_signal_ends_the_drawing_of_the_curve(
    tmp_path: Path, examples: PairwiseExamples, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """A training that was interrupted before still says from where it can be resumed, and one that failed, why."""

    def interrupt() -> None:
        gc.disable()  # Python drops an exception that is raised in a callback of its collector, and Hypothesis has one
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            gc.enable()

    def fail() -> None:
        raise RankerError("the connection broke")

    def draw(metrics: Path, picture: Path) -> None:
        interrupt()
        drawn.append(picture)

    drawn: list[Path] = []
    monkeypatch.setattr(learning_curve, "draw_learning_curve", draw)
    happening = {"interruption": interrupt, "error": fail}.get(before)
    for _ in range(2):  # the folder's lock is free again
        training = Altered(examples, at(4, happening)) if happening else examples
        words = "step 4 of 6; the last good" if before == "interruption" else None
        with pytest.raises(KeyboardInterrupt, match=words) as caught:
            run(tmp_path, training)
        assert (str(error_on_its_way(caught.value)) == "the connection broke") == (before == "error")
        assert drawn == [] and (tmp_path / "checkpoint" / "last").exists()


def test_an_interrupt_inside_a_backward_pass_is_one_too(
    tmp_path: Path, examples: PairwiseExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paddle_ranker.model.networks import dropout

    mask = dropout._mask

    def interrupted(kept: Any, scale: float, like: Any) -> Any:
        if sys._getframe(1).f_code.co_name == "backward":  # called by Paddle's own code
            raise KeyboardInterrupt("SIGTERM")
        return mask(kept, scale, like)

    monkeypatch.setattr(dropout, "_mask", interrupted)
    with pytest.raises(KeyboardInterrupt, match="at step 1 of 6; there is no checkpoint to resume from"):
        run(tmp_path, examples)


def test_one_forward_pass_equals_two(examples: PairwiseExamples) -> None:
    network = make_network()
    indices = np.array([0, 3, 5])
    pairs = examples.pairs
    positive, negative = (
        network(*(paddle.to_tensor(x) for x in pairs.pad(rows).values())).numpy()
        for rows in (2 * indices, 2 * indices + 1)
    )
    expected = np.maximum(0.0, 1.0 - (positive - negative)).mean()
    assert float(examples.loss(network, indices)[0]) == pytest.approx(expected, abs=1e-5)


def test_r_drop_compares_two_passes_of_one_batch(examples: PairwiseExamples, monkeypatch: pytest.MonkeyPatch) -> None:
    data, loss = examples._data, examples._loss
    twice, indices = PairwiseExamples(data, loss, rdrop_coef=3.0), np.array([0, 3, 5])
    first, second = np.random.RandomState(0).randn(2, 6).astype(np.float32)

    def given(network: object, rows: np.ndarray) -> Any:
        assert rows.tolist() == [0, 6, 10, 1, 7, 11] * 2 and twice.rows_each == 2 * examples.rows_each
        return paddle.to_tensor(np.concatenate([first, second]))

    monkeypatch.setattr(twice, "logits", given)
    classes = [np.stack([1 - p, p], axis=1) for p in (expit(first), expit(second))]
    kl = [entropy(one, other, axis=1) for one, other in (classes, classes[::-1])]
    hinges = [np.maximum(0.0, 1.0 - (logits[:3] - logits[3:])).mean() for logits in (first, second)]
    total, means = twice.loss(None, indices)
    assert float(means["rdrop"]) == pytest.approx(np.mean(kl), rel=1e-5)
    assert float(total) == pytest.approx(np.mean(hinges) + 3.0 * np.mean(kl), rel=1e-5)
    monkeypatch.undo()
    network = make_network()
    network.train()
    assert float(twice.loss(network, indices)[1]["rdrop"]) > 0  # each pass has dropout of its own
    network.eval()
    assert float(twice.loss(network, indices)[0]) == pytest.approx(float(examples.loss(network, indices)[0]), rel=1e-5)


def test_a_figure_may_be_better_the_lower_it_is(tmp_path: Path, examples: PairwiseExamples) -> None:
    from paddle_ranker.training.learning_curve import read_curve

    told: list[int] = []
    result, _ = run(
        tmp_path,
        examples,
        aucs=[0.7, 0.3, 0.6],
        lower_is_better=True,
        hooks={"begin_epoch": told.append, "describe": lambda means: {**means, "twice": 2 * means["loss"]}},
    )
    assert result.best == {"step": 4, "auc": 0.3} and (tmp_path / "checkpoint" / "best").resolve().name == "model_4"
    assert told == [1, 2]
    metrics = tmp_path / "checkpoint" / "metrics.jsonl"
    assert read_curve(metrics, "run").best == 1
    records: list[Any] = list(read_metrics(metrics))
    assert all(record["twice"] == 2 * record["loss"] for record in records if "loss" in record)
