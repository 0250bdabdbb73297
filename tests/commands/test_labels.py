"""Recall scores in the place of labels, through every command that reads labels: refused, unless they are asked for."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from cross_encoder import evaluate as evaluate_ce
from cross_encoder import train_ce
from ernie_matching import evaluate, train_pairwise
from paddle_ranker.commands import blend, calibrate, cascade, compare, distill, make_triples, mine
from tests.conftest import Call
from tests.tiny import write_encoder, write_ranker

pytestmark = pytest.mark.parity

RECALL = "深度\t深度学习\t0.93\n深度\t水稻\t0.41\n农业\t农业教育\t1.0\n农业\t语言\t0.87\n"
DEV = "深度\t深度学习\t1\n深度\t水稻\t0\n农业\t农业教育\t1\n农业\t语言\t0\n"
TRAINING = "--model_name_or_path encoder --save_dir made --max_seq_length 32"
COMMANDS = (
    (evaluate, "--init_from_ckpt pairwise --test_file recall.csv"),
    (evaluate_ce, "--init_from_ckpt cross --test_file recall.csv"),
    (compare, "pairwise --test_file recall.csv"),
    (compare, "pairwise --test_file dev.csv --train_file recall.csv"),
    (cascade, "pairwise cross:2 --test_file recall.csv"),
    (calibrate, "pairwise recall.csv --output made"),
    (blend, "pairwise recall.csv made --other cross"),
    (blend, "pairwise dev.csv made --train_file recall.csv"),
    (train_ce, f"--train_set recall.csv --test_file dev.csv {TRAINING}"),
    (train_ce, f"--train_set dev.csv --test_file recall.csv {TRAINING}"),
    (train_pairwise, f"--train_file triples.csv --test_file recall.csv {TRAINING}"),
    (mine, "--queries recall.csv --corpus corpus.txt --output_file made.tsv"),
    (distill, "pairwise recall.csv made.tsv"),
    (make_triples, "--input_file recall.csv --output_file made.tsv"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_ranker(tmp_path / "pairwise")
    write_ranker(tmp_path / "cross", kind="cross_encoder", seed=2)
    write_encoder(tmp_path / "encoder")
    texts = {
        "recall.csv": RECALL,
        "dev.csv": DEV,
        "triples.csv": "深度\t深度学习\t水稻\n",
        "corpus.txt": "水稻\n语言\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("command", "line"), COMMANDS)
def test_recall_scores_do_not_pass_for_labels(
    folder: Path, command: ModuleType, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    device = "" if command is make_triples else "--device cpu"
    assert command.main(f"{line} {device} --skip_bad_rows".split()) == 1
    printed = capsys.readouterr()
    assert (
        "recall.csv, line 1: the label 0.93 is a fraction, and labels are whole numbers from 0 up: 3 of the 4 rows "
        "looked at from there on hold one"
    ) in printed.err and "type --fractional_labels true" in printed.err
    assert "auc" not in printed.out.lower() and not (folder / "made.tsv").exists()


def test_fractions_that_are_labels_are_taken_where_they_are_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--device", "cpu", "--fractional_labels", "true"]
    assert evaluate.main(["--init_from_ckpt", "pairwise", "--test_file", "recall.csv", *asked]) == 0
    assert "auc" in capsys.readouterr().out
    assert make_triples.main(["--input_file", "recall.csv", "--output_file", "made.tsv", "--fractional_labels"]) == 0
    assert "农业\t农业教育\t语言" in (folder / "made.tsv").read_text(encoding="utf-8")
    qrels = ["--init_from_ckpt", "pairwise", "--qrels", "dev.csv", "--queries", "dev.csv", "--documents", "dev.csv"]
    assert evaluate.main(qrels + asked) == 2
    assert "--fractional_labels goes with --test:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q 0 d 0.5\n", "the label '0.5' is not a whole number"),
        ("q 0 d 1e300\n", "the label '1e300' is not a whole number from -1,000 to 1,000"),
        ("q Q0 d 1 2.5 bm25\n", "6 fields, expected query 0 document label"),
    ],
)
def test_a_run_is_no_file_of_labels(folder: Path, call: Call, text: str, message: str) -> None:
    (folder / "qrels").write_text(text)
    line = "--init_from_ckpt pairwise --qrels qrels --queries dev.csv --documents dev.csv --device cpu"
    status, _, errors = call(evaluate.main, *line.split())
    assert status == 1 and message in errors


def test_a_file_with_commas_is_measured_as_one_with_tabs_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "comma.csv").write_text(DEV.replace("\t", ","), encoding="utf-8")
    line = ["--init_from_ckpt", "pairwise", "--device", "cpu", "--test_file"]
    assert evaluate.main([*line, "comma.csv"]) == 1
    printed = capsys.readouterr()
    assert "with --separator , it has 3: type that" in printed.err and "correct the row" not in printed.err
    assert evaluate.main([*line, "comma.csv", "--separator", ","]) == 0
    with_commas = capsys.readouterr().out
    assert evaluate.main([*line, "dev.csv"]) == 0
    assert capsys.readouterr().out == with_commas.replace("comma.csv", "dev.csv")


def test_the_same_file_for_training_and_testing_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "copy.csv").write_text(DEV, encoding="utf-8")
    line = (
        "--train_set dev.csv --test_file copy.csv --model_name_or_path encoder --save_dir made --max_seq_length 32 "
        "--max_steps 1 --device cpu --eval_step 1"
    )
    assert train_ce.main(line.split()) == 0
    assert "warning: --test copy.csv is --train dev.csv (the same content)" in capsys.readouterr().err
