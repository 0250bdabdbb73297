"""Trainings that are killed, stopped or refused, and resumed, by the commands as users type them."""

from __future__ import annotations

import re
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest

from ernie_matching import train_pairwise
from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays, save_arrays
from paddle_ranker.version import __version__
from tests.conftest import Call
from tests.robustness.kill_resume import KillResumeOptions, differences, kill_and_resume
from tests.started import SECONDS, held_at, run_script
from tests.tiny import HAN, draw_words, write_encoder
from tests.training_runs import typed_training

pytestmark = pytest.mark.server  # real processes take seconds each

STEPS = 20  # of the training below: 40 triples in batches of 8, four times


def test_a_run_killed_again_and_again_ends_as_an_unbroken_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kill_and_resume(KillResumeOptions(kills=2, seed=3, ranker="pairwise", steps=30), tmp_path) == []
    assert len(re.findall(r"^kill  \d after .*; goes on from step \d+$", capsys.readouterr().out, re.M)) == 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny encoder, training triples and a labelled file; return the folder."""
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    _, words = draw_words()
    others = [*words[1:], words[0]]
    (folder / "train.csv").write_text(
        "".join(f"{word}\t{word}的研究\t{other}的研究\n" for word, other in zip(words, others)), encoding="utf-8"
    )
    (folder / "dev.csv").write_text(
        "".join(f"{word}\t论{word}\t1\n{word}\t论{other}\t0\n" for word, other in zip(words, others)), encoding="utf-8"
    )
    return folder


def training(save_dir: Path, *more: object) -> list[str]:
    """Return the command's options, for the folder `data` or a copy of it."""
    return typed_training(save_dir, *more, eval_step=5, save_step=2)


