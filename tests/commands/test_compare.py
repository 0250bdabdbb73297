"""Comparing systems: values worked out by hand, another implementation's values, and the command as users type it."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from paddle_ranker.commands import compare
from paddle_ranker.commands.compare import CompareOptions
from paddle_ranker.data.rows.trec import write_run
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.evaluation.comparison import Comparison, System, compare_systems, measurable
from paddle_ranker.evaluation.pairs import MeasuredPairs, read_labelled
from paddle_ranker.evaluation.report.per_query import best_titles, query_differences, query_text
from paddle_ranker.evaluation.report.text import comparison_json, verdict
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.metrics.significance import randomisation_test
from paddle_ranker.options import parse_options
from paddle_ranker.options.input_files import paths_of
from tests.evaluation.test_evaluate import TREC_EVAL

pytestmark = pytest.mark.unit

WORDS = ["深度学习", "水稻病害", "老年护理", "经济增长", "文化差异"]
WORDS += ["神经网络", "农业教育", "语言研究", "病害诊断", "法律教育"]


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """Ten queries of four titles: labels 2, 1, 0, 0."""
    lines = ["query\ttitle\tlabel"]
    for place, word in enumerate(WORDS):
        other, third = WORDS[place - 1], WORDS[place - 3]
        lines += [
            f"{word}\t{word}<b>\t2",
            f"{word}\t论{word[:2]}{third}\t1",
            f"{word}\t{other}\t0",
            f"{word}\t{third}\t0",
        ]
    (tmp_path / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "dev.tsv"


def scores_of(pairs: MeasuredPairs, weight: float, seed: int) -> np.ndarray:
    return np.round(weight * pairs.labels + np.random.default_rng(seed).normal(size=len(pairs)), 1)


def write_scores(path: Path, scores: np.ndarray) -> Path:
    path.write_text("".join(f"{value!r}\n" for value in scores.tolist()), encoding="utf-8")
    return path


def gap_of(found: Comparison, name: str, measure: str) -> Interval:
    """Return a difference to the reference, which must be there."""
    gap = found.measured[name][measure].difference
    assert gap is not None
    return gap


def test_two_queries_by_hand(tmp_path: Path) -> None:
    (tmp_path / "dev").write_text("a\tx\t1\na\ty\t0\nb\tx\t0\nb\ty\t1\n", encoding="utf-8")
    pairs = read_labelled(str(tmp_path / "dev"))
    first, second = System("first", np.array([2.0, 1, 2, 1])), System("second", np.array([2.0, 1, 1, 2]))
    found = compare_systems(pairs, [first, second], resamples=200)
    figure = found.measured["second"]["mrr@10"]
    gap = gap_of(found, "second", "mrr@10")
    assert (figure.interval.estimate, gap.estimate) == (1.0, 0.25)
    assert (figure.wins, figure.losses) == (1, 0)
    # one query differs: both signs are as extreme as it is
    assert (figure.p_value, figure.corrected) == (1.0, 1.0)
    assert (gap.low, gap.high) == (0.0, 0.5)
    assert found.measured["first"]["auc"].interval.estimate == 0.5 and found.measured["second"]["auc"].wins is None
    assert found.measured["first"]["p@1"].difference is None
    assert found.by_query["first"]["mrr@10"].tolist() == [1.0, 0.5]
    assert found.by_query["second"]["pairs_ordered"].tolist() == [1.0, 1.0]
    assert found.counts == {"pairs": 4, "queries": 2, "queries_with_positive": 2}
    assert verdict(found, "second", "mrr@10").startswith("No difference between second and first is established")
    for name in found.measures:
        assert found.measured["second"][name].verdict == ""
    (loss_or_tie, win) = query_differences(found, "second", "mrr@10")
    assert (loss_or_tie.outcome, win.outcome, win.difference, query_text(found, win.row)) == ("tie", "win", 0.5, "b")
    assert [title.text for title in best_titles(found, first, win.row, 5)] == ["x", "y"]
    assert best_titles(found, second, win.row, 1)[0].label == 1


def test_p_values_are_those_of_the_differences_by_query_and_corrected(dev: Path) -> None:
    pairs = read_labelled(str(dev))
    systems = [System(name, scores_of(pairs, weight, seed)) for seed, (name, weight) in enumerate(
        [("weak", 0.1), ("good", 1.5), ("fair", 0.7), ("none", 0.0)])]  # fmt: skip
    found = compare_systems(pairs, systems, resamples=200)
    for measure in ("ndcg@10", "map", "p@1"):
        raw = {
            name: randomisation_test(found.by_query[name][measure] - found.by_query["weak"][measure])
            for name in ("good", "fair", "none")
        }
        assert {name: found.measured[name][measure].p_value for name in raw} == raw
        smallest = min(raw, key=lambda name: raw[name])
        assert found.measured[smallest][measure].corrected == pytest.approx(min(3 * raw[smallest], 1.0))
    best = compare_systems(pairs, systems, reference="best", resamples=200)
    assert best.reference == "good" and best.measured["good"]["ndcg@10"].difference is None
    gap, back = gap_of(best, "weak", "ndcg@10"), gap_of(found, "good", "ndcg@10")
    assert (gap.estimate, gap.low, gap.high) == pytest.approx((-back.estimate, -back.high, -back.low))
    with pytest.raises(UsageError, match="--reference nobody: choose from weak, good, fair, none, best"):
        compare_systems(pairs, systems, reference="nobody")
    with pytest.raises(UsageError, match="two systems are named weak"):
        compare_systems(pairs, [systems[0], systems[0]])


def test_what_pairs_do_not_allow_is_left_out(tmp_path: Path) -> None:
    def names(text: str) -> list[str]:
        (tmp_path / "f").write_text(text, encoding="utf-8")
        return measurable(read_labelled(str(tmp_path / "f")))

    assert names("a\tx\t1\nb\tx\t0\n") == ["auc"]  # a title a query
    assert "auc" not in names("a\tx\t1\na\ty\t1\n") and "pairs_ordered" not in names("a\tx\t1\na\ty\t1\n")
    assert len(names("a\tx\t1\na\ty\t0\n")) == 9
    (tmp_path / "f").write_text("a\tx\t1\nb\ty\t1\n", encoding="utf-8")
    with pytest.raises(DataError, match="nothing to measure"):
        compare_systems(read_labelled(str(tmp_path / "f")), [System("a", np.ones(2))])


def test_one_query_has_values_and_no_intervals(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a\tx\t1\na\ty\t0\n", encoding="utf-8")
    found = compare_systems(read_labelled(str(tmp_path / "f")), [System("s", np.array([2.0, 1.0]))])
    interval = found.measured["s"]["map"].interval
    assert interval.estimate == 1.0 and math.isnan(interval.low)
    assert comparison_json(found)["systems"]["s"]["measures"]["map"] == {"value": 1.0, "low": None, "high": None}


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = compare.main(["--resamples", "200", "--permutations", "1000", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_command_agrees_with_ir_measures_and_scikit_learn(
    dev: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run and qrels, unjudged documents and ties among them: the values of the same files elsewhere."""
    ir_measures = pytest.importorskip("ir_measures", reason="needs ir-measures (pip install ir-measures)")
    from sklearn.metrics import roc_auc_score

    pairs = read_labelled(str(dev))
    rows = list(zip(pairs.query_ids, pairs.document_ids))
    (tmp_path / "qrels").write_text(
        "".join(f"{q} 0 {d} {int(label)}\n" for (q, d), label in zip(rows, pairs.labels) if d != "d04"),
        encoding="utf-8",
    )
    for name, seed in (("one", 1), ("two", 2)):
        scores = np.round(scores_of(pairs, 0.5, seed))  # whole numbers: most queries have ties
        listed = [(q, d, score) for (q, d), score in zip(rows, scores.tolist()) if d not in ("d07", "d20")]
        write_run(str(tmp_path / f"{name}.run"), [*listed, ("q99", "d1", 1.0)], name)
    status, out, err = run(
        capsys, tmp_path / "one.run", tmp_path / "two.run", "--qrels", tmp_path / "qrels", "--format", "json"
    )
    assert status == 0
    found = json.loads(out)
    assert found["ties"] == "trec_eval" and (found["queries"], found["pairs"]) == (10, 39)
    assert "no baselines" in err and "1 of its queries are not judged and left out" in err
    for name in ("one", "two"):
        files = [*map(str, (tmp_path / "qrels", tmp_path / f"{name}.run"))]
        qrels, ranked = list(ir_measures.read_trec_qrels(files[0])), list(ir_measures.read_trec_run(files[1]))
        figures = found["systems"][f"{name}.run"]["measures"]
        measures = [ir_measures.parse_measure(measure) for measure in TREC_EVAL]
        for measure, value in ir_measures.pytrec_eval.calc_aggregate(measures, qrels, ranked).items():
            assert figures[TREC_EVAL[str(measure)]]["value"] == pytest.approx(value, abs=1e-9), measure
        returned = {(one.query_id, one.doc_id): one.score for one in ranked}
        known = [(returned.get((one.query_id, one.doc_id), -1e9), one.relevance >= 1) for one in qrels]
        auc = roc_auc_score([relevant for _, relevant in known], [score for score, _ in known])
        assert figures["auc"]["value"] == pytest.approx(auc, abs=1e-9)


