"""Choose between alternatives by their losses; only a significant improvement beats the preferred alternative."""

from __future__ import annotations

import numpy as np

from paddle_ranker.array_types import Booleans, Floats

_CHANCE = 0.02  # how often noise may pass for an improvement
_FLIPS, _FLIPS_AT_ONCE = 25, 40  # number of blocks of random sign flips, and flips per block
_TINY = 1e-12


def choose(losses: Floats, distance: Floats) -> int:
    """Return the index of the alternative to use: 0, unless an alternative is significantly better (`beats_first`).

    If so, return the alternative with the least `distance` among those that `about_least` accepts.

    losses: `[n, queries]`, the loss of each alternative on each query; row 0 is the preferred alternative
    distance: `[n]`, how far each alternative is from the preferred one
    """
    if not beats_first(losses):
        return 0
    return int(np.where(about_least(losses), distance, np.inf).argmin())


def about_least(losses: Floats) -> Booleans:
    """Return, for each row of `losses`, whether its mean is within one standard error of the least mean, `[n] bool`.

    losses: `[n, queries]`

    The standard error is that of the difference between the row and the row with the least mean (Breiman et al. 1984,
    Classification and Regression Trees). With a single query, the result is True for all rows.
    """
    count = losses.shape[1]
    if count < 2:
        return np.ones(len(losses), bool)
    differences = losses - losses[losses.sum(axis=1).argmin()]
    is_near: Booleans = differences.mean(axis=1) <= differences.std(axis=1, ddof=1) / np.sqrt(count)
    return is_near


def beats_first(losses: Floats) -> bool:
    """Return whether a row of `losses`, `[n, queries]`, has a significantly lower mean than the first row.

    The test flips signs and compares the largest t statistic, so that it allows for the number of rows (Westfall and
    Young 1993). If no row is better, the result is True for at most one in fifty sets of queries. With a single query
    or row, it is False.
    """
    gains = (losses[0] - losses[1:]).T
    count = len(gains)
    if count < 2 or len(losses) < 2:
        return False

    def largest(signs: Floats) -> Floats:
        means = signs @ gains / count
        errors = np.sqrt(np.maximum(np.square(gains).mean(axis=0) - np.square(means), _TINY) / (count - 1))
        statistics: Floats = (means / errors).max(axis=1)
        return statistics

    random, chance = np.random.default_rng(0), 0
    seen = largest(np.ones((1, count)))[0]
    for _ in range(_FLIPS):
        chance += int((largest(random.integers(0, 2, (_FLIPS_AT_ONCE, count)) * 2.0 - 1) >= seen).sum())
    return chance + 1 <= _CHANCE * (_FLIPS * _FLIPS_AT_ONCE + 1)
