"""TREC's file formats: runs (results of systems), qrels (judgments of people), and texts by id.

    run = read_run("bm25.trec").run             # {"q1": {"d7": 12.5, ...}, ...}
    qrels = read_qrels("qrels.txt").qrels       # {"q1": {"d7": 1, ...}, ...}

| file | a line |
| --- | --- |
| run | `query Q0 document rank score tag`, separated by tabs, else spaces; the order is by score, the rank is ignored |
| qrels | `query 0 document label`, or BEIR's: a header `query-id corpus-id score`, then three columns |
| texts | `id<tab>text`, `id<tab>title<tab>text`, or JSON lines with `_id` (or `id`), `text` and perhaps `title` |

All are UTF-8, plain or in gzip. Qrels and texts may have a header (see `header` beside this module). Ids may contain
spaces in lines with tabs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Optional, TypeVar, Union

from paddle_ranker.data.rows.formats import BadRow, Row, new_data_file, read_rows
from paddle_ranker.data.rows.header import (
    DOCUMENT_ID,
    HEADING,
    ID,
    LABEL,
    QUERY,
    QUERY_ID,
    TEXT,
    Header,
    TableRole,
    read_header,
)
from paddle_ranker.data.rows.labels import LARGEST, looks_numeric, number_of
from paddle_ranker.data.rows.skips import Skips
from paddle_ranker.errors import DataError, brief, listed, quoted
from paddle_ranker.options import TAB, RowOptions, note
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.storage.atomic import check_writable

RUN_COLUMNS = 6
_QRELS = TableRole(
    "judgments",
    {"query": (*QUERY_ID, "query"), "document": (*DOCUMENT_ID, "document"), "label": LABEL},
    ("query", "document", "label"),
)
_TEXTS_BY_ID = TableRole(
    "texts by id", {"id": (*ID, *QUERY_ID), "text": (*TEXT, *QUERY, *HEADING), "title": HEADING}, ("id", "text")
)
_TEXTS_ALONE = replace(_TEXTS_BY_ID, needed=("text",))
Value = TypeVar("Value", int, float)
Item = TypeVar("Item")
Scores = dict[str, dict[str, float]]
Labels = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Run:
    """A run: the scores that a system gave documents.

    run: scores as `run[query][document]`
    tag: the system's name, from the file
    notes: notes about skipped lines
    """

    run: Scores
    tag: str
    notes: list[str]


@dataclass(frozen=True)
class Qrels:
    """Judgments of documents for queries.

    qrels: labels as `qrels[query][document]`
    notes: notes about skipped lines
    """

    qrels: Labels
    notes: list[str]


def _rows(path: str, separator: str = TAB) -> Iterator[tuple[str, int, Row]]:
    """Yield (file, row number, row) for each row; `path` may name several files."""
    for file in paths_of(path):
        for number, row in read_rows(file, separator):
            yield file, number, row


def _line(path: str, file: str, number: int) -> str:
    """Return the name of line `number` of `file` for messages; it includes the file if `path` names several."""
    return f"line {number}" if file == path else f"line {number} of {file}"


def is_run(path: str) -> bool:
    """Return whether a file's first line belongs to a TREC run; an empty file counts as one, too."""
    first = next((row for _, row in read_rows(path)), None)
    if first is None:
        return True
    fields = _fields(first)
    return fields is not None and len(fields) == RUN_COLUMNS and looks_numeric(fields[4])


def read_run(path: str, *, skip_bad_rows: bool = False) -> Run:
    """Read a run. Raises `DataError` with file and line for an invalid line or a repeated document.

    skip_bad_rows: whether such lines are skipped, and counted in the run's `notes`, in place of an error
    """
    skips = Skips(skip_bad_rows, name_files=len(paths_of(path)) > 1)
    run: Scores = {}
    lines: dict[tuple[str, str], str] = {}
    tag = ""
    for file, number, row in _rows(path):
        fields = _fields(row)
        if fields is None or len(fields) != RUN_COLUMNS:
            skips.add(file, number, _wrong(row, fields, "query Q0 document rank score tag"))
            continue
        query, _, document, _, score, tag = fields
        value = number_of(score)
        if value is None:
            skips.add(file, number, f"the score {quoted(score)} is not a finite number")
        elif (query, document) in lines:
            before = lines[query, document]
            skips.add(file, number, f"query {brief(query)} lists document {brief(document)} again, as {before} does")
        else:
            lines[query, document] = _line(path, file, number)
            run.setdefault(query, {})[document] = value
    return Run(_not_empty(path, run, skips), tag, _notes(path, skips))


