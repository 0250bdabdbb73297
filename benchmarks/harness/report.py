"""Results of benchmarks: speeds and their ratios with intervals, goals, tables, JSON files."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from paddle_ranker.metrics.intervals import Interval


@dataclass
class Speeds:
    """Speeds of a system in each round, by the clock and by processor time, which hardly changes on a busy machine."""

    by_clock: list[float] = field(default_factory=list)
    by_processor: list[float] = field(default_factory=list)

    def add(self, answer: Mapping[str, Any], unit: str) -> None:
        """Add a round from a worker's answer: its number of `unit` over `seconds` and `cpu_seconds`."""
        self.by_clock.append(answer[unit] / answer["seconds"])
        self.by_processor.append(answer[unit] / answer["cpu_seconds"])


def ratio(own: Sequence[float], others: Sequence[float]) -> Interval:
    """Return the ratio of two systems' speeds: the geometric mean over rounds, with its 95% t interval.

    own, others: a speed per round. A disturbance that slows both systems in a round does not change the round's ratio
    """
    from scipy.stats import t as student_t

    logarithms = np.log(np.asarray(own) / np.asarray(others))
    mean, count = float(logarithms.mean()), len(logarithms)
    half = math.nan
    if count > 1:
        half = student_t.ppf(0.975, count - 1) * float(logarithms.std(ddof=1)) / math.sqrt(count)
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def median_and_range(values: Sequence[float], digits: int) -> str:
    """Return the median with the lowest and highest value, as `12.3 (11.0-13.1)`."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def print_speeds(speeds: Mapping[str, Speeds], unit: str, *, width: int, digits: int) -> None:
    """Print each system's speed, keyed by title, and the ratio of the first system's speed to it, per round."""
    title, first = next(iter(speeds.items()))
    print(f"{'':{width}}{unit + '/s':>24}{'ratio':>20}{'a processor s':>16}{'ratio':>8}")
    for row, own in speeds.items():
        ratios = [a / b for a, b in zip(first.by_clock, own.by_clock)]
        of_processor = statistics.median(a / b for a, b in zip(first.by_processor, own.by_processor))
        print(
            f"{row:{width}}{median_and_range(own.by_clock, digits):>24}{median_and_range(ratios, 2):>20}"
            f"{statistics.median(own.by_processor):>16,.{digits}f}{of_processor:>8.2f}"
        )
    print(f"ratio: {title} against the row; above 1 it is the faster one")


@dataclass(frozen=True)
class Goal:
    """A measured value and its target; NaN counts as missed."""

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


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, with columns padded so that it is readable as plain text."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines)


def write_report(path: Optional[str], values: Mapping[str, Any]) -> None:
    """Write `values` as JSON, NaN as null, and print the path; does nothing if `path` is None."""
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
