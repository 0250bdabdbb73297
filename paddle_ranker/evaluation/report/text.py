"""A comparison as text for a terminal, and as JSON."""

from __future__ import annotations

import math
import unicodedata
from typing import Any, Optional

from paddle_ranker.evaluation.comparison import Comparison, Measured
from paddle_ranker.metrics.intervals import Interval
from paddle_ranker.metrics.measures import MEASURES

TIES_IN_WORDS = {
    "against": "equal scores are ordered against the system, the less relevant title first",
    "trec_eval": "equal scores (in single precision) are ordered by document id, descending, as trec_eval does",
}


def systems_table(comparison: Comparison) -> list[str]:
    """Return a table's lines: for each measure, every system's interval and its difference from the reference."""
    width = max(_columns(system.name) for system in comparison.systems)
    lines = []
    for measure in comparison.measures:
        lines.append(MEASURES[measure].title)
        for system in comparison.systems:
            measured = comparison.measured[system.name][measure]
            padding = " " * (width - _columns(system.name))
            line = f"  {system.name}{padding}  {measured.interval:.3f}"
            lines.append(f"{line}  {difference_text(measured)}".rstrip())
    count = len(comparison.others)
    all_of = f"and for all {count} of a measure together" if count > 1 else ""
    lines += [
        "",
        f"[ ]: 95% bootstrap intervals over queries. Differences to {comparison.reference} are paired {all_of}".rstrip()
        + "; one is established if its interval excludes 0 and its randomisation test has p <= 0.05.",
    ]
    return lines


def _columns(text: str) -> int:
    """Return how many columns a text takes in a terminal; a wide character, such as an ideograph, takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "FW" else 1 for character in text)


def difference_text(measured: Measured) -> str:
    """Return a difference with the counts of queries won and lost; "" for the reference.

    A difference whose interval alone excludes zero is shown with its p-value, which says why it is not established.
    """
    if measured.difference is None:
        return ""
    counted = f"  wins {measured.wins}, losses {measured.losses}" if measured.wins is not None else ""
    return f"{measured.difference:+.3f}{_objection(measured)}{counted}"


def _objection(measured: Measured) -> str:
    """Return the p-value of a difference that is not established although its interval excludes zero; else ""."""
    assert measured.difference is not None
    if measured.verdict or not measured.difference.excludes_zero():
        return ""
    return f" (p {p_text(measured.corrected)})"


def p_text(p_value: Optional[float]) -> str:
    """Return a p-value with three decimals; "<0.001" for a value below 0.001, "" for None."""
    if p_value is None:
        return ""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def verdicts(comparison: Comparison, measure: str = "ndcg@10") -> list[str]:
    """Return a `verdict` on `measure` for each system except the reference.

    If the comparison lacks `measure`, the verdicts are on the comparison's first measure.
    """
    measure = measure if measure in comparison.measures else comparison.measures[0]
    return [verdict(comparison, system.name, measure) for system in comparison.others]


def verdict(comparison: Comparison, name: str, measure: str) -> str:
    """Return a sentence that says whether a system is better or worse than the reference in a measure."""
    measured, reference = comparison.measured[name][measure], comparison.reference
    assert measured.difference is not None
    gap = f"{MEASURES[measure].title} {measured.difference:+.3f}"
    if not measured.verdict:
        return f"No difference between {name} and {reference} is established: {gap}{_objection(measured)}."
    return f"{name} is {'ahead of' if measured.verdict == 'better' else 'behind'} {reference}: {gap}."


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as a dict for JSON, with all digits."""
    return {
        **comparison.counts,
        "reference": comparison.reference,
        "ties": comparison.ties,
        "systems": {
            system.name: {
                "what": system.what,
                **system.facts,
                "measures": {name: measured_json(values) for name, values in comparison.measured[system.name].items()},
            }
            for system in comparison.systems
        },
        "notes": comparison.pairs.notes,
    }


def measured_json(measured: Measured) -> dict[str, Any]:
    values: dict[str, Any] = _interval_json(measured.interval)
    if measured.difference is not None:
        values["difference"] = _interval_json(measured.difference)
        values.update(p_value=measured.p_value, corrected_p_value=measured.corrected, verdict=measured.verdict)
    if measured.wins is not None:
        values.update(wins=measured.wins, losses=measured.losses)
    return values


def _interval_json(interval: Interval) -> dict[str, Optional[float]]:
    bounds = {"value": interval.estimate, "low": interval.low, "high": interval.high}
    return {name: None if math.isnan(value) else value for name, value in bounds.items()}
