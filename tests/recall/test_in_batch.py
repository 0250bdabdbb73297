"""In-batch negatives: the loss by hand, titles that are not negatives, and batches of several parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np
import paddle
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.data.rows.records import LabeledPair, Pair, Text, Triple
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.columns import EncodedTexts
from paddle_ranker.errors import DataError
from paddle_ranker.model.encoder_loading import read_checkpoint
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.model.tower_network import TowerModel, start_tower
from paddle_ranker.training.precision import Precision
from paddle_ranker.training.whole_batch import backward
from recall.data import encode_pairs
from recall.loss import parse_tower_loss
from recall.model import InBatchExamples, LearnedScale, LossSettings, _Batch
from recall.repetition import repeat_tokens
from tests.tiny import HAN, write_encoder

pytestmark = pytest.mark.unit
PAIRS = [
    Pair("深", "深度学习"), Pair("深", "深度"), Pair("语言", "深度学习"), Pair("农业", "农业水稻"),
    *(Pair(a + b, b + a + b) for a, b in zip(HAN[:9], HAN[9:18])),
]  # fmt: skip


def tower(folder: Path, dropout: float = 0.0, pooling: str = "mean", lexical_size: int = 0) -> TowerModel:
    source = write_encoder(folder, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    info = TowerInfo(16, 8 + lexical_size, pooling=pooling, output_layer=True, lexical_size=lexical_size)
    model, new_parts = start_tower(read_checkpoint(source), info)
    assert new_parts == ["output_layer", "lexical_part"][: 1 + (lexical_size > 0)]
    model.network.train()
    return model


def by_hand(
    queries: Vectors, titles: Vectors, known: set[tuple[int, int]], texts: list[str], scale: float, margin: float
) -> float:
    """Return the loss of rows whose answers come first among `titles`, term by term."""
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


TRIPLES = [Triple(pair.query, pair.title, other.title) for pair, other in zip(PAIRS, PAIRS[5:])]


@pytest.mark.parametrize(
    ("given", "batch", "scale", "margin"),
    [(PAIRS, [0, 1, 2, 3, 5, 8], 5.0, 0.25), (PAIRS[3:], range(10), 20.0, 0.0), (TRIPLES, [0, 3, 5], 5.0, 0.0)],
    ids=["known answers and a repeated title", "as sentence-transformers has it", "negatives of all rows"],
)
def test_the_loss_is_the_formula_s(
    tmp_path: Path, given: Sequence[Any], batch: Sequence[int], scale: float, margin: float
) -> None:
    model, rows = tower(tmp_path / "e"), [given[number] for number in batch]
    examples = InBatchExamples(encode_pairs(given, model.row_encoder, "pairs"), LossSettings(scale, margin))
    vectors = examples.outputs(model.network, np.array(batch)).numpy().astype(np.float64)
    texts = [row.title for row in rows] + [row.neg_title for row in rows if isinstance(row, Triple)]
    answers = {(row.query, row.title) for row in given}
    known = {(i, j) for i, row in enumerate(rows) for j, text in enumerate(texts) if (row.query, text) in answers}
    wanted = by_hand(vectors[: len(rows)], vectors[len(rows) :], known, texts, scale, margin)
    loss, means = examples.loss(model.network, np.array(batch))
    assert float(loss) == pytest.approx(wanted, abs=1e-5) and 0 <= means["accuracy"] <= 1


LISTS = [
    Triple("深", "深度学习", "水稻", 3.0, -1.0), Triple("深", "深度学习", "语言", 3.0, 0.5),
    Triple("深", "深度", "老人", 2.0, 0.0), Triple("农业", "农业水稻", "语言", 1.0, -2.0),
    Triple("深", "深度学习", "老人", 3.0, 0.0),
]  # fmt: skip


def test_triples_of_a_pair_are_one_example_whose_negatives_are_drawn_in_each_epoch(tmp_path: Path) -> None:
    model = tower(tmp_path / "e")
    pairs = encode_pairs(LISTS, model.row_encoder, "triples")
    assert len(pairs) == 3 and pairs.negatives is not None and pairs.negatives.offsets.tolist() == [0, 3, 4, 5]
    drawn: set[tuple[str, ...]] = set()
    examples = InBatchExamples(pairs, LossSettings(5.0, 0.0, negatives=2), seed=3)
    for epoch in range(1, 9):
        examples.begin_epoch(epoch)
        titles = [[pairs.texts[1][number] for number in row] for row in examples._titles.tolist()]
        assert titles[1:] == [
            ["深度", "老人", "深度"],
            ["农业水稻", "语言", "农业水稻"],
        ]  # its own title where there is no other
        assert titles[0][0] == "深度学习" and len(set(titles[0])) == 3
        drawn.add(tuple(titles[0][1:]))
    assert {title for pair in drawn for title in pair} == {"水稻", "语言", "老人"} and len(drawn) > 2
    again = InBatchExamples(pairs, LossSettings(5.0, 0.0, negatives=2), seed=3)
    again.begin_epoch(8)
    np.testing.assert_array_equal(again._titles, examples._titles)


def test_texts_that_read_the_same_are_one(tmp_path: Path) -> None:
    rows = [
        Pair("abc", "深度"),
        Pair("ＡＢＣ", "语言 文化"),
        Pair("农业", "语言文化"),
        Pair("水稻", "abc!"),
        Pair("abc", "水稻"),
    ]
    pairs = encode_pairs(rows, tower(tmp_path / "e").row_encoder, "pairs")
    assert pairs.texts == (["abc", "ＡＢＣ", "农业", "水稻"], ["深度", "语言 文化", "语言文化", "abc!", "水稻"])
    known = pairs.grades_of(np.arange(4)[:, None], np.arange(5)).astype(int).tolist()
    alike = pairs.read_alike(np.arange(4), np.arange(5)).astype(int).tolist()
    assert known == [[1, 1, 1, 0, 1], [1, 1, 1, 0, 1], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0]]
    assert alike == [[0, 0, 0, 1, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]


def test_labelled_pairs_have_the_other_titles_of_their_query_as_negatives(tmp_path: Path) -> None:
    rows = [
        LabeledPair("深", "深度", 1.0, 2.0),
        LabeledPair("深", "水稻", 0.0, -1.0),
        LabeledPair("农业", "水稻", 2.0, 1.5),
    ]
    pairs = encode_pairs(rows, tower(tmp_path / "e").row_encoder, "pairs")
    assert pairs.negatives is not None and len(pairs) == 2
    assert (pairs.negatives.offsets.tolist(), pairs.negatives.titles.tolist()) == ([0, 1, 1], [1])
    assert pairs.teacher == {(0, 0): 2.0, (0, 1): -1.0, (1, 1): 1.5}
    with pytest.raises(DataError, match="no title that answers a query"):
        encode_pairs(rows[1:2], tower(tmp_path / "e").row_encoder, "pairs")


@pytest.mark.parametrize(
    "rows, wanted, known",
    [
        pytest.param(
            [Triple("深", "深度", "水 稻"), Triple("深", "水稻", "语言"), Triple("深 ", "水稻", "深度"),
             Triple("语言", "农业", "深度")],
            [("深", "深度", []), ("深", "水稻", ["语言"]), ("深 ", "水稻", []), ("语言", "农业", ["深度"])],
            2,
            id="triples",
        ),
        pytest.param(
            [LabeledPair("深", "深度", 1), LabeledPair("深", "水稻", 0), LabeledPair("深", "语言", 0),
             LabeledPair("深 ", "水 稻", 2)],
            [("深", "深度", ["语言"]), ("深 ", "水 稻", [])],
            1,
            id="labels",
        ),
    ],
)  # fmt: skip
def test_a_known_answer_of_a_query_is_no_negative_of_its_other_answers(
    tmp_path: Path, rows: list[Union[Triple, LabeledPair]], wanted: list[tuple[str, str, list[str]]], known: int
) -> None:
    pairs = encode_pairs(rows, tower(tmp_path / "e").row_encoder, "rows")
    assert pairs.negatives is not None
    queries, titles = pairs.texts
    bounds = zip(pairs.negatives.offsets, pairs.negatives.offsets[1:])
    found = [[titles[number] for number in pairs.negatives.titles[start:end]] for start, end in bounds]
    examples = [(queries[query], titles[title]) for query, title in zip(pairs.query_of, pairs.title_of)]
    assert [(*pair, negatives) for pair, negatives in zip(examples, found)] == wanted
    assert pairs.negatives.known_answers == known


def test_nested_lengths_and_lists_of_a_teacher_are_terms_of_the_loss(tmp_path: Path) -> None:
    model = tower(tmp_path / "e")
    pairs = encode_pairs(LISTS, model.row_encoder, "triples")
    terms = parse_tower_loss("0.5*in_batch+0.1*margin_mse")
    examples = InBatchExamples(pairs, LossSettings(5.0, 0.25, terms, {4: 0.5}))
    batch = np.arange(3)
    vectors = examples.outputs(model.network, batch).numpy()
    texts = [pairs.texts[1][number] for number in examples._titles.T.ravel()]
    known = {(row, place) for row in range(3) for place, text in enumerate(texts)
             if text in (["深度学习", "深度"] if row < 2 else ["农业水稻"])}  # fmt: skip
    lists = [
        [(0, 3.0), ("水稻", -1.0), ("语言", 0.5), ("老人", 0.0)],
        [(1, 2.0), ("老人", 0.0)],
        [(2, 1.0), ("语言", -2.0)],
    ]
    wanted = 0.0
    for size, factor in ((8, 1.0), (4, 0.5)):
        cut = vectors[:, :size] / np.linalg.norm(vectors[:, :size], axis=1, keepdims=True)
        queries, titles = cut[:3], cut[3:]
        distilled = 0.0
        for query, titled in zip(queries, lists):
            places = [(texts.index(title) if isinstance(title, str) else title, teacher) for title, teacher in titled]
            gaps = [
                (5.0 * float(query @ (titles[a] - titles[b])) - (x - y)) ** 2
                for n, (a, x) in enumerate(places) for b, y in places[n + 1 :]
            ]  # fmt: skip
            distilled += len(places) * float(np.mean(gaps)) / 8  # a mean over the titles
        wanted += factor * (0.5 * by_hand(queries, titles, known, texts, 5.0, 0.25) + 0.1 * distilled)
    assert float(examples.loss(model.network, batch)[0]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("terms", "scale"), [("hardest", 30.0), ("in_batch+0.5*hardest", 5.0)])
def test_the_hardest_negative_is_a_hinge_of_cosines(tmp_path: Path, terms: str, scale: float) -> None:
    model, batch, margin = tower(tmp_path / "e"), np.array([0, 1, 2, 3, 5, 8]), 0.9
    pairs = encode_pairs(PAIRS, model.row_encoder, "pairs")
    examples = InBatchExamples(pairs, LossSettings(scale, margin, parse_tower_loss(terms)))
    vectors = examples.outputs(model.network, batch).numpy().astype(np.float64)
    queries, titles, rows = vectors[:6], vectors[6:], [PAIRS[number] for number in batch]
    answers = {(row.query, row.title) for row in PAIRS}
    known = {(i, j) for i, row in enumerate(rows) for j in range(6) if (row.query, rows[j].title) in answers}
    texts = [row.title for row in rows]
    cosines = queries @ titles.T
    hardest = [max(cosines[i, j] for j in range(6) if (i, j) not in known) for i in range(6)]
    hinges = np.maximum(0.0, margin - (np.diag(cosines) - hardest))
    assert np.count_nonzero(hinges) > 0
    wanted = hinges.mean()
    if terms != "hardest":
        wanted = 0.5 * wanted + by_hand(queries, titles, known, texts, scale, margin)
    assert float(examples.loss(model.network, batch)[0]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "pooler"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(tmp_path: Path, pooling: str) -> None:
    model = tower(tmp_path / "e", pooling=pooling)
    examples = InBatchExamples(encode_pairs(PAIRS, model.row_encoder, "pairs"), LossSettings(5.0, 0.1))
    found = [gradients(model, examples, parts) for parts in ([range(13)], [range(5), range(5, 9), range(9, 13)])]
    assert float(found[0][0]) == pytest.approx(float(found[1][0]), abs=1e-5)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], gradient, atol=2e-6, err_msg=name)


def test_words_in_vectors_teach_nothing(tmp_path: Path) -> None:
    """A tower with a lexical part learns as one without: the part only matters when vectors are compared."""
    found = []
    for size in (0, 8):
        model = tower(tmp_path / f"e{size}", lexical_size=size)
        assert model.network.output_layer is not None
        model.network.output_layer.weight.set_value(np.random.RandomState(0).randn(16, 8).astype("float32"))
        pairs = encode_pairs(PAIRS, model.row_encoder, "pairs")
        if model.network.lexical_part is not None:
            assert isinstance(pairs.titles, EncodedTexts)
            model.network.lexical_part.learn(pairs.titles[number] for number in range(len(pairs.titles)))
        found.append(gradients(model, InBatchExamples(pairs, LossSettings(5.0, 0.1)), [range(13)]))
        batch = [paddle.to_tensor(array) for array in pairs.titles.pad(np.arange(3)).values()]
        shapes = [model.network(*batch).shape[1]]
        model.network.eval()
        assert [*shapes, model.network(*batch).shape[1]] == [8, 8 + size]
    assert found[0][0] == found[1][0] and found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        np.testing.assert_array_equal(found[1][1][name], gradient, err_msg=name)


def test_the_gradient_of_a_block_of_queries_at_a_time_is_that_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tower(tmp_path / "e")
    model.network.learned_scale = LearnedScale(5.0)
    pairs = encode_pairs(LISTS, model.row_encoder, "triples")
    settings = LossSettings(5.0, 0.25, parse_tower_loss("in_batch+0.1*margin_mse+kl"), {4: 0.5})
    examples = InBatchExamples(pairs, settings)
    found: list[tuple[float, dict[str, np.ndarray]]] = []
    blocks: list[int] = []
    split = _Batch.split

    def counted(batch: _Batch, outputs: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        blocks.append(1)
        return split(batch, outputs)

    monkeypatch.setattr(_Batch, "split", counted)
    for cells in (1 << 22, 1):
        monkeypatch.setattr("recall.model._CELLS", cells)
        found += [gradients(model, examples, parts) for parts in ([range(3)], [range(2), range(2, 3)])]
    assert len(blocks) == 2 * (1 + 1 + 3 + 3)  # each at two lengths
    for loss, gradient in found[1:]:
        assert float(loss) == pytest.approx(float(found[0][0]), abs=1e-5) and "learned_scale.log" in gradient
        for name, wanted in found[0][1].items():
            np.testing.assert_allclose(gradient[name], wanted, atol=5e-6, err_msg=name)


def test_a_learned_scale_comes_back_from_the_most_that_it_may_be() -> None:
    scale = LearnedScale(100.0)
    optimizer = paddle.optimizer.SGD(1e-3, parameters=scale.parameters())
    for sign, wanted in ((-1.0, 100.0), (1.0, 100.0 * np.exp(-0.1))):
        (sign * scale()).backward()
        optimizer.step()
        optimizer.clear_grad()
        assert scale().item() == pytest.approx(wanted, rel=1e-5)


def test_dropout_is_the_same_on_the_way_back(tmp_path: Path) -> None:
    """The gradient of the parts is that of a loss over kept outputs, with the same dropout masks."""
    model = tower(tmp_path / "e", dropout=0.3)
    examples = InBatchExamples(encode_pairs(PAIRS, model.row_encoder, "pairs"), LossSettings(5.0, 0.1))
    parts = [np.arange(5), np.arange(5, 13)]
    _, wanted = gradients(model, examples, parts)
    model.network.clear_gradients()
    outputs = []
    for place, part in enumerate(parts):
        paddle.seed(100 + place)
        outputs.append(examples.outputs(model.network, part))
    for loss, _ in examples.whole_losses(model.network, paddle.concat(outputs), parts):  # one block
        loss.backward()
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


def test_graded_titles_are_negatives_of_better_ones_and_each_text_is_computed_once(tmp_path: Path) -> None:
    model = tower(tmp_path / "e")
    labels = {("深", "深度学习"): 2, ("深", "深度"): 1, ("深", "语言"): 0, ("农业", "水稻"): 1, ("农业", "深度"): 0}
    rows = [LabeledPair(query, title, label) for (query, title), label in labels.items()]
    pairs = encode_pairs(rows, model.row_encoder, "pairs")
    examples = InBatchExamples(pairs, LossSettings(5.0, 0.0), group_by_query=True)
    assert examples.groups is not None and len(examples.groups) == 2 and examples.rows_each == 4
    computed: list[int] = []
    model.network.register_forward_post_hook(lambda layer, inputs, output: computed.append(len(output)))
    loss, _ = examples.loss(model.network, np.arange(3))
    assert computed[-1] == 4  # titles: 深度学习, 深度, 语言, 水稻

    titles = ["深度学习", "深度", "语言", "水稻"]
    texts = {text: model.network(*map(paddle.to_tensor, model.row_encoder.encode([text]).pad(np.array([0])).values()))
             for text in ["深", "农业", *titles]}  # fmt: skip
    losses = []
    for query, title in [("深", "深度学习"), ("深", "深度"), ("农业", "水稻")]:
        logit = {other: 5.0 * float((texts[query] * texts[other]).sum()) for other in titles}
        own = labels[query, title]
        against = [logit[other] for other in titles if other == title or labels.get((query, other), 0) < own]
        losses.append(np.log(np.exp(against).sum()) - logit[title])
    assert float(loss) == pytest.approx(np.mean(losses), abs=1e-5)


def test_repeated_tokens_stand_beside_each_other_and_change_with_the_epoch(tmp_path: Path) -> None:
    texts = EncodedTexts(
        np.array([1, 5, 2, 1, *range(10, 30), 2, 1, *range(40, 70), 2], np.int32), np.array([0, 3, 25, 57])
    )
    random, seen = np.random.default_rng(0), [set(), set(), set()]  # type: ignore[var-annotated]
    for _ in range(300):
        again = repeat_tokens(texts, 0.32, 34, random)
        for number, row in enumerate(again[n] for n in range(3)):
            before, runs = texts[number], [len(list(run)) for _, run in itertools.groupby(row.tolist())]
            assert [token for token, _ in itertools.groupby(row.tolist())] == before.tolist()
            assert runs[0] == runs[-1] == 1 and max(runs) <= 2
            seen[number].add(len(row) - len(before))
    # 1 token; max(2, 0.32 * 20); 34 - 32, the maximum length
    assert seen == [{0, 1}, set(range(7)), {0, 1, 2}]

    model = tower(tmp_path / "e")
    pairs = encode_pairs([Text(a + b + c) for a, b, c in zip(HAN, HAN[9:18], HAN[4:])], model.row_encoder, "texts")
    plain, repeated = (InBatchExamples(pairs, LossSettings(20.0, 0.0), 1, repeated=r, longest=16) for r in (0.0, 0.5))
    batch = np.arange(6)
    first = [examples.outputs(model.network, batch).numpy() for examples in (plain, repeated, repeated)]
    np.testing.assert_array_equal(first[1], first[2])  # as in a resumed run
    np.testing.assert_allclose(first[0][6:], first[1][6:], atol=1e-6)  # titles stay as they are
    assert np.abs(first[0][:6] - first[1][:6]).max() > 1e-3
    repeated.begin_epoch(2)
    assert np.abs(repeated.outputs(model.network, batch).numpy()[:6] - first[1][:6]).max() > 1e-3
