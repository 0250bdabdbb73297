"""Blending: the weights' own equations, one network with the linear model inside, and two rankers in one folder."""

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
from paddle_ranker.metrics.auc import roc_auc
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.metrics.logistic import (
    EQUAL,
    PENALTY,
    average_out_of_fold,
    choose_pull,
    fit_average,
    fit_logistic,
    out_of_fold,
)
from paddle_ranker.model.folder import Fresh, start_ranker
from paddle_ranker.model.kinds import TrainedRanker, load_ranker
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.training.blend import learn_average
from tests.tiny import PAIRS, VOCABULARY, draw_words, write_ranker

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


def drawn(queries: int, seed: int, strength: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return two members' logits, labels and queries of 6 titles; `strength`: what either tells of relevance."""
    random = np.random.RandomState(seed)
    truth = random.randn(6 * queries)
    members = np.stack([factor * truth + random.randn(6 * queries) for factor in strength], axis=1)
    hardness = np.repeat(random.randn(queries), 6)
    labels = (random.rand(6 * queries) < expit(1.5 * truth + hardness)).astype(float)
    return members, labels, [f"q{number // 6}" for number in range(6 * queries)]


def test_the_pull_leads_from_a_regression_to_equal_weights() -> None:
    members, labels, _ = drawn(300, 0, (1.0, 0.2))
    gaps = []
    for pull in (PENALTY, 0.1, 1.0, 100.0):
        first, second = fit_average(members, labels, pull).weights
        gaps.append(first - second)
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 0.02 * gaps[0]
    equal = fit_average(members, labels, EQUAL)
    assert equal.weights[0] == pytest.approx(equal.weights[1], rel=1e-9)
    spread = members / members.std(axis=0)  # of one deviation, where both are the same regression
    np.testing.assert_allclose(
        fit_average(spread, labels, PENALTY).weights, fit_logistic(spread, labels).weights, rtol=1e-3
    )


def test_few_queries_keep_equal_weights_and_many_may_leave_them() -> None:
    alike = [choose_pull(*drawn(40, seed, (1.0, 1.0)), 5) for seed in range(5)]
    assert alike.count(EQUAL) >= 4  # a standard error is what chance passes now and then
    assert choose_pull(*drawn(150, 1, (1.5, 0.0)), 5) < EQUAL
    assert choose_pull(np.eye(2), np.array([1.0, 0.0]), ["a", "b"], 5) == EQUAL  # nothing to part


def test_drawn_weights_are_better_on_other_queries_than_a_plain_regressions() -> None:
    plain: list[float] = []
    pulled: list[float] = []
    for seed in range(6):
        members, labels, queries = drawn(20, seed, (1.0, 1.0))
        others, other_labels, _ = drawn(400, 1000 + seed, (1.0, 1.0))
        for found, model in (
            (plain, fit_logistic(members, labels)),
            (pulled, fit_average(members, labels, choose_pull(members, labels, queries, 5))),
        ):
            found.append(roc_auc(other_labels, model.logits(others)))
    assert np.mean(pulled) > np.mean(plain) and min(np.subtract(pulled, plain)) > -0.005


@pytest.mark.parametrize("score", [out_of_fold, average_out_of_fold])
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
    return files / "of_two", blend(options(files, files / "of_two", other=str(files / "two")))


def test_it_is_said_whether_learned_weights_are_better(of_two: tuple[Path, list[str]]) -> None:
    folder, lines = of_two
    facts = json.loads((folder / "ranker.json").read_text(encoding="utf-8"))["training"]
    same = facts["weights"][0] == pytest.approx(facts["weights"][1], rel=1e-9)
    assert same == (facts["pull_to_equal"] == "equal") == lines[-2].startswith("equal weights: ")
    assert learn_average(*drawn(40, 0, (1.0, 1.0)), 5).says(40).startswith("equal weights: ")
    unlike = learn_average(*drawn(80, 1, (1.5, 0.0)), 5)
    assert unlike.better["auc"].low > 0 and unlike.says(80).startswith("learned weights are better")
    assert "not established" in dataclasses.replace(unlike, better={"auc": Interval(0.01, -0.01, 0.03)}).says(80)


def test_measures_over_folds_are_those_of_one_model() -> None:
    """The fits of the folds differ in scale and bias; that must not order pairs of different folds."""
    members, labels, queries = drawn(30, 3, (1.0, 1.0))
    labels = np.where(np.arange(len(labels)) < 60, 0.0, labels)  # a third of the queries has nothing relevant
    found = learn_average(members, labels, queries, 5)
    assert found.equal["auc"].estimate == roc_auc(labels, members.sum(axis=1))
    members[:, 1] = 0.0  # all weights are of the first member then
    found = learn_average(members, labels, queries, 5)
    scores = average_out_of_fold(members, labels, queries, 5)
    np.testing.assert_allclose(scores, (members[:, 0] - members[:, 0].mean()) / members[:, 0].std(), atol=1e-9)
    assert found.blend == found.equal == found.alone[0]
    assert found.ahead[0]["auc"] == Interval(0.0, 0.0, 0.0)


def test_a_member_that_the_blend_is_not_ahead_of_is_advised() -> None:
    assert learn_average(*drawn(80, 1, (1.5, 0.0)), 5).rivals() == [0]
    both = learn_average(*drawn(200, 1, (1.0, 1.0)), 5)
    assert both.rivals() == [] and min(gaps["auc"].low for gaps in both.ahead) > 0
    level, ahead, behind = Interval(0.0, -0.1, 0.1), Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1)
    for differences, is_ahead in (((ahead, level), True), ((ahead, behind), False), ((level, level), False)):
        found = dataclasses.replace(both, ahead=[dict(zip(("auc", "ndcg@10"), differences))] * 2)
        assert sorted(found.rivals()) == ([] if is_ahead else [0, 1])


