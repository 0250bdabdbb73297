"""Learn how to add several scores: a logistic regression on labelled pairs, measured on unseen queries.

The scores are logits of rankers that are averaged, or scores of searchers that are fused.

A few dozen labelled queries are too few to learn free weights: a logistic regression on them finds 1.15 and 0.07 where
equal weights are better on other queries. So the members' logits are standardised, no weight is negative, and
differences between the weights have a separate penalty, the pull towards equal weights. The weights stay equal unless a
test over queries establishes that a weaker pull is better on queries that it was not fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Callable, Optional

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import DataError, package_for
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.metrics.calibration_fitting import cross_entropies
from paddle_ranker.metrics.choosing import choose
from paddle_ranker.metrics.ranking import RELEVANT, add_by_query, number_queries, standardise, standardised

SEED = 1000
Rows = NDArray[np.bool_]  # a mask of rows, [n]
PENALTY = 0.01  # times half the squared weights of standardised inputs: added to the mean cross-entropy
EQUAL = float("inf")
PULLS = (EQUAL, 3.0, 1.0, 0.3, 0.1, 0.03, PENALTY)  # from equal weights to almost free weights


@dataclass(frozen=True)
class LinearModel:
    """Linear model, logit = inputs @ weights + bias; `weights` is `[k]` float64."""

    weights: Floats
    bias: float

    def logits(self, inputs: Floats) -> Floats:
        """Return the logits, `[n]` float64, of inputs `[n, k]`."""
        logits: Floats = np.asarray(inputs, np.float64) @ self.weights + self.bias
        return logits


def fit_logistic(inputs: Floats, labels: Floats, penalty: float = PENALTY) -> LinearModel:
    """Fit a logistic regression (relevant: label >= 1) to inputs `[n, k]`.

    The inputs are standardised for the fit only; the returned weights are for the unscaled inputs. The fit minimises
    the mean cross-entropy plus `penalty` times half the squared weights of the standardised inputs. Since it is the
    mean, the number of pairs does not change the effect of the penalty. Raises `DataError` if all pairs are relevant or
    none is, and `DependencyError` if scikit-learn is missing.
    """
    inputs, relevant = np.asarray(inputs, np.float64), relevant_of(labels)
    standard, mean, deviation = standardise(inputs, np.float32)
    scaled, bias = regress(standard, relevant, penalty)
    weights = scaled / deviation
    return LinearModel(weights, float(bias - weights @ mean))


def relevant_of(labels: ArrayLike) -> Rows:
    """Return whether each label is relevant (at least 1), `[n] bool`; raises `DataError` if all or none are."""
    relevant: Rows = np.asarray(labels) >= RELEVANT
    if relevant.all() or not relevant.any():
        raise DataError(
            f"{int(relevant.sum()):,} of the {len(relevant):,} pairs to learn from are relevant (label >= 1): "
            "give both kinds"
        )
    return relevant


def regress(inputs: Floats, relevant: Rows, penalty: float) -> tuple[Floats, float]:
    """Fit a logistic regression to unscaled inputs, `[n, k]`; return (weights, `[k]`, and bias).

    The fit minimises the mean cross-entropy plus `penalty` times half the squared weights.

    relevant: for each row of the inputs, whether its pair is relevant, `[n] bool`
    """
    with package_for("blending", "scikit-learn"):
        from sklearn.linear_model import LogisticRegression
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
    """Divide the queries into folds; return each pair's logit, `[n]` float64, by a model fitted to all other folds.

    The folds' models differ in scale. So measures that compare pairs of different folds, such as AUC, need
    `standardise`; losses of single pairs do not.

    members: `[n, k]`, the logits of the k rankers that are blended
    labels: `[n]`
    queries: `[n]` texts; all rows of a query are in one fold
    folds: number of folds; if there are fewer queries, each query is a fold
    fit: called with a mask of the rows to learn from, `[n] bool`; returns a model. None: `fit_logistic`
    standardise: whether the logits of each fold's model are `standardised` over all pairs

    Raises `DataError` if there is only one query, or if all labels outside a fold are of one class.
    """
    numbers = number_queries(queries)
    fold_of = folds_of(int(numbers.max()) + 1, folds)[numbers]
    logits = np.empty(len(members))
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        model = fit(~held_out) if fit else fit_logistic(members[~held_out], labels[~held_out])
        computed = model.logits(members)
        logits[held_out] = (standardised(computed) if standardise else computed)[held_out]
    return logits


def folds_of(count: int, folds: int) -> NDArray[np.int64]:
    """Divide `count` queries into folds at random; return the index of each query's fold, `[count]`.

    If there are fewer queries than folds, each query is a fold. Raises `DataError` if there is only one query.
    """
    if count < 2:
        raise DataError("one query only: weights need several, to be measured on those that they were not fitted on")
    return np.random.default_rng(SEED).permutation(count) % min(folds, count)


def fit_average(members: Floats, labels: Floats, pull: float) -> LinearModel:
    """Fit a logistic regression to the members' logits, `[n, k]`, with weights that are pulled towards equality.

    The fitted weights are at least 0 and belong to standardised logits. They minimise the mean cross-entropy, plus half
    of PENALTY times the squared weights, plus half of `pull - PENALTY` times the weights' squared deviations from their
    mean. If `pull` is EQUAL, all weights are equal. The returned weights are for logits that are not standardised.
    Raises `DataError` as `fit_logistic` does.
    """
    relevant = relevant_of(labels)
    from scipy.optimize import minimize

    count = members.shape[1]
    standard, mean, deviation = standardise(members, np.float32)
    turn = np.ones((count, 1)) if pull == EQUAL else np.eye(count)
    inputs = standard @ turn
    penalty = PENALTY * np.eye(count)
    if pull != EQUAL:
        penalty += (pull - PENALTY) * (np.eye(count) - 1.0 / count)
    penalty = turn.T @ penalty @ turn

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, logits = parameters[:-1], inputs @ parameters[:-1] + parameters[-1]
        wrong = sigmoid(logits) - relevant
        slope = np.append(inputs.T @ wrong / len(wrong) + penalty @ weights, wrong.mean())
        entropy = cross_entropies(relevant, logits).mean()
        return float(entropy + weights @ penalty @ weights / 2), slope

    size = turn.shape[1]
    start = np.append(np.full(size, 1.0 / count), 0.0)
    bounds = [(0.0, None)] * size + [(None, None)]
    options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000}
    parameters = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    weights = turn @ parameters[:-1] / deviation
    return LinearModel(weights, float(parameters[-1] - weights @ mean))


def equal_average(members: Floats) -> Floats:
    """Return the mean of the members' standardised logits, `[n] float64`."""
    mean: Floats = standardise(members, np.float32).values.mean(axis=1)
    return mean


