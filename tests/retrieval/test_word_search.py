"""Search by words leaves out what cannot be among the best: it finds what counting every document does."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Optional

import numpy as np
import pytest

from paddle_ranker.array_types import Booleans
from paddle_ranker.lexical.bm25 import K1, B
from paddle_ranker.lexical.postings import Postings
from paddle_ranker.retrieval.words.word_search import WordPart, WordSearcher

pytestmark = pytest.mark.parity
SIZES = (2000, 37, 900)  # documents of each part


def made_texts(random: np.random.Generator) -> list[list[str]]:
    """Return documents of words that are as unevenly frequent as those of a language, many of them alike."""
    frequent = 1.0 / np.arange(1, 301)
    drawn = random.choice(300, (sum(SIZES), 12), p=frequent / frequent.sum())
    drawn[::3, :5] = drawn[0, :5]  # a phrase that a third of them shares
    texts = [[f"w{number}" for number in row[: random.integers(3, 13)]] for row in drawn.tolist()]
    texts[7::20] = [texts[7]] * len(texts[7::20])  # of equal scores
    texts[4::9] = [[*text, "pair", "pair", "mate"] for text in texts[4::9]]  # the same documents have both
    return [[*text, "twin"] if "w0" in text else text for text in texts]


def counted(texts: Sequence[list[str]], query: list[str], live: Booleans) -> dict[int, float]:
    """Return the scores of all documents that share a word with the query, with Lucene's formula, by hand."""
    there = [Counter(text) for text, is_live in zip(texts, live) if is_live]
    average = sum(sum(words.values()) for words in there) / len(there)
    scores: dict[int, float] = {}
    for word, times in Counter(query).items():
        count = sum(word in words for words in there)
        rarity = math.log(1 + (len(there) - count + 0.5) / (count + 0.5))
        for number in np.flatnonzero(live).tolist():
            found, length = texts[number].count(word), len(texts[number])
            if found:
                saturated = found * (K1 + 1) / (found + K1 * (1 - B + B * length / average))
                scores[number] = scores.get(number, 0.0) + times * rarity * saturated
    return scores


@pytest.mark.parametrize("removed", [False, True])
def test_the_best_are_those_of_counting_every_document(removed: bool) -> None:
    random = np.random.default_rng(3)
    texts = made_texts(random)
    live = random.random(len(texts)) < 0.7 if removed else np.ones(len(texts), bool)
    parts, first = [], 0
    for size in SIZES:
        own = slice(first, first + size)
        mask: Optional[Booleans] = live[own] if removed else None
        parts.append(WordPart(Postings.of((" ".join(text) for text in texts[own]), str.split), mask, first))
        first += size
    searcher = WordSearcher(parts, str.split)
    for query in (
        texts[0],
        texts[1],
        texts[5][:2],
        ["w250", "w0", "w1", "w2", "w3"],
        ["w0"],
        ["none"],
        [*texts[9], "w0"],
        ["pair", "mate"],
        ["mate", "twin", "w3", "pair", "w0"],
        ["w200", "twin", "w0", "pair", "mate"],
        *texts[12:21:3],
    ):
        wanted = counted(texts, query, live)
        for k in (1, 7, 60):
            numbers, scores = searcher.search(" ".join(query), k)
            best = sorted(wanted, key=lambda number: (-round(wanted[number], 9), number))[:k]
            assert scores == pytest.approx([wanted[number] for number in best])
            assert [round(wanted[number], 9) for number in numbers.tolist()] == [round(wanted[n], 9) for n in best]
            assert numbers.tolist() == best


def test_texts_in_memory_are_found_by_hand() -> None:
    words = WordSearcher.of_texts(["稻田", "稻田 水", "大豆", "田 大豆"], "bigram")
    (titles, scores), (none, _) = words.search("稻田", 9), words.search("玉米", 9)
    # Only 稻田 is shared: it stands once in two of four titles; the shorter title is ahead.
    idf = np.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
    lengths = np.array([1, 2])  # bigrams: 稻田 | 稻田 田水 | 大豆 | 田大 大豆
    expected = idf * 2.2 / (1 + 1.2 * (0.25 + 0.75 * lengths / 1.5))
    assert list(titles) == [0, 1] and not len(none)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_ties_stand_in_the_collections_order_also_at_the_cut_and_no_token_is_never_found() -> None:
    words = WordSearcher.of_texts(["甲乙丙", "甲乙丁", "甲乙戊", "甲乙己", "庚辛", "!!!"], "bigram")
    (titles, scores), (none, _) = words.search("甲乙", 2), words.search("!!!", 2)
    assert list(titles) == [0, 1] and scores[0] == scores[1] and not len(none)


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.0), (1.2, 1.0), (0.0, 1.0), (0.0, 0.0)])
def test_fields_without_a_word_add_nothing_at_the_ends_of_what_bm25_takes(k1: float, b: float) -> None:
    texts, titles = ["a b", "a", "c", ""], ["", "a", "", "c"]
    with np.errstate(all="raise"):
        postings = Postings.of_fields([texts, titles], [str.split, str.split])
        searcher = WordSearcher([WordPart(postings, None, 0)], str.split, k1, b, (1.0, 2.0))
        numbers, scores = searcher.search("a", 9)
    idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
    frequencies = [1 / (1 - b + b * 2 / 2), (1 + 2) / (1 - b + b * 3 / 2)]  # of weighted lengths 2, 3, 1 and 2
    wanted = [idf * one * (k1 + 1) / (one + k1) for one in frequencies]
    assert dict(zip(numbers.tolist(), scores.tolist())) == pytest.approx(dict(enumerate(wanted)))
