"""The cross-encoder's commands as users type them: real processes, real files, from another folder."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from paddle_ranker import Ranker
from tests.checkout import ONCE
from tests.conftest import REPOSITORY, Call
from tests.started import run_script
from tests.tiny import HAN, draw_words, write_encoder, write_ranker

pytestmark = pytest.mark.server  # real processes take seconds each


@pytest.fixture
def call(call: Call) -> Call:
    """Return a function that calls a command by its name."""
    return lambda command, *more: call(importlib.import_module(f"cross_encoder.{command}").main, *more)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a tiny encoder, labelled pairs to train and evaluate on, and pairs to score; return it."""
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    draw, words = draw_words()
    train, dev, test = [], ["query\ttitle\tlabel"], []
    for word in words:
        other, third = draw.choice(words, 2)
        train += [f'{word}\t{word}的"研究",{third}\t1', f"{word}\tNA\t0"]
        dev += [f"{word}\t论{word}\t2", f"{word}\tNA\t0", f"{word}\t论{other}{third}\t{int(other == word)}"]
    for round_ in range(4):  # the rows of a query are not adjacent
        test += [f"{word}\t论{words[i + round_]}{'深度学习' * round_}\t0.{round_}" for i, word in enumerate(words[:6])]
    (folder / "train.csv").write_text("\n".join(train) + "\n", encoding="utf-8")  # as published: no header
    (folder / "dev.csv").write_text("\n".join(dev) + "\n", encoding="utf-8")
    (folder / "test.csv").write_text("\n".join(test) + "\n", encoding="utf-8")
    return folder


