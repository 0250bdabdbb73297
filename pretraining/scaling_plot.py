"""The picture of a scaling law: loss against parameters, tokens and compute, with the run that checks it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from paddle_ranker.storage.picture import BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW, new_picture
from pretraining.power_law import ComputeLaw, LossLaw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = (BLUE, YELLOW, GREEN, PURPLE, SKY, ORANGE, "#6b7280")
_GREY, _BLACK = "#6b7280", "#1f2937"


def draw_scaling(
    runs: list[dict[str, Any]], law: LossLaw, compute_law: Optional[ComputeLaw], held_out: dict[str, Any], path: Path
) -> None:
    """Draw runs and laws into the PNG file `path`, replaced atomically.

    Args:
        runs: metrics of each: `size`, `parameters`, `tokens`, `flops`, `loss`.
        held_out: the same of the run that was predicted, with `predicted` (`estimate`, `low`, `high`) and, once it has
            ended, `loss`.

    Raises `DependencyError` where matplotlib is not installed.
    """
    with new_picture(path, 13.0, 4.6, dots_per_inch=110, what="the picture") as figure:
        _draw_panels(figure, runs, law, compute_law, held_out)


def _draw_panels(
    figure: Figure,
    runs: list[dict[str, Any]],
    law: LossLaw,
    compute_law: Optional[ComputeLaw],
    held_out: dict[str, Any],
) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator

    panels = figure.subplots(1, 3, sharey=True)
    for panel, name, other, label in (
        (panels[0], "parameters", "tokens", "parameters of the layers"),
        (panels[1], "tokens", "parameters", "tokens read"),
    ):
        _draw_runs(panel, runs, law, held_out, name, other)
        panel.set_xlabel(label)
    _draw_compute(panels[2], runs, compute_law, held_out)
    panels[2].set_xlabel("floating-point operations")
    panels[0].set_ylabel("held-out loss, nats a masked token")
    for panel in panels:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if panel is not panels[2] else (1,)))
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.minorticks_off()
        _mark_held_out(panel, {panels[0]: "parameters", panels[1]: "tokens", panels[2]: "flops"}[panel], held_out)
        panel.grid(color="#e3e3e3", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=8, framealpha=0.9)


def _draw_runs(
    panel: Axes, runs: list[dict[str, Any]], law: LossLaw, held_out: dict[str, Any], name: str, other: str
) -> None:
    """Draw the losses against one of N and D, and the law's curve for each value of the other."""
    xs = np.geomspace(min(run[name] for run in runs), held_out[name], 100)
    levels = sorted({run[other] for run in runs} | {held_out[other]})
    for place, level in enumerate(levels):
        color = _COLORS[place % len(_COLORS)]
        curve = law.loss(xs, level) if name == "parameters" else law.loss(level, xs)
        panel.plot(xs, curve, color=color, linewidth=1.2, label=f"{level:.3g} {other}")
        points = [(run[name], run["loss"]) for run in runs if run[other] == level]
        if points:
            panel.plot(*zip(*points), "o", color=color, markersize=5)


def _draw_compute(panel: Axes, runs: list[dict[str, Any]], law: Optional[ComputeLaw], held_out: dict[str, Any]) -> None:
    sizes = {run["size"]: run["parameters"] for run in runs}
    for place, size in enumerate(sorted(sizes, key=lambda size: sizes[size])):
        points = sorted((run["flops"], run["loss"]) for run in runs if run["size"] == size)
        panel.plot(*zip(*points), "o-", color=_COLORS[place % len(_COLORS)], markersize=5, linewidth=0.6, label=size)
    if law is not None:
        xs = np.geomspace(min(run["flops"] for run in runs), held_out["flops"], 100)
        panel.plot(xs, law.loss(xs), "--", color=_GREY, label=f"{law.scale:.3g} / C^{law.gamma:.3f}")


def _mark_held_out(panel: Axes, name: str, held_out: dict[str, Any]) -> None:
    predicted, x = held_out["predicted"], held_out[name]
    estimate = predicted["estimate"]
    bars = [[max(0.0, estimate - predicted["low"])], [max(0.0, predicted["high"] - estimate)]]
    panel.errorbar(
        [x], [estimate], bars, fmt="s", color=_BLACK, fillstyle="none", capsize=4, label=f"{held_out['size']} predicted"
    )
    if held_out.get("loss") is not None:
        panel.plot(x, held_out["loss"], "*", color=ORANGE, markersize=13, label=f"{held_out['size']} measured")
