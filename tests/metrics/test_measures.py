"""Measures equal values worked out by hand, scikit-learn and trec_eval; intervals equal SciPy's."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_ranker.__main__ import main
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.metrics import intervals as statistics
from paddle_ranker.metrics import measures as metrics
from paddle_ranker.metrics.auc import roc_auc
from paddle_ranker.metrics.measures import MEASURES, evaluate_ranking
from paddle_ranker.metrics.ranking import Ranking, Scored, number_queries, rank, standardise
from paddle_ranker.training.training_options import RankerTrainingOptions

pytestmark = pytest.mark.unit

# Two queries, rows mixed. "a" ranks labels 0, 2, 1; "b" ranks 1, 0.
QUERIES = ["a", "b", "a", "b", "a"]
LABELS = [2, 0, 1, 1, 0]
SCORES = [0.5, 0.1, 0.2, 0.9, 0.8]
Judged = tuple[list[str], np.ndarray, np.ndarray]


def test_values_worked_out_by_hand() -> None:
    ranking = rank(QUERIES, LABELS, SCORES)
    log = math.log2
    ndcg = (2 / log(3) + 1 / log(4)) / (2 + 1 / log(3))
    assert metrics.ndcg_at(ranking, 10) == pytest.approx([ndcg, 1.0])
    assert metrics.ndcg_at(ranking, 2) == pytest.approx([(2 / log(3)) / (2 + 1 / log(3)), 1.0])
    assert metrics.reciprocal_rank_at(ranking, 10).tolist() == [0.5, 1.0]
    assert metrics.reciprocal_rank_at(ranking, 1).tolist() == [0.0, 1.0]
    assert metrics.average_precision(ranking) == pytest.approx([(1 / 2 + 2 / 3) / 2, 1.0])
    assert metrics.precision_at(ranking, 2).tolist() == [0.5, 0.5]
    assert metrics.recall_at(ranking, 2).tolist() == [0.5, 1.0]
    # AUC: relevant scores 0.5, 0.2, 0.9 against 0.1, 0.8: of six pairs, 1 + 1 + 2 are in order
    # within queries: (2,1) in order, (2,0) and (1,0) not, and b's one pair in order
    values = {"auc": 4 / 6, "mrr@10": 0.75, "ndcg@10": (ndcg + 1) / 2, "map": (7 / 12 + 1) / 2, "pairs_ordered": 2 / 4}
    counts = {"queries": 2, "queries_with_positive": 2, "pairs": 5}
    assert evaluate_ranking(QUERIES, LABELS, SCORES) == pytest.approx({**values, **counts})


def test_measures_within_queries_need_an_order_to_check() -> None:
    assert evaluate_ranking(["a", "b"], [1, 0], [0.3, 0.7]) == {"auc": 0.0, "pairs": 2}
    found = evaluate_ranking(["a", "a", "b", "b"], [1, 1, 0, 0], [4, 3, 2, 1])
    assert "pairs_ordered" not in found
    assert (found["queries"], found["queries_with_positive"], found["map"]) == (2, 1, 0.5)


def means_by_query(scored: Scored) -> dict[str, np.ndarray]:
    return {name: one.by_query(scored) for name, one in MEASURES.items() if isinstance(one, metrics.QueryMean)}


def statistics_of(scored: Scored) -> dict[str, Any]:
    return {name: measure.statistic(scored) for name, measure in MEASURES.items()}


@st.composite
def judged(draw: Any) -> Judged:
    """Draw rows of few queries, with few distinct labels and scores, so that ties are frequent."""
    rows = draw(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 3), st.integers(-3, 3)), min_size=1, max_size=25)
    )
    queries, labels, scores = zip(*rows)
    return list(queries), np.array(labels, float), np.array(scores, float) / 7


@settings(max_examples=200, deadline=None)
@given(judged())
def test_auc_is_scikit_learns(data: Judged) -> None:
    from sklearn.metrics import roc_auc_score

    _, labels, scores = data
    if len(set(labels >= 1)) < 2:
        with pytest.raises(DataError, match="AUC needs relevant pairs"):
            roc_auc(labels, scores)
    else:
        assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels >= 1, scores), abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(judged())
def test_the_share_of_ordered_pairs_is_that_of_counting_each(data: Judged) -> None:
    queries, labels, scores = data
    points = [
        0.5 * (scores[i] >= scores[j]) + 0.5 * (scores[i] > scores[j])
        for i in range(len(queries))
        for j in range(len(queries))
        if queries[i] == queries[j] and labels[i] > labels[j]
    ]
    ordered = MEASURES["pairs_ordered"]
    if points:
        assert ordered.value(Scored(queries, labels, scores)) == pytest.approx(np.mean(points), abs=1e-12)
    else:
        with pytest.raises(DataError, match="different labels"):
            ordered.value(Scored(queries, labels, scores))


def trec_eval(
    queries: list[str], labels: np.ndarray, scores: np.ndarray, names: list[str], ids: Optional[list[str]] = None
) -> dict[str, np.ndarray]:
    """Return each measure per query, in order of first occurrence, from the reference implementation."""
    ir_measures = pytest.importorskip("ir_measures", reason="needs ir-measures (pip install ir-measures)")
    # trec_eval orders equal scores by name, descending: name the titles so that the less relevant comes first.
    ids = ids or [f"{50 - label:02.0f}-{row:04}" for row, label in enumerate(labels)]
    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for query, document, label, score in zip(queries, ids, labels, scores):
        if np.isfinite(label):
            qrels.setdefault(query, {})[document] = int(label)
        if np.isfinite(score):
            run.setdefault(query, {})[document] = float(score)
    measures = {name: ir_measures.parse_measure(name) for name in names}
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for value in ir_measures.pytrec_eval.iter_calc(list(measures.values()), qrels, run):
        found[str(value.measure)][value.query_id] = value.value
    return {name: np.array([found[name][query] for query in qrels]) for name in names}


@settings(max_examples=100, deadline=None)
@given(judged())
def test_measures_of_a_query_are_trec_evals(data: Judged) -> None:
    queries, labels, scores = data
    ranking = rank(queries, labels, scores)
    ours = {
        "nDCG@10": metrics.ndcg_at(ranking, 10),
        "nDCG@3": metrics.ndcg_at(ranking, 3),
        "RR@10": metrics.reciprocal_rank_at(ranking, 10),
        "AP": metrics.average_precision(ranking),
        "P@5": metrics.precision_at(ranking, 5),
        "R@5": metrics.recall_at(ranking, 5),
    }
    theirs = trec_eval(queries, labels, scores, list(ours))
    for name, values in ours.items():
        assert values == pytest.approx(theirs[name], abs=1e-9), name


@st.composite
def retrieved(draw: Any) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """Draw rows of a run with qrels: unjudged documents, judged documents not returned, near ties."""
    scores = st.sampled_from([-np.inf, 0.0, 1.0, 1.0 + 1e-9, 1.0 + 1e-5, 2.0, 1e40, -3.5])
    row = st.tuples(st.sampled_from("ab"), st.sampled_from([np.nan, -1, 0, 1, 2]), scores)
    rows = draw(st.lists(row, max_size=25))
    names = draw(st.lists(st.text("aZ9é-", min_size=1), min_size=len(rows), max_size=len(rows), unique=True))
    rows += [("a", 1, -np.inf), ("b", 0, -np.inf)]  # queries are those of the qrels
    queries, labels, values = zip(*rows)
    return list(queries), np.array(labels, float), np.array(values, float), [*names, "~a", "~b"]


@settings(max_examples=200, deadline=None)
@given(retrieved())
def test_a_run_and_qrels_are_measured_as_trec_eval_does_ties_included(
    data: tuple[list[str], np.ndarray, np.ndarray, list[str]],
) -> None:
    queries, labels, scores, ids = data
    names = {"RR": None, "nDCG@10": "ndcg@10", "AP": "map", "P@1": "p@1", "P@5": "p@5", "P@10": "p@10"}
    names.update({f"R@{cut}": f"r@{cut}" for cut in (1, 5, 10, 20, 50, 100)})
    theirs = trec_eval(queries, labels, scores, list(names), ids)
    ours = means_by_query(Scored(queries, np.nan_to_num(labels), scores, ids=ids))
    judged_first = dict.fromkeys(query for query, label in zip(queries, labels) if np.isfinite(label))
    rows = [list(dict.fromkeys(queries)).index(query) for query in judged_first]
    for theirs_name, name in names.items():
        # trec_eval has no cut-off for the reciprocal rank: beyond 10 it is 0 here
        expected = theirs[theirs_name] if name else np.where(theirs["RR"] >= 0.1, theirs["RR"], 0.0)
        assert ours[name or "mrr@10"][rows] == pytest.approx(expected, abs=1e-9), theirs_name


def test_the_curve_of_recall_is_recall_at_each_cut() -> None:
    random = np.random.default_rng(3)
    queries = [str(number) for number in random.integers(0, 7, 120)]
    labels, scores = random.integers(0, 2, 120) * random.integers(0, 2, 120), random.random(120)
    scores[random.random(120) < 0.2] = -math.inf
    ranking = rank(queries, labels, scores)
    wanted = [metrics.recall_at(ranking, k).mean() for k in range(1, 31)]
    np.testing.assert_allclose(metrics.recall_curve(ranking, 30), wanted)


def test_auc_over_judged_pairs_only() -> None:
    queries, labels, scores = ["a", "a", "a", "b", "b"], [1, 0, 0, 0, 1], [3.0, 1.0, 9.0, 2.0, 0.5]
    known = np.array([True, True, False, True, True])
    found = statistics_of(Scored(queries, labels, scores, judged=known))
    once = np.ones((1, 2))
    assert found["auc"](once)[0] == roc_auc([1, 0, 0, 1], [3.0, 1.0, 2.0, 0.5]) == 2 / 4
    assert found["pairs_ordered"](once)[0] == 1 / 2
    assert found["mrr@10"](once)[0] == (1 / 2 + 1 / 2) / 2  # the unjudged document comes first
    # Documents that were not returned are below all others, and equal.
    assert roc_auc([0, 1, 2, 1], [0.9, 0.8, -math.inf, -math.inf]) == 0.0
    assert roc_auc([0, 1, 0], [0.5, -math.inf, -math.inf]) == (0 + 0.5) / 2


@pytest.mark.parametrize(
    "labels, scores, message",
    [
        ([1, 0], [0.5, math.nan], r"the score of pair 2 is nan \(1 of 2 are not finite\)"),
        ([1, math.inf], [0.5, 0.5], "the label of pair 2 is inf"),
        ([1, 0], [0.5], "one of each a pair"),
        ([], [], "no pairs to measure"),
        ([1, 2], [0.1, 0.2], "each of the 2 is relevant"),
        ([0, 0.5], [0.1, 0.2], "none of the 2 is relevant"),
    ],
)
def test_what_cannot_be_measured_is_an_error(labels: list[float], scores: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_ranking(["a"] * len(labels), labels, scores)
    with pytest.raises(DataError, match="1 queries and 2 scores"):
        evaluate_ranking(["a"], [1, 0], [0.5, 0.4])


def example(queries: int, seed: int) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    names = [f"q{number}" for number in generator.integers(0, queries, queries * 8)]
    labels = generator.integers(0, 3, len(names)).astype(float)
    # Rounded, so that some scores are equal.
    scores = [np.round(labels * weight + generator.normal(size=len(names)), 1) for weight in (1.0, 0.6)]
    return names, labels, scores[0], scores[1]


def test_statistics_of_a_draw_are_those_of_a_file_with_the_drawn_queries() -> None:
    queries, labels, scores, _ = example(12, seed=3)
    numbers = number_queries(queries)
    drawn = np.random.default_rng(0).multinomial(12, [1 / 12] * 12, size=5).astype(float)
    found = {name: value(drawn) for name, value in statistics_of(Scored(queries, labels, scores)).items()}
    for draw, counts in enumerate(drawn):
        # The drawn rows; each copy of a query has a different name.
        rows = [(copy, row) for row in range(len(queries)) for copy in range(int(counts[numbers[row]]))]
        names = [f"{queries[row]} {copy}" for copy, row in rows]
        picked = [row for _, row in rows]
        by_query = means_by_query(Scored(names, labels[picked], scores[picked]))
        expected = {name: values.mean() for name, values in by_query.items()}
        expected.update(evaluate_ranking(names, labels[picked], scores[picked]))
        for name, values in found.items():
            assert values[draw] == pytest.approx(expected[name], abs=1e-12), name


def test_estimates_are_the_measures_and_differences_are_paired() -> None:
    queries, labels, scores, baseline = example(40, seed=1)
    names = ["auc", "mrr@10", "ndcg@10", "map", "pairs_ordered"]
    first, second = (evaluate_ranking(queries, labels, values) for values in (scores, baseline))
    alone = metrics.ranking_intervals(queries, labels, scores, measures=names, resamples=200)
    paired = metrics.ranking_intervals(queries, labels, scores, baseline, measures=names, resamples=200)
    nothing = metrics.ranking_intervals(queries, labels, scores, scores, measures=names, resamples=200)
    for name in names:
        assert alone[name].estimate == pytest.approx(first[name], abs=1e-12)
        assert paired[name].estimate == pytest.approx(first[name] - second[name], abs=1e-12)
        assert alone[name].low < alone[name].estimate < alone[name].high
        assert (nothing[name].low, nothing[name].high) == pytest.approx((0, 0), abs=1e-12)
    assert paired["auc"].excludes_zero() and not nothing["auc"].excludes_zero()


def test_the_interval_of_a_mean_is_scipys() -> None:
    from scipy.stats import bootstrap

    values = np.random.default_rng(5).gamma(2.0, size=60)
    ours = statistics.bootstrap_interval(statistics.mean_of(values), 60, resamples=20_000)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, random_state=1).confidence_interval
    assert ours.estimate == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02 * values.std())
    few = statistics.bootstrap_interval(statistics.mean_of(values), 60, resamples=20_000, draw=15)
    assert few.high - few.low == pytest.approx(2 * (ours.high - ours.low), rel=0.05)  # a quarter of the queries


def test_an_interval_is_reproducible_and_widens_with_confidence() -> None:
    values = np.random.default_rng(5).normal(size=30)
    narrow, again, wide, other = (
        statistics.bootstrap_interval(statistics.mean_of(values), 30, confidence=confidence, seed=seed)
        for confidence, seed in ((0.9, 1), (0.9, 1), (0.99, 1), (0.9, 2))
    )
    assert narrow == again != other
    assert wide.low < narrow.low < narrow.high < wide.high
    assert str(statistics.Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


def test_draws_of_one_class_are_left_out() -> None:
    interval = metrics.ranking_intervals(["a", "b"], [1, 0], [0.9, 0.1], measures=["auc"], resamples=50)["auc"]
    assert (interval.low, interval.high) == (1.0, 1.0)
    with pytest.raises(DataError, match="needs at least 2"):
        metrics.ranking_intervals(["a", "a"], [1, 0], [0.9, 0.1])


def test_the_documented_measures_are_those_there_are() -> None:
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = text.partition("| --- | --- | --- |\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [f"| `{name}` | {one.title} | {one.what} |" for name, one in MEASURES.items()]
    trained = text.partition("Training prints ")[2].partition(", and can")[0]
    assert re.findall("`(.+?)`", trained) == metrics.training_measures()


def first_relevant(ranking: Ranking) -> np.ndarray:
    """Return the place of each query's first relevant title, from 1; without any, the number of titles + 1."""
    places = np.bincount(ranking.query, minlength=ranking.queries) + 1.0
    np.minimum.at(places, ranking.query[ranking.relevant], ranking.place[ranking.relevant] + 1.0)
    return places


