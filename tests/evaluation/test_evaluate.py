"""Both evaluate commands and a comparison of models: other implementations' values of the files that they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cross_encoder import evaluate as evaluate_ce
from ernie_matching import evaluate as evaluate_pairwise
from paddle_ranker import Ranker
from paddle_ranker.commands import compare
from paddle_ranker.data.rows.records import LabeledPair, read_records
from paddle_ranker.data.rows.trec import write_run
from paddle_ranker.evaluation.evaluation_set import EvaluationSet
from paddle_ranker.evaluation.pairs import read_labelled
from paddle_ranker.evaluation.score_files import read_scores
from paddle_ranker.metrics.measures import evaluate_ranking
from paddle_ranker.storage.digest import content_digest
from tests.conftest import Call
from tests.tiny import draw_words, write_ranker

pytestmark = pytest.mark.parity

Main = Callable[[list[str]], int]
NAMES = ["nDCG@10", "AP", "P@1", "P@5", "P@10", "R@10", "RR"]
TREC_EVAL = dict(zip(NAMES, ["ndcg@10", "map", "p@1", "p@5", "p@10", "r@10", "mrr@10"]))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rankers, and a labelled file with graded labels, several titles a query, and a row that is there twice."""
    folder = tmp_path_factory.mktemp("data")
    write_ranker(folder / "pairwise", seed=1)
    write_ranker(folder / "cross_encoder", seed=2, kind="cross_encoder")
    random, words = draw_words(12)
    lines = ["query\ttitle\tlabel"]
    for word in words:
        titles = [f"论{word}", *random.choice(words, 4, replace=False), f"{word[:2]}研究", "NA"]
        lines += [f"{word}\t{title}\t{random.randint(3)}" for title in dict.fromkeys(titles)]
    lines.append(lines[1])
    (folder / "dev.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def run(call: Call, main: Main, *arguments: object) -> tuple[int, str, str]:
    return call(main, *arguments, "--device", "cpu", "--resamples", 200)


def reference_values(qrels: Path, scores: Path) -> dict[str, float]:
    """Return trec_eval's means over queries of two files."""
    ir_measures = pytest.importorskip("ir_measures", reason="needs ir-measures (pip install ir-measures)")
    found = ir_measures.pytrec_eval.calc_aggregate(
        [ir_measures.parse_measure(name) for name in TREC_EVAL],
        list(ir_measures.read_trec_qrels(str(qrels))),
        list(ir_measures.read_trec_run(str(scores))),
    )
    return {TREC_EVAL[str(measure)]: value for measure, value in found.items()}


@pytest.mark.parametrize(("main", "kind"), [(evaluate_pairwise.main, "pairwise"), (evaluate_ce.main, "cross_encoder")])
def test_values_are_ir_measures_and_scikit_learns(
    data: Path, tmp_path: Path, call: Call, main: Main, kind: str
) -> None:
    files = ["--scores_file", tmp_path / "mine.trec", "--qrels_file", tmp_path / "qrels"]
    arguments = ["--init_from_ckpt", data / kind, "--test_file", data / "dev.tsv"]
    status, out, err = run(call, main, *arguments, "--ties", "trec_eval", *files, "--format", "json", "--baselines")
    assert status == 0, err
    found = json.loads(out)
    for name, value in reference_values(tmp_path / "qrels", tmp_path / "mine.trec").items():
        assert found["measures"][name]["value"] == pytest.approx(value, abs=1e-9), name
    pairs = read_records(data / "dev.tsv", LabeledPair)
    ranker = Ranker.load(data / kind)
    queries, titles, labels = zip(*((pair.query, pair.title, pair.label) for pair in pairs))
    logits = ranker.score(queries, titles, logits=True)
    assert found["measures"]["auc"]["value"] == pytest.approx(roc_auc_score(np.array(labels) >= 1, logits), abs=1e-9)
    assert found["pairs"] == len(pairs) and "1 row repeats another's" in found["notes"][0]
    assert list(found["baselines"]) == ["BM25 (words)", "BM25 (bigrams)", "linear (lexical)"]
    low, high = (found["measures"]["ndcg@10"][bound] for bound in ("low", "high"))
    assert low < found["measures"]["ndcg@10"]["value"] < high
    assert ("margin_loss" in found, "accuracy" in found) == (kind == "pairwise", kind == "cross_encoder")

    # As text, ties against the ranker: the published line, then training's metrics, each with its interval.
    status, out, err = run(call, main, *arguments)
    expected = evaluate_ranking(queries, labels, logits)
    lines = [line for line in out.splitlines() if not line.startswith(str(data))]
    assert lines[0] == f"eval_dev auc:{expected['auc']:.3f}"
    metrics = dict(line.split(": ") for line in lines[1:])
    for name, value in expected.items():
        assert metrics[name].split(" ")[0] == (f"{value:.4f}" if isinstance(value, float) else str(value)), name
        assert ("[" in metrics[name]) == isinstance(value, float)
    assert {"p@1", "p@5", "p@10", "r@10"} <= metrics.keys()


def test_kept_scores_are_the_rankers_and_compare_as_it_does(data: Path, tmp_path: Path, call: Call) -> None:
    arguments = ["--init_from_ckpt", data / "pairwise", "--test_file", data / "dev.tsv"]
    assert run(call, evaluate_pairwise.main, *arguments, "--scores_file", tmp_path / "kept.jsonl")[0] == 0
    pairs = read_labelled(str(data / "dev.tsv"))
    kept, _ = read_scores(str(tmp_path / "kept.jsonl"), pairs)
    expected = Ranker.load(data / "pairwise").score(*pairs.texts(""), logits=True)
    np.testing.assert_allclose(kept, expected, atol=1e-6)
    systems = [data / "pairwise", data / "cross_encoder", f"kept={tmp_path / 'kept.jsonl'}"]
    report = ["--report", tmp_path / "r.html", "--format", "json", "--permutations", 1000]
    status, out, err = run(call, compare.main, *systems, "--test_file", data / "dev.tsv", *report)
    assert status == 0, err
    found = json.loads(out)["systems"]
    assert list(found)[:3] == ["pairwise", "cross_encoder", "kept"] and len(found) == 6
    assert found["pairwise"]["sha256"] == content_digest(data / "pairwise") and found["pairwise"]["kind"] == "pairwise"
    for name, figure in found["kept"]["measures"].items():
        assert figure["value"] == found["pairwise"]["measures"][name]["value"]
        assert (figure["difference"]["low"], figure["difference"]["high"], figure["p_value"]) == (0, 0, 1), name
    assert found["cross_encoder"]["measures"]["auc"]["difference"]["value"] != 0


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A small English collection: texts by id, qrels, and a run that misses a document and a query."""
    (tmp_path / "queries.tsv").write_text("10\ta cat\n20\tthe dog barks\n30\trice field\n")
    documents = ["cat on a mat", "a dog", "rice grows", "field mouse", "barks", "cat dog"]
    lines = [json.dumps({"_id": f"D{i}", "text": text}) + "\n" for i, text in enumerate(documents)]
    (tmp_path / "docs.jsonl").write_text("".join(lines))
    qrels = {"10": {"D0": 1, "D5": 1, "D1": 0}, "20": {"D1": 2, "D4": 1, "D2": 0}, "30": {"D2": 1, "D0": 0}}
    lines = [f"{query} 0 {document} {label}\n" for query, of in qrels.items() for document, label in of.items()]
    (tmp_path / "qrels").write_text("".join(lines))
    listed = {"10": {"D0": 3.0, "D1": 3.0, "D3": 1.0}, "20": {"D2": 9.0, "D1": 8.0}, "99": {"D0": 1.0}}
    rows = [(query, document, score) for query, of in listed.items() for document, score in of.items()]
    write_run(str(tmp_path / "bm25.run"), rows, "bm25")
    return tmp_path


def texts(folder: Path) -> list[Any]:
    return ["--qrels", folder / "qrels", "--queries", folder / "queries.tsv", "--documents", folder / "docs.jsonl"]


def test_a_run_of_an_english_collection_is_reranked(data: Path, collection: Path, call: Call) -> None:
    files = ["--candidates", collection / "bm25.run", "--scores_file", collection / "mine.run"]
    arguments = ["--init_from_ckpt", data / "pairwise", *texts(collection), "--format", "json"]
    status, out, err = run(call, evaluate_pairwise.main, *arguments, *files)
    assert status == 0, err
    found = json.loads(out)
    listed = [line.split()[::2][:2] for line in (collection / "mine.run").read_text().splitlines()]
    assert sorted(map(tuple, listed)) == [("10", "D0"), ("10", "D1"), ("10", "D3"), ("20", "D1"), ("20", "D2")]
    for name, value in reference_values(collection / "qrels", collection / "mine.run").items():
        assert found["measures"][name]["value"] == pytest.approx(value, abs=1e-9), name
    assert found["queries"] == 3 and found["measures"]["r@10"]["value"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    # without candidates the judged documents are ranked
    status, out, err = run(call, evaluate_pairwise.main, *arguments)
    assert json.loads(out)["measures"]["r@10"]["value"] == 1.0


def test_the_compare_command_with_models_and_a_run(data: Path, collection: Path, call: Call) -> None:
    files = ["--report", collection / "report.html", "--plot", collection / "plot.svg"]
    files += ["--per_query", collection / "wins.tsv"]
    status, out, err = run(call, compare.main, collection / "bm25.run", data / "pairwise", *texts(collection), *files)
    assert status == 0, err
    lines = out.splitlines()
    assert f"{collection}/bm25.run: 1 of the 3 judged queries are not in it; they count 0" in err.splitlines()
    assert f"{collection}/qrels: 8 judged pairs of 3 queries" in lines
    named = [line.split("  ")[1] for line in lines[lines.index("nDCG@10") + 1 :][:4]]
    assert named == ["bm25.run", "pairwise", "BM25 (words)", "BM25 (bigrams)"]
    report = (collection / "report.html").read_text(encoding="utf-8")
    assert "the dog barks" in report and "document id, descending" in report
    differences = [line for line in lines if line.startswith("  ") and "  wins " in line]
    assert (collection / "wins.tsv").read_text().count("\n") == 1 + 3 * len(
        differences
    ) / 13  # of the measures with values by query one


def test_rows_that_contradict_are_left_out_on_request(data: Path, collection: Path, call: Call) -> None:
    two = collection / "two.tsv"
    two.write_text("深\t深\t1\n学\t学\t0\n深\t深\t0\n深\t水\t0\n深\t稻\t1\n", encoding="utf-8")
    ranker = ["--init_from_ckpt", data / "pairwise"]
    status, out, err = run(call, evaluate_pairwise.main, *ranker, "--test_file", two, "--skip_bad_rows")
    assert status == 0 and "left out 2 rows" in err and "pairs: 3\n" in out
    (collection / "other.run").write_text("x Q0 D0 1 2 tag\n")
    given = [*ranker, *texts(collection), "--candidates", collection / "other.run"]
    status, _, err = run(call, evaluate_pairwise.main, *given)
    assert status != 0 and "share no query" in err


def test_training_leaves_contradicting_rows_out_and_says_so(data: Path, tmp_path: Path) -> None:
    pair_encoder = Ranker.load(data / "pairwise").row_encoder
    path = tmp_path / "dev.tsv"
    path.write_text("深\t水\t1\n深\t稻\t0\n深\t水\t0\n学\t学\t1\n", encoding="utf-8")
    assert len(EvaluationSet(path, pair_encoder, 8).labels) == 4
    left = EvaluationSet(path, pair_encoder, 8, one_label=True)
    assert (left.labels.tolist(), left.skipped) == ([0, 1], 2)
    assert "kept 4; left out 2 rows" in left.report and "lines 1 and 3: labels 1 and 0" in left.report
