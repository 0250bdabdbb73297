"""Records of every role, read from and written to files: columns, headers, bad rows.

    for triple in RecordFile("train_pairwise.csv", Triple):
        ...
    pairs = read_records("test_pairwise.csv", Pair)
    write_records("triples.tsv", triples)

Text files are tab-separated UTF-8 without quoting, for any extension, unless another separator is given. JSON lines and
Parquet are also read, and gzip of any format. If the first row is a header (see `header` beside this module), its names
identify the columns; otherwise their positions do.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain, islice
from typing import Any, ClassVar, Generic, Optional, TypeVar, Union

from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.data.rows.formats import BadRow, Row, other_columns, read_rows, write_rows
from paddle_ranker.data.rows.header import (
    COLUMN_NAMES,
    DESCRIPTION,
    DOCUMENT_ID,
    HEADING,
    ID,
    QUERY,
    TEXT,
    TITLE,
    Header,
    TableRole,
    is_doubtful,
    names_columns,
    plain_name,
    read_header,
)
from paddle_ranker.data.rows.labels import (
    FractionError,
    LabelError,
    checked_label,
    fraction_refusal,
    looks_numeric,
    number_of,
)
from paddle_ranker.data.rows.skips import Skips
from paddle_ranker.errors import DataError, listed, quoted
from paddle_ranker.options import TAB, LabelOptions, RowOptions, note
from paddle_ranker.options.input_files import paths_of

# Columns of the places of a text's spans, `[[start, end, x0, y0, x1, y1], ...]`, as lists of JSON or as its text.
PLACES = {"title": "places", "neg_title": "neg_places", "text": "places"}
_LARGEST_SCORE = 1e18  # losses square scores, in float32
NUMBERS = ("label", "recall_score", "teacher_score", "neg_teacher_score", "position")


@dataclass(frozen=True)
class Record:
    """Row of a file; its subclasses are the kinds of rows.

    role: name of the kind, for messages
    layouts: possible columns of a file without a header, one tuple for each number of columns
    names_documents: whether the title may be a document's id
    """

    role: ClassVar[str]
    layouts: ClassVar[tuple[tuple[str, ...], ...]]
    names_documents: ClassVar[bool] = False


@dataclass(frozen=True)
class Triple(Record):
    """Query, a title that answers it, and a title that answers it less well; optionally a teacher's logits for both."""

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
    """Query, title and the title's relevance (0: not relevant, higher: more relevant); optionally a teacher's logit.

    position: the title's rank in a list that was shown, from 1; only read if the file names its columns
    """

    role = "labelled pairs"
    layouts: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("query", "title", "label"),
        ("query", "title", "label", "teacher_score"),
    )
    query: str
    title: str
    label: float
    teacher_score: Optional[float] = None
    position: Optional[float] = None


@dataclass(frozen=True)
class Pair(Record):
    """Query and title to score. `recall_score`, the score of a first-stage retrieval, is written back unchanged."""

    role = "pairs to score"
    layouts: ClassVar[tuple[tuple[str, ...], ...]] = (("query", "title"), ("query", "title", "recall_score"))
    query: str
    title: str
    recall_score: Optional[float] = None


@dataclass(frozen=True)
class JudgedDocument(LabeledPair):
    """Query, a document of an index, named by its id, title or text, and the document's label."""

    role = "judged documents"
    layouts = (("query", "title", "label"),)
    names_documents = True


@dataclass(frozen=True)
class AnswerDocument(Pair):
    """Query and a document of an index, named by its id, title or text, that answers it."""

    role = "queries and documents that answer them"
    layouts = (("query", "title"),)
    names_documents = True


@dataclass(frozen=True)
class Text(Record):
    """Text of a corpus."""

    role = "texts"
    layouts = (("text",),)
    text: str


@dataclass(frozen=True)
class Line(Text):
    """Text of a corpus: a whole line with its tabs. If the columns are named, title and text are joined instead."""


@dataclass(frozen=True)
class TitleRow(Record):
    """Title of a collection, with its id if the file has ids."""

    role = "titles"
    layouts = (("title",), ("id", "title"))
    title: str
    id: Optional[str] = None


@dataclass(frozen=True)
class DocumentRow:
    """Document of a collection, with its id if the file has ids; see `DocumentFile`."""

    text: str
    id: Optional[str] = None
    fields: Mapping[str, object] = field(default_factory=dict)


