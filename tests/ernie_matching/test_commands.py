"""The pairwise ranker's commands as users type them, from another folder: each in a real process, and in many calls."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from paddle_ranker import Ranker
from paddle_ranker.__main__ import main
from tests.conftest import Call
from tests.started import run_script
from tests.tiny import draw_words, write_encoder

pytestmark = pytest.mark.server  # real processes take seconds each
CPU = ("--device", "cpu")


@pytest.fixture
def call(call: Call) -> Call:
    """Return a function that calls a command by its name."""
    return lambda command, *more: call(importlib.import_module(f"ernie_matching.{command}").main, *more)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a tiny encoder, training triples, a labelled file, and pairs to score; return it."""
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    random, words = draw_words()
    triples, labelled = ["query\ttitle\tneg_title"], ["query\ttitle\tlabel"]
    for word in words:
        other, third = random.choice(words, 2)
        triples.append(f'{word}\t{word}的"研究",{third}\t{other}的研究')
        labelled += [f"{word}\t论{word}\t1", f"{word}\tNA\t0", f"{word}\t论{other}{third}\t{int(other == word)}"]
    (folder / "train.csv").write_text("\n".join(triples) + "\n", encoding="utf-8")
    (folder / "dev.csv").write_text("\n".join(labelled) + "\n", encoding="utf-8")
    (folder / "pairs.csv").write_text("".join(f"{w}\t论{w}\t0.5\n" for w in words[:9]), encoding="utf-8")
    return folder


def training(data: Path, *more: object) -> list[object]:
    own = {"--train_file": "train.csv", "--test_file": "dev.csv"}
    files = [part for name, file in own.items() if name not in more for part in (name, data / file)]
    small = ["--model_name_or_path", data / "encoder", "--device", "cpu", "--batch_size", 8, "--epochs", 2]
    return [*files, *small, "--learning_rate", 1e-3, "--eval_step", 5, "--logging_steps", 5, *more]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Train through the command; return the save folder and the output."""
    folder = tmp_path_factory.mktemp("trained")
    done = run_script("ernie_matching/train_pairwise.py", *training(data), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "checkpoint", done.stdout


def test_training_prints_the_published_lines_and_leaves_the_published_files(trained: tuple[Path, str]) -> None:
    checkpoint, printed = trained
    assert re.search(r"^global step 10, epoch: 2, batch: 5, loss: \d\.\d{5}, speed: \d+\.\d\d step/s$", printed, re.M)
    assert len(re.findall(r"^eval_dev auc:[01]\.\d{3}$", printed, re.M)) == 2
    assert {path.name for path in (checkpoint / "model_10").iterdir()} == {
        "README.md", "config.json", "model_state.pdparams", "ranker.json", "special_tokens_map.json",
        "tokenizer_config.json", "vocab.txt",
    }  # fmt: skip
    assert (checkpoint / "last").resolve().name == "model_10"


def rows_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def test_evaluation_agrees_with_scikit_learn_and_with_training(
    trained: tuple[Path, str], data: Path, call: Call
) -> None:
    checkpoint, printed = trained
    files = ["--test_file", data / "dev.csv", *CPU]
    status, found, errors = call("evaluate", "--init_from_ckpt", checkpoint / "last" / "model_state.pdparams", *files)
    assert status == 0, errors
    queries, titles, labels = zip(*rows_of(data / "dev.csv")[1:])
    auc = roc_auc_score([*map(int, labels)], Ranker.load(checkpoint / "last").score(queries, titles))
    assert found.splitlines()[0] == f"eval_dev auc:{auc:.3f}" and "pairs_ordered: " in found
    assert re.findall(r"eval_dev auc:\S+", printed)[-1] == f"eval_dev auc:{auc:.3f}"
    folder = ["--init_from_ckpt", checkpoint / "last", *files]
    assert call("evaluate", *folder)[:2] == (0, found)
    narrow, wide = (
        float(re.findall(r"margin_loss: (\S+)", call("evaluate", *folder, "--margin", margin)[1])[0])
        for margin in (0.5, 2.0)
    )
    assert narrow < wide


def test_prediction_prints_a_line_a_pair_and_the_fast_one_the_same(
    trained: tuple[Path, str], data: Path, call: Call
) -> None:
    checkpoint, _ = trained
    arguments = ["--params_path", checkpoint / "best", "--input_file", data / "pairs.csv", *CPU]
    queries, titles, _ = zip(*rows_of(data / "pairs.csv"))
    expected = Ranker.load(checkpoint / "best").score(queries, titles)
    one_by_one, together = (call("predict_pairwise", *arguments, *more)[1] for more in (["--batch_size", 1], []))
    for printed, tolerance in ((together, 1e-6), (one_by_one, 1e-5)):
        lines = [ast.literal_eval(line) for line in printed.splitlines()]
        assert [list(line) for line in lines] == [["query", "title", "recall_score", "pred_prob"]] * 9
        assert [(line["query"], line["title"]) for line in lines] == [*zip(queries, titles)]
        np.testing.assert_allclose([line["pred_prob"] for line in lines], expected, atol=tolerance)
    assert call("predict_pairwise_fast", *arguments)[:2] == (0, together)


def test_a_typing_error_shows_without_waiting_for_paddle(data: Path, tmp_path: Path) -> None:
    (tmp_path / "paddle.py").write_text("raise AssertionError('it was imported')", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run_script("ernie_matching/train_pairwise.py", *training(data, "--epoch", 3), cwd=tmp_path, env=environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "unknown option --epoch (did you mean --epochs?)" in done.stderr


def test_bad_rows_are_counted_and_the_device_that_is_there_is_named_once(data: Path, tmp_path: Path) -> None:
    lines = (data / "train.csv").read_text(encoding="utf-8").splitlines()
    lines[16] = "only\ttwo"
    (tmp_path / "bad.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    arguments = training(data, "--train_file", tmp_path / "bad.csv", "--skip_bad_rows", "--max_steps", 1)
    arguments = [argument for argument in arguments if argument not in CPU]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = run_script("ernie_matching/train_pairwise.py", *arguments, cwd=tmp_path, env=environment)
    assert done.returncode == 0 and "kept 39; skipped 1 (line 17: 2 columns, expected 3)" in done.stdout, done.stderr
    assert re.findall(r"^device: \w+ \(", done.stderr, re.M) == ["device: cpu ("]
    told = json.loads((tmp_path / "checkpoint" / "last" / "ranker.json").read_text(encoding="utf-8"))
    assert told["training"]["device"] == "cpu"


def test_the_rank_command_orders_each_querys_titles(
    trained: tuple[Path, str], tmp_path: Path, capfd: pytest.CaptureFixture[str], same_process: None
) -> None:
    (tmp_path / "pairs.csv").write_text("深\t水稻\n学\t深度\n深\t深度\n深\t老年\n", encoding="utf-8")
    files = ["--params_path", str(trained[0] / "last"), "--input_file", str(tmp_path / "pairs.csv")]
    assert main(["rank", *files, "--top_k", "2", "--format", "jsonl", *CPU]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["query"] for line in lines] == ["深", "学"]
    expected = Ranker.load(trained[0] / "last").rank("深", ["水稻", "深度", "老年"], top_k=2)
    assert [t["title"] for t in lines[0]["titles"]] == [t.title for t in expected]
