"""Score files of measured pairs: TREC runs, or one score per row of the labelled file, as JSON lines or a table.

scores, notes = read_scores("bm25.trec", pairs)
write_scores("mine.jsonl", pairs, scores, tag="mine")
"""

from __future__ import annotations

import math
from typing import Any, Optional

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.data.rows.formats import BadRow, Row, read_rows, write_rows
from paddle_ranker.data.rows.header import QUERY, TITLE, Header, TableRole, read_header
from paddle_ranker.data.rows.trec import is_run, read_run, write_run
from paddle_ranker.errors import DataError, listed, quoted
from paddle_ranker.evaluation.pairs import MeasuredPairs
from paddle_ranker.metrics.ranking import NOT_RETURNED

SCORE_NAMES = ("score", "logit", "pred_prob", "probability", "relevance_score")
_ROLE = TableRole("scores", {"query": QUERY, "title": TITLE, "score": SCORE_NAMES}, ("score",))
BY_ROW = (".jsonl", ".ndjson", ".tsv", ".csv", ".parquet")
COLUMNS = ("query", "title", "label", "score")


def read_scores(path: str, pairs: MeasuredPairs, *, skip_bad_rows: bool = False) -> tuple[Floats, list[str]]:
    """Return a file's scores of the pairs, `[n] float64`, and notes on the file, one line each.

    A pair that a run does not list has the score `metrics.NOT_RETURNED`. Raises `DataError` if the file has no scores,
    if its rows or texts differ from those of the labelled file, or if it shares no query with the qrels.
    """
    if is_run(path):
        run = read_run(path, skip_bad_rows=skip_bad_rows)
        scores, notes = pairs.of_run(run.run, path)
        return scores, run.notes + notes
    if pairs.has_ids:
        raise DataError(f"{path}: not a TREC run (query Q0 document rank score tag), which is what goes with qrels")
    return _by_row(path, pairs), []


def has_scores(path: str) -> bool:
    """Return whether a file has scores: either it is a TREC run, or its first row has a score besides any label."""
    try:
        first = next((row for _, row in read_rows(path)), None)
        if is_run(path):
            return True
    except DataError:
        return False
    if not isinstance(first, (list, dict)):
        return False
    names_score = not _ROLE.lacks(_ROLE.find(list(first)))
    if names_score or isinstance(first, dict):
        return names_score
    try:
        score = float(first[-1])
    except ValueError:
        return False
    return len(first) == 1 or (len(first) == 3 and not score.is_integer())  # whole numbers are labels


def write_scores(path: str, pairs: MeasuredPairs, scores: Floats, tag: str) -> None:
    """Write scores with all digits: one row per pair if the extension is in `BY_ROW`, otherwise a TREC run.

    Raises `DataError` if the extension is in `BY_ROW` but the pairs are from qrels or have no texts.
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
    header: Optional[Header] = None
    for number, row in read_rows(path):
        if number == 1 and isinstance(row, list):
            header = read_header(row, _ROLE, path, has_option=False)
            if header is not None:
                continue
        cells = _cells(path, number, row, header)
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


def _cells(path: str, number: int, row: Row, header: Optional[Header]) -> dict[str, Any]:
    if isinstance(row, BadRow):
        raise DataError(f"{path}, line {number}: {row.reason}")
    values = list(row.values()) if isinstance(row, dict) else row
    if isinstance(row, dict):
        header = _ROLE.find(list(row))
    if header is None:
        header = {1: _ROLE.find(["score"]), 3: _ROLE.find(["query", "title", "score"])}.get(len(row))
    if header is None or len(header.names) != len(row):
        expected = f"{len(header.names)}" if header else "1 (score), 3 (query, title, score), or a TREC run"
        raise DataError(f"{path}, line {number}: {len(row)} columns, expected {expected}")
    if lacking := _ROLE.lacks(header):
        raise DataError(f"{path}, line {number}: no {lacking}, only {listed(row)}")
    return {column: values[place] for column, place in header.places.items()}


def _score(path: str, number: int, cells: dict[str, Any]) -> float:
    try:
        value = float(cells["score"])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or isinstance(cells["score"], bool):
        raise DataError(f"{path}, line {number}: the score {quoted(cells['score'])} is not a finite number")
    return value