def choose_pull(members: Floats, labels: Floats, queries: Sequence[str], folds: int) -> float:
    """Return the pull towards equal weights: EQUAL, unless weaker pulls are significantly better on held-out queries.

    `choose` compares the pulls; the loss is the cross-entropy summed over a query's pairs. If there are too few queries
    for folds, or there is only one member, the result is EQUAL.
    """
    if members.shape[1] == 1:
        return EQUAL
    numbers = number_queries(queries)
    count = int(numbers.max()) + 1
    try:
        of_pulls = [
            out_of_fold(members, labels, queries, folds, partial(_fit_rows, members, labels, pull)) for pull in PULLS
        ]
    except DataError:
        return EQUAL
    losses = np.array([add_by_query(numbers, cross_entropies(labels, logits), count) for logits in of_pulls])
    return PULLS[choose(losses, np.arange(len(PULLS), dtype=np.float64))]


def _fit_rows(members: Floats, labels: Floats, pull: float, rows: Rows) -> LinearModel:
    return fit_average(members[rows], labels[rows], pull)


def average_out_of_fold(members: Floats, labels: Floats, queries: Sequence[str], folds: int) -> tuple[Floats, Floats]:
    """Return (scores, logits) of pairs, `[n]` float64 each, by averages with weights from all other folds of queries.

    A fold's weights, and their pull towards equal weights, are learned from the queries outside the fold. The scores
    are the logits after those of each fold's model were `standardised` over all pairs, so the scale of a model does not
    matter. Raises `DataError` as `out_of_fold` does.
    """
    models: dict[bytes, LinearModel] = {}

    def learn(rows: Rows) -> LinearModel:
        key = rows.tobytes()
        if key not in models:
            kept = [query for query, is_own in zip(queries, rows) if is_own]
            pull = choose_pull(members[rows], labels[rows], kept, folds)
            models[key] = _fit_rows(members, labels, pull, rows)
        return models[key]

    scores = out_of_fold(members, labels, queries, folds, learn, standardise=True)
    return scores, out_of_fold(members, labels, queries, folds, learn)
