"""BM25: score given pairs, or find the best titles of a large collection with an inverted index."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.errors import DataError
from paddle_ranker.lexical.tokens import WordStatistics, rarity_of, tokenizer_named

if TYPE_CHECKING:
    from paddle_ranker.metrics.ranking import Floats, Integers

QUERIES_AT_ONCE = 32  # queries searched together: with 100,000 titles their scores take at most 40 MB


class BM25:
    """Score pairs by Okapi BM25 (Robertson and Zaragoza 2009), a baseline that needs no labels.

    tokenizer: "jieba" for words, "bigram" for pairs of neighbouring characters, "stem" for stems of English words
    normalised: divide by the score of a title equal to the query, so that scores of different queries are comparable
    k1, b: saturation of repeated tokens, and weight of the title's length; the defaults are Lucene's
    """

    def __init__(self, tokenizer: str = "jieba", normalised: bool = True, *, k1: float = 1.2, b: float = 0.75) -> None:
        self.tokenize = tokenizer_named(tokenizer)
        self.normalised = normalised
        self.k1, self.b = k1, b
        self.statistics = WordStatistics([])

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: Optional[Sequence[float]] = None) -> None:
        """Learn token rarity and mean title length from the distinct titles; queries and labels are ignored."""
        self.statistics = WordStatistics(self.tokenize(title) for title in dict.fromkeys(titles))

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return one score per pair, `[pairs] float64`, at least 0; if normalised, a title equal to the query has 1.

        Raises `DataError` before `fit`, or after it without titles.
        """
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
        norm = self.k1 * (1.0 - self.b + self.b * len(title) / self.statistics.average_length)
        return sum(
            self.statistics.rarity(token) * counts[token] * (self.k1 + 1.0) / (counts[token] + norm)
            for token in query
            if token in counts
        )


class BM25Index:
    """Find titles with the same formula, and the same scores, as `BM25(tokenizer, normalised=False)`.

    Entry (token, title) of a sparse matrix is the part of the title's score that the token contributes if the query
    has it. A search is a sparse product, whose cost is proportional to the number of titles with the query's tokens.

    titles: the collection, without duplicates (a duplicate would count twice in the tokens' rarity)
    tokenizer: "jieba" for words, "bigram" for pairs of neighbouring characters, "stem" for stems of English words
    """

    def __init__(self, titles: Iterable[str], tokenizer: str = "jieba", *, k1: float = 1.2, b: float = 0.75) -> None:
        from scipy.sparse import csr_matrix

        formula = BM25(tokenizer, normalised=False, k1=k1, b=b)
        self._tokenize = formula.tokenize
        self._numbers: dict[str, int] = {}
        # Compact arrays: a million titles are some 20 million entries.
        rows, columns, counts, lengths = array("i"), array("i"), array("i"), array("i")
        for number, text in enumerate(titles):
            tokens = self._tokenize(text)
            lengths.append(len(tokens))
            for word, count in Counter(tokens).items():
                rows.append(self._numbers.setdefault(word, len(self._numbers)))
                columns.append(number)
                counts.append(count)
        self.size = len(lengths)
        token, title = np.frombuffer(rows, np.intc), np.frombuffer(columns, np.intc)
        times = np.frombuffer(counts, np.intc).astype(np.float64)
        title_lengths = np.frombuffer(lengths, np.intc).astype(np.float64)
        average = title_lengths.sum() / self.size if title_lengths.any() else 1.0
        norm = k1 * (1.0 - b + b * title_lengths / average)
        titles_with = np.bincount(token, minlength=len(self._numbers))
        rarity = np.array([rarity_of(int(count), self.size) for count in titles_with])
        weights = rarity[token] * times * (k1 + 1.0) / (times + norm[title])
        self._weights: Any = csr_matrix((weights, (token, title)), shape=(len(self._numbers), self.size))

    def search(self, queries: Sequence[str], top: int) -> list[tuple[Integers, Floats]]:
        """Return, for each query, the numbers and scores of its best `top` titles, `[found]` each, best first.

        A title's number is its position in the collection, from 0. Titles that share no token with the query are not
        returned; titles with equal scores are in the collection's order.
        """
        found = []
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            scores = self._tokens_of(queries[start : start + QUERIES_AT_ONCE]) @ self._weights
            for row in range(scores.shape[0]):
                part = slice(scores.indptr[row], scores.indptr[row + 1])
                found.append(_best(scores.indices[part], scores.data[part], top))
        return found

    def _tokens_of(self, queries: Sequence[str]) -> Any:
        """Return how often each known token occurs in each query, as a sparse matrix `[queries, tokens]`."""
        from scipy.sparse import csr_matrix

        entries = [
            (row, self._numbers[token])
            for row, query in enumerate(queries)
            for token in self._tokenize(query)
            if token in self._numbers
        ]
        rows, columns = np.array(entries, np.int64).reshape(-1, 2).T
        # csr_matrix sums duplicate entries, so a token that a query has twice counts twice.
        return csr_matrix((np.ones(len(entries)), (rows, columns)), shape=(len(queries), len(self._numbers)))


def _best(titles: NDArray[Any], scores: Floats, top: int) -> tuple[Integers, Floats]:
    if len(titles) > top:
        least = np.partition(scores, len(scores) - top)[len(scores) - top]
        kept = scores >= least  # all that tie with the last one, so that the order of the collection decides
        titles, scores = titles[kept], scores[kept]
    order = np.lexsort((titles, -scores))[:top]
    return titles[order].astype(np.int64), scores[order]
