"""Pretrainings in separate processes: killed and resumed, and several processes of one training."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
from paddle_ranker.training.learning_curve import METRICS_FILE, read_metrics
from tests.conftest import REPOSITORY
from tests.pretraining_runs import typed, write_corpus
from tests.robustness.kill_resume import differences
from tests.started import held_at, run_script
from tests.training.test_distributed import Launched

pytestmark = pytest.mark.server  # real processes take some seconds each

SCRIPT = REPOSITORY / "pretraining" / "train_mlm.py"
STEPS = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("data"))


def run(arguments: list[str], cwd: Path) -> str:
    """Run the command in a separate process; return its output."""
    done = run_script("pretraining/train_mlm.py", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kill_at(step: int, arguments: list[str], cwd: Path) -> None:
    """Start the command, and kill it with SIGKILL once it has printed the line of `step`."""
    # The process waits to be killed.
    with held_at("pretraining.train_mlm", step, cwd / "never", arguments, cwd) as process:
        process.kill()


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without interruption in one process, each step of two batches; return the save folder."""
    folder = tmp_path_factory.mktemp("unbroken") / "checkpoint"
    run(typed(folder, "--whole_word_mask", "--max_steps", STEPS), data)
    return folder


def test_a_killed_run_ends_bit_for_bit_as_an_unbroken_one(data: Path, tmp_path: Path, unbroken: Path) -> None:
    arguments = typed(tmp_path / "a", "--whole_word_mask", "--max_steps", STEPS)
    kill_at(5, arguments, data)  # the state of step 3 or 4 exists
    kill_at(14, [*arguments, "--resume"], data)
    printed = run([*arguments, "--resume"], data)
    assert re.search(r"^resume after step \d+, from ", printed, re.M) and f"trained {STEPS} steps" in printed
    assert differences(unbroken, tmp_path / "a") == []  # parameters, losses and evaluations; another epoch by then
    assert {record["epoch"] for record in read_metrics(unbroken / METRICS_FILE) if "loss" in record} == {1, 2, 3}


def test_two_processes_are_one(data: Path, tmp_path: Path, unbroken: Path) -> None:
    arguments = typed(tmp_path / "two", "--whole_word_mask", "--max_steps", STEPS, "--gradient_accumulation_steps", 1)
    launched = Launched(data, tmp_path / "log", SCRIPT, *arguments)
    assert launched.wait() == 0, launched.output + launched.log(1)
    ours, theirs = (load_arrays(folder / "last" / PARAMETERS_FILE) for folder in (tmp_path / "two", unbroken))
    assert list(ours) == list(theirs)
    for name, array in theirs.items():  # dropout and masks included
        np.testing.assert_allclose(ours[name], array, atol=2e-6, rtol=0, err_msg=name)
    evaluations = [
        [record["evaluation"] for record in read_metrics(folder / METRICS_FILE) if "evaluation" in record]
        for folder in (tmp_path / "two", unbroken)
    ]
    assert len(evaluations[0]) == 5
    for one, other in zip(*evaluations):
        assert one == pytest.approx(other, rel=1e-4)
    assert not re.search("global step|documents,|eval_dev|trained", launched.log(1))
    assert len(list((tmp_path / "two" / "corpus").glob("tokens_*"))) == 2  # made once, by the first process
