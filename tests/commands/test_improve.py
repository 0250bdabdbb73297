"""`paddle-ranker improve`: a log or judgments in, one recommendation out, only what is established to be better."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker import Index
from paddle_ranker.commands import evaluate_recall, improve, index, search
from paddle_ranker.data.rows.beir import write_beir
from paddle_ranker.retrieval.stages.fusion import FEATURE_DEPTH, Fusion
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.search_log import FeedbackLine, SearchLine, SearchLog, Shown, digest_of
from paddle_ranker.serving.process.worker import make_app
from paddle_ranker.serving.slots.reload import Reloader
from paddle_ranker.serving.slots.slot_kinds import fit_models
from tests.conftest import Call
from tests.serving_cases import Application, close_slots, opened_slots
from tests.tiny import write_encoder

pytestmark = pytest.mark.unit
COUNT = 60
SYLLABLES = ("ba", "de", "fo", "gu", "ki", "lo", "me", "nu", "pa", "ri")
NAMES = [first + second for first in SYLLABLES for second in SYLLABLES][:COUNT]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose field `noise`, built to weigh most, names other documents than the query is about."""
    folder = tmp_path_factory.mktemp("improve")
    others = np.random.default_rng(3).permutation(COUNT).tolist()
    rows = [
        {
            "id": f"d{n}",
            "title": f"{name} thing",
            "text": f"a long text about {name} and more",
            "noise": NAMES[others[n]],
        }
        for n, name in enumerate(NAMES)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = ["build", "--corpus", folder / "corpus.jsonl", "--output", folder / "index"]
    fields = ["--field", "title:text:title:weight=1", "--field", "noise:text:weight=9"]
    assert index.main([*map(str, given), *fields]) == 0
    queries = {f"q{n}": name for n, name in enumerate(NAMES)}
    write_beir(folder / "judged", [], queries, {"test": {f"q{n}": {f"d{n}": 1} for n in range(COUNT)}})
    return folder


def write_log(folder: Path, searched: Path, queries: list[str], clicked: Sequence[int] = (0,)) -> Path:
    """Log searches of an index, each with a click on the result of one of these places, in turns."""
    log, searcher = SearchLog(folder), SearchEngine.open(searched)
    for number, query in enumerate(queries):
        hits = searcher.search(query, 10)
        shown = [Shown(one.id, {"fused": rank}, None, digest_of(one.text)) for rank, one in enumerate(hits, 1)]
        log.search(SearchLine(f"s{number}", query, {}, shown, {}))
        log.feedback(
            FeedbackLine(f"s{number}", query, hits[clicked[number % len(clicked)] % len(hits)].id, "click")
        ).result()
    log.close()
    return folder


def test_weights_that_are_better_are_recommended_and_accepted(folder: Path, tmp_path: Path, call: Call) -> None:
    today = tmp_path / "today.json"
    Fusion("weighted").write(today, {})
    given = ("--index", folder / "index", "--beir", folder / "judged", "--fusion", today, "--accept", "true")
    status, printed, errors = call(improve.main, *given, "--output", tmp_path / "out")
    assert status == 0, errors
    assert "is ahead of today: nDCG@10 +" in printed and "recommended: learned weights" in printed
    assert "300 labels are needed, of queries with an answer that are not held out; there are 42" in printed
    assert "no ranker was trained: name an encoder by --model" in printed and f"{today}: replaced" in printed
    assert (tmp_path / "out" / "report.txt").read_text("utf-8").splitlines()[-1].startswith("recommended: learned")
    learned = Fusion.read(today)  # what a server reads when it reloads
    assert (
        learned == Fusion.read(tmp_path / "out" / "fusion.json")
        and max(learned.fields["title"], learned.fields["text"]) > 1
    )
    status, printed, _ = call(improve.main, *given, "--output", tmp_path / "again")
    assert status == 0 and "recommended: nothing" in printed  # what was accepted serves today
    assert not (tmp_path / "again" / "fusion.json").exists()


def test_nothing_is_recommended_where_no_difference_is_established(folder: Path, tmp_path: Path, call: Call) -> None:
    log = write_log(tmp_path / "log", folder / "index", NAMES)  # people click what is first today
    given = ("--index", folder / "index", "--log", log, "--model", write_encoder(tmp_path / "encoder"))
    status, printed, errors = call(improve.main, *given, "--output", tmp_path / "out")
    assert status == 0, errors
    assert f"{log}: {COUNT} searches, {COUNT} clicks, 0 judged pairs\nleft out: nothing\n" in printed
    assert "recommended: nothing; what serves today stays" in printed and "500 labels are needed" in printed
    assert "No difference between learned weights and today is established" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.txt"]


def test_a_ranker_is_trained_from_some_hundred_labels_on(
    folder: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(improve, "_FOR_RANKER", 50)
    log = write_log(tmp_path / "log", folder / "index", NAMES, (0, 1))  # people click anywhere
    given = ("--index", folder / "index", "--log", log, "--model", write_encoder(tmp_path / "encoder"))
    status, printed, errors = call(improve.main, *given, "--device", "cpu", "--output", tmp_path / "out")
    assert status == 0, errors
    assert re.search(r"(No difference between new ranker and today|new ranker is behind today)", printed)
    assert "recommended: new ranker" not in printed and not (tmp_path / "out" / "ranker").exists()


def test_what_cannot_be_learned_is_said(folder: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(f"{name} text" for name in NAMES), encoding="utf-8")
    assert index.main(["build", "--corpus", str(tmp_path / "texts.txt"), "--output", str(tmp_path / "index")]) == 0
    log = write_log(tmp_path / "log", tmp_path / "index", NAMES)
    status, printed, _ = call(improve.main, "--index", tmp_path / "index", "--log", log, "--output", tmp_path / "out")
    assert (
        status == 0 and "nothing to learn: the index has one searcher" in printed and "recommended: nothing" in printed
    )
    few = write_log(tmp_path / "few", tmp_path / "index", NAMES[:12])
    status, _, errors = call(
        improve.main, "--index", tmp_path / "index", "--log", few, "--output", tmp_path / "few-out"
    )
    assert (
        status == 1
        and "12 queries have an answer" in errors
        and "20 are needed" in errors
        and not (tmp_path / "few-out").exists()
    )
    status, _, errors = call(improve.main, "--index", tmp_path / "index", "--output", tmp_path / "none")
    assert status == 2 and "one of them" in errors


def test_a_table_of_judgments_is_read_as_beir_is(folder: Path, tmp_path: Path, call: Call) -> None:
    """Documents are named by ids, titles or texts; Python takes the same, and dicts."""
    texts = [f"a long text about {name} and more" for name in NAMES]
    headers = {"id": lambda n: f"d{n}", "title": lambda n: f"{NAMES[n]} thing", "document": lambda n: texts[n]}
    given = ("--index", folder / "index", "--fusion", "weighted")
    assert call(improve.main, *given, "--beir", folder / "judged", "--output", tmp_path / "beir")[0] == 0
    expected = (tmp_path / "beir" / "report.txt").read_text("utf-8").replace("beir", "")
    assert "recommended: learned weights" in expected
    for name, named in headers.items():
        rows = [f"{query}\t{named(n)}\t{1 + n % 3}\n" for n, query in enumerate(NAMES)]
        (tmp_path / f"{name}.tsv").write_text(f"query\t{name}\tgrade\n" + "".join(rows), encoding="utf-8")
        judged = ("--judged", tmp_path / f"{name}.tsv", "--output", tmp_path / name)
        status, _, errors = call(improve.main, *given, *judged)
        assert status == 0, errors
        assert (tmp_path / name / "report.txt").read_text("utf-8").replace(name, "") == expected.replace(name, "")
    (tmp_path / "bad.tsv").write_text("query\tid\tgrade\nba\tnowhere\t1\n", encoding="utf-8")
    status, _, errors = call(improve.main, *given, "--judged", tmp_path / "bad.tsv", "--output", tmp_path / "bad")
    assert status == 1 and "bad.tsv, line 2" in errors and "no document of the collection has" in errors
    with Index(folder / "index") as opened:
        improved = opened.improve({name: {f"d{n}": 1} for n, name in enumerate(NAMES)}, tmp_path / "python")
        assert improved.ranker is None and improved.fusion is not None and "recommended" in improved.report()
        hits = opened.search(NAMES[3], fusion=improved.fusion)
        assert hits[0].id == "d3"
        frame = [{"query": name, "title": f"{name} thing", "grade": 2} for name in NAMES]
        by_table = opened.evaluate(frame, baselines=False).comparison.measured["words"]["mrr@10"]
        by_dict = opened.evaluate({name: [f"d{n}"] for n, name in enumerate(NAMES)}, baselines=False)
        assert by_table == by_dict.comparison.measured["words"]["mrr@10"]


def test_the_fewest_queries_that_are_taken_are_twenty(folder: Path, tmp_path: Path, call: Call) -> None:
    for count, expected in ((19, 1), (20, 0)):
        rows = [f"{name}\td{n}\t1\n" for n, name in enumerate(NAMES[:count])]
        (tmp_path / f"{count}.tsv").write_text("query\tid\tlabel\n" + "".join(rows), encoding="utf-8")
        given = ("--index", folder / "index", "--judged", tmp_path / f"{count}.tsv", "--output", tmp_path / f"{count}")
        status, printed, _ = call(improve.main, *given)
        assert status == expected
    assert "10 labels of 10 queries, 10 held out" in printed


PLACES = (
    "{name} of the {other} shop",
    "the {other} shop with {name}",
    "the shop of {other} near {name}",
    "a {other} {name}",
)


@pytest.fixture(scope="module")
def titled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index and judgments where a document answers if its text begins with the query, which its score ignores."""
    folder, random = tmp_path_factory.mktemp("titled"), np.random.default_rng(5)
    rows, qrels = list[dict[str, str]](), dict[str, dict[str, int]]()
    for number, name in enumerate(NAMES):
        for copy in range(2):
            for place in random.permutation(len(PLACES)).tolist():
                id = f"d{len(rows)}"
                other = NAMES[(number + 1 + 7 * copy + place) % COUNT]
                rows.append({"id": id, "text": PLACES[place].format(name=name, other=f"{other}{other}")})
                qrels.setdefault(f"q{number}", {})[id] = int(place == 0)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = ["build", "--corpus", str(folder / "corpus.jsonl"), "--output", str(folder / "index")]
    assert index.main(given) == 0
    write_beir(folder / "judged", [], {f"q{n}": name for n, name in enumerate(NAMES)}, {"test": qrels})
    return folder


def test_features_of_texts_are_learned_and_every_door_orders_by_them(titled: Path, tmp_path: Path, call: Call) -> None:
    today = tmp_path / "today.json"
    Fusion("weighted").write(today, {})
    given = ("--index", titled / "index", "--fusion", today)
    config, slots = opened_slots(index=str(titled / "index"), fusion=str(today))
    application = Application()
    application.app = make_app(slots, config, Metrics())
    asked = {"query": NAMES[0], "top_k": 30, "explain": True}
    try:
        before = application.ask("POST", "/v1/search", asked).json()["hits"]
        improving = ("--beir", titled / "judged", "--accept", "true", "--output", tmp_path / "out")
        status, printed, errors = call(improve.main, *given, *improving)
        assert status == 0, errors
        assert "learned features is ahead of today: nDCG@10 +" in printed and "recommended: learned features" in printed
        assert Fusion.read(today).features["first_match"] < 0
        asyncio.run(Reloader(slots, Metrics(), JsonLog(), partial(fit_models, config)).load())
        after = application.ask("POST", "/v1/search", asked).json()["hits"]
    finally:
        close_slots(slots)
    assert [hit["id"] for hit in before] != [hit["id"] for hit in after]
    assert [hit["text"].startswith(NAMES[0]) for hit in after[:4]] == [True, True, False, False]
    for hit in after:
        signals, score = hit["signals"], hit["stages"]["fused"]["score"]
        assert sum(one["added"] for one in signals.values() if one["to"] == "fused") == pytest.approx(score)
        assert sum(signals["features"]["parts"].values()) == pytest.approx(signals["features"]["added"])
    found = Index(titled / "index").search(NAMES[0], top_k=30, fusion=str(today))
    assert [(one.id, one.score) for one in found] == [(one["id"], one["stages"]["fused"]["score"]) for one in after]
    status, printed, _ = call(search.main, *given, NAMES[0], "--top_k", "30", "--explain", "true")
    shown = [line.split(":")[0].strip() for line in printed.splitlines() if "features " in line]
    assert status == 0 and shown == [one["id"] for one in after] and "first_match +" in printed
    status, printed, _ = call(improve.main, *given, "--beir", titled / "judged", "--output", tmp_path / "again")
    assert status == 0 and "recommended: nothing" in printed  # what was accepted serves today


@pytest.mark.parametrize("has_answers", [True, False])
def test_a_measurement_writes_features_if_they_are_better_on_held_out_queries(
    titled: Path, tmp_path: Path, call: Call, has_answers: bool
) -> None:
    given, weights = ["--index", titled / "index", "--baselines", "false"], tmp_path / "weights.json"
    judged = titled / "judged"
    if not has_answers:  # labels at random
        lines = (judged / "qrels" / "test.tsv").read_text("utf-8").splitlines()
        labels = np.random.default_rng(7).permutation([line.split("\t")[2] for line in lines[1:]])
        rows = [[*line.split("\t")[:2], label] for line, label in zip(lines[1:], labels.tolist())]
        qrels: dict[str, dict[str, int]] = {}
        for query, id, label in rows:
            qrels.setdefault(query, {})[id] = int(label)
        judged = tmp_path / "judged"
        write_beir(judged, [], {f"q{n}": name for n, name in enumerate(NAMES)}, {"test": qrels})
    status, printed, errors = call(evaluate_recall.main, *given, "--beir", judged, "--learn_weights", weights)
    assert status == 0, errors
    assert ("learned features is ahead of words" in printed) is has_answers
    assert ("learned features: none (no gain over words is established)" in printed) is not has_answers
    assert bool(Fusion.read(weights).features) is has_answers


def test_shards_order_by_features_as_one_index(titled: Path, tmp_path: Path) -> None:
    rows = (titled / "corpus.jsonl").read_text("utf-8").splitlines(keepends=True)
    for number in range(2):
        (tmp_path / f"{number}.jsonl").write_text("".join(rows[number::2]), encoding="utf-8")
        given = ["--corpus", str(tmp_path / f"{number}.jsonl"), "--output", str(tmp_path / f"shard{number}")]
        assert index.main(["build", *given]) == 0
    weights = {"coverage": 1.0, "first_match": -1.0, "likeness": 0.5, "rarest_missing": -0.3, "words.score": 0.2}
    settings = SearchSettings(fusion=Fusion("weighted", features=weights))
    folders = [tmp_path / "shard0", tmp_path / "shard1"]
    with SearchEngine.open(titled / "index", settings) as one, SearchEngine.open(folders, settings) as several:
        for query in (NAMES[0], f"{NAMES[7]} {NAMES[9]}"):
            wanted = {found.id: found.score for found in one.search(query, 60)}
            assert {found.id: found.score for found in several.search(query, 60)} == pytest.approx(wanted, abs=1e-9)
            assert len(wanted) >= 8


def test_only_the_first_documents_are_ordered_by_features_and_the_others_follow(titled: Path) -> None:
    fusion = Fusion("weighted", features={"text_length": 1.0, "words.score": 0.0})
    with SearchEngine.open(titled / "index") as engine:
        (plain,) = engine.run(["shop"], 100)
        (ordered,) = engine.run(["shop"], 100, fusion=fusion)
    ids = [[one.fused.candidates.ids[place] for place in one.page.order] for one in (plain, ordered)]
    assert len(ids[0]) == len(ids[1]) == 100
    assert {*ids[0][:FEATURE_DEPTH]} == {*ids[1][:FEATURE_DEPTH]} and ids[0][:FEATURE_DEPTH] != ids[1][:FEATURE_DEPTH]
    assert ids[0][FEATURE_DEPTH:] == ids[1][FEATURE_DEPTH:]
    scores = ordered.fused.scores[ordered.page.order].tolist()
    assert scores == sorted(scores, reverse=True)
