"""The cross-encoder's training data and loss, against values worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from cross_encoder.data import EncodedLabels, encode_labels
from cross_encoder.model import LabeledExamples
from cross_encoder.train_ce import TrainCeOptions
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.evaluation import classification_figures
from paddle_ranker.losses import binary_cross_entropy, rank_net_and_cross_entropy, rank_net_by_query
from paddle_ranker.options import parse_options
from paddle_ranker.pair_encoder import PairEncoder
from paddle_ranker.records import LabeledPair, RecordFile
from tests.tiny import PAIRS, make_network, write_tokenizer

pytestmark = pytest.mark.unit


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.fixture(scope="module")
def pair_encoder(tmp_path_factory: pytest.TempPathFactory) -> PairEncoder:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return PairEncoder.from_folder(folder, 32)


# Three queries of three, two and one titles, not together; the last has nothing to compare.
ROWS = [
    LabeledPair("深度", PAIRS[0][1], 2.0),
    LabeledPair("a b", PAIRS[2][1], 0.0),
    LabeledPair("深度", PAIRS[1][1], 0.0),
    LabeledPair("rice", PAIRS[5][1], 1.0),
    LabeledPair("a b", PAIRS[4][1], 1.0),
    LabeledPair("深度", PAIRS[3][1], 1.0),
]


@pytest.fixture(scope="module")
def data(pair_encoder: PairEncoder) -> EncodedLabels:
    return encode_labels(ROWS, pair_encoder, with_queries=True)


def test_binary_cross_entropy() -> None:
    logits = paddle.to_tensor([2.0, -1.0, 0.5], stop_gradient=False)
    loss = binary_cross_entropy(logits, np.array([True, False, True]))
    assert float(loss) == pytest.approx((softplus(-2.0) + softplus(-1.0) + softplus(-0.5)) / 3, abs=1e-6)
    loss.backward()  # (sigmoid(l) - y) / n
    expected = [(1 / (1 + math.exp(-x)) - y) / 3 for x, y in ((2.0, 1), (-1.0, 0), (0.5, 1))]
    assert logits.grad.numpy().tolist() == pytest.approx(expected, abs=1e-6)


def test_a_logit_that_is_not_a_number_shows_in_the_loss() -> None:
    logits = paddle.to_tensor([float("nan"), 1.0])
    assert math.isnan(float(binary_cross_entropy(logits, np.array([True, False]))))
    assert math.isnan(float(rank_net_by_query(logits, np.array([1.0, 0.0]), np.zeros(2))))


def test_rank_net_by_query() -> None:
    logits = paddle.to_tensor([1.0, 3.0, 0.0, 2.0, 5.0, -1.0])
    labels, queries = np.array([2.0, 0, 0, 1, 1, 1]), np.array([7, 8, 7, 9, 8, 7])
    # Query 7: (2 > 0), (2 > 1), (1 > 0) -> differences 1, 2, -1; query 8: 5 - 3; query 9 has one title.
    first, second = (softplus(-1) + softplus(-2) + softplus(1)) / 3, softplus(-2)
    expected = (3 * first + 2 * second + 1 * 0.0) / 6
    assert float(rank_net_by_query(logits, labels, queries)) == pytest.approx(expected, abs=1e-6)


def test_without_pairs_to_compare_rank_net_is_nothing_and_has_a_gradient_of_nothing() -> None:
    logits = paddle.to_tensor([1.0, 3.0], stop_gradient=False)
    loss = rank_net_by_query(logits, np.ones(2), np.zeros(2))
    loss.backward()
    assert float(loss) == 0.0 and logits.grad.numpy().tolist() == [0.0, 0.0]


def test_on_a_positive_and_a_negative_a_query_it_is_the_loss_of_triples() -> None:
    positive, negative = paddle.to_tensor([2.0, 0.0, -1.0]), paddle.to_tensor([0.5, 0.0, 1.0])
    logits, labels = paddle.concat([positive, negative]), np.array([1.0, 1, 1, 0, 0, 0])
    loss = binary_cross_entropy(logits, labels) + rank_net_by_query(logits, labels, np.array([0, 1, 2, 0, 1, 2]))
    assert float(loss) == pytest.approx(float(rank_net_and_cross_entropy(positive, negative, 0.0)), abs=1e-6)


def test_classification_figures() -> None:
    figures = classification_figures(np.array([2.0, 0.0, 1.0, 0.0]), np.array([1.0, -2.0, -0.5, 0.0]))
    assert figures["accuracy"] == 0.75  # the third is wrong; a probability of exactly 0.5 is not relevant
    expected = (softplus(-1.0) + softplus(-2.0) + softplus(0.5) + math.log(2)) / 4
    assert figures["cross_entropy"] == pytest.approx(expected, abs=1e-12)
    assert math.isfinite(classification_figures(np.array([0.0, 1.0]), np.array([1e4, -1e4]))["cross_entropy"])


def test_pairs_labels_and_queries_stay_together(data: EncodedLabels, pair_encoder: PairEncoder) -> None:
    assert data.labels.tolist() == [2, 0, 0, 1, 1, 1] and data.queries is not None
    for i, row in enumerate(ROWS):
        assert data.pairs[i].tolist() == pair_encoder.encode([row.query], [row.title])[0].tolist()
    same = data.queries[:, None] == data.queries[None, :]
    assert same.tolist() == [[a.query == b.query for b in ROWS] for a in ROWS]
    examples = LabeledExamples(data, pair_encoder.pad_id)
    assert examples.groups is not None and len(examples.groups) == 3 and examples.rows_each == 1
    lengths = examples.lengths(np.array([5, 0])).tolist()
    assert lengths == [len(data.pairs[5]), len(data.pairs[0])] and lengths[0] != lengths[1]


def test_without_queries_there_are_no_groups(pair_encoder: PairEncoder) -> None:
    plain = encode_labels(ROWS, pair_encoder, with_queries=False)
    assert LabeledExamples(plain, pair_encoder.pad_id).groups is None
    with pytest.raises(ValueError, match="with_queries"):
        LabeledExamples(plain, pair_encoder.pad_id, rank_net=True)


def test_a_file_larger_than_a_chunk_is_read_whole(
    pair_encoder: PairEncoder, data: EncodedLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cross_encoder.data.chunks", lambda source: ([row] for row in source))
    split = encode_labels(ROWS, pair_encoder, with_queries=True)
    assert split.queries is not None and data.queries is not None
    assert split.labels.tolist() == data.labels.tolist() and split.queries.tolist() == data.queries.tolist()
    assert split.pairs.ids.tolist() == data.pairs.ids.tolist()


@pytest.mark.parametrize("rank_net", [False, True])
def test_pairs_in_a_temporary_file_train_alike(pair_encoder: PairEncoder, tmp_path: Path, rank_net: bool) -> None:
    network, indices = make_network(), np.array([5, 0, 2, 4])
    encoded = [encode_labels(ROWS, pair_encoder, tmp_path, size, with_queries=True) for size in (1 << 20, 0)]
    assert [isinstance(data.labels, np.memmap) for data in encoded] == [False, True]
    stored = [LabeledExamples(data, pair_encoder.pad_id, rank_net=rank_net) for data in encoded]
    (memory, shown), (disk, shown_from_disk) = (examples.loss(network, indices) for examples in stored)
    assert float(memory) == float(disk) and shown == shown_from_disk
    groups = [examples.groups for examples in stored]
    assert groups[0] and groups[1] and groups[0].members.tolist() == groups[1].members.tolist()


def test_one_class_only_is_an_error_that_says_so(pair_encoder: PairEncoder, tmp_path: Path) -> None:
    (tmp_path / "ones.csv").write_text("深\t深\t1\n学\t学\t2\n", encoding="utf-8")
    source = RecordFile(tmp_path / "ones.csv", LabeledPair)
    with pytest.raises(DataError, match=r"ones\.csv: one class only, 2 of its 2 pairs are relevant.*training needs"):
        encode_labels(source, pair_encoder, with_queries=False)


def logits_of(network: Any, data: EncodedLabels, indices: np.ndarray) -> np.ndarray:
    return network(*(paddle.to_tensor(x) for x in data.pairs.pad(indices, 0))).numpy()


def test_loss_and_accuracy_are_those_of_the_logits(data: EncodedLabels) -> None:
    network, indices = make_network(), np.array([4, 0, 2])
    loss, figures = LabeledExamples(data, 0).loss(network, indices)
    logits = logits_of(network, data, indices)
    expected = classification_figures(data.labels[indices], logits)
    assert float(loss) == pytest.approx(expected["cross_entropy"], abs=1e-5)
    assert figures == {"accuracy": pytest.approx(expected["accuracy"])}


@pytest.mark.parametrize("rank_net", [False, True])
def test_parts_of_a_batch_add_up_to_it(data: EncodedLabels, rank_net: bool) -> None:
    network = make_network()
    examples = LabeledExamples(data, 0, rank_net=rank_net)
    parts = [np.array([5, 0, 2]), np.array([3, 1, 4])]  # whole queries
    whole, figures = examples.loss(network, np.concatenate(parts))
    losses = [examples.loss(network, part) for part in parts]
    weights = [examples.weight(part) for part in parts]
    assert float(whole) == pytest.approx(
        sum(float(x) * w for (x, _), w in zip(losses, weights)) / sum(weights), abs=1e-5
    )
    mean = sum(f["accuracy"] * w for (_, f), w in zip(losses, weights)) / sum(weights)
    assert figures["accuracy"] == pytest.approx(mean)


def test_rank_net_adds_to_the_loss(data: EncodedLabels) -> None:
    network, indices = make_network(), np.array([0, 2, 5])
    plain, ranked = (float(LabeledExamples(data, 0, rank_net=r).loss(network, indices)[0]) for r in (False, True))
    best, worst, middle = logits_of(network, data, indices).tolist()
    expected = (softplus(worst - best) + softplus(middle - best) + softplus(worst - middle)) / 3
    assert ranked - plain == pytest.approx(expected, abs=1e-5)


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
    assert [options("--loss", name).groups for name in ("bce", "ranknet_bce")] == [False, True]
    assert options("--group_by_query").groups and not options("--group_by_query", "false").groups
    with pytest.raises(UsageError, match="it needs --group_by_query true"):
        options("--loss", "ranknet_bce", "--group_by_query", "false")
