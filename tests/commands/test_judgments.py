"""`paddle-ranker judgments`: from a server's log to files that the trainer and `compare` read."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cross_encoder import train_ce
from paddle_ranker.commands import compare, judgments
from paddle_ranker.data.rows.records import LabeledPair, read_records
from paddle_ranker.data.rows.trec import read_qrels, read_texts
from paddle_ranker.options import LabelOptions
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.serving.core.search_log import FeedbackLine, SearchLine, SearchLog, Shown, digest_of
from tests.checkout import ONCE
from tests.conftest import Call
from tests.tiny import write_encoder

pytestmark = pytest.mark.unit
IDS = "abcdefgh"
QUERIES = ["深度学习", "水稻病害", "老年护理", "经济增长", "文化差异", "神经网络"]


def search(id: str, query: str, ids: str, texts: str = "now", **parameters: Any) -> SearchLine:
    texts_of = {"now": text_of, "old": lambda one: f"an older text\t{one}"}
    shown = [Shown(one, {"fused": rank}, None, digest_of(texts_of[texts](one))) for rank, one in enumerate(ids, 1)]
    return SearchLine(id, query, {}, shown, parameters, time="2026-11-22T09:00:00.000Z")


def text_of(id: str) -> str:
    return f"{QUERIES[IDS.find(id) % 6]}研究\t{id}"


def said(id: str, document: str, event: str, second: int = 0, **more: Any) -> FeedbackLine:
    return FeedbackLine(id, "", document, event, time=f"2026-11-22T09:00:{second:02}.000Z", **more)


def write_log(folder: Path, lines: list[Any]) -> Path:
    log, queries = SearchLog(folder), {line.search_id: line.query for line in lines if isinstance(line, SearchLine)}
    for line in lines:
        if isinstance(line, SearchLine):
            log.search(line)
        else:
            log.feedback(replace(line, query=line.query or queries.get(line.search_id, "经济增长")))
    log.close()
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    with Collection.create(folder, IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add(Document(id, text_of(id)) for id in IDS)
    return folder


def run(call: Call, log: Path, index: Path, output: Path, *more: object) -> tuple[int, str, str]:
    return call(judgments.main, "--log", log, "--index", index, "--output", output, *more)


def labels_of(path: Path) -> dict[tuple[str, str], float]:
    rows = read_records(path, LabeledPair, LabelOptions(fractional_labels=True))
    return {(row.query, row.title[-1]): row.label for row in rows}


@pytest.mark.parametrize(
    "shown, is_same",
    [
        ("caf\u00e9 水稻 研究", True),
        ("cafe\u0301 水稻 研究", True),
        ("  caf\u00e9\r\n水稻\u3000\u00a0研究\n", True),
        ("\ufeffcaf\u00e9 水\u200b稻 研\u00ad究", True),
        ("cafe 水稻 研究", False),
        ("Caf\u00e9 水稻 研究", False),
        ("caf\u00e9 水稻研究", False),
    ],
)
def test_clicks_are_about_the_text_as_it_is_shown(tmp_path: Path, call: Call, shown: str, is_same: bool) -> None:
    line = SearchLine(
        "s1", "水稻", {}, [Shown("a", {}, None, digest_of(shown)), Shown("b", {}, None, digest_of("b"))], {}
    )
    log = write_log(tmp_path / "log", [line, said("s1", "a", "click")])
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add([Document("a", "caf\u00e9 水稻 研究"), Document("b", "b")])
    _, printed, _ = run(call, log, tmp_path / "index", tmp_path / "out", "--dev_share", 0)
    assert ("pairs whose text has changed since it was shown" not in printed) == is_same


def test_clicks_and_judgments_become_labels(tmp_path: Path, index: Path, call: Call) -> None:
    lines = [
        search("s1", "深度学习", "abc"),
        search("s2", "深度学习", "dcz", offset=10),
        search("s3", "水稻病害", "ab"),
        search("s4", "老年护理", ""),
        search("s5", "经济增长", "e"),
        said("s1", "b", "click"),
        said("s1", "b", "click"),
        said("s2", "c", "click"),
        said("s2", "d", "judged", 9, label=1),
        said("s2", "d", "judged", 8, label=3),  # later, by a clock that was set back
        said("s1", "a", "relevant", 1),
        said("s1", "a", "unjudged", 2),
        said("s1", "b", "irrelevant", 3),  # beats the click
        said("s5", "e", "relevant"),
        said("s1", "h", "click"),  # was not shown
        said("s9", "a", "click"),
    ]
    write_log(tmp_path / "log", [said("s5", "e", "judged", 0, label=2)])  # of another process, whose file may come last
    write_log(tmp_path / "log", lines)
    status, printed, _ = run(call, tmp_path / "log", index, tmp_path / "out", "--dev_share", 0)
    assert status == 0
    assert "5 searches, 3 clicks, 3 judged pairs" in printed  # one was taken back
    for words in (
        "2 of these searches have no click",
        "what was judged in them counts\nleft out: ",
        "searches that found nothing: 1",
        "feedback on documents that the search did not show: 1",
        "feedback on searches that are not in the log: 1",
        "pairs whose document is not in the index, or which are no text: 1",
    ):
        assert words in printed
    assert "train.jsonl: 2 queries, 5 pairs, 3 with a label above 0, 3 judged" in printed
    found = labels_of(tmp_path / "out" / "train.jsonl")
    assert found == {
        ("深度学习", "a"): 0,
        ("深度学习", "b"): 0,
        ("深度学习", "c"): 0.5,
        ("深度学习", "d"): 3,
        ("经济增长", "e"): 1,
    }
    rows = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text("utf-8").splitlines()]
    assert {row["title"][-1]: row["position"] for row in rows} == {"a": 1, "b": 2, "c": 3, "d": 11, "e": 1}
    status, _, errors = run(call, tmp_path / "log", index, tmp_path / "out")
    assert status == 1 and "is there already" in errors


def test_what_was_said_of_a_text_stays_with_that_text(tmp_path: Path, index: Path, call: Call) -> None:
    lines: list[Any] = [
        search("s1", "深度学习", "ab", "old"),
        search("s2", "深度学习", "abc"),
        search("s3", "水稻病害", "d", "old"),
        search("s4", "老年护理", "e"),
        *(said("s1", id, "click") for id in "ab"),
        said("s2", "a", "click"),
        said("s1", "b", "judged", label=3),
        said("s3", "d", "relevant"),
        said("s4", "e", "click"),
        replace(said("s2", "c", "relevant"), query="水稻病害"),
    ]
    log = write_log(tmp_path / "log", lines)
    status, printed, errors = run(call, log, index, tmp_path / "out", "--dev_share", 0)
    assert status == 0, errors
    assert "pairs whose text has changed since it was shown: 3" in printed
    assert "feedback with another query than its search: 1" in printed
    found = labels_of(tmp_path / "out" / "train.jsonl")
    expected = {("深度学习", "a"): 1, ("深度学习", "b"): 0, ("深度学习", "c"): 0, ("老年护理", "e"): 1}
    assert found == expected
    for seed in range(40):  # the held-out folder has none of the old texts either
        if run(call, log, index, tmp_path / f"{seed}", "--dev_share", 0.5, "--seed", seed)[0]:
            continue
        corpus = (tmp_path / f"{seed}" / "dev" / "corpus.jsonl").read_text("utf-8")
        assert "older text" not in corpus and '"d"' not in corpus
        break


def test_of_a_long_document_that_no_ranker_read_the_part_with_the_query_s_words_is_written(
    tmp_path: Path, call: Call
) -> None:
    filler = "田地里的作物需要很多照看。" * 60
    texts = {"long": f"{filler}深度学习是这一段的内容。{filler}", "short": "深度学习短文"}
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("standard"), None)) as collection:
        collection.writer.add(Document(id, text) for id, text in texts.items())
    shown = [Shown(id, {"fused": rank}, None, digest_of(text)) for rank, (id, text) in enumerate(texts.items(), 1)]
    lines = [SearchLine("s1", "深度学习", {}, shown, {}), said("s1", "long", "click")]
    read_whole = SearchLine("s2", "深度学习", {"ranker": "best"}, shown, {})
    for name, more in (("without", []), ("with", [read_whole])):  # a ranker that read it says how much it read
        log = write_log(tmp_path / f"{name}-log", [*lines, *more])
        assert run(call, log, tmp_path / "index", tmp_path / name, "--dev_share", 0)[0] == 0
    rows, whole = (
        {row["position"]: row["title"] for row in map(json.loads, (tmp_path / name / "train.jsonl").open("rb"))}
        for name in ("without", "with")
    )
    assert len(rows[1]) < 300 and "深度学习是这一段的内容" in rows[1] and rows[2] == texts["short"]
    assert whole == {1: texts["long"], 2: texts["short"]}


def simulated(exponent: float, noise: float, seed: int) -> judgments.JoinedLog:
    """A log of 1,500 searches for 30 queries, each a page of two of ten documents: most have no click."""
    draw = np.random.default_rng(seed)
    log = judgments.JoinedLog.__new__(judgments.JoinedLog)
    log.searches, log.clicked, log.judged, log.counts = {}, {}, {}, Counter()
    attraction = draw.uniform(0.02, 0.4, (30, 10))
    for number in range(1500):
        query, first = int(draw.integers(30)), int(draw.choice([1, 3, 5]))
        order = np.argsort(-attraction[query] + draw.normal(0, noise, 10))[first - 1 : first + 1]
        seen = draw.random(2) < np.arange(first, first + 2.0) ** -exponent
        clicked = order[seen & (draw.random(2) < attraction[query, order])]
        log.searches[f"{number}"] = judgments._LoggedSearch(f"{query}", f"{query}", tuple(map(str, order)), first)
        if len(clicked):
            log.clicked[f"{number}"] = set(map(str, clicked))
    return log


@ONCE
def test_positions_are_estimated_from_all_searches(capsys: pytest.CaptureFixture[str]) -> None:
    options = judgments.JudgmentsOptions(log="log", index="index", output_dir="out", debias="ipw")
    assert options.without_clicks == "drop"
    covered, values = 0, dict[float, list[float]]()
    for exponent in (0.5, 1.0, 1.5):
        for noise in (0.1, 0.2, 0.4):
            for seed in range(8):
                judgments.judgments_of(simulated(exponent, noise, seed), options)
                value, low, high = map(float, re.findall(r"e = (\S+) \((\S+) to ([^,]+),", capsys.readouterr().out)[0])
                covered += low <= exponent <= high
                values.setdefault(exponent, []).append(value)
    assert covered >= 68  # of 72: as many as 95% intervals cover
    assert all(abs(np.mean(found) - exponent) < 0.1 for exponent, found in values.items())


def test_rates_count_every_search_where_that_is_asked_for(tmp_path: Path, index: Path, call: Call) -> None:
    lines = [search(f"s{n}", "深度学习", "ab" if n < 4 else "ba") for n in range(8)]
    lines += [said("s0", "a", "click"), said("s1", "a", "click"), said("s4", "a", "click"), said("s4", "b", "click")]  # type: ignore[list-item]
    log, rate = write_log(tmp_path / "log", lines), ("--dev_share", 0)

    def labels(name: str, *more: object) -> list[float]:
        status, printed, errors = run(call, log, index, tmp_path / name, *rate, *more)
        assert status == 0, errors
        assert ("e = " in printed) == ("ipw" in more and "--position_exponent" not in more)
        return list(labels_of(tmp_path / name / "train.jsonl").values())

    assert labels("clicked") == pytest.approx([3 / 3, 1 / 3])
    assert labels("all", "--without_clicks", "keep") == pytest.approx([3 / 8, 1 / 8])
    by_hand = ("--debias", "ipw", "--position_exponent", 1, "--without_clicks", "keep")
    assert labels("ipw", *by_hand) == pytest.approx([(2 + 2) / 8, 1 / 8])
    assert len(labels("estimated", "--debias", "ipw")) == 2
    status, _, errors = run(call, log, index, tmp_path / "none", "--debias", "ipw", "--labels", "clicked")
    assert status == 2 and "leave out --labels clicked" in errors
    labels_of_clicks = run(call, log, index, tmp_path / "any", *rate, "--labels", "clicked")
    assert labels_of_clicks[0] == 0 and list(labels_of(tmp_path / "any" / "train.jsonl").values()) == [1, 1]


def test_held_out_pairs_are_relevant_where_half_as_many_click_as_at_the_query_s_best(
    tmp_path: Path, index: Path, call: Call
) -> None:
    lines: list[Any] = [search(f"s{n}", "深度学习", "abcd") for n in range(8)]
    lines += [said(f"s{n}", id, "click") for id, clicks in (("a", 6), ("b", 3), ("c", 2)) for n in range(clicks)]
    lines += [said("s0", "d", "judged", label=2), said("s1", "a", "irrelevant")]
    log = write_log(tmp_path / "log", lines)
    for seed in range(20):  # until the only query is held out
        assert run(call, log, index, tmp_path / f"{seed}", "--dev_share", 0.9, "--seed", seed)[0] == 0
        if (tmp_path / f"{seed}" / "dev.jsonl").stat().st_size:
            break
    found = labels_of(tmp_path / f"{seed}" / "dev.jsonl")
    assert found == {("深度学习", "a"): 0, ("深度学习", "b"): 1, ("深度学习", "c"): 0, ("深度学习", "d"): 2}


def test_what_training_data_or_qrels_cannot_hold_is_left_out(tmp_path: Path, call: Call) -> None:
    texts = {"a": "研究\ta", "my file.txt": "研究\tmy file.txt", " b": "研究\t b", "nul": "研究\0b", "blank": " \n"}
    with Collection.create(tmp_path / "index", IndexInfo(WordsInfo("bigram"), None)) as collection:
        collection.writer.add(Document(id, text) for id, text in texts.items())
    shown = [Shown(id, {"fused": rank}, None, digest_of(text)) for rank, (id, text) in enumerate(texts.items(), 1)]
    lines: list[Any] = [SearchLine(f"s{n}", f"深度 {n}", {}, shown, {}) for n in range(20)]
    log = write_log(tmp_path / "log", [*lines, *(said(f"s{n}", "my file.txt", "click") for n in range(20))])
    status, printed, errors = run(call, log, tmp_path / "index", tmp_path / "out", "--dev_share", 0.5)
    assert status == 0 and "or which are no text: 40" in printed, errors
    held = {query for query, _ in labels_of(tmp_path / "out" / "dev.jsonl")}
    assert held and len(labels_of(tmp_path / "out" / "dev.jsonl")) == 3 * len(held)
    assert f"held-out pairs whose id has a space, in the qrels: {2 * len(held)}" in printed
    qrels = read_qrels(str(tmp_path / "out" / "dev" / "qrels" / "test.tsv")).qrels
    assert [list(found) for found in qrels.values()] == [["a"]] * len(held)


def test_an_empty_log_and_one_without_clicks_are_said(tmp_path: Path, index: Path, call: Call) -> None:
    status, _, errors = run(call, tmp_path / "none", index, tmp_path / "out")
    assert status == 1 and "no such folder" in errors
    log = write_log(tmp_path / "log", [search("s1", "深度学习", "abc")])
    status, printed, errors = run(call, log, index, tmp_path / "out")
    assert status == 1 and "nothing to learn from" in errors and "1 of these searches have no click" in printed
    assert not (tmp_path / "out").exists()


def test_held_out_queries_stay_where_they_are_when_the_log_grows(tmp_path: Path, index: Path, call: Call) -> None:
    lines: list[Any] = []
    held = []
    for number in range(40):
        lines += [search(f"s{number}", f"深度 {number}", "ab"), said(f"s{number}", "a", "click")]
        if number in (19, 39):
            log = write_log(tmp_path / f"log{number}", lines)
            assert run(call, log, index, tmp_path / f"out{number}", "--dev_share", 0.5)[0] == 0
            held.append({query for query, _ in labels_of(tmp_path / f"out{number}" / "dev.jsonl")})
    assert held[0] == {query for query in held[1] if int(query.split()[1]) < 20}
    assert 10 <= len(held[1]) <= 30


def test_from_the_log_to_a_trained_ranker_and_a_comparison(tmp_path: Path, index: Path, call: Call) -> None:
    lines: list[Any] = []
    draw = np.random.default_rng(1)
    for number in range(60):
        shown = "".join(draw.permutation(list(IDS))[:5])
        lines += [search(f"s{number}", QUERIES[number % 6], shown), said(f"s{number}", shown[number % 3], "click")]
    log, out = write_log(tmp_path / "log", lines), tmp_path / "out"
    status, _, errors = run(call, log, index, out, "--debias", "ipw", "--dev_share", 0.4)
    assert status == 0, errors
    encoder = write_encoder(tmp_path / "encoder")
    status, printed, errors = call(
        train_ce.main, "--train", out / "train.jsonl", "--test", out / "dev.jsonl", "--model", encoder,
        "--output", tmp_path / "ranker", "--loss", "click_softmax", "--fractional_labels", "true", "--epochs", 1,
        "--device", "cpu",
    )  # fmt: skip
    assert status == 0, errors
    judged = out / "dev"
    qrels = read_qrels(str(judged / "qrels" / "test.tsv")).qrels
    queries = read_texts(str(judged / "queries.jsonl"), qrels)
    titles = read_texts(str(judged / "corpus.jsonl"), {id for found in qrels.values() for id in found})
    expected = {
        (queries[query], titles[id][-1]): label for query, found in qrels.items() for id, label in found.items()
    }
    assert expected == labels_of(out / "dev.jsonl")
    status, printed, errors = call(
        compare.main, tmp_path / "ranker" / "last", "--qrels", judged / "qrels" / "test.tsv",
        "--queries", judged / "queries.jsonl", "--documents", judged / "corpus.jsonl", "--device", "cpu",
    )  # fmt: skip
    assert status == 0, errors
    assert "nDCG@10" in printed and "BM25" in printed