_ALONE = (("text",), ("title",))
KINDS: tuple[type[Record], ...] = (Triple, LabeledPair, Pair, TitleRow, Text)


def role_of(kind: type[Record], cells: int = 0) -> TableRole:
    """Return the columns of a kind of record.

    cells: number of columns of the file. A single column of texts may have any name of a text, title or query column
    """
    names = {column.name: COLUMN_NAMES[column.name] for column in fields(kind) if column.name in COLUMN_NAMES}
    names.update({PLACES[name]: COLUMN_NAMES[PLACES[name]] for name in [*names] if name in PLACES and kind is not Line})
    if kind is Line:
        names = {**names, "text": (*TEXT, *DESCRIPTION, *HEADING), "title": HEADING}
    elif issubclass(kind, Text):
        names["text"] = (*TEXT, *HEADING)
    elif kind.names_documents:
        names["title"] = (*DOCUMENT_ID, *TITLE, *ID)  # a bare id beside a title may number the rows
    if cells == 1 and kind.layouts[0] in _ALONE:
        names[kind.layouts[0][0]] += (*TEXT, *TITLE, *QUERY)
    return TableRole(kind.role, names, kind.layouts[0])


def expected_columns(kind: type[Record]) -> str:
    return f"{kind.role} ({' or '.join(', '.join(layout) for layout in kind.layouts)})"


def looks_like(names: Sequence[str], expected: type[Record]) -> str:
    """Return a message's remark if `names` fit another kind of record than `expected`, else "".

    names: column names that do not fit the kind `expected`
    """
    for kind in KINDS:
        if kind is not expected and not (role := role_of(kind)).lacks(role.find(names)):
            hint = "; make triples of it with make-triples" if (kind, expected) == (LabeledPair, Triple) else ""
            return f"; this looks like a file of {kind.role} ({', '.join(kind.layouts[0])}){hint}"
    return ""


FIRST_ROWS = 20  # rows to read before deciding that a file has another role
_SEPARATOR_LINE = re.compile("sep=.?", re.IGNORECASE)
_MOST_KEYS = 1000  # maximum cached sets of keys of a JSON file
T = TypeVar("T", bound=Record)


@dataclass(frozen=True)
class _Layout:
    """Layout of a text file: its number of columns, and the positions of the columns that a record needs."""

    width: int
    positions: Mapping[str, int]


