"""BM25 of given pairs; `paddle_ranker.retrieval.words.WordSearcher` searches a collection by BM25."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.errors import DataError, refuse_text
from paddle_ranker.lexical.tokens import WordStatistics, tokenizer_named

K1, B = 1.2, 0.75  # Lucene's: saturation of repeated tokens, and weight of a title's length


class BM25:
    """Score pairs by Okapi BM25 (Robertson and Zaragoza 2009), a baseline that needs no labels.

    tokenizer: "jieba" for words, "bigram" for pairs of neighbouring characters, "stem" for stems of English words
    normalised: divide by the score of a title equal to the query, so that scores of different queries are comparable
    """

    def __init__(self, tokenizer: str = "jieba", normalised: bool = True) -> None:
        self.tokenize = tokenizer_named(tokenizer)
        self.normalised = normalised
        self.statistics = WordStatistics([])

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: Optional[Sequence[float]] = None) -> None:
        """Learn token rarity and mean title length from the distinct titles; queries and labels are ignored."""
        refuse_text(titles, "titles")
        self.statistics = WordStatistics(self.tokenize(title) for title in dict.fromkeys(titles))

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return one score per pair, `[pairs] float64`, at least 0; if normalised, a title equal to the query has 1.

        Raises `DataError` before `fit`, or after it without titles.
        """
        refuse_text(queries, "queries")
        refuse_text(titles, "titles")
        if not self.statistics.size:
            raise DataError("BM25 knows no titles: call fit with some before score")
        tokenize = lru_cache(maxsize=4096)(self.tokenize)  # a query comes with many titles
        scores = (self.score_tokens(tokenize(query), self.tokenize(title)) for query, title in zip(queries, titles))
        return np.fromiter(scores, np.float64, len(queries))

    def score_tokens(self, query: Sequence[str], title: Sequence[str]) -> float:
        """Return the score of one tokenized pair, normalised if `self.normalised`."""
        score = self._score(query, title)
        best = self._score(query, query) if self.normalised and score else 1.0
        return score / best

    def _score(self, query: Sequence[str], title: Sequence[str]) -> float:
        counts = Counter(title)
        norm = K1 * (1.0 - B + B * len(title) / self.statistics.average_length)
        return sum(
            self.statistics.rarity(token) * counts[token] * (K1 + 1.0) / (counts[token] + norm)
            for token in query
            if token in counts
        )
