"""Differences between systems per query, and the ranked titles that cause them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from paddle_ranker.data.rows.formats import write_rows
from paddle_ranker.evaluation.comparison import TIE, Comparison, System
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.metrics.ranking import NOT_RETURNED, ranking_order

COLUMNS = ("query_id", "query", "system", "reference", "measure", "value", "reference_value", "difference", "outcome")


@dataclass(frozen=True)
class QueryDifference:
    """Values of a measure on one query, for a system and for the reference.

    row: the query's index in `Comparison.query_ids`
    sign: 1 if higher values of the measure are better, else -1
    """

    row: int
    value: float
    reference_value: float
    sign: float

    @property
    def difference(self) -> float:
        return self.value - self.reference_value

    @property
    def outcome(self) -> str:
        """ "win", "loss" or "tie" of the system."""
        if abs(self.difference) <= TIE:
            return "tie"
        return "win" if self.sign * self.difference > 0 else "loss"


@dataclass(frozen=True)
class ListedTitle:
    """A title in a system's ranking; `text` is the document's id if the title's text is unknown."""

    text: str
    label: float
    judged: bool


def query_differences(comparison: Comparison, system: str, measure: str) -> list[QueryDifference]:
    """Return each query's difference from the reference, from the largest loss to the largest win.

    Queries without a value (NaN) are ignored.
    """
    ours, theirs = comparison.by_query[system][measure], comparison.by_query[comparison.reference][measure]
    sign = MEASURES[measure].sign
    rows = [row for row in range(len(ours)) if not np.isnan(ours[row])]
    differences = [QueryDifference(row, float(ours[row]), float(theirs[row]), sign) for row in rows]
    return sorted(differences, key=lambda query: sign * query.difference)


def query_text(comparison: Comparison, row: int) -> str:
    """Return a query's text, or its id if the text is unknown."""
    pairs = comparison.pairs
    place = pairs.query_ids.index(comparison.query_ids[row])
    return (pairs.queries[place] if pairs.queries is not None else "") or comparison.query_ids[row]


def best_titles(comparison: Comparison, system: System, row: int, count: int) -> list[ListedTitle]:
    """Return a system's first `count` titles of a query, in the order that the measures use."""
    pairs = comparison.pairs
    rows = np.flatnonzero(np.array(pairs.query_ids, object) == comparison.query_ids[row])
    ids = [pairs.document_ids[i] for i in rows] if comparison.ties == "trec_eval" else None
    scores = system.scores[rows]
    order = ranking_order(np.zeros(len(rows), np.int64), pairs.labels[rows], scores, ids)
    kept = [rows[i] for i in order if scores[i] != NOT_RETURNED][:count]
    texts = pairs.titles or pairs.document_ids
    return [ListedTitle(texts[i] or pairs.document_ids[i], float(pairs.labels[i]), bool(pairs.judged[i])) for i in kept]


def write_per_query(path: str, comparison: Comparison, measure: str) -> None:
    """Write each query's difference from the reference, for every other system, from largest loss to largest win.

    The extension of `path` chooses JSON lines or Parquet; with any other extension, the file is tab-separated.
    """

    def rows() -> Iterator[tuple[object, ...]]:
        for system in comparison.others:
            for difference in query_differences(comparison, system.name, measure):
                yield (
                    comparison.query_ids[difference.row],
                    query_text(comparison, difference.row),
                    system.name,
                    comparison.reference,
                    measure,
                    difference.value,
                    difference.reference_value,
                    difference.difference,
                    difference.outcome,
                )

    write_rows(path, COLUMNS, rows(), header=True)