def test_the_table_is_what_the_folders_score(files: Path, of_two: tuple[Path, list[str]]) -> None:
    _, lines = of_two
    rows = [line.split("\t") for line in (files / "dev.tsv").read_text(encoding="utf-8").splitlines()]
    queries, titles, labels = [list(column) for column in zip(*rows)]
    one, two = (logits(load_ranker(files / name), queries, titles) for name in ("one", "two"))
    relevant = np.array([float(label) for label in labels])
    for name, expected in (("ranker", one), ("other ranker", two), ("equal weights", (one + two) / 2)):
        line = next(line for line in lines if line.startswith(f"{name}  "))
        shown, *differences = re.findall(r"([+-]?\d\.\d{4}) \[[+-]?\d\.\d{4}, [+-]?\d\.\d{4}\]", line)[::2]
        assert float(shown) == pytest.approx(roc_auc(relevant, expected), abs=6e-5) and len(differences) == 1
    assert lines[-1].startswith("advice: ")
    if not lines[-1].startswith("advice: the blend"):
        assert f"advice: {files / 'one'} alone" in lines[-1] or f"advice: {files / 'two'} alone" in lines[-1]


def test_with_the_linear_model_it_is_one_network(files: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "blend"
    arguments = [str(files / "one"), str(files / "dev.tsv"), str(target), "--device", "cpu"]
    assert main([*arguments, "--train_file", str(files / "train.tsv")]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("ranker", "linear model", "blend", "auc", "ndcg@10", "cross-validated"))

    facts = json.loads((target / "ranker.json").read_text(encoding="utf-8"))
    (own, added), bias = facts["training"]["blend"]["weights"], facts["training"]["blend"]["bias"]
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
    expected = own * logits(load_ranker(files / "one")) + added * learned.logits(features) + bias
    np.testing.assert_allclose(logits(load_ranker(target)), expected, rtol=1e-4, atol=1e-4)
    assert facts["results"]["auc"] > 0.5
    assert start_ranker(target, Fresh("pairwise")).new_parts == []  # and it trains on

    again = tmp_path / "again"
    blend(options(files, again, ranker=str(target), train_file=str(files / "train.tsv"), folds=2))  # onto its own
    assert load_ranker(again).info.lexical_features


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
    assert any(line.startswith("other") for line in lines)
    one, two, blended = load_ranker(files / "one"), load_ranker(files / "two"), load_ranker(target)
    assert blended.info.blend is not None
    (first, second), bias = blended.info.blend["weights"], blended.info.blend["bias"]
    expected = first * logits(one) + second * logits(two) + bias
    found = logits(blended)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected) > 0.01
    alone = [logits(blended, [query], [title])[0] for query, title in PAIRS]
    np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-5)

    np.testing.assert_allclose(Ranker.load(target).score(QUERIES, TITLES), expit(expected), atol=1e-6)
    (tmp_path / "pairs.tsv").write_text("".join(f"{query}\t{title}\n" for query, title in PAIRS), encoding="utf-8")
    capsys.readouterr()
    arguments = ["--params_path", str(target), "--input_file", str(tmp_path / "pairs.tsv"), "--device", "cpu"]
    assert predict(arguments) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    probabilities = [float(line.rpartition("'pred_prob': ")[2].rstrip("}")) for line in printed]
    np.testing.assert_allclose(probabilities, expit(expected), atol=1e-6)


def test_what_a_blend_of_two_cannot_do_is_said(files: Path, of_two: tuple[Path, list[str]], tmp_path: Path) -> None:
    target = Path(shutil.copytree(of_two[0], tmp_path / "blend"))
    with pytest.raises(CheckpointError, match="cannot be trained"):
        start_ranker(target, Fresh("pairwise"))
    with pytest.raises(CheckpointError, match="blend of rankers already"):
        blend(options(files, tmp_path / "again", ranker=str(target), other=str(files / "two")))
    with pytest.raises(UsageError, match="windows"):
        Ranker.load(target, windows="max").score(QUERIES, TITLES)
    facts = json.loads((target / "ranker.json").read_text(encoding="utf-8"))
    for damage in ({"members": ["../one", "member_2"]}, {"weights": [1.0]}, {"weights": [1.0, "x"]}, {"bias": None}):
        broken = {**facts, "blend": {**facts["blend"], **damage}}
        (target / "ranker.json").write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(CheckpointError, match="damaged"):
            load_ranker(target)
