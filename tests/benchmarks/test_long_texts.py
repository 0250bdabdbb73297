"""The benchmark of long texts: its data by hand, and the command on tiny papers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import long_texts
from benchmarks.long_texts import Paper, candidates_of, read_papers, split_papers, training_pairs
from paddle_ranker.errors import UsageError
from tests.tiny import draw_words

unit, slow = pytest.mark.unit, pytest.mark.slow


def write_papers(folder: Path, count: int = 60) -> Path:
    """Write papers of two categories; the second keyword is at the abstract's end, where truncation drops it."""
    random, words = draw_words(2 * count)
    path = folder / "csl" / "papers.jsonl"
    path.parent.mkdir()
    lines = []
    for number in range(count):
        keywords = [f"{words[2 * number]}{number}", f"{words[2 * number + 1]}x{number}"]
        filler = "".join(random.choice(words) for _ in range(20))
        paper = {"title": f"论{keywords[0]}", "abstract": filler + keywords[1], "keywords": keywords}
        lines.append(json.dumps({**paper, "category": "工学" if number % 2 else "文学"}, ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@unit
def test_papers_are_split_the_same_way_every_time(tmp_path: Path) -> None:
    papers = read_papers(write_papers(tmp_path))
    assert len(papers) == 60 and papers[0].text == f"{papers[0].title}。{papers[0].abstract}"
    known, others = split_papers(papers, 40)
    assert sorted(paper.title for paper in [*known, *others]) == sorted(paper.title for paper in papers)
    assert split_papers(papers, 40) == (known, others)
    with pytest.raises(UsageError, match="--train_papers 59: too few of 60 papers are left"):
        split_papers(papers, 59)


@unit
def test_candidates_are_the_relevant_papers_and_what_bm25_finds() -> None:
    papers = [
        Paper(("rice", "corn"), "rice and corn", "about corn", "a"),
        Paper(("rice",), "paddy", "no such word", "a"),
        Paper(("wheat",), "wheat", "rice rice rice", "b"),
        Paper(("oats",), "oats", "price of barley", "b"),
        Paper(("zinc",), "zinc", "metal", "b"),
    ]
    labels = {(pair.query, pair.title.split("。")[0]): pair.label for pair in candidates_of(papers, 3)}
    # For rice: both papers with this keyword, though one lacks the word, and BM25's best other paper.
    assert {title: label for (query, title), label in labels.items() if query == "rice"} == {
        "rice and corn": 1,
        "paddy": 1,
        "wheat": 0,
    }
    assert labels["zinc", "zinc"] == 1


@unit
def test_a_paper_is_no_negative_of_its_own_keywords() -> None:
    papers = [
        Paper(("a", "b"), "one", "x", "c"),
        Paper(("a", "b", "d"), "two", "y", "c"),
        Paper(("e",), "three", "z", "c"),
    ]
    rows = {(row.query, row.title): row.label for row in training_pairs(papers, 5, 1)}
    whole = {("a b", "one"): 1, ("a b", "three"): 0, ("a b d", "two"): 1, ("a b d", "one"): 0, ("a b d", "three"): 0}
    assert whole.items() <= rows.items()
    assert {len(query.split()) for query, _ in rows} == {1, 2, 3}
    # A drawn keyword that both papers have makes neither a negative of the other.
    assert all(label for (query, title), label in rows.items() if query in "ab" and title != "three")
    assert training_pairs(papers, 5, 1) == training_pairs(papers, 5, 1)
    assert any(training_pairs(papers, 5, 1) != training_pairs(papers, 5, seed) for seed in range(2, 9))


@pytest.mark.thorough
@slow
def test_the_command_prints_a_table_and_goes_on_from_kept_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_papers(tmp_path)
    small = [
        "--train_papers=40",
        "--candidates=5",
        "--max_seq_length=40",
        "--epochs=1",
        "--resamples=50",
        "--uncut=200",
    ]
    arguments = ["--data_dir", str(tmp_path), *small, "--scores_dir", str(tmp_path / "kept")]
    assert long_texts.main(arguments) == 0
    first = capsys.readouterr().out
    assert re.search(r"(\d+) of \1 pairs are too long", first) and re.search(r" 0 of \d+ pairs are too long", first)
    assert "20 queries of a keyword" in first
    names = ["cut", "windows_max", "windows_mean_2", "passage", "uncut", "bm25_words", "bm25_bigrams"]
    rows = {cells[1].strip(): float(cells[2].split()[0]) for line in first.splitlines()
            if len(cells := line.split("|")) > 3 and "[" in cells[2]}  # fmt: skip
    assert list(rows) == names
    assert rows["bm25_bigrams"] > 0.9
    assert long_texts.main(arguments) == 0
    second = capsys.readouterr().out
    assert "too long" not in second and second.splitlines()[-2:] == first.splitlines()[-2:]
