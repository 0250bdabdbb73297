"""Clicks on search results as labels, corrected for the positions at which the results were shown.

    counts = count_clicks(sessions)
    exponent = estimate_exponent(counts)            # people look at position k in k^-exponent of all searches
    labels = click_rates(counts, "ipw", exponent.value)

The model is the position-based one: a click at position k has the probability examination(k) times the attraction of
the result (Richardson, Dominowska and Ragno, "Predicting Clicks", WWW 2007).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from paddle_ranker.array_types import Floats, Integers
from paddle_ranker.errors import DataError

D = TypeVar("D", bound=Hashable)  # id of a document
DEBIAS = {
    "none": "clicks over views",
    "ipw": "each click is weighted by one over the share of searches that look at its position (inverse propensity)",
    "coec": "clicks over expected examinations, the number of times that the pair was probably seen",
}
_STEPS, _MOST_EXPONENT = 100, 5.0
# Limit of a click's weight: clicks at positions that few people examine would otherwise decide alone.
_MOST_WEIGHT = 10.0


@dataclass(frozen=True)
class Session(Generic[D]):
    """A search.

    query: the query
    ids: ids of the documents that were shown, from position `first` on
    clicked: ids of the clicked documents
    first: position of the first of `ids`, from 1
    """

    query: str
    ids: Sequence[D]
    clicked: frozenset[D]
    first: int = 1


@dataclass(frozen=True)
class ClickCounts(Generic[D]):
    """How often each pair was shown and clicked at each position.

    Counts are stored in arrays with one cell for each pair and position.

    pairs: query and document of each pair, in the order in which they were first shown
    pair: index in `pairs` of each cell's pair, `[cells]`
    position: position of each cell, from 1, `[cells]`
    views, clicks: how often the cell's pair was shown and clicked at the cell's position, `[cells]` each
    """

    pairs: list[tuple[str, D]]
    pair: Integers
    position: Integers
    views: Floats
    clicks: Floats

    def of_pairs(self, values: Floats) -> Floats:
        """Return the sum of `values`, `[cells]`, over the cells of each pair, `[pairs]`."""
        sums = np.zeros(len(self.pairs))
        np.add.at(sums, self.pair, values)
        return sums

    def usual_positions(self) -> Integers:
        """Return the position at which each pair was shown most often, `[pairs]`; of ties, the smallest position."""
        order = np.lexsort((-self.position, self.views, self.pair))  # the last of a pair's cells wins below
        usual: Integers = np.zeros(len(self.pairs), np.int64)
        usual[self.pair[order]] = self.position[order]
        return usual


def count_clicks(sessions: Iterable[Session[D]]) -> ClickCounts[D]:
    """Count views and clicks; if a session shows a document twice, both views count."""
    numbers: dict[tuple[str, D], int] = {}
    cells: dict[tuple[int, int], list[int]] = {}
    for session in sessions:
        for position, id in enumerate(session.ids, start=session.first):
            pair = numbers.setdefault((session.query, id), len(numbers))
            cell = cells.setdefault((pair, position), [0, 0])
            cell[0] += 1
            cell[1] += id in session.clicked
    keys = np.array(list(cells), np.int64).reshape(-1, 2)
    counts = np.array(list(cells.values()), np.float64).reshape(-1, 2)
    return ClickCounts(list(numbers), keys[:, 0], keys[:, 1], counts[:, 0], counts[:, 1])


@dataclass(frozen=True)
class Exponent:
    """An estimate of the exponent of position bias.

    value: the estimate
    low, high: bounds of the estimate's 95% interval
    pairs: number of pairs on which the estimate is based
    """

    value: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}, from {self.pairs:,} pairs)"


def estimate_exponent(counts: ClickCounts[D]) -> Exponent:
    """Estimate the exponent e, on the assumption that people examine position k in k^-e of all searches.

    The estimate is based on pairs that were shown at several positions: whatever the attraction of a pair, its clicks
    are distributed over positions k in proportion to views(k) k^-e. The method is Poisson regression with a fixed
    effect for each pair (Hausman, Hall and Griliches, Econometrica 1984), which only requires that the mean is correct
    (Wooldridge, Journal of Econometrics 1999).

    Raises `DataError` if no clicked pair was shown at two positions.
    """
    log_position = np.log(counts.position.astype(np.float64))
    clicks = counts.of_pairs(counts.clicks)
    observed = float(counts.clicks @ log_position)
    exponent = 1.0
    for _ in range(_STEPS):
        weights = counts.views * np.exp(-exponent * log_position)
        whole = counts.of_pairs(weights)
        mean = counts.of_pairs(weights * log_position) / whole
        square = counts.of_pairs(weights * log_position**2) / whole
        spread = clicks * np.maximum(square - mean**2, 0.0)
        informative = spread > 1e-9
        information = float(spread[informative].sum())
        if not information:
            raise DataError(
                "no clicked document was shown for its query at two positions, so the log cannot tell how much they "
                "matter: log the searches of another ranker or index too, or give --position_exponent"
            )
        step = (float(clicks @ mean) - observed) / information
        exponent = min(max(exponent + step, -_MOST_EXPONENT), _MOST_EXPONENT)
        if abs(step) < 1e-6:
            break
    margin = 1.96 / math.sqrt(information)
    return Exponent(exponent, exponent - margin, exponent + margin, int(informative.sum()))


def click_rates(counts: ClickCounts[D], debias: str, exponent: float = 0.0) -> Floats:
    """Estimate each pair's attraction, the probability of a click if people look at the result, `[pairs]`, 0 to 1.

    debias: name of the correction for positions, "ipw" or "coec"; with any other name, positions are not corrected
    exponent: position k is assumed to be examined in k^-exponent of all searches; an exponent below 0 counts as 0
    """
    examined = counts.position.astype(np.float64) ** -max(exponent, 0.0)
    clicks, views = counts.clicks, counts.views
    if debias == "ipw":
        clicks = clicks * np.minimum(1.0 / examined, _MOST_WEIGHT)
    elif debias == "coec":
        views = views * examined
    return np.minimum(counts.of_pairs(clicks) / counts.of_pairs(views), 1.0)
