"""A comparison as text for a terminal, and as JSON."""

from __future__ import annotations

import math
import unicodedata
from typing import Any, Optional

from paddle_ranker.evaluation.comparison import TITLES, Comparison, Figure
from paddle_ranker.metrics.intervals import Interval

TIES_IN_WORDS = {
    "against": "equal scores are ordered against the system, the less relevant title first",
    "trec_eval": "equal scores (in single precision) are ordered by document id, descending, as trec_eval does",
}


def systems_table(comparison: Comparison) -> list[str]:
    """Return the lines of a table: for each measure every system, its interval and its difference to the reference."""
    width = max(_columns(system.name) for system in comparison.systems)
    lines = []
    for measure in comparison.measures:
        lines.append(TITLES[measure])
        for system in comparison.systems:
            figure = comparison.figures[system.name][measure]
            padding = " " * (width - _columns(system.name))
            line = f"  {system.name}{padding}  {interval_text(figure.interval)}"
            lines.append(f"{line}  {difference_text(figure)}".rstrip())
    others = f"{len(comparison.others)} difference{'s' if len(comparison.others) > 1 else ''}"
    lines += [
        "",
        "[ ]: 95% bootstrap intervals over queries, those of differences paired. p: two-sided randomisation test, "
        f"after Holm's correction for the {others} to {comparison.reference} in one measure.",
    ]
    return lines


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes: an ideograph takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "FW" else 1 for character in text)


def interval_text(interval: Interval, sign: str = "") -> str:
    """Return `0.791 [0.740, 0.839]`; `sign` is `+` for differences."""
    if math.isnan(interval.low):
        return f"{interval.estimate:{sign}.3f}"
    return f"{interval.estimate:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def difference_text(figure: Figure) -> str:
    """Return a difference with its p-value and the queries won and lost; nothing for the reference."""
    if figure.difference is None:
        return ""
    parts = [f"{interval_text(figure.difference, '+')}  p {p_text(figure.corrected)}"]
    if figure.wins is not None:
        parts.append(f"wins {figure.wins}, losses {figure.losses}")
    return "  ".join(parts)


def p_text(p_value: Optional[float]) -> str:
    """Return a p-value with the digits that matter."""
    if p_value is None:
        return ""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def verdict(comparison: Comparison, name: str, measure: str) -> str:
    """Say in one sentence what is known about a system and the reference."""
    figure = comparison.figures[name][measure]
    assert figure.difference is not None
    is_known = figure.difference.excludes_zero() and figure.corrected is not None and figure.corrected < 0.05
    gap, ahead = interval_text(figure.difference, "+"), figure.difference.estimate > 0
    if is_known:
        return f"{name} is {'ahead of' if ahead else 'behind'} {comparison.reference}: {TITLES[measure]} {gap}."
    return f"No difference between {name} and {comparison.reference} is established: {TITLES[measure]} {gap}."


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison JSON-ready, with all digits."""
    return {
        **comparison.counts,
        "reference": comparison.reference,
        "ties": comparison.ties,
        "systems": {
            system.name: {
                "what": system.what,
                **system.facts,
                "measures": {
                    measure: figure_json(figure) for measure, figure in comparison.figures[system.name].items()
                },
            }
            for system in comparison.systems
        },
        "notes": comparison.pairs.notes,
    }


def figure_json(figure: Figure) -> dict[str, Any]:
    """Return a figure JSON-ready."""
    found: dict[str, Any] = _interval_json(figure.interval)
    if figure.difference is not None:
        found["difference"] = _interval_json(figure.difference)
        found.update(p_value=figure.p_value, corrected_p_value=figure.corrected)
    if figure.wins is not None:
        found.update(wins=figure.wins, losses=figure.losses)
    return found


def _interval_json(interval: Interval) -> dict[str, Optional[float]]:
    bounds = {"value": interval.estimate, "low": interval.low, "high": interval.high}
    return {name: None if math.isnan(value) else value for name, value in bounds.items()}
