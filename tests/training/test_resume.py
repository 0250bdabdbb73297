"""A killed and resumed run ends like an uninterrupted one; resuming another run is refused."""

from __future__ import annotations

import gc
import json
import resource
import shutil
import sys
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from ernie_matching.model import PairwiseExamples
from paddle_ranker.encoding.batching import Groups
from paddle_ranker.errors import CheckpointError
from paddle_ranker.training.state import _write_arrays, find_state
from tests.tiny import make_network
from tests.training_runs import Altered, at, names, parameters, run

pytestmark = pytest.mark.unit

SETTINGS: dict[str, Any] = {"epochs": 4, "batch_size": 5, "save_step": 3, "eval_step": 4, "warmup_proportion": 0.2}


class _Killed(BaseException):
    """An exception that stands for kill -9: nothing may catch it and save something."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, examples: PairwiseExamples) -> tuple[np.ndarray, Path]:
    folder = tmp_path_factory.mktemp("unbroken")
    _, network = run(folder, examples, aucs=AUCS, **SETTINGS)
    return parameters(network), folder / "checkpoint"


def die() -> None:
    raise _Killed


def test_a_state_for_which_the_disk_has_no_room_is_an_error_and_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {"a/moment1": np.arange(6.0).reshape(2, 3), "b": np.float32(0.5) + np.zeros((), np.float32)}
    _write_arrays(tmp_path / "whole", arrays)
    with np.load(tmp_path / "whole") as again:
        assert {name: again[name].tolist() for name in again} == {n: array.tolist() for n, array in arrays.items()}
    later: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", later.append)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            _write_arrays(tmp_path / "cut", {"a": np.zeros(10_000), "b": np.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()
    assert later == []


def test_a_run_of_groups_is_resumed_and_reports_their_batches(
    tmp_path: Path, examples: PairwiseExamples, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 6, "save_step": 2, "eval_step": 100, "max_steps": 11}

    def grouped(dies: int = 0) -> Altered:
        """Return the examples in groups of one to five, which share a micro-batch."""
        return Altered(examples, at(dies, die), Groups.of(np.repeat(np.arange(8), [5, 1, 4, 2, 1, 4, 2, 5])))

    _, unbroken = run(tmp_path / "unbroken", grouped(), **settings)
    assert "a batch holds 4.8 examples of 1.6 queries on average, of 6 at the most" in capsys.readouterr().out
    with pytest.raises(_Killed):
        run(tmp_path / "killed", grouped(8), **settings)
    _, resumed = run(tmp_path / "killed", grouped(), resume=True, **settings)
    np.testing.assert_array_equal(parameters(resumed), parameters(unbroken))


AUCS = [0.6, 0.8, 0.7, 0.75, 0.9]


@pytest.mark.parametrize("step", [2, 4, 5, 7, 10, 19])
def test_a_killed_run_resumes_to_the_same_parameters(
    tmp_path: Path, examples: PairwiseExamples, unbroken: tuple[np.ndarray, Path], step: int
) -> None:
    with pytest.raises(_Killed):
        run(tmp_path, Altered(examples, at(step, die)), aucs=AUCS, **SETTINGS)
    state = find_state(tmp_path / "checkpoint")
    evaluated = 0 if state is None else state.progress.step // 4
    result, network = run(
        tmp_path,
        examples,
        network=make_network(seed=9) if state else None,
        aucs=AUCS[evaluated:],
        resume=True,
        **SETTINGS,
    )
    expected, folder = unbroken
    np.testing.assert_array_equal(parameters(network), expected)
    assert names(tmp_path / "checkpoint") == names(folder)
    for link in ("best", "last"):
        assert (tmp_path / "checkpoint" / link).resolve().name == (folder / link).resolve().name
    assert result.best["auc"] == 0.9
    steps = [json.loads(line)["step"] for line in (tmp_path / "checkpoint" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, examples: PairwiseExamples, unbroken: tuple[np.ndarray, Path]
) -> None:
    shutil.copytree(unbroken[1], tmp_path / "checkpoint", symlinks=True)
    result, network = run(tmp_path, examples, network=make_network(seed=9), resume=True, **SETTINGS)
    np.testing.assert_array_equal(parameters(network), unbroken[0])
    assert result.finished and result.steps == 20 and result.best["auc"] == 0.9
    assert not list((tmp_path / "checkpoint").glob("state_*/optimizer.npz"))  # no longer needed


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("optimizer.npz", None, r"optimizer.npz: missing or damaged"),
        ("state.json", "{", r"state.json: damaged"),
        ("state.json", '{"format_version": 99}', r"a state of format 99.*start anew without --resume"),
        (None, None, "belongs to another network"),
    ],
)
def test_what_cannot_be_gone_on_with_is_named(
    tmp_path: Path, examples: PairwiseExamples, file: Optional[str], content: Optional[str], message: str
) -> None:
    with pytest.raises(_Killed):
        run(tmp_path, Altered(examples, at(8, die)), aucs=AUCS, **SETTINGS)
    if file:
        path = tmp_path / "checkpoint" / "state_6" / file
        path.write_bytes(content.encode() if content else path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path, examples, network=make_network(hidden_size=16 if file else 32), resume=True, **SETTINGS)


def test_a_time_limit_stops_with_a_checkpoint_to_go_on_from(
    tmp_path: Path, examples: PairwiseExamples, unbroken: tuple[np.ndarray, Path]
) -> None:
    result, _ = run(tmp_path, examples, aucs=AUCS, max_minutes=1e-9, **SETTINGS)
    assert result.steps == 1 and not result.finished and result.last == {}
    assert names(tmp_path / "checkpoint") == ["best", "last", "model_1"]
    assert result.best_checkpoint == result.last_checkpoint  # there was no evaluation
    result, network = run(tmp_path, examples, make_network(seed=9), AUCS, resume=True, **SETTINGS)
    assert result.finished and result.steps == 20 and result.best == {"step": 20, "auc": 0.9}
    np.testing.assert_array_equal(parameters(network), unbroken[0])


def test_early_stopping_counts_across_a_resume(tmp_path: Path, examples: PairwiseExamples) -> None:
    settings = {**SETTINGS, "eval_step": 1, "early_stopping": 3}
    falling = [0.9, 0.8, 0.7, 0.6, 0.5]
    result, _ = run(tmp_path / "a", examples, aucs=falling, **settings)
    assert result.steps == 4 and result.finished and result.best == {"step": 1, "auc": 0.9}
    with pytest.raises(_Killed):
        run(tmp_path / "b", Altered(examples, at(4, die)), aucs=falling, **settings)
    result, _ = run(tmp_path / "b", examples, aucs=falling[3:], resume=True, **settings)
    assert result.steps == 4 and result.best["step"] == 1
    result, _ = run(tmp_path / "b", examples, resume=True, **settings)  # an early stop finishes a run
    assert result.steps == 4 and result.finished
