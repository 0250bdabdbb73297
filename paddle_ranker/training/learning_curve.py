"""Read a training's `metrics.jsonl`, and plot loss, evaluation metrics and learning rate over the steps.

paddle-ranker curve first/checkpoint:second/checkpoint --output both.png
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, TypedDict, cast

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.errors import DataError, one_line
from paddle_ranker.storage.plotting import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW, new_picture

METRICS_FILE = "metrics.jsonl"
PICTURE_FILE = "learning_curve.png"
_COLORS = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK)
_SHARES = 40  # the smoothed loss is a mean over this fraction of the progress lines
_MOST_POINTS = 5000
_SECONDS = 30  # after which drawing a picture is ended
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_CHILD = "import sys; from paddle_ranker.training.learning_curve import draw_and_exit; draw_and_exit(*sys.argv[1:])"


class MetricsLine(TypedDict, total=False):
    """A line of `metrics.jsonl`.

    A progress line has no `evaluation`, `metric` and `lower_is_better`, and also has the task's means. An evaluation
    has only `step`, `time`, `evaluation`, `metric` and, if True, `lower_is_better`.
    """

    step: int
    time: float
    epoch: int
    batch: int
    loss: Optional[float]
    learning_rate: Optional[float]
    gradient_norm: Optional[float]
    loss_scale: float
    examples: int
    seconds: float
    steps_per_second: float
    evaluation: dict[str, Optional[float]]
    metric: str
    lower_is_better: bool


def read_metrics(path: Path) -> Iterator[MetricsLine]:
    """Yield the records of a `metrics.jsonl`; skip invalid lines, such as an incomplete last line."""
    for _, record in metric_lines(path):
        yield record


def metric_lines(path: Path) -> Iterator[tuple[bytes, MetricsLine]]:
    """Yield each line of a `metrics.jsonl` as (bytes, parsed record); skip invalid lines."""
    with path.open("rb") as stream:
        for line in stream:
            try:
                record = json.loads(line)
            except ValueError:  # UnicodeDecodeError, for a cut character, is one too
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int) and line.endswith(b"\n"):
                yield line, cast(MetricsLine, record)


@dataclass(frozen=True)
class Curve:
    """Metrics of one training.

    Attributes:
        steps, loss, learning_rate: `[n]` float64, one value for each progress line; NaN if the line has none.
        evaluated: `[m]` float64, the steps of the evaluations.
        metrics: values of each metric, `[m]` float64, by the metric's name; NaN if an evaluation lacks it.
        metric: name of the metric that decides which checkpoint is best; None without an evaluation.
        lower_is_better: whether the lowest value of `metric` is the best, instead of the highest.
    """

    name: str
    steps: Floats
    loss: Floats
    learning_rate: Floats
    evaluated: Floats
    metrics: dict[str, Floats]
    metric: Optional[str]
    lower_is_better: bool = False

    @property
    def best(self) -> Optional[int]:
        """The index of the best evaluation; of equally good evaluations, the first. None if no value is finite."""
        values = self.metrics[self.metric] if self.metric else np.array([])
        if not np.isfinite(values).any():
            return None
        return int(np.nanargmin(values) if self.lower_is_better else np.nanargmax(values))


def read_curve(path: Path, name: str) -> Curve:
    """Read a `metrics.jsonl`; raises `DataError` if it cannot be read.

    name: name of the curve in the picture
    """
    lines = {column: array("d") for column in _LINE_COLUMNS}
    evaluations = []
    try:
        for record in read_metrics(path):  # one by one: a million dictionaries would take a gigabyte
            if "evaluation" in record:
                evaluations.append(record)
                continue
            for column, values in lines.items():
                values.append(_number(record.get(_LINE_COLUMNS[column])))
    except OSError as error:
        raise DataError(f"{path}: cannot read it ({error.strerror}); name the --output of a training") from error
    names = dict.fromkeys(name for record in evaluations for name in record["evaluation"])
    metric = evaluations[-1].get("metric") if evaluations else None
    return Curve(
        name=name,
        **{column: np.array(values) for column, values in lines.items()},
        evaluated=np.array([float(record["step"]) for record in evaluations]),
        metrics={name: np.array([_number(record["evaluation"].get(name)) for record in evaluations]) for name in names},
        metric=metric if metric in names else None,
        lower_is_better=bool(evaluations and evaluations[-1].get("lower_is_better")),
    )


_LINE_COLUMNS = {"steps": "step", "loss": "loss", "learning_rate": "learning_rate"}


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def smooth(values: Floats, width: int) -> Floats:
    """Return a moving average over windows of `width` values (an odd number); NaN values are ignored.

    At both ends, windows have fewer values.

    values: `[n]` float64
    """
    is_finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(is_finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(is_finite)])
    place = np.arange(len(values))
    first, end = np.maximum(place - width // 2, 0), np.minimum(place + width // 2 + 1, len(values))
    with np.errstate(invalid="ignore"):
        means: Floats = (sums[end] - sums[first]) / (counts[end] - counts[first])
    return means


def draw_learning_curve(metrics: Path, picture: Path) -> None:
    """Plot one training's `metrics.jsonl` into the PNG file `picture`, 1000 x 800 pixels; write the file atomically.

    A process of its own plots, so that what plotting does with too little memory neither holds nor ends the training.

    Raises `DataError` if the picture cannot be written, also for want of matplotlib or within `_SECONDS`.
    """
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **dict.fromkeys(_THREADS, "1")}
    try:
        process = subprocess.run(
            [sys.executable, "-c", _CHILD, str(metrics), str(picture)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env={**os.environ, **environment},
            start_new_session=True,  # Ctrl-C reaches the training, which ends the process
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"took more than {_SECONDS} seconds: draw it by paddle-ranker curve") from None
    if process.returncode:
        lines = process.stderr.splitlines() or [f"drawing ended with status {process.returncode}"]
        raise DataError(lines[-1])


def draw_and_exit(metrics: str, picture: str) -> None:
    """Run the process of `draw_learning_curve`; print an error on stderr and exit with 1 if nothing can be drawn."""
    try:
        draw_learning_curves([read_curve(Path(metrics), Path(metrics).resolve().parent.name)], Path(picture))
    except Exception as error:
        sys.exit(one_line(error))


def draw_learning_curves(curves: Sequence[Curve], picture: Path) -> None:
    """Plot trainings in one picture, each in its colour; of a single training, plot all metrics with values in [0, 1].

    Raises `DependencyError` if matplotlib is not installed.
    """
    is_one = len(curves) == 1
    ends = [steps.max() for curve in curves for steps in (curve.steps, curve.evaluated) if len(steps)]
    metrics = ", ".join(dict.fromkeys(curve.metric for curve in curves if curve.metric))
    with new_picture(picture, 10.0, 8.0, dots_per_inch=100, what="a learning curve") as figure:
        panels = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": (4, 4, 1.6)})
        title = (
            f"{_printable(curves[0].name)}: {max(ends, default=0):.0f} steps" if is_one else f"{len(curves)} trainings"
        )
        figure.suptitle(title, fontsize=13, parse_math=False)
        bounds = []
        for curve, color in zip(curves, _COLORS * len(curves)):
            every = len(curve.steps) // _MOST_POINTS + 1  # matplotlib fails on a path of a million points
            width = len(curve.loss) // _SHARES * 2 + 1
            mean, dot = smooth(curve.loss, width), {"marker": "o", "markersize": 3} if len(curve.steps) == 1 else {}
            label = f"mean of {width} lines" if is_one else _shown(curve.name)
            panels[0].plot(curve.steps[::every], mean[::every], color=color, linewidth=2, label=label, **dot)
            panels[0].plot(curve.steps[::every], curve.loss[::every], color=color, linewidth=0.8, alpha=0.3)
            panels[2].plot(curve.steps[::every], curve.learning_rate[::every], color=color, **dot)
            if np.isfinite(curve.loss).any():  # a few outliers must not press the curve flat
                bounds += [np.nanmin(curve.loss), max(np.nanpercentile(curve.loss, 99), np.nanmax(mean))]
            if curve.metric is None or curve.best is None:
                continue
            step, best = curve.evaluated[curve.best], curve.metrics[curve.metric][curve.best]
            label = _shown(f"{curve.metric if is_one else curve.name}: best {best:.3f} at step {step:.0f}")
            panels[1].plot(curve.evaluated, curve.metrics[curve.metric], "o-", color=color, markersize=4, label=label)
            panels[1].plot(step, best, "*", color=color, markersize=15, markeredgecolor="white")
            shares = [
                name for name in curve.metrics if is_one and name != curve.metric and _is_share(curve.metrics[name])
            ]
            for name, other in zip(shares, _COLORS[1:]):
                panels[1].plot(
                    curve.evaluated, curve.metrics[name], ".-", color=other, linewidth=1.1, label=_shown(name)
                )
        if bounds and min(bounds) < max(bounds):
            margin = 0.05 * (max(bounds) - min(bounds))
            panels[0].set_ylim(min(bounds) - margin, max(bounds) + margin)
        for panel, words in zip(
            panels, ("training loss", f"dev {metrics}" if metrics else "no evaluation", "learning rate")
        ):
            panel.set_ylabel(_shown(words))
            panel.grid(color="#e3e3e3", linewidth=0.8)
            if panel.get_legend_handles_labels()[0]:  # an empty legend makes matplotlib warn
                panel.legend(fontsize=9, framealpha=0.9)
        panels[2].set(xlabel="step", xlim=(0, 1.02 * max(ends, default=1)))


def _is_share(values: Floats) -> bool:
    """Return whether all finite values are between 0 and 1, as they are for AUC and nDCG."""
    finite = values[np.isfinite(values)]
    return bool(len(finite)) and bool(((finite >= 0) & (finite <= 1)).all())


def _printable(name: str) -> str:
    """Return the name in ASCII, since matplotlib's font lacks other characters."""
    return name.encode("ascii", "replace").decode()


def _shown(name: str) -> str:
    """Escape a name for matplotlib's legend: dollar signs would begin a formula, a leading underscore would hide it."""
    return _printable(name).replace("$", r"\$").lstrip("_")
