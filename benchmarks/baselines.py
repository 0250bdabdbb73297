"""What the lexical baselines of the benchmarks have in common, and one that is a baseline only: n-grams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from paddle_ranker.lexical.tokens import normalise
from paddle_ranker.metrics.logistic import relevant_of

HASH_BITS = 20


class Baseline(Protocol):
    """Something that learns from graded pairs and scores pairs, each by itself."""

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: Sequence[float]) -> None:
        """Learn from pairs, one label each."""

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return one score a pair, `[pairs] float64`; higher is more relevant."""


class NgramLogistic:
    """Rank by a logistic regression on hashed character n-grams: those of the query, of the title, and shared ones.

    It can learn which words go with relevance, and that sharing n-grams does, but no synonym that it has not seen.
    """

    def __init__(self, *, longest: int = 3, strength: float = 1.0) -> None:
        self.longest = longest
        self._vectors = HashingVectorizer(
            analyzer=self._analyse, n_features=1 << HASH_BITS, alternate_sign=False, binary=True, norm="l2"
        )
        self._model = LogisticRegression(
            # On sparse n-grams liblinear takes a third of the default solver's time.
            C=strength,
            solver="liblinear",
            max_iter=1000,
            random_state=0,
        )

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: ArrayLike) -> None:
        """Learn one weight an n-gram and place."""
        self._model.fit(self._vectors.transform(zip(queries, titles)), relevant_of(labels))

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return one logit a pair: `[pairs] float64`."""
        return np.asarray(self._model.decision_function(self._vectors.transform(zip(queries, titles))), np.float64)

    def _analyse(self, pair: tuple[str, str]) -> Iterator[str]:
        query, title = (self._ngrams(normalise(text)) for text in pair)
        for place, ngrams in (("q", query), ("t", title), ("b", query & title)):
            yield from (place + ngram for ngram in ngrams)

    def _ngrams(self, text: str) -> set[str]:
        lengths = range(1, self.longest + 1)
        return {text[start : start + length] for length in lengths for start in range(len(text) - length + 1)}