@pytest.fixture
def call(data: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> Call:
    """Return a function that calls the training command in `data`."""
    monkeypatch.chdir(data)
    return partial(call, train_pairwise.main)


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without interruption in a separate process; return the save folder."""
    folder = tmp_path_factory.mktemp("unbroken") / "checkpoint"
    done = run_script("ernie_matching/train_pairwise.py", *training(folder), cwd=data)
    assert done.returncode == 0, done.stderr
    return folder


start_until = partial(held_at, "ernie_matching.train_pairwise")


def stopped(save_dir: Path, call: Call) -> None:
    """Begin a training, whose time limit stops it after the first step."""
    status, printed, errors = call(*training(save_dir, "--max_minutes", 1e-9))
    assert status == 0, errors
    assert "stopped for now (--resume goes on) after 1 steps" in printed
    assert f"best: the last one, as none was evaluated yet; last: {save_dir}/model_1\n" in printed
    assert (save_dir / "best").resolve().name == "model_1"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_training_goes_on_when_its_reader_leaves(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unread: TextIO, same_process: None
) -> None:
    monkeypatch.chdir(data)
    monkeypatch.setattr(sys, "stdout", unread)
    assert train_pairwise.main(training(tmp_path / "new", "--max_steps", 2, "--resume")) == 0
    assert (tmp_path / "new" / "last").resolve().name == "model_2"


def test_resume_begins_a_run_where_there_is_none(tmp_path: Path, call: Call) -> None:
    status, printed, errors = call(*training(tmp_path / "new", "--resume", "--max_steps", 1))
    assert status == 0 and "holds no run to resume" in printed, errors
    assert "global step 1, epoch: 1, batch: 1," in printed and (tmp_path / "new" / "last").is_symlink()


def test_another_learning_rate_or_file_is_refused_by_name_unless_forced(
    data: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_dir, own = tmp_path / "checkpoint", tmp_path / "data"
    shutil.copytree(data, own)
    monkeypatch.chdir(own)
    stopped(save_dir, call)
    before = contents(save_dir)
    status, printed, errors = call(*training(save_dir, "--resume", "--learning_rate", 2e-3))
    assert status == 1 and "options learning_rate was 0.001, is 0.002: " in errors
    assert "--force_resume true" in errors and "global step" not in printed
    with (own / "train.csv").open("a", encoding="utf-8") as stream:
        stream.writelines(f"{word}\t{word}\t研究\n" for word in HAN[:8])
    status, _, errors = call(*training(save_dir, "--resume"))
    assert status == 1 and "content train_file was" in errors and f"total_steps was {STEPS}, is 24" in errors
    assert contents(save_dir) == before  # a refusal changes nothing
    changed = ["--resume", "--learning_rate", 2e-3, "--force_resume", "true"]
    status, printed, errors = call(*training(save_dir, *changed))
    assert status == 0 and "resume after step 1," in printed and "trained 24 steps" in printed, errors


def test_another_version_is_refused_by_name(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    save_dir = tmp_path / "checkpoint"
    stopped(save_dir, call)
    monkeypatch.setattr("paddle_ranker.training.run.__version__", "9.9.9")
    status, _, errors = call(*training(save_dir, "--resume"))
    assert status == 1 and f"version of paddle_ranker was {__version__}, is 9.9.9: " in errors


def test_what_only_moves_the_stops_may_change(tmp_path: Path, call: Call) -> None:
    save_dir = tmp_path / "checkpoint"
    stopped(save_dir, call)
    changed = ["--resume", "--eval_step", 50, "--save_step", 50, "--keep", 1, "--logging_steps", 10]
    status, printed, errors = call(*training(save_dir, *changed))
    assert status == 0, errors
    assert re.findall(r"^global step (\d+),", printed, re.M) == ["10", "20"]


def test_sigterm_then_resume_without_the_encoder_it_began_with(data: Path, tmp_path: Path, unbroken: Path) -> None:
    own, save_dir = tmp_path / "data", tmp_path / "checkpoint"
    shutil.copytree(data, own)
    process = start_until(4, tmp_path / "go", training(save_dir), own)
    process.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130 and "interrupted (at step" in errors, errors
    shutil.rmtree(own / "encoder")
    line = next(line for line in errors.splitlines() if line.startswith("to go on: ")).removeprefix("to go on: ")
    done = subprocess.run(line, shell=True, cwd=own, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    reached = re.findall(r"interrupted \(at step (\d+) of", errors)
    assert re.findall(r"resume after step (\d+),", done.stdout) == reached  # no step is lost
    assert differences(unbroken, save_dir) == []


def test_a_finished_run_says_its_result_again(tmp_path: Path, unbroken: Path, call: Call, pictures: None) -> None:
    shutil.copytree(unbroken, tmp_path / "done", symlinks=True)
    before = contents(tmp_path / "done")
    status, printed, errors = call(*training(tmp_path / "done", "--resume"))
    assert status == 0 and f"trained {STEPS} steps" in printed and "global step" not in printed, errors
    after = contents(tmp_path / "done")
    assert after.pop("learning_curve.png") and before.pop("learning_curve.png") and after == before


def test_a_disk_that_fills_up_in_the_middle_and_is_emptied(data: Path, tmp_path: Path, unbroken: Path) -> None:
    save_dir = tmp_path / "checkpoint"
    process = start_until(5, tmp_path / "go", training(save_dir), data)
    # A limit on file sizes stands for a full disk: the next checkpoint fails halfway.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (3000, 3000))
    (tmp_path / "go").touch()
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1 and "Traceback" not in errors, errors
    found = re.search(rf"checkpoint of step (\d+) could not be written .* is {save_dir}/model_(\d+); make room", errors)
    assert found and int(found.group(2)) < int(found.group(1)), errors
    assert (save_dir / "last").resolve().name == f"model_{found.group(2)}"
    assert not list(save_dir.glob(".unfinished-*"))
    done = run_script("ernie_matching/train_pairwise.py", *training(save_dir, "--resume"), cwd=data)
    assert done.returncode == 0 and f"resume after step {found.group(2)}," in done.stdout, done.stderr
    assert differences(unbroken, save_dir) == []


def test_differences_are_found(unbroken: Path, tmp_path: Path) -> None:
    # The comparison that the tests above rely on: one bit of a parameter, one line of the metrics, one pointer.
    other = tmp_path / "other"
    shutil.copytree(unbroken, other, symlinks=True)
    assert differences(unbroken, other) == []
    arrays = load_arrays(other / "last" / PARAMETERS_FILE)
    arrays["head.weight"].view(np.int32)[0] ^= 1
    save_arrays(arrays, other / "last" / PARAMETERS_FILE)
    lines = (other / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    (other / "best").unlink()
    found = differences(unbroken, other)
    assert any(problem.startswith("last: head.weight is off by") for problem in found)
    assert any("lines of other steps" in problem for problem in found)
    assert "best is not there" in found


def test_two_trainings_do_not_share_a_folder(data: Path, tmp_path: Path, call: Call) -> None:
    save_dir = tmp_path / "checkpoint"
    process = start_until(2, tmp_path / "go", training(save_dir, "--epochs", 4000), data)
    try:
        for more in ([], ["--resume"]):
            status, _, errors = call(*training(save_dir, "--epochs", 4000, *more))
            assert status == 1 and "another training writes there" in errors
    finally:
        process.kill()
        process.communicate()
