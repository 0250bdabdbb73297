"""Measure systems on the same pairs: values with intervals, paired differences, and whether they are established.

comparison = compare_systems(pairs, [System("mine", scores), System("bm25", others)])
comparison.measured["bm25"]["ndcg@10"].difference       # Interval(-0.031 [-0.044, -0.017])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Optional

import numpy as np

from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.evaluation.pairs import MeasuredPairs
from paddle_ranker.metrics.intervals import Interval, Statistic, bootstrap_intervals, difference
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.metrics.ranking import RELEVANT, Floats, Scored
from paddle_ranker.metrics.significance import PERMUTATIONS, holm

CERTAIN = 0.05  # a corrected p-value below it, with an interval without zero, establishes a difference
_LEVEL = 1e-12  # values of a query that differ by no more are level


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
class Measured:
    """One measure of one system.

    Attributes:
        interval: the value, with bounds.
        difference: this system's less the reference's, paired over queries; None for the reference.
        p_value: of the test of that difference, where the measure has one; `corrected` by Holm for as many systems.
        wins, losses: queries in which this system is better, or worse; None for a measure that is not one of queries.
        verdict: better or worse than the reference, or "": no difference is established.
    """

    interval: Interval
    difference: Optional[Interval] = None
    p_value: Optional[float] = None
    corrected: Optional[float] = None
    wins: Optional[int] = None
    losses: Optional[int] = None
    verdict: str = ""


@dataclass(frozen=True)
class Comparison:
    """Systems on the same pairs.

    Attributes:
        systems: in the order given.
        reference: the name of the one that the others are compared with.
        measures: which there are: no AUC without judged pairs of both classes, and so on.
        measured: by system and measure.
        by_query: by system and measure, `[queries] float64`; NaN where a query has nothing to measure.
        query_ids: `[queries]`.
        ties: how equal scores are ordered.
    """

    pairs: MeasuredPairs
    systems: list[System]
    reference: str
    measures: list[str]
    measured: dict[str, dict[str, Measured]]
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
    """Return how equal scores are ordered by default: as trec_eval does where the documents have ids."""
    return "trec_eval" if pairs.has_ids else "against"


def measurable(pairs: MeasuredPairs) -> list[str]:
    """Return the names of the measures that these pairs allow, in the order of `MEASURES`."""
    scored = Scored(pairs.query_ids, pairs.labels, pairs.labels, judged=pairs.judged)  # by the labels: no scores matter
    MEASURES.load_plugins()  # an installed package may add some
    return [name for name, measure in MEASURES.items() if measure.applies(scored)]


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
        reference: a system's name; `best`: the best by `measure`; None: the first.
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
    ties = ties or default_ties(pairs)
    values = {system.name: _Values(pairs, system.scores, available, ties) for system in systems}
    reference = reference or names[0]
    if reference == "best" and "best" not in names:
        chosen = measure if measure in available else available[0]
        reference = max(names, key=lambda name: MEASURES[chosen].sign * values[name].estimate(chosen))
    if reference not in names:
        raise UsageError(f"--reference {reference}: choose from {', '.join(names)}, best")
    measured = {
        name: _measure(one, None if name == reference else values[reference], resamples, permutations, seed)
        for name, one in values.items()
    }
    _correct(measured, [name for name in names if name != reference], available)
    by_query = {name: one.by_query for name, one in values.items()}
    query_ids = list(dict.fromkeys(pairs.query_ids))
    return Comparison(pairs, list(systems), reference, available, measured, by_query, query_ids, ties)


class _Values:
    """One system's scores, and by measure their statistic and, where the measure has them, the values by query."""

    def __init__(self, pairs: MeasuredPairs, scores: Floats, names: Sequence[str], ties: str) -> None:
        ids = pairs.document_ids if ties == "trec_eval" else None
        self.scored = Scored(pairs.query_ids, pairs.labels, scores, ids=ids, judged=pairs.judged)
        self.statistics: dict[str, Statistic] = {name: MEASURES[name].statistic(self.scored) for name in names}
        found = {name: MEASURES[name].by_query(self.scored) for name in names}
        self.by_query = {name: values for name, values in found.items() if values is not None}

    def estimate(self, name: str) -> float:
        """Return a measure of the pairs as they are."""
        return float(self.statistics[name](np.ones((1, self.scored.ranking.queries)))[0])


def _measure(
    ours: _Values, base: Optional[_Values], resamples: int, permutations: int, seed: int
) -> dict[str, Measured]:
    """Measure a system, and its differences to `base` on the same draws of queries; p-values are not corrected yet."""
    wanted = dict(ours.statistics)
    if base is not None:
        wanted.update(
            {f"-{name}": difference(ours.statistics[name], base.statistics[name]) for name in ours.statistics}
        )
    intervals = _intervals(wanted, ours.scored.ranking.queries, resamples, seed)
    if base is None:
        return {name: Measured(interval) for name, interval in intervals.items()}
    found = {}
    for name in ours.statistics:
        measure = MEASURES[name]
        p_value = measure.p_value(ours.scored, base.scored, permutations, seed)
        wins = losses = None
        if name in ours.by_query:
            with np.errstate(invalid="ignore"):
                gains = measure.sign * (ours.by_query[name] - base.by_query[name])
                wins, losses = int((gains > _LEVEL).sum()), int((gains < -_LEVEL).sum())
        found[name] = Measured(intervals[name], intervals[f"-{name}"], p_value, wins=wins, losses=losses)
    return found


def _intervals(wanted: Mapping[str, Statistic], queries: int, resamples: int, seed: int) -> dict[str, Interval]:
    if queries > 1:
        return bootstrap_intervals(wanted, queries, resamples=resamples, seed=seed)
    once = np.ones((1, 1))  # of one query there is no interval
    return {name: Interval(float(s(once)[0]), float("nan"), float("nan")) for name, s in wanted.items()}


def _correct(measured: dict[str, dict[str, Measured]], others: Sequence[str], names: Sequence[str]) -> None:
    """Correct the p-values of one measure by Holm's method, over all systems compared with the reference."""
    for name in names:
        found = [measured[other][name] for other in others]
        p_values = [one.p_value for one in found if one.p_value is not None]  # of all systems, or of none
        corrections: Sequence[Optional[float]] = holm(p_values) or [None] * len(found)
        for other, one, corrected in zip(others, found, corrections):
            assert one.difference is not None
            is_known = one.difference.excludes_zero() and (corrected is None or corrected < CERTAIN)
            verdict = "better" if MEASURES[name].sign * one.difference.estimate > 0 else "worse"
            measured[other][name] = replace(one, corrected=corrected, verdict=verdict if is_known else "")
