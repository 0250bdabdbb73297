"""Pictures of a comparison: values and differences with their intervals, and differences per query."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from paddle_ranker.errors import package_for
from paddle_ranker.evaluation.comparison import Comparison, Measured
from paddle_ranker.evaluation.report.per_query import QueryDifference
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.plotting import BLUE, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BETTER, WORSE, UNKNOWN, PLAIN = BLUE, ORANGE, "#6b7280", "#1f2937"
_BAND, GRID = "#f3f4f6", "#d1d5db"
_CHINESE_FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei")
_MOST_BARS = 1000
_LEAST_WIDTH = 0.01
_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: the reader's fonts show any script
    "svg.hashsalt": "paddle_ranker",
    "font.size": 9.5,
    "axes.edgecolor": "#9ca3af",
    "axes.linewidth": 0.8,
    "text.color": PLAIN,
    "axes.labelcolor": PLAIN,
    "xtick.color": PLAIN,
    "ytick.color": PLAIN,
}


def intervals_svg(comparison: Comparison, measures: Sequence[str]) -> str:
    """Draw the systems' values and differences, with one row of panels per measure; return the picture as SVG."""
    with drawing():
        return svg_of(_draw_intervals(comparison, measures))


def queries_svg(differences: Sequence[QueryDifference], measure: str) -> str:
    """Draw one system's differences per query, wins first; return the picture as SVG."""
    with drawing():
        return svg_of(_draw_queries(differences, measure))


def write_plot(path: str, comparison: Comparison, measure: str) -> None:
    """Draw the values and differences of one measure into a file; its extension chooses PNG, SVG or PDF."""
    kind = path.lower().rpartition(".")[2]
    with drawing(), new_file(path, "wb") as stream:
        _draw_intervals(comparison, [measure]).savefig(stream, format=kind, dpi=150)


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with the reports' settings within the block; raises `DependencyError` if matplotlib is missing."""
    with package_for("a picture", "matplotlib"):
        import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in _CHINESE_FONTS if name in installed)]
    with matplotlib.rc_context({**_SETTINGS, "font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in scripts that the default font lacks
        yield


def svg_of(picture: Figure) -> str:
    stream = io.StringIO()
    picture.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _draw_intervals(comparison: Comparison, measures: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure

    systems = [system.name for system in comparison.systems]
    height = len(measures) * (1.1 + 0.36 * len(systems))
    picture = Figure(figsize=(10.0, height))
    picture.set_layout_engine("constrained", h_pad=0.15)  # inches, since a reader's fonts may be larger
    rows = picture.subplots(len(measures), 2, squeeze=False)
    for (values, gaps), measure in zip(rows, measures):
        for panel in (values, gaps):
            _prepare(panel, systems)
        values.set_title(MEASURES[measure].title, loc="left", fontsize=10.5, fontweight="bold")
        gaps.set_title(f"difference to {_escaped(comparison.reference)}", loc="left", fontsize=10.5)
        gaps.set_yticklabels([])
        gaps.axvline(0, color=PLAIN, linewidth=0.9)
        for place, name in enumerate(systems):
            measured = comparison.measured[name][measure]
            _draw_interval(values, place, measured.interval, PLAIN)
            if measured.difference is None:
                _write_beside(gaps, place, "reference", UNKNOWN)
                continue
            _draw_interval(gaps, place, measured.difference, color_of(measured), "+")
        for panel in (values, gaps):
            _widen(panel)
    return picture


def _widen(panel: Axes) -> None:
    """Widen the panel's axis to a range of at least 0.01, so that rounding differences do not fill the panel."""
    low, high = panel.get_xlim()
    if high - low < _LEAST_WIDTH:
        panel.set_xlim((low + high - _LEAST_WIDTH) / 2, (low + high + _LEAST_WIDTH) / 2)


def color_of(measured: Measured) -> str:
    """Return the colour of a difference: grey if no difference is established."""
    return {"better": BETTER, "worse": WORSE}.get(measured.verdict, UNKNOWN)


def _prepare(panel: Axes, systems: Sequence[str]) -> None:
    panel.set_yticks(range(len(systems)), [_escaped(name) for name in systems])
    panel.set_ylim(len(systems) - 0.5, -0.5)  # the first on top
    panel.tick_params(axis="y", length=0)
    panel.locator_params(axis="x", nbins=6)
    panel.grid(axis="x", color=GRID, linewidth=0.6)
    panel.set_axisbelow(True)
    for place in range(0, len(systems), 2):
        panel.axhspan(place - 0.5, place + 0.5, color=_BAND, zorder=0, linewidth=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)


def _draw_interval(panel: Axes, place: int, interval: Interval, color: str, sign: str = "") -> None:
    if not np.isnan(interval.low):
        bounds = [interval.low, interval.high]
        panel.plot(bounds, [place, place], color=color, linewidth=2.4, solid_capstyle="round", alpha=0.55)
    panel.plot([interval.estimate], [place], "o", color=color, markersize=6)
    _write_beside(panel, place, f"{interval.estimate:{sign}.3f}", color)


def _write_beside(panel: Axes, place: int, text: str, color: str) -> None:
    panel.text(1.02, place, text, transform=panel.get_yaxis_transform(), va="center", fontsize=9, color=color)


def _draw_queries(differences: Sequence[QueryDifference], measure: str) -> Figure:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10.0, 1.9), layout="constrained")
    panel = picture.subplots()
    outcomes = [difference.outcome for difference in differences]
    drawn = differences[:: -(len(differences) // _MOST_BARS + 1)]  # wins first; of very many every n-th
    values = np.array([query.difference for query in drawn])
    colors = [{"win": BETTER, "loss": WORSE, "tie": UNKNOWN}[query.outcome] for query in drawn]
    panel.bar(np.arange(len(values)), values, width=1.0, color=colors, linewidth=0)
    panel.axhline(0, color=PLAIN, linewidth=0.9)
    panel.set_xlim(-0.5, max(len(values), 1) - 0.5)
    top = max(0.01, float(np.abs(values).max(initial=0.0))) * 1.1
    panel.set_ylim(-top, top)
    panel.set_ylabel(f"{MEASURES[measure].title} difference")
    panel.set_xlabel("queries, by difference")
    panel.set_xticks([])
    panel.grid(axis="y", color=GRID, linewidth=0.6)
    panel.set_axisbelow(True)
    for side in ("top", "right", "bottom"):
        panel.spines[side].set_visible(False)
    counts = {name: outcomes.count(name) for name in ("win", "loss", "tie")}
    for x, ha, y, va, words, color in (
        (0.01, "left", 0.04, "bottom", f"{counts['win']} won", BETTER),
        (0.5, "center", 0.04, "bottom", f"{counts['tie']} level", UNKNOWN),
        (0.99, "right", 0.96, "top", f"{counts['loss']} lost", WORSE),
    ):
        panel.text(x, y, words, transform=panel.transAxes, ha=ha, va=va, color=color, fontsize=9.5, fontweight="bold")
    return picture


def _escaped(name: str) -> str:
    """Escape a name so that matplotlib shows it as text, not as a formula."""
    return name.replace("$", r"\$")