def test_an_added_measure_is_compared_tested_and_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(query, title, title % 2) for query in range(8) for title in range(4)]
    (tmp_path / "dev.tsv").write_text("".join(f"q{q}\tt{t}\t{label}\n" for q, t, label in rows), encoding="utf-8")
    for name, scores in (("good", [label for _, _, label in rows]), ("bad", [-label for _, _, label in rows])):
        (tmp_path / f"{name}.tsv").write_text("".join(f"{score}\n" for score in scores), encoding="utf-8")
    arguments = ["compare", *(str(tmp_path / f"{name}.tsv") for name in ("good", "bad"))]
    arguments += ["--test_file", str(tmp_path / "dev.tsv"), "--baselines", "false", "--format", "json"]
    arguments += ["--measure", "first_relevant", "--reference", "best", "--report", str(tmp_path / "report.html")]
    assert main(arguments) == 2
    assert "--measure first_relevant: choose from auc, " in capsys.readouterr().err
    MEASURES.add(
        "first_relevant",
        metrics.QueryMean("first relevant", "its place", first_relevant, higher_is_better=False, in_training=True),
    )
    try:
        assert evaluate_ranking(QUERIES, LABELS, SCORES)["first_relevant"] == (2 + 1) / 2
        assert RankerTrainingOptions(metric="first_relevant").metric == "first_relevant"
        with pytest.raises(UsageError, match=r"--metric p@1: choose from auc, .*, pairs_ordered, first_relevant"):
            RankerTrainingOptions(metric="p@1")
        assert main(arguments) == 0
    finally:
        MEASURES.remove("first_relevant")
    found = json.loads(capsys.readouterr().out)
    assert found["reference"] == "good.tsv"  # lower is better
    values = found["systems"]["bad.tsv"]["measures"]["first_relevant"]
    assert (values["value"], values["difference"]["value"], values["wins"], values["losses"]) == (3.0, 2.0, 0, 8)
    assert values["p_value"] == 2 / 2**8
    assert "bad.tsv is behind good.tsv: first relevant +2.000" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "dtype", "is_constant"),
    [
        (np.zeros(9), np.float32, True),
        (np.full(9, 0.1), np.float64, True),  # whose mean is not 0.1
        (0.9999 + 3e-5 * np.sin(np.arange(50.0)), np.float32, True),  # a cosine whose rounding is 4e-7
        (0.9999 + 3e-5 * np.sin(np.arange(50.0)), np.float64, False),
        (2e-7 * np.cos(np.arange(50.0)), np.float32, True),
        (0.93 + 0.03 * np.sin(np.arange(50.0)), np.float32, False),
        (3.2 + 0.3 * np.sin(np.arange(50.0)), np.float32, False),
        ((np.arange(2000) == 7).astype(float), np.float32, False),  # rare
        (2015.0 + np.arange(10), np.float64, False),
        (np.arange(9) % 2 * 2.0, np.float32, False),  # whose deviation is 1, as a constant's is said to be
    ],
)
def test_a_constant_is_what_its_type_does_not_resolve(values: np.ndarray, dtype: Any, is_constant: bool) -> None:
    both = standardise(np.stack([values, np.arange(len(values), dtype=float)], axis=1), dtype)
    mean, deviation = values.mean(), values.std()
    assert both.mean[0] == pytest.approx(mean) and both.deviation[1] == np.arange(len(values)).std()
    if is_constant:
        assert both.deviation[0] == 1.0 and not both.values[:, 0].any()
    else:
        np.testing.assert_allclose(both.values[:, 0], (values - mean) / deviation, atol=1e-9)
        assert both.deviation[0] == pytest.approx(deviation)
