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
    pairs, titles = candidates_of(papers, 1, 3)
    labels = {(pair.query, title): pair.label for pair, title in zip(pairs, titles)}
    # For rice: both papers with this keyword, though one lacks the word, and BM25's best other paper.
    assert {title: label for (query, title), label in labels.items() if query == "rice"} == {
        "rice and corn": 1,
        "paddy": 1,
        "wheat": 0,
    }
    assert labels["zinc", "zinc"] == 1
    assert all(pair.title.startswith(f"{title}。") for pair, title in zip(pairs, titles))
    whole, _ = candidates_of(papers, 0, 3)
    assert {pair.query for pair in whole} == {"rice corn", "rice", "wheat", "oats", "zinc"}


@unit
def test_a_paper_is_no_negative_of_its_own_keywords() -> None:
    papers = [
        Paper(("a", "b"), "one", "x", "c"),
        Paper(("a", "b", "d"), "two", "y", "c"),
        Paper(("e",), "three", "z", "c"),
    ]
    rows = {(row.query, row.title): row.label for row in training_pairs(papers, 0, 5, 1)}
    assert rows == {
        ("a b", "one"): 1,
        ("a b", "three"): 0,
        ("a b d", "two"): 1,
        ("a b d", "one"): 0,
        ("a b d", "three"): 0,
        ("e", "three"): 1,
        ("e", "one"): 0,
        ("e", "two"): 0,
    }
    single = training_pairs(papers, 1, 5, 1)
    assert {len(row.query.split()) for row in single} == {1, 2, 3}
    assert single == training_pairs(papers, 1, 5, 1)
    assert any(training_pairs(papers, 1, 5, 1) != training_pairs(papers, 1, 5, seed) for seed in range(2, 9))


@slow
def test_the_command_prints_a_table_and_goes_on_from_kept_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_papers(tmp_path)
    small = ["--layers=1", "--hidden_size=16", "--heads=2", "--max_seq_length=24", "--window_overlap=4", "--epochs=1"]
    arguments = ["--data_dir", str(tmp_path), "--train_papers=40", "--candidates=5", "--vocab_size=200", *small]
    kept = ["--resamples=50", "--scores_dir", str(tmp_path / "kept"), "--json", str(tmp_path / "found.json")]
    assert long_texts.main([*arguments, *kept]) == 0
    first = capsys.readouterr().out
    assert re.search(r"(\d+) of \1 pairs are too long", first)
    assert "20 queries of 1 keyword(s)" in first
    names = ["cut", "windows_max", "windows_mean_2", "windows_mean_3", "bm25_words", "bm25_bigrams"]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [system["name"] for system in found["systems"]] == [*names, long_texts.TITLE_ONLY]
    assert found["queries"] == 20 < found["pairs"] <= 100
    by_name = {system["name"]: system["measures"]["ndcg@10"]["interval"]["estimate"] for system in found["systems"]}
    assert by_name["bm25_bigrams"] > 0.9 > by_name[long_texts.TITLE_ONLY]  # half the keywords occur only in abstracts
    assert long_texts.main([*arguments, *kept]) == 0
    second = capsys.readouterr().out
    assert "too long" not in second and second.splitlines()[-2:] == first.splitlines()[-2:]
