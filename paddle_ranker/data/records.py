"""Records of every role, and the files that hold them: columns, headers, bad rows.

    for triple in RecordFile("train_pairwise.csv", Triple):
        ...
    pairs = read_records("test_pairwise.csv", Pair)
    write_records("triples.tsv", triples)

Text files are tab-separated UTF-8 without quoting, whatever their extension, unless another separator is given. JSON
lines and Parquet are read too, and gzip of any format. Columns are found by name if the first row is a header, else by
position.
"""

from __future__ import annotations

import copy
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain, islice
from typing import Any, ClassVar, Generic, Optional, TypeVar, Union

from paddle_ranker.data.formats import BadRow, Row, read_rows, write_rows
from paddle_ranker.data.labels import (
    FractionError,
    LabelError,
    checked_label,
    fraction_refusal,
    looks_numeric,
    number_of,
)
from paddle_ranker.data.skips import Skips
from paddle_ranker.data.text import other_columns
from paddle_ranker.errors import DataError, listed, quoted
from paddle_ranker.options import TAB, LabelOptions, RowOptions
from paddle_ranker.options.files import paths_of

COLUMNS = (
    "id", "query", "title", "neg_title", "label", "recall_score", "teacher_score", "neg_teacher_score", "position",
    "text",
)  # fmt: skip
OTHER_NAMES = {
    "text_a": "query", "text_b": "title", "查询": "query", "标题": "title", "标签": "label", "文本": "text"
}  # fmt: skip
_TEXTS, _NAME = ("title", "text"), re.compile(r"\w(?:[\w .-]*\w)?")
_NAMES_OF_TEXTS = {name: own for name, own in OTHER_NAMES.items() if own in _TEXTS}  # a document's fields keep theirs
NUMBERS = ("label", "recall_score", "teacher_score", "neg_teacher_score", "position")


