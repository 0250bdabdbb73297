"""Measure systems on the same pairs: figures with intervals, paired differences, and whether they are established.

comparison = compare_systems(pairs, [System("mine", scores), System("bm25", others)])
comparison.figures["bm25"]["ndcg@10"].difference        # Interval(-0.031 [-0.044, -0.017])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

import numpy as np

from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.evaluation.pairs import MeasuredPairs
from paddle_ranker.metrics import measures as metrics
from paddle_ranker.metrics.intervals import (
    MEASURES,
    Interval,
    Statistic,
    bootstrap_intervals,
    difference,
    ranking_statistics,
)
from paddle_ranker.metrics.measures import RELEVANT, Floats, add_by_query, number_queries, rank
from paddle_ranker.metrics.significance import PERMUTATIONS, auc_difference, holm, randomisation_test, swap_test

TITLES = {
    "auc": "AUC",
    "mrr@10": "MRR@10",
    "ndcg@10": "nDCG@10",
    "map": "MAP",
    "p@1": "P@1",
    "p@5": "P@5",
    "p@10": "P@10",
    "r@10": "R@10",
    "pairs_ordered": "pairs ordered",
}
FEWEST_PERMUTATIONS = 1000
_AUC_CELLS = 400_000_000  # permutations x pairs of an AUC's test: half a minute


@dataclass(frozen=True)
class System:
    """Something that scored the pairs.

    Attributes:
        name: as tables show it.
        scores: `[n] float64`, one a pair, `metrics.NOT_RETURNED` where it returned none.
        what: model, scores or baseline.
        facts: what a report says about where the scores are from.
    """

    name: str
    scores: Floats
    what: str = "scores"
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One measure of one system.

    Attributes:
        interval: the value, with bounds.
        difference: this system's less the reference's, paired over queries; None for the reference.
        p_value: of the randomisation test of that difference; `corrected` by Holm for as many systems.
        wins, losses: queries in which this system is ahead, or behind; None for AUC, which is not a mean over queries.
    """

    interval: Interval
    difference: Optional[Interval] = None
    p_value: Optional[float] = None
    corrected: Optional[float] = None
    wins: Optional[int] = None
    losses: Optional[int] = None


@dataclass(frozen=True)
class Comparison:
    """Systems on the same pairs.

    Attributes:
        systems: in the order given.
        reference: the name of the one that the others are compared with.
        measures: which there are: no AUC without judged pairs of both classes, and so on.
        figures: by system and measure.
        by_query: by system and measure, `[queries] float64`; NaN where a query has nothing to measure.
        query_ids: `[queries]`.
        ties: how equal scores are ordered.
    """

    pairs: MeasuredPairs
    systems: list[System]
    reference: str
    measures: list[str]
    figures: dict[str, dict[str, Figure]]
    by_query: dict[str, dict[str, Floats]]
    query_ids: list[str]
    ties: str

    @property
    def others(self) -> list[System]:
        """All systems but the reference."""
        return [system for system in self.systems if system.name != self.reference]

    @property
    def counts(self) -> dict[str, int]:
        """How many pairs and queries there are, and queries with something to find."""
        relevant = {q for q, label in zip(self.pairs.query_ids, self.pairs.labels) if label >= RELEVANT}
        return {
            "pairs": int(self.pairs.judged.sum()),
            "queries": len(self.query_ids),
            "queries_with_positive": len(relevant),
        }


def default_ties(pairs: MeasuredPairs) -> str:
    """Return how equal scores are ordered unless one asks: as trec_eval does where the documents have ids of theirs."""
    return "trec_eval" if pairs.has_ids else "against"


def measurable(pairs: MeasuredPairs) -> list[str]:
    """Return the names of the measures that these pairs allow, in the order of `MEASURES`."""
    numbers = number_queries(pairs.query_ids)
    relevant = pairs.labels[pairs.judged] >= RELEVANT
    found = list(MEASURES)
    if relevant.all() or not relevant.any():
        found.remove("auc")
    if not metrics.comparable_pairs(numbers[pairs.judged], pairs.labels[pairs.judged]).any():
        found.remove("pairs_ordered")
    if numbers.max() + 1 == len(numbers):  # a title a query: there is nothing to rank
        found = [name for name in found if name == "auc"]
    return found


