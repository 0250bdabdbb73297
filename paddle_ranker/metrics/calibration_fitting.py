"""Fit a calibration to labels, and judge it on queries that it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Optional

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.array_types import Floats, Integers
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.calibration import METHODS, Calibration, sigmoid
from paddle_ranker.metrics.intervals import Interval, Statistic, bootstrap_interval, ratio_of
from paddle_ranker.metrics.ranking import RELEVANT, add_by_query, number_queries

BINS = 15  # as in Guo et al. 2017


def fit(method: str, labels: Floats, logits: Floats) -> Calibration:
    """Fit a calibration by maximum likelihood to labels and logits of pairs, `[n]` each (relevant: label >= 1).

    Newton's method minimises the mean binary cross-entropy, which is convex. Raises `DataError` if the minimum is not
    at a finite scale above 0. This happens if all pairs are of one class, or if the logits are all equal, separate the
    classes without a mistake, or order the classes the wrong way round.
    """
    from scipy.optimize import minimize

    relevant = np.asarray(labels) >= RELEVANT
    _require_solution(method, relevant, logits)
    centre, unit = (logits.mean(), logits.std()) if method == "platt" else (0.0, np.sqrt((logits**2).mean()))
    columns = [(logits - centre) / unit, np.ones(len(logits))][: 2 if method == "platt" else 1]
    design = np.stack(columns, axis=1)  # values around 1, so that Newton's steps are well conditioned

    def loss(weights: Floats) -> tuple[float, Floats]:
        z = design @ weights
        return float(cross_entropies(relevant, z).mean()), design.T @ (sigmoid(z) - relevant) / len(z)

    def curvature(weights: Floats) -> Floats:
        p = sigmoid(design @ weights)
        return (design * (p * (1 - p))[:, None]).T @ design / len(p)

    start = np.zeros(design.shape[1])
    fitted = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-10}).x
    scale = float(fitted[0] / unit)
    if scale <= 0:
        raise DataError(_wrong_way(method))
    return Calibration(method, scale, float(fitted[1] - scale * centre) if method == "platt" else 0.0)


def _require_solution(method: str, relevant: NDArray[np.bool_], logits: Floats) -> None:
    """Raise `DataError` if the classes or logits show that the likelihood has no maximum at a finite scale above 0."""
    if relevant.all() or not relevant.any():
        raise DataError(f"one class only, {int(relevant.sum()):,} of {len(relevant):,} pairs are relevant: give both")
    positive, negative = logits[relevant], logits[~relevant]
    if method == "platt":
        alike = logits.min() == logits.max()
        apart, wrong = positive.min() >= negative.max(), positive.max() <= negative.min()
    else:
        alike = not logits.any()
        apart = positive.min() >= 0 >= negative.max()
        wrong = positive.max() <= 0 <= negative.min()
    if alike:
        raise DataError("the ranker scores all pairs alike: there is nothing to calibrate")
    if apart:
        raise DataError(
            "the ranker tells relevant pairs from others without a mistake, so the likelihood grows with the scale and "
            "has no maximum: calibrate on more, or harder, pairs"
        )
    if wrong:
        raise DataError(_wrong_way(method))


def _wrong_way(method: str) -> str:
    if method == "platt":
        return (
            "the ranker orders these pairs the wrong way round: relevant ones score lower (the fitted slope is not "
            "above 0); check the labels, or take another ranker"
        )
    return (
        "no temperature above 0 fits: most logits are on the wrong side of 0, as they may be after a training that "
        "compares titles; use --method platt, which shifts them too"
    )


def fit_out_of_fold(method: str, queries: Sequence[str], labels: Floats, logits: Floats, folds: int) -> Floats:
    """Divide the queries into folds; calibrate the logits of each fold by a fit to all other folds, `[n]` float64.

    Raises `DataError` if there are fewer queries than folds, and as `fit` does.
    """
    from sklearn.model_selection import GroupKFold

    if len(set(queries)) < folds:
        raise DataError(f"{len(set(queries))} queries are too few for {folds} folds")
    calibrated = np.empty(len(logits))
    for number, (learn, judge) in enumerate(GroupKFold(folds).split(logits, groups=list(queries)), 1):
        try:
            calibrated[judge] = fit(method, labels[learn], logits[learn]).apply(logits[judge])
        except DataError as error:
            raise DataError(f"without fold {number} of {folds}: {error}") from error
    return calibrated


@dataclass(frozen=True)
class JudgedCalibration:
    """A fitted calibration and its effect on the pairs of the fit.

    calibration: the calibration fitted to all pairs
    measures: `calibration_measures` by kind of logits: `as_trained` (not calibrated), `fitted` (by `calibration`) and
        `out_of_fold` (by `fit_out_of_fold`). If the other method can be fitted, its name is a key, too, for its logits
        out of fold
    change: cross-entropy of `out_of_fold` minus cross-entropy of `as_trained`, with its interval over queries
    error: calibration error of `out_of_fold`, with its interval over queries. It may be too low for new queries, if
        they have another share of relevant pairs
    better: the other method's name if its cross-entropy out of fold is significantly lower, else None
    """

    calibration: Calibration
    measures: dict[str, dict[str, float]]
    change: Interval
    error: Interval
    better: Optional[str]


def fit_and_judge(method: str, queries: Sequence[str], labels: Floats, logits: Floats, folds: int) -> JudgedCalibration:
    """Fit a calibration to labels and logits of pairs, `[n]` each, and measure it on these pairs, also out of fold.

    Raises `DataError` as `fit` and `fit_out_of_fold` do.
    """
    other = next(name for name in METHODS if name != method)
    fitted = fit(method, labels, logits)
    rows = {
        "as_trained": logits,
        "fitted": fitted.apply(logits),
        "out_of_fold": fit_out_of_fold(method, queries, labels, logits, folds),
    }
    with suppress(DataError):  # Only the requested method must fit.
        rows[other] = fit_out_of_fold(other, queries, labels, logits, folds)
    numbers = number_queries(queries)
    count = int(numbers.max()) + 1
    pairs = add_by_query(numbers, np.ones(len(logits)), count)

    def change(first: str, second: str) -> Interval:
        gaps = cross_entropies(labels, rows[second]) - cross_entropies(labels, rows[first])
        return bootstrap_interval(ratio_of(add_by_query(numbers, gaps, count), pairs), count)

    better = other if other in rows and change("out_of_fold", other).high < 0 else None
    measures = {name: calibration_measures(labels, row) for name, row in rows.items()}
    relevant, probabilities = np.asarray(labels) >= RELEVANT, sigmoid(rows["out_of_fold"])
    error = bootstrap_interval(calibration_error_of(numbers, relevant, probabilities), count)
    return JudgedCalibration(fitted, measures, change("as_trained", "out_of_fold"), error, better)


def figures_of(judged: JudgedCalibration, folds: int) -> dict[str, object]:
    """Return the JSON-ready `Calibration.figures` of a fit: its `measures`, the interval of `error`, and `folds`."""
    kept = {name: judged.measures[name] for name in ("as_trained", "fitted", "out_of_fold")}
    return {**kept, "error_interval": [judged.error.low, judged.error.high], "folds": folds}


def calibration_measures(labels: Floats, logits: Floats) -> dict[str, float]:
    """Return the measures `calibration_error`, `brier` and `cross_entropy` of logits, by these names.

    labels, logits: `[n]` each

    A pair is relevant if its label is at least 1. The Brier score is the mean of (probability - relevant)^2.
    """
    relevant = np.asarray(labels) >= RELEVANT
    probabilities = sigmoid(logits)
    return {
        "calibration_error": expected_calibration_error(relevant, probabilities),
        "brier": float(((probabilities - relevant) ** 2).mean()),
        "cross_entropy": float(cross_entropies(labels, logits).mean()),
    }


def cross_entropies(labels: ArrayLike, logits: Floats) -> Floats:
    """Return the binary cross-entropy of each pair, log(1 + exp(l)) - y l with y = label >= 1, `[n]` float64."""
    relevant = np.asarray(labels) >= RELEVANT
    return np.logaddexp(0.0, logits) - np.where(relevant, logits, 0.0)


def expected_calibration_error(relevant: NDArray[np.bool_], probabilities: Floats, bins: int = BINS) -> float:
    """Return the mean, over bins, of the difference between mean probability and share of relevant pairs.

    The bins ((m - 1) / bins, m / bins] have equal width, the first also includes 0, and a bin's weight is its number of
    pairs. This is equation 3 of Guo et al. 2017, applied to the probability of relevance instead of the confidence in
    the likelier class. On few pairs the result is above 0 even if the probabilities are right.
    """
    error_of = calibration_error_of(np.zeros(len(relevant), np.int64), relevant, probabilities, bins)
    return float(error_of(np.ones((1, 1)))[0])


def calibration_error_of(
    numbers: Integers, relevant: NDArray[np.bool_], probabilities: Floats, bins: int = BINS
) -> Statistic:
    """Return `expected_calibration_error` as a statistic in which a pair counts as often as its query was drawn.

    numbers: index of each pair's query, from 0, `[n]`
    relevant, probabilities: whether each pair is relevant, and the probability that it is, `[n]` each
    """
    count = int(numbers.max()) + 1
    bin_of_pair = np.clip(np.ceil(probabilities * bins).astype(np.int64) - 1, 0, bins - 1)
    cells = numbers * bins + bin_of_pair
    gaps = np.bincount(cells, weights=probabilities - relevant, minlength=count * bins).reshape(count, bins)
    pairs = np.bincount(numbers, minlength=count)
    return lambda drawn: np.abs(drawn @ gaps).sum(axis=1) / (drawn @ pairs)
