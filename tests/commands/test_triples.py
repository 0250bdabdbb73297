"""make-triples: which triples there are, that they are reproducible, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.commands.make_triples import hold_out, main, make_triples
from paddle_ranker.data.rows.records import LabeledPair, Triple, read_records, write_records
from tests.conftest import Call

pytestmark = pytest.mark.unit


def graded(query: str, **labels: float) -> list[LabeledPair]:
    return [LabeledPair(query, title, label) for title, label in labels.items()]


def write(path: Path, *groups: list[LabeledPair]) -> Path:
    write_records(path, [pair for group in groups for pair in group])
    return path


def test_every_higher_grade_meets_every_lower_one() -> None:
    triples = set(make_triples(graded("q", a=2, b=1, c=1, d=0), per_positive=9, seed=1))
    expected = [("a", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "d")]
    assert triples == {Triple("q", title, lower) for title, lower in expected}


def test_draws_are_limited_and_without_replacement() -> None:
    pairs = graded("q", best=1, **{f"t{number}": 0 for number in range(50)})
    triples = list(make_triples(pairs, per_positive=10, seed=1))
    assert len({triple.neg_title for triple in triples}) == len(triples) == 10
    assert triples == list(make_triples(pairs, per_positive=10, seed=1))
    assert triples != list(make_triples(pairs, per_positive=10, seed=2))


def test_repeated_titles_are_counted_once_and_never_meet_themselves() -> None:
    pairs = [*graded("q", a=1, b=0), *graded("q", a=1, b=0), LabeledPair("q", "a", 0)]
    assert list(make_triples(pairs, per_positive=9, seed=1)) == [Triple("q", "a", "b")]
    assert list(make_triples(graded("q", a=1, b=1), per_positive=4, seed=1)) == []  # of one grade


def test_the_command_counts_what_it_wrote(tmp_path: Path, call: Call) -> None:
    source = write(tmp_path / "in.tsv", graded("p", a=1, b=0), graded("q", a=1, b=1), graded("p", c=0))
    status, printed, _ = call(main, "--input_file", source, "--output_file", tmp_path / "out.tsv")
    assert status == 0 and "wrote 2 triples" in printed and "all of their titles have one label: 1" in printed
    triples = read_records(tmp_path / "out.tsv", Triple)
    assert set(triples) == {Triple("p", "a", "b"), Triple("p", "a", "c")}


def test_triples_of_a_query_depend_on_no_other(tmp_path: Path) -> None:
    one = graded("p", a=1, **{f"t{number}": 0 for number in range(30)})
    other = graded("q", a=1, **{f"t{number}": 0 for number in range(30)})
    found = []
    for name, groups in {"both": (one, other), "turned": (other, one), "alone": (one,)}.items():
        source = write(tmp_path / f"{name}.tsv", *groups)
        assert main(["--input_file", str(source), "--output_file", str(tmp_path / "out.tsv")]) == 0
        found.append([triple for triple in read_records(tmp_path / "out.tsv", Triple) if triple.query == "p"])
    assert found[0] == found[1] == found[2] and len(found[0]) == 4


def test_held_out_queries_are_whole_and_apart(tmp_path: Path, capsys: Any) -> None:
    groups = [graded(f"q{number}", a=1, b=0, c=0) for number in range(10)]
    source = write(tmp_path / "in.tsv", *groups)
    arguments = ["--input_file", str(source), "--output_file", str(tmp_path / "out.tsv"), "--dev_file"]
    assert main([*arguments, str(tmp_path / "dev.tsv"), "--dev_share", "0.3"]) == 0
    dev = read_records(tmp_path / "dev.tsv", LabeledPair)
    held_out = {pair.query for pair in dev}
    train = {triple.query for triple in read_records(tmp_path / "out.tsv", Triple)}
    assert len(held_out) == 3 and len(dev) == 9
    assert train == {f"q{number}" for number in range(10)} - held_out
    assert "dev.tsv (queries held out: 3)" in capsys.readouterr().out
    assert main([*arguments, str(tmp_path / "dev.tsv")]) == 0  # a tenth by default
    assert len(read_records(tmp_path / "dev.tsv", LabeledPair)) == 3


def test_the_split_follows_the_seed_and_not_the_order_of_queries() -> None:
    queries = [f"q{number}" for number in range(100)]
    assert hold_out(queries, 0.1, seed=1) == hold_out(queries[::-1], 0.1, seed=1)
    assert hold_out(queries, 0.1, seed=1) != hold_out(queries, 0.1, seed=2)
    assert len(hold_out(queries[:2], 0.01, seed=1)) == len(hold_out(queries[:2], 0.99, seed=1)) == 1


def test_bad_rows_are_skipped_on_request(tmp_path: Path, call: Call) -> None:
    source = tmp_path / "in.tsv"
    source.write_text("q\ta\t1\nq\tb\nq\tc\t0\n", encoding="utf-8")
    arguments = ["--input_file", source, "--output_file", tmp_path / "out.tsv"]
    status, _, errors = call(main, *arguments)
    assert status == 1 and "line 2: 2 columns, expected 3" in errors
    status, printed, _ = call(main, *arguments, "--skip_bad_rows")
    assert status == 0 and "kept 2; skipped 1 (line 2" in printed
    assert read_records(tmp_path / "out.tsv", Triple) == [Triple("q", "a", "c")]


def test_a_teacher_s_scores_go_into_the_triples_and_into_the_pairs_held_out(tmp_path: Path, capsys: Any) -> None:
    rows = [("p", "a", 1, 2.5), ("p", "b", 0, -1), ("p", "b", 0, 9), ("q", "a", 1, 0.5), ("q", "b", 0, 0.25)]
    source = write(tmp_path / "in.tsv", [LabeledPair(*row) for row in rows])
    out, dev = tmp_path / "out.tsv", tmp_path / "dev.tsv"
    assert main(["--input", str(source), "--output", str(out)]) == 0
    wanted = {"p": Triple("p", "a", "b", 2.5, -1), "q": Triple("q", "a", "b", 0.5, 0.25)}
    assert read_records(out, Triple) == list(wanted.values()) and not capsys.readouterr().err
    assert main(["--input", str(source), "--output", str(out), "--dev_file", str(dev), "--dev_share", "0.5"]) == 0
    (kept,) = read_records(out, Triple)
    held_out = read_records(dev, LabeledPair)
    assert kept == wanted[kept.query] and {pair.query for pair in held_out} == {"p", "q"} - {kept.query}
    assert held_out == [LabeledPair(*row) for row in rows if row[0] != kept.query]


def test_what_triples_cannot_hold_is_said(tmp_path: Path, capsys: Any) -> None:
    source, out, dev = tmp_path / "in.jsonl", tmp_path / "out.tsv", tmp_path / "dev.tsv"
    row = '{"query": "%s", "title": "%s", "label": %d, "position": 3%s}\n'
    rows = [row % (query, *more) for query in "pq" for more in (("a", 1, ', "teacher_score": 2'), ("b", 0, ""))]
    source.write_text("".join(rows), encoding="utf-8")
    assert main(["--input", str(source), "--output", str(out), "--dev_file", str(dev)]) == 0
    (triple,) = read_records(out, Triple)
    assert triple == Triple(triple.query, "a", "b")
    query = "p" if triple.query == "q" else "q"
    assert read_records(dev, LabeledPair) == [
        LabeledPair(query, "a", 1, position=3), LabeledPair(query, "b", 0, position=3)
    ]  # fmt: skip
    said = capsys.readouterr().err
    assert f"{out}: lacks teacher_score, position of {source}; triples hold a teacher's scores where every row" in said
