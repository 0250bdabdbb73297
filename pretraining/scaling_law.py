"""Train a ladder of encoders within a budget, fit power laws to their losses, and check them on a larger one.

paddle-ranker scaling-law --train 'texts/*.txt' --budget_minutes 30
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.errors import UsageError
from paddle_ranker.options import main_of
from paddle_ranker.storage.atomic import make_folder, new_file
from paddle_ranker.storage.plotting import BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW, new_picture
from pretraining.ladder import ScalingLawOptions, open_runs
from pretraining.power_law import ComputeLaw, LossLaw, fit_compute_law, fit_loss_law, forecast, gamma_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REPORT_FILE, PICTURE_FILE = "scaling_law.json", "scaling_law.png"
_COLORS = (BLUE, YELLOW, GREEN, PURPLE, SKY, ORANGE, "#6b7280")
_GREY, _BLACK = "#6b7280", "#1f2937"


def scaling_law(options: ScalingLawOptions) -> dict[str, Any]:
    """Train, fit, predict and check; return the contents of `scaling_law.json`.

    Raises `UsageError` if the budget is too small, `DataError` if the files have too few tokens for it.
    """
    started = time.monotonic()
    if int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1:
        raise UsageError("a ladder is trained by one process, run after run: start it without a launcher")
    runtime.prepare_command(options.cpu_threads)
    runtime.select_device(options.device)
    folder = make_folder(options.output_dir)

    runs = open_runs(options, folder)
    ladder = runs.plan(started)
    results = []
    for number, rung in enumerate(ladder.rungs, 1):
        tokens = runs.tokens_read(rung)
        print(
            f"run {number} of {len(ladder.rungs) + 1}: {rung.size}, {tokens:,.0f} tokens, seed {rung.seed}", flush=True
        )
        results.append(runs.result(rung))

    n, d, c, losses = (np.array([run[name] for run in results]) for name in ("parameters", "tokens", "flops", "loss"))
    held_out = runs.facts(ladder.held_out)
    law, compute_law = fit_loss_law(n, d, losses), fit_compute_law(c, losses)
    at = held_out["parameters"], held_out["tokens"]
    predicted = forecast(law, n, d, losses, at=at, resamples=options.resamples, seed=options.seed)
    held_out["predicted"] = asdict(predicted.loss)
    gamma = None
    if compute_law:
        gamma = gamma_interval(compute_law, c, losses, resamples=options.resamples, seed=options.seed)
    report = {
        "loss_law": {name: asdict(interval) for name, interval in predicted.constants.items()},
        "undetermined": list(law.undetermined),
        "compute_law": compute_law
        and {
            "K": compute_law.scale,
            "gamma": asdict(gamma) if gamma else {"estimate": compute_law.gamma},
            "runs": [run["name"] for run, on_it in zip(results, compute_law.frontier) if on_it],
        },
        "held_out": held_out,
        "runs": results,
    }
    _write(folder / REPORT_FILE, report)  # the prediction is on the disk before its loss is measured
    print_laws(report)

    shown = f"{held_out['size']}, {held_out['parameters']:,} parameters, {held_out['tokens']:,.0f} tokens"
    print(
        f"run {len(results) + 1} of {len(results) + 1}, held out: {shown}; predicted loss {predicted.loss}", flush=True
    )
    measured = runs.result(ladder.held_out)
    held_out.update(measured, error=measured["loss"] - predicted.loss.estimate)
    _write(folder / REPORT_FILE, report)
    draw_scaling(results, law, compute_law, held_out, folder / PICTURE_FILE)
    print_check(report)
    print(f"{folder / REPORT_FILE}, {folder / PICTURE_FILE}", flush=True)
    return report


def print_laws(report: dict[str, Any]) -> None:
    print(f"L(N, D) = E + A / N^alpha + B / D^beta, fitted to {len(report['runs'])} runs, with 95% intervals")
    print(
        "L: nats a masked token of held-out text; N: parameters of the layers, no embeddings, no head; D: tokens read"
    )
    for name, constant in report["loss_law"].items():
        print(f"  {name.replace('_', ' ')}: {constant['estimate']:.4g} [{constant['low']:.4g}, {constant['high']:.4g}]")
    if report["undetermined"]:
        print(
            f"warning: these runs do not determine {', '.join(report['undetermined'])}: far other values fit nearly as "
            "well; a larger budget, more --sizes or --seeds tell more"
        )
    law = report["compute_law"]
    if law is None:
        print("L(C): fewer than 3 runs that no cheaper one beats: no fit")
        return
    gamma = law["gamma"]
    interval = f" [{gamma['low']:.4g}, {gamma['high']:.4g}]" if "low" in gamma else ""
    print(f"L(C) = K / C^gamma through the {len(law['runs'])} runs that no cheaper one beats; C: operations")
    print(f"  K: {law['K']:.4g}; gamma: {gamma['estimate']:.4g}{interval}", flush=True)


def print_check(report: dict[str, Any]) -> None:
    """Print the measured and the predicted loss of the held-out run."""
    run = report["held_out"]
    predicted, measured, error = run["predicted"], run["loss"], run["error"]
    inside = "inside" if predicted["low"] <= measured <= predicted["high"] else "outside"
    print(
        f"held out, {run['size']}: predicted {predicted['estimate']:.4f} [{predicted['low']:.4f}, "
        f"{predicted['high']:.4f}], measured {measured:.4f}, error {error:+.4f} "
        f"({error / predicted['estimate']:+.1%}), {inside} the interval"
    )


def _write(path: Path, report: dict[str, Any]) -> None:
    with new_file(path) as stream:
        json.dump(report, stream, indent=1)


def draw_scaling(
    runs: list[dict[str, Any]], law: LossLaw, compute_law: Optional[ComputeLaw], held_out: dict[str, Any], path: Path
) -> None:
    """Plot runs and laws into the PNG file `path`, replaced atomically.

    Args:
        runs: each run's metrics: `size`, `parameters`, `tokens`, `flops`, `loss`.
        held_out: the held-out run's metrics, with `predicted` (`estimate`, `low`, `high`); `loss` only once the run is
            complete.

    Raises `DependencyError` if matplotlib is not installed.
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
    """Plot the losses over `name` (N or D), and the law's curve for each value of `other` (D or N)."""
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


main = main_of(scaling_law, ScalingLawOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