@dataclass(frozen=True)
class Record:
    """One row. `layouts` are the columns of a file without a header: one tuple for each possible number of columns."""

    role: ClassVar[str]
    layouts: ClassVar[tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Triple(Record):
    """A query, a title that answers it, and a title that answers it less; optionally a teacher's logits for both."""

    role = "training triples"
    layouts = (
        ("query", "title", "neg_title"),
        ("query", "title", "neg_title", "teacher_score", "neg_teacher_score"),
    )
    query: str
    title: str
    neg_title: str
    teacher_score: Optional[float] = None
    neg_teacher_score: Optional[float] = None


@dataclass(frozen=True)
class LabeledPair(Record):
    """A query, a title and its relevance (0: not relevant, higher: more relevant); optionally a teacher's logit.

    `position`, which only files that name their columns have, is where the title was shown, from 1.
    """

    role = "labelled pairs"
    layouts = (("query", "title", "label"), ("query", "title", "label", "teacher_score"))
    query: str
    title: str
    label: float
    teacher_score: Optional[float] = None
    position: Optional[float] = None


@dataclass(frozen=True)
class Pair(Record):
    """A query and a title to score; `recall_score`, the first-stage retrieval score, is passed through unchanged."""

    role = "pairs to score"
    layouts = (("query", "title"), ("query", "title", "recall_score"))
    query: str
    title: str
    recall_score: Optional[float] = None


@dataclass(frozen=True)
class Text(Record):
    """One text of a corpus."""

    role = "texts"
    layouts = (("text",),)
    text: str


@dataclass(frozen=True)
class Line(Text):
    """One text of a corpus, a whole line, tabs included.

    Where the first line names a column `text` (else `title`), as in JSON lines, it is that of a `DocumentRow`.
    """


@dataclass(frozen=True)
class TitleRow(Record):
    """A title of a collection, with its id if the file has ids."""

    role = "titles"
    layouts = (("title",), ("id", "title"))
    title: str
    id: Optional[str] = None


@dataclass(frozen=True)
class DocumentRow(Record):
    """A document of a collection, with its id if the file has ids; whatever else the file has of it are its fields.

    Where there is no text, the title is the text. Rows of BEIR's corpus.jsonl have title and text as one text.
    """

    role = "documents"
    layouts = (("text",), ("id", "text"))
    text: str
    id: Optional[str] = None
    fields: Mapping[str, object] = field(default_factory=dict)


_DOCUMENTS = (DocumentRow, Line)
KINDS: tuple[type[Record], ...] = (Triple, LabeledPair, Pair, TitleRow, Text)


def header_of(row: Row) -> Optional[list[str]]:
    """Return the column names of a header, or None for a row of data.

    A row is a header if all its cells are known column names. Two different ones suffice, so that a misnamed column is
    reported, and so does `title` or `text` before other names: `text`, `lang`.
    """
    if not isinstance(row, list):
        return None
    names = _names(row)
    known = [name for name in names if name in COLUMNS]
    is_table = names[0] in _TEXTS and all(map(_NAME.fullmatch, row))
    return names if len(known) == len(names) or len(set(known)) >= 2 or is_table else None


def _names(cells: Sequence[str], others: Mapping[str, str] = OTHER_NAMES) -> list[str]:
    return [others.get(cell.strip().lower(), cell.strip().lower()) for cell in cells]


def column_of(key: str, *, of_document: bool = False) -> str:
    """Return the known column that a key of JSON names, in any case; other keys, and a document's fields, as is."""
    (own,) = _names([key], _NAMES_OF_TEXTS if of_document else OTHER_NAMES)
    return own if own in (("id", *_TEXTS) if of_document else COLUMNS) else key


def expected_columns(kind: type[Record]) -> str:
    return f"{kind.role} ({' or '.join(', '.join(layout) for layout in kind.layouts)})"


def looks_like(columns: Sequence[str], expected: type[Record]) -> str:
    for kind in KINDS:
        if kind is not expected and set(kind.layouts[0]) <= set(columns):
            hint = "; make triples of it with make-triples" if (kind, expected) == (LabeledPair, Triple) else ""
            return f"; this looks like a file of {kind.role} ({', '.join(kind.layouts[0])}){hint}"
    return ""


FIRST_ROWS = 20  # so many rows are looked at before a file is taken for one of another role
T = TypeVar("T", bound=Record)


@dataclass(frozen=True)
class _Layout:
    """The positions of the wanted columns in a text file, and how many columns each of its rows has."""

    width: int
    positions: dict[str, int]
    others: dict[str, int]  # of documents: the columns that become fields


class RecordFile(Generic[T]):
    """The records of a file, or of several files in turn; every `for` loop streams them anew.

    Raises `DataError`, naming file, line and what was found, when the file is missing, empty or damaged, when a column
    is missing, and for a bad row: a wrong number of columns, undecodable bytes, an empty text, a label that is not
    a whole number from 0 to 1,000. With `skip_bad_rows` bad rows are skipped and counted instead (`kept`, `skipped` and
    `report()` are about the last loop). A file without a good row is still an error, and so is a file with fractional
    labels, which may be scores, unless the rules allow them.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        kind: type[T],
        rules: Optional[RowOptions] = None,
        *,
        skip_bad_rows: bool = False,
    ) -> None:
        """Open no file yet. `rules` are a command's options; `skip_bad_rows` is for callers without such options."""
        self.path = os.fspath(path)
        self.kind = kind
        rules = rules or RowOptions(skip_bad_rows=skip_bad_rows)
        self.skip_bad_rows, self._separator = rules.skip_bad_rows, rules.separator
        self._fractions = isinstance(rules, LabelOptions) and rules.fractional_labels
        self.has_header = False  # once reading has begun: the file names its columns
        self.columns: set[str] = set()  # of `COLUMNS`, those that the last loop has met
        self.kept = 0
        self.line: Union[int, str] = 0  # number of the row that the last record was made of; of several files `7 of b`
        self._skips = Skips(self.skip_bad_rows)

    @property
    def skipped(self) -> int:
        """How many bad rows were skipped."""
        return self._skips.count

    def report(self) -> str:
        """Return how many rows were kept and skipped: `kept 9,998; skipped 2 (line 17: 2 columns, expected 3; …)`."""
        return "; ".join(filter(None, (f"kept {self.kept:,}", self._skips.report())))

    def beside(self, *columns: str) -> str:
        """Return the names of the known columns that were read or passed over, beside these; "" for none."""
        return listed(name for name in COLUMNS if name in self.columns and name not in columns)

    def __iter__(self) -> Iterator[T]:
        paths = paths_of(self.path)
        return self._of_one() if len(paths) == 1 else self._of_several(paths)

    def _of_several(self, paths: Sequence[str]) -> Iterator[T]:
        self.kept, self._skips, self.columns = 0, Skips(self.skip_bad_rows), set()
        for path in paths:
            one = copy.copy(self)
            one.path = path
            for record in one._of_one():
                self.kept += 1
                self.line, self.has_header = f"{one.line} of {path}", one.has_header
                yield record
            self.columns |= one.columns
            self._skips.include(path, one._skips)

    def _of_one(self) -> Iterator[T]:
        self.kept, self._skips, self.columns = 0, Skips(self.skip_bad_rows), set()
        rows = read_rows(self.path, self._separator)
        if self.kind is Line and self._separator == TAB:
            rows = self._whole_lines(rows)
        first = next(rows, None)
        if first is None:
            raise DataError(f"{self.path}: the file is empty; expected {expected_columns(self.kind)}")
        self._refuse_other_separator(first[1])
        header = self._header(first[1])
        self.has_header = header is not None or isinstance(first[1], dict)
        if header is None:
            rows = chain([first], rows)
        layout = None if header is None else self._from_header(header)
        self.columns.update(name for name in header or () if name in COLUMNS)
        numeric_titles = 0
        for number, row in rows:
            try:
                if layout is None and isinstance(row, list):
                    layout = self._from_width(row)
                record = self._record(row, layout)
            except FractionError as fraction:
                following = [self._label_cell(row, layout) for _, row in islice(rows, FIRST_ROWS)]
                raise fraction_refusal(self.path, number, str(fraction), following, named=self.has_header) from None
            except _BadRowError as problem:
                self._skips.add(self.path, number, str(problem))
                continue
            self.kept += 1
            if not self.has_header and isinstance(record, Triple) and numeric_titles == self.kept - 1 < FIRST_ROWS:
                numeric_titles += number_of(record.neg_title) is not None
                if numeric_titles == FIRST_ROWS:
                    raise self._of_another_role()
            self.line = number
            yield record
        if numeric_titles and numeric_titles == self.kept:
            raise self._of_another_role()
        if not self.kept:
            self._refuse_other_separator(first[1], skipping=True)
            what = self.report() if self.skipped else "a header and no rows"
            raise DataError(f"{self.path}: {what}; expected {expected_columns(self.kind)}")

    def _whole_lines(self, rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
        """Yield rows of one cell each, or, if the first one names a column of texts, as they are."""
        first = next(rows, None)
        if first is not None:
            is_table = bool(set(header_of(first[1]) or ()) & set(_TEXTS))
            for number, row in chain([first], rows):
                yield number, row if is_table or not isinstance(row, list) else ["\t".join(row)]

    def _header(self, row: Row) -> Optional[list[str]]:
        """Return the column names of a header; documents of more columns than an id and a text must have one."""
        header = header_of(row)
        if self.kind is DocumentRow and isinstance(row, list):
            names = _names(row, _NAMES_OF_TEXTS)
            return names if header or (len(row) > 2 and set(names) & set(_TEXTS)) else None
        return header

    def _from_header(self, names: list[str]) -> _Layout:
        """Return each wanted column's position; columns of other names are a document's fields, or ignored."""
        if self.kind in _DOCUMENTS and "text" not in names:
            names = ["text" if name == "title" else name for name in names]
        if set(names) >= set(self.kind.layouts[0]):
            wanted = [one.name for one in fields(self.kind) if one.name in names]
            others = [name for name in names if name not in wanted] if self.kind is DocumentRow else []
            for column in (*wanted, *others):
                if names.count(column) > 1:
                    raise DataError(f"{self.path}, line 1: the header names the column {column} more than once")
            positions, of_fields = ({name: names.index(name) for name in some} for some in (wanted, others))
            return _Layout(len(names), positions, of_fields)
        missing = [column for column in self.kind.layouts[0] if column not in names]
        raise DataError(
            f"{self.path}: the header has {listed(names)}, but {self.kind.role} need {', '.join(missing)} too"
            f"{looks_like(names, self.kind)}"
        )

    def _from_width(self, cells: list[str]) -> _Layout:
        for layout in self.kind.layouts:
            if len(layout) == len(cells):
                self.columns.update(layout)
                return _Layout(len(layout), {column: position for position, column in enumerate(layout)}, {})
        raise _BadRowError(self._wrong_width(cells, [len(layout) for layout in self.kind.layouts]))

    def _wrong_width(self, cells: list[str], expected: Sequence[int]) -> str:
        plural = "column" if len(cells) == 1 else "columns"
        reason = f"{len(cells)} {plural}, expected {' or '.join(map(str, expected))}"
        if self.skip_bad_rows:
            return reason
        if len(cells) == 1 and max(expected) > 1:
            between = "tabs" if self._separator == TAB else repr(self._separator)
            return f"{reason} ({', '.join(self.kind.layouts[0])}), separated by {between}"
        columns = [kind.layouts[0] for kind in KINDS if len(kind.layouts[0]) == len(cells)]
        return f"{reason} ({', '.join(self.kind.layouts[0])}){looks_like(columns[-1], self.kind) if columns else ''}"

    def _record(self, row: Row, layout: Optional[_Layout]) -> T:
        if isinstance(row, BadRow):
            raise _BadRowError(row.reason)
        if isinstance(row, dict):
            return self._from_object(row)
        assert layout is not None
        if len(row) != layout.width:
            raise _BadRowError(self._wrong_width(row, [layout.width]))
        others = {column: row[position] for column, position in layout.others.items() if row[position]}
        return self._checked({column: row[position] for column, position in layout.positions.items()}, others)

    def _from_object(self, cells: dict[str, Any]) -> T:
        named = {column_of(key, of_document=self.kind in _DOCUMENTS): value for key, value in cells.items()}
        if self.kind in _DOCUMENTS:
            named = _beir_document(named) if "_id" in named else named
            if named.get("text") is None and "title" in named:
                named["text"] = named.pop("title")
        missing = [column for column in self.kind.layouts[0] if named.get(column) is None]
        if missing:
            there = listed(cells) or "nothing"
            raise _BadRowError(f"no {', '.join(missing)}, only {there}{looks_like(list(named), self.kind)}")
        self.columns.update(name for name in COLUMNS if named.get(name) is not None)
        wanted = {one.name: named.get(one.name) for one in fields(self.kind)}
        others = {}
        if self.kind is DocumentRow:
            given = wanted.pop("fields")
            inner = given if isinstance(given, dict) else {} if given is None else {"fields": given}
            others = {**{name: value for name, value in named.items() if name not in (*wanted, "fields")}, **inner}
        if "id" in wanted and isinstance(wanted["id"], int):
            wanted["id"] = str(wanted["id"])
        for column, value in wanted.items():
            if isinstance(value, str) and not _storable(value):  # JSON can escape what UTF-8 text cannot hold
                raise _BadRowError(f"the {column} holds a NUL or half of a surrogate pair, expected text")
        return self._checked({column: value for column, value in wanted.items() if value is not None}, others)

    def _checked(self, cells: dict[str, Any], others: Mapping[str, Any]) -> T:
        for column, value in cells.items():
            if column in NUMBERS:
                number = number_of(value)
                if number is not None and column == "label":
                    try:
                        number = checked_label(number, fractions=self._fractions)
                    except LabelError as problem:
                        raise _BadRowError(str(problem)) from None
                if number is None:
                    is_text = not self.kept and not looks_numeric(value)  # nan and inf are no titles
                    hint = looks_like(("query", "title", "neg_title"), self.kind) if is_text else ""
                    raise _BadRowError(f"{column} {quoted(value)} is not a finite number{hint}")
                if column == "position" and not (number >= 1 and number.is_integer()):
                    raise _BadRowError(f"position {quoted(value)} is not a whole number from 1 up")
                cells[column] = number
            elif not isinstance(value, str):
                raise _BadRowError(f"{column} is a {type(value).__name__}, expected text")
            elif not value or value.isspace():
                raise _BadRowError(f"the {column} is empty")
        if others:
            cells["fields"] = others
        return self.kind(**cells)

    def _label_cell(self, row: Row, layout: Optional[_Layout]) -> Any:
        if isinstance(row, dict):
            return row.get("label")
        place = layout.positions.get("label") if layout else None
        return row[place] if isinstance(row, list) and place is not None and place < len(row) else None

    def _refuse_other_separator(self, row: Row, *, skipping: bool = False) -> None:
        """Raise `DataError` if the first row is a single cell that another separator would split.

        With `skip_bad_rows` this is raised only after all rows were bad, as the first row may be the only bad one.
        """
        if not isinstance(row, list) or len(row) != 1 or (self.skip_bad_rows and not skipping):
            return
        widths = [len(layout) for layout in self.kind.layouts]
        for separator, cells in other_columns(row[0], self._separator):
            if header_of(cells) is not None or (len(cells) in widths and min(widths) > 1):
                raise DataError(
                    f"{self.path}, line 1: {self._wrong_width(row, widths)}; with --separator {shlex.quote(separator)} "
                    f"it has {len(cells)}: type that, and quotes are read as such files have them"
                )

    def _of_another_role(self) -> DataError:
        return DataError(
            f"{self.path}: the third column holds numbers where {self.kind.role} have neg_title"
            f"{looks_like(LabeledPair.layouts[0], self.kind)}"
        )


class _BadRowError(Exception):
    """A row that is not a record, and why."""


def read_records(
    path: Union[str, os.PathLike[str]],
    kind: type[T],
    rules: Optional[RowOptions] = None,
    *,
    skip_bad_rows: bool = False,
) -> list[T]:
    """Return all records of a file as a list; raises `DataError` as `RecordFile` does."""
    return list(RecordFile(path, kind, rules, skip_bad_rows=skip_bad_rows))


def write_records(path: Union[str, os.PathLike[str]], records: Iterable[Record], header: bool = True) -> int:
    """Write records of one kind, streaming, and return their number.

    The extension selects the format: `.jsonl` or `.parquet`, else tab-separated text; a final `.gz` adds gzip. The file
    is written atomically. Raises `DataError` if there are no records, if their kinds or columns differ, and for a text
    with a tab or a line end that would go into tab-separated text.
    """
    stream = iter(records)
    first = next(stream, None)
    if first is None:
        raise DataError(f"{os.fspath(path)}: no records to write")
    # The longest layout whose columns this record fills: either all rows have an optional column, or none has.
    columns = max(
        (layout for layout in first.layouts if all(getattr(first, column) is not None for column in layout)), key=len
    )
    numbers = [one.name for one in fields(first) if one.name in NUMBERS] if header else []  # some have no place else
    columns += tuple(name for name in numbers if name not in columns and getattr(first, name) is not None)
    optional = {*numbers, *(column for layout in first.layouts for column in layout)} - set(columns)
    count = 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal count
        for record in chain([first], stream):
            row = tuple(getattr(record, column, None) for column in columns)
            extra = any(getattr(record, column, None) is not None for column in optional)
            if type(record) is not type(first) or None in row or extra:
                raise DataError(
                    f"{os.fspath(path)}: record {count + 1} has other columns than the first: {quoted(record)}"
                )
            count += 1
            yield row

    write_rows(os.fspath(path), columns, rows(), header)
    return count


def _beir_document(cells: dict[str, Any]) -> dict[str, Any]:
    """Return a row of BEIR's corpus.jsonl as a document: title and text as one text, metadata as fields."""
    found = {name: value for name, value in cells.items() if name not in ("_id", "title", "metadata")}
    parts = [cells.get("title"), cells.get("text")]
    if all(part is None or isinstance(part, str) for part in parts):
        found["text"] = " ".join(part for part in parts if part and part.strip()) or None
    metadata = cells.get("metadata")
    return {**found, "id": cells["_id"], **({"fields": metadata} if metadata else {})}


def _storable(text: str) -> bool:
    try:
        return b"\0" not in text.encode("utf-8")
    except UnicodeEncodeError:
        return False