class RecordFile(Generic[T]):
    """Records of one or several files. Every `for` loop reads the files again.

    Raises `DataError`, which names file, line and contents, if a file is missing, empty or damaged, if a column is
    missing, and for a bad row: a wrong number of columns, undecodable bytes, an empty text, a label that is not a whole
    number from 0 to 1,000. With `skip_bad_rows`, bad rows are skipped and counted: `kept`, `skipped` and `report()` are
    about the last loop. A file without a good row still raises an error, as does a file with fractional labels, which
    may be scores, unless the rules allow fractions.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        kind: type[T],
        rules: Optional[RowOptions] = None,
        *,
        skip_bad_rows: bool = False,
    ) -> None:
        """Create the object without opening a file.

        kind: the class of the records
        rules: a command's options for rows
        skip_bad_rows: whether bad rows are counted in place of an error, for callers without `rules`
        """
        self.path = os.fspath(path)
        self.kind = kind
        self._has_option = rules is not None  # a command's user can state whether there is a header
        rules = rules or RowOptions(skip_bad_rows=skip_bad_rows)
        self.skip_bad_rows, self._separator, self._given_header = rules.skip_bad_rows, rules.separator, rules.header
        self.check: Optional[Callable[[T], Optional[str]]] = None  # returns why a record is bad, or None
        self._fractions = isinstance(rules, LabelOptions) and rules.fractional_labels
        self.has_header = False  # whether the file names its columns; known once reading has begun
        self.is_named = False  # whether the file names all columns that the role requires
        self.columns: set[str] = set()  # keys of `COLUMN_NAMES` that occurred in the last loop
        self._noted: set[str] = set()
        self._keys: dict[tuple[str, ...], Header] = {}
        self.kept = 0
        self.line: Union[int, str] = 0  # number of the last record's row; with several files `7 of b`
        self._skips = Skips(self.skip_bad_rows)

    @property
    def skipped(self) -> int:
        """Number of skipped rows."""
        return self._skips.count

    def report(self) -> str:
        """Return a summary of the last loop: `kept 9,998; skipped 2 (line 17: 2 columns, expected 3; …)`."""
        return "; ".join(filter(None, (f"kept {self.kept:,}", self._skips.report())))

    def beside(self, *columns: str) -> str:
        """List the known columns that the file has besides `columns`, for a message; "" if there are none."""
        return listed(name for name in COLUMN_NAMES if name in self.columns and name not in columns)

    def __iter__(self) -> Iterator[T]:
        paths = paths_of(self.path)
        return self._of_one() if len(paths) == 1 else self._of_several(paths)

    def _of_several(self, paths: Sequence[str]) -> Iterator[T]:
        self.kept, self._skips, self.columns = 0, Skips(self.skip_bad_rows), set()
        for path in paths:
            file = copy.copy(self)
            file.path = path
            for record in file._of_one():
                self.kept += 1
                self.line, self.has_header = f"{file.line} of {path}", file.has_header
                yield record
            self.columns |= file.columns
            self._skips.include(file._skips.count, [f"{path}, {reason}" for reason in file._skips.reasons])

    def _of_one(self) -> Iterator[T]:
        self.kept, self._skips, self.columns = 0, Skips(self.skip_bad_rows), set()
        rows = read_rows(self.path, self._separator)
        first = next(rows, None)
        if first is None:
            raise DataError(f"{self.path}: the file is empty; expected {expected_columns(self.kind)}")
        if isinstance(first[1], list) and _SEPARATOR_LINE.fullmatch("".join(first[1])):
            raise DataError(
                f"{self.path}, line 1: {quoted(first[1][0])} is for spreadsheets alone: delete the line, and name the "
                "separator with --separator"
            )
        self._refuse_other_separator(first[1])
        header = self._header(first[1])
        self.has_header = header is not None or isinstance(first[1], dict)
        if header is None:
            following = list(islice(rows, FIRST_ROWS))
            self._refuse_doubtful_header(first[1], [row for _, row in following if isinstance(row, list)])
            rows = chain([first, *following], rows)
        layout: Optional[_Layout] = None
        if header is not None:
            self._add_columns(header)
            layout = _Layout(len(header.names), header.places)
        if header is None and self.kind is Line and self._separator == TAB:
            rows = ((number, ["\t".join(row)] if isinstance(row, list) else row) for number, row in rows)
        numeric_titles, quotes, spaces, has_query = 0, 0, 0, "query" in self.kind.layouts[0]
        for number, row in rows:
            try:
                if layout is None and isinstance(row, list):
                    layout = self._of_width(row)
                records = self._records(row, layout)
                for problem in filter(None, map(self.check, records)) if self.check else ():
                    raise _BadRowError(problem)
            except FractionError as fraction:
                following = [self._label_cell(row, layout) for _, row in islice(rows, FIRST_ROWS)]
                raise fraction_refusal(self.path, number, str(fraction), following, named=self.has_header) from None
            except _BadRowError as bad:
                self._skips.add(self.path, number, str(bad))
                continue
            self.line = number
            if self.kept < FIRST_ROWS and isinstance(row, list):
                quotes += self._separator == TAB and all(map(_is_quoted, row))
                if self.kept == 0 and header is not None:
                    self._note_columns("line 1 is the header", header)
                elif self.kept == 0 and layout is not None and names_columns(row):
                    self._note(f"line 1 is data, no header; the columns are {', '.join(layout.positions)}")
            if has_query:
                query: str = records[0].query  # type: ignore[attr-defined]
                spaces += query != query.strip()
            for record in records:
                self.kept += 1
                if self.kept > FIRST_ROWS:
                    yield record
                    continue
                if not self.has_header and isinstance(record, Triple) and numeric_titles == self.kept - 1:
                    numeric_titles += number_of(record.neg_title) is not None
                    if numeric_titles == FIRST_ROWS:
                        raise self._of_another_role()
                if quotes and quotes == self.kept == 2:
                    self._note(
                        "warning: every field is in quotes, and they stay in the texts: tab-separated text has no "
                        "quoting; write it without, or with commas for --separator ,"
                    )
                yield record
        if numeric_titles and numeric_titles == self.kept:
            raise self._of_another_role()
        if not self.kept:
            self._refuse_other_separator(first[1], skipping=True)
            what = self.report() if self.skipped else "a header and no rows"
            raise DataError(f"{self.path}: {what}; expected {expected_columns(self.kind)}")
        if spaces:
            self._note(
                f"the query of {spaces:,} rows begins or ends with a space: it is another query than the same without"
            )

    def _header(self, row: Row) -> Optional[Header]:
        """Return the first row as a header, or None if it is data; raises `DataError` as `read_header` does."""
        if not isinstance(row, list):
            return None
        role, hint = role_of(self.kind, len(row)), looks_like(row, self.kind)
        layout = next((layout for layout in self.kind.layouts if len(layout) == len(row)), ())
        if self._given_header and layout and not role.find(row).places:  # unknown names: the columns are by position
            return Header(tuple(map(plain_name, row)), {column: place for place, column in enumerate(layout)})
        header = read_header(row, role, self.path, self._given_header, hint, has_option=self._has_option)
        self.is_named = header is not None
        return header

    def _refuse_doubtful_header(self, row: Row, others: Sequence[Sequence[str]]) -> None:
        """Raise `DataError` if it is unclear whether a first row is data, or a header with unknown names.

        others: the rows below the first
        """
        if not isinstance(row, list) or self._given_header is not None:
            return
        alike = [other for other in others if len(other) == len(row)]
        layout = next((layout for layout in self.kind.layouts if len(layout) == len(row)), ())
        numbers = [place for place, column in enumerate(layout) if column in NUMBERS]
        if not layout or not alike or not all(looks_numeric(other[place]) for other in alike for place in numbers):
            return  # another error describes such rows
        if any(row[place].strip() and not looks_numeric(row[place]) for place in numbers):
            if self.skip_bad_rows:
                return  # a bad row, whether it is data or names columns
        elif not is_doubtful(row, alike):
            return
        columns, data = ", ".join(layout), "it is data"
        how = f"type --header true if it names them, which are read as {columns}, or --header false if {data}"
        if not self._has_option:
            how = f"put a line of these names above it if {data}: {columns}; call them so if it names them"
        raise DoubtfulHeaderError(f"{self.path}, line 1: {listed(row)} may name the columns, or be data: {how}")

    def _add_columns(self, header: Header) -> None:
        self.columns.update((*header.places, *(name for name in header.names if name in COLUMN_NAMES)))

    def _note(self, text: str) -> None:
        """Print a note about the file, unless a file of the same loop already printed an equal note."""
        if text not in self._noted:
            self._noted.add(text)
            note(f"{self.path}: {text}")

    def _note_columns(self, what: str, header: Header) -> None:
        """Print a note on renamed columns, unused columns, and titles that are joined to texts."""
        is_renamed = any(header.names[place] != column for column, place in header.places.items())
        joined = "; title and text are one text" if self.kind is Line and "title" in header.places else ""
        if is_renamed or joined or header.others:
            self._note(f"{what}: {header.report()}{joined}")

    def _of_width(self, cells: list[str]) -> _Layout:
        for layout in self.kind.layouts:
            if len(layout) == len(cells):
                self.columns.update(layout)
                return _Layout(len(layout), {column: position for position, column in enumerate(layout)})
        raise _BadRowError(self._wrong_width(cells, [len(layout) for layout in self.kind.layouts]))

    def _wrong_width(self, cells: list[str], expected: Sequence[int]) -> str:
        plural = "column" if len(cells) == 1 else "columns"
        reason = f"{len(cells)} {plural}, expected {' or '.join(map(str, expected))}"
        if len(cells) > 1 and not cells[-1]:
            return f"{reason}: the line ends in a tab"
        if self.skip_bad_rows:
            return reason
        if len(cells) == 1 and max(expected) > 1:
            between = "tabs" if self._separator == TAB else repr(self._separator)
            return f"{reason} ({', '.join(self.kind.layouts[0])}), separated by {between}"
        columns = [kind.layouts[0] for kind in KINDS if len(kind.layouts[0]) == len(cells)]
        return f"{reason} ({', '.join(self.kind.layouts[0])}){looks_like(columns[-1], self.kind) if columns else ''}"

    def _records(self, row: Row, layout: Optional[_Layout]) -> Sequence[T]:
        """Return the records in a row; a row of JSON with lists has several.

        layout: positions of the columns; None for rows of JSON
        """
        if isinstance(row, BadRow):
            raise _BadRowError(row.reason)
        if isinstance(row, dict):
            return self._of_object(row)
        assert layout is not None
        if len(row) != layout.width:
            raise _BadRowError(self._wrong_width(row, [layout.width]))
        cells: dict[str, Any] = {column: row[position] for column, position in layout.positions.items()}
        return (self._checked(cells),)

    def _of_object(self, cells: dict[str, Any]) -> Sequence[T]:
        keys, values = tuple(cells), tuple(cells.values())
        header = self._keys.get(keys) or self._find(keys, cells)
        named = {column: values[place] for column, place in header.places.items()}
        if self.kind is Line and named.get("text") is None and named.get("title") is not None:
            named["text"] = named.pop("title")
        elif isinstance(named.get("title"), list) or isinstance(named.get("neg_title"), list):
            if named.keys() & set(PLACES.values()):
                raise _BadRowError("places beside a list of titles: write a row for each title")
            return [self._of_columns(row) for row in self._of_lists(named)]
        absent = [column for column in self.kind.layouts[0] if column not in named]
        if absent:
            present = listed(cells) or "nothing"
            raise _BadRowError(f"no {', '.join(absent)}, only {present}{looks_like(keys, self.kind)}")
        self.is_named = True
        null = [column for column in self.kind.layouts[0] if named[column] is None]
        if null:
            raise _BadRowError(f"the {null[0]} is null")
        return (self._of_columns(named),)

    def _find(self, keys: tuple[str, ...], cells: Mapping[str, Any]) -> Header:
        """Map the keys of a JSON object to columns; print a note on columns with other names.

        keys, cells: the object's keys, and its values by key
        """
        header = role_of(self.kind).find(keys)
        if issubclass(self.kind, LabeledPair) and "label" not in header.places:
            triple = role_of(Triple).find(keys)
            if isinstance(cells.get(keys[triple.places.get("neg_title", 0)]), list):
                header = triple
        if len(self._keys) >= _MOST_KEYS:
            self._keys.clear()
        self._keys[keys] = header
        self._add_columns(header)
        self._note_columns("its keys are", header)
        return header

    def _of_columns(self, named: dict[str, Any]) -> T:
        number = "title" if self.kind.names_documents else "id"
        if type(named.get(number)) is int:
            named[number] = str(named[number])
        for column, value in named.items():
            if isinstance(value, str) and not is_storable(value):  # JSON can escape what UTF-8 text cannot hold
                raise _BadRowError(f"the {column} holds a NUL or half of a surrogate pair, expected text")
        return self._checked({column: value for column, value in named.items() if value is not None})

    def _of_lists(self, named: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Expand a row of JSON whose columns hold lists, as FlagEmbedding and sentence-transformers write them.

        named: the row's values by column

        Triples combine each text of `pos` with each of `neg`; labelled pairs get the labels 1 and 0.
        """
        self.is_named, query, rows = True, named.get("query"), []
        positives = _side(named, "title", "teacher_score")
        negatives = _side(named, "neg_title", "neg_teacher_score")
        if self.kind is Triple:
            others = [
                {"neg_title": negative["title"], "neg_teacher_score": negative["teacher_score"]}
                for negative in negatives
            ]
            rows = [{"query": query, **positive, **other} for positive in positives for other in others]
        elif issubclass(self.kind, LabeledPair):
            labels = _as_list(named.get("label", [1.0] * len(positives) + [0.0] * len(negatives)))
            if len(labels) != len(positives) + len(negatives):
                raise _BadRowError(f"{len(labels)} labels of {len(positives) + len(negatives)} titles")
            rows = [{"query": query, **title, "label": label} for title, label in zip([*positives, *negatives], labels)]
        else:
            raise _BadRowError("the title is a list, expected text")
        if not rows:
            raise _BadRowError(f"empty lists, which hold no {self.kind.role}")
        return rows

    def _checked(self, cells: dict[str, Any]) -> T:
        if self.kind is Line and "title" in cells:
            cells = {"text": _titled(cells["title"], cells["text"])}
        places = {column: cells.pop(name) for column, name in PLACES.items() if column in cells and name in cells}
        for column, value in cells.items():
            if column in NUMBERS:
                cells[column] = self._number(column, value)
            elif not isinstance(value, str):
                raise _BadRowError(f"{column} is a {type(value).__name__}, expected text")
            elif not value or value.isspace():
                raise _BadRowError(f"the {column} is empty")
        for column, value in places.items():
            cells[column] = _placed(cells[column], value)
        if self.kind is Triple and cells["title"] == cells["neg_title"]:
            raise _BadRowError("the title and the neg_title are the same text")
        return self.kind(**cells)

    def _number(self, column: str, value: Any) -> float:
        number = number_of(value)
        if isinstance(value, bool):
            raise _BadRowError(f"the {column} is {str(value).lower()}, expected a number: 1 or 0")
        if number is None:
            if isinstance(value, str) and not value.strip():
                end = "" if self.has_header else ": does the line end in a tab?"
                raise _BadRowError(f"the {column} is empty{end}")
            if _is_quoted(value) and number_of(value[1:-1]) is not None:
                raise _BadRowError(f"{column} {value} is in quotes, which tab-separated text does not have")
            is_text = not (self.kept or self.has_header or looks_numeric(value))
            hint = looks_like(("query", "title", "neg_title"), self.kind) if is_text else ""
            raise _BadRowError(f"{column} {quoted(value)} is not a finite number{hint}")
        if column == "label":
            try:
                number = checked_label(number, fractions=self._fractions)
            except LabelError as problem:
                raise _BadRowError(str(problem)) from None
        if column == "position" and not (number >= 1 and number.is_integer()):
            raise _BadRowError(f"position {quoted(value)} is not a whole number from 1 up")
        if column.endswith("_score") and abs(number) > _LARGEST_SCORE:
            raise _BadRowError(f"{column} {quoted(value)} is out of range: at most {_LARGEST_SCORE:g} in size")
        return number

    def _label_cell(self, row: Row, layout: Optional[_Layout]) -> Any:
        if isinstance(row, dict):
            place = role_of(self.kind).find(tuple(row)).places.get("label")
            return None if place is None else [*row.values()][place]
        place = layout.positions.get("label") if layout else None
        return row[place] if isinstance(row, list) and place is not None and place < len(row) else None

    def _refuse_other_separator(self, row: Row, *, skipping: bool = False) -> None:
        """Raise `DataError` if the first row is a single cell that another separator would split.

        If bad rows are skipped, raise only with `skipping`, which the caller sets once all rows have been bad.
        """
        if not isinstance(row, list) or len(row) != 1 or (self.skip_bad_rows and not skipping):
            return
        widths = [len(layout) for layout in self.kind.layouts]
        for separator, cells in other_columns(row[0], self._separator):
            if role_of(self.kind).reads(cells) or (len(cells) in widths and min(widths) > 1):
                raise DataError(
                    f"{self.path}, line 1: {self._wrong_width(row, widths)}; with --separator {shlex.quote(separator)} "
                    f"it has {len(cells)}: type that, and quotes are read as such files have them"
                )

    def _of_another_role(self) -> DataError:
        return DataError(
            f"{self.path}: the third column holds numbers where {self.kind.role} have neg_title"
            f"{looks_like(LabeledPair.layouts[0], self.kind)}"
        )


