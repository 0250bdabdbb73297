"""How to average the logits of two rankers: a logistic regression on labelled pairs, measured on unseen queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paddle_ranker.errors import DataError, DependencyError
from paddle_ranker.metrics.ranking import RELEVANT, Floats, number_queries

SEED = 1000
PENALTY = 0.01  # of a squared weight of a standardised feature, against the mean cross-entropy of a pair


@dataclass(frozen=True)
class LinearModel:
    """logit = inputs @ weights + bias; `weights` is `[k]` float64."""

    weights: Floats
    bias: float

    def logits(self, inputs: Floats) -> Floats:
        """Return the logits, `[n]` float64, of inputs `[n, k]`."""
        logits: Floats = np.asarray(inputs, np.float64) @ self.weights + self.bias
        return logits


def fit_logistic(inputs: Floats, labels: Floats, penalty: float = PENALTY) -> LinearModel:
    """Fit a logistic regression (relevant: label >= 1) to inputs `[n, k]`, standardised in the fit and not after it.

    Minimises the mean cross-entropy plus half the penalty times the squared weights of the standardised inputs: so
    what it finds does not depend on how many pairs there are. Raises `DataError` where all pairs are relevant or none
    is, `DependencyError` without scikit-learn.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise DependencyError("blending needs scikit-learn: pip install scikit-learn") from error
    inputs, relevant = np.asarray(inputs, np.float64), np.asarray(labels) >= RELEVANT
    if relevant.all() or not relevant.any():
        raise DataError(
            f"{int(relevant.sum()):,} of the {len(relevant):,} pairs to learn from are relevant (label >= 1): "
            "give both kinds"
        )
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    model = LogisticRegression(C=1.0 / (penalty * len(inputs)), max_iter=1000)
    model.fit((inputs - mean) / deviation, relevant)
    weights = model.coef_[0].astype(np.float64) / deviation
    return LinearModel(weights, float(model.intercept_[0] - weights @ mean))


def out_of_fold(members: Floats, labels: Floats, queries: Sequence[str], folds: int) -> Floats:
    """Return the logits of blends that never saw the query they score, `[n]` float64.

    Args:
        members: `[n, k]`, each member's logits.
        labels: `[n]`.
        queries: `[n]` texts; a query's rows are all in one fold.
        folds: at most as many as there are queries.

    Raises `DataError` for a single query, and where the queries outside a fold have titles of one kind only.
    """
    numbers = number_queries(queries)
    count = int(numbers.max()) + 1
    if count < 2:
        raise DataError("one query only: weights need several, to be measured on those that they were not fitted on")
    fold_of = np.random.default_rng(SEED).permutation(count)[numbers] % min(folds, count)
    logits = np.empty(len(members))
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        logits[held_out] = fit_logistic(members[~held_out], labels[~held_out]).logits(members[held_out])
    return logits
