"""The benchmark of long texts: its data by hand, and the command on tiny papers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import long_texts
from benchmarks.long_texts import Paper, candidates_of, read_papers, split_papers, training_pairs
from paddle_ranker.errors import UsageError
from tests.tiny import draw_words

unit, slow = pytest.mark.unit, pytest.mark.slow


def write_papers(folder: Path, count: int = 60) -> Path:
    """Write papers of two categories whose second keyword stands at the abstract's end, where truncation loses it."""
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
def test_papers_are_split_and_each_is_among_others_of_its_category(tmp_path: Path) -> None:
    papers = read_papers(write_papers(tmp_path))
    assert len(papers) == 60 and papers[0].text == f"{papers[0].title}。{papers[0].abstract}"
    known, others = split_papers(papers, 40)
    assert (len(known), len(others)) == (40, 20)
    assert not {paper.query for paper in known} & {paper.query for paper in others}
    assert split_papers(papers, 40) == (known, others)
    with pytest.raises(UsageError, match="--train_papers 59: of 60 papers too few are left"):
        split_papers(papers, 59)

    pairs, titles = candidates_of(others, 5)
    by_text = {paper.text: paper for paper in others}
    by_query = {paper.query: paper for paper in others}
    assert [by_text[pair.title].title for pair in pairs] == titles
    assert all(by_text[pair.title].category == by_query[pair.query].category for pair in pairs)
    assert all((pair.label == 1) == (by_text[pair.title] is by_query[pair.query]) for pair in pairs)
    assert len(pairs) == len({(pair.query, pair.title) for pair in pairs}) == 100
    assert sum(pair.label for pair in pairs) == 20

    rows = training_pairs(known, 3, seed=1)
    assert len(rows) == 40 * 4 and sum(row.label for row in rows) == 40
    assert rows == training_pairs(known, 3, seed=1) != training_pairs(known, 3, seed=2)


@unit
def test_a_paper_is_no_negative_of_its_own_keywords() -> None:
    twins = [Paper("a b", "one", "x", "c"), Paper("a b", "two", "y", "c"), Paper("d", "three", "z", "c")]
    assert {(row.query, row.title) for row in training_pairs(twins, 5, 1) if not row.label} == {
        ("a b", "three"),
        ("d", "one"),
        ("d", "two"),
    }


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
    assert "100 of 100 pairs are too long" in first
    names = ["cut", "windows_max", "windows_mean_2", "windows_mean_3", "bm25_words", "bm25_bigrams"]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert [system["name"] for system in found["systems"]] == [*names, long_texts.TITLE_ONLY]
    assert (found["queries"], found["pairs"]) == (20, 100)
    by_name = {system["name"]: system["measures"]["ndcg@10"]["interval"]["estimate"] for system in found["systems"]}
    assert by_name["bm25_words"] >= by_name[long_texts.TITLE_ONLY] > 0.9  # keywords are in title and abstract
    assert long_texts.main([*arguments, *kept]) == 0
    second = capsys.readouterr().out
    assert "too long" not in second and second.splitlines()[-2:] == first.splitlines()[-2:]
