"""How to average the logits of two rankers: a logistic regression on labelled pairs, measured on unseen queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.errors import DataError, DependencyError
from paddle_ranker.metrics.ranking import RELEVANT, Floats, number_queries

SEED = 1000
Rows = NDArray[np.bool_]  # which of n rows
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
    inputs, relevant = np.asarray(inputs, np.float64), relevant_of(labels)
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    found, bias = regress((inputs - mean) / deviation, relevant, penalty)
    weights = found / deviation
    return LinearModel(weights, float(bias - weights @ mean))


def relevant_of(labels: Floats) -> Rows:
    """Return which labels are relevant, `[n] bool`; raises `DataError` where all are, or none is."""
    relevant: Rows = np.asarray(labels) >= RELEVANT
    if relevant.all() or not relevant.any():
        raise DataError(
            f"{int(relevant.sum()):,} of the {len(relevant):,} pairs to learn from are relevant (label >= 1): "
            "give both kinds"
        )
    return relevant


def regress(inputs: Floats, relevant: Rows, penalty: float) -> tuple[Floats, float]:
    """Return weights, `[k]`, and bias of a logistic regression on inputs `[n, k]` as they are; see `fit_logistic`."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise DependencyError("blending needs scikit-learn: pip install scikit-learn") from error
    model = LogisticRegression(C=1.0 / (penalty * len(inputs)), max_iter=1000)
    model.fit(inputs, relevant)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def out_of_fold(
    members: Floats,
    labels: Floats,
    queries: Sequence[str],
    folds: int,
    fit: Optional[Callable[[Rows], LinearModel]] = None,
) -> Floats:
    """Return the logits of blends that never saw the query they score, `[n]` float64.

    Args:
        members: `[n, k]`, each member's logits.
        labels: `[n]`.
        queries: `[n]` texts; a query's rows are all in one fold.
        folds: at most as many as there are queries.
        fit: from the rows to learn from, `[n] bool`, to a blend; None: `fit_logistic`.

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
        model = fit(~held_out) if fit else fit_logistic(members[~held_out], labels[~held_out])
        logits[held_out] = model.logits(members[held_out])
    return logits
