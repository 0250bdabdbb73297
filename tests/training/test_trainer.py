"""The training loop: what it computes, prints, keeps, and how it stops."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from ernie_matching.model import PairwiseExamples
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.interrupts import Interrupted
from paddle_ranker.model.network import RankerNetwork
from paddle_ranker.training.curve import read_metrics
from paddle_ranker.training.options import TrainingOptions
from tests.tiny import make_network
from tests.training_runs import names, parameters, run

pytestmark = pytest.mark.unit


def mean_loss(network: RankerNetwork, examples: PairwiseExamples) -> float:
    network.eval()
    return float(examples.loss(network, np.arange(len(examples)))[0])


def test_training_lowers_the_loss(tmp_path: Path, examples: PairwiseExamples) -> None:
    before = mean_loss(make_network(), examples)
    _, network = run(tmp_path, examples, epochs=20)
    assert mean_loss(network, examples) < 0.7 * before


def test_the_lines_are_the_published_ones(tmp_path: Path, examples: PairwiseExamples, capfd: Any) -> None:
    run(tmp_path, examples, aucs=[0.7914, 0.6, 0.9])
    lines = capfd.readouterr().out.splitlines()
    pattern = r"global step (\d+), epoch: (\d+), batch: (\d+), loss: \d+\.\d{5}, speed: \d+\.\d\d step/s"
    matches = [re.fullmatch(pattern, line) for line in lines]
    assert [m.groups() for m in matches if m] == [("2", "1", "2"), ("4", "2", "1"), ("6", "2", "3")]
    assert [line for line in lines if line.startswith("eval")] == [
        "eval_dev auc:0.791",
        "eval_dev auc:0.600",
        "eval_dev auc:0.900",
    ]


def test_the_best_the_last_and_the_scheduled_checkpoints_are_kept(tmp_path: Path, examples: PairwiseExamples) -> None:
    result, _ = run(tmp_path, examples, aucs=[0.6, 0.9, 0.7, 0.8], epochs=3, save_step=5)  # 9 steps
    folder = tmp_path / "checkpoint"
    assert names(folder) == [
        "best",
        "last",
        "model_4",
        "model_5",
        "model_9",
    ]
    assert (folder / "best").resolve().name == "model_4" and (folder / "last").resolve().name == "model_9"
    assert result.best == {"step": 4, "auc": 0.9} and result.last == {"step": 9, "auc": 0.5}
    assert result.best_checkpoint == folder / "model_4" and result.last_checkpoint == folder / "model_9"
    assert "0.9" in (folder / "best" / "results").read_text()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, examples: PairwiseExamples) -> np.ndarray:
    """Parameters of a run with nothing changed."""
    return parameters(run(tmp_path_factory.mktemp("plain"), examples)[1])


def test_the_same_seed_gives_the_same_parameters(tmp_path: Path, examples: PairwiseExamples) -> None:
    paddle.seed(123)  # whatever was drawn before does not matter
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
    ],
)
def test_every_option_changes_the_parameters(
    tmp_path: Path, examples: PairwiseExamples, plain: np.ndarray, changes: dict
) -> None:
    # Weight decay is tiny beside a step at this rate, so compare exactly: the run itself is deterministic.
    assert not np.array_equal(parameters(run(tmp_path, examples, **changes)[1]), plain)


def test_dropout_changes_the_parameters(tmp_path: Path, examples: PairwiseExamples, plain: np.ndarray) -> None:
    without = make_network(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    assert not np.array_equal(parameters(run(tmp_path, examples, network=without)[1]), plain)


def test_max_steps_ends_the_run_and_the_schedule(tmp_path: Path, examples: PairwiseExamples) -> None:
    result, _ = run(tmp_path, examples, epochs=10, max_steps=5)
    assert result.steps == 5
    assert (tmp_path / "checkpoint" / "last").resolve().name == "model_5"


class _Poisoned:
    """Examples whose loss stops being a number, or that a user interrupts, at the fourth batch."""

    def __init__(self, examples: PairwiseExamples, interrupt: bool = False):
        self.examples, self.calls, self.interrupt = examples, 0, interrupt
        self.rows_each, self.groups, self.lengths = examples.rows_each, examples.groups, examples.lengths
        self.weight = examples.weight

    def __len__(self) -> int:
        return len(self.examples)

    def loss(self, network: Any, indices: np.ndarray) -> Any:
        self.calls += 1
        self.indices = indices
        loss, figures = self.examples.loss(network, indices)
        if self.calls == 4 and self.interrupt:
            raise KeyboardInterrupt
        return (loss * float("nan") if self.calls == 4 else loss), figures


def test_a_loss_that_is_not_a_number_stops_with_what_is_needed_to_go_on(
    tmp_path: Path, examples: PairwiseExamples
) -> None:
    poisoned = _Poisoned(examples)
    with pytest.raises(RankerError) as caught:
        run(tmp_path, poisoned)
    message = str(caught.value)
    assert "nan at step 4" in message
    assert f"the loss is nan at step 4 (training records {min(poisoned.indices) + 1}," in message
    assert f"the last good checkpoint is {tmp_path}/checkpoint/model_2" in message


def test_an_interrupt_names_the_last_checkpoint(tmp_path: Path, examples: PairwiseExamples) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"at step 4 of 6; the last good checkpoint is .*model_2"):
        run(tmp_path, _Poisoned(examples, interrupt=True))
    assert names(tmp_path / "checkpoint") == [
        "best",
        "last",
        "model_2",
    ]


class _WithMeans(_Poisoned):
    """Examples with further means, 1, 2, ..., beside the loss."""

    def __init__(self, examples: PairwiseExamples, means: int):
        super().__init__(examples)
        self.means = {f"mean{number}": float(number) for number in range(1, means + 1)}

    def loss(self, network: Any, indices: np.ndarray) -> Any:
        return self.examples.loss(network, indices)[0], self.means


class _FirstOfTwo(ProcessGroup):
    """The first of two processes; the second one adds nothing but a signal, at its third step."""

    def __init__(self) -> None:
        self.size, self.rank, self.steps = 2, 0, 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        self.steps += 1
        return values + (np.arange(len(values)) == 0) * (self.steps == 3)

    def sum_gradients(self, network: Any) -> None: ...

    broadcast = sum_gradients

    def wait(self) -> None: ...


def test_means_and_signals_are_summed_side_by_side(
    tmp_path: Path, examples: PairwiseExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, float]] = []

    def describe(means: dict[str, float]) -> dict[str, float]:
        logged.append(means)
        return means

    changes: dict[str, Any] = {"hooks": {"describe": describe}, "logging_steps": 1}
    run(tmp_path / "alone", _WithMeans(examples, 8), **changes)
    assert [[*means.values()][1:] for means in logged] == [pytest.approx(list(range(1, 9)))] * 6
    with pytest.raises(ValueError, match=r"9 means beside the loss \(mean1, .*\): at most 8 fit"):
        run(tmp_path / "more", _WithMeans(examples, 9), **changes)
    monkeypatch.setattr("tests.training_runs.ProcessGroup", _FirstOfTwo)
    with pytest.raises(Interrupted, match="at step 3 of"):
        run(tmp_path / "two", _WithMeans(examples, 8), **changes)
    assert [means["mean8"] / means["mean1"] for means in logged[6:]] == [pytest.approx(8)] * 3


class _Signalled(_Poisoned):
    """Examples whose fourth loss is computed while `signals` come."""

    def __init__(self, examples: PairwiseExamples, signals: int):
        super().__init__(examples)
        self.signals = signals

    def loss(self, network: Any, indices: np.ndarray) -> Any:
        self.calls += 1
        for _ in range(self.signals if self.calls == 4 else 0):
            os.kill(os.getpid(), signal.SIGINT)
        return self.examples.loss(network, indices)


@pytest.fixture
def heeded() -> Iterator[None]:
    """Let the process heed Ctrl-C, which a shell's background job ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_ends_the_step_and_saves_it(
    tmp_path: Path, examples: PairwiseExamples, heeded: None
) -> None:
    with pytest.raises(Interrupted, match=r"at step 4 of 6; the last good checkpoint is .*model_4"):
        run(tmp_path, _Signalled(examples, signals=1))
    assert (tmp_path / "checkpoint" / "state_4" / "optimizer.npz").exists()


