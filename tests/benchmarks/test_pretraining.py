"""The pretraining benchmark: the peer's input, and the printed results."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import pretraining
from tests.pretraining_runs import SHAPE, write_corpus

pytestmark = pytest.mark.server


def arguments(folder: Path, *more: object) -> list[str]:
    write_corpus(folder, 150)
    (folder / "shape.json").write_text(json.dumps({**SHAPE, "num_hidden_layers": 1}), encoding="utf-8")
    values = {"file": folder / "corpus.txt", "config": folder / "shape.json", "systems": "ours", "vocab_size": 100,
              "max_seq_length": 32, "batch_size": 4, "rounds": 3, "steps": 2, "threads": 1}  # fmt: skip
    return [*(str(part) for name, value in values.items() for part in (f"--{name}", value)), *map(str, more)]


def test_it_prints_the_curve_and_the_speed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert pretraining.main(arguments(tmp_path)) == 0
    printed = capfd.readouterr().out
    curve = re.findall(r"^ +([\d,]+) +\d+\.\d{5} ", printed, re.M)
    assert len(curve) == 3 and int(curve[-1].replace(",", "")) <= 3 * 2 * 4 * 32
    assert re.search(r"^ours +\d+ \(\d+-\d+\) +1\.00 ", printed, re.M)


def test_the_peer_gets_the_batches_that_are_trained_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from paddle_ranker.encoding.batching import BatchPlan, training_batches
    from pretraining.examples import MaskedExamples
    from pretraining.mlm_start import make_masking, open_data, start_mlm

    options = pretraining.PretrainingBenchmarkOptions(
        file=arguments(tmp_path)[1], config=str(tmp_path / "shape.json"), vocab_size=100, max_seq_length=32,
        batch_size=4, rounds=8, steps=6,
    )  # fmt: skip
    work = tmp_path / "work"
    work.mkdir()
    pretraining.prepare(options, work)
    training = pretraining.training_options(options, tmp_path / "corpus.txt", work)
    start = start_mlm(training)
    tokenizer = start.model.tokenizer
    examples = MaskedExamples(open_data(training, tokenizer).train, make_masking(training, tokenizer))
    step = 0
    for epoch in (1, 2):
        examples.begin_epoch(epoch)
        for (indices,) in training_batches(examples, BatchPlan(4, 1, 0, training.seed), epoch):
            with np.load(work / "batches" / f"train_{step}.npz") as kept:
                for field in dataclasses.fields(examples.masked(indices)):
                    np.testing.assert_array_equal(kept[field.name], getattr(examples.masked(indices), field.name))
            step += 1
            if step == 48:
                return
    assert step > 30  # an epoch and more


def test_an_unknown_system_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert pretraining.main(["--systems", "theirs"]) == 2
    assert "--systems theirs: choose from ours, transformers" in capfd.readouterr().err


def test_a_peer_without_transformers_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert pretraining.main(arguments(tmp_path, "--systems", "transformers", "--peer_python", "/bin/false")) == 1
    assert "the process of transformers ended (it said nothing): leave it out" in capfd.readouterr().err
