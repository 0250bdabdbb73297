"""In-batch negatives: the loss by hand, what is no negative, and batches of several parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_ranker.data.records import Pair, Triple
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.model.encoders import read_checkpoint
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.model.tower_network import TowerModel, start_tower
from paddle_ranker.retrieval.vectors import Vectors, nearest
from paddle_ranker.training.precision import Precision
from paddle_ranker.training.whole_batch import backward
from recall.data import encode_pairs
from recall.model import InBatchExamples, LossSettings
from tests.tiny import HAN, write_encoder

pytestmark = pytest.mark.unit
PAIRS = [
    Pair("深", "深度学习"), Pair("深", "深度"), Pair("语言", "深度学习"), Pair("农业", "农业水稻"),
    *(Pair(a + b, b + a + b) for a, b in zip(HAN[:9], HAN[9:18])),
]  # fmt: skip


def tower(folder: Path, dropout: float = 0.0, pooling: str = "mean") -> TowerModel:
    source = write_encoder(folder, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    model, new_parts = start_tower(read_checkpoint(source), TowerInfo(16, 8, pooling=pooling, output_layer=True))
    assert new_parts == ["output_layer"]
    model.network.train()
    return model


def by_hand(
    queries: Vectors, titles: Vectors, known: set[tuple[int, int]], texts: list[str], scale: float, margin: float
) -> float:
    """Return the loss of rows whose own titles come first among `titles`, one term of the sum at a time."""
    losses = []
    for row, query in enumerate(queries):
        own = scale * (float(query @ titles[row]) - margin)
        terms, seen = [own], set()
        for other, title in enumerate(titles):
            is_new = texts[other] not in seen
            seen.add(texts[other])
            if other != row and is_new and (row, other) not in known:
                terms.append(scale * float(query @ title))
        losses.append(np.log(np.exp(terms).sum()) - own)
    return float(np.mean(losses))


def test_the_loss_is_the_formula_s_without_known_answers_and_repeated_titles(tmp_path: Path) -> None:
    model = tower(tmp_path / "e")
    examples = InBatchExamples(encode_pairs(PAIRS, model.row_encoder, "pairs"), LossSettings(5.0, 0.25))
    batch = np.array([0, 1, 2, 3, 5, 8])
    rows = [PAIRS[number] for number in batch]
    vectors = examples.outputs(model.network, batch).numpy()
    known = {
        (i, j) for i, one in enumerate(rows) for j, other in enumerate(rows)
        if any(one.query == pair.query and other.title == pair.title for pair in PAIRS)
    }  # fmt: skip
    assert {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0)} <= known
    wanted = by_hand(vectors[:6], vectors[6:], known, [row.title for row in rows], 5.0, 0.25)
    loss, means = examples.loss(model.network, batch)
    assert float(loss) == pytest.approx(wanted, abs=1e-5) and 0 <= means["accuracy"] <= 1


def test_a_negative_of_a_row_is_one_of_all_rows(tmp_path: Path) -> None:
    model = tower(tmp_path / "e")
    triples = [Triple(pair.query, pair.title, other.title) for pair, other in zip(PAIRS, PAIRS[5:])]
    examples = InBatchExamples(encode_pairs(triples, model.row_encoder, "triples"), LossSettings(5.0, 0.0))
    batch = np.array([0, 3, 5])
    vectors = examples.outputs(model.network, batch).numpy()
    rows = [triples[number] for number in batch]
    texts = [row.title for row in rows] + [row.neg_title for row in rows]
    known = {
        (i, j) for i, one in enumerate(rows) for j, text in enumerate(texts)
        if any(one.query == triple.query and text == triple.title for triple in triples)
    }  # fmt: skip
    wanted = by_hand(vectors[:3], vectors[3:], known, texts, 5.0, 0.0)
    assert float(examples.loss(model.network, batch)[0]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "first", "pooler"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(tmp_path: Path, pooling: str) -> None:
    model = tower(tmp_path / "e", pooling=pooling)
    examples = InBatchExamples(encode_pairs(PAIRS, model.row_encoder, "pairs"), LossSettings(5.0, 0.1))
    found = [gradients(model, examples, parts) for parts in ([range(13)], [range(5), range(5, 9), range(9, 13)])]
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], gradient, atol=2e-6, err_msg=name)


def test_dropout_is_the_same_on_the_way_back(tmp_path: Path) -> None:
    """The gradient of the parts is that of a loss over outputs that are kept, with the same masks."""
    model = tower(tmp_path / "e", dropout=0.3)
    examples = InBatchExamples(encode_pairs(PAIRS, model.row_encoder, "pairs"), LossSettings(5.0, 0.1))
    parts = [np.arange(5), np.arange(5, 13)]
    _, wanted = gradients(model, examples, parts)
    model.network.clear_gradients()
    outputs = []
    for place, part in enumerate(parts):
        paddle.seed(100 + place)
        outputs.append(examples.outputs(model.network, part))
    examples.whole_loss(model.network, paddle.concat(outputs), parts)[0].backward()
    for name, parameter in model.network.named_parameters():
        if name in wanted:
            np.testing.assert_allclose(parameter.grad.numpy(), wanted[name], atol=2e-6, err_msg=name)


def gradients(model: TowerModel, examples: InBatchExamples, parts: list) -> tuple[float, dict[str, np.ndarray]]:
    network = model.network
    network.clear_gradients()
    precision = Precision(network, use_amp=False)
    batch = [np.asarray(part) for part in parts]
    loss, _ = backward(examples, network, batch, ProcessGroup(), precision, lambda place: paddle.seed(100 + place))
    found = {name: p.grad.numpy().copy() for name, p in network.named_parameters() if p.grad is not None}
    return loss, found


def test_the_nearest_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.RandomState(0)
    vectors = random.randint(-2, 3, (57, 4)).astype(np.float32)  # many products are equal
    queries = random.randint(-2, 3, (6, 4)).astype(np.float32)
    wanted = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")
    for cells in (1, 60, 1 << 20):
        monkeypatch.setattr("paddle_ranker.retrieval.vectors._CELLS", cells)
        for k in (1, 7, 100):
            numbers, products = nearest(vectors, queries, k)
            np.testing.assert_array_equal(numbers, wanted[:, :k])
            np.testing.assert_array_equal(products, np.take_along_axis(queries @ vectors.T, numbers, 1))
