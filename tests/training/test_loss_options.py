"""`--loss` of both training commands: each affects the parameters, and its requirements on the file are checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cross_encoder import train_ce
from ernie_matching import evaluate, train_pairwise
from paddle_ranker import Ranker
from paddle_ranker.data.rows.records import LabeledPair, Triple, read_records, write_records
from paddle_ranker.encoding import column_store
from paddle_ranker.errors import DataError
from paddle_ranker.evaluation.evaluation_set import mean_margin_loss
from paddle_ranker.model.parameters import load_arrays
from paddle_ranker.training.losses.loss_registry import LOSSES
from tests.tiny import draw_words, write_encoder

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("same_process")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an encoder, graded pairs and triples, with and without a teacher's scores; return the folder."""
    folder = tmp_path_factory.mktemp("data")
    write_encoder(folder / "encoder")
    draw, words = draw_words(12)
    pairs, triples = [], []
    for word in words:
        other = words[draw.randint(len(words))]
        for title, label in ((f"{word}研究", 2.0), (f"论{word[0]}", 1.0), (f"{other}教育", 0.0)):
            pairs.append(LabeledPair(word, title, label, float(draw.randn())))
        triples.append(Triple(word, f"{word}研究", f"{other}教育", *draw.randn(2).tolist()))
    pairs.append(LabeledPair("农业", "农业", 1.0, 0.5))  # a query with nothing to compare
    write_records(folder / "taught.tsv", pairs)
    write_records(folder / "pairs.tsv", [LabeledPair(pair.query, pair.title, pair.label) for pair in pairs])
    write_records(folder / "taught_triples.tsv", triples)
    write_records(folder / "triples.tsv", [Triple(each.query, each.title, each.neg_title) for each in triples])
    return folder


def options(data: Path, **changes: Any) -> dict[str, Any]:
    values = {"epochs": 1, "batch_size": 12, "learning_rate": 1e-3, "device": "cpu"}
    return {"test_file": str(data / "pairs.tsv"), "model_name_or_path": str(data / "encoder"), **values, **changes}


def cross_encoder(data: Path, save_dir: Path, train_set: str = "taught.tsv", **changes: Any) -> dict[str, np.ndarray]:
    """Train; return the parameters."""
    changes = options(data, train_set=str(data / train_set), save_dir=str(save_dir), **changes)
    train_ce.train(train_ce.TrainCeOptions(**changes))
    return load_arrays(save_dir / "last" / "model_state.pdparams")


def pairwise(
    data: Path, save_dir: Path, train_file: str = "taught_triples.tsv", **changes: Any
) -> dict[str, np.ndarray]:
    """Train; return the parameters."""
    changes = options(data, train_file=str(data / train_file), save_dir=str(save_dir), **changes)
    train_pairwise.train(train_pairwise.TrainPairwiseOptions(**changes))
    return load_arrays(save_dir / "last" / "model_state.pdparams")


@pytest.mark.parametrize(
    ("train", "runs"),
    [
        (
            cross_encoder,
            [{"loss": "listnet"}, {"loss": "bce+listnet"}, {"loss": "0.1*bce+listnet"},
             {"loss": "margin_logit", "margin": 0.01}, {"loss": "margin_logit"}, {"loss": "kl"}],
        ),
        (pairwise, [{"loss": "margin_logit"}, {"loss": "margin_logit+bce"}, {"loss": "margin_mse"}]),
    ],
)  # fmt: skip
def test_losses_factors_and_margins_reach_the_parameters(
    data: Path, tmp_path: Path, train: Callable[..., dict[str, np.ndarray]], runs: list[dict[str, Any]]
) -> None:
    trained = [train(data, tmp_path / str(number), **run) for number, run in enumerate(runs)]
    flat = [np.concatenate([arrays[name].ravel() for name in sorted(arrays)]) for arrays in trained]
    assert not any(np.array_equal(one, other) for i, one in enumerate(flat) for other in flat[:i])
    for run, parameters in zip(runs, trained):
        compares = run["loss"] in LOSSES and LOSSES[run["loss"]].shift_invariant
        assert (parameters["head.bias"] == 0.0).all() == compares, run  # otherwise rounding alone would move it


def test_what_is_left_out_is_said_once(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cross_encoder(data, tmp_path, loss="0.5*bce+listnet", epochs=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if "leaves" in line]
    assert lines == [f"{data / 'taught.tsv'}: 1 of 13 queries has one label only: listnet leaves it out"]


def test_a_column_that_is_missing_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"triples\.tsv: record 1 has no teacher_score, which --loss teacher_mse"):
        pairwise(data, tmp_path, "triples.tsv", loss="teacher_mse")
    (tmp_path / "one.tsv").write_text("query\ttitle\tneg_title\tteacher_score\n深\t学\t习\t1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"one\.tsv: record 1 has no neg_teacher_score"):
        pairwise(data, tmp_path, str(tmp_path / "one.tsv"), loss="margin_mse")


def test_data_on_the_disk_train_the_same(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Path] = []
    move_to = column_store._StoredColumn.move_to

    def noted(column: Any, folder: Path) -> None:
        moved.append(folder)
        move_to(column, folder)

    monkeypatch.setattr(column_store._StoredColumn, "move_to", noted)
    for train, loss in ((cross_encoder, "listnet+margin_mse"), (pairwise, "margin_mse")):
        folders = {mb: tmp_path / f"{train.__name__}{mb}" for mb in (9, 0)}
        one, other = (train(data, folder, loss=loss, data_memory_mb=mb) for mb, folder in folders.items())
        assert all(np.array_equal(one[name], other[name]) for name in one)
        assert moved.pop() == folders[0] and folders[9] not in moved


def test_the_margin_loss_of_an_evaluation_follows_the_sum(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairwise(data, tmp_path, loss="0.5*bce+margin_probability", margin=0.3)
    training = json.loads((tmp_path / "last" / "ranker.json").read_text(encoding="utf-8"))["training"]
    assert (training["loss"], training["margin"]) == ("0.5*bce+margin_probability", 0.3)
    capsys.readouterr()
    arguments = ["--init_from_ckpt", str(tmp_path / "last"), "--test_file", str(data / "pairs.tsv"), "--device", "cpu"]
    assert evaluate.main(arguments) == 0
    printed = capsys.readouterr().out
    rows = read_records(data / "pairs.tsv", LabeledPair)
    queries, labels = [row.query for row in rows], np.array([row.label for row in rows])
    scores = Ranker.load(tmp_path / "last").score(queries, [row.title for row in rows])
    logits = np.log(scores) - np.log1p(-scores)
    expected = mean_margin_loss(queries, labels, logits, 0.3, probabilities=True)
    assert f"margin_loss: {expected:.4f}" in printed
