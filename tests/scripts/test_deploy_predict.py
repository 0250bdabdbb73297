"""deploy/python/predict.py: its formats, streams, complete or missing outputs, and errors."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

import paddle_ranker.scoring.files as scoring
from paddle_ranker import Ranker
from paddle_ranker.data.rows.trec import read_run
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.model.model_folder import RANKER, load_model
from paddle_ranker.storage.prefetch import chunks
from tests.conftest import REPOSITORY, Call, load_script
from tests.tiny import PAIRS, draw_words, write_ranker

pytestmark = pytest.mark.server
SCRIPT = load_script("deploy/python/predict.py")
CPU = ("--device", "cpu", "--cpu_threads", "1")
COMMAND = [sys.executable, str(REPOSITORY / "deploy/python/predict.py"), *CPU]
QUERIES, TITLES = [list(column) for column in zip(*PAIRS)]
Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return an exported ranker of each kind, with the same parameters."""
    folder = tmp_path_factory.mktemp("deploy")
    for kind in ("pairwise", "cross_encoder"):
        write_ranker(folder / f"ranker_{kind}", kind=kind)
        export_model(load_model(folder / f"ranker_{kind}", RANKER), folder / kind)
    return {kind: folder / kind for kind in ("pairwise", "cross_encoder")}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.tsv"
    path.write_text("".join(f"{query}\t{title}\n" for query, title in PAIRS), encoding="utf-8")
    return path


@pytest.fixture
def predict(call: Call, exported: dict[str, Path]) -> Predict:
    """Return a function that scores a file with an exported ranker (kind or folder): status, output and errors."""

    def run(ranker: Any, rows: Path, *more: object) -> tuple[int, str, str]:
        return call(SCRIPT.main, "--model_dir", exported.get(ranker, ranker), "--input_file", rows, *CPU, *more)

    return run


