"""A teacher's scores in training data: the right logit in the right column, for every role of file."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.commands.distill import main
from paddle_ranker.data.rows.records import LabeledPair, Pair, Triple, read_records, write_records
from paddle_ranker.options.input_files import split_paths
from paddle_ranker.training.teachers import Scoring
from tests.conftest import REPOSITORY, Call
from tests.fake_teacher import Server, http, score_of, tei
from tests.started import started, started_server

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
def test_triples_through_the_door(tmp_path: Path, rankers: list[Path], call: Call) -> None:
    source, out = tmp_path / "in.tsv", tmp_path / "out.tsv"
    write_records(source, TRIPLES)
    status, said, _ = call(main, rankers[0], source, out, "--device", "cpu")
    assert status == 0 and "wrote 2 triples" in said and "--loss margin_mse" in said
    rows = read_records(out, Triple)
    assert [(row.query, row.title, row.neg_title) for row in rows] == [(t.query, t.title, t.neg_title) for t in TRIPLES]
    queries, titles, others = zip(*((t.query, t.title, t.neg_title) for t in TRIPLES))
    for name, texts in (("teacher_score", titles), ("neg_teacher_score", others)):
        scores = np.array([getattr(row, name) for row in rows], float)
        np.testing.assert_allclose(scores, logits_of(rankers[0], queries, texts), atol=1e-5)


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


@parity
def test_positions_stay_where_all_rows_have_one_and_else_are_said_to_be_left_out(
    tmp_path: Path, rankers: list[Path], capsys: Any
) -> None:
    shown, plain, out = tmp_path / "shown.tsv", tmp_path / "plain.tsv", tmp_path / "out.tsv"
    write_records(shown, [LabeledPair("经济", "经济增长", 1, position=2), LabeledPair("经济", "水稻", 0, position=5)])
    write_records(plain, [Pair("老年人", "老年人护理", 0.25)])
    assert main([str(rankers[0]), str(shown), str(out), "--device", "cpu"]) == 0
    assert [row.position for row in read_records(out, LabeledPair)] == [2, 5] and "lacks" not in capsys.readouterr().err
    assert main([str(rankers[0]), f"{shown}:{plain}", str(out), "--device", "cpu"]) == 0
    assert [row.position for row in read_records(out, LabeledPair)] == [None] * 3
    said = capsys.readouterr().err
    assert f"lacks position of {shown}; join them" in said and f"lacks recall_score of {plain}; join them" in said


@pytest.fixture(scope="module")
def own_server(rankers: list[Path]) -> Iterator[str]:
    with started_server(rankers[0], rankers[0].parent / "server") as (_, [port]):
        yield f"http://127.0.0.1:{port}"


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


@parity
def test_a_student_taught_over_http_is_the_one_taught_by_the_folder(
    tmp_path: Path, own_server: str, rankers: list[Path], capsys: Any, monkeypatch: Any
) -> None:
    from cross_encoder.train_ce import main as train
    from paddle_ranker.model.parameters import PARAMETERS_FILE, load_arrays
    from tests.tiny import PAIRS, write_encoder

    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    encoder, source = write_encoder(tmp_path / "encoder"), tmp_path / "pairs.tsv"
    titles = [title for _, title in PAIRS]
    write_records(source, [LabeledPair(query, title, int(title == own)) for query, own in PAIRS for title in titles])
    students = []
    for name, teacher in (("http", ["--teacher_url", f"{own_server}/rerank"]), ("folder", [str(rankers[0])])):
        scored, student = tmp_path / f"{name}.tsv", tmp_path / name
        assert main([*teacher, str(source), str(scored)]) == 0
        line = f"--train_set {scored} --test_file {source} --model_name_or_path {encoder} --save_dir {student} "
        line += "--loss teacher_mse --epochs 1 --batch_size 8 --learning_rate 1e-3 --device cpu --max_seq_length 32"
        assert train(line.split()) == 0
        students.append(load_arrays(student / "best" / PARAMETERS_FILE))
    assert students[0].keys() == students[1].keys()
    for name, values in students[0].items():
        if not name.endswith(".k_proj.bias"):  # it moves no score, so its gradient is noise, which Adam makes steps of
            np.testing.assert_allclose(values, students[1][name], rtol=0, atol=1e-6, err_msg=name)
    pairs = [row.query for row in read_records(source, LabeledPair)], [own for _ in PAIRS for own in titles]
    scores = [logits_of(tmp_path / name / "best", *pairs) for name in ("http", "folder")]
    np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=1e-5)


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: Any, capsys: Any, number: int) -> None:
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    source, out = tmp_path / "in.tsv", tmp_path / "out.tsv"
    write_records(source, [Pair(f"q{place}", "title") for place in range(6)])
    third = threading.Event()

    def hold(asked: dict[str, Any]) -> bytes:
        third.set()
        server.over.wait(SECONDS)
        return tei(asked)

    with Server(tei, tei, hold) as server:
        arguments = [str(source), str(out), "--teacher_url", server.url, "--teacher_concurrency", "1"]
        command = [sys.executable, "-m", "paddle_ranker", "distill", *arguments]
        with started(command, tmp_path / "run", PYTHONPATH=str(REPOSITORY), NO_PROXY="127.0.0.1") as run:
            run.until(third.is_set)
            os.killpg(run.process.pid, number)
            assert run.process.wait(SECONDS) == (130 if number == signal.SIGINT else -signal.SIGKILL)
            if number == signal.SIGINT:
                assert "3 requests, 2 pairs answered" in run.output and "interrupted" in run.output
                assert "Traceback" not in run.output and "never retrieved" not in run.output
        assert not out.exists()
        server.replies = (tei,)
        assert main(arguments) == 0
    assert [body["query"] for body in server.bodies] == ["q0", "q1", "q2", "q2", "q3", "q4", "q5"]
    assert "4 requests, 4 pairs answered" in capsys.readouterr().out
    scores = [row.teacher_score for row in read_records(out, LabeledPair)]
    assert scores == [score_of(f"q{place}", "title") for place in range(6)]


@unit
def test_a_teacher_that_fails_leaves_no_file(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    source, out = tmp_path / "in.tsv", tmp_path / "out.tsv"
    write_records(source, TRIPLES)
    with Server(tei, lambda asked: http(b"[]")) as server:
        arguments = ["--teacher_url", server.url, "--teacher_answers", str(tmp_path / "kept")]
        assert main([*arguments, "--teacher_concurrency", "1", str(source), str(out)]) == 1
    error = capsys.readouterr().err
    assert "error: " in error and "0 results came for 2 titles; run again to go on from what was answered" in error
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.tsv", "kept"]
