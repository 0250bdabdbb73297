"""Results of the inference benchmark: ratios with intervals, tables, goals, a plot, and the same as JSON."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from benchmarks.harness.report import Goal, Timed, format_table, goal_values, ratio
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.storage.picture import new_picture

if TYPE_CHECKING:
    from benchmarks.inference import InferenceBenchmarkOptions, Run, System

FASTER_THAN_BASELINES = {"fp32": 1.15, "bf16": 1.0, "int8": 1.0}
FASTER_THAN_PUBLISHED = {"fp32": 25.0, "bf16": 40.0}
PUBLISHED_GOAL_SHAPE = "nano"


@dataclass
class Measured(Timed):
    """The results of one system.

    first_start: seconds from the start of the process of the timed rounds to its first scores
    difference: largest absolute difference of a probability from the exact systems'; None if not compared
    by_clock, by_processor: pairs per second, one value per round
    latencies: dict from a query's number of titles to the milliseconds of each query
    starts: seconds from the start of a process to its first scores, one value per process
    """

    system: System
    first_start: float = math.nan
    difference: Optional[float] = None
    by_clock: list[float] = field(default_factory=list)
    by_processor: list[float] = field(default_factory=list)
    latencies: dict[int, list[float]] = field(default_factory=dict)
    peak_mb: Optional[float] = None
    starts: list[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Return pairs per second by the clock, the median of the rounds."""
        return statistics.median(self.by_clock)


def best_own_system(systems: Sequence[Measured], precision: str) -> Optional[Measured]:
    """Return the fastest of this toolkit's compared systems of a precision, or None if there is none."""
    own = [m for m in systems if m.system.is_compared and m.system.precision == precision and m.by_clock]
    return max(own, key=lambda measured: measured.speed, default=None)


def goals(run: Run) -> Iterator[Goal]:
    """Yield the goals: this toolkit's best system must be faster than the best baseline and the published code."""
    where = f"{run.shape}, {run.threads} thread{'s' if run.threads > 1 else ''}"
    published = next((m for m in run.systems if m.system.name == "published" and m.by_clock), None)
    for precision, target in FASTER_THAN_BASELINES.items():
        best = best_own_system(run.systems, precision)
        if best is None:
            continue
        baselines = [m for m in run.systems if m.system.baseline and m.system.precision == precision and m.by_clock]
        if baselines:
            baseline = max(baselines, key=lambda measured: measured.speed)
            found = ratio(best.by_clock, baseline.by_clock)
            what = f"{where}, {precision}: {best.system.name} against {baseline.system.name} {_interval(found)}, times"
            yield Goal(what, found.estimate, target)
        if published and precision in FASTER_THAN_PUBLISHED and run.shape == PUBLISHED_GOAL_SHAPE:
            found = ratio(best.by_clock, published.by_clock)
            what = f"{where}, {precision}: {best.system.name} against the published way {_interval(found)}, times"
            yield Goal(what, found.estimate, FASTER_THAN_PUBLISHED[precision])


def _interval(found: Interval) -> str:
    return f"[{found.low:.2f}, {found.high:.2f}]"


def shown_tables(run: Run) -> str:
    """Return the table of the results, and a line on the pairs and the machine."""
    peak = ", ".join(f"{speed:,.0f} GFLOP/s {precision}" for precision, speed in sorted(run.peak.items()))
    first = f"\n{run.shape}: {run.pairs}; threads: {run.threads}" + (f"; matrix products: {peak}" if peak else "")
    titles = sorted({count for measured in run.systems for count in measured.latencies})
    header = ["system", "off by", "pairs/s", "a processor s", "ours / it", "of peak"]
    header += [f"{count} titles, p50 / p99 ms" for count in titles] + ["peak MB", "start, s"]
    lines = [first, format_table(header, [_row(measured, run, titles) for measured in run.systems])]
    if run.import_seconds:
        lines.append(f"import paddle alone: {statistics.median(run.import_seconds):.1f} s")
    lines.append("ours / it: the fastest of ours in that precision, over the row; of peak: of the whole encoder's work")
    return "\n".join(lines)


def _row(measured: Measured, run: Run, titles: Sequence[int]) -> list[str]:
    row = [measured.system.title, "" if measured.difference is None else f"{measured.difference:.0e}"]
    if measured.by_clock:
        best = best_own_system(run.systems, measured.system.precision) or best_own_system(run.systems, "bf16")
        against = ratio(best.by_clock, measured.by_clock) if best else None
        speeds = measured.by_clock
        row += [
            f"{measured.speed:.1f} ({min(speeds):.1f}-{max(speeds):.1f})",
            f"{statistics.median(measured.by_processor):.1f}",
            "" if against is None or best is measured else f"{against.estimate:.2f} {_interval(against)}",
            _share_of_peak(measured, run),
        ]
    else:
        row += [""] * 4
    for count in titles:
        values = measured.latencies.get(count, [])
        row.append(f"{np.percentile(values, 50):.1f} / {np.percentile(values, 99):.1f}" if values else "")
    row.append("" if measured.peak_mb is None else f"{measured.peak_mb:.0f}")
    row.append(f"{statistics.median(measured.starts):.1f}" if measured.starts else "")
    return row


def _share_of_peak(measured: Measured, run: Run) -> str:
    peak = run.peak.get(measured.system.precision)
    return f"{measured.speed * run.operations / 1e9 / peak:.0%}" if peak else ""


def values_of(options: InferenceBenchmarkOptions, runs: Sequence[Run]) -> dict[str, Any]:
    """Return all results as a dict for JSON."""
    return {
        "options": dataclasses.asdict(options),
        "runs": [
            {
                **{name: getattr(run, name) for name in ("shape", "threads", "pairs", "peak", "operations")},
                "import_seconds": run.import_seconds,
                "systems": [dataclasses.asdict(measured) for measured in run.systems],
                "goals": goal_values(goals(run)),
            }
            for run in runs
        ],
    }


def write_plot(path: Path, runs: Sequence[Run]) -> None:
    """Draw a panel per table, with a bar for each system's pairs per second, dark for this toolkit's.

    The line on a bar spans the slowest to the fastest round. Raises `DependencyError` without matplotlib.
    """
    rows = max(len(run.systems) for run in runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_picture(path, 7 * len(runs), 1.2 + 0.3 * rows, dots_per_inch=120, what="a plot") as figure:
        for axes, run in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs):
            measured = sorted((m for m in run.systems if m.by_clock), key=lambda m: m.speed)
            speeds = [m.speed for m in measured]
            spread = [[m.speed - min(m.by_clock) for m in measured], [max(m.by_clock) - m.speed for m in measured]]
            colours = ["#1f4e79" if m.system.ours else "#b0b7bf" for m in measured]
            axes.barh([m.system.title for m in measured], speeds, xerr=spread, color=colours, ecolor="#666666")
            axes.set_title(f"{run.shape}, {run.threads} thread{'s' if run.threads > 1 else ''}")
            axes.set_xlabel("pairs a second")
            axes.spines[["top", "right"]].set_visible(False)
