"""24 features of how a query's words occur in a title, and a logistic regression on these features.

The regression is a baseline: a ranker that does not beat it has learned nothing useful.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.encoding.unicode.table import normalise
from paddle_ranker.errors import DependencyError
from paddle_ranker.lexical.bm25 import BM25, WordStatistics
from paddle_ranker.lexical.tokens import letters
from paddle_ranker.metrics.logistic import relevant_of
from paddle_ranker.metrics.ranking import standardised

FEATURES = (
    "bm25_words",
    "bm25_words_normalised",
    "bm25_bigrams",
    "bm25_bigrams_normalised",
    "coverage_words",  # share of the query's idf that the title holds
    "coverage_bigrams",
    "longest_run",  # longest shared run of characters over the query's length
    "whole_query",  # 1 if that run is the whole query
    "query_length",
    "title_length",
    "jaccard_words",
    "jaccard_bigrams",
    "first_match",  # place in the title of the first and the last shared bigram, 0 to 1; 1 without a match
    "last_match",
    "match_span",  # characters from the first to the last shared bigram over the query's length
    "rarest_missing_word",  # idf of the query's rarest token that the title lacks
    "rarest_missing_bigram",
    "title_matched",  # share of the title's idf that the query holds
    "numbers_missing",  # numbers and Latin words that only one text has
    "numbers_extra",
    "latin_missing",
    "latin_extra",
    "title_asks",  # 1 if the title has a question mark
    "title_breaks",  # 1 if the title has a colon or an ellipsis
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LATIN = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class _Text:
    """One text in all the forms from which features are computed."""

    words: list[str]
    bigrams: list[str]
    letters: str
    numbers: set[str]
    latin: set[str]
    plain: str


class LexicalFeatures:
    """Extractor of the features of pairs; it learns idf from a collection of titles."""

    def __init__(self) -> None:
        self._words = BM25("jieba", normalised=False)
        self._bigrams = BM25("bigram", normalised=False)

    def fit(self, titles: Sequence[str]) -> None:
        """Learn idf and mean length from the distinct titles."""
        self._words.fit([], titles)
        self._bigrams.fit([], titles)

    def transform(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return the features of the pairs, `[pairs, 24] float64`, in the order of `FEATURES`."""
        read = lru_cache(maxsize=4096)(self._read)  # a query has many titles
        rows = [self._pair(read(query), self._read(title)) for query, title in zip(queries, titles)]
        return np.array(rows, np.float64).reshape(len(rows), len(FEATURES))

    def _read(self, text: str) -> _Text:
        plain = normalise(text)
        return _Text(
            words=self._words.tokenize(plain),
            bigrams=self._bigrams.tokenize(plain),
            letters=letters(plain),
            numbers=set(_NUMBER.findall(plain)),
            latin=set(_LATIN.findall(plain)),
            plain=plain,
        )

    def _pair(self, query: _Text, title: _Text) -> list[float]:
        bm25_words = self._words.score_tokens(query.words, title.words)
        bm25_bigrams = self._bigrams.score_tokens(query.bigrams, title.bigrams)
        query_words, title_words = set(query.words), set(title.words)
        query_bigrams, title_bigrams = set(query.bigrams), set(title.bigrams)
        words, bigrams = self._words.statistics, self._bigrams.statistics
        run = longest_shared_run(query.letters, title.letters)
        length = max(len(query.letters), 1)
        matches = [place for place, bigram in enumerate(title.bigrams) if bigram in query_bigrams]
        first, last = (matches[0], matches[-1]) if matches else (len(title.bigrams), len(title.bigrams))
        places = max(len(title.bigrams), 1)
        return [
            bm25_words,
            bm25_words / (self._words.score_tokens(query.words, query.words) or 1.0),
            bm25_bigrams,
            bm25_bigrams / (self._bigrams.score_tokens(query.bigrams, query.bigrams) or 1.0),
            _share(query_words, title_words, words),
            _share(query_bigrams, title_bigrams, bigrams),
            run / length,
            float(run == len(query.letters)),
            np.log1p(len(query.letters)),
            np.log1p(len(title.letters)),
            _jaccard(query_words, title_words),
            _jaccard(query_bigrams, title_bigrams),
            first / places,
            last / places,
            min((last - first + 2) / length, 5.0) if matches else 0.0,
            max(map(words.idf, query_words - title_words), default=0.0),
            max(map(bigrams.idf, query_bigrams - title_bigrams), default=0.0),
            _share(title_words, query_words, words),
            len(query.numbers - title.numbers),
            len(title.numbers - query.numbers),
            len(query.latin - title.latin),
            len(title.latin - query.latin),
            float("?" in title.plain),
            float(":" in title.plain or "..." in title.plain),
        ]


def longest_shared_run(query: str, title: str) -> int:
    """Return the length in characters of the longest substring that both texts contain."""
    best = 0
    for start in range(len(query)):
        while start + best < len(query) and query[start : start + best + 1] in title:
            best += 1
    return best


def _share(tokens: set[str], others: set[str], statistics: WordStatistics) -> float:
    total = sum(map(statistics.idf, tokens))
    return sum(map(statistics.idf, tokens & others)) / total if total else 0.0


def _jaccard(first: set[str], second: set[str]) -> float:
    return len(first & second) / len(first | second) if first or second else 0.0


class LexicalLogistic:
    """Ranker: a logistic regression on the 24 standardised lexical features; pairs with a label >= 1 are relevant."""

    def __init__(self) -> None:
        self.features = LexicalFeatures()
        self._model = _standardised_logistic()

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: ArrayLike) -> None:
        """Learn idf from the titles, and the regression's weights from the labels.

        Raises `DataError` if all pairs are relevant or none is.
        """
        relevant = relevant_of(labels)
        self.features.fit(titles)
        self._model.fit(self.features.transform(queries, titles), relevant)

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return one logit per pair, `[pairs] float64`."""
        return np.asarray(self._model.decision_function(self.features.transform(queries, titles)), np.float64)

    def cross_fit(
        self, queries: Sequence[str], titles: Sequence[str], labels: ArrayLike, folds: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return each pair's score with weights learned from the labels of the other folds, `[pairs] float64`.

        Idf is learned from all titles, because it needs no labels. So that scores of different folds can be compared,
        each model scores all pairs, and `standardised` scales these scores.

        folds: the fold of each pair, `[pairs]`
        """
        labels = np.asarray(labels, np.float64)
        self.features.fit(titles)
        features = self.features.transform(queries, titles)
        scores = np.zeros(len(labels))
        for fold in np.unique(folds):
            held_out = folds == fold
            self._model.fit(features[~held_out], relevant_of(labels[~held_out]))
            scores[held_out] = standardised(self._model.decision_function(features))[held_out]
        return scores


def _standardised_logistic() -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise DependencyError("logistic baselines need scikit-learn: pip install scikit-learn") from error
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
