"""Logistic regressions on lexical features: what a ranker must beat to have learned anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.errors import DataError, DependencyError
from paddle_ranker.lexical.features import LexicalFeatures
from paddle_ranker.lexical.tokens import normalise
from paddle_ranker.metrics.ranking import RELEVANT

HASH_BITS = 20


class LexicalLogistic:
    """Rank by a logistic regression on the 24 lexical features, standardised; relevant is label >= 1."""

    def __init__(self, *, strength: float = 1.0) -> None:
        self.features = LexicalFeatures()
        self._model = _logistic(strength, standardise=True)

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: ArrayLike) -> None:
        """Learn token rarity from the titles and 24 weights from the labels."""
        relevant = _relevant(labels)
        self.features.fit(titles)
        self._model.fit(self.features.transform(queries, titles), relevant)

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return one logit a pair: `[pairs] float64`."""
        return np.asarray(self._model.decision_function(self.features.transform(queries, titles)), np.float64)

    def cross_fit(
        self, queries: Sequence[str], titles: Sequence[str], labels: ArrayLike, folds: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return each pair's logit by the weights that the other folds' labels teach: `[pairs] float64`.

        Token rarity is that of all titles, which takes no label. `folds` is `[pairs]`, from 0.
        """
        labels = np.asarray(labels, np.float64)
        self.features.fit(titles)
        features = self.features.transform(queries, titles)
        logits = np.zeros(len(labels))
        for fold in np.unique(folds):
            held_out = folds == fold
            self._model.fit(features[~held_out], _relevant(labels[~held_out]))
            logits[held_out] = self._model.decision_function(features[held_out])
        return logits


class NgramLogistic:
    """Rank by a logistic regression on hashed character n-grams: those of the query, of the title, and shared ones.

    It can learn which words go with relevance, and that sharing n-grams does, but no synonym that it has not seen.
    """

    def __init__(self, *, longest: int = 3, strength: float = 1.0) -> None:
        try:
            from sklearn.feature_extraction.text import HashingVectorizer
        except ImportError as error:
            raise _needs_sklearn() from error
        self.longest = longest
        self._vectors = HashingVectorizer(
            analyzer=self._analyse, n_features=1 << HASH_BITS, alternate_sign=False, binary=True, norm="l2"
        )
        self._model = _logistic(strength, standardise=False)

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: ArrayLike) -> None:
        """Learn one weight an n-gram and place."""
        self._model.fit(self._vectors.transform(zip(queries, titles)), _relevant(labels))

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


def _logistic(strength: float, standardise: bool) -> Any:
    """Make the model; `strength` is scikit-learn's C, the inverse of the penalty."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise _needs_sklearn() from error
    if standardise:
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    # On sparse n-grams liblinear takes a third of the default solver's time.
    return LogisticRegression(C=strength, solver="liblinear", max_iter=1000, random_state=0)


def _needs_sklearn() -> DependencyError:
    return DependencyError("logistic baselines need scikit-learn: pip install scikit-learn")


def _relevant(labels: ArrayLike) -> NDArray[np.bool_]:
    relevant = np.asarray(labels, np.float64) >= RELEVANT
    if relevant.all() or not relevant.any():
        which = "all" if len(relevant) and relevant.all() else "none"
        raise DataError(f"{which} of the {len(relevant):,} pairs to learn from are relevant (label >= 1): give both")
    return relevant
