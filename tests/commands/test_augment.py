"""augment: which queries are made, and that every row of a query is repeated with them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from paddle_ranker.commands.augment import WAYS, AugmentOptions, changed_query, joined, main, words_of
from paddle_ranker.data.rows.records import LabeledPair, Triple, read_records, write_records
from tests.conftest import Call

pytestmark = pytest.mark.unit

TEXTS = [
    "deep learning, for search engines", "用python写代码，多快？", "привет, мир", "검색 엔진 a", "ラーメン屋 東京",
    "ab", "(a) b", "2020年 report v2.0",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_words_joined_are_the_text(text: str) -> None:
    assert joined(words_of(text)) == text


# Worked out by hand: a word of the text, its place, what is drawn ("x" or "新", the last place), and the result.
CASES = [
    ("insert", "deep learning", 1, "x", "deep x learning"),
    ("insert", "深度 learning", 1, "x", "深度x learning"),
    ("insert", "用python写", 0, "x", "x用python写"),
    ("substitute", "用python写", 0, "x", "x python写"),
    ("substitute", "deep learning, a", 1, "新", "deep 新, a"),
    ("delete", "ab写cd", 1, "x", "ab cd"),
    ("delete", "deep learning", 0, "x", "learning"),
    ("swap", "deep learning, a", 0, "x", "a learning, deep"),
    ("swap", "用python写", 0, "x", "写python用"),
]


@pytest.mark.parametrize(("way", "text", "place", "drawn", "wanted"), CASES)
def test_each_way_changes_what_it_says(way: str, text: str, place: int, drawn: str, wanted: str) -> None:
    class Last(random.Random):
        def choice(self, seq: object) -> object:  # type: ignore[override]
            return seq[-1]  # type: ignore[index]

    assert joined(WAYS[way](words_of(text), place, Last(), [drawn])) == wanted


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_number_of_changes_is_the_formula_s(rate: float) -> None:
    query = " ".join(f"w{number}" for number in range(10))
    for copy in range(8):
        options = AugmentOptions(input_file="a", output_file="b", ways="substitute", rate=rate)
        changed = changed_query(query, options, copy, ["x"]).split()
        assert len(changed) == 10 and 1 <= changed.count("x") <= max(1, int(rate * 10))
        deleted = AugmentOptions(input_file="a", output_file="b", ways="delete", rate=rate)
        assert len(changed_query(query, deleted, copy, ["x"]).split()) == 10 - max(1, int(rate * 10))


def test_all_rows_of_a_query_are_repeated_and_depend_on_no_other(tmp_path: Path, call: Call) -> None:
    rows = [LabeledPair(f"深度学习 {name}", f"{name}{label}", label) for name in "abc" for label in (2, 0)]
    rows.append(LabeledPair("单", "a", 1))
    found = []
    for name, given in {"all": rows, "turned": rows[::-1]}.items():
        write_records(tmp_path / f"{name}.tsv", given)
        line = ["--input", tmp_path / f"{name}.tsv", "--output", tmp_path / "out.tsv", "--ways", "delete,swap"]
        status, printed, errors = call(main, *line, "--copies", 2)
        assert status == 0, errors
        assert "left out: " in printed  # a query of one word has no other order, and nothing is left without it
        made = read_records(tmp_path / "out.tsv", LabeledPair)
        assert made[: len(rows)] == given
        of_query: dict[str, list[tuple[str, float]]] = {}
        for row in made:
            of_query.setdefault(row.query, []).append((row.title, row.label))
        assert len(of_query) > 4 + 3  # more than one copy of each
        wanted: list[list[tuple[str, float]]] = [[(f"{name}0", 0), (f"{name}2", 2)] for name in "abc"]
        assert all(sorted(pairs) in [*wanted, [("a", 1)]] for pairs in of_query.values())
        found.append({(row.query, row.title, row.label) for row in made})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--ways", "insert,insert"], "name some of insert, substitute, delete, swap"),
        (["--ways", "turn"], "name some of"),
        (["--output", "in.tsv"], "must be different files"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, given: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path / "in.tsv", [Triple("a b", "c", "d")])
    output = [] if "--output" in given else ["--output", "out.tsv"]
    status, _, errors = call(main, "--input", "in.tsv", *output, *given)
    assert status == 2 and message in errors
