"""Differences query by query, and the ranked titles that they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from paddle_ranker.data.formats import write_rows
from paddle_ranker.evaluation.comparison import Comparison, System
from paddle_ranker.metrics.measures import MEASURES
from paddle_ranker.metrics.ranking import NOT_RETURNED, ranking_order

COLUMNS = ("query_id", "query", "system", "reference", "measure", "value", "reference_value", "difference", "outcome")


@dataclass(frozen=True)
class QueryDifference:
    """One system against the reference on one query.

    row: the query's place in `Comparison.query_ids`
    sign: that of an improvement of the measure
    """

    row: int
    value: float
    reference_value: float
    sign: float

    @property
    def difference(self) -> float:
        """The system's value less the reference's."""
        return self.value - self.reference_value

    @property
    def outcome(self) -> str:
        """The system's: win, loss or tie."""
        if abs(self.difference) <= 1e-12:
            return "tie"
        return "win" if self.sign * self.difference > 0 else "loss"


@dataclass(frozen=True)
class ListedTitle:
    """A title in a system's ranking; its text is the document's id where there is no text."""

    text: str
    label: float
    judged: bool


def query_differences(comparison: Comparison, system: str, measure: str) -> list[QueryDifference]:
    """Return every query's difference to the reference, the largest loss first, the largest win last."""
    ours, theirs = comparison.by_query[system][measure], comparison.by_query[comparison.reference][measure]
    sign = MEASURES[measure].sign
    rows = [row for row in range(len(ours)) if not np.isnan(ours[row])]
    found = [QueryDifference(row, float(ours[row]), float(theirs[row]), sign) for row in rows]
    return sorted(found, key=lambda one: sign * one.difference)


def query_text(comparison: Comparison, row: int) -> str:
    """Return a query's text, or its id where there is no text."""
    pairs = comparison.pairs
    place = pairs.query_ids.index(comparison.query_ids[row])
    return (pairs.queries[place] if pairs.queries is not None else "") or comparison.query_ids[row]


def best_titles(comparison: Comparison, system: System, row: int, count: int) -> list[ListedTitle]:
    """Return a system's best titles of a query, in the order in which they are measured."""
    pairs = comparison.pairs
    rows = np.flatnonzero(np.array(pairs.query_ids, object) == comparison.query_ids[row])
    ids = [pairs.document_ids[i] for i in rows] if comparison.ties == "trec_eval" else None
    scores = system.scores[rows]
    order = ranking_order(np.zeros(len(rows), np.int64), pairs.labels[rows], scores, ids)
    kept = [rows[i] for i in order if scores[i] != NOT_RETURNED][:count]
    texts = pairs.titles or pairs.document_ids
    return [ListedTitle(texts[i] or pairs.document_ids[i], float(pairs.labels[i]), bool(pairs.judged[i])) for i in kept]


def write_per_query(path: str, comparison: Comparison, measure: str) -> None:
    """Write all queries of all systems but the reference, the largest loss first: tab-separated, .jsonl or .parquet."""

    def rows() -> Iterator[tuple[object, ...]]:
        for system in comparison.others:
            for one in query_differences(comparison, system.name, measure):
                yield (
                    comparison.query_ids[one.row],
                    query_text(comparison, one.row),
                    system.name,
                    comparison.reference,
                    measure,
                    one.value,
                    one.reference_value,
                    one.difference,
                    one.outcome,
                )

    write_rows(path, COLUMNS, rows(), header=True)
