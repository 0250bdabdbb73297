"""The command `evaluate-recall` against ir-measures' values of the files that it writes, and counts by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.commands import evaluate_recall, index
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.evaluation.retrieval import first_of, held_out_runs, lexical_runs, vector_run
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stages import weight_learning
from paddle_ranker.retrieval.stages.fusion import FORMAT, Fusion
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stages.weight_learning import JudgedList, learn_recall_weight
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.vectors.text_vectors import Tower
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.scoring.ranker import Ranker
from tests.checkout import ONCE
from tests.conftest import Call
from tests.tiny import write_ranker

pytestmark = pytest.mark.unit
SIZE, COUNT = 8, 60
MEASURES = {"R@1": "r@1", "R@5": "r@5", "R@10": "r@10", "R@20": "r@20", "nDCG@10": "ndcg@10", "AP": "map"}


def text_of(number: int) -> str:
    random = np.random.default_rng(number)
    return "".join(random.choice(list("水稻病害诊断老人护理深度学习"), random.integers(4, 12)))


def vectors_of(texts: Sequence[str]) -> Vectors:
    rows = [np.random.default_rng(sum(map(ord, text))).normal(size=SIZE) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of words and vectors, BEIR's queries and qrels with labels 0 to 2, and pairs with the first answers."""
    folder = tmp_path_factory.mktemp("recall")
    with Collection.create(folder / "index", IndexInfo(WordsInfo("bigram"), VectorsInfo("exact", SIZE))) as collection:
        collection.writer.add([Document(f"d{n}", text_of(n)) for n in range(COUNT)], vectors_of)
    random = np.random.default_rng(5)
    queries, qrels, pairs = [], ["query-id\tcorpus-id\tscore"], []
    for number in range(12):
        judged = random.choice(COUNT, 6, replace=False).tolist()
        text = text_of(judged[0])[:5] + text_of(judged[1])[-3:]
        queries.append(json.dumps({"_id": f"q{number}", "text": text, "metadata": {}}, ensure_ascii=False))
        labels = [2, 1, *random.integers(0, 2, 4).tolist()]
        qrels += [f"q{number}\td{document}\t{label}" for document, label in zip(judged, labels)]
        pairs.append(f"{text}\t{text_of(judged[0])}")
    for name, lines in (("queries.jsonl", queries), ("qrels.tsv", qrels), ("pairs.tsv", pairs)):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of queries without a tower, which these tests need not train."""
    whole = SearchEngine.__init__

    def made(
        self: SearchEngine, collection: Collection, settings: SearchSettings, _: object = None, ranker: object = None
    ) -> None:
        whole(self, collection, settings, vectors_of, ranker)  # type: ignore[arg-type]

    monkeypatch.setattr(SearchEngine, "__init__", made)


def test_all_systems_measures_are_ir_measures(folder: Path, tmp_path: Path, call: Call) -> None:
    ir_measures = pytest.importorskip("ir_measures", reason="needs ir-measures (pip install ir-measures)")
    judgments = ["--queries", folder / "queries.jsonl", "--qrels", folder / "qrels.tsv", "--resamples", 100]
    ask = ["--index", folder / "index", *judgments, "--top_k", 25, "--runs_folder", tmp_path / "runs"]
    picture = ["--plot", tmp_path / "recall.svg"]
    status, out, err = call(evaluate_recall.main, *ask, *picture, "--format", "json", "--learn_weights", tmp_path / "w")
    assert status == 0 and "by words (BM25, bigram) and vectors (exact), 100 of each by weighted" in err, err
    found = json.loads(out)["systems"]
    names = ["hybrid", "words", "vectors", "hybrid (rrf)", "learned weights", "BM25 (words)", "BM25 (bigrams)"]
    assert list(found) == names
    qrels: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, label = line.split("\t")
        qrels.setdefault(query, {})[document] = int(label)
    for name in names:
        file = tmp_path / "runs" / f"{'_'.join(name.replace('(', '').replace(')', '').split())}.trec"
        run = list(ir_measures.read_trec_run(str(file)))
        wanted = ir_measures.pytrec_eval.calc_aggregate(
            [ir_measures.parse_measure(one) for one in MEASURES], qrels, run
        )
        for measure, value in wanted.items():
            assert found[name]["measures"][MEASURES[str(measure)]]["value"] == pytest.approx(value, abs=1e-9), measure
    assert found["words"]["measures"]["r@10"]["difference"] is not None
    assert "<svg" in (tmp_path / "recall.svg").read_text(encoding="utf-8")
    learned = Fusion.read(tmp_path / "w")
    assert learned.method == "weighted" and set(learned.weights) == {"words", "vectors"}
    # what was written is a peer's run, and the learned weights a fusion
    peer = tmp_path / "runs" / "words.trec"
    peers = ["--runs", f"peer={peer}", f"PEER!={peer}", "--fusion", tmp_path / "w", "--baselines", "false"]
    status, out, err = call(evaluate_recall.main, *ask, *peers, "--format", "json")
    again = json.loads(out)["systems"]
    assert list(again) == ["hybrid", "words", "vectors", "peer", "PEER!"]
    assert [(tmp_path / "runs" / f"{name}.trec").is_file() for name in ("peer", "PEER_")] == [True, True]
    values = [{measure: one["value"] for measure, one in again[name]["measures"].items()} for name in ("words", "peer")]
    assert values[0] == values[1]


def test_pairs_and_a_ranker(folder: Path, tmp_path: Path, call: Call) -> None:
    write_ranker(tmp_path / "ranker", seed=3)
    ask = ["--index", folder / "index", "--test", folder / "pairs.tsv", "--resamples", 100, "--baselines", "false"]
    ranked = ["--ranker", tmp_path / "ranker", "--device", "cpu", "--rank_top", 10]
    status, out, err = call(evaluate_recall.main, *ask, *ranked)
    assert status == 0, err
    answers = [line.split("\t") for line in (folder / "pairs.tsv").read_text(encoding="utf-8").splitlines()]
    retriever = SearchEngine(Collection.open(folder / "index"), SearchSettings(), vectors_of, None)
    hits = [title in {one.text for one in retriever.search(query, 10)} for query, title in answers]
    lines = out.splitlines()
    shown = {line.split("  ")[1].strip(): line for line in lines[lines.index("R@10") + 1 :][:5]}
    assert set(shown) == {"hybrid", "words", "vectors", "hybrid (rrf)", "hybrid + ranker"}
    for name in ("hybrid", "hybrid + ranker"):  # the ranker orders the first ten, and finds no others
        assert f"{np.mean(hits):.3f} [" in shown[name]
    assert any("hybrid + ranker" in line and "nDCG@10" in line for line in lines[:5])


def test_of_labelled_pairs_only_those_with_1_or_more_are_answers(folder: Path, tmp_path: Path, call: Call) -> None:
    pairs = (folder / "pairs.tsv").read_text(encoding="utf-8").splitlines()
    others = [f"{pair.split(chr(9))[0]}\t{text_of(9)}\t0" for pair in pairs]
    rows = [*(f"{pair}\t2" for pair in pairs), *others, "谁也不知道\t没有这篇\t0"]
    (tmp_path / "labelled.tsv").write_text("query\ttitle\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    ask = ["--index", folder / "index", "--resamples", 100, "--baselines", "false", "--format", "json"]
    found = []
    for path in (folder / "pairs.tsv", tmp_path / "labelled.tsv"):
        status, out, err = call(evaluate_recall.main, *ask, "--test", path)
        assert status == 0, err
        found.append(json.loads(out)["systems"])
    assert found[0] == found[1]
    assert f"labelled.tsv: 1 of {len(set(pairs)) + 1} queries have no title labelled 1 or more: left out" in err

    (tmp_path / "none.tsv").write_text("\n".join(others) + "\n", encoding="utf-8")
    status, _, err = call(evaluate_recall.main, *ask, "--test", tmp_path / "none.tsv")
    assert status and "no pairs of a query and its answer" in err


def test_the_learned_recall_weight_is_of_the_learned_fusion(
    folder: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ranker(tmp_path / "ranker")

    def scored(_: Ranker, queries: Sequence[str], titles: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        overlaps = [len({*query} & {*title}) - 0.5 * len(title) for query, title in zip(queries, titles)]
        return np.array(overlaps), {}

    monkeypatch.setattr(Ranker, "scored", scored)
    ask = ["--index", folder / "index", "--test", folder / "pairs.tsv", "--resamples", 100, "--baselines", "false"]
    ranked = ["--ranker", tmp_path / "ranker", "--device", "cpu", "--learn_weights", tmp_path / "w.json"]
    status, out, err = call(evaluate_recall.main, *ask, *ranked)
    assert status == 0, err
    learned = Fusion.read(tmp_path / "w.json")
    assert learned.method == "weighted" and f"learned recall weight: {learned.recall_weight:.3f}" in out

    ranker, lists = Ranker.load(tmp_path / "ranker", device="cpu"), []
    retriever = SearchEngine(Collection.open(folder / "index"), SearchSettings(), vectors_of, ranker)
    answers = [line.split("\t") for line in (folder / "pairs.tsv").read_text(encoding="utf-8").splitlines()]
    found = [one.fused.candidates for one in retriever.run([query for query, _ in answers], 100)]
    for (query, title), one, results in zip(
        answers, found, retriever.search_many([query for query, _ in answers], 100)
    ):
        shares = dict(zip(one.ids, learned.shares(one)))
        ranked_results = [result for result in results if result.logit is not None]
        inputs = np.array([[result.logit, shares[result.id]] for result in ranked_results])
        labels = np.array([result.text == title for result in ranked_results], np.float64)
        lists.append(JudgedList(query, [result.id for result in ranked_results], inputs, labels))
    assert learned.recall_weight == pytest.approx(learn_recall_weight(lists).weights["recall"], rel=1e-3)


def test_a_query_has_no_part_in_the_lists_and_weights_it_is_measured_with(
    folder: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other labels of a query change what other queries are searched with, and not its own results."""
    monkeypatch.setattr(evaluate_recall, "FEWEST_LABELS", 10)
    monkeypatch.setattr(weight_learning, "choose", lambda losses, distance: int(losses.mean(axis=1).argmin()))
    queries, rows = folder / "queries.jsonl", (folder / "qrels.tsv").read_text("utf-8").splitlines()

    def learned(qrels: Sequence[str], name: str) -> dict[str, dict[str, list[tuple[str, str]]]]:
        """Return the learned runs' documents, in their order, by system and query."""
        (tmp_path / f"{name}.tsv").write_text("\n".join(qrels) + "\n", encoding="utf-8")
        given = ["--index", folder / "index", "--queries", queries, "--qrels", tmp_path / f"{name}.tsv"]
        given += ["--baselines", "false", "--resamples", 100, "--top_k", 25, "--runs_folder", tmp_path / name]
        status, _, problem = call(evaluate_recall.main, *given, "--learn_weights", tmp_path / f"{name}.json")
        assert status == 0, problem
        found: dict[str, dict[str, list[tuple[str, str]]]] = {}
        for system in ("learned_weights", "learned_features"):
            found[system] = {}
            for line in (tmp_path / name / f"{system}.trec").read_text("utf-8").splitlines():
                query, _, document, place, *_ = line.split()
                found[system].setdefault(query, []).append((place, document))
        return found

    before, changed = learned(rows, "before"), {"learned_weights": 0, "learned_features": 0}
    for query in ("q0", "q3", "q7", "q11"):
        own = [number for number, row in enumerate(rows) if row.startswith(f"{query}\t")]
        other = list(rows)  # its documents have each other's labels
        for number, label in zip(own, reversed([rows[number].rsplit("\t", 1)[1] for number in own])):
            other[number] = f"{rows[number].rsplit(chr(9), 1)[0]}\t{label}"
        after = learned(other, query)
        for system, of_queries in before.items():
            assert after[system][query] == of_queries[query], system
            changed[system] += sum(after[system][one] != results for one, results in of_queries.items())
    assert min(changed.values()) > 0  # they have a part in others'


