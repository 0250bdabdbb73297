"""TREC's files: what is read and written, and what is refused with its line."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paddle_ranker.data.rows.trec import is_run, read_qrels, read_run, read_texts, write_qrels, write_run
from paddle_ranker.errors import DataError
from paddle_ranker.evaluation.pairs import MeasuredPairs, judged_runs, read_labelled
from paddle_ranker.evaluation.score_files import read_scores, write_scores
from paddle_ranker.metrics.ranking import NOT_RETURNED
from paddle_ranker.options import RowOptions
from paddle_ranker.options.input_files import SeveralFiles

pytestmark = pytest.mark.unit


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_run_with_spaces_tabs_and_gzip(tmp_path: Path) -> None:
    text = "q1 Q0 d1 1 12.5 bm25\nq1\tQ0\td2\t2\t-3e-1\tbm25\nq2 Q0  d1 9 0 bm25\r\n"
    path = write(tmp_path / "a.run", text)
    found = read_run(path)
    assert (found.run, found.tag, found.notes) == ({"q1": {"d1": 12.5, "d2": -0.3}, "q2": {"d1": 0.0}}, "bm25", [])
    (tmp_path / "a.run.gz").write_bytes(gzip.compress(text.encode()))
    assert read_run(str(tmp_path / "a.run.gz")) == found
    assert is_run(path) and not is_run(write(tmp_path / "q.txt", "q1 0 d1 1\n"))


def test_qrels_of_trec_and_of_beir(tmp_path: Path) -> None:
    trec = write(tmp_path / "a", "q1 0 d1 2\nq1 0 d2 0\nq2 0 d1 -1\nq1 0 d1 2\n")  # one line twice
    beir = write(tmp_path / "b.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t-1\n")
    assert read_qrels(trec).qrels == read_qrels(beir).qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}}


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_run, "q1 Q0 d1 1 2.0 a\nq1 Q0 d2 1 b\n", "line 2: 5 fields, expected query Q0 document rank score tag"),
        (read_run, "q1 Q0 d1 1 nan a\n", "line 1: the score 'nan' is not a finite number"),
        (read_run, "q1 Q0 d1 1 1_0 a\n", "line 1: the score '1_0' is not a finite number"),
        (read_run, "q1 Q0 d1 1 2 a\nq2 Q0 d1 1 2 a\nq1 Q0 d1 2 1 a\n", "line 3: query q1 lists document d1 again"),
        (read_run, '{"a": 1}\n', "line 1: JSON, expected"),
        (read_run, "", "is empty, expected a line"),
        (read_qrels, "q1 0 d1 1\nq1 0 d1 0\n", "line 2: label 0 for query q1 and document d1, but 1 in line 1"),
        (read_qrels, "q1 0 d1 0.5\n", "line 1: the label '0.5' is not a whole number"),
        (read_qrels, "q1 d1 1\n", "line 1: 3 fields, expected query 0 document label"),
    ],
)
def test_what_is_no_run_and_no_qrels_is_named_with_its_line(
    tmp_path: Path, read: Callable[[str], object], text: str, message: str
) -> None:
    with pytest.raises(DataError, match=f"a.run.*{message}"):
        read(write(tmp_path / "a.run", text))


def test_bad_lines_may_be_skipped_and_are_counted(tmp_path: Path) -> None:
    qrels = write(tmp_path / "qrels", "q1 0 d1 1\nq1 0 d1 0\nq1 0 d2 0\nq1 0 d3 x\n")
    found = read_qrels(qrels, RowOptions(skip_bad_rows=True))
    assert found.qrels == {"q1": {"d2": 0}}  # neither of the two labels is believed
    assert len(found.notes) == 1 and "skipped 2 (line 2: label 0" in found.notes[0]
    run = read_run(write(tmp_path / "run", "q Q0 d 1 2 a\nq Q0 d 1 3 a\nq Q0 e 1\n"), skip_bad_rows=True)
    assert run.run == {"q": {"d": 2.0}} and "skipped 2" in run.notes[0]


def test_what_is_written_is_read_again_digit_by_digit(tmp_path: Path) -> None:
    rows = [("q2", "d1", 1 / 3), ("q1", "d1", -2.0), ("q1", "d2", 1e-300), ("q1", "d9", -2.0)]
    write_run(str(tmp_path / "run"), rows, "my tag")
    found = read_run(str(tmp_path / "run"))
    assert found.run == {"q2": {"d1": 1 / 3}, "q1": {"d1": -2.0, "d2": 1e-300, "d9": -2.0}} and found.tag == "my_tag"
    lines = [line.split() for line in (tmp_path / "run").read_text().splitlines()]
    assert [(line[0], line[2], line[3]) for line in lines] == [
        ("q2", "d1", "1"),
        ("q1", "d2", "1"),
        ("q1", "d9", "2"),  # equal scores: the higher id first
        ("q1", "d1", "3"),
    ]
    write_qrels(str(tmp_path / "qrels"), [("q", "d", 2.0)])
    assert (tmp_path / "qrels").read_text() == "q 0 d 2\n"
    with pytest.raises(DataError, match=r"label 0\.5 is not a whole number"):
        write_qrels(str(tmp_path / "no"), [("q", "d", 0.5)])
    with pytest.raises(DataError, match="holds a space"):
        write_run(str(tmp_path / "no"), [("a query", "d", 0.5)], "x")
    assert not (tmp_path / "no").exists()


def test_texts_by_id(tmp_path: Path) -> None:
    tsv = write(tmp_path / "d.tsv", 'id\ttext\nd1\tone "text"\nd2\ttwo\nd3\tthree\n')
    assert read_texts(tsv, {"d1", "d3"}) == {"d1": 'one "text"', "d3": "three"}
    three = write(tmp_path / "t.tsv", "d1\ta title\tand a text\n")
    assert read_texts(three, {"d1"}) == {"d1": "a title and a text"}
    beir = write(
        tmp_path / "c.jsonl", '{"_id": 7, "title": "T", "text": "x"}\n{"_id": "8", "title": "", "text": "y"}\n'
    )
    assert read_texts(beir, {"7", "8"}) == {"7": "T x", "8": "y"}
    with pytest.raises(DataError, match="no text for 1 of 2 ids, such as d9"):
        read_texts(tsv, {"d1", "d9"})
    with pytest.raises(DataError, match="line 2: another text for the id d1"):
        read_texts(write(tmp_path / "e.tsv", "d1\ta\nd1\tb\n"), {"d1"})


DEV = "query\ttitle\tlabel\na\tone\t1\nb\tone\t0\na\ttwo\t0\na\tone\t1\n"


def test_a_labelled_files_rows_have_ids_and_a_repeated_row_counts(tmp_path: Path) -> None:
    pairs = read_labelled(write(tmp_path / "dev.tsv", DEV))
    assert pairs.query_ids == ["q1", "q2", "q1", "q1"] and pairs.document_ids == ["d1", "d2", "d3", "d4"]
    assert pairs.labels.tolist() == [1, 0, 0, 1] and pairs.judged.all() and pairs.candidates.all()
    assert pairs.notes == [f"{tmp_path}/dev.tsv: 1 row repeats another's query, title and label; each counts"]


def test_one_pair_with_several_labels_is_an_error_or_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "dev.tsv", DEV + "b\tone\t2\nb\tone\t0\nbad\n")
    with pytest.raises(DataError, match="line 8: 1 column"):
        read_labelled(path)
    path = write(tmp_path / "dev.tsv", DEV + "b\tone\t2\nb\tone\t0\nb\ttwo\t0\n")
    with pytest.raises(DataError, match=r"dev.tsv: one query and title with several labels \(lines 3 and 6: labels 0 "):
        read_labelled(path)
    pairs = read_labelled(path, skip_bad_rows=True)
    assert pairs.labels.tolist() == [1, 0, 1, 0] and pairs.queries == ["a", "a", "a", "b"]
    assert "left out 3 rows of a query and title with several labels (lines 3 and 6" in pairs.notes[0]
    with pytest.raises(DataError, match="no pair is left"):
        read_labelled(write(tmp_path / "all.tsv", "a\tb\t1\na\tb\t0\n"), skip_bad_rows=True)


@pytest.fixture
def pairs(tmp_path: Path) -> MeasuredPairs:
    return read_labelled(write(tmp_path / "dev.tsv", DEV))


@pytest.mark.parametrize("name", ["s.jsonl", "s.tsv", "s.trec", "s.jsonl.gz"])
def test_scores_are_kept_digit_by_digit(tmp_path: Path, pairs: MeasuredPairs, name: str) -> None:
    scores = np.array([1 / 3, -1e-17, 2.0, 123456789.123456789])
    write_scores(str(tmp_path / name), pairs, scores, "mine")
    found, notes = read_scores(str(tmp_path / name), pairs)
    assert found.tolist() == scores.tolist() and notes == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\n3\n", "3 scores, but .*dev.tsv has 4 pairs"),
        ("1\n2\n3\nx\n", "line 4: the score 'x' is not a finite number"),
        ("a\tone\t1\nb\ttwo\t1\n", "line 2: the title 'two', but row 2 of .*dev.tsv has 'one'"),
        ("1\t2\n", "line 1: 2 columns, expected 1"),
        ('{"query": "a"}\n', "line 1: no score"),
        ("q7 Q0 d1 1 2 tag\n", "share no query"),
        ("q1 Q0 d77 1 2 tag\n", "1 of its rows are none of"),
    ],
)
def test_scores_that_are_not_of_the_file(tmp_path: Path, pairs: MeasuredPairs, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_scores(write(tmp_path / "scores", text), pairs)


@pytest.mark.parametrize(
    "text",
    [
        "4\n3\n2\n1\n",
        "score\n4\n3\n2\n1\n",
        "a\tone\t4\nb\tone\t3\na\ttwo\t2\na\tone\t1\n",
        "pred_prob\ttext_a\n4\ta\n3\tb\n2\ta\n1\ta\n",
        '{"Logit": 4, "Text_B": "one"}\n{"logit": 3}\n{"logit": 2, "title": "two"}\n{"logit": 1}\n',
    ],
)
def test_scores_by_several_names_in_file_order(tmp_path: Path, pairs: MeasuredPairs, text: str) -> None:
    assert read_scores(write(tmp_path / "s", text), pairs)[0].tolist() == [4, 3, 2, 1]


def test_qrels_and_runs_make_pairs(tmp_path: Path) -> None:
    qrels = {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": 2}}
    runs = {"a": {"q1": {"d3": 3.0, "d1": 2.0}, "q9": {"d1": 1.0}}, "b": {"q2": {"d1": 1.0}}}
    queries = write(tmp_path / "q.tsv", "q1\tfirst\nq2\tsecond\n")
    documents = write(tmp_path / "d.tsv", "d1\tone\nd3\tthree\n")
    pairs = judged_runs("qrels", qrels, runs, candidates=runs["a"], queries_file=queries, documents_file=documents)
    rows = list(zip(pairs.query_ids, pairs.document_ids, pairs.labels, pairs.judged, pairs.candidates))
    assert rows == [
        ("q1", "d1", 1, True, True),
        ("q1", "d2", 0, True, False),
        ("q1", "d3", 0, False, True),
        ("q2", "d1", 2, True, False),
    ]
    assert pairs.texts("x") == (["first", "first"], ["one", "three"])
    queries = write(tmp_path / "q.csv", 'q1,"first, second"\n')
    documents = write(tmp_path / "d.csv", "id,text\nd1,one\nd3,three\n")
    between = judged_runs("qrels", qrels, runs, candidates=runs["a"], queries_file=queries, documents_file=documents,
                          rules=RowOptions(separator=","))  # fmt: skip
    assert between.texts("x") == (["first, second", "first, second"], ["one", "three"])
    scores, notes = pairs.of_run(runs["a"], "a")
    assert scores.tolist() == [2.0, NOT_RETURNED, 3.0, NOT_RETURNED]
    assert notes == [
        "a: 1 of the 2 judged queries are not in it; they count 0",
        "a: 1 of its queries are not judged and left out",
    ]
    assert pairs.spread(scores[pairs.candidates]).tolist() == scores.tolist()
    with pytest.raises(DataError, match=r"c and qrels share no query \(one has x, the other q1\)"):
        judged_runs("qrels", qrels, {"c": {"x": {"d1": 1.0}}})
    assert math.isinf(NOT_RETURNED)


def test_several_files_are_one(tmp_path: Path) -> None:
    first = write(tmp_path / "a", "query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    second = write(tmp_path / "b", "q1 0 d2 0\nq2 0 d1 x\nq1 0 d1 0\n")
    both = SeveralFiles([first, second])
    found = read_qrels(both, RowOptions(skip_bad_rows=True))
    assert found.qrels == {"q1": {"d2": 0}}  # d1 has two labels
    assert f"{second}, line 2: the label 'x'" in found.notes[0] and f"but 1 in line 2 of {first}" in found.notes[0]
    texts = SeveralFiles([write(tmp_path / name, f"id\ttext\nd{name}\t{name}\n") for name in "12"])
    assert read_texts(texts, ["d1", "d2"]) == {"d1": "1", "d2": "2"}
