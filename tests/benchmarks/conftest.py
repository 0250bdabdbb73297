"""Tiny data in the form of the real data, for the tests of the quality benchmarks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from paddle_ranker.data.records import LabeledPair, Triple, write_records

WORDS = "深度学习神经网络语言文化差异农业水稻病害诊断老年人护理经济增长教育法律"


def graded_pairs(queries: int, seed: int) -> list[LabeledPair]:
    """Make pairs that word overlap solves: titles share two, one or no pair of characters with their query."""
    dice, pairs = random.Random(seed), []
    for number in range(queries):
        query = "".join(dice.sample(WORDS, 4)) + f"{number} rice"
        for label in (2, 1, 0, 0):
            pairs.append(LabeledPair(query, query[: 2 * label] + "".join(dice.sample(WORDS, 6)), float(label)))
    return pairs


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """Make a folder in the form of the real data, with 12 train and 6 dev queries; return it."""
    for name, pairs in (("train", graded_pairs(12, 1)), ("dev", graded_pairs(6, 2))):
        (tmp_path / "data" / "qbqtc").mkdir(parents=True, exist_ok=True)
        write_records(tmp_path / "data" / "qbqtc" / f"{name}.tsv", pairs)
    (tmp_path / "data" / "simclue").mkdir()
    triples = [Triple(p.query, p.title, n.title) for p, n in zip(graded_pairs(8, 3)[::4], graded_pairs(8, 3)[3::4])]
    write_records(tmp_path / "data" / "simclue" / "train_pairwise.tsv", triples)
    return tmp_path / "data"
