"""`paddle-ranker tune`: ranges, pruning, kills, the model that comes out, and who judges it."""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, Optional

import pytest
from sklearn.metrics import roc_auc_score

from ernie_matching.train_pairwise import TrainPairwiseOptions
from paddle_ranker.__main__ import main as paddle_ranker
from paddle_ranker.data.rows.records import LabeledPair, read_records
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.tuning.search_space import SearchedOption, take_searched
from paddle_ranker.tuning.tune import main
from tests.checkout import ONCE
from tests.conftest import REPOSITORY, Call, commands_here
from tests.tiny import HAN, write_encoder

pytestmark = ONCE  # Optuna is in the modern stack
WORDS = [first + second for place, first in enumerate(HAN) for second in HAN[place + 1 : place + 3]]
TRIALS = 9


def labelled(words: list[str]) -> str:
    return "".join(
        f"{word}\t论{word}\t1\n{word}\t{other}的研究\t0\n{word}\t文化{other}\t0\n"
        for word, other in zip(words, words[::-1])
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    train, dev, other = WORDS[:24], WORDS[24:48], WORDS[48:64]
    (folder / "train.csv").write_text("".join(f"{w}\t论{w}\t{o}的研究\n" for w, o in zip(train, train[::-1])))
    (folder / "dev.csv").write_text(labelled(dev))
    (folder / "other.csv").write_text(labelled(other))
    (folder / "pairs.csv").write_text("".join(f"{word}\t论{word}\n" for word in train))
    return folder


def line(data: Path, output: Path, *more: object, trials: int = TRIALS) -> list[str]:
    values = {"train": data / "train.csv", "test": data / "dev.csv", "model": data / "encoder", "output": output}
    named = [str(part) for name, value in values.items() for part in (f"--{name}", value)]
    few = ["--epochs", "2", "--eval_step", "3", "--device", "cpu", "--cpu_threads", "1", "--trials", str(trials)]
    return ["train-pairwise", *named, *few, "--learning_rate", "1e-5:1e-2:log", "--batch_size=4,8", *map(str, more)]


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "trials.tsv").open(), delimiter="\t"))


def evaluations(folder: Path) -> dict[int, float]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {record["step"]: record["evaluation"]["auc"] for record in records if "evaluation" in record}


@pytest.fixture(scope="module")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "tuned"
    with commands_here():
        assert main(line(data, folder)) == 0
    return folder


