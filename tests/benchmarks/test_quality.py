"""The quality benchmarks: their arithmetic by hand or by a second method, and both commands on tiny data."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks import demo, qbqtc
from benchmarks.harness.quality import Measure, compare, measures_table
from benchmarks.harness.report import Goal, format_table
from benchmarks.harness.runs import Run, RunStore, System, grouped_folds, make_splits, resembling
from benchmarks.inputs import ROOT, parse_numbers
from benchmarks.script_commands import arguments_after, script_commands
from ernie_matching.train_pairwise import TrainPairwiseOptions
from paddle_ranker.commands.starter import StarterOptions
from paddle_ranker.data.rows.records import LabeledPair, read_records
from paddle_ranker.errors import RankerError, UsageError
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.metrics.measures import evaluate_ranking, ndcg_at
from paddle_ranker.metrics.ranking import rank
from paddle_ranker.options import parse_options
from tests.benchmarks.conftest import graded_pairs, table_rows

unit, slow = pytest.mark.unit, pytest.mark.slow


@unit
def test_no_query_stands_on_both_sides_of_a_fold_and_each_row_is_scored_once() -> None:
    queries = [pair.query for pair in graded_pairs(11, 1)]
    random.Random(1).shuffle(queries)
    scored = []
    for learn, score in grouped_folds(queries, 3):
        assert not {queries[row] for row in learn} & {queries[row] for row in score}
        assert sorted([*learn, *score]) == list(range(len(queries)))
        scored += list(score)
    assert sorted(scored) == list(range(len(queries)))
    with pytest.raises(UsageError, match="--folds 12: there are only 11 queries"):
        next(grouped_folds(queries, 12))


@unit
def test_splits(tiny_data: Path) -> None:
    train = read_records(tiny_data / "qbqtc" / "train.tsv", LabeledPair)
    dev = read_records(tiny_data / "qbqtc" / "dev.tsv", LabeledPair)

    measured, (split,) = make_splits(str(tiny_data), "qbqtc", "dev", 3)
    assert (measured, split.pairs, list(split.rows)) == (dev, train, list(range(24)))
    triples = split.triples_for(2, seed=1)
    labels = {(pair.query, pair.title): pair.label for pair in train}
    assert len(triples) == 12 * (2 + 2)  # the title of label 2 has three lower titles, that of label 1 two
    assert all(labels[t.query, t.title] > labels[t.query, t.neg_title] for t in triples)
    assert split.triples_for(1, seed=1) != split.triples_for(1, seed=2)

    measured, splits = make_splits(str(tiny_data), "qbqtc", "cv", 4)
    assert measured == train
    for split in splits:
        held_out = {train[row].query for row in split.rows}
        assert len(held_out) == 3
        assert not held_out & {triple.query for triple in split.triples_for(2, seed=1)}


@unit
def test_queries_that_resemble_learned_ones() -> None:
    learned = [LabeledPair(query, title, 1) for query, title in (("heart failure", "A"), ("knee", "B"))]
    asked = [("Heart failures", "C"), ("heart", "D"), ("hea", "E"), ("elbow", "B"), ("x", "F"), ("elbow", "G")]
    measured = [LabeledPair(query, title, 0) for query, title in asked]
    # "heart" has 4 of the 12 bigrams of "heart failure", "hea" has 2; "elbow" shares the title B.
    assert resembling(measured, learned) == {"Heart failures", "heart", "elbow"}


@unit
def test_figures_equal_those_computed_one_draw_at_a_time() -> None:
    pairs, noise = graded_pairs(7, 4), np.random.default_rng(1)
    queries, labels = [pair.query for pair in pairs], np.array([pair.label for pair in pairs])
    best = System("best", (labels + noise.normal(size=28), labels + noise.normal(size=28)), (1.0, 2.0))
    other = System("other", (noise.normal(size=28),), (0.0,))
    figures = compare(queries, labels, [best, other], "best", resamples=40)

    def mean_measures(system: System) -> dict[str, float]:
        found = [evaluate_ranking(queries, labels, scores) for scores in system.runs]
        return {name: sum(f[name] for f in found) / len(found) for name in ("auc", "ndcg@10")}

    for system in (best, other):
        for name, value in mean_measures(system).items():
            assert figures[system.name][name].interval.estimate == pytest.approx(value, abs=1e-12)
    assert figures["best"]["auc"].runs == pytest.approx(
        [evaluate_ranking(queries, labels, scores)["auc"] for scores in best.runs], abs=1e-12
    )
    assert figures["best"]["auc"].difference is None

    # The draws of paddle_ranker.metrics.intervals, written out: each query is repeated as often as it is drawn.
    names = list(dict.fromkeys(queries))
    drawn = np.random.default_rng(1000).multinomial(7, np.full(7, 1 / 7), size=40)
    gaps: dict[str, list[float]] = {"auc": [], "ndcg@10": []}
    for counts in drawn:
        rows = [row for name, count in zip(names, counts) for row in _rows(queries, name) * int(count)]
        copies = [f"{name} {n}" for name, count in zip(names, counts) for n in range(count) for _ in range(4)]
        gap = {"auc": 0.0, "ndcg@10": 0.0}
        for system, sign in ((best, 1), (other, -1)):
            for scores in system.runs:
                share = sign / len(system.runs)
                gap["auc"] += share * evaluate_ranking(copies, labels[rows], scores[rows])["auc"]
                gap["ndcg@10"] += share * ndcg_at(rank(copies, labels[rows], scores[rows]), 10).mean()
        for name in gaps:
            gaps[name].append(gap[name])
    for name, values in gaps.items():
        found = figures["other"][name].difference
        assert found is not None
        assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-12)
        expected = mean_measures(best)[name] - mean_measures(other)[name]
        assert found.estimate == pytest.approx(expected, abs=1e-12)

    table = measures_table([best, other], figures, "best").splitlines()
    assert len({len(line) for line in table}) == 1
    assert f"{figures['best']['auc'].runs[1]:.3f}" in table[2]
    assert str(figures["other"]["auc"].interval) in table[3]


def _rows(queries: list[str], name: str) -> list[int]:
    return [row for row, query in enumerate(queries) if query == name]


@unit
def test_tables_goals_and_numbers() -> None:
    assert format_table(["a", "long"], [["word", ""]]) == "| a    | long |\n| ---- | ---- |\n| word |      |"
    assert str(Goal("AUC", 0.9, 0.9)) == "reached: AUC 0.900, goal >= 0.9"
    assert str(Goal("seconds", 181, 180, at_most=True)) == "MISSED: seconds 181.000, goal <= 180"
    assert not Goal("AUC", math.nan, 0.9).reached
    assert parse_numbers("3,1", "seeds") == [3, 1]
    for wrong in ("", "1,x", "1,1", "-1"):
        with pytest.raises(UsageError, match="--seeds"):
            parse_numbers(wrong, "seeds")


@unit
def test_demo_goals_take_the_better_bm25() -> None:
    values = {"bm25_words": 0.7, "bm25_bigrams": 0.8, "ranker": 0.94}
    figures = {name: {"auc": Measure(Interval(auc, auc, auc), (auc,), None)} for name, auc in values.items()}
    assert [(round(goal.value, 6), goal.reached) for goal in demo.goals_of(figures)] == [(0.94, True), (0.14, False)]


@unit
def test_a_stored_run_is_not_computed_again(tmp_path: Path) -> None:
    computed = []

    def compute() -> Run:
        computed.append(1)
        return np.array([0.1, 1 / 3]), 2.5

    store = RunStore(str(tmp_path / "runs"))
    first = store.get({"seed": 1}, compute)
    again = RunStore(str(tmp_path / "runs")).get({"seed": 1}, compute)
    assert (first[0].tolist(), first[1]) == (again[0].tolist(), again[1]) == ([0.1, 1 / 3], 2.5)
    assert len(computed) == 1
    store.get({"seed": 2}, compute)
    RunStore(None).get({"seed": 1}, compute)
    assert len(computed) == 3


@unit
def test_the_script_tells_its_recipe_without_running_anything() -> None:
    # Arguments come last and override; train_pairwise.py's parser accepts all of them.
    commands = script_commands(demo.SCRIPT, ["--seed", "5", "--epochs=7"])
    options = parse_options(TrainPairwiseOptions, arguments_after(commands, "train_pairwise.py"), "train", "")
    assert (options.seed, options.epochs, options.model_name_or_path) == (5, 7, "STARTER")
    assert options.train_file == str(ROOT / "datasets" / demo.TRAIN)
    assert options.test_file == str(ROOT / "datasets" / demo.DEV)
    starter = parse_options(StarterOptions, arguments_after(commands, "starter"), "starter", "")
    assert all(name.startswith(str(ROOT / "datasets")) for name in starter.corpus.split(","))
    with pytest.raises(RankerError, match="runs no train_ce"):
        arguments_after(commands, "train_ce.py")


@unit
def test_a_script_that_fails_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.sh").write_text("echo first >&2; echo 'no such thing' >&2; exit 3\n")
    with pytest.raises(RankerError, match="status 3: no such thing"):
        script_commands(tmp_path / "x.sh")


@unit
def test_missing_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert qbqtc.main([f"--data_dir={tmp_path}", "--systems=features"]) == 1
    assert f"{tmp_path}/qbqtc/train.tsv: not there" in capsys.readouterr().err


@slow
def test_qbqtc_command_cross_validates_and_goes_on(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    arguments = [f"--data_dir={tiny_data}", "--protocol=cv", "--folds=2", "--seeds=1,2", "--max_steps=2",
                 "--resamples=50", f"--scores_dir={runs}"]  # fmt: skip
    names = ["bm25_bigrams", "features", "ranker_with_lexical", "ranker_without_match", "ranker"]
    assert qbqtc.main([*arguments, f"--systems={','.join(names)}"]) == 0
    rows = table_rows(capsys.readouterr().out)
    assert list(rows) == names and len(list(runs.iterdir())) == 2 * (2 + 3 * 2)
    assert float(rows["bm25_bigrams"][0].split()[0]) > 0.95  # the tiny data is made for BM25
    aucs = [float(value) for value in rows["ranker"][4].split()]
    assert float(rows["ranker"][0].split()[0]) == pytest.approx(sum(aucs) / 2, abs=1e-3)

    # A second call reuses the runs; the same ranker under its loss's name is no new run either.
    assert qbqtc.main([*arguments, "--systems=ranker,margin_logit:1"]) == 0
    again = table_rows(capsys.readouterr().out)
    assert again["ranker"][0] == rows["ranker"][0] == again["margin_logit:1"][0]


@slow
def test_demo_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--size=200", "--queries=20", "--seeds=1", "--recipe=--max_steps 3", "--resamples=50"]) == 0
    printed = capsys.readouterr().out
    assert list(table_rows(printed)) == demo.SYSTEMS.split(",") and "200 pairs of 20 dev queries" in printed
    assert "goal >= 0.9\n" in printed and "goal >= 0.15\n" in printed
