"""The inverted index: the scores and the order of BM25 pair by pair."""

from __future__ import annotations

import random

import numpy as np
import pytest

from paddle_ranker.lexical import BM25
from paddle_ranker.lexical.index import QUERIES_AT_ONCE, BM25Index

pytestmark = pytest.mark.unit


def test_the_best_titles_by_hand() -> None:
    index = BM25Index(["稻田", "稻田 水", "大豆", "田 大豆"], "bigram")
    (titles, scores), (none, _) = index.search(["稻田", "玉米"], top=9)
    # Only 稻田 is shared: it stands once in two of four titles; the shorter title is ahead.
    idf = np.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
    lengths = np.array([1, 2])  # bigrams: 稻田 | 稻田 田水 | 大豆 | 田大 大豆
    expected = idf * 2.2 / (1 + 1.2 * (0.25 + 0.75 * lengths / 1.5))
    assert list(titles) == [0, 1] and not len(none)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


@pytest.mark.parametrize("tokenizer", ["bigram", "jieba"])
def test_equal_to_bm25_of_every_pair(tokenizer: str) -> None:
    dice = random.Random(1)
    texts = list(
        dict.fromkeys("".join(dice.choices("水稻病害诊断研究abc 12", k=dice.randint(1, 12))) for _ in range(250))
    )
    titles, queries = texts[:100], texts[100:]
    assert len(queries) > 2 * QUERIES_AT_ONCE
    pairwise = BM25(tokenizer, normalised=False)
    pairwise.fit([], titles)
    for query, (found, scores) in zip(queries, BM25Index(titles, tokenizer).search(queries, top=7)):
        every = pairwise.score([query] * len(titles), titles)
        np.testing.assert_allclose(scores, every[found], rtol=1e-12)
        # Rounded, since the two add up in different orders; ties stand in the collection's order.
        order = np.lexsort((np.arange(len(titles)), -every.round(9)))
        assert list(found) == [number for number in order if every[number] > 0][:7]


def test_ties_stand_in_the_collections_order_also_at_the_cut_and_no_token_is_never_found() -> None:
    index = BM25Index(["甲乙丙", "甲乙丁", "甲乙戊", "甲乙己", "庚辛", "!!!"], "bigram")
    (titles, scores), (none, _) = index.search(["甲乙", "!!!"], top=2)
    assert list(titles) == [0, 1] and scores[0] == scores[1] and not len(none)
