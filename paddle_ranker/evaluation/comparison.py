"""Measure systems on the same pairs: values with intervals, and paired differences with significance tests.

    comparison = compare_systems(pairs, [System("mine", scores), System("bm25", others)])
    comparison.measured["bm25"]["ndcg@10"].difference       # Interval(-0.031 [-0.044, -0.017])

A significant difference is called "established": the interval and the randomisation test must both say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.evaluation.pairs import MeasuredPairs
from paddle_ranker.metrics.intervals import Interval, Statistic, bootstrap_intervals, difference
from paddle_ranker.metrics.measures import MEASURES, QueryMean
from paddle_ranker.metrics.ranking import RELEVANT, Scored
from paddle_ranker.metrics.significance import PERMUTATIONS, holm

CERTAIN = 0.05  # maximum probability that any difference from the reference is called established by chance
TIE = 1e-12  # two values of a query that differ by at most this are a tie


@dataclass(frozen=True)
class System:
    """A system that scored the pairs.

    Attributes:
        name: the name that tables show.
        scores: `[n] float64`, one per pair; `metrics.NOT_RETURNED` for a pair that the system did not return.
        what: "model", "scores" or "baseline".
        facts: where the scores come from, as texts by label, for the report.
    """

    name: str
    scores: Floats
    what: str = "scores"
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Value of a measure for a system, with its interval and its difference from the reference.

    Attributes:
        interval: the value, with bounds.
        difference: this system's value minus the reference's, paired over queries; None for the reference. The interval
            is corrected for the number of systems (Bonferroni).
        p_value: p-value of the difference; None for the reference, or if the measure has no test.
        corrected: `p_value` after Holm's correction for the number of systems; None if `p_value` is None.
        wins, losses: number of queries on which this system is better, or worse, than the reference; None for the
            reference, and for a measure without values per query.
        verdict: "better" or "worse" if the system differs from the reference; "" if no difference is established, see
            `is_established`.
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
    """Measures of systems on the same pairs.

    Attributes:
        systems: the systems, in the order given.
        reference: name of the system with which all other systems are compared.
        measures: names of the measures that can be computed on the pairs: AUC, for example, needs both classes.
        measured: results by system name, then by measure.
        by_query: values per query, `[queries] float64`, by system name, then by measure. A query without a value has
            NaN; measures without values per query are left out.
        query_ids: ids of the queries, `[queries]`.
        ties: how equal scores are ordered, see `compare_systems`.
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
        """All systems except the reference."""
        return [system for system in self.systems if system.name != self.reference]

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of judged pairs, of queries, and of queries with a relevant title, as a dict."""
        relevant = {q for q, label in zip(self.pairs.query_ids, self.pairs.labels) if label >= RELEVANT}
        return {
            "pairs": int(self.pairs.judged.sum()),
            "queries": len(self.query_ids),
            "queries_with_positive": len(relevant),
        }


def measurable(pairs: MeasuredPairs) -> list[str]:
    """Return the names of the measures that can be computed on the pairs, in the order of `MEASURES`."""
    scored = Scored(pairs.query_ids, pairs.labels, pairs.labels, judged=pairs.judged)  # scores are irrelevant here
    MEASURES.load_plugins()  # an installed package may add some
    always = QueryMean if pairs.searched else ()
    return [name for name, measure in MEASURES.items() if isinstance(measure, always) or measure.applies(scored)]


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
    """Measure systems, and compare each with the reference.

    reference: a system's name; "best": the system that is best by `measure`; None: the first system
    ties: how equal scores are ordered. "against": the less relevant title first; "trec_eval": as trec_eval does, see
        `metrics.rank`; None: "trec_eval" if the documents have ids, else "against"
    resamples: number of draws for a bootstrap interval
    permutations: number of draws for a randomisation test

    Raises `DataError` if no measure can be computed. Raises `UsageError` if two systems have the same name, or if no
    system has the name `reference`.
    """
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise UsageError(f"two systems are named {max(names, key=names.count)}: give names, as in mine=checkpoint/best")
    available = measurable(pairs)
    if not available:
        raise DataError(
            f"{pairs.source}: nothing to measure: one title a query, and none or each of them is relevant (label >= 1)"
        )
    ties = ties or ("trec_eval" if pairs.has_ids else "against")
    values = {system.name: _Statistics(pairs, system.scores, available, ties) for system in systems}
    reference = reference or names[0]
    if reference == "best" and "best" not in names:
        chosen = measure if measure in available else available[0]
        reference = max(names, key=lambda name: MEASURES[chosen].sign * values[name].estimate(chosen))
    if reference not in names:
        raise UsageError(f"--reference {reference}: choose from {', '.join(names)}, best")
    measured = {
        name: _measure(
            system_values,
            None if name == reference else values[reference],
            len(names) - 1,
            resamples,
            permutations,
            seed,
        )
        for name, system_values in values.items()
    }
    _correct(measured, [name for name in names if name != reference], available)
    by_query = {name: system_values.by_query for name, system_values in values.items()}
    query_ids = list(dict.fromkeys(pairs.query_ids))
    return Comparison(pairs, list(systems), reference, available, measured, by_query, query_ids, ties)


class _Statistics:
    """A system's `Statistic` of each measure, and the values per query of each measure that has such values."""

    def __init__(self, pairs: MeasuredPairs, scores: Floats, names: Sequence[str], ties: str) -> None:
        ids = pairs.document_ids if ties == "trec_eval" else None
        self.scored = Scored(pairs.query_ids, pairs.labels, scores, ids=ids, judged=pairs.judged)
        self.statistics: dict[str, Statistic] = {name: MEASURES[name].statistic(self.scored) for name in names}
        by_query = {name: MEASURES[name].by_query(self.scored) for name in names}
        self.by_query = {name: values for name, values in by_query.items() if values is not None}

    def estimate(self, name: str) -> float:
        """Return the value of a measure on all queries."""
        return float(self.statistics[name](np.ones((1, self.scored.ranking.queries)))[0])