def training(data: Path, *more: object) -> list[object]:
    train = [] if "--train_set" in more else ["--train_set", data / "train.csv"]
    files = [*train, "--test_file", data / "dev.csv", "--model_name_or_path"]
    small = [data / "encoder", "--device", "cpu", "--batch_size", 8, "--epochs", 2, "--learning_rate", 1e-3]
    return [*files, *small, *more]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Train through the command; return the save folder and the output."""
    folder = tmp_path_factory.mktemp("trained")
    steps = ["--valid_steps", 10, "--save_steps", 5, "--logging_steps", 10]
    done = run_script("cross_encoder/train_ce.py", *training(data, *steps), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "checkpoint", done.stdout


def test_training_prints_the_published_lines_and_leaves_the_published_files(trained: tuple[Path, str]) -> None:
    checkpoint, printed = trained
    line = r"^global step 20, epoch: 2, batch: 10, loss: \d\.\d{5}, accuracy: [01]\.\d{5}, speed: \d+\.\d\d step/s$"
    assert re.search(line, printed, re.M), printed
    assert len(re.findall(r"^eval_dev auc:[01]\.\d{3}$", printed, re.M)) == 2
    assert sorted(path.name for path in checkpoint.glob("model_*")) == ["model_10", "model_15", "model_20", "model_5"]
    published = {"model_state.pdparams", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"}
    assert published <= {path.name for path in (checkpoint / "model_20").iterdir()}
    info = json.loads((checkpoint / "last" / "ranker.json").read_text(encoding="utf-8"))
    assert info["kind"] == "cross_encoder" and info["max_seq_length"] == 64  # the positions of this encoder
    assert info["training"]["loss"] == "bce" and info["training"]["examples"] == 80


def test_evaluation_agrees_with_scikit_learn_and_with_training(
    trained: tuple[Path, str], data: Path, call: Call
) -> None:
    checkpoint, printed = trained
    arguments = ["--init_from_ckpt", checkpoint / "last", "--test_file", data / "dev.csv", "--device", "cpu"]
    status, found, errors = call("evaluate", *arguments)
    assert status == 0, errors
    rows = [line.split("\t") for line in (data / "dev.csv").read_text(encoding="utf-8").splitlines()[1:]]
    scores = Ranker.load(checkpoint / "last").score([row[0] for row in rows], [row[1] for row in rows])
    relevant = [int(row[2]) >= 1 for row in rows]
    first, *others = found.splitlines()
    figures = dict(line.split(": ") for line in others)
    assert first == f"eval_dev auc:{roc_auc_score(relevant, scores):.3f}"
    assert figures["accuracy"] == f"{accuracy_score(relevant, scores > 0.5):.4f}"
    assert float(figures["cross_entropy"]) == pytest.approx(log_loss(relevant, scores), abs=1e-4)
    assert {"mrr@10", "ndcg@10", "pairs_ordered"} <= figures.keys() and "margin_loss" not in figures
    assert re.findall(r"eval_dev auc:\S+", printed)[-1] == first


def test_prediction_prints_the_best_titles_of_each_query(trained: tuple[Path, str], data: Path, call: Call) -> None:
    checkpoint, _ = trained
    files = ["--params_path", checkpoint / "best", "--test_set", data / "test.csv", "--device", "cpu"]
    status, printed, errors = call("predict", *files, "--topk", 3)
    assert status == 0, errors
    lines = [ast.literal_eval(line) for line in printed.splitlines()]
    assert [list(line) for line in lines] == [["text_a", "text_b", "recall_score", "pred_prob"]] * 18
    rows = [line.split("\t") for line in (data / "test.csv").read_text(encoding="utf-8").splitlines()]
    ranker = Ranker.load(checkpoint / "best")
    expected = []
    for query in dict.fromkeys(row[0] for row in rows):
        own = [row for row in rows if row[0] == query]
        best = ranker.rank(query, [row[1] for row in own], top_k=3)
        expected += [(query, found.title, float(own[found.index][2])) for found in best]
    assert [(line["text_a"], line["text_b"], line["recall_score"]) for line in lines] == expected
    scores = ranker.score([line["text_a"] for line in lines], [line["text_b"] for line in lines])
    np.testing.assert_allclose([line["pred_prob"] for line in lines], scores, atol=1e-5)


def parameters(checkpoint: Path) -> np.ndarray:
    network = Ranker.load(checkpoint / "last").scorer.engine.network  # type: ignore[attr-defined]
    return np.concatenate([p.numpy().ravel() for p in network.parameters()])


def test_every_option_of_its_own_changes_what_is_trained(data: Path, tmp_path: Path, call: Call) -> None:
    shorter = (data / "train.csv").read_text(encoding="utf-8").splitlines()[:60]
    (tmp_path / "shorter.csv").write_text("\n".join(shorter) + "\n", encoding="utf-8")
    runs: dict[str, list[object]] = {
        "plain": [],
        "again": [],
        "grouped": ["--group_by_query"],
        "rank_net": ["--loss", "ranknet_bce"],
        "cut": ["--max_seq_len", 8],
        "shorter": ["--train_set", tmp_path / "shorter.csv"],
        "going_on": ["--init_from_ckpt", data / "ranker"],
    }
    write_ranker(data / "ranker", kind="cross_encoder")
    found = {}
    for name, arguments in runs.items():
        status, _, errors = call("train_ce", *training(data, *arguments, "--save_dir", tmp_path / name))
        assert status == 0, errors
        found[name] = parameters(tmp_path / name)
    np.testing.assert_array_equal(found.pop("again"), found["plain"])
    names = list(found)
    assert not [(a, b) for a in names for b in names if a < b and np.array_equal(found[a], found[b])]
    info = json.loads((tmp_path / "rank_net" / "last" / "ranker.json").read_text(encoding="utf-8"))
    assert info["training"]["group_by_query"] is True


@ONCE
def test_two_processes_train_on_whole_queries_what_one_would(data: Path, tmp_path: Path, call: Call) -> None:
    options = ["--loss", "ranknet_bce", "--batch_size", 6, "--save_dir"]
    alone = training(data, *options, tmp_path / "alone", "--gradient_accumulation_steps", 2)
    status, _, errors = call("train_ce", *alone)
    assert status == 0, errors
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", 2, "--log_dir", "log"]
    command = [*launch, REPOSITORY / "cross_encoder" / "train_ce.py", *training(data, *options, "together")]
    done = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout
    queries, titles = [f"{a}{b}" for a in HAN for b in HAN[:3]], [a for a in HAN for _ in range(3)]
    scores = [Ranker.load(tmp_path / name / "last").score(queries, titles) for name in ("alone", "together")]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-5)
    assert np.ptp(scores[0]) > 0.1