def test_baselines_names_and_files(dev: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = read_labelled(str(dev))
    good = write_scores(tmp_path / "good.tsv", scores_of(pairs, 2.0, 1))
    weak = write_scores(tmp_path / "weak.tsv", scores_of(pairs, 0.1, 2))
    files = {"--report": tmp_path / "r.html", "--plot": tmp_path / "p.png", "--per_query": tmp_path / "q.jsonl"}
    more = [word for pair in files.items() for word in pair]
    status, out, err = run(capsys, good, f"弱={weak}", "--test_file", dev, *more)
    assert status == 0, err
    assert [line.split("  ")[1] for line in out.splitlines()[6:11]] == [
        "good.tsv", "弱", "BM25 (words)", "BM25 (bigrams)", "linear (lexical)",
    ]  # fmt: skip
    assert out.rstrip().splitlines()[-3:] == [str(files[name]) for name in ("--per_query", "--plot", "--report")]
    lines = [json.loads(line) for line in files["--per_query"].read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 4 * 10 and {line["outcome"] for line in lines} <= {"win", "loss", "tie"}
    for line in lines:
        assert line["difference"] == pytest.approx(line["value"] - line["reference_value"])
    assert files["--plot"].read_bytes().startswith(b"\x89PNG")


def test_systems_may_stand_behind_the_files_of_an_option(dev: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "bm25.trec").write_text("1 Q0 d1 1 0.5 bm25\n", encoding="utf-8")
    (tmp_path / "one.txt").write_text("0.5\n", encoding="utf-8")
    (tmp_path / "named.tsv").write_text("query\ttitle\tlabel\tscore\nq\tt\t1\t2\n", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"query": "q", "title": "t", "score": 1}\n', encoding="utf-8")
    (tmp_path / "label.jsonl").write_text('{"query": "q", "title": "t", "label": 1}\n', encoding="utf-8")
    (tmp_path / "bare.tsv").write_text("q\tt\t1\n", encoding="utf-8")
    systems = [str(tmp_path / name) for name in ("model", "bm25.trec", "one.txt", "named.tsv", "rows.jsonl")]
    more = [str(tmp_path / name) for name in ("label.jsonl", "bare.tsv")]

    def parsed(*arguments: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        options = parse_options(CompareOptions, arguments, "compare", "")
        return options.systems, paths_of(options.test_file or "")

    test = str(dev)
    for system in [*systems, f"mine={systems[0]}"]:
        assert parsed("first", "--test_file", test, system) == (("first", system), (test,))
    assert parsed("first", "--test", test, systems[0], "--seed", "1", "z") == (("first", systems[0], "z"), (test,))
    assert parsed("first", "--test", test, *more) == (("first",), (test, *more))
    assert parsed("first", "--test", test, *more, *systems) == (("first", *systems), (test, *more))
    assert parsed("first", "--train", test, systems[0], "--test", test) == (("first", systems[0]), (test,))
    assert parsed("--test", test, "first", systems[0]) == (("first", systems[0]), (test,))


class _Page(html.parser.HTMLParser):
    """What a browser would fetch or run, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, Any]]) -> None:
        self.fetched += [str(value) for name, value in attributes if name in ("src", "href", "srcset")]
        self.fetched += [tag] * (tag in ("script", "link", "iframe", "object"))
        self.open += [tag] * (tag not in ("meta", "img", "br"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_report_opens_offline_and_shows_texts_as_text(
    dev: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = read_labelled(str(dev))
    good = write_scores(tmp_path / "good.tsv", scores_of(pairs, 2.0, 1))
    weak = write_scores(tmp_path / "<weak>&$_.tsv", scores_of(pairs, 0.1, 2))
    assert run(capsys, good, weak, "--test_file", dev, "--report", tmp_path / "r.html", "--measure", "auc")[0] == 0
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.open == [] and page.fetched
    assert all(one.startswith("data:image/svg+xml;base64,") for one in page.fetched)
    assert "@import" not in text and "url(" not in text and "http" not in text
    shown = " ".join(page.texts)
    digest = hashlib.sha256(dev.read_bytes()).hexdigest()[:16]
    for expected in ("good.tsv", "<weak>&$_.tsv", "BM25 (bigrams)", "linear (lexical)", "<b>", digest):
        assert expected in shown, expected
    for picture in re.findall(r"base64,([^\"]+)", text):
        ElementTree.fromstring(base64.b64decode(picture))  # well-formed


def test_names_of_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e=f.tsv").write_text("1\n", encoding="utf-8")
    assert compare.name_systems(["a/x/best", "a/y/best"]) == {"x": "a/x/best", "y": "a/y/best"}
    assert compare.name_systems(["mine=a/x/best", "b.trec"]) == {"mine": "a/x/best", "b.trec": "b.trec"}
    assert compare.name_systems(["e=f.tsv"]) == {"e=f.tsv": "e=f.tsv"}
    assert compare.name_systems(["runs/a=b/c.tsv"]) == {"c.tsv": "runs/a=b/c.tsv"}
