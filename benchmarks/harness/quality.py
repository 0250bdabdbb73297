"""Quality of systems that score the same pairs: measures with intervals, paired differences, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.harness.report import format_table
from benchmarks.harness.runs import QualityOptions, System
from paddle_ranker.metrics.intervals import Interval, Statistic, bootstrap_interval, difference
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.metrics.ranking import Scored

SHOWN = {"auc": "AUC", "ndcg@10": "nDCG@10", "mrr@10": "MRR@10", "map": "MAP"}


@dataclass(frozen=True)
class Measure:
    """Value of a measure for a system.

    interval: mean over runs, with its bootstrap interval over queries, which excludes the variation between seeds
    runs: the measure of each run
    difference: the reference's mean minus the system's, paired over queries; None for the reference
    """

    interval: Interval
    runs: tuple[float, ...]
    difference: Optional[Interval]


def compare(
    queries: Sequence[str],
    labels: ArrayLike,
    systems: Sequence[System],
    reference: str,
    *,
    measures: Sequence[str] = ("auc", "ndcg@10"),
    resamples: int = 2000,
    draw: Optional[int] = None,
) -> dict[str, dict[str, Measure]]:
    """Return a dict keyed by system, then by measure, of values with 95% intervals and differences to `reference`.

    `draw`: number of queries per bootstrap draw (default: all).
    """
    statistics = {
        system.name: [_statistics(Scored(queries, labels, scores), measures) for scores in system.runs]
        for system in systems
    }
    count = len(set(queries))
    everything = np.ones((1, count))
    measured: dict[str, dict[str, Measure]] = {}
    for name, runs in statistics.items():
        measured[name] = {}
        for measure in measures:
            mean = mean_statistic([run[measure] for run in runs])
            other = mean_statistic([run[measure] for run in statistics[reference]])
            measured[name][measure] = Measure(
                interval=bootstrap_interval(mean, count, resamples=resamples, draw=draw),
                runs=tuple(float(run[measure](everything)[0]) for run in runs),
                difference=None
                if name == reference
                else bootstrap_interval(difference(other, mean), count, resamples=resamples, draw=draw),
            )
    return measured


def _statistics(scored: Scored, measures: Sequence[str]) -> dict[str, Statistic]:
    return {name: MEASURES[name].statistic(scored) for name in measures}


def mean_statistic(statistics: Sequence[Statistic]) -> Statistic:
    """Return the mean of several runs' statistics as a statistic; it measures all runs on the same draw of queries."""
    return lambda drawn: np.mean([statistic(drawn) for statistic in statistics], axis=0)


def measures_table(systems: Sequence[System], measured: Mapping[str, Mapping[str, Measure]], reference: str) -> str:
    """Return a table with a row per system: measures, paired differences, measures of each run, training seconds."""
    measures = list(measured[reference])
    several = any(len(system.runs) > 1 for system in systems)
    shown = [SHOWN.get(measure, measure) for measure in measures]
    header = ["system", *shown, *(f"{reference} ahead, {name}" for name in shown)]
    header += [f"{name} of each seed" for name in shown] if several else []
    header.append("training, s")
    rows = []
    for system in systems:
        own = measured[system.name]
        row = [system.name, *(str(own[m].interval) for m in measures), *(_shown_difference(own[m]) for m in measures)]
        if several:
            row += [" ".join(f"{value:.3f}" for value in own[m].runs) if len(system.runs) > 1 else "" for m in measures]
        row.append(" ".join(f"{seconds:.0f}" for seconds in system.seconds))
        rows.append(row)
    return format_table(header, rows)


def _shown_difference(measure: Measure) -> str:
    if measure.difference is None:
        return ""
    gap = measure.difference
    return f"{gap:+.3f}{'' if gap.excludes_zero() else ' (0 is inside)'}"


def print_comparison(
    options: QualityOptions,
    queries: Sequence[str],
    labels: ArrayLike,
    systems: Sequence[System],
    reference: str,
    head: str,
    *,
    measures: Sequence[str] = ("auc", "ndcg@10"),
    draw: Optional[int] = None,
) -> dict[str, dict[str, Measure]]:
    """Print `head`, the seeds and intervals used, and the table of the systems; return the measures."""
    measured = compare(queries, labels, systems, reference, measures=measures, resamples=options.resamples, draw=draw)
    drawn = f"draws of {draw} queries" if draw else "queries"
    print(f"\n{head}; means over seeds {options.seeds}, 95% bootstrap intervals over {drawn}\n")
    print(measures_table(systems, measured, reference))
    return measured