def read_qrels(path: str, rules: Optional[RowOptions] = None) -> Qrels:
    """Read qrels.

    Raises `DataError` with file and line for an invalid line, and for contradictory labels of a document for a query.
    If the rules have `skip_bad_rows`, invalid lines are counted and contradictory labels dropped. A repeated line
    counts once.
    """
    rules = rules or RowOptions()
    skips = Skips(rules.skip_bad_rows, name_files=len(paths_of(path)) > 1)
    qrels: Labels = {}
    lines: dict[tuple[str, str], str] = {}
    contradicted: set[tuple[str, str]] = set()
    header: Optional[Header] = None
    for file, number, row in _rows(path):
        fields = _fields(row)
        if number == 1:
            header = read_header(fields, _QRELS, file, rules.header) if fields is not None else None
            if header is not None:
                continue
        if header is not None and fields is not None and len(fields) == len(header.names):
            fields = [
                fields[header.places["query"]],
                "0",
                *(fields[header.places[column]] for column in ("document", "label")),
            ]
        if fields is None or len(fields) != 4:
            expected = "query 0 document label" if header is None else " ".join(header.names)
            skips.add(file, number, _wrong(row, fields, expected))
            continue
        query, _, document, text = fields
        label = number_of(text)
        if label is None or label != int(label) or abs(label) > LARGEST:
            limit = "" if label is None or label != int(label) else f" from -{LARGEST:,} to {LARGEST:,}"
            skips.add(file, number, f"the label {quoted(text)} is not a whole number{limit}")
            continue
        seen = qrels.setdefault(query, {}).setdefault(document, int(label))
        first = lines.setdefault((query, document), _line(path, file, number))
        if seen != int(label):
            both = f"query {brief(query)} and document {brief(document)}"
            skips.add(file, number, f"label {int(label)} for {both}, but {seen} in {first}")
            contradicted.add((query, document))
    for query, document in contradicted:
        del qrels[query][document]
    judged = {query: documents for query, documents in qrels.items() if documents}
    return Qrels(_not_empty(path, judged, skips), _notes(path, skips))


def write_run(path: str, rows: Iterable[tuple[str, str, float]], tag: str) -> None:
    """Write a run atomically, in trec_eval's order.

    rows: (query, document, score)
    tag: name of the system that gave the scores

    Raises `DataError` for an id that is empty or contains a space.
    """
    by_query: Scores = {}
    for query, document, score in rows:
        by_query.setdefault(checked_id(path, query), {})[checked_id(path, document)] = score
    check_writable(path)
    name = "_".join(tag.split()) or "run"
    with new_data_file(path) as stream:
        stream.writelines(line.encode("utf-8") for line in run_lines(by_query, name))


def run_lines(by_query: Scores, tag: str) -> Iterator[str]:
    """Yield the lines of a run, best documents first. If scores are equal, the greater id is first, as in trec_eval.

    by_query: scores as `by_query[query][document]`
    """
    for query, scores in by_query.items():
        best = sorted(scores, key=lambda document: (scores[document], document.encode()), reverse=True)
        for place, document in enumerate(best, start=1):
            yield f"{query} Q0 {document} {place} {scores[document]!r} {tag}\n"


def in_order(documents: Iterable[str]) -> dict[str, float]:
    """Return a dict from documents, given best first, to the scores -1, -2, ..., which stay distinct as float32."""
    return {document: -float(place) for place, document in enumerate(documents, start=1)}


def write_qrels(path: str, rows: Iterable[tuple[str, str, float]]) -> None:
    """Write qrels atomically; rows are (query, document, label). Raises `DataError` for an invalid label or id."""
    check_writable(path)
    with new_data_file(path) as stream:
        for query, document, label in rows:
            if label != int(label):
                raise DataError(f"{path}: label {label} is not a whole number: TREC's qrels cannot hold it")
            line = f"{checked_id(path, query)} 0 {checked_id(path, document)} {int(label)}\n"
            stream.write(line.encode("utf-8"))


def read_texts(path: str, wanted: Collection[str], rules: Optional[RowOptions] = None) -> dict[str, str]:
    """Read the texts whose ids are in `wanted`; return them by id. The file may be much larger than memory.

    Raises `DataError` for an id without a text, and, unless `rules.skip_bad_rows` is set, for an invalid line.
    """
    wanted = set(wanted)
    texts = _texts(path, wanted, rules or RowOptions())
    missing = sorted(wanted - texts.keys())
    if missing:
        raise DataError(
            f"{path}: no text for {len(missing):,} of {len(wanted):,} ids, such as {listed(missing[:3])}: "
            "is it the file that belongs to the run and the qrels?"
        )
    return texts


