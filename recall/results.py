"""Files of `recall.py`: a corpus, one text per line; and results (query, text, cosine), best first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Optional

from paddle_ranker.data.rows.beir import beir_corpus
from paddle_ranker.data.rows.formats import JSON_EXTENSIONS, BadRow, Row, read_rows, write_rows
from paddle_ranker.data.rows.records import Line, RecordFile
from paddle_ranker.errors import DataError, listed
from paddle_ranker.options import RowOptions, note
from paddle_ranker.options.input_files import paths_of

COLUMNS = ("query", "text", "cosine")
_BREAKS = str.maketrans("\t\r\n", "   ")


def one_line(text: str) -> str:
    """Return a text for a tab-separated file: with spaces in place of tabs and line ends."""
    return text.translate(_BREAKS)


def corpus_texts(
    path: str, rules: Optional[RowOptions] = None, check: Optional[Callable[[Line], Optional[str]]] = None
) -> list[str]:
    """Return the distinct texts of a corpus: a file of `Line`s, or BEIR's folder; raises `DataError` for a bad row.

    Args:
        check: returns why a row is bad, or None.
    """
    source = RecordFile(beir_corpus(path), Line, rules)
    source.check = check
    texts = list(dict.fromkeys(row.text for row in source))
    if check is not None and source.skipped:
        note(f"{path}: {source.report()}")
    return texts


def write_results(path: str, rows: Iterable[tuple[str, str, float]]) -> None:
    """Write (query, text, cosine) rows: JSON lines or Parquet by the extension; other formats drop the texts' tabs."""
    is_text = not path.lower().removesuffix(".gz").endswith((*JSON_EXTENSIONS, ".parquet"))
    lines = ((one_line(query), one_line(text), cosine) for query, text, cosine in rows) if is_text else rows
    write_rows(path, COLUMNS, lines, header=False)


def read_results(path: str, queries: Collection[str]) -> dict[str, list[str]]:
    """Return the distinct texts of each query's results, best first.

    The published script writes tabs in texts unchanged; the known `queries` distinguish them from the columns' tabs.
    Raises `DataError`, naming the line, for any other row.
    """
    texts_of: dict[str, dict[str, None]] = {}
    known_queries = {one_line(query) for query in queries}
    rows = ((file, *row) for file in paths_of(path) for row in read_rows(file))
    for name, number, row in rows:
        query, text = _texts(name, number, row, known_queries)
        texts_of.setdefault(one_line(query), {})[one_line(text)] = None
    return {query: list(texts) for query, texts in texts_of.items()}


def _texts(path: str, number: int, row: Row, queries: Collection[str]) -> tuple[str, str]:
    if isinstance(row, dict):
        values = [row.get(name) for name in COLUMNS[:2]]
        if all(isinstance(value, str) for value in values):
            return str(values[0]), str(values[1])
        raise DataError(f"{path}, line {number}: no query and text, only {listed(row) or 'nothing'}")
    if isinstance(row, BadRow) or len(row) < len(COLUMNS) or not _is_number(row[-1]):
        what = row.reason if isinstance(row, BadRow) else f"{len(row)} columns"
        raise DataError(f"{path}, line {number}: {what}; expected query, text, cosine, as recall.py writes them")
    return next(_ways(row, queries), (row[0], " ".join(row[1:-1])))


def _ways(row: list[str], queries: Collection[str]) -> Iterator[tuple[str, str]]:
    for end in range(len(row) - 2, 0, -1):
        if " ".join(row[:end]) in queries:
            yield " ".join(row[:end]), " ".join(row[end:-1])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
