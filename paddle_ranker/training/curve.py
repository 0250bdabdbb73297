"""Read a training's `metrics.jsonl`, and plot loss, evaluation metrics and learning rate over the steps.

paddle-ranker curve first/checkpoint:second/checkpoint --output both.png
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, TypedDict, cast

import numpy as np

from paddle_ranker.errors import DataError
from paddle_ranker.metrics.ranking import Floats
from paddle_ranker.storage.picture import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW, new_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS_FILE = "metrics.jsonl"
PICTURE_FILE = "learning_curve.png"
_COLORS = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK)
_GREY = "#8a8a8a"
_SHARES = 40  # the smoothed loss is a mean over this fraction of the progress lines
_MOST_POINTS = 5000
_MOST_EPOCHS = 20  # above that, their marks would hide the curves


class MetricsLine(TypedDict, total=False):
    """A line of `metrics.jsonl`. Evaluations have the last three fields; progress lines also hold the task's means."""

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
    """Yield the records of a `metrics.jsonl`; skip invalid lines, such as one that a kill left incomplete."""
    for _, record in metric_lines(path):
        yield record


def metric_lines(path: Path) -> Iterator[tuple[bytes, MetricsLine]]:
    """Yield each record of a `metrics.jsonl` as the line's bytes and parsed; skip invalid lines."""
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
    """The metrics of one training.

    Attributes:
        steps, loss, learning_rate, epochs: `[n]` float64, one value a progress line; NaN if the line has none.
        evaluated: `[m]` float64, the steps of the evaluations.
        metrics: a dict from name to `[m]` float64; NaN if an evaluation lacks the metric.
        metric: the name of the metric that decides which checkpoint is best; None without an evaluation.
        lower_is_better: whether the lowest value of `metric` is the best, instead of the highest.
    """

    name: str
    steps: Floats
    loss: Floats
    learning_rate: Floats
    epochs: Floats
    evaluated: Floats
    metrics: dict[str, Floats]
    metric: Optional[str]
    lower_is_better: bool = False

    @property
    def best(self) -> Optional[int]:
        """The index of the best evaluation, the first of equal ones; None if there is no finite value."""
        values = self.metrics[self.metric] if self.metric else np.array([])
        if not np.isfinite(values).any():
            return None
        return int(np.nanargmin(values) if self.lower_is_better else np.nanargmax(values))


def read_curve(path: Path, name: str) -> Curve:
    """Read a `metrics.jsonl`; `name` is the curve's. Raises `DataError` if the file cannot be read."""
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


