"""Score files of measured pairs: TREC runs, or one score per row of the labelled file, as JSON lines or a table.

scores, notes = read_scores("bm25.trec", pairs)
write_scores("mine.jsonl", pairs, scores, tag="mine")
"""

from __future__ import annotations

import math
from typing import Any, Optional

import numpy as np

from paddle_ranker.data.formats import BadRow, Row, read_rows, write_rows
from paddle_ranker.data.records import column_of
from paddle_ranker.data.trec import is_run, read_run, write_run
from paddle_ranker.errors import DataError, listed, quoted
from paddle_ranker.evaluation.pairs import MeasuredPairs
from paddle_ranker.metrics.ranking import NOT_RETURNED, Floats

SCORE_NAMES = ("score", "logit", "pred_prob", "probability", "relevance_score")
BY_ROW = (".jsonl", ".ndjson", ".tsv", ".csv", ".parquet")
COLUMNS = ("query", "title", "label", "score")


def read_scores(path: str, pairs: MeasuredPairs, *, skip_bad_rows: bool = False) -> tuple[Floats, list[str]]:
    """Return a file's scores of the pairs, `[n] float64`, and notes on the file, one line each.

    A pair that a run does not list has the score `metrics.NOT_RETURNED`. Raises `DataError` if the file has no scores,
    differs from the labelled file in its number of rows or its texts, or shares no query with the qrels.
    """
    if is_run(path):
        found = read_run(path, skip_bad_rows=skip_bad_rows)
        scores, notes = pairs.of_run(found.run, path)
        return scores, found.notes + notes
    if pairs.has_ids:
        raise DataError(f"{path}: not a TREC run (query Q0 document rank score tag), which is what goes with qrels")
    return _by_row(path, pairs), []


def has_scores(path: str) -> bool:
    """Return whether a file has scores: it is a TREC run, or its first row has a score and not only a label."""
    try:
        first = next((row for _, row in read_rows(path)), None)
        if is_run(path):
            return True
    except DataError:
        return False
    if not isinstance(first, (list, dict)):
        return False
    if _score_of_names(first) is not None or isinstance(first, dict):
        return _score_of_names(first) is not None
    try:
        score = float(first[-1])
    except ValueError:
        return False
    return len(first) == 1 or (len(first) == 3 and not score.is_integer())  # whole numbers are labels


def write_scores(path: str, pairs: MeasuredPairs, scores: Floats, tag: str) -> None:
    """Write scores with all digits: one row per pair for an extension of `BY_ROW`, else a TREC run.

    Raises `DataError` if the extension asks for rows but the pairs are from qrels.
    """
    returned = scores != NOT_RETURNED
    if not path.lower().removesuffix(".gz").endswith(BY_ROW):
        rows = zip(pairs.query_ids, pairs.document_ids, scores.tolist(), returned)
        write_run(path, ((query, document, score) for query, document, score, is_there in rows if is_there), tag)
        return
    if pairs.has_ids or pairs.queries is None or pairs.titles is None:
        raise DataError(f"{path}: scores that go with qrels are written as a TREC run: name it .trec")
    write_rows(path, COLUMNS, zip(pairs.queries, pairs.titles, pairs.labels.tolist(), scores.tolist()), header=True)


def _by_row(path: str, pairs: MeasuredPairs) -> Floats:
    assert pairs.queries is not None and pairs.titles is not None
    scores: list[float] = []
    names: Optional[list[str]] = None
    for number, row in read_rows(path):
        if number == 1 and isinstance(row, list) and _score_of_names(row) is not None:
            names = list(map(_column, row))
            continue
        cells = _cells(path, number, row, names)
        at = len(scores)
        if at < len(pairs):
            for column, texts in (("query", pairs.queries), ("title", pairs.titles)):
                if column in cells and cells[column] != texts[at]:
                    raise DataError(
                        f"{path}, line {number}: the {column} {quoted(cells[column])}, but row {at + 1:,} of "
                        f"{pairs.source} has {quoted(texts[at])}: scores must be in the order of that file"
                    )
        scores.append(_score(path, number, cells))
    if len(scores) != len(pairs):
        raise DataError(
            f"{path}: {len(scores):,} scores, but {pairs.source} has {len(pairs):,} pairs: give one score a pair, in "
            "the order of the file"
        )
    return np.array(scores, np.float64)


def _cells(path: str, number: int, row: Row, names: Optional[list[str]]) -> dict[str, Any]:
    if isinstance(row, BadRow):
        raise DataError(f"{path}, line {number}: {row.reason}")
    if isinstance(row, dict):
        return {_column(key): value for key, value in row.items()}
    columns = names or {1: ["score"], 3: ["query", "title", "score"]}.get(len(row))
    if columns is None or len(columns) != len(row):
        expected = f"{len(names)}" if names else "1 (score), 3 (query, title, score), or a TREC run"
        raise DataError(f"{path}, line {number}: {len(row)} columns, expected {expected}")
    return dict(zip(columns, row))


def _score_of_names(names: Any) -> Optional[str]:
    there = {_column(str(name)) for name in names}
    return next((name for name in SCORE_NAMES if name in there), None)


def _column(name: str) -> str:
    return column_of(name.strip().lower())


def _score(path: str, number: int, cells: dict[str, Any]) -> float:
    name = _score_of_names(cells)
    if name is None:
        raise DataError(f"{path}, line {number}: no score (one of {', '.join(SCORE_NAMES)}), only {listed(cells)}")
    try:
        value = float(cells[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or isinstance(cells[name], bool):
        raise DataError(f"{path}, line {number}: the score {quoted(cells[name])} is not a finite number")
    return value
