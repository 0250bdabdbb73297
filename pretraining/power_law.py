"""Power laws of a loss in parameters, tokens and compute, fitted robustly, with bootstrap intervals.

    L(N, D) = E + A / N^alpha + B / D^beta

is the law of Hoffmann et al. (2022, arXiv:2203.15556, approach 3), fitted as in that paper: Huber's loss of the
differences of logarithms, from several starting points. L(C) = K / C^gamma is a line through the logarithms of the runs
that no cheaper run beats, as in Kaplan et al. (2020, arXiv:2001.08361).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Callable, Optional

import numpy as np
from numpy.typing import ArrayLike

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.intervals import Interval

DELTA = 1e-3  # as in Hoffmann et al.: differences beyond a thousandth count linearly
# Minima of N and D each, and of runs: beyond the five constants, one run is left to estimate the error.
FEWEST_LEVELS, FEWEST_RUNS = 3, 6
_SMALLEST_FLOOR, _LARGEST_EXPONENT, _LARGEST_SCALE = 1e-4, 4.0, 30.0
_EDGE = 1e-2
_LARGEST_ERROR = 2.0
_MOST_DRAWS = 20  # attempts per draw that can be fitted


@dataclass(frozen=True)
class LossLaw:
    """The law L(N, D) = floor + a / N^alpha + b / D^beta.

    undetermined: the constants (E, alpha, beta) that the runs do not determine: the fit left them at a bound of its
        search, beyond which values may fit as well or better. E is also undetermined if other floors fit nearly as
        well, so that its standard error is a factor above `_LARGEST_ERROR`
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    undetermined: tuple[str, ...] = ()

    def loss(self, parameters: ArrayLike, tokens: ArrayLike) -> Floats:
        """Return the loss for `parameters` and `tokens`, whose shapes must broadcast."""
        n, d = np.asarray(parameters, np.float64), np.asarray(tokens, np.float64)
        losses: Floats = self.floor + self.a * n**-self.alpha + self.b * d**-self.beta
        return losses

    @property
    def best_parameters_exponent(self) -> float:
        """Return the exponent x of N ~ C^x, the best size for a compute C ~ N D (Hoffmann et al., equation 4)."""
        both = self.alpha + self.beta
        return self.beta / both if both else float("nan")


@dataclass(frozen=True)
class ComputeLaw:
    """The law L(C) = scale / C^gamma; `frontier`, `[runs]` bool, marks the runs of the fit."""

    scale: float
    gamma: float
    frontier: np.ndarray

    def loss(self, compute: ArrayLike) -> Floats:
        """Return the loss for `compute`, of any shape."""
        losses: Floats = self.scale * np.asarray(compute, np.float64) ** -self.gamma
        return losses


@dataclass(frozen=True)
class Forecast:
    """Intervals of a law's constants, by name, and of the predicted loss of a run."""

    constants: dict[str, Interval]
    loss: Interval


def fit_loss_law(parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike, *, delta: float = DELTA) -> LossLaw:
    """Fit L(N, D) to runs, each argument `[runs]`.

    Raises `DataError` for fewer than 6 runs, or fewer than 3 sizes or token counts, which do not determine the
    constants, and for values that are not positive numbers.
    """
    n, d, loss = _checked(parameters, tokens, losses)
    _require_spread(n, d)
    return _fit(n, d, loss, delta, near=None)


def fit_compute_law(compute: ArrayLike, losses: ArrayLike) -> Optional[ComputeLaw]:
    """Fit L(C) to the lower envelope of runs, each argument `[runs]`; None if fewer than 3 runs are on it."""
    from scipy.optimize import least_squares

    c, loss = _checked(compute, losses)
    frontier = envelope(c, loss)
    if frontier.sum() < FEWEST_LEVELS:
        return None
    x, y = np.log(c[frontier]), np.log(loss[frontier])
    middle = x.mean()
    slope, height = np.polyfit(x - middle, y, 1)
    fitted = least_squares(
        lambda p: p[0] + p[1] * (x - middle) - y, [height, slope], loss="huber", f_scale=DELTA, x_scale="jac"
    )
    height, slope = fitted.x
    return ComputeLaw(float(np.exp(height - slope * middle)), float(-slope), frontier)


