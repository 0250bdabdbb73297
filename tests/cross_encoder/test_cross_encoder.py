"""The cross-encoder's training data and loss, against values worked out by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from cross_encoder import train_ce
from cross_encoder.data import encode_labels, left_out
from cross_encoder.model import LabeledExamples
from cross_encoder.train_ce import TrainCeOptions
from paddle_ranker.data.rows.records import LabeledPair, RecordFile
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.evaluation.evaluation_set import classification_metrics
from paddle_ranker.model.parameters import load_arrays
from paddle_ranker.options import parse_options
from paddle_ranker.training.examples import EncodedExamples
from paddle_ranker.training.losses.expression import RankingLoss, parse_loss
from tests.tiny import PAIRS, make_network, write_encoder, write_tokenizer

pytestmark = pytest.mark.unit


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.fixture(scope="module")
def pair_encoder(tmp_path_factory: pytest.TempPathFactory) -> PairEncoder:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return PairEncoder.from_folder(folder, 32)


# Three queries of three, two and one titles, not adjacent; the last has nothing to compare.
ROWS = [
    LabeledPair("深度", PAIRS[0][1], 2.0),
    LabeledPair("a b", PAIRS[2][1], 0.0),
    LabeledPair("深度", PAIRS[1][1], 0.0),
    LabeledPair("rice", PAIRS[5][1], 1.0),
    LabeledPair("a b", PAIRS[4][1], 1.0),
    LabeledPair("深度", PAIRS[3][1], 1.0),
]


@pytest.fixture(scope="module")
def data(pair_encoder: PairEncoder) -> EncodedExamples:
    return encode_labels(ROWS, pair_encoder, group_by="query")


def test_classification_metrics() -> None:
    figures = classification_metrics(np.array([2.0, 0.0, 1.0, 0.0]), np.array([1.0, -2.0, -0.5, 0.0]))
    assert figures["accuracy"] == 0.75  # the third is wrong; a probability of exactly 0.5 is not relevant
    expected = (softplus(-1.0) + softplus(-2.0) + softplus(0.5) + math.log(2)) / 4
    assert figures["cross_entropy"] == pytest.approx(expected, abs=1e-12)
    assert math.isfinite(classification_metrics(np.array([0.0, 1.0]), np.array([1e4, -1e4]))["cross_entropy"])


def test_pairs_labels_and_queries_stay_together(data: EncodedExamples, pair_encoder: PairEncoder) -> None:
    assert data.labels is not None and data.queries is not None
    assert data.labels.tolist() == [2, 0, 0, 1, 1, 1]
    for i, row in enumerate(ROWS):
        assert data.pairs[i].tolist() == pair_encoder.encode([row.query], [row.title])[0].tolist()
    same = data.queries[:, None] == data.queries[None, :]
    assert same.tolist() == [[a.query == b.query for b in ROWS] for a in ROWS]
    examples = LabeledExamples(data)
    assert examples.groups is not None and len(examples.groups) == 3 and examples.rows_each == 1
    lengths = examples.lengths(np.array([5, 0])).tolist()
    assert lengths == [len(data.pairs[5]), len(data.pairs[0])] and lengths[0] != lengths[1]


def test_a_file_larger_than_a_chunk_is_read_whole(
    pair_encoder: PairEncoder, data: EncodedExamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cross_encoder.data.chunks", lambda source: ([row] for row in source))
    split = encode_labels(ROWS, pair_encoder, group_by="query")
    assert split.queries is not None and data.queries is not None
    assert split.labels is not None and data.labels is not None
    assert split.labels.tolist() == data.labels.tolist() and split.queries.tolist() == data.queries.tolist()
    assert split.pairs.ids.tolist() == data.pairs.ids.tolist()
    assert split.highest_label == data.highest_label == 2.0


def logits_of(network: Any, data: EncodedExamples, indices: np.ndarray) -> np.ndarray:
    return network(*(paddle.to_tensor(x) for x in data.pairs.pad(indices).values())).numpy()


def test_loss_and_accuracy_are_those_of_the_logits(data: EncodedExamples) -> None:
    assert data.labels is not None
    network, indices = make_network(), np.array([4, 0, 2])
    loss, figures = LabeledExamples(data).loss(network, indices)
    logits = logits_of(network, data, indices)
    expected = classification_metrics(data.labels[indices], logits)
    assert float(loss) == pytest.approx(expected["cross_entropy"], abs=1e-5)
    assert {name: float(value) for name, value in figures.items()} == {"accuracy": pytest.approx(expected["accuracy"])}


@pytest.mark.parametrize("text", ["bce", "ranknet_bce", "mse+0.5*lambda", "softmax"])
def test_parts_of_a_batch_add_up_to_it(data: EncodedExamples, text: str) -> None:
    network = make_network()
    examples = LabeledExamples(data, RankingLoss(text))
    parts = [np.array([5, 0, 2]), np.array([3, 1, 4])]  # whole queries
    whole, figures = examples.loss(network, np.concatenate(parts))
    losses = [examples.loss(network, part) for part in parts]
    weights = [examples.weight(part) for part in parts]
    assert float(whole) == pytest.approx(
        sum(float(x) * w for (x, _), w in zip(losses, weights)) / sum(weights), abs=1e-5
    )
    mean = sum(float(f["accuracy"]) * w for (_, f), w in zip(losses, weights)) / sum(weights)
    assert float(figures["accuracy"]) == pytest.approx(mean)


def test_a_teachers_scores_reach_the_loss_by_row(pair_encoder: PairEncoder) -> None:
    taught = [dataclasses.replace(row, teacher_score=float(i)) for i, row in enumerate(ROWS)]
    loss, indices = RankingLoss("teacher_mse"), np.array([4, 1])
    data = encode_labels(taught, pair_encoder, loss=loss.expression)
    network = make_network()
    far = (logits_of(network, data, indices) - [4.0, 1.0]) ** 2
    assert float(LabeledExamples(data, loss).loss(network, indices)[0]) == pytest.approx(far.mean(), rel=1e-5)
    assert encode_labels(taught, pair_encoder).teacher is None  # dropped if no loss needs it


def test_scores_within_0_and_1_are_a_teachers_probabilities(pair_encoder: PairEncoder) -> None:
    loss, numbers = parse_loss("teacher_mse"), np.linspace(0.1, 1.0, len(ROWS))
    taught = [dataclasses.replace(row, teacher_score=float(score)) for row, score in zip(ROWS, numbers)]
    logits = np.log(numbers[:-1] / (1 - numbers[:-1]))
    for kind in ("auto", "probabilities"):
        found = encode_labels(taught, pair_encoder, loss=loss, teacher_scores=kind).teacher
        assert found is not None
        np.testing.assert_allclose(found, [*logits, np.log(2.0**24 - 1)], rtol=1e-5)
    as_they_are = encode_labels(taught, pair_encoder, loss=loss, teacher_scores="logits").teacher
    assert as_they_are is not None
    np.testing.assert_allclose(as_they_are, numbers, rtol=1e-6)
    taught[0] = dataclasses.replace(taught[0], teacher_score=-0.1)
    one_negative = encode_labels(taught, pair_encoder, loss=loss).teacher
    assert one_negative is not None and one_negative[0] == np.float32(-0.1)
    with pytest.raises(DataError, match="not all within 0 and 1, as probabilities are"):
        encode_labels(taught, pair_encoder, loss=loss, teacher_scores="probabilities")


def test_a_teacher_is_in_every_record_and_alone_needs_no_two_classes(pair_encoder: PairEncoder) -> None:
    rows = [dataclasses.replace(ROWS[0], teacher_score=1.0), ROWS[1]]
    with pytest.raises(DataError, match=r"record 2 has no teacher_score, which --loss teacher_mse\+margin_mse"):
        encode_labels(rows, pair_encoder, loss=parse_loss("teacher_mse+bce+margin_mse"))
    rows = [LabeledPair("深", "深", 0.0, 1.5), LabeledPair("深", "学", 0.0, -1.0)]
    assert len(encode_labels(rows, pair_encoder, loss=parse_loss("margin_mse"))) == 2
    with pytest.raises(DataError, match="one class only"):
        encode_labels(rows, pair_encoder, loss=parse_loss("margin_mse+bce"))


def grouped(pair_encoder: PairEncoder, *labels: list[float]) -> EncodedExamples:
    """Encode one query for each list, with a title for each label."""
    rows = [LabeledPair("深度"[: i + 1] * (i + 1), "学", label) for i, own in enumerate(labels) for label in own]
    return encode_labels(rows, pair_encoder, group_by="query")


def test_queries_with_nothing_to_compare_are_counted(pair_encoder: PairEncoder) -> None:
    data = grouped(pair_encoder, [0.0, 0.0], [1.0, 2.0], [1.0], [0.0, 1.0, 0.0])
    assert left_out("x", data, parse_loss("bce")) == []
    one_label = "2 of 4 queries have one label only: "
    assert left_out("x", data, parse_loss("listnet")) == [one_label + "listnet leaves them out"]
    assert left_out("x", data, parse_loss("softmax+lambda+bce+ranknet")) == [
        one_label + "lambda and ranknet leave them out",
        "3 of 4 queries have no relevant title (label >= 1) or no other: softmax leaves them out",
    ]
    assert left_out("x", data, parse_loss("margin_mse")) == [
        "1 of 4 queries has one title only: margin_mse leaves it out"
    ]
    assert left_out("x", grouped(pair_encoder, [0.0, 1.0]), parse_loss("listnet+softmax+margin_mse")) == []


@pytest.mark.parametrize("name", ["listnet", "softmax", "lambda", "ranknet", "margin_logit"])
def test_those_that_are_counted_are_those_that_are_left_out(pair_encoder: PairEncoder, name: str) -> None:
    for labels in ([0.0, 0.0], [1.0, 2.0], [1.0], [0.0, 2.0]):
        data, loss = grouped(pair_encoder, labels, [0.0, 1.0]), RankingLoss(name)
        own = np.arange(len(labels))
        assert data.queries is not None and data.labels is not None
        logits = paddle.to_tensor(own.astype("float32"), stop_gradient=False)
        loss(logits, data.labels[own], data.queries[own]).backward()
        assert bool(left_out("x", data, loss.expression)) is not logits.grad.numpy().any()


def test_a_file_without_anything_to_compare_is_an_error_unless_another_loss_learns(pair_encoder: PairEncoder) -> None:
    data = grouped(pair_encoder, [0.0, 0.0], [1.0])
    for loss in ("listnet", "listnet+softmax"):
        with pytest.raises(DataError, match="nothing to learn"):
            left_out("t.csv", data, parse_loss(loss))
    assert len(left_out("t.csv", data, parse_loss("listnet+bce"))) == 1


def options(*arguments: str) -> TrainCeOptions:
    return parse_options(TrainCeOptions, ["--train_set", "a", "--test_file", "b", *arguments], "train_ce", "")


def test_the_published_names_and_defaults() -> None:
    plain = options()
    assert (plain.eval_step, plain.save_step, plain.max_seq_length) == (100, 100, None)
    assert plain.model_name_or_path == "rocketqa-base-cross-encoder" and plain.save_dir == "./checkpoint"
    assert (plain.batch_size, plain.learning_rate, plain.epochs, plain.logging_steps) == (32, 5e-5, 3, 10)
    for names, field in (
        (("--valid_steps", "--eval_step"), "eval_step"),
        (("--save_steps", "--save_step"), "save_step"),
        (("--max_seq_length", "--max_seq_len"), "max_seq_length"),
    ):
        assert [getattr(options(name, "7"), field) for name in names] == [7, 7]
        assert getattr(options(names[0], "7", names[1], "7"), field) == 7
        with pytest.raises(UsageError, match="are one option: give one value"):
            options(names[0], "7", names[1], "8")


def test_the_tutorials_line_is_understood() -> None:
    line = (
        "--train_set train.csv --test_file dev_pairwise.csv --save_dir ./checkpoints --batch_size 32 --epochs 3 "
        "--model_name_or_path rocketqa-base-cross-encoder --max_seq_len 384 --learning_rate 1e-5 --weight_decay 0 "
        "--warmup_proportion 0.0 --valid_steps 100 --save_steps 5000 --logging_steps 10 --seed 1 --device gpu "
        "--use_amp false --scale_loss 32768 --init_from_ckpt ./checkpoints/model_100/model_state.pdparams"
    )
    understood = parse_options(TrainCeOptions, line.split(), "train_ce", "")
    assert (understood.max_seq_length, understood.save_step, understood.scale_loss) == (384, 5000, 32768)
    assert understood.use_amp is False


def test_the_titles_of_a_query_share_a_batch_where_the_loss_compares_them() -> None:
    compares = {"bce": False, "ranknet_bce": True, "mse+0.5*bce": False, "teacher_mse": False, "bce+margin_mse": True}
    assert {name: options("--loss", name).groups for name in compares} == compares
    assert options("--group_by_query").groups and not options("--group_by_query", "false").groups
    with pytest.raises(UsageError, match=r"--loss bce\+listnet compares the titles .* it needs --group_by_query true"):
        options("--loss", "bce+listnet", "--group_by_query", "false")


def test_a_position_tower_takes_up_what_positions_add_and_stays_out_of_the_ranker(tmp_path: Path) -> None:
    """Two equal titles, clicked by position alone: the tower learns the positions, and is not saved."""
    encoder = write_encoder(tmp_path / "encoder")
    rows = [{"query": "深度", "title": "学习", "label": label, "position": place} for place, label in ((1, 1), (2, 0))]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows * 8)
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("深度\t学习\t1\n深度\t教育\t0\n", encoding="utf-8")
    given: dict[str, Any] = {
        "train_set": str(tmp_path / "train.jsonl"), "test_file": str(tmp_path / "dev.tsv"), "device": "cpu",
        "model_name_or_path": str(encoder), "loss": "click_softmax", "batch_size": 16, "learning_rate": 1e-2,
        "position_tower": True,
    }  # fmt: skip
    result = train_ce.train(TrainCeOptions(save_dir=str(tmp_path / "whole"), epochs=4, **given))
    saved = load_arrays(tmp_path / "whole" / "last" / "model_state.pdparams")
    assert result.steps == 4 and not any("position_tower" in name for name in saved)
    with np.load(next((tmp_path / "whole").glob("state_*")) / "parameters.npz") as apart:
        bias = apart["position_tower.bias"]
    assert bias[0] > 0 > bias[1] and not bias[2:].any()
    given.update(save_dir=str(tmp_path / "parts"), epochs=4)
    assert not train_ce.train(TrainCeOptions(max_minutes=1e-9, **given)).finished
    assert train_ce.train(TrainCeOptions(resume=True, **given)).finished
    again = load_arrays(tmp_path / "parts" / "last" / "model_state.pdparams")
    assert all(np.array_equal(again[name], saved[name]) for name in saved)


@pytest.mark.parametrize("position", [None, 0, 1.5, "first"])
def test_positions_are_whole_numbers_and_in_every_row(tmp_path: Path, position: Any) -> None:
    rows = [
        {"query": "深度", "title": "学习", "label": 1, "position": 1},
        {"query": "深度", "title": "教育", "label": 0},
    ]
    rows[1].update({} if position is None else {"position": position})
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8")
    pair_encoder = PairEncoder.from_folder(write_encoder(tmp_path / "encoder"), 32)
    source = RecordFile(tmp_path / "train.jsonl", LabeledPair)
    with pytest.raises(DataError, match="record 2 has no position" if position is None else "line 2: position"):
        encode_labels(source, pair_encoder, with_positions=True)
