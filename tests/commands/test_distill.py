"""A teacher's scores in training data: the right logit in the right column, for every role of file."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.commands.distill import main
from paddle_ranker.data.records import LabeledPair, Pair, Triple, read_records, write_records
from paddle_ranker.training.teachers import Scoring, split_paths

unit, parity = pytest.mark.unit, pytest.mark.parity
SECONDS = 60  # for what takes milliseconds


class FakeTeachers:
    """Gives each title its length less three."""

    def logits(self, queries: list[str], titles: list[str]) -> np.ndarray:
        assert queries == [f"q{len(title)}" for title in titles]
        return np.array([len(title) - 3.0 for title in titles])


@unit
def test_every_title_gets_its_own_logit() -> None:
    scoring = Scoring(FakeTeachers(), 0.5)  # type: ignore[arg-type]
    unlabelled = [Pair("q3", "abc", 7), Pair("q2", "ab")]
    assert list(scoring.add([LabeledPair("q1", "a", 2), LabeledPair("q4", "abcd", 0, 9), *unlabelled])) == [
        LabeledPair("q1", "a", 2, -2.0),
        LabeledPair("q4", "abcd", 0, 1.0),  # the new teacher's
        LabeledPair("q3", "abc", 1, 0.0),  # a probability of 0.5: relevant
        LabeledPair("q2", "ab", 0, -1.0),
    ]
    assert scoring.report() == (
        "2 pairs had no label: 1 got 1, the others 0, by the teacher's probability (0.5 and above)"
    )
    strict = Scoring(FakeTeachers(), 0.51)  # type: ignore[arg-type]
    assert [pair.label for pair in strict.add(unlabelled)] == [0, 0]  # type: ignore[attr-defined]


@unit
def test_triples_get_two(monkeypatch: Any) -> None:
    scoring = Scoring(FakeTeachers(), 0.5)  # type: ignore[arg-type]
    monkeypatch.setattr(FakeTeachers, "logits", lambda self, queries, titles: np.array([len(t) for t in titles]))
    rows = [Triple("q", "abc", "a"), Triple("q", "a", "ab"), Triple("r", "a", "b")]
    assert list(scoring.add(rows)) == [
        Triple("q", "abc", "a", 3, 1),
        Triple("q", "a", "ab", 1, 2),
        Triple("r", "a", "b", 1, 1),  # not ordered: a tie is no order
    ]
    assert scoring.report() == "the teacher orders 33.3% of the triples as they are"


@unit
def test_a_path_with_a_colon_is_one_where_it_is_there(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert split_paths("a:b") == ["a", "b"]
    (tmp_path / "a:b").mkdir()
    assert split_paths("a:b") == ["a:b"]


@pytest.fixture(scope="module")
def rankers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from tests.tiny import write_ranker

    folder = tmp_path_factory.mktemp("rankers")
    return [write_ranker(folder / str(seed), seed, kind=kind) for seed, kind in ((1, "pairwise"), (2, "cross_encoder"))]


TRIPLES = [Triple("水稻病害", "水稻病害诊断", "老年人护理"), Triple("经济", "经济增长", "水稻")]


def logits_of(folder: Path, queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
    """The logit of each pair by itself, from its probability."""
    from paddle_ranker.scoring.ranker import Ranker

    ranker = Ranker.load(folder)
    probabilities = np.array([ranker.score([query], [title])[0] for query, title in zip(queries, titles)])
    return np.log(probabilities) - np.log1p(-probabilities)


@parity
def test_triples_through_the_door(tmp_path: Path, rankers: list[Path], capsys: Any) -> None:
    source, out = tmp_path / "in.tsv", tmp_path / "out.tsv"
    write_records(source, TRIPLES)
    assert main([str(rankers[0]), str(source), str(out), "--device", "cpu"]) == 0
    rows = read_records(out, Triple)
    assert [(row.query, row.title, row.neg_title) for row in rows] == [(t.query, t.title, t.neg_title) for t in TRIPLES]
    queries, titles, others = zip(*((t.query, t.title, t.neg_title) for t in TRIPLES))
    scores = (
        np.array([row.teacher_score for row in rows], float),
        np.array([row.neg_teacher_score for row in rows], float),
    )
    np.testing.assert_allclose(scores[0], logits_of(rankers[0], queries, titles), atol=1e-5)
    np.testing.assert_allclose(scores[1], logits_of(rankers[0], queries, others), atol=1e-5)
    said = capsys.readouterr().out
    assert f"wrote 2 triples with the scores of 1 teacher to {out}" in said and "--loss margin_mse" in said


@parity
def test_several_teachers_and_several_files(tmp_path: Path, rankers: list[Path], capsys: Any) -> None:
    labelled, plain, out = tmp_path / "labelled.tsv", tmp_path / "plain.tsv", tmp_path / "out.tsv"
    write_records(labelled, [LabeledPair("经济", "经济增长", 2), LabeledPair("经济", "水稻", 0)])
    write_records(plain, [Pair("老年人", "老年人护理")])
    teachers, data = ":".join(map(str, rankers)), f"{labelled}:{plain}"
    assert main([teachers, data, str(out), "--device", "cpu"]) == 0
    rows = read_records(out, LabeledPair)
    queries, titles = ["经济", "经济", "老年人"], ["经济增长", "水稻", "老年人护理"]
    expected = (logits_of(rankers[0], queries, titles) + logits_of(rankers[1], queries, titles)) / 2
    np.testing.assert_allclose(np.array([row.teacher_score for row in rows], float), expected, atol=1e-5)
    assert [row.label for row in rows] == [2, 0, float(expected[2] >= 0)]
    said = capsys.readouterr().out
    assert "1 pairs had no label" in said and "2 teachers, the mean of their logits" in said


@unit
@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["nowhere", "in.tsv", "out.tsv"], 1, "there is no such model folder"),
        (["t", "in.tsv", "in.tsv"], 2, "must be another file"),
        (["t", "none.tsv", "out.tsv"], 1, "none.tsv: no such file"),
        (["t", "in.tsv:pairs.tsv", "out.tsv"], 2, "triples and pairs do not go into one file"),
        (["t", "in.tsv", "no/out.tsv"], 1, "cannot be written there"),
        (["t", "in.tsv"], 2, "OUTPUT_FILE"),
    ],
)
def test_errors(tmp_path: Path, monkeypatch: Any, capsys: Any, arguments: list[str], status: int, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path / "in.tsv", TRIPLES)
    write_records(tmp_path / "pairs.tsv", [Pair("q", "a")])
    assert main([*arguments, "--device", "cpu"]) == status
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out.tsv").exists()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a ranker over HTTP, in a thread of this process; yield the address."""
    from paddle_ranker.serving.core.budget import ByteBudget
    from paddle_ranker.serving.core.config import ServeConfig
    from paddle_ranker.serving.core.connections import Connections
    from paddle_ranker.serving.core.metrics import Metrics
    from paddle_ranker.serving.core.ranker_slot import RankerSlot
    from paddle_ranker.serving.core.slots import Slots
    from paddle_ranker.serving.http.connection import HttpConnection
    from paddle_ranker.serving.process.worker import make_app

    config = ServeConfig(model=folder)
    slot = RankerSlot(config)
    model = slot.load()
    slot.switch(model)
    app = make_app(Slots({"ranker": slot}), config, Metrics())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    connect = partial(HttpConnection, app, config, Connections(100, ByteBudget()))
    listening = asyncio.run_coroutine_threadsafe(loop.create_server(connect, "127.0.0.1", 0), loop)
    try:
        yield f"http://127.0.0.1:{listening.result(SECONDS).sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SECONDS)
        loop.close()
        model.batcher.close(SECONDS)