def gamma_interval(
    law: ComputeLaw, compute: ArrayLike, losses: ArrayLike, *, resamples: int = 200, seed: int = 1000
) -> Optional[Interval]:
    """Return the 95% bootstrap percentile interval of gamma; None if too few draws of the runs can be fitted."""
    c, loss = _checked(compute, losses)
    generator = np.random.default_rng(seed)
    draws = [generator.integers(len(c), size=len(c)) for _ in range(resamples)]
    fits = [fit_compute_law(c[drawn], loss[drawn]) for drawn in draws]
    gammas = [fit.gamma for fit in fits if fit]
    return _interval(law.gamma, np.array(gammas)) if len(gammas) > resamples / 2 else None


def envelope(compute: ArrayLike, losses: ArrayLike) -> np.ndarray:
    """Return the lower envelope, `[runs]` bool: the runs with a lower loss than every run that costs no more."""
    c, loss = np.asarray(compute, np.float64), np.asarray(losses, np.float64)
    order = np.lexsort((loss, c))
    lowest_before = np.minimum.accumulate(np.concatenate([[np.inf], loss[order]]))[:-1]
    kept = np.empty(len(c), bool)
    kept[order] = loss[order] < lowest_before
    return kept


def forecast(
    law: LossLaw,
    parameters: ArrayLike,
    tokens: ArrayLike,
    losses: ArrayLike,
    *,
    at: tuple[float, float],
    resamples: int = 200,
    seed: int = 1000,
) -> Forecast:
    """Return 95% bootstrap percentile intervals (Efron 1979) of a law fitted to runs, drawing runs with replacement.

    The interval of the loss is for a single further run: a residual of the fit, enlarged for the five fitted constants,
    is added to each draw's prediction.

    Args:
        law: the fit to all runs.
        parameters, tokens, losses: the runs, `[runs]` each.
        at: the parameters and tokens of the run whose loss is predicted.
    """
    n, d, loss = _checked(parameters, tokens, losses)
    _require_spread(n, d)
    generator = np.random.default_rng(seed)
    laws = [_fit(n[drawn], d[drawn], loss[drawn], DELTA, near=law) for drawn in _draws(n, d, resamples, generator)]
    residuals = (np.log(loss) - np.log(law.loss(n, d))) * np.sqrt(len(n) / (len(n) - 5))
    noise = np.exp(generator.choice(residuals, len(laws)))
    readings: dict[str, Callable[[LossLaw], float]] = {
        "E": lambda law: law.floor,
        "A": lambda law: law.a,
        "alpha": lambda law: law.alpha,
        "B": lambda law: law.b,
        "beta": lambda law: law.beta,
        "best_parameters_exponent": lambda law: law.best_parameters_exponent,
    }
    constants = {
        name: _interval(read(law), np.array([read(fitted) for fitted in laws])) for name, read in readings.items()
    }
    predicted = np.array([float(fitted.loss(*at)) for fitted in laws]) * noise
    return Forecast(constants, _interval(float(law.loss(*at)), predicted))


def _interval(estimate: float, draws: np.ndarray) -> Interval:
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(estimate, float(low), float(high))


