"""What the quality benchmarks share: systems compared on the same pairs, goals, tables, and results as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.inputs import real_data_folder
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.metrics.auc import roc_auc
from paddle_ranker.metrics.intervals import Interval, Statistic, bootstrap_interval, difference
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.metrics.ranking import RELEVANT, Floats, Scored

SHOWN = {"auc": "AUC", "ndcg@10": "nDCG@10", "mrr@10": "MRR@10", "map": "MAP"}


@dataclass(frozen=True)
class System:
    """What ranked the pairs: for each run (seed) a score a pair, `[pairs] float64`, and the seconds of training."""

    name: str
    runs: tuple[Floats, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Figure:
    """One measure of one system.

    interval: the mean over runs, and its bootstrap interval over queries (the seeds' spread is not in it)
    runs: the measure of each run
    difference: the reference's mean less this system's, paired over queries; None for the reference
    """

    interval: Interval
    runs: tuple[float, ...]
    difference: Optional[Interval]


@dataclass(frozen=True)
class Goal:
    """A figure to reach; NaN is not reached."""

    what: str
    value: float
    target: float
    at_most: bool = False

    @property
    def reached(self) -> bool:
        return self.value <= self.target if self.at_most else self.value >= self.target

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{'reached' if self.reached else 'MISSED'}: {self.what} {self.value:.3f}, goal {sign} {self.target:g}"


def compare(
    queries: Sequence[str],
    labels: ArrayLike,
    systems: Sequence[System],
    reference: str,
    *,
    measures: Sequence[str] = ("auc", "ndcg@10"),
    resamples: int = 2000,
) -> dict[str, dict[str, Figure]]:
    """Return every system's measures by name, with 95% intervals and paired differences to the system `reference`."""
    statistics = {
        system.name: [_statistics(Scored(queries, labels, scores), measures) for scores in system.runs]
        for system in systems
    }
    count = len(set(queries))
    everything = np.ones((1, count))
    figures: dict[str, dict[str, Figure]] = {}
    for name, runs in statistics.items():
        figures[name] = {}
        for measure in measures:
            mean = mean_statistic([run[measure] for run in runs])
            other = mean_statistic([run[measure] for run in statistics[reference]])
            figures[name][measure] = Figure(
                interval=bootstrap_interval(mean, count, resamples=resamples),
                runs=tuple(float(run[measure](everything)[0]) for run in runs),
                difference=None
                if name == reference
                else bootstrap_interval(difference(other, mean), count, resamples=resamples),
            )
    return figures


def _statistics(scored: Scored, measures: Sequence[str]) -> dict[str, Statistic]:
    return {name: MEASURES[name].statistic(scored) for name in measures}


def mean_statistic(statistics: Sequence[Statistic]) -> Statistic:
    """Make the statistic "mean over runs", every run measured on the same draw of queries."""
    return lambda drawn: np.mean([statistic(drawn) for statistic in statistics], axis=0)


def figures_table(systems: Sequence[System], figures: Mapping[str, Mapping[str, Figure]], reference: str) -> str:
    """Return a table with one row a system: measures, paired differences, spread over runs, seconds of training."""
    measures = list(figures[reference])
    several = any(len(system.runs) > 1 for system in systems)
    shown = [SHOWN.get(measure, measure) for measure in measures]
    header = ["system", *shown, *(f"{reference} ahead, {name}" for name in shown)]
    header += [f"{name} of each seed" for name in shown] if several else []
    header.append("training, s")
    rows = []
    for system in systems:
        own = figures[system.name]
        row = [system.name, *(str(own[m].interval) for m in measures), *(_shown_difference(own[m]) for m in measures)]
        if several:
            row += [" ".join(f"{value:.3f}" for value in own[m].runs) if len(system.runs) > 1 else "" for m in measures]
        row.append(" ".join(f"{seconds:.0f}" for seconds in system.seconds))
        rows.append(row)
    return format_table(header, rows)


def _shown_difference(figure: Figure) -> str:
    if figure.difference is None:
        return ""
    gap = figure.difference
    return f"{gap.estimate:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]{'' if gap.excludes_zero() else ' (0 is inside)'}"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its columns padded to read well as plain text."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines)


def report(
    options: Any,
    systems: Sequence[System],
    figures: Mapping[str, Mapping[str, Figure]],
    goals: Sequence[Goal],
    **facts: Any,
) -> dict[str, Any]:
    """Return everything a benchmark found as JSON-ready values: options, versions, figures, goals and `facts`."""
    return {
        "options": asdict(options),
        "versions": {name: metadata.version(name) for name in ("paddlepaddle", "numpy")},
        "machine": {"python": platform.python_version(), "processors": os.cpu_count()},
        **facts,
        "systems": [
            {
                "name": system.name,
                "training_seconds": list(system.seconds),
                "measures": {measure: asdict(figure) for measure, figure in figures[system.name].items()},
            }
            for system in systems
        ],
        "goals": [{**asdict(goal), "reached": goal.reached} for goal in goals],
    }


def write_report(path: Optional[str], values: Mapping[str, Any]) -> None:
    """Write `values` as JSON, NaN as null; does nothing where `path` is None."""
    if path is None:
        return
    from paddle_ranker.storage.atomic import new_file

    with new_file(path) as stream:
        json.dump(_without_nan(values), stream, ensure_ascii=False, indent=1, allow_nan=False)
        stream.write("\n")
    print(f"results: {path}")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def parse_numbers(text: str, name: str) -> list[int]:
    """Return the comma-separated whole numbers of an option; raises `UsageError` where one is none, or stands twice."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--{name} {text}: give whole numbers separated by commas, such as 1,2,3") from None
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise UsageError(f"--{name} {text}: give different numbers, none below 0")
    return numbers


def real_data_file(folder: Optional[str], name: str) -> Path:
    """Return the path of a file of the real data, under `folder`, else `PADDLE_RANKER_REAL_DATA`, else beside us."""
    chosen = real_data_folder(folder)
    if not (chosen / name).is_file():
        raise DataError(f"{chosen / name}: not there; name the folder that holds {name} with --data_dir")
    return chosen / name


def mean_auc(labels: Floats, runs: Sequence[Floats]) -> float:
    """Return the mean AUC of runs on `labels`; NaN where all labels are of one class."""
    relevant = labels >= RELEVANT
    if relevant.all() or not relevant.any():
        return math.nan
    return float(np.mean([roc_auc(labels, scores) for scores in runs]))
