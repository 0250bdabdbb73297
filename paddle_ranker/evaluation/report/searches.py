"""A report of searches as one HTML file that opens offline, with pictures of the searches and clicks per day."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paddle_ranker.evaluation.report.comparison_page import as_url, template
from paddle_ranker.evaluation.report.plots import GRID, PLAIN, UNKNOWN, drawing, svg_of
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.storage.plotting import BLUE, ORANGE
from paddle_ranker.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DAY = Mapping[str, Any]


def write_searches(path: str, report: Mapping[str, Any], lists: Mapping[str, str]) -> None:
    """Write the HTML page atomically.

    report: the report that `paddle-ranker report-searches --format json` prints
    lists: for each key of a list of queries in `report`, the list's heading

    Raises `DependencyError` if Jinja2 or matplotlib is missing.
    """
    with drawing():
        pictures = {
            "Searches by day": as_url(_searches_svg(report["days"])),
            "Clicks by day": as_url(_clicks_svg(report["days"])),
        }
    page = template("searches.html.j2").render(
        report=report, lists=lists, pictures=pictures, version=__version__, date=datetime.date.today().isoformat()
    )
    with new_file(path) as stream:
        stream.write(page)


def _searches_svg(days: Sequence[_DAY]) -> str:
    """Draw the number of searches per day; searches without results have another colour. Return the picture as SVG."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10.0, 2.6), layout="constrained")
    panel, without = picture.subplots(), [day["without_results"] for day in days]
    with_results = [day["searches"] - day["without_results"] for day in days]
    dates = _prepare(panel, days)
    panel.bar(dates, with_results, color=BLUE, label="with results")
    panel.bar(dates, without, bottom=with_results, color=ORANGE, label="without results")
    panel.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncol=2)  # above the bars
    panel.set_ylabel("searches")
    return svg_of(picture)


def _clicks_svg(days: Sequence[_DAY]) -> str:
    """Draw each day's click rate and the mean rank of the day's clicks; return the picture as SVG."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10.0, 3.6), layout="constrained")
    for panel, name, title in zip(picture.subplots(2, 1), ("click_rate", "mean_rank"), ("click rate", "mean rank")):
        dates = _prepare(panel, days)
        points = [(date, day[name]) for date, day in zip(dates, days) if day[name] is not None]
        panel.plot([date for date, _ in points], [value for _, value in points], "o-", color=BLUE, markersize=4)
        panel.set_ylabel(title)
        if name == "click_rate":
            panel.set_ylim(0, 1)
        else:
            panel.set_ylim(max([value for _, value in points], default=1) + 1, 0.5)  # the first rank on top
    return svg_of(picture)


def _prepare(panel: Axes, days: Sequence[_DAY]) -> list[float]:
    """Prepare a panel with an axis of days; return the position of each day on the axis."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    dates = [float(date2num(datetime.date.fromisoformat(day["day"]))) for day in days]
    locator = AutoDateLocator(minticks=1, maxticks=8)
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    panel.set_xlim(dates[0] - 1, dates[-1] + 1)
    panel.grid(axis="y", color=GRID, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(colors=PLAIN)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.spines["left"].set_color(UNKNOWN)
    return dates