@pytest.fixture(scope="module")
def own_server(rankers: list[Path]) -> Iterator[str]:
    with served(rankers[0]) as address:
        yield address


@parity
@pytest.mark.parametrize("path, atol", [("/rerank", 0.0), ("/v1/rerank", 1e-5), ("/v2/rerank", 1e-5)])
def test_a_teacher_over_http_gives_the_logits_of_its_folder(
    tmp_path: Path, own_server: str, rankers: list[Path], capsys: Any, monkeypatch: Any, path: str, atol: float
) -> None:
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    source, there, here = tmp_path / "in.tsv", tmp_path / "http.tsv", tmp_path / "folder.tsv"
    write_records(source, TRIPLES)
    for _ in range(2):
        assert main([str(source), str(there), "--teacher_url", own_server + path]) == 0
    said = capsys.readouterr().out
    assert "2 requests, 4 pairs answered" in said and "\n0 requests, 0 pairs answered" in said
    assert f"wrote 2 triples with the scores of 1 teacher to {there}" in said
    assert main([str(rankers[0]), str(source), str(here), "--device", "cpu"]) == 0
    found, expected = read_records(there, Triple), read_records(here, Triple)
    assert [replace(one, teacher_score=0, neg_teacher_score=0) for one in found] == [
        replace(one, teacher_score=0, neg_teacher_score=0) for one in expected
    ]
    for name in ("teacher_score", "neg_teacher_score"):
        scores, own = (np.array([getattr(one, name) for one in rows], float) for rows in (found, expected))
        np.testing.assert_allclose(scores, own, rtol=0, atol=atol + 1e-6)


@unit
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["in.tsv", "out.tsv"], "no teacher: give TEACHER DATA_FILE OUTPUT_FILE, or --teacher_url URL"),
        (["t", "in.tsv", "out.tsv", "--teacher_url", "http://h/rerank"], "t and --teacher_url: give TEACHER"),
        (
            ["in.tsv", "out.tsv", "--teacher_url", "http://h/rerank", "--max_seq_length", "64"],
            "the server decides that",
        ),
        (["in.tsv", "in.tsv", "--teacher_url", "http://h/rerank"], "must be another file"),
        (["t", "in.tsv", "out.tsv", "--teacher_model", "m"], "--teacher_model is about a teacher over HTTP"),
    ],
)
def test_a_folder_or_a_url(tmp_path: Path, monkeypatch: Any, capsys: Any, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path / "in.tsv", TRIPLES)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out.tsv").exists()
