"""A comparison as one HTML file that opens offline: it has no scripts, and loads no fonts or pictures."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddle_ranker.errors import package_for
from paddle_ranker.evaluation.comparison import Comparison, System
from paddle_ranker.evaluation.report.per_query import best_titles, query_differences, query_text
from paddle_ranker.evaluation.report.plots import BETTER, WORSE, intervals_svg, queries_svg
from paddle_ranker.evaluation.report.text import TIES_IN_WORDS, p_text, verdict
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.storage.atomic import new_file
from paddle_ranker.version import __version__

_TEMPLATES = Path(__file__).resolve().parent
EXAMPLES = 3  # how many wins, and how many losses, are shown for each system
TITLES_SHOWN = 5  # how many titles of a list are shown


def write_report(path: str, comparison: Comparison, measure: str, data: Mapping[str, str]) -> None:
    """Write the HTML page atomically.

    measure: the measure that the pictures and the examples of wins and losses show
    data: descriptions of the data files, by the option that names the file

    Raises `DependencyError` if Jinja2 or matplotlib is missing.
    """
    by_query = comparison.by_query[comparison.reference]
    listed = measure if measure in by_query else ("ndcg@10" if by_query else None)
    drawn = list(dict.fromkeys([measure, *(name for name in ("auc", "mrr@10") if name in comparison.measures)]))
    page = template("page.html.j2").render(
        comparison=comparison,
        reference=next(system for system in comparison.systems if system.name == comparison.reference),
        file=comparison.pairs.source.replace("\\", "/").rpartition("/")[2],
        measure=measure,
        measures=MEASURES,
        best={name: _best_value(comparison, name) for name in comparison.measures},
        intervals=as_url(intervals_svg(comparison, drawn)),
        listed_measure=listed,
        listed=[_query_by_query(comparison, system, listed) for system in comparison.others] if listed else [],
        titles_shown=TITLES_SHOWN,
        data=data,
        ties=TIES_IN_WORDS[comparison.ties],
        relevant=RELEVANT,
        colors={"better": BETTER, "worse": WORSE},
        version=__version__,
        date=datetime.date.today().isoformat(),
        best_titles=best_titles,
        p_text=p_text,
        query_text=query_text,
        verdict=verdict,
    )
    with new_file(path) as stream:
        stream.write(page)


def template(name: str) -> Any:
    """Return the Jinja2 template `name` of this folder; raises `DependencyError` if Jinja2 is missing."""
    with package_for("--report", "jinja2"):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    loader = FileSystemLoader(_TEMPLATES)
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    ).get_template(name)


def _best_value(comparison: Comparison, measure: str) -> float:
    values = [measured[measure].interval.estimate for measured in comparison.measured.values()]
    return max(values, key=MEASURES[measure].sign.__mul__)


def _query_by_query(comparison: Comparison, system: System, measure: str) -> dict[str, Any]:
    """Return a system's part of the page: its differences from the reference, query by query, as a picture.

    The part also has the queries with the largest wins and losses.
    """
    differences = query_differences(comparison, system.name, measure)
    return {
        "system": system,
        "picture": as_url(queries_svg(differences, measure)),
        "wins": [difference for difference in differences[::-1][:EXAMPLES] if difference.outcome == "win"],
        "losses": [difference for difference in differences[:EXAMPLES] if difference.outcome == "loss"],
    }


def as_url(svg: str) -> str:
    """Return an SVG picture as a data URL, so that a page with several pictures has no clashing element ids."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode('utf-8')).decode('ascii')}"
