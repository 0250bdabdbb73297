"""The training-speed benchmark: its batches, its clock, and the command itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import training
from benchmarks.harness.report import Speeds, print_speeds
from benchmarks.inputs import ROOT
from benchmarks.peers.work import (
    BenchmarkExamples,
    BenchmarkTriples,
    TrainingWork,
    batches_forever,
    typical_batches,
)
from paddle_ranker.encoding.batching import BatchPlan, training_batches
from paddle_ranker.encoding.columns import EncodedPairs

pytestmark = pytest.mark.unit


def test_typical_batches_stand_at_equal_distances_of_the_sorted_window() -> None:
    lengths = np.arange(40)[::-1].copy()  # sorted into batches of 4: tokens 0-3, 4-7, ..., 36-39
    rows = typical_batches(lengths, batch_size=4, count=2, seed=0)
    # 10 batches, 2 wanted: the middle batch of each half, batch 2 (tokens 8-11) and batch 7 (tokens 28-31).
    assert sorted(lengths[rows].tolist()) == [8, 9, 10, 11, 28, 29, 30, 31]


def test_the_trainer_forms_the_typical_batches_again() -> None:
    lengths = np.random.default_rng(0).permutation(400)
    rows = typical_batches(lengths, batch_size=8, count=3, seed=0)
    batches = list(training_batches(BenchmarkExamples(lengths[rows]), BatchPlan(8, seed=5), epoch=2))
    chosen = [set(rows[i : i + 8]) for i in range(0, 24, 8)]
    assert all(set(rows[batch]) in chosen for (batch,) in batches) and len(batches) == 3


def test_every_system_trains_the_batches_of_the_trainer() -> None:
    lengths = np.array([3, 4, 5, 6, 7, 3, 4])
    pairs = EncodedPairs(np.zeros(32, np.int32), np.append(0, np.cumsum(lengths)), np.full(7, 2, np.int32))
    work = TrainingWork({}, 0, [], batch_size=3, threads=1, seed=4)
    batches = batches_forever(work, BenchmarkTriples(pairs, pairs))
    plan = BatchPlan(3, seed=4)
    for epoch in (1, 2):
        for (expected,) in training_batches(BenchmarkExamples(lengths), plan, epoch):
            np.testing.assert_array_equal(next(batches), expected)


def test_a_worker_loads_its_work_without_paddle() -> None:
    # Once Paddle is loaded it is too late to choose the math library's code path.
    code = "import sys, benchmarks.peers.work, benchmarks.peers.training_worker; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    rows = [f"查询{i}\t标题{i}{'文' * (i % 5)}{label}\t{label}" for i in range(6) for label in (0, 1, 2)]
    (tmp_path / "graded.tsv").write_text("\n".join(["query\ttitle\tlabel", *rows]) + "\n", encoding="utf-8")
    # So that a vocabulary is trained on the file.
    monkeypatch.setenv("PADDLE_RANKER_REAL_DATA", str(tmp_path / "nowhere"))
    status = training.main(
        ["--file", str(tmp_path / "graded.tsv"), "--shapes", "tiny", "--systems", "ours,torch", "--rounds", "1",
         "--steps", "1", "--batch_size", "4"]
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert status == 0
    assert "tiny: 1 batches of 4 triples" in shown
    assert "this toolkit: train_pairwise.py" in shown
    assert ("PyTorch fp32" in shown) != (f"to have them: {training.TORCH_INSTALL}" in shown)


def test_a_ratio_is_the_first_system_s_speed_over_the_row_s(capsys: pytest.CaptureFixture) -> None:
    speeds = {name: Speeds([speed, speed], [speed, speed]) for name, speed in (("a", 8.0), ("b", 6.0))}
    print_speeds(speeds, "pairs", width=4, digits=0)
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()[1:3]] == ["1.00", "1.33"]


def test_an_unknown_shape_is_named(capsys: pytest.CaptureFixture) -> None:
    assert training.main(["--shapes", "huge"]) == 2
    assert "--shapes huge: choose from tiny, nano" in capsys.readouterr().err
