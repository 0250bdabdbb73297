"""Learn how to average the logits of rankers: a logistic regression on labelled pairs, measured on unseen queries.

A few dozen labelled queries are too few to learn free weights: a logistic regression on them finds 1.15 and 0.07 where
equal weights are better on other queries. So differences between the weights have a separate penalty, the pull towards
equal weights. Cross-validation over queries chooses the strongest pull whose loss is within one standard error
of the lowest (Breiman et al. 1984, Classification and Regression Trees).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.errors import DataError, DependencyError
from paddle_ranker.metrics.ranking import RELEVANT, Floats, add_by_query, number_queries, standardised

SEED = 1000
Rows = NDArray[np.bool_]  # a mask of rows, [n]
PENALTY = 0.01  # factor of half the squared weight of a standardised input, added to the mean cross-entropy
EQUAL = float("inf")
PULLS = (PENALTY, 0.03, 0.1, 0.3, 1.0, 3.0, EQUAL)  # from almost free weights to equal weights


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
    """Fit a logistic regression (relevant: label >= 1) to inputs `[n, k]`.

    The inputs are standardised during the fit; the returned weights are for inputs that are not. Minimises the mean
    cross-entropy plus half the penalty times the squared weights of the standardised inputs, so that the penalty does
    not weaken with more pairs. Raises `DataError` if all pairs are relevant or none is, `DependencyError` without
    scikit-learn.
    """
    inputs, relevant = np.asarray(inputs, np.float64), relevant_of(labels)
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    found, bias = regress((inputs - mean) / deviation, relevant, penalty)
    weights = found / deviation
    return LinearModel(weights, float(bias - weights @ mean))


def relevant_of(labels: ArrayLike) -> Rows:
    """Return a mask of the relevant labels (at least 1), `[n] bool`; raises `DataError` if all or none are relevant."""
    relevant: Rows = np.asarray(labels) >= RELEVANT
    if relevant.all() or not relevant.any():
        raise DataError(
            f"{int(relevant.sum()):,} of the {len(relevant):,} pairs to learn from are relevant (label >= 1): "
            "give both kinds"
        )
    return relevant


def regress(inputs: Floats, relevant: Rows, penalty: float) -> tuple[Floats, float]:
    """Return weights, `[k]`, and bias of a logistic regression on inputs `[n, k]`, which are not standardised."""
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
    *,
    standardise: bool = False,
) -> Floats:
    """Return each pair's blended logit, `[n]` float64, from a model fitted to the other folds of queries.

    These logits are for losses. Measures that compare pairs of different folds, as AUC does, need `standardise`.

    Args:
        members: `[n, k]`, the logits of the k rankers that are blended.
        labels: `[n]`.
        queries: `[n]` texts; all rows of a query are in one fold.
        folds: number of folds; if there are fewer queries, one fold per query.
        fit: a function from the mask of rows to learn from, `[n] bool`, to a model; None: `fit_logistic`.
        standardise: whether each model's logits are `standardised` over all pairs.

    Raises `DataError` for a single query, and if the queries outside a fold have titles of one class only.
    """
    numbers = number_queries(queries)
    fold_of = folds_of(int(numbers.max()) + 1, folds)[numbers]
    logits = np.empty(len(members))
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        model = fit(~held_out) if fit else fit_logistic(members[~held_out], labels[~held_out])
        found = model.logits(members)
        logits[held_out] = (standardised(found) if standardise else found)[held_out]
    return logits


def folds_of(count: int, folds: int) -> NDArray[np.int64]:
    """Return the fold of each of `count` queries, drawn; raises `DataError` for a single query."""
    if count < 2:
        raise DataError("one query only: weights need several, to be measured on those that they were not fitted on")
    return np.random.default_rng(SEED).permutation(count) % min(folds, count)


def fit_average(members: Floats, labels: Floats, pull: float) -> LinearModel:
    """Fit a logistic regression to the members' logits, `[n, k]`, with weights that are pulled towards equality.

    The logits are centred, divided by their mean standard deviation, and transformed by a Helmert matrix into a sum
    and k - 1 contrasts. The sum's weight has the penalty of `fit_logistic`, the contrasts' weights have the penalty
    `pull`; with EQUAL all weights are the same. Raises `DataError` and `DependencyError` as `fit_logistic` does.
    """
    relevant = relevant_of(labels)
    from scipy.linalg import helmert

    mean, deviation = members.mean(axis=0), max(float(members.std(axis=0).mean()), 1e-6)
    turn = helmert(members.shape[1], full=True)
    scale = np.append(1.0, np.full(members.shape[1] - 1, np.sqrt(PENALTY / pull)))  # the same as a penalty of `pull`
    turned, bias = regress((members - mean) / deviation @ turn.T * scale, relevant, PENALTY)
    weights = (turned * scale) @ turn / deviation
    return LinearModel(weights, float(bias - weights @ mean))


def choose_pull(members: Floats, labels: Floats, queries: Sequence[str], folds: int) -> float:
    """Return the strongest of `PULLS` whose loss on held-out queries is `about_least`.

    The loss is the cross-entropy summed over a query's pairs. Returns EQUAL if the queries are too few to be divided
    into folds.
    """
    numbers = number_queries(queries)
    count = int(numbers.max()) + 1
    relevant = (labels >= RELEVANT).astype(np.float64)
    try:
        found = [_out_of_fold(members, labels, queries, folds, pull) for pull in PULLS]
    except DataError:
        return EQUAL
    losses = np.array([add_by_query(numbers, np.logaddexp(0.0, logits) - relevant * logits, count) for logits in found])
    return max(pull for pull, is_good in zip(PULLS, about_least(losses)) if is_good)


def about_least(losses: Floats) -> Rows:
    """Return a mask of the rows of `losses` that are within one standard error of the least mean loss, `[n] bool`.

    `losses` are `[n, queries]`; the standard error is that of the difference from the least, over queries. With a
    single query, all rows count.
    """
    count = losses.shape[1]
    if count < 2:
        return np.ones(len(losses), bool)
    differences = losses - losses[losses.sum(axis=1).argmin()]
    found: Rows = differences.mean(axis=1) <= differences.std(axis=1, ddof=1) / np.sqrt(count)
    return found


def average_out_of_fold(members: Floats, labels: Floats, queries: Sequence[str], folds: int) -> Floats:
    """Return each pair's score by an average whose weights were fitted to the other folds, `[n]` float64.

    Each fold gets its pull towards equal weights from the queries outside the fold. Each fold's model is `standardised`
    over all pairs: models that order all pairs alike give all pairs the same scores. Raises `DataError` as
    `out_of_fold` does.
    """

    def learn(rows: Rows) -> LinearModel:
        kept = [query for query, is_own in zip(queries, rows) if is_own]
        pull = choose_pull(members[rows], labels[rows], kept, folds)
        return fit_average(members[rows], labels[rows], pull)

    return out_of_fold(members, labels, queries, folds, learn, standardise=True)


def _out_of_fold(members: Floats, labels: Floats, queries: Sequence[str], folds: int, pull: float) -> Floats:
    def learn(rows: Rows) -> LinearModel:
        return fit_average(members[rows], labels[rows], pull)

    return out_of_fold(members, labels, queries, folds, learn)