_LINE_COLUMNS = {"steps": "step", "loss": "loss", "learning_rate": "learning_rate", "epochs": "epoch"}


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def smooth(values: Floats, width: int) -> Floats:
    """Return a moving average over windows of `width` (odd) values, fewer at the ends; NaN values are ignored.

    Args:
        values: `[n]` float64.
    """
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    place = np.arange(len(values))
    first, end = np.maximum(place - width // 2, 0), np.minimum(place + width // 2 + 1, len(values))
    with np.errstate(invalid="ignore"):
        means: Floats = (sums[end] - sums[first]) / (counts[end] - counts[first])
    return means


def draw_learning_curve(metrics: Path, picture: Path) -> None:
    """Plot one training's `metrics.jsonl` into the PNG file `picture`, 1000 x 800 pixels, replaced atomically.

    Raises:
        DataError: `metrics` cannot be read.
        DependencyError: matplotlib is not installed.
    """
    draw_learning_curves([read_curve(metrics, metrics.resolve().parent.name)], picture)


def draw_learning_curves(curves: Sequence[Curve], picture: Path) -> None:
    """Plot several trainings in one picture, a colour each; a single one also with its other metrics between 0 and 1.

    Raises `DependencyError` if matplotlib is not installed.
    """
    with new_picture(picture, 10.0, 8.0, dots_per_inch=100, what="a learning curve") as figure:
        axes = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": (4, 4, 1.6)})
        figure.suptitle(_title(curves), fontsize=13, parse_math=False)
        _draw_losses(axes[0], curves)
        _draw_metrics(axes[1], curves)
        _draw_learning_rates(axes[2], curves)
        for panel in axes:
            panel.grid(color="#e3e3e3", linewidth=0.8)
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
            panel.spines[["left", "bottom"]].set_color(_GREY)
        axes[-1].set_xlabel("step")
        last = max(
            (steps.max() for curve in curves for steps in (curve.steps, curve.evaluated) if len(steps)), default=1
        )
        axes[-1].set_xlim(0, 1.02 * last)


def _draw_losses(panel: Axes, curves: Sequence[Curve]) -> None:
    panel.set_ylabel("training loss")
    lows, tops = [], []
    for curve, color in zip(curves, _COLORS * len(curves)):
        if not np.isfinite(curve.loss).any():
            continue
        width = len(curve.loss) // _SHARES * 2 + 1
        smoothed = smooth(curve.loss, width)
        names = (f"mean of {width} lines", "each progress line") if len(curves) == 1 else (_shown(curve.name), None)
        if width > 1:
            panel.plot(*_thinned(curve.steps, smoothed), color=color, linewidth=2, label=names[0], zorder=3)
            panel.plot(*_thinned(curve.steps, curve.loss), color=color, linewidth=0.8, alpha=0.3, label=names[1])
        else:
            label = names[1] or names[0]
            panel.plot(curve.steps, curve.loss, color=color, linewidth=1.5, marker="o", markersize=3, label=label)
        lows.append(float(np.nanmin(curve.loss)))
        tops.append(float(max(np.nanpercentile(curve.loss, 99), np.nanmax(smoothed))))
    if not tops:
        _show_empty(panel, "no progress line yet")
        return
    if len(curves) == 1:
        _mark_epochs(panel, curves[0])
    low, top = min(lows), max(tops)
    if low < top:  # a few outliers must not press the curve flat
        panel.set_ylim(low - 0.05 * (top - low), top + 0.05 * (top - low))
    _add_legend(panel, "upper right")


def _mark_epochs(panel: Axes, curve: Curve) -> None:
    changes = np.flatnonzero(np.diff(curve.epochs) > 0)
    if not 0 < len(changes) <= _MOST_EPOCHS:
        return
    for change in changes:
        step = (curve.steps[change] + curve.steps[change + 1]) / 2
        panel.axvline(step, color=_GREY, linewidth=0.8, linestyle=":")
        text = f" epoch {curve.epochs[change + 1]:.0f}"
        panel.text(
            step,
            0.99,
            text,
            transform=panel.get_xaxis_transform(),
            fontsize=8,
            color=_GREY,
            va="top",
            in_layout=False,
            clip_on=True,
        )


def _draw_metrics(panel: Axes, curves: Sequence[Curve]) -> None:
    metrics = dict.fromkeys(curve.metric for curve in curves if curve.metric)
    panel.set_ylabel(_shown("dev " + ", ".join(metrics)) if metrics and len(curves) > 1 else "development file")
    if not metrics:
        _show_empty(panel, "no evaluation yet")
        return
    for curve, color in zip(curves, _COLORS * len(curves)):
        if curve.metric is None or curve.best is None:
            continue
        values, step = curve.metrics[curve.metric], curve.evaluated[curve.best]
        best = f"best {values[curve.best]:.3f} at step {step:.0f}"
        label = _shown(f"{curve.metric if len(curves) == 1 else curve.name}: {best}")
        panel.plot(curve.evaluated, values, color=color, linewidth=2, marker="o", markersize=4, label=label, zorder=3)
        panel.plot(step, values[curve.best], "*", color=color, markersize=15, markeredgecolor="white", zorder=4)
        if len(curves) == 1:
            panel.axvline(step, color=color, linewidth=0.8, linestyle=":")
            _draw_other_metrics(panel, curve)
    _add_legend(panel, "best")


def _draw_other_metrics(panel: Axes, curve: Curve) -> None:
    others = {name: values for name, values in curve.metrics.items() if name != curve.metric and _is_share(values)}
    for (name, values), color in zip(others.items(), _COLORS[1:]):
        panel.plot(curve.evaluated, values, color=color, linewidth=1.1, marker=".", label=_shown(name))


def _is_share(values: Floats) -> bool:
    """Return whether a metric lies between 0 and 1, as AUC and nDCG do; counts would need an axis of their own."""
    known = values[np.isfinite(values)]
    return bool(len(known)) and bool(((known >= 0) & (known <= 1)).all())


def _draw_learning_rates(panel: Axes, curves: Sequence[Curve]) -> None:
    panel.set_ylabel("learning rate")
    if not any(np.isfinite(curve.learning_rate).any() for curve in curves):
        panel.set_yticks([])
        return
    for curve, color in zip(curves, _COLORS * len(curves)):
        dot = "o" if len(curve.steps) == 1 else None
        panel.plot(*_thinned(curve.steps, curve.learning_rate), color=color, linewidth=1.5, marker=dot, markersize=3)
    panel.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    panel.set_ylim(bottom=0)


def _thinned(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return every n-th point, few enough to plot: matplotlib fails on a path of a million points."""
    every = len(steps) // _MOST_POINTS + 1
    return steps[::every], values[::every]


def _add_legend(panel: Axes, place: str) -> None:
    if panel.get_legend_handles_labels()[0]:  # an empty one makes matplotlib warn
        panel.legend(loc=place, fontsize=9, framealpha=0.9)


def _show_empty(panel: Axes, words: str) -> None:
    panel.text(0.5, 0.5, words, transform=panel.transAxes, ha="center", va="center", color=_GREY)
    panel.set_yticks([])


def _title(curves: Sequence[Curve]) -> str:
    if len(curves) > 1:
        return f"{len(curves)} trainings"
    (curve,) = curves
    steps = max([0.0, *curve.steps[-1:], *curve.evaluated[-1:]])
    return f"{_printable(curve.name)}: {steps:.0f} steps"


def _printable(name: str) -> str:
    """Return the name in ASCII, since matplotlib's own font lacks other characters."""
    return name.encode("ascii", "replace").decode()


def _shown(name: str) -> str:
    """Escape a name for a legend: dollar signs must not begin a formula, a leading underscore would hide it."""
    return _printable(name).replace("$", r"\$").lstrip("_")
