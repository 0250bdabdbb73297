"""The benchmarks of mining and distillation on tiny data: who learns from what, and that figures are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import distillation, mining
from benchmarks.harness.runs import Split, make_splits
from benchmarks.small_rankers import FoldsOptions, Harness, Recipe
from paddle_ranker.data.records import LabeledPair, read_records, write_records
from paddle_ranker.errors import RankerError
from tests.benchmarks.test_quality import graded_pairs

unit, slow = pytest.mark.unit, pytest.mark.slow
TINY = ["--folds=2", "--hidden_size=16", "--max_steps=2", "--max_seq_length=24", "--resamples=50"]
TINY += ["--mine_options=--method=random"]  # so few titles share no words


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    (tmp_path / "data" / "qbqtc").mkdir(parents=True)
    write_records(tmp_path / "data" / "qbqtc" / "train.tsv", graded_pairs(12, 1))
    return tmp_path / "data"


def harness_of(data: Path, folder: Path) -> tuple[Harness, Split]:
    measured, splits = make_splits(str(data), "qbqtc", "cv", 2)
    folder.mkdir()
    return Harness(folder, measured, splits[0], 1, FoldsOptions()), splits[0]


@unit
def test_what_is_held_out_is_not_learned_from(tiny_data: Path, tmp_path: Path) -> None:
    harness, split = harness_of(tiny_data, tmp_path / "w")
    learned, held_out = read_records(harness.learn, LabeledPair), read_records(harness.held_out, LabeledPair)
    assert not {pair.query for pair in learned} & {pair.query for pair in held_out}
    assert len(held_out) == len(split.rows) and len(learned) + len(held_out) == 48


@unit
def test_a_file_is_made_once_and_a_failed_command_is_an_error(tiny_data: Path, tmp_path: Path) -> None:
    harness, _ = harness_of(tiny_data, tmp_path / "w")
    calls = []

    def command(arguments: object) -> int:
        calls.append(arguments)
        Path(list(arguments)[1]).write_text("x")  # type: ignore[call-overload]
        return 0

    path = harness.file("a.tsv", command, "--out", "{out}")
    assert harness.file("a.tsv", command, "--out", "{out}") == path and calls == [["--out", str(path)]]
    with pytest.raises(RankerError, match=r"b\.tsv could not be made"):
        harness.file("b.tsv", lambda arguments: 1)


@unit
def test_mined_files_hold_the_same_positives_and_no_judged_negative_row(tiny_data: Path, tmp_path: Path) -> None:
    harness, _ = harness_of(tiny_data, tmp_path / "w")
    rows = mining.Mining(mining.MiningOptions(mine_options="--words=bigram"))
    positives = [pair for pair in read_records(harness.learn, LabeledPair) if pair.label >= 1]
    for name, more in (("random", ["--method", "random"]), ("mined", []), ("mined_top", ["--sample", "top"])):
        found = read_records(rows._mine(name, harness, *more), LabeledPair)
        assert [pair for pair in found if pair.label >= 1] == positives
        answers = {(pair.query, pair.title) for pair in positives}
        assert not {(pair.query, pair.title) for pair in found if pair.label == 0} & answers


@slow
def test_a_ranker_is_trained_once_and_its_last_checkpoint_scores(tiny_data: Path, tmp_path: Path) -> None:
    harness, split = harness_of(tiny_data, tmp_path / "w")
    recipe = Recipe(1, 16, 1e-3, 1, ("--loss=bce", "--max_steps=2"))
    scores, seconds = harness.train("a", harness.learn, recipe)
    assert scores.shape == (len(split.rows),) and seconds > 0
    assert harness.train("a", harness.learn, recipe)[0] is scores
    assert (harness.ranker("a") / "ranker.json").is_file()


@slow
@pytest.mark.parametrize(
    "module, count, more",
    [
        (mining, 5, ["--guard=--max_score_ratio=1"]),
        (distillation, 6, ["--teacher_layers=1", "--teacher_hidden_size=32"]),
    ],
)
def test_commands(
    module: object, count: int, more: list[str], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found_file = tmp_path / "found.json"
    arguments = [f"--data_dir={tiny_data}", *TINY, *more, f"--scores_dir={tmp_path / 'runs'}", f"--json={found_file}"]
    assert module.main(arguments) == 0  # type: ignore[attr-defined]
    found = json.loads(found_file.read_text(encoding="utf-8"))
    assert (found["pairs"], found["queries"], len(found["systems"])) == (48, 12, count)
    first = capsys.readouterr().out
    assert f"{module.REFERENCE} ahead, nDCG@10" in first and "on 48 pairs of 12 queries" in first  # type: ignore[attr-defined]

    assert module.main(arguments) == 0  # type: ignore[attr-defined]  # from what was kept
    assert json.loads(found_file.read_text(encoding="utf-8")) == found
    assert "global step" not in capsys.readouterr().out


@unit
@pytest.mark.parametrize("module", [mining, distillation])
def test_wrong_systems(module: object, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main([f"--data_dir={tiny_data}", "--systems=random,nothing"]) == 2  # type: ignore[attr-defined]
    assert "choose from" in capsys.readouterr().err