def _draws(n: Floats, d: Floats, resamples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield indices of runs drawn with replacement; skip draws with too few sizes or token counts to fit."""
    yielded = 0
    for _ in range(_MOST_DRAWS * resamples):
        drawn = generator.integers(len(n), size=len(n))
        if _has_spread(n[drawn], d[drawn], len(np.unique(drawn))):
            yield drawn
            yielded += 1
            if yielded == resamples:
                return
    raise DataError(f"{len(n)} runs are too few for intervals: hardly any draw can be fitted; add runs or seeds")


def _checked(*columns: ArrayLike) -> list[Floats]:
    arrays = [np.asarray(column, np.float64) for column in columns]
    if any(array.shape != arrays[0].shape or array.ndim != 1 for array in arrays):
        raise DataError(f"each needs one value per run; got {', '.join(str(a.shape) for a in arrays)}")
    for array in arrays:
        wrong = array[~(np.isfinite(array) & (array > 0))]
        if len(wrong):
            raise DataError(
                f"a run has the value {wrong[0]}: a power law needs finite positive numbers; leave the run out"
            )
    return arrays


def _has_spread(n: Floats, d: Floats, runs: int) -> bool:
    return runs >= FEWEST_RUNS and min(len(np.unique(n)), len(np.unique(d))) >= FEWEST_LEVELS


def _require_spread(n: Floats, d: Floats) -> None:
    if not _has_spread(n, d, len(n)):
        raise DataError(
            f"too few runs to fit: {len(n)} of {len(np.unique(n))} sizes and {len(np.unique(d))} token counts; five "
            f"constants need at least {FEWEST_RUNS} runs, {FEWEST_LEVELS} sizes and {FEWEST_LEVELS} token counts"
        )


def _standard_error(slopes: Floats, residuals: Floats) -> Floats:
    """Return the standard errors of fitted values, `[values]`.

    slopes: derivative of each residual by each value, `[runs, values]`
    residuals: `[runs]`
    """
    runs, values = slopes.shape
    _, sizes, directions = np.linalg.svd(slopes, full_matrices=False)
    spread = np.square(residuals).sum() / (runs - values)
    errors: Floats = np.sqrt(spread * np.square(directions / np.maximum(sizes, 1e-12)[:, None]).sum(axis=0))
    return errors


def _fit(n: Floats, d: Floats, loss: Floats, delta: float, near: Optional[LossLaw]) -> LossLaw:
    """Return the best fit over the starting points: a grid, or only the law `near`."""
    from scipy.optimize import least_squares

    # Centre the logarithms: otherwise the scale and exponent of a term are nearly collinear, and no fit converges.
    n_middle, d_middle = np.log(n).mean(), np.log(d).mean()
    x, y, target = np.log(n) - n_middle, np.log(d) - d_middle, np.log(loss)

    def terms(p: Floats) -> Floats:
        return np.stack([np.full_like(x, p[0]), p[1] - p[2] * x, p[3] - p[4] * y])

    def residuals(p: Floats) -> Floats:
        differences: Floats = np.logaddexp.reduce(terms(p)) - target
        return differences

    def slopes(p: Floats) -> Floats:
        parts = terms(p)
        shares = np.exp(parts - np.logaddexp.reduce(parts))
        return np.stack([shares[0], shares[1], -x * shares[1], shares[2], -y * shares[2]], axis=1)

    lowest = float(target.min())
    low = np.array([np.log(_SMALLEST_FLOOR) + lowest, lowest - _LARGEST_SCALE, 0.0, lowest - _LARGEST_SCALE, 0.0])
    high = np.array([lowest, lowest + _LARGEST_SCALE, _LARGEST_EXPONENT, lowest + _LARGEST_SCALE, _LARGEST_EXPONENT])
    if near is None:
        starts = [
            [lowest + np.log(share), lowest + np.log(a), alpha, lowest + np.log(b), beta]
            for share, a, b, alpha, beta in product((0.1, 0.7), (0.05, 0.3), (0.05, 0.3), (0.1, 0.6), (0.1, 0.6))
        ]
    else:
        with np.errstate(divide="ignore"):
            a, b = np.log(near.a) - near.alpha * n_middle, np.log(near.b) - near.beta * d_middle
        starts = [[np.log(near.floor), a, near.alpha, b, near.beta], [lowest - 0.4, lowest - 2, 0.3, lowest - 2, 0.3]]
    fits = []
    for start in starts:
        inside = np.clip(start, low + 1e-6, high - 1e-6)
        # Least squares come first: far from the optimum, Huber's loss is nearly flat in all but a few runs.
        rough = least_squares(residuals, inside, slopes, bounds=(low, high), max_nfev=60)
        fits.append((rough.cost, rough.x))
    fits.sort(key=lambda fit: fit[0])
    refined = [
        least_squares(residuals, np.clip(rough, low + 1e-9, high - 1e-9), slopes, bounds=(low, high), loss="huber",
                      f_scale=delta, xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=500)
        for _, rough in fits[:4]
    ]  # fmt: skip
    best = min(refined, key=lambda fit: fit.cost).x
    e, a, alpha, b, beta = best
    edge = np.minimum(best - low, high - best) < _EDGE
    edge[0] |= _standard_error(slopes(best), residuals(best))[0] > np.log(_LARGEST_ERROR)
    return LossLaw(
        floor=float(np.exp(e)),
        a=float(np.exp(a + alpha * n_middle)),
        alpha=float(alpha),
        b=float(np.exp(b + beta * d_middle)),
        beta=float(beta),
        undetermined=tuple(name for name, place in (("E", 0), ("alpha", 2), ("beta", 4)) if edge[place]),
    )