class _Measured:
    """One system's statistics, its values by query, and what the tests need."""

    def __init__(self, pairs: MeasuredPairs, scores: Floats, names: Sequence[str], ties: str) -> None:
        ids = pairs.document_ids if ties == "trec_eval" else None
        everything = ranking_statistics(pairs.query_ids, pairs.labels, scores, ids=ids, judged=pairs.judged)
        self.statistics: dict[str, Statistic] = {name: everything[name] for name in names}
        self.by_query = metrics.measures_by_query(rank(pairs.query_ids, pairs.labels, scores, ids))
        numbers = number_queries(pairs.query_ids)[pairs.judged]
        self.pairs = numbers, pairs.labels[pairs.judged], scores[pairs.judged]
        count = len(self.by_query["map"])
        self.ordered = add_by_query(numbers, metrics.ordered_pairs(*self.pairs), count)
        total = add_by_query(numbers, metrics.comparable_pairs(*self.pairs[:2]), count)
        shares = np.divide(self.ordered, total, out=np.full(count, np.nan), where=total > 0)
        self.by_query = {**self.by_query, "pairs_ordered": shares}
        self.by_query = {name: values for name, values in self.by_query.items() if name in names}

    def test(self, name: str, other: _Measured, permutations: int, seed: int) -> float:
        """Return the p-value of the difference to `other`."""
        if name == "auc":
            numbers, labels, scores = self.pairs
            fewer = max(FEWEST_PERMUTATIONS, min(permutations, _AUC_CELLS // len(numbers)))
            swapped = auc_difference(numbers, labels, (scores, other.pairs[2]))
            return swap_test(swapped, len(self.by_query.get("map", np.unique(numbers))), min(permutations, fewer), seed)
        if name == "pairs_ordered":  # a sum over a sum that is the same for both: the sums above are what differs
            return randomisation_test(self.ordered - other.ordered, permutations=permutations, seed=seed)
        return randomisation_test(self.by_query[name] - other.by_query[name], permutations=permutations, seed=seed)


def compare_systems(
    pairs: MeasuredPairs,
    systems: Sequence[System],
    *,
    reference: Optional[str] = None,
    measure: str = "ndcg@10",
    ties: Optional[str] = None,
    resamples: int = 2000,
    permutations: int = PERMUTATIONS,
    seed: int = 1000,
) -> Comparison:
    """Measure systems, and each against the reference.

    Args:
        reference: a system's name; `best`: the highest `measure`; None: the first.
        ties: against | trec_eval, see `metrics.rank`; None: `default_ties`.
        resamples: draws of a bootstrap interval.
        permutations: draws of a randomisation test.

    Raises `DataError` where nothing can be measured, `UsageError` for two systems of one name or an unknown reference.
    """
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise UsageError(f"two systems are named {max(names, key=names.count)}: give names, as in mine=checkpoint/best")
    available = measurable(pairs)
    if not available:
        raise DataError(
            f"{pairs.source}: nothing to measure: one title a query, and none or each of them is relevant (label >= 1)"
        )
    measure = measure if measure in available else available[0]
    ties = ties or default_ties(pairs)
    measured = {system.name: _Measured(pairs, system.scores, available, ties) for system in systems}
    query_ids = list(dict.fromkeys(pairs.query_ids))
    once = np.ones((1, len(query_ids)))
    if reference == "best" and "best" not in names:
        reference = max(names, key=lambda name: float(measured[name].statistics[measure](once)[0]))
    reference = reference or names[0]
    if reference not in names:
        raise UsageError(f"--reference {reference}: choose from {', '.join(names)}, best")

    base = measured[reference]
    figures: dict[str, dict[str, Figure]] = {}
    for name, one in measured.items():
        wanted = dict(one.statistics)
        if name != reference:
            wanted.update({f"-{m}": difference(one.statistics[m], base.statistics[m]) for m in available})
        intervals = _intervals(wanted, len(query_ids), resamples, seed)
        figures[name] = {
            m: Figure(intervals[m])
            if name == reference
            else Figure(
                intervals[m],
                intervals[f"-{m}"],
                one.test(m, base, permutations, seed),
                wins=_count(one.by_query, base.by_query, m, 1),
                losses=_count(one.by_query, base.by_query, m, -1),
            )
            for m in available
        }
    _correct(figures, [name for name in names if name != reference], available)
    by_query = {name: one.by_query for name, one in measured.items()}
    return Comparison(pairs, list(systems), reference, available, figures, by_query, query_ids, ties)


def _intervals(wanted: dict[str, Statistic], queries: int, resamples: int, seed: int) -> dict[str, Interval]:
    if queries > 1:
        return bootstrap_intervals(wanted, queries, resamples=resamples, seed=seed)
    once = np.ones((1, 1))  # of one query there is no interval
    return {name: Interval(float(s(once)[0]), float("nan"), float("nan")) for name, s in wanted.items()}


def _count(ours: Mapping[str, Floats], theirs: Mapping[str, Floats], measure: str, sign: int) -> Optional[int]:
    if measure not in ours:
        return None
    with np.errstate(invalid="ignore"):
        return int((sign * (ours[measure] - theirs[measure]) > 1e-12).sum())


def _correct(figures: dict[str, dict[str, Figure]], others: Sequence[str], measures: Sequence[str]) -> None:
    """Put Holm's corrected p-values in: of one measure, over the systems that are compared with the reference."""
    for measure in measures:
        found = [figures[name][measure] for name in others]
        for name, figure, corrected in zip(others, found, holm([f.p_value or 0.0 for f in found])):
            figures[name][measure] = Figure(
                figure.interval, figure.difference, figure.p_value, corrected, figure.wins, figure.losses
            )