@pytest.mark.unit
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--learning_rate", "1e-5:1e-4:log"], SearchedOption("learning_rate", (1e-5, 1e-4), True, True)),
        (["--weight_decay=0:0.1"], SearchedOption("weight_decay", (0.0, 0.1), True)),
        (["--epochs", "1:4"], SearchedOption("epochs", (1, 4), True)),
        (["--max_seq_length", "32,64"], SearchedOption("max_seq_length", (32, 64))),
        (["--match_embeddings", "true,False"], SearchedOption("match_embeddings", (True, False))),
        (["--schedule", "linear,cosine"], SearchedOption("schedule", ("linear", "cosine"))),
        (["--loss", "0.5*bce+ranknet,ranknet"], SearchedOption("loss", ("0.5*bce+ranknet", "ranknet"))),
        (["--separator", ","], None),
        (["--output", "a,b"], None),
        (["--train_file", "a:b,c"], None),
        (["--learning_rate", "1e-5"], None),
    ],
)
def test_what_is_searched(words: list[str], expected: Optional[SearchedOption]) -> None:
    kept, searched = take_searched(TrainPairwiseOptions, [*words, "--use_amp"])
    assert searched == ([expected] if expected else [])
    assert kept == [*([] if expected else words), "--use_amp"]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--learning_rate 1e-5:1e-4:lg", "--learning_rate 1e-5:1e-4:lg: expected LOW:HIGH, LOW:HIGH:log, or values"),
        ("--learning_rate 1e-4:1e-5", "--learning_rate 1e-4:1e-5: the first end of a range is below the second"),
        ("--learning_rate 1e-5:nan", "--learning_rate 1e-5:nan: 'nan' is not a number"),
        ("--weight_decay 0:1:log", "--weight_decay 0:1:log: log needs a range above 0"),
        ("--epochs 1.5:3", "--epochs 1.5:3: '1.5' is not a whole number"),
        ("--epochs 2,", "--epochs 2,: '' is not a whole number"),
        ("--epochs 2,2", "--epochs 2,2: expected different values"),
        ("--use_amp true,maybe", "--use_amp true,maybe: 'maybe' is not true or false"),
        ("--eval_step 10,20", "--eval_step 10,20: tune does not search this option"),
        ("--seed 1:9", "--seed 1:9: tune does not search this option"),
        ("--metric auc,map", "--metric auc,map: tune does not search this option"),
        ("--epochs 0:2", "--epochs 0: must be at least 1"),
        ("--schedule linear,cosin", "--schedule cosin: choose from linear"),
        ("--epochs 1:3 --epochs 2", "--epochs: has one value, and others to search"),
        ("", "there is nothing to search: give an option a range"),
        ("--epochs 1:3 --judge DATA/dev.csv", "24 of its queries are in"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(
    data: Path, tmp_path: Path, call: Call, words: str, problem: str
) -> None:
    arguments = line(data, tmp_path / "run")[:9]  # without what is searched
    status, out, err = call(main, *arguments, *words.replace("DATA", str(data)).split())
    assert status in (1, 2) and problem in err and "trial" not in out


@pytest.mark.unit
@pytest.mark.parametrize("name", ["pretrain", "train-entailment", "evaluate", "train-pairwis"])
def test_trainings_that_are_not_measured_over_queries_are_refused(call: Call, name: str) -> None:
    status, _, err = call(main, name, "--learning_rate", "1e-5:1e-4")
    assert status == 2
    assert f"tune '{name}': choose from train-pairwise, train-ce, train-batch-neg, train-simcse" in err


@pytest.mark.unit
def test_a_missing_library_is_said_first(
    data: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    status, _, err = call(main, *line(data, tmp_path / "run"))
    assert status == 1 and err.endswith("pip install 'paddle-ranker[tune]'\n") and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_bad_trials_are_pruned_and_their_checkpoints_deleted(tuned: Path) -> None:
    rows, completed = table(tuned), dict[int, dict[int, float]]()
    assert rows[0] == {**rows[0], "trial": "0", "state": "complete", "learning_rate": "5e-05", "batch_size": "32"}
    assert {row["state"] for row in rows} == {"complete", "pruned"} and len(rows) == TRIALS
    best = max(rows, key=lambda row: float(row["auc"]) if row["state"] == "complete" else 0)
    for number, row in enumerate(rows):
        folder, size = tuned / f"trial_{number}", int(row["batch_size"])
        measured = {size * step: value for step, value in evaluations(folder).items()}
        last = max(measured)
        others = [values[last] for values in completed.values() if last in values]
        assert (row["state"] == "pruned") == (
            len(completed) >= 5 and bool(others) and max(measured.values()) < median(others)
        )
        if row["state"] == "complete":
            completed[number] = measured
            assert float(row["auc"]) == pytest.approx(max(measured.values()), abs=1e-6)
        assert (folder / "best").exists() == any(folder.glob("model_*")) == (number in (0, int(best["trial"])))
    assert (tuned / "best").resolve().parent.name == f"trial_{best['trial']}"


@pytest.mark.slow
def test_the_last_line_is_about_queries_that_chose_nothing(tuned: Path, data: Path) -> None:
    choosing, judging, dev = (
        read_records(path, LabeledPair)
        for path in (tuned / "choosing.jsonl", tuned / "judging.jsonl", data / "dev.csv")
    )
    queries = [{pair.query for pair in pairs} for pairs in (choosing, judging)]
    assert not queries[0] & queries[1] and set(map(len, queries)) == {12}
    assert sorted(map(repr, [*choosing, *judging])) == sorted(map(repr, dev))
    areas = []
    for folder in (tuned / "trial_0" / "best", tuned / "best"):
        scores = Ranker.load(folder).score([pair.query for pair in judging], [pair.title for pair in judging])
        areas.append(roc_auc_score([pair.label for pair in judging], scores))
    *_, measured, verdict = (tuned / "report.txt").read_text().splitlines()
    trial = (tuned / "best").resolve().parent.name.replace("_", " ")
    assert measured.startswith(f"on 12 queries that chose nothing: auc of the defaults {areas[0]:.4f} [")
    assert f", {trial} {areas[1]:.4f} [" in measured
    assert f"AUC {areas[1] - areas[0]:+.3f} [" in verdict and f"{trial} " in verdict and "the defaults" in verdict


@pytest.mark.slow
def test_the_printed_line_repeats_the_best_training(
    tuned: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (printed,) = (text for text in (tuned / "report.txt").read_text().splitlines() if "to train it again: " in text)
    program, *arguments = shlex.split(printed.partition("to train it again: ")[2])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [program])
    assert program == "paddle-ranker" and call(paddle_ranker, *arguments)[0] == 0
    assert evaluations(tmp_path / "checkpoint") == evaluations((tuned / "best").resolve().parent)


@pytest.mark.slow
def test_a_killed_tune_goes_on_as_if_nothing_had_happened(tuned: Path, data: Path, tmp_path: Path, call: Call) -> None:
    output, trials = tmp_path / "killed", 4
    words = line(data, output, trials=trials)
    process = subprocess.Popen([sys.executable, "-m", "paddle_ranker", "tune", *words], cwd=REPOSITORY)
    end = time.monotonic() + 300
    while not list(output.glob("trial_2/state_*")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(table(output)) == 2 and not (output / "report.txt").exists()
    status, out, err = call(main, *words)
    assert status == 2 and f"{output}: has trials already; add --resume to go on" in err
    status, out, err = call(main, *words, "--resume", "--weight_decay", "0.1")
    assert status == 2 and f"--resume: {output} has trials with another weight_decay" in err, err
    status, out, err = call(main, *words, "--resume")
    assert status == 0 and "trial 1:" not in out and "resume after step" in out
    assert table(output) == table(tuned)[:trials]


@pytest.mark.thorough(keep=1)
@pytest.mark.slow
@pytest.mark.parametrize("judge", [True, False])
def test_towers_are_tuned_and_judged_too(data: Path, tmp_path: Path, call: Call, judge: bool) -> None:
    # What is learned by heart is what chooses: the high rates are the best.
    files: dict[str, Any] = {"train": "pairs.csv", "test": "pairs.csv", **({"judge": "other.csv"} if judge else {})}
    named = [part for name, file in files.items() for part in (f"--{name}", data / file)]
    fixed = ["--model", data / "encoder", "--output", tmp_path / "run", "--metric", "mrr@10", "--eval_step", 6]
    searched = ["--learning_rate", "3e-3:1e-2", "--epochs", 6, "--batch_size", 4, "--trials", 2, "--device", "cpu"]
    status, out, err = call(main, "train-batch-neg", *named, *fixed, *searched)
    assert status == 0, err
    queries = 16 if judge else 12
    *_, measured, verdict = out.splitlines()
    assert measured.startswith(f"on {queries} queries that chose nothing: mrr@10 of the defaults 0.")
    assert "trial 1" in verdict and "MRR@10 " in verdict
    assert (tmp_path / "run" / "best" / "tower.json").exists()


@pytest.mark.slow
def test_a_trial_that_fails_is_left_behind(data: Path, tmp_path: Path, call: Call) -> None:
    # With values of this size the loss is no number.
    words = [*line(data, tmp_path / "run", trials=3)[:-3], "--learning_rate", "1e30:1e35"]
    status, out, err = call(main, *words)
    assert status == 0 and "trial 1 failed: the " in err and "3 trials (1 complete, 2 fail)" in out
    assert out.splitlines()[-1] == "Nothing is gained over the defaults: they are the best of 3 trials."
