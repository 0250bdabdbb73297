"""Blending: the weights' own equations, one network with linear models inside, and several models in one folder."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from ernie_matching.predict_pairwise import main as predict
from paddle_ranker import Ranker
from paddle_ranker.commands.blend import BlendOptions, blend, main
from paddle_ranker.errors import CheckpointError, DataError, UsageError
from paddle_ranker.export.static_graph import export_model
from paddle_ranker.metrics.auc import roc_auc
from paddle_ranker.metrics.choosing import choose
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.metrics.logistic import (
    EQUAL,
    PENALTY,
    PULLS,
    average_out_of_fold,
    choose_pull,
    equal_average,
    fit_average,
    fit_logistic,
    out_of_fold,
)
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER, TrainedRanker, load_model
from paddle_ranker.model.ranker_folder import Fresh, load_single, start_ranker
from paddle_ranker.options.input_files import join_files
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.training.average import learn_average
from tests.export_cases import WRITES_ONNX
from tests.tiny import PAIRS, VOCABULARY, draw_words, write_ranker, write_tower

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("same_process")]
QUERIES, TITLES = [list(column) for column in zip(*PAIRS)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rankers of different vocabularies, and training and dev pairs: a title that holds the query is relevant."""
    folder = tmp_path_factory.mktemp("blend")
    write_ranker(folder / "one", seed=1)
    write_ranker(folder / "two", seed=2, kind="cross_encoder", max_seq_length=24)
    # The same parameters, read through another vocabulary: its tokens stand in another order.
    specials, others = VOCABULARY[:5], VOCABULARY[5:]
    (folder / "two" / "vocab.txt").write_text("\n".join([*specials, *others[::-1]]) + "\n", encoding="utf-8")
    random, words = draw_words(60)
    for name, part in (("train", words[:40]), ("dev", words[40:])):
        rows = []
        for word in part:
            other = str(random.choice(part))
            rows += [(word, f"论{word}的研究", 1), (word, f"{other}研究", int(random.rand() < 0.3)), (word, other, 0)]
        text = "".join(f"{query}\t{title}\t{label}\n" for query, title, label in rows)
        (folder / f"{name}.tsv").write_text(text, encoding="utf-8")
    return folder


def logits(parts: TrainedRanker, queries: list[str] = QUERIES, titles: list[str] = TITLES) -> np.ndarray:
    return Scorer(DygraphEngine(parts.network), parts.row_encoder).logits(parts.row_encoder.encode(queries, titles))


def columns(path: Path) -> list[list[str]]:
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return [list(column) for column in zip(*rows)]


def options(files: Path, target: Path, **changes: Any) -> BlendOptions:
    values = {"ranker": str(files / "one"), "dev_file": str(files / "dev.tsv"), "target": str(target), "device": "cpu"}
    return BlendOptions(**{**values, **changes})


def test_the_weights_solve_the_equations_of_the_penalised_likelihood() -> None:
    random = np.random.RandomState(0)
    inputs = random.randn(400, 3) * [1.0, 20.0, 0.1] + [0.0, 5.0, -3.0]
    labels = (random.rand(400) < expit(inputs @ [1.0, 0.02, 3.0] + 9.0)).astype(float) * 2
    model = fit_logistic(inputs, labels)
    residual = expit(model.logits(inputs)) - (labels >= 1)
    standardised = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    slope = (standardised * residual[:, None]).mean(axis=0) + PENALTY * model.weights * inputs.std(axis=0)
    np.testing.assert_allclose(slope, 0.0, atol=1e-4)
    assert residual.mean() == pytest.approx(0.0, abs=1e-4)
    with pytest.raises(DataError, match="0 of the 400 pairs"):
        fit_logistic(inputs, labels * 0)