class DoubtfulHeaderError(DataError):
    """First row that may be a header or data, which the user has to say."""


class _BadRowError(Exception):
    """Reason why a row is not a record."""


def read_records(path: Union[str, os.PathLike[str]], kind: type[T], rules: Optional[RowOptions] = None) -> list[T]:
    """Read all records of a file into a list; raises `DataError` as `RecordFile` does."""
    return list(RecordFile(path, kind, rules))


def write_records(path: Union[str, os.PathLike[str]], records: Iterable[Record]) -> int:
    """Write records of one kind to a file atomically; return their number.

    The extension selects the format: `.jsonl` or `.parquet`, else tab-separated text; a final `.gz` adds gzip. Raises
    `DataError` if there are no records, if their kinds or columns differ, and in tab-separated text for a text with a
    tab or a line end.
    """
    stream = iter(records)
    first = next(stream, None)
    if first is None:
        raise DataError(f"{os.fspath(path)}: no records to write")
    # The longest layout that the first record fills: an optional column must be in all rows or in none.
    columns = max(
        (layout for layout in first.layouts if all(getattr(first, column) is not None for column in layout)), key=len
    )
    # `position` is in no layout
    numbers = [column.name for column in fields(first) if column.name in NUMBERS]
    columns += tuple(name for name in numbers if name not in columns and getattr(first, name) is not None)
    placed = [name for name in columns if isinstance(getattr(first, name), PlacedText)]
    optional = {*numbers, *(column for layout in first.layouts for column in layout)} - set(columns)
    count = 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal count
        for record in chain([first], stream):
            row = tuple(getattr(record, column, None) for column in columns)
            extra = any(getattr(record, column, None) is not None for column in optional)
            extra = extra or placed != [n for n in columns if isinstance(getattr(record, n, None), PlacedText)]
            if type(record) is not type(first) or None in row or extra:
                raise DataError(
                    f"{os.fspath(path)}: record {count + 1} has other columns than the first: {quoted(record)}"
                )
            count += 1
            yield (*row, *(json.dumps(getattr(record, name).places) for name in placed))

    write_rows(os.fspath(path), columns + tuple(PLACES[name] for name in placed), rows(), header=True)
    return count


