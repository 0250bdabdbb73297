"""Score given pairs by BM25; how rare tokens are is learned from a collection of titles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.errors import DataError
from paddle_ranker.lexical.tokens import Collection, tokenizer_named


class BM25:
    """Score pairs by Okapi BM25 (Robertson and Zaragoza 2009), a baseline that learns from no label.

    tokenizer: `jieba` words or character `bigram`s
    normalised: divide by the score of a title that is the query itself, so that scores of different queries compare
    k1, b: saturation of repeated tokens and weight of the title's length, by default Lucene's
    """

    def __init__(self, tokenizer: str = "jieba", normalised: bool = True, *, k1: float = 1.2, b: float = 0.75) -> None:
        self.tokenize = tokenizer_named(tokenizer)
        self.normalised = normalised
        self.k1, self.b = k1, b
        self.collection = Collection([])

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: Optional[Sequence[float]] = None) -> None:
        """Learn token rarity and mean length from the distinct titles; queries and labels are not looked at."""
        self.collection = Collection(self.tokenize(title) for title in dict.fromkeys(titles))

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return one score a pair, `[pairs] float64`, at least 0; where normalised, 1 is the query itself.

        Raises `DataError` before `fit`.
        """
        if not self.collection.size:
            raise DataError("BM25 knows no titles: call fit with some before score")
        tokenize = lru_cache(maxsize=4096)(self.tokenize)  # a query comes with many titles
        scores = (self.score_tokens(tokenize(query), self.tokenize(title)) for query, title in zip(queries, titles))
        return np.fromiter(scores, np.float64, len(queries))

    def score_tokens(self, query: Sequence[str], title: Sequence[str]) -> float:
        """Score one tokenized pair."""
        score = self._score(query, title)
        best = self._score(query, query) if self.normalised and score else 1.0
        return score / best

    def _score(self, query: Sequence[str], title: Sequence[str]) -> float:
        counts = Counter(title)
        norm = self.k1 * (1.0 - self.b + self.b * len(title) / self.collection.average_length)
        return sum(
            self.collection.rarity(token) * counts[token] * (self.k1 + 1.0) / (counts[token] + norm)
            for token in query
            if token in counts
        )
