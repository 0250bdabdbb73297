"""Match levels against a search for n-grams written without tensors."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from paddle_ranker.model.match_levels import match_levels

pytestmark = pytest.mark.unit

SPECIALS = [0, 1, 2, 3, 4]  # pad, cls, sep, mask, unk


def levels_by_search(first: list[int], second: list[int]) -> tuple[list[int], list[int]]:
    """For each token, the longest n in 1..3 such that an n-gram around it stands in the other text."""

    def grams(text: list[int], n: int) -> set[tuple[int, ...]]:
        windows = {tuple(text[i : i + n]) for i in range(len(text) - n + 1)}
        return {w for w in windows if not any(token in SPECIALS for token in w)}

    def levels(text: list[int], other: list[int]) -> list[int]:
        best = [0] * len(text)
        for n in (1, 2, 3):
            shared = grams(other, n)
            for i in range(len(text) - n + 1):
                if tuple(text[i : i + n]) in shared:
                    for j in range(i, i + n):
                        best[j] = max(best[j], n)
        return best

    return levels(first, second), levels(second, first)


def build(first: list[int], second: list[int], length: int) -> tuple[list[int], list[int]]:
    ids = [1, *first, 2, *second, 2]
    types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    return ids + [0] * (length - len(ids)), types + [0] * (length - len(types))


def test_by_hand() -> None:
    ids, types = build([10, 11, 12, 4], [20, 10, 11, 12, 4, 11], 16)
    levels = match_levels(paddle.to_tensor([ids]), paddle.to_tensor([types]), SPECIALS).numpy()[0]
    #                      CLS 10 11 12 UNK SEP 20 10 11 12 UNK 11 SEP pad...
    assert levels.tolist() == [0, 3, 3, 3, 0, 0, 0, 3, 3, 3, 0, 1, 0, 0, 0, 0]


def test_random_pairs_equal_a_search_for_ngrams() -> None:
    random = np.random.RandomState(0)
    drawn = [[random.randint(3, 10, random.randint(1, 9)).tolist() for _ in range(2)] for _ in range(200)]
    rows, expected = [], []
    for first, second in ([[10], [10]], [[10, 10], [11, 11]], *drawn):  # 3 and 4 are special
        rows.append(build(first, second, 24))
        one, two = levels_by_search(first, second)
        expected.append(([0, *one, 0, *two, 0] + [0] * 24)[:24])
    ids, types = (paddle.to_tensor(np.array(column)) for column in zip(*rows))
    assert match_levels(ids, types, SPECIALS).numpy().tolist() == expected
