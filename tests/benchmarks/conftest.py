"""Tiny data in the form of the real data, and printed tables, for the tests of the quality benchmarks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from paddle_ranker.data.rows.records import LabeledPair, write_records
from tests.checkout import ONCE

WORDS = "深度学习神经网络语言文化差异农业水稻病害诊断老年人护理经济增长教育法律"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measure on one stack: that the code runs on both is for the other tests to show."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(ONCE)


def graded_pairs(queries: int, seed: int) -> list[LabeledPair]:
    """Make pairs that word overlap solves: titles share two, one or no pair of characters with their query."""
    dice, pairs = random.Random(seed), []
    for number in range(queries):
        query = "".join(dice.sample(WORDS, 4)) + f"{number} rice"
        for label in (2, 1, 0, 0):
            pairs.append(LabeledPair(query, query[: 2 * label] + "".join(dice.sample(WORDS, 6)), float(label)))
    return pairs


def table_rows(printed: str) -> dict[str, list[str]]:
    """Return the cells of a printed table by the first cell of their row, without the header."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in cells[2:]}


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """Make a folder in the form of the real data, with 12 train and 6 dev queries; return it."""
    for name, pairs in (("train", graded_pairs(12, 1)), ("dev", graded_pairs(6, 2))):
        (tmp_path / "data" / "qbqtc").mkdir(parents=True, exist_ok=True)
        write_records(tmp_path / "data" / "qbqtc" / f"{name}.tsv", pairs)
    (tmp_path / "data" / "vocab").mkdir()
    words = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *dict.fromkeys(WORDS), *"0123456789", "rice"]
    (tmp_path / "data" / "vocab" / "ernie-3.0-vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return tmp_path / "data"