def drawn(queries: int, seed: int, strength: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return members' logits, labels and queries of 6 titles; `strength`: what each tells of relevance."""
    random = np.random.RandomState(seed)
    truth = random.randn(6 * queries)
    members = np.stack([factor * truth + random.randn(6 * queries) for factor in strength], axis=1)
    hardness = np.repeat(random.randn(queries), 6)
    labels = (random.rand(6 * queries) < expit(1.5 * truth + hardness)).astype(float)
    return members, labels, [f"q{number // 6}" for number in range(6 * queries)]


def test_the_pull_leads_from_a_regression_to_equal_weights() -> None:
    members, labels, _ = drawn(300, 0, (1.0, 0.2, 0.6))
    deviation = members.std(axis=0)
    gaps = [float(np.ptp(fit_average(members, labels, pull).weights * deviation)) for pull in reversed(PULLS)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] == pytest.approx(0.0, abs=1e-12) and gaps[-2] < 0.3 * gaps[0]
    free, plain = fit_average(members, labels, PENALTY), fit_logistic(members, labels)
    np.testing.assert_allclose([*free.weights, free.bias], [*plain.weights, plain.bias], rtol=1e-2, atol=2e-3)
    scaled = fit_average(members * [8.0, 1.0, 0.1], labels, 0.3)  # the members' scales have no part in it
    np.testing.assert_allclose(scaled.weights * [8.0, 1.0, 0.1], fit_average(members, labels, 0.3).weights, rtol=1e-3)
    against = fit_average(members * [1.0, 1.0, -1.0], labels, PENALTY).weights
    assert against[2] == 0.0 and min(against[:2]) > 0  # never below 0, and the others as without it
    np.testing.assert_allclose(against[:2], fit_average(members[:, :2], labels, PENALTY).weights, rtol=1e-3)


def overfitted(seed: int, queries: int = 69, titles: int = 19) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return a strong member of large logits, and a weak one that knows the labels of three of the queries."""
    random = np.random.RandomState(seed)
    count = titles * queries
    truth, query = random.randn(count), np.arange(count) // titles
    labels = (random.rand(count) < expit(1.5 * truth + random.randn(queries)[query] - 1.0)).astype(float)
    strong = 6.0 * (truth + random.randn(count) + 0.7 * random.randn(queries)[query])
    weak = 0.6 * truth + 0.8 * random.randn(count) + np.where(query < 3, 4.0 * (labels - 0.5), 0.0)
    return np.stack([strong, weak], axis=1), labels, [f"q{number}" for number in query]


def test_few_queries_keep_equal_weights_and_many_leave_them() -> None:
    assert choose(np.ones((1, 5)), np.zeros(1)) == 0  # there is no other
    """A free fit to 69 queries, of which the weak member knows 3, is worse on other queries; ours is not."""
    plain: list[float] = []
    chosen: list[float] = []
    pulls, others = [], overfitted(1000, 2000)
    equal = roc_auc(others[1], equal_average(others[0]))
    for seed in range(10):
        members, labels, queries = overfitted(seed)
        pull = choose_pull(members, labels, queries, 5)
        pulls.append(pull)
        for found, model in ((plain, fit_logistic(members, labels)), (chosen, fit_average(members, labels, pull))):
            found.append(roc_auc(others[1], model.logits(others[0])) - equal)
    assert np.mean(plain) < -0.0008 and np.mean(chosen) > -0.0002 and pulls.count(EQUAL) >= 9
    assert choose_pull(np.eye(2), np.array([1.0, 0.0]), ["a", "b"], 5) == EQUAL  # nothing to part
    members, labels, queries = drawn(2000, 0, (1.0, 0.5))
    weights = fit_average(members, labels, choose_pull(members, labels, queries, 5)).weights
    assert weights[0] > 1.5 * weights[1]


def average_scores(*given: Any) -> np.ndarray:
    return average_out_of_fold(*given)[0]


@pytest.mark.parametrize("score", [out_of_fold, average_scores])
def test_a_query_has_no_part_in_the_weights_it_is_measured_with(score: Callable[..., Any]) -> None:
    members, labels, queries = drawn(30, 2, (1.0, 0.0))
    turned = np.where(np.arange(len(labels)) < 6, 1 - labels, labels)  # of the first query
    before, after = (score(members, own, queries, 5) for own in (labels, turned))
    np.testing.assert_array_equal(after[:6], before[:6])
    assert (after != before).any()  # it has one in others'
    with pytest.raises(DataError, match="one query only"):
        score(members, labels, ["q"] * len(labels), 4)


@pytest.fixture(scope="module")
def of_two(files: Path) -> tuple[Path, list[str]]:
    """A blend of the two rankers, and what was printed of it."""
    return files / "of_two", blend(options(files, files / "of_two", other=(str(files / "two"),)))


def test_it_is_said_whether_learned_weights_are_better(of_two: tuple[Path, list[str]]) -> None:
    folder, lines = of_two
    facts = json.loads((folder / "ranker.json").read_text(encoding="utf-8"))["training"]
    assert (facts["pull_to_equal"] == "equal") == lines[-2].startswith("equal weights: ")
    assert learn_average(*drawn(40, 0, (1.0, 1.0)), 5).verdict(40).startswith("equal weights: ")
    unlike = learn_average(*drawn(80, 1, (1.5, 0.0)), 5)
    assert unlike.better["auc"].low > 0 and unlike.verdict(80).startswith("learned weights are better")
    assert "not established" in dataclasses.replace(unlike, better_known=frozenset()).verdict(80)


def test_measures_over_folds_are_those_of_one_model() -> None:
    """The fits of the folds differ in scale and bias; that must not order pairs of different folds."""
    members, labels, queries = drawn(30, 3, (1.0, 1.0))
    labels = np.where(np.arange(len(labels)) < 60, 0.0, labels)  # a third of the queries has nothing relevant
    found = learn_average(members, labels, queries, 5)
    assert found.equal["auc"].estimate == roc_auc(labels, (members / members.std(axis=0)).sum(axis=1))
    members[:, 1] = 0.0  # all weights are of the first member then
    found = learn_average(members, labels, queries, 5)
    scores = average_scores(members, labels, queries, 5)
    np.testing.assert_allclose(scores, (members[:, 0] - members[:, 0].mean()) / members[:, 0].std(), atol=1e-9)
    assert found.blend == found.equal == found.alone[0]
    assert found.ahead[0]["auc"] == Interval(0.0, 0.0, 0.0)


def test_members_of_no_established_worth_are_named() -> None:
    assert learn_average(*drawn(80, 1, (1.5, 0.0)), 5).idle() == [1]
    members, labels, queries = drawn(100, 1, (1.0, 0.0, 1.0))
    several = learn_average(members, labels, queries, 5)
    assert several.idle()[0] == 1 and several.worth[1]["auc"].low <= 0 < several.worth[0]["auc"].low
    rest = average_scores(members[:, [0, 2]], labels, queries, 5)
    assert several.without[1]["auc"].estimate == roc_auc(labels, rest)
    level, ahead, behind = Interval(0.0, -0.1, 0.1), Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1)
    for differences, known, is_ahead in (
        ((ahead, level), {"auc"}, True),
        ((ahead, level), set[str](), False),  # the interval excludes 0, and the randomisation test does not
        ((ahead, behind), {"auc", "ndcg@10"}, False),
        ((level, level), set[str](), False),
    ):
        worth = [dict(zip(("auc", "ndcg@10"), differences))] * 3
        found = dataclasses.replace(several, worth=worth, worth_known=[frozenset(known)] * 3)
        assert sorted(found.idle()) == ([] if is_ahead else [0, 1, 2])


def test_the_table_is_what_the_folders_score(files: Path, of_two: tuple[Path, list[str]]) -> None:
    _, lines = of_two
    queries, titles, labels = columns(files / "dev.tsv")
    names = [str(files / "one"), str(files / "two")]
    one, two = (logits(load_model(name, RANKER), queries, titles) for name in names)
    relevant = np.array([float(label) for label in labels])
    for name, expected in zip([*names, "equal weights"], (one, two, one / one.std() + two / two.std())):
        line = next(line for line in lines if line.startswith(f"{name}  "))
        shown, *differences = re.findall(r"([+-]?\d\.\d{4}) \[[+-]?\d\.\d{4}, [+-]?\d\.\d{4}\]", line)[::2]
        assert float(shown) == pytest.approx(roc_auc(relevant, expected), abs=6e-5) and len(differences) == 1
    assert lines[-1].startswith(("advice: the blend", *(f"advice: {name} alone" for name in names)))


def test_towers_and_bm25_are_members_and_all_is_exported(files: Path, tmp_path: Path) -> None:
    """The logit is the weighted sum of what each member computes alone, in each engine."""
    tower = write_tower(tmp_path / "tower", normalize=False)
    target, others = tmp_path / "all", (str(files / "two"), str(tower), "bm25")
    lines = blend(options(files, target, other=others, train_file=str(files / "train.tsv")))
    names = [str(files / "one"), *others[:2], "bm25", "linear model"]
    for name in names:
        assert sum(line.startswith((f"{name}  ", f"without {name}  ")) for line in lines) == 2
    info = json.loads((target / "ranker.json").read_text(encoding="utf-8"))
    weights, blended = info["training"]["weights"], load_model(target, RANKER)
    (queries, titles, _), (*texts, labels) = columns(files / "dev.tsv"), columns(files / "train.tsv")
    opened = Tower.open(tower, LoadOptions(threads=1))
    vectors = opened.query_vectors(queries), opened.vectors(titles)
    lengths = np.linalg.norm(vectors[0], axis=1) * np.linalg.norm(vectors[1], axis=1)
    first = load_single(target / "member_1")
    head, encode = first.network.lexical, first.row_encoder.encode
    assert head is not None
    features, inputs = (
        head.of_pairs(encode(*pairs), np.arange(len(pairs[0])), standardise=True).astype(np.float64)
        for pairs in ((queries, titles), texts)
    )
    learned = fit_logistic(inputs, np.array(labels, np.float64))
    rankers = [logits(load_model(files / name, RANKER), queries, titles) for name in ("one", "two")]
    alone = [*rankers, (vectors[0] * vectors[1]).sum(axis=1) / lengths, features[:, 0], learned.logits(features)]
    expected = np.stack(alone, axis=1) @ weights + info["training"]["bias"]
    np.testing.assert_allclose(logits(blended, queries, titles), expected, rtol=1e-4, atol=1e-4)
    assert min(np.ptp(one) for one in alone) > 1e-3 and info["calibration"]["fitted_on"]["queries"] == 20
    exported, _ = export_model(blended, tmp_path / "exported", onnx=WRITES_ONNX)
    probability = expit(info["calibration"]["scale"] * expected + info["calibration"]["shift"])
    for engine in ("inference", "onnx")[: 1 + WRITES_ONNX]:
        found = Ranker.load(exported.folder, engine=engine).score(queries, titles)
        np.testing.assert_allclose(found, probability, atol=1e-4)


def test_with_the_linear_model_it_is_one_network(files: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "blend"
    arguments = [str(files / "one"), str(files / "dev.tsv"), str(target), "--device", "cpu"]
    assert main([*arguments, "--train_file", str(files / "train.tsv")]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("linear model", "blend", "auc", "ndcg@10", "cross-validated"))

    facts = json.loads((target / "ranker.json").read_text(encoding="utf-8"))
    (own, added), bias = facts["training"]["blend"]["weights"], facts["training"]["blend"]["bias"]
    assert facts["calibration"]["fitted_on"]["file"] == "dev.tsv"
    assert added > 0.1  # it learned that a title which holds the query is relevant
    assert facts["lexical_features"] is True
    rows = [line.split("\t") for line in (files / "train.tsv").read_text(encoding="utf-8").splitlines()]
    fresh = start_ranker(files / "one", Fresh("pairwise", lexical_features=True))
    head, encoder = fresh.network.lexical, fresh.row_encoder
    assert head is not None
    train = encoder.encode([row[0] for row in rows], [row[1] for row in rows])
    head.learn(train)
    learned = fit_logistic(
        head.of_pairs(train, np.arange(len(rows)), standardise=True), np.array([float(row[2]) for row in rows])
    )
    features = head.of_pairs(encoder.encode(QUERIES, TITLES), np.arange(6), standardise=True)
    expected = own * logits(load_model(files / "one", RANKER)) + added * learned.logits(features) + bias
    np.testing.assert_allclose(logits(load_model(target, RANKER)), expected, rtol=1e-4, atol=1e-4)
    assert facts["results"]["auc"] > 0.5
    assert start_ranker(target, Fresh("pairwise")).new_parts == []  # and it trains on

    again = tmp_path / "again"
    blend(options(files, again, ranker=str(target), train_file=str(files / "train.tsv"), folds=2))  # onto its own
    assert load_model(again, RANKER).info.lexical_features


def test_a_member_counts_once_and_a_linear_model_is_not_judged_on_its_data(files: Path, tmp_path: Path) -> None:
    (tmp_path / "best").symlink_to(files / "one")
    for same in (str(files / "one"), f"{files / 'one'}/", str(tmp_path / "best")):
        with pytest.raises(UsageError, match="is given twice"):
            options(files, tmp_path / "blend", other=(str(files / "two"), same))
    shutil.copy(files / "dev.tsv", tmp_path / "copy.tsv")
    train = join_files([str(files / "train.tsv"), str(tmp_path / "copy.tsv")])
    with pytest.raises(DataError, match=r"copy\.tsv: has the same content as .*dev\.tsv"):
        blend(options(files, tmp_path / "blend", train_file=train))


def test_triples_teach_the_linear_model_too(files: Path, tmp_path: Path) -> None:
    rows = [line.split("\t") for line in (files / "train.tsv").read_text(encoding="utf-8").splitlines()]
    triples = [f"{a[0]}\t{a[1]}\t{c[1]}\n" for a, c in zip(rows[::3], rows[2::3])]
    (tmp_path / "triples.csv").write_text("query\ttitle\tneg_title\n" + "".join(triples), encoding="utf-8")
    blend(options(files, tmp_path / "blend", train_file=str(tmp_path / "triples.csv"), folds=2))
    facts = json.loads((tmp_path / "blend" / "ranker.json").read_text(encoding="utf-8"))
    assert facts["training"]["blend"]["weights"][1] > 0


def test_with_another_ranker_each_tokenizes_by_itself(
    files: Path, of_two: tuple[Path, list[str]], tmp_path: Path, capsys: Any
) -> None:
    target, lines = of_two
    assert any(line.startswith("calibrated on these queries") for line in lines)
    one, two, blended = load_model(files / "one", RANKER), load_model(files / "two", RANKER), load_model(target, RANKER)
    assert blended.info.blend is not None
    (first, second), bias = blended.info.blend["weights"], blended.info.blend["bias"]
    expected = first * logits(one) + second * logits(two) + bias
    found = logits(blended)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected) > 0.01
    alone = [logits(blended, [query], [title])[0] for query, title in PAIRS]
    np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-5)

    scale = blended.info.calibration
    calibrated = expit(expected if scale is None else scale.apply(expected))
    np.testing.assert_allclose(Ranker.load(target).score(QUERIES, TITLES), calibrated, atol=1e-6)
    (tmp_path / "pairs.tsv").write_text("".join(f"{query}\t{title}\n" for query, title in PAIRS), encoding="utf-8")
    capsys.readouterr()
    arguments = ["--params_path", str(target), "--input_file", str(tmp_path / "pairs.tsv"), "--device", "cpu"]
    assert predict(arguments) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    probabilities = [float(line.rpartition("'pred_prob': ")[2].rstrip("}")) for line in printed]
    np.testing.assert_allclose(probabilities, calibrated, atol=1e-6)


def test_what_a_blend_of_two_cannot_do_is_said(files: Path, of_two: tuple[Path, list[str]], tmp_path: Path) -> None:
    target = Path(shutil.copytree(of_two[0], tmp_path / "blend"))
    with pytest.raises(CheckpointError, match="cannot be trained"):
        start_ranker(target, Fresh("pairwise"))
    with pytest.raises(CheckpointError, match="is a blend of rankers, not a trained ranker of one network"):
        blend(options(files, tmp_path / "again", ranker=str(target), other=(str(files / "two"),)))
    with pytest.raises(UsageError, match="windows"):
        Ranker.load(target, windows="max").score(QUERIES, TITLES)
    facts = json.loads((target / "ranker.json").read_text(encoding="utf-8"))
    for damage in ({"members": ["../one", "member_2"]}, {"weights": [1.0]}, {"weights": [1.0, "x"]}, {"bias": None}):
        broken = {**facts, "blend": {**facts["blend"], **damage}}
        (target / "ranker.json").write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(CheckpointError, match="damaged"):
            load_model(target, RANKER)