def test_the_other_fusion_beside_is_the_one_of_that_name(folder: Path, tmp_path: Path, call: Call) -> None:
    texts = map(json.loads, (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines())
    rows = [f'{one["_id"]},"{one["text"]}"\n' for one in texts]
    (tmp_path / "queries.csv").write_text("".join(rows), encoding="utf-8")
    judgments = ["--queries", tmp_path / "queries.csv", "--qrels", folder / "qrels.tsv", "--resamples", 100]
    ask = ["--index", folder / "index", *judgments, "--baselines", "false", "--format", "json", "--separator", ","]
    first, second = (
        json.loads(call(evaluate_recall.main, *ask, *more)[1])["systems"] for more in ([], ["--fusion", "rrf"])
    )
    for one, other in ((first, second), (second, first)):
        (name,) = (name for name in one if name.startswith("hybrid ("))
        wanted = {measure: found["value"] for measure, found in other["hybrid"]["measures"].items()}
        assert {measure: found["value"] for measure, found in one[name]["measures"].items()} == wanted


def test_what_was_searched_is_shown_where_nothing_can_be_learned(folder: Path, tmp_path: Path, call: Call) -> None:
    pairs = (folder / "pairs.tsv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "one.tsv").write_text(pairs[0] + "\n", encoding="utf-8")
    ask = ["--index", folder / "index", "--test", tmp_path / "one.tsv", "--resamples", 100, "--baselines", "false"]
    more = ["--learn_weights", tmp_path / "w.json", "--runs_folder", tmp_path / "runs"]
    status, out, err = call(evaluate_recall.main, *ask, *more)
    assert status == 1 and "one query only" in err and "w.json was not written" in err
    assert "nDCG@10" in out and (tmp_path / "runs" / "hybrid.trec").is_file() and not (tmp_path / "w.json").exists()


def test_answers_that_the_index_lacks_are_said(folder: Path, tmp_path: Path, call: Call) -> None:
    ask = ["--index", folder / "index", "--queries", folder / "queries.jsonl", "--qrels", tmp_path / "qrels.txt"]
    more = ["--resamples", 100, "--baselines", "false"]
    (tmp_path / "qrels.txt").write_text("q0 0 d1 1\nq0 0 other 1\nq1 0 other 1\nq1 0 x 0\n", encoding="utf-8")
    status, out, err = call(evaluate_recall.main, *ask, *more)
    assert status == 0 and "1 of its 2 answers are no documents of" in err and "such as other; they count" in err, err
    (tmp_path / "qrels.txt").write_text("q0 0 1 1\nq1 0 2 1\n", encoding="utf-8")
    status, out, err = call(evaluate_recall.main, *ask, *more)
    assert status == 1 and "2 of its 2 answers are no documents of" in err and "with its ids" in err and not out


def test_what_was_measured_is_shown_though_a_run_cannot_be_written(tmp_path: Path, call: Call) -> None:
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add([Document("a b", "水稻病害"), Document("c", "老人护理"), Document("d", "水稻护理学研究")])
    (tmp_path / "pairs.tsv").write_text("水稻\t水稻病害\n护理\t老人护理\n", encoding="utf-8")
    ask = ["--index", tmp_path / "index", "--test", tmp_path / "pairs.tsv", "--baselines", "false"]
    status, out, err = call(evaluate_recall.main, *ask, "--runs_folder", tmp_path / "runs")
    assert status == 1 and "the id 'a b' is empty or holds a space" in err
    assert all(f"{name}: 1.0000" in out for name in ("r@1", "mrr@10"))


def test_a_beir_folder_in_and_out(folder: Path, tmp_path: Path, call: Call) -> None:
    ask = ["--index", folder / "index", "--resamples", 100, "--baselines", "false", "--format", "json"]
    judgments = ["--queries", folder / "queries.jsonl", "--qrels", folder / "qrels.tsv"]
    status, out, err = call(evaluate_recall.main, *ask, *judgments, "--write_beir", tmp_path / "beir")
    assert status == 0, err
    status, again, err = call(evaluate_recall.main, *ask, "--beir", tmp_path / "beir")
    assert status == 0 and json.loads(again)["systems"] == json.loads(out)["systems"], err
    status, _, err = call(evaluate_recall.main, *ask, "--beir", tmp_path / "beir", "--split", "dev")
    assert status == 1 and "has no split dev, only test" in err
    # the folder is a corpus, too: the same documents by the same ids
    status, out, err = call(index.main, "build", "--corpus", tmp_path / "beir", "--output", tmp_path / "index")
    assert status == 0, err
    documents = [(one.id, one.text) for one in Collection.open(tmp_path / "index").snapshot().documents()]
    assert documents == [(one.id, one.text) for one in Collection.open(folder / "index").snapshot().documents()]


def test_an_english_collection_has_stems_and_titles_before_texts(tmp_path: Path, call: Call) -> None:
    (tmp_path / "beir" / "qrels").mkdir(parents=True)
    rows = [{"_id": "a", "title": "Rankers", "text": "trained on pairs", "metadata": {"year": 2020}},
            {"_id": "b", "title": "", "text": "Rice diseases 水稻"}]  # fmt: skip
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "beir" / "corpus.jsonl").write_text(lines, encoding="utf-8")
    status, out, err = call(index.main, "build", "--corpus", tmp_path / "beir", "--output", tmp_path / "index")
    assert status == 0, err
    status, out, _ = call(index.main, "info", tmp_path / "index")
    assert "words: standard, BM25" in out
    (found,) = SearchEngine.open(tmp_path / "index").search("the training of a ranker")
    assert (found.id, found.text, dict(found.fields)) == (
        "a", "trained on pairs", {"title": "Rankers", "year": 2020}
    )  # fmt: skip
    assert found.title == "Rankers"
    assert [one.id for one in SearchEngine.open(tmp_path / "index").search("水稻")] == ["b"]


def test_a_baseline_that_is_ahead_is_said_to_be_got(tmp_path: Path, call: Call) -> None:
    """An index built as the line says is no longer behind."""
    colours = ["crimson", "azure", "olive", "amber", "violet", "ivory", "coral", "indigo"]
    names = [f"{colour}{number}" for colour in colours for number in range(5)]
    rows = [
        {"id": f"d{n}", "title": "thing", "text": f"a text about {name}",
         "note": f"for {names[n - 7]} and {names[n - 3]}", "kind": names[n - 5]}
        for n, name in enumerate(names)
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "test.tsv").write_text("".join(f"{name}\td{n}\n" for n, name in enumerate(names)), encoding="utf-8")
    given, way = ["--field", "note:text:weight=9", "--field", "kind:keyword:weight=9"], ""
    for turn in ("first", "again"):
        built = ("--corpus", tmp_path / "rows.jsonl", "--output", tmp_path / turn, *given)
        status, _, errors = call(index.main, "build", *built)
        assert status == 0, errors
        status, out, errors = call(
            evaluate_recall.main, "--index", tmp_path / turn, "--test", tmp_path / "test.tsv", "--by", "words"
        )
        assert status == 0, errors
        if turn == "first":
            (way,) = (line for line in out.splitlines() if line.startswith("To search as BM25"))
            said = re.search(r"index anew with (.*?)(?: and |[;.])", way)
            assert said is not None and "--field note:stored --field kind:keyword:weight=0" in said[1], way
            given = said[1].split()
    assert "To search as BM25" not in out and "ahead of" not in out, out


def test_an_untuned_encoder_and_stems_are_baselines() -> None:
    class StubTower:
        def stream(self, texts: Iterable[str]) -> Iterator[Vectors]:
            yield vectors_of([*texts])

        query_vectors = staticmethod(vectors_of)

    documents = {f"d{n}": text_of(n) for n in range(COUNT)}
    queries = {"q0": text_of(3)[:4], "q1": text_of(9)[:4]}
    passages = [(id, text + more) for more in "甲乙" for id, text in documents.items()]
    run = vector_run(cast(Tower, StubTower()), passages, queries, 7)
    for query, text in queries.items():
        of_passages = vectors_of([text for _, text in passages]) @ vectors_of([text])[0]
        products = of_passages.reshape(2, COUNT).max(axis=0)
        best = np.argsort(-products, kind="stable")[:7].tolist()
        assert list(run[query]) == [f"d{n}" for n in best]
        assert list(run[query].values()) == pytest.approx(products[best].tolist(), abs=1e-6)
    english = {"a": "Rankers are trained on pairs", "b": "rice diseases"}
    runs = lexical_runs(english, {"q": "the training of a ranker"}, 5)
    assert {name: list(found["q"]) for name, found in runs.items()}["BM25 (stems)"] == ["a"]
    assert list(lexical_runs(documents, queries, 5)) == ["BM25 (words)", "BM25 (bigrams)"]


def test_of_a_longer_run_as_many_documents_count_as_of_the_others(folder: Path, tmp_path: Path, call: Call) -> None:
    judgments = ["--queries", folder / "queries.jsonl", "--qrels", folder / "qrels.tsv", "--resamples", 100]
    ask = ["--index", folder / "index", *judgments, "--baselines", "false", "--format", "json"]
    assert call(evaluate_recall.main, *ask, "--runs_folder", tmp_path / "runs")[0] == 0
    peer = ["--runs", f"peer={tmp_path / 'runs' / 'vectors.trec'}"]
    status, out, err = call(evaluate_recall.main, *ask, *peer, "--top_k", 10)
    measures = {name: one["measures"] for name, one in json.loads(out)["systems"].items()}
    values = [{name: one["value"] for name, one in measures[name].items()} for name in ("vectors", "peer")]
    assert status == 0 and values[0] == values[1] and "map" in values[0]
    assert "peer: its first 10 documents of a query count, as of all systems" in err
    alike = {"a": 1.0, "b": 1.0 + 1e-9, "c": 2.0, "d": 1.0}  # in single precision: then the greater id comes first
    assert list(first_of({"q": alike}, 3)["q"]) == ["c", "d", "b"]


def test_what_was_not_learned_from_keeps_the_order_of_the_fusion() -> None:
    fused = {f"d{number}": 1.0 for number in range(40)}  # all alike
    run = held_out_runs({"q": {"d7": 0.1, "d3": 0.2}}, {"q": fused}, 40)["q"]
    assert sorted(run, key=run.__getitem__, reverse=True) == [
        "d3", "d7", *(id for id in fused if id not in ("d3", "d7"))
    ]  # fmt: skip


def measured(call: Call, folder: Path, *more: object) -> tuple[dict[str, float], str]:
    ask = ["--index", folder / "index", *more, "--resamples", 100, "--baselines", "false", "--format", "json"]
    status, out, err = call(evaluate_recall.main, *ask)
    assert status == 0, err
    (measures,) = (one["measures"] for one in json.loads(out)["systems"].values())
    return {name: one["value"] for name, one in measures.items()}, err


def index_of(folder: Path, texts: dict[str, str]) -> None:
    with Collection.create(folder / "index", IndexInfo(WordsInfo("standard"), None)) as collection:
        collection.writer.add([Document(id, text) for id, text in texts.items()])


def test_a_query_that_is_a_document_is_left_out_of_its_own_results(tmp_path: Path, call: Call) -> None:
    index_of(tmp_path, {"a1": "Title. rice disease control", "a2": "rice disease prevention", "b1": "nursing care",
                        "b2": "nursing the old", "1": "rice paddies"})  # fmt: skip
    (tmp_path / "queries.tsv").write_text("id\ttext\na1\trice disease control\nb1\tnursing care\n1\tnursing the old\n")
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\na1\ta2\t1\nb1\tb2\t1\n1\tb2\t1\n")
    found, err = measured(call, tmp_path, "--queries", tmp_path / "queries.tsv", "--qrels", tmp_path / "qrels.tsv",
                          "--top_k", 1)  # fmt: skip
    assert found["r@1"] == 1.0  # BEIR's protocol; with the queries themselves a third
    assert "2 of 3 queries are documents of the same id" in err and "1 more only share its id, and count" in err
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\na1\ta1\t1\n")  # a known item
    found, _ = measured(call, tmp_path, "--queries", tmp_path / "queries.tsv", "--qrels", tmp_path / "qrels.tsv")
    assert found["r@1"] == 1.0


def test_one_answer_under_two_ids_is_one_answer(tmp_path: Path, call: Call) -> None:
    index_of(tmp_path, {"a": "rice disease", "b": "nursing care", "c": "rice disease", "d": "nursing care of rice"})
    (tmp_path / "pairs.tsv").write_text(
        "query\ttitle\nrice disease\trice disease\nnursing care\tnursing care of rice\n"
    )
    found, err = measured(call, tmp_path, "--test", tmp_path / "pairs.tsv")
    assert found["r@1"] == 0.5 and found["r@5"] == 1.0 and found["mrr@10"] == 0.75
    assert found["ndcg@10"] == pytest.approx((1 + 1 / np.log2(3)) / 2) and "1 documents repeat the text" in err


NOUNS = [f"noun{number}" for number in range(40)]


def write_fields(folder: Path, matters: bool) -> tuple[Path, Path]:
    """Write a collection with keywords of weight 1, queries in two halves with their answers; return index and weights.

    matters: the answer to a query has its words in the keywords, another document in the text; else answers are random
    """
    random = np.random.default_rng(3)
    rows, halves = [], ([], [])  # type: ignore[var-annotated]
    for number in range(160):
        words, others = (" ".join(random.choice(NOUNS, count, replace=False)) for count in (2, 12))
        rows.append({"id": f"d{number}", "keywords": f"the {words} noun", "text": others})
        rows.append({"id": f"other{number}", "keywords": others[:12], "text": f"{others} {words} {words}"})
        halves[number % 2].append((words, f"d{number if matters else random.integers(160)}"))
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, half in zip(("learn", "held"), halves):
        (folder / f"{name}.queries.tsv").write_text("".join(f"q{n}\t{text}\n" for n, (text, _) in enumerate(half)))
        (folder / f"{name}.qrels").write_text("".join(f"q{n} 0 {id} 1\n" for n, (_, id) in enumerate(half)))
    build = ["build", "--corpus", str(folder / "corpus.jsonl"), "--output", str(folder / "index")]
    assert index.main([*build, "--title_column", "none", "--field", "keywords:text"]) == 0
    return folder / "index", folder / "weights.json"


def of_half(call: Call, folder: Path, half: str, *more: object) -> tuple[dict[str, float], str]:
    """Return nDCG@10 of each system, and what was printed as text."""
    queries, qrels = folder / f"{half}.queries.tsv", folder / f"{half}.qrels"
    ask = ["--index", folder / "index", "--queries", queries, "--qrels", qrels]
    ask += ["--resamples", 100, "--baselines", "false", *more]
    status, text, err = call(evaluate_recall.main, *ask)
    assert status == 0, err
    status, out, err = call(evaluate_recall.main, *ask, "--format", "json")
    assert status == 0, err
    found = json.loads(out)["systems"]
    return {name: one["measures"]["ndcg@10"]["value"] for name, one in found.items()}, text


def test_signals_that_help_join_the_last_stage(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clicks make answers, the year does not; a document without clicks counts as one with the mean."""
    write_ranker(tmp_path / "ranker")

    def scored(_: Ranker, queries: Sequence[str], titles: Sequence[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return np.array([float(sum(map(ord, title)) % 7) for title in titles]), {}

    monkeypatch.setattr(Ranker, "scored", scored)
    random = np.random.default_rng(0)
    clicks, years = random.lognormal(3, 2, COUNT).round(), random.integers(2000, 2020, COUNT).tolist()
    texts = [f"{text_of(n)}{('研究', '教育', '管理')[n % 3]}" for n in range(COUNT)]
    documents = [Document(f"d{n}", texts[n], {"clicks": clicks[n], "year": years[n]}) for n in range(COUNT)]
    documents[7] = replace(documents[7], fields={})
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add(documents)
    qrels, queries = [], ""
    for query in range(40):
        judged = random.choice(COUNT, 30, replace=False)
        merit = np.array([sum(map(ord, texts[n])) % 7 for n in judged]) + 2.0 * np.log1p(clicks[judged])
        qrels += [f"q{query} 0 d{n} {int(own > np.sort(merit)[-6])}" for n, own in zip(judged, merit)]
        queries += f"q{query}\t{'水稻病害诊断老人护理'[query % 9]}，研究，教育，管理\n"
    (tmp_path / "qrels").write_text("\n".join(qrels) + "\n", encoding="utf-8")
    (tmp_path / "queries.tsv").write_text(queries, encoding="utf-8")
    ask = ["--index", tmp_path / "index", "--qrels", tmp_path / "qrels", "--queries", tmp_path / "queries.tsv"]
    ask += ["--resamples", 100, "--baselines", "false", "--ranker", tmp_path / "ranker", "--device", "cpu"]
    learn = [*ask, "--learn_weights", tmp_path / "w.json", "--signals"]
    status, out, err = call(evaluate_recall.main, *learn, "clicks:log", "year", "words", "--format", "json")
    assert status == 0, err
    found = {name: one["measures"]["ndcg@10"]["value"] for name, one in json.loads(out)["systems"].items()}
    name = "ranker + learned recall weight"
    assert found[name] > found[f"{name}, without clicks"] + 0.05 and f"{name}, without recall" in found
    fusion = Fusion.read(tmp_path / "w.json")
    signal, there = fusion.signals["clicks"], np.log1p(np.delete(clicks, 7))
    assert len(fusion.signals) == 1 and signal.weight > 0
    assert (signal.mean, signal.deviation) == pytest.approx((there.mean(), there.std()))
    engine = SearchEngine.open(tmp_path / "index", SearchSettings(fusion=fusion), ranker=tmp_path / "ranker")
    (one,) = engine.run(["研究，教育，管理"], 10)
    added = signal.weight * (np.log1p(clicks) - there.mean()) / there.std()
    added[7] = 0.0
    ids, shares = one.fused.candidates.ids, fusion.recall_weight * fusion.shares(one.fused.candidates)
    logits = one.ranking.logits
    expected = {place: logits[place] + shares[place] + added[int(ids[place][1:])] for place in logits}
    ordered = sorted(expected, key=lambda place: (-expected[place], ids[place]))
    assert len(ordered) == 50 and one.page.shown == ordered[:10]
    for wrong in ("nothing", "words:log"):
        status, _, err = call(evaluate_recall.main, *learn, wrong)
        assert status == 1 and "no document has it" in err


@ONCE
def test_weights_of_fields_are_learned_where_keywords_matter(tmp_path: Path, call: Call) -> None:
    folder, weights = write_fields(tmp_path, True)
    found, text = of_half(call, tmp_path, "learn", "--learn_weights", weights)
    assert list(found) == ["words", "learned field weights"]
    assert found["learned field weights"] > found["words"] + 0.05
    fields = Fusion.read(weights).fields
    assert fields["keywords"] > fields["text"]
    given, _ = of_half(call, tmp_path, "held")
    learned, _ = of_half(call, tmp_path, "held", "--fusion", weights)
    assert learned["words"] > given["words"] + 0.05
    # What is printed builds an index whose scores are those of the file.
    declared = text.split("index build --field ")[1].split("\n")[0]
    build = ["build", "--corpus", tmp_path / "corpus.jsonl", "--output", tmp_path / "built"]
    build += ["--title_column", "none", "--field", declared]
    assert call(index.main, *build)[0] == 0
    by_file = SearchEngine.open(folder, SearchSettings(fusion=Fusion.read(weights)))
    built = SearchEngine.open(tmp_path / "built")
    without_titles = SearchEngine.open(folder, SearchSettings(fusion=replace(Fusion.read(weights), title=0.0)))
    for query in (" ".join(NOUNS[:3]), NOUNS[7]):
        one, other = ({found.id: found.score for found in searcher.search(query, 20)} for searcher in (by_file, built))
        assert one == pytest.approx(other, abs=1e-9)
        assert {found.id: found.score for found in by_file.search(query, 20, fusion="weighted")} == one
        asked = SearchEngine.open(folder).search(query, 20, fusion=str(weights))
        assert {found.id: found.score for found in asked} == one
        untitled = {found.id: found.score for found in without_titles.search(query, 20)}
        added = by_file.collection.snapshot().explain_words(query, list(untitled), fields)
        assert {id: sum(own.values()) for id, own in added.items()} == pytest.approx(untitled, abs=1e-9)


@ONCE
def test_weights_of_fields_stay_as_they_were_on_noise(tmp_path: Path, call: Call) -> None:
    _, weights = write_fields(tmp_path, False)
    found, text = of_half(call, tmp_path, "learn", "--learn_weights", weights)
    assert "keywords 1, text 1 (as they were" in text or "text 1, keywords 1 (as they were" in text
    assert list(found) == ["words", "learned field weights"] and not Fusion.read(weights).fields


@ONCE
def test_weights_of_searchers_are_learned_beside_those_of_fields(tmp_path: Path, call: Call) -> None:
    _, weights = write_fields(tmp_path, True)
    with Collection.open(tmp_path / "index") as collection:
        info, documents = collection.info, list(collection.snapshot().documents())
    with Collection.create(tmp_path / "both", replace(info, vectors=VectorsInfo("exact", SIZE), segments=())) as made:
        made.writer.add(documents, vectors_of)
    (tmp_path / "index").rename(tmp_path / "words")
    (tmp_path / "both").rename(tmp_path / "index")
    found, _ = of_half(call, tmp_path, "learn", "--learn_weights", weights)
    assert found["learned weights"] > found["hybrid"] and "learned field weights" in found
    learned = Fusion.read(weights)
    assert learned.fields["keywords"] > learned.fields["text"] and learned.weights["words"] > learned.weights["vectors"]


def test_a_file_of_weights_that_cannot_be_is_refused(tmp_path: Path, call: Call) -> None:
    folder, weights = write_fields(tmp_path, True)
    for fields, fragment in (
        ({"body": 2.0}, "words are searched in"),
        ({"keywords": 0}, "above 0"),
        ({"keywords": "x"}, "not a file"),
    ):
        facts = {"format": FORMAT, **asdict(Fusion()), "fields": fields}
        weights.write_text(json.dumps(facts))
        with pytest.raises((UsageError, DataError), match=fragment):
            SearchEngine.open(folder, SearchSettings(fusion=Fusion.read(weights)))