def _measure(
    ours: _Statistics, base: Optional[_Statistics], others: int, resamples: int, permutations: int, seed: int
) -> dict[str, Measured]:
    """Measure a system, and its differences from the reference on the same draws of queries; do not correct p-values.

    base: the reference; None: the system is the reference
    others: number of systems that are compared with the reference
    """
    queries = ours.scored.ranking.queries
    intervals = _intervals(ours.statistics, queries, resamples, seed)
    if base is None:
        return {name: Measured(interval) for name, interval in intervals.items()}
    differences = {name: difference(ours.statistics[name], base.statistics[name]) for name in ours.statistics}
    gaps = _intervals(differences, queries, resamples, seed, CERTAIN / others)
    measured = {}
    for name in ours.statistics:
        measure = MEASURES[name]
        p_value = measure.p_value(ours.scored, base.scored, permutations, seed)
        wins = losses = None
        if name in ours.by_query:
            with np.errstate(invalid="ignore"):
                gains = measure.sign * (ours.by_query[name] - base.by_query[name])
                wins, losses = int((gains > TIE).sum()), int((gains < -TIE).sum())
        measured[name] = Measured(intervals[name], gaps[name], p_value, wins=wins, losses=losses)
    return measured


def _intervals(
    wanted: Mapping[str, Statistic], queries: int, resamples: int, seed: int, error: float = CERTAIN
) -> dict[str, Interval]:
    if queries > 1:
        return bootstrap_intervals(wanted, queries, confidence=1.0 - error, resamples=resamples, seed=seed)
    once = np.ones((1, 1))  # a single query has no interval
    return {name: Interval(float(s(once)[0]), float("nan"), float("nan")) for name, s in wanted.items()}


def _correct(measured: dict[str, dict[str, Measured]], others: Sequence[str], names: Sequence[str]) -> None:
    """Set, in place, each measure's corrected p-values (Holm's method) and verdicts of the systems `others`.

    names: names of the measures
    """
    for name in names:
        results = [measured[other][name] for other in others]
        p_values = [result.p_value for result in results if result.p_value is not None]  # of all systems, or of none
        corrections: Sequence[Optional[float]] = holm(p_values) or [None] * len(results)
        for other, result, corrected in zip(others, results, corrections):
            assert result.difference is not None
            verdict = "better" if MEASURES[name].sign * result.difference.estimate > 0 else "worse"
            is_known = is_established(result.difference, corrected)
            measured[other][name] = replace(result, corrected=corrected, verdict=verdict if is_known else "")


def is_established(gap: Interval, corrected: Optional[float]) -> bool:
    """Return whether a difference is established: its interval excludes zero, and its test calls it significant.

    Intervals of few queries are too narrow: their errors are up to three times as frequent as they say. The
    randomisation test is exact for any number of queries.

    gap: the difference, corrected for the number of systems
    corrected: its p-value, corrected for the number of systems; None if the measure has no test: the interval decides
    """
    return gap.excludes_zero() and (corrected is None or corrected <= CERTAIN)