def test_the_second_interrupt_ends_at_once(tmp_path: Path, examples: PairwiseExamples, heeded: None) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"at step 4 of 6; the last good checkpoint is .*model_2"):
        run(tmp_path, _Signalled(examples, signals=2))
    assert not (tmp_path / "checkpoint" / "model_4").exists()


def test_an_interrupt_inside_a_backward_pass_is_one_too(
    tmp_path: Path, examples: PairwiseExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paddle_ranker.model import dropout

    mask = dropout._mask

    def interrupted(kept: Any, scale: float, like: Any) -> Any:
        if sys._getframe(1).f_code.co_name == "backward":  # called by Paddle's own code
            raise KeyboardInterrupt("SIGTERM")
        return mask(kept, scale, like)

    monkeypatch.setattr(dropout, "_mask", interrupted)
    with pytest.raises(KeyboardInterrupt, match="at step 1 of 6; there is no checkpoint yet"):
        run(tmp_path, examples)


def test_a_full_disk_is_an_error_that_names_the_last_good_checkpoint(
    tmp_path: Path, examples: PairwiseExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Path.write_text

    def write_text(path: Path, text: str, *arguments: Any, **keywords: Any) -> int:
        if path.name == "results" and "'step': 4" in text:
            raise OSError(28, "No space left on device")
        return original(path, text, *arguments, **keywords)

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(RankerError, match=r"step 4 could not be written \(No space left.*model_2; make room"):
        run(tmp_path, examples, aucs=[0.6, 0.7])
    assert names(tmp_path / "checkpoint") == [
        "best",
        "last",
        "model_2",
    ]


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


def test_force_resume_alone_begins_nothing() -> None:
    with pytest.raises(UsageError, match="add --resume"):
        TrainingOptions(force_resume=True)


def test_options_are_values(tmp_path: Path) -> None:
    options = TrainingOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.seed = 3  # type: ignore[misc]


def test_a_figure_may_be_better_the_lower_it_is(tmp_path: Path, examples: PairwiseExamples) -> None:
    from paddle_ranker.training.curve import read_curve

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
