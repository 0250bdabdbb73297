"""How to average the logits of rankers: by learned weights, drawn towards equal ones as far as the queries cannot tell.

A few dozen labelled queries do not tell weights apart: a logistic regression on them finds 1.15 and 0.07 where equal
weights are better on other queries. Here the differences of the weights have a penalty of their own. How strong it is,
the queries decide by cross-validation, where the stronger has a standard error's benefit of the doubt (Breiman et al.
1984, Classification and Regression Trees).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paddle_ranker.errors import DataError
from paddle_ranker.metrics.logistic import PENALTY, LinearModel, Rows, out_of_fold, regress, relevant_of
from paddle_ranker.metrics.ranking import RELEVANT, Floats, add_by_query, number_queries

EQUAL = float("inf")
PULLS = (PENALTY, 0.03, 0.1, 0.3, 1.0, 3.0, EQUAL)  # from next to none to equal weights


def fit_average(members: Floats, labels: Floats, pull: float) -> LinearModel:
    """Fit a logistic regression to the members' logits, `[n, k]`, whose weights are drawn towards equal ones.

    The logits, all divided by one deviation, are turned (Helmert) into their sum and k - 1 contrasts. The sum's weight
    has the penalty of `fit_logistic`, those of the contrasts have `pull`; with EQUAL all weights are the same. Raises
    `DataError` and `DependencyError` as `fit_logistic` does.
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
    """Return the strongest of `PULLS` whose loss on queries out of the fit is within a standard error of the least.

    The loss is the mean cross-entropy of a pair, the standard error that of its difference over queries. EQUAL where
    the queries are too few to be parted.
    """
    numbers = number_queries(queries)
    count = int(numbers.max()) + 1
    relevant = (labels >= RELEVANT).astype(np.float64)
    try:
        found = [_out_of_fold(members, labels, queries, folds, pull) for pull in PULLS]
    except DataError:
        return EQUAL
    losses = np.array([add_by_query(numbers, np.logaddexp(0.0, logits) - relevant * logits, count) for logits in found])
    differences = losses - losses[losses.sum(axis=1).argmin()]
    errors = differences.std(axis=1, ddof=1) / np.sqrt(count)
    return max(pull for pull, row, error in zip(PULLS, differences, errors) if row.mean() <= error)


def averages_out_of_fold(members: Floats, labels: Floats, queries: Sequence[str], folds: int) -> tuple[Floats, Floats]:
    """Return logits `[n]` of averages that never saw the query they score: with learned weights, and with equal ones.

    The pull is chosen anew for each fold, on the queries outside it. Raises `DataError` as `out_of_fold` does.
    """

    def learn(rows: Rows) -> LinearModel:
        own = [query for query, is_own in zip(queries, rows) if is_own]
        pull = choose_pull(members[rows], labels[rows], own, folds)
        return fit_average(members[rows], labels[rows], pull)

    learned = out_of_fold(members, labels, queries, folds, learn)
    return learned, _out_of_fold(members, labels, queries, folds, EQUAL)


def _out_of_fold(members: Floats, labels: Floats, queries: Sequence[str], folds: int, pull: float) -> Floats:
    def learn(rows: Rows) -> LinearModel:
        return fit_average(members[rows], labels[rows], pull)

    return out_of_fold(members, labels, queries, folds, learn)