def read_queries(path: str, rules: Optional[RowOptions] = None) -> dict[str, str]:
    """Read all queries of a file into a dict by id; queries of a file with a single column are numbered by line.

    Raises `DataError` for a row without a text, for a row of JSON without an id, and for an id with several texts,
    unless `rules.skip_bad_rows` is set; and for a file without a usable row.
    """
    return _texts(path, None, rules or RowOptions())


def _texts(path: str, wanted: Optional[Collection[str]], rules: RowOptions) -> dict[str, str]:
    """Read texts by id.

    wanted: ids of the texts to read; None reads all texts, and numbers a text without an id by its line
    """
    skips = Skips(rules.skip_bad_rows, name_files=len(paths_of(path)) > 1)
    texts: dict[str, str] = {}
    header: Optional[Header] = None
    for file, number, row in _rows(path, rules.separator):
        is_alone = wanted is None and isinstance(row, list) and len(row) == 1
        if number == 1 and isinstance(row, list):
            header = read_header(row, _TEXTS_ALONE if is_alone else _TEXTS_BY_ID, file, rules.header)
            if header is not None:
                note(f"{file}: line 1 is the header: {header.report()}")
                continue
        elif number == 1:
            header = None
        if is_alone and isinstance(row, list):
            row = [str(number), *row] if header is None else {"id": number, "text": row[0]}
        entry = _text(row, header)
        if isinstance(entry, str):
            skips.add(file, number, entry)
        elif (wanted is None or entry[0] in wanted) and texts.setdefault(*entry) != entry[1]:
            skips.add(file, number, f"another text for the id {brief(entry[0])}")
    return texts if wanted is not None else _not_empty(path, texts, skips)


@lru_cache(maxsize=1000)
def _keys(keys: tuple[str, ...]) -> Header:
    return _TEXTS_BY_ID.find(keys)


def _text(row: Row, header: Optional[Header]) -> Union[tuple[str, str], str]:
    """Return a row's (id, text), or the reason why the row is bad."""
    if isinstance(row, BadRow):
        return row.reason
    if isinstance(row, list) and header is None and len(row) not in (2, 3):
        return f"{len(row)} columns, expected id, text (or id, title, text), separated by tabs"
    if isinstance(row, list) and header is not None and len(row) != len(header.names):
        return f"{len(row)} columns, expected {len(header.names)}"
    values = list(row.values()) if isinstance(row, dict) else row
    places = _keys(tuple(row)).places if isinstance(row, dict) else header.places if header else {"id": 0, "text": -1}
    if isinstance(row, list) and header is None and len(row) == 3:
        places = {**places, "title": 1}
    id = values[places["id"]] if "id" in places else None
    parts = [values[places[column]] for column in ("title", "text") if column in places]
    parts = [part for part in parts if isinstance(part, str) and part.strip()]
    if isinstance(row, dict) and (id is None or not parts):
        return f"no id and text, only {listed(row) or 'nothing'}"
    return (str(id).strip(), " ".join(parts)) if parts and str(id).strip() else "an empty id or text"


def _fields(row: Optional[Row]) -> Optional[list[str]]:
    """Split a row of text at tabs, or at spaces if it has no tabs; return None for any other row."""
    if not isinstance(row, list):
        return None
    return [cell for cell in map(str.strip, row) if cell] if len(row) > 1 else row[0].split()


def _wrong(row: Row, fields: Optional[list[str]], expected: str) -> str:
    if isinstance(row, BadRow):
        return row.reason
    between = " between tabs" if isinstance(row, list) and len(row) > 1 else ""
    return f"{'JSON' if fields is None else f'{len(fields)} fields{between}'}, expected {expected}"


def _notes(path: str, skips: Skips) -> list[str]:
    return [f"{path}: {skips.report()}"] if skips.count else []


def _not_empty(path: str, values: dict[str, Item], skips: Skips) -> dict[str, Item]:
    if not values:
        if not skips.reasons:
            raise DataError(f"{path}: is empty, expected a line for each query and document; make the file again")
        raise DataError(f"{path}: no line that can be used ({skips.reasons[0]})")
    return values


def can_hold(name: str) -> bool:
    """Return whether TREC's formats can hold an id: it must not be empty, or contain spaces."""
    return len(name.split()) == 1 and name == name.strip()


def checked_id(path: str, name: str) -> str:
    """Return `name`; raises `DataError` if TREC's formats cannot hold it."""
    if not can_hold(name):
        raise DataError(f"{path}: the id {quoted(name)} is empty or holds a space: TREC's formats cannot hold it")
    return name


def rows_of(values: dict[str, dict[str, Value]]) -> Iterator[tuple[str, str, Value]]:
    """Yield (query, document, value) for a run or qrels."""
    for query, documents in values.items():
        for document, value in documents.items():
            yield query, document, value