def write_rows(path: Path, texts: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{query}\t{title}\n" for query, title in texts), encoding="utf-8")
    return path


def test_the_project_s_output_is_found_from_elsewhere(
    exported: dict[str, Path], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    (project / "output").symlink_to(exported["pairwise"])
    monkeypatch.setattr(SCRIPT, "PROJECT", project)
    monkeypatch.chdir(elsewhere)
    status, printed, errors = call(SCRIPT.main, "--input_file", rows, *CPU)
    assert status == 0 and len(printed.splitlines()) == len(PAIRS)
    assert f"note: ./output is not here; taking {project / 'output'}" in errors
    # A folder that the user names is not replaced.
    assert call(SCRIPT.main, "--input_file", rows, *CPU, "--model_dir", "other")[0] == 1
    (elsewhere / "output").symlink_to(exported["cross_encoder"])
    status, printed, errors = call(SCRIPT.main, "--input_file", rows, *CPU)
    # The caller's own export, a cross-encoder.
    assert status == 0 and "note: ./output" not in errors and "prob: 0." in printed


@pytest.mark.parametrize(("kind", "digits"), [("pairwise", 7), ("cross_encoder", 5)])
def test_the_published_lines_of_either_kind(
    predict: Predict, exported: dict[str, Path], rows: Path, kind: str, digits: int
) -> None:
    reference = Ranker.load(exported["pairwise"]).score(QUERIES, TITLES)
    status, printed, _ = predict(kind, rows)
    lines = printed.splitlines()
    assert status == 0 and len(lines) == len(PAIRS)
    for line, (query, title), probability in zip(lines, PAIRS, reference):
        data, _, shown = line.partition("\tprob: ")
        assert ast.literal_eval(data.removeprefix("Data: ")) == {"query": query, "title": title}
        assert shown.startswith("[") == (kind == "pairwise")
        assert float(shown.strip("[]")) == pytest.approx(probability, abs=10.0**-digits)


def test_json_lines_and_runs(predict: Predict, tmp_path: Path) -> None:
    texts = [("深度学习", "农业"), ("经济", "经济增长"), ("深度学习", "神经网络"), ("深度学习", "深度")]
    recalled = [(query, f"{title}\t0.{number}") for number, (query, title) in enumerate(texts, 1)]
    rows, target = write_rows(tmp_path / "rows.tsv", recalled), tmp_path / "run.trec"
    status, printed, _ = predict("pairwise", rows, "--format", "jsonl")
    found = [json.loads(line) for line in printed.splitlines()]
    assert status == 0 and [(one["query"], one["title"]) for one in found] == texts
    assert [one["recall_score"] for one in found] == [0.1, 0.2, 0.3, 0.4]

    assert predict("pairwise", rows, "--format", "run", "--output_file", target)[0] == 0
    by_row = {f"d{row}": one["probability"] for row, one in enumerate(found, 1)}
    listed = {query: sorted(documents) for query, documents in read_run(str(target)).run.items()}
    assert listed == {"q1": ["d1", "d3", "d4"], "q2": ["d2"]}
    lines = [line.split() for line in target.read_text().splitlines()]
    for _, _, document, _, score, _ in lines:
        assert float(score) == pytest.approx(by_row[document], abs=1e-6)
    places, scores = zip(*((line[3], float(line[4])) for line in lines if line[0] == "q1"))
    assert places == ("1", "2", "3") and [*scores] == sorted(scores, reverse=True)


def test_a_cut_off_leaves_titles_out_and_says_how_many(predict: Predict, exported: dict[str, Path], rows: Path) -> None:
    probabilities = np.sort(Ranker.load(exported["pairwise"]).score(QUERIES, TITLES))
    _, printed, errors = predict("pairwise", rows, "--min_probability", float(probabilities[2:4].mean()))
    assert len(printed.splitlines()) == 3 and "3 of 6 pairs are below" in errors


def test_standard_input_gives_what_the_file_gives(exported: dict[str, Path], rows: Path, predict: Predict) -> None:
    command = [*COMMAND, "--model_dir", str(exported["pairwise"]), "--input_file", "-"]
    piped = subprocess.run(command, input=rows.read_bytes(), stdout=subprocess.PIPE, check=True).stdout.decode()
    assert piped.count("\n") == len(PAIRS)
    for line, other in zip(piped.splitlines(), predict("pairwise", rows)[1].splitlines()):
        (data, _, shown), (expected, _, probability) = line.partition("\tprob: "), other.partition("\tprob: ")
        assert data == expected and float(shown.strip("[]")) == pytest.approx(float(probability.strip("[]")), abs=1e-6)


def test_rows_come_in_order_over_several_chunks(
    predict: Predict, exported: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, words = draw_words()
    target = tmp_path / "scores.jsonl"
    texts = [(str(random.choice(words)), "".join(random.choice(words, 3))) for _ in range(300)]
    monkeypatch.setattr(scoring, "chunks", lambda items, size: chunks(items, 32))
    rows = write_rows(tmp_path / "rows.tsv", texts)
    assert predict("pairwise", rows, "--format", "jsonl", "--output_file", target)[0] == 0
    found = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [(one["query"], one["title"]) for one in found] == texts
    reference = Ranker.load(exported["pairwise"]).score(*map(list, zip(*texts)))
    np.testing.assert_allclose([one["probability"] for one in found], reference, atol=1e-5)


def test_a_bad_row_far_into_the_file_leaves_no_output(predict: Predict, tmp_path: Path) -> None:
    rows, target = write_rows(tmp_path / "rows.tsv", [*[("深度", "学习")] * 40, ("深度", "")]), tmp_path / "out.txt"
    target.write_text("older")
    status, _, errors = predict("pairwise", rows, "--output_file", target)
    assert status == 1 and "rows.tsv, line 41" in errors
    assert target.read_text() == "older" and sorted(os.listdir(tmp_path)) == ["out.txt", "rows.tsv"]


@pytest.mark.parametrize(
    ("ranker", "arguments", "message"),
    [
        (".", [], "is an empty folder, not a ranker"),
        ("pairwise", ["--precision", "fp16"], "fp16 needs --device gpu"),
        ("pairwise", ["--engine", "onxx"], "did you mean onnx?"),
        ("pairwise", ["--device", "gpu:9"], "type --device cpu"),
        ("pairwise", ["--output_file", "none/out"], "cannot be written there"),
    ],
)
def test_what_it_refuses(
    predict: Predict, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    ranker: str, arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    status, _, errors = predict(ranker, rows, *arguments)
    assert status in (1, 2) and message in errors
