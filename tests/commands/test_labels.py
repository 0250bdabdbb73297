"""Files of labels that are read otherwise where it is asked for: fractions, commas."""

from __future__ import annotations

from pathlib import Path

import pytest

from cross_encoder import train_ce
from ernie_matching import evaluate
from paddle_ranker.commands import make_triples
from tests.conftest import Call
from tests.tiny import write_encoder, write_ranker

pytestmark = pytest.mark.parity

DEV = "深度\t深度学习\t1\n深度\t水稻\t0\n农业\t农业教育\t1\n农业\t语言\t0\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_ranker(tmp_path / "pairwise")
    fractions = "深度\t深度学习\t0.93\n深度\t水稻\t0.41\n农业\t农业教育\t1.0\n农业\t语言\t0.87\n"
    for name, text in (("fractions.csv", fractions), ("dev.csv", DEV), ("comma.csv", DEV.replace("\t", ","))):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_fractions_that_are_labels_are_taken_where_they_are_asked_for(folder: Path, call: Call) -> None:
    asked = ["--device", "cpu", "--fractional_labels", "true"]
    status, printed, _ = call(evaluate.main, "--model", "pairwise", "--test", "fractions.csv", *asked)
    assert status == 0 and "auc" in printed
    made = ["--input", "fractions.csv", "--output", "made.tsv", "--fractional_labels"]
    assert call(make_triples.main, *made)[0] == 0
    assert "农业\t农业教育\t语言" in (folder / "made.tsv").read_text(encoding="utf-8")


def test_a_file_with_commas_is_measured_as_one_with_tabs_is(folder: Path, call: Call) -> None:
    line = ["--model", "pairwise", "--device", "cpu", "--test"]
    status, printed, errors = call(evaluate.main, *line, "comma.csv", "--separator", ",")
    assert status == 0, errors
    assert call(evaluate.main, *line, "dev.csv")[1] == printed.replace("comma.csv", "dev.csv")


def test_the_same_file_for_training_and_testing_is_named(folder: Path, call: Call) -> None:
    write_encoder(folder / "encoder")
    (folder / "copy.csv").write_text(DEV, encoding="utf-8")
    line = (
        "--train dev.csv --test copy.csv --model encoder --output made --max_seq_length 32 --max_steps 1 --device cpu"
    )
    status, _, errors = call(train_ce.main, *line.split())
    assert status == 0 and "--test copy.csv is --train dev.csv (the same content)" in errors