def _placed(text: str, places: Any) -> PlacedText:
    try:
        return PlacedText(text, json.loads(places) if isinstance(places, str) else places)
    except (ValueError, TypeError) as error:
        raise _BadRowError(f"its places are {quoted(places)} ({error})") from None


def _titled(title: Any, text: Any) -> Any:
    """Join a title and a text with a space; each may be missing."""
    if isinstance(title, str) and title.strip() and isinstance(text, str):
        return f"{title} {text}" if text.strip() else title
    return text


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _side(named: Mapping[str, Any], column: str, scores: str) -> list[dict[str, Any]]:
    """Return a dict for each text of a list column: `title`, the text, and `teacher_score`, its score or None.

    named: a row's values by column
    column, scores: the columns of the texts and of their scores
    """
    texts = _as_list(named.get(column))
    numbers = _as_list(named.get(scores)) or [None] * len(texts)
    if len(numbers) != len(texts):
        raise _BadRowError(f"{len(numbers)} numbers of {scores} for {len(texts)} of {column}")
    return [{"title": text, "teacher_score": score} for text, score in zip(texts, numbers)]


def without_nan(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document's fields with None in place of NaN, which marks missing values in data frames."""
    return {name: _nan_to_null(value) for name, value in fields.items()}


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, list):
        return [*map(_nan_to_null, value)] if any(isinstance(item, (float, list, dict)) for item in value) else value
    if isinstance(value, dict):
        return {name: _nan_to_null(item) for name, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def is_finite(value: Any) -> bool:
    """Return whether all numbers in a value are finite, also inside lists and dicts."""
    if isinstance(value, (list, dict)):
        return all(map(is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _is_quoted(cell: Any) -> bool:
    return isinstance(cell, str) and len(cell) > 1 and cell[0] == cell[-1] == '"'


def is_storable(text: str) -> bool:
    """Return whether a text has neither NULs nor unpaired surrogates, both of which JSON's escapes can make."""
    try:
        return b"\0" not in text.encode("utf-8")
    except UnicodeEncodeError:
        return False


def open_as_one_of(path: str, kinds: Sequence[type[Record]], rules: Optional[RowOptions] = None) -> RecordFile[Record]:
    """Open a file as the first of `kinds` that its first row fits; raises `DataError` if it fits none.

    If the rules have `skip_bad_rows`, a kind is preferred that at least half of the first rows fit, so that a single
    bad row does not decide.
    """
    problem: Optional[DataError] = None
    some_fit: Optional[RecordFile[Record]] = None
    for kind in kinds:
        source: RecordFile[Record] = RecordFile(path, kind, rules)
        rows = iter(source)
        try:
            first = next(rows)
            # A number that is not a valid label (a fraction, nan) is not a title either: raise the first kind's error.
            if problem is not None and not source.has_header and _ends_in_number(first):
                break
            for _ in islice(rows, FIRST_ROWS - 1 if source.skip_bad_rows else 0):
                pass  # to count good and bad rows
        except DataError as error:
            # The names of columns decide the role, so the row is bad; or the rows below the first decide it.
            if source.is_named or isinstance(error, DoubtfulHeaderError):
                raise
            problem = error
            continue
        if source.kept >= source.skipped:
            return source
        some_fit = some_fit or source
    if some_fit is None:
        assert problem is not None
        raise problem
    return some_fit


def _ends_in_number(record: Record) -> bool:
    cell = record.neg_title if isinstance(record, Triple) else getattr(record, "recall_score", None)
    return cell is not None and looks_numeric(cell)
