"""Read documents from the files that people have: tables of any separator and encoding, spreadsheets, JSON, lines.

    for document in DocumentFile("products.csv", rules):
        ...    # DocumentRow("Leise und günstig", "00017", {"name": "Maus", "price": 12.9})

clevercsv detects separator and quotes, charset-normalizer the encoding of files that are not UTF-8. The columns that
become id, title and text are chosen by their names, else by all their values; other columns become fields.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from paddle_ranker.data.files.cell_formats import LIST, Spellings, ValueSpelling, has_markup, spelling_of
from paddle_ranker.data.files.containers import GZIP, HOLDERS, UNPACK, members_in
from paddle_ranker.data.files.file_readers import Unread, is_file_name
from paddle_ranker.data.files.html_text import text_of_html
from paddle_ranker.data.files.reader_pool import ChildProcess
from paddle_ranker.data.files.spreadsheets import CONVERTER, ZIP, Sheet, is_spreadsheet, sheets_of
from paddle_ranker.data.rows.field_paths import (
    BETWEEN,
    ROLES,
    Paths,
    replaced,
    text_of_values,
    unwrapped,
    value_at,
    with_texts,
)
from paddle_ranker.data.rows.formats import (
    EMPTY_LINE,
    ENCODINGS,
    FORMATS,
    BadRow,
    found_encoding,
    is_table_or_lines,
    lines_of,
    open_text,
    read_rows,
    separated_rows,
)
from paddle_ranker.data.rows.header import DESCRIPTION, HEADING, ID, TEXT, key_of, names_columns, plain_name, unquoted
from paddle_ranker.data.rows.labels import number_of
from paddle_ranker.data.rows.records import DocumentRow, is_finite, is_storable, without_nan
from paddle_ranker.data.rows.skips import (
    NOT_OF_A_KIND,
    NOT_READ,
    BadRowsError,
    LeftOut,
    LeftOutItem,
    SheetRow,
    Skips,
    place_in,
)
from paddle_ranker.errors import DataError, UsageError, brief, listed, one_line, quoted, spelling_hint
from paddle_ranker.options import TAB, DocumentOptions, note_once
from paddle_ranker.options.input_files import folder_of, paths_of, require_files

_SAMPLE_ROWS, _SAMPLE_BYTES = 1000, 1 << 15
_SAME_WIDTH = 0.9  # minimum share of a table's rows with the same number of cells
_MOST_ABOVE = 20  # rows above a header
_NONE = "\x1f"  # separator of a table of one column, whose texts may have any other
_SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
_JSON = (".json", ".jsonl", ".ndjson")
_JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_SEPARATOR_LINE = re.compile("sep=(.)\r?\n", re.IGNORECASE)  # the first line of some spreadsheets' files
# Names of columns that are titles, by precedence
TITLES = ("title", "name", "subject", "headline", *(name for name in HEADING if not name.isascii()), "名称", "书名")
_TEXTS = (*TEXT, *DESCRIPTION)
_SQL = re.compile(r"^(COPY .* FROM stdin;|INSERT INTO |CREATE TABLE )", re.MULTILINE)
_QUOTED = re.compile(r'^"', re.MULTILINE)  # a line that begins with a quoted cell
_ID_NAME = re.compile(
    r"((.*_)?(unnamed.*|id|no|nr|num|nummer|number|sku|key|code|uid|guid|uuid|isbn|ean|gtin|asin|slug)|.*(编号|号码|序号|id))?"
)
_ID = re.compile(r"[^\s,;]{1,64}")
_LONGEST_TITLE, _LONGEST_NAME = 120, 60  # maximum characters: of titles on average, of a column's name
_MOST_DIFFERENT = 1 << 22  # maximum values of a column that are compared with each other
_SAMPLED = 1 << 16  # maximum different values that are counted of a column with repeated values
_NO_VALUE = "\\N"  # as Postgres and MySQL write it
_IN_PART = "read in part"
_ESCAPE = re.compile(r"\\([ntr\\])")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_OF_INDEXES = ("index.json", "shards.json")  # files that the folder of an index has
_FILE = "file"  # field of a folder's files, with their paths
# Programs that convert files of common kinds that are not read, by suffix
_CONVERTERS = {
    **{suffix: f"heif-convert IN{suffix} OUT.png" for suffix in (".heic", ".heif", ".hif")},
    ".avif": "avifdec IN.avif OUT.png",
    ".jxl": "djxl IN.jxl OUT.png",
    ".psd": "magick 'IN.psd[0]' OUT.png",
    ".svg": "rsvg-convert -w 512 IN.svg -o OUT.png",
    **{suffix: f"libreoffice --headless --convert-to docx IN{suffix}" for suffix in (".doc", ".rtf")},
    **{suffix: f"libreoffice --headless --convert-to pptx IN{suffix}" for suffix in (".ppt", ".odp")},
    **{suffix: f"ffmpeg -i IN{suffix} OUT.flac" for suffix in (".m4a", ".aac", ".aif", ".aiff", ".wma", ".caf")},
}
_WHOLE = (".md", ".yaml", ".yml")  # suffixes of text files that are one document each
_PLAIN = (".txt", ".log", *_WHOLE)  # suffixes of a folder's text files
_MOST_TEXT = 1 << 24  # maximum bytes of a text file
_NO_TEXTS = (
    (re.compile(rb"\s*%PDF-"), "a PDF", ".pdf"),
    (re.compile(rb"\s*(<!doctype html|<html\b)", re.IGNORECASE), "a web page", ".html"),
    (
        re.compile(rb"\s*<\?xml[^>]*>\s*(<\?mso-application[^>]*>\s*)?<(\w+:)?Workbook\b"),
        "an XML spreadsheet",
        f".xlsx when it is converted: {CONVERTER} FILE",
    ),
    (re.compile(rb"\s*(\{\\rtf|%!PS)"), "a formatted text", ".txt when it is converted to plain text"),
)
NO_COLUMN, ALL_SHEETS = "none", "all"
_BY_VALUES: Mapping[str, str] = {}
Declared = Mapping[str, Optional[ValueSpelling]]  # by a field's name: the spelling of its texts, None to keep them
_INFERRED: Declared = {}


class FileFields(NamedTuple):
    """Fields of an index whose values are files.

    by_suffix: a dict from a file's suffix to the name of the field that takes such files of a folder
    read: names of the fields whose files are read for their words; the words become the document's text
    """

    by_suffix: Mapping[str, str] = {}
    read: frozenset[str] = frozenset()

    def has_file(self, row: Mapping[str, Any]) -> bool:
        """Return whether a field of `read` has a file in this row that is not yet in the index folder."""
        values = (row.get(name) for name in self.read)
        return any(value and not (isinstance(value, str) and is_file_name(value)) for value in values)


_NO_FILES = FileFields()
_FACTS_KEPT = 1 << 14  # most columns whose facts are kept
_FACTS = dict[object, dict[str, "_ColumnFacts"]]()  # facts about the last files that were read, by `_DocumentRows.key`
_Rows = Union["_DocumentRows", "_FileRows"]


class _RowPlace(str):
    """Place of a document in one of several files, or in a folder; as text `7 of b`, or the name of a file.

    Attributes:
        path: the file or folder.
        line: number of the line, or name of the file in the folder.
    """

    path: str
    line: Union[int, str]

    def __new__(cls, path: str, line: Union[int, str]) -> _RowPlace:
        made = super().__new__(cls, line if isinstance(line, str) else f"{line} of {path}")
        made.path, made.line = path, line
        return made

    def __getnewargs__(self) -> tuple[str, Union[int, str]]:  # type: ignore[override]
        return self.path, self.line


class DocumentFile:
    """Documents of one or several files, or of a folder's files. Every `for` loop reads the files again.

    Raises `DataError`, which names file, line and contents, for a file that is missing, damaged or without documents,
    and for a bad row. If the rules have `skip_bad_rows`, bad rows are skipped and counted. `kept` and `report()`
    describe the last loop.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str]],
        rules: DocumentOptions,
        *,
        joins_title: bool = False,
        columns: Mapping[str, str] = _BY_VALUES,
        files: FileFields = _NO_FILES,
        declared: Declared = _INFERRED,
        keeps_left_out: bool = False,
        goes_on: bool = False,
    ) -> None:
        """Create the object without opening a file.

        joins_title: whether the title is also put before the text, for an index without fields
        columns: preferred column of each role (`id`, `title` or `text`); ignored if the file lacks it, or if the rules
            name a column
        files: the fields whose values are files
        declared: spelling of each field's texts; a text with another spelling makes a bad row. The spelling of any
            other field is inferred from its column, if the file is a table of text
        keeps_left_out: whether `left_out` names all rows and files that the last loop left out
        goes_on: whether a loop yields the documents after a bad row, too, for a caller that looks for further ones
        """
        self.path, self._rules, self._joins_title, self._columns = path, rules, joins_title, columns
        self._files, self._declared = files, declared
        self.line: Union[int, str] = 0  # line of the last document; with several files `7 of b`
        self._keeps_left_out, self._goes_on = keeps_left_out, goes_on
        self._only: Optional[int] = None
        self._begin()

    def _begin(self) -> None:
        self.kept, self._spellings = 0, dict[str, set[Optional[ValueSpelling]]]()
        self._skips = self._new_skips()
        self._unread = LeftOut(NOT_READ, keeps_all=self._keeps_left_out)
        self._in_part = list[LeftOutItem]()

    def _new_skips(self) -> Skips:
        several = len(paths_of(self.path)) > 1
        return Skips(self._rules.skip_bad_rows, name_files=several, keeps_all=self._keeps_left_out, waits=True)

    @property
    def file(self) -> str:
        """The path of the file that one of `files` reads; otherwise `path`."""
        return str(self.path) if self._only is None else paths_of(self.path)[self._only]

    @property
    def is_several(self) -> bool:
        """Whether there are several files, or folders of files."""
        return len(paths_of(self.path)) > 1

    def files(self) -> list[DocumentFile]:
        """Return objects that each read one of several files, as this object would in its loop, or in another process.

        Their loops do not raise `BadRowsError`, but count bad rows; see `include`.
        """
        parts = [copy(self) for _ in paths_of(self.path)]
        for number, part in enumerate(parts):
            part._only = number
            part._begin()
        return parts

    def include(self, part: DocumentFile) -> None:
        """Count what the loop of one of `files` has read and left out; include the files in their order."""
        self.kept += part.kept
        self._skips.merge(part._skips)
        self._unread.merge(part._unread)
        self._in_part += part._in_part
        for name, seen in part._spellings.items():
            self._spellings.setdefault(name, set()).update(seen)

    def column_facts(self) -> Mapping[object, dict[str, _ColumnFacts]]:
        """Read all tables, and return facts about their columns, which another process keeps by `keep_facts`."""
        tables = (table for _, table, _ in self._opened() if isinstance(table, _DocumentRows))
        return {table.key: table.columns for table in tables}

    @property
    def left_out(self) -> list[tuple[str, LeftOutItem]]:
        """What the last loop has skipped, not read or read in part, with places and reasons, if they are kept."""
        left_out = [(part.what.rstrip(":"), item) for part in (self._skips, self._unread) for item in part.items]
        return [*left_out, *((_IN_PART, item) for item in self._in_part)]

    @property
    def skipped(self) -> int:
        """Number of skipped rows."""
        return self._skips.count

    @property
    def columns(self) -> Mapping[str, str]:
        """Names of the first file's columns by role (`id`, `title`, `text`); roles without a column are absent."""
        return next(self._opened())[2]

    @property
    def names(self) -> set[str]:
        """Names of the first file's columns, and of the roles (`id`, `title`, `text`) that have a column."""
        _, table, roles = next(self._opened())
        return {*table.columns, *roles}

    @property
    def doubted(self) -> set[str]:
        """Names of columns that stay texts although most values look like those of a type, which is said."""
        tables = [table for _, table, _ in self._opened() if isinstance(table, _DocumentRows)]
        return {name for table in tables for name, facts in table.spelled.items() if facts.spellings.doubt()}

    @property
    def files_to_read(self) -> int:
        """Number of rows with a file in a field of `FileFields.read`."""
        tables = [table for _, table, _ in self._opened()] if self._files.read else []
        return sum(table.counts.get(name, 0) for table in tables for name in self._files.read)

    @property
    def spellings(self) -> dict[str, ValueSpelling]:
        """Spelling of each field's texts, as the last `for` loop over the documents read them.

        A field is absent if its texts have no spelling, or if files spell them differently. If files differ in the unit
        alone, the spelling has none.
        """
        alone = dict[str, ValueSpelling]()
        for name, seen in self._spellings.items():
            spellings = seen if len(seen) == 1 else {spelling and spelling._replace(unit="") for spelling in seen}
            if len(spellings) == 1 and (spelling := next(iter(spellings))) is not None:
                alone[name] = spelling
        return alone

    def report(self) -> str:
        """Return a summary of the last loop: `kept 9,998; skipped 2 (line 17: 2 columns, expected 3; …)`."""
        more = self._skips.has_more or self._unread.has_more
        lists = "" if not more or self._keeps_left_out else "--report FILE lists all"
        return "; ".join(filter(None, (f"kept {self.kept:,}", self._skips.report(), self._unread.report(), lists)))

    def leave_unread(self, what: str, reason: str) -> None:
        """Count `what`, a file or a part of a file, as not read for `reason`."""
        self._unread.add_item(LeftOutItem(what, reason))

    def refuse(self, reason: str, line: Union[int, str], cause: str = "") -> None:
        """Count a document as a bad row, for `reason`, after the loop has yielded the document; see `require_good`.

        line: value of `self.line` when the loop yielded the document
        cause: see `LeftOutItem`
        """
        path, at = self._place_of(line)
        if isinstance(at, str):  # the place is the document
            for id in (at, os.path.join(path, at)):
                reason = reason.removeprefix(f"document {quoted(id)}: ")
        self._skips.add(path, at, reason, cause)
        self.kept -= 1

    def repeated(self, ids: Sequence[str]) -> Optional[BadRowsError]:
        """Return an error that names the places of documents with the same id; None if they are not found.

        ids: ids of documents of the last loop, each of which several have
        """
        found = {id: list[tuple[str, str]]() for id in ids}
        of_parts = {id.rpartition("#")[0]: id for id in ids if "#" in id}  # a part's id begins with its row's
        by_row = {**of_parts, **{id: id for id in ids}}
        rows = copy(self)  # which keeps what was left out
        for row in rows:
            if (id := by_row.get(row.id or "")) is not None:
                found[id].append(place_in(*rows._place_of(rows.line)))
        items = list[LeftOutItem]()
        several = len(paths_of(self.path)) > 1
        for id, places in found.items():
            first, *others = [whole if several else place for place, whole in places] or [""]
            items += [LeftOutItem(place, f"it has the id {quoted(id)}, as has {first}") for place in others]
        if not items:
            return None
        (id, places), *more = [(id, places) for id, places in found.items() if len(places) > 1]
        also = f", and several each of {listed(quoted(id) for id, _ in more)}" if more else ""
        count = "two" if len(places) == 2 else f"{len(places):,}"
        where = "; ".join([*(whole for _, whole in places[:3]), *(["…"] if len(places) > 3 else [])])
        problem = (
            f"there are {count} of this id ({where}){also}; give each its own, or let --id_column none number them"
        )
        return BadRowsError(f"document {quoted(id)}: {problem}", items)

    def _place_of(self, line: Union[int, str]) -> tuple[str, Union[int, str]]:
        """Return the path, and the line or file in it, of the document for which `self.line` was `line`."""
        return (line.path, line.line) if isinstance(line, _RowPlace) else (str(self.path), line)

    @property
    def are_refused(self) -> bool:
        """Whether the last loop met bad rows that may not be skipped."""
        return self._skips.are_refused

    def require_good(self) -> None:
        """Raise `BadRowsError`, which names the bad rows and files, if bad rows may not be skipped."""
        self._skips.require_none()

    def __iter__(self) -> Iterator[DocumentRow]:
        self._begin()
        several = len(paths_of(self.path)) > 1
        for path, table, roles in self._opened(self._skips):
            before = self.kept, self._skips.count
            try:
                yield from self._documents(path, table, roles)
            except DataError as error:
                self._leave_file_out(path, error, self._skips)
            is_alone = not several and self._rules.skip_bad_rows
            if self.kept == before[0] and (is_alone or self._skips.count == before[1]):
                reasons = [] if several else filter(None, (self._skips.report(), self._unread.report()))
                problem = f"{'; '.join((f'{path}: {table.found_none}', *reasons))}; expected {table.expected}"
                self._leave_file_out(path, DataError(problem), self._skips)
        if self._only is None:
            self.require_good()

    def _documents(self, path: str, table: _Rows, roles: Mapping[str, str]) -> Iterator[DocumentRow]:
        """Yield the documents of a file or folder, which `_open` has opened."""
        is_one = len(paths_of(self.path)) == 1 and isinstance(table, _DocumentRows)
        spellings = table.spellings(roles, self._declared) if isinstance(table, _DocumentRows) else {}
        path = path if isinstance(table, _DocumentRows) else table.folder
        for name in filter(table.counts.get, table.columns):
            self._spellings.setdefault(name, set()).add(spellings.get(name))
        for place, row in table.rows(roles, self._files, self._declared):
            document = self._document(row, roles.get("title")) if isinstance(row, dict) else row
            if isinstance(document, Unread):
                self.leave_unread(*document)
            elif isinstance(document, BadRow):
                self._skips.add(path, place, document.reason)
            else:
                self.kept += 1
                self.line = place if is_one else _RowPlace(path, place)
                if self._goes_on or not self.are_refused:
                    yield document
        if self._keeps_left_out and isinstance(table, _DocumentRows):
            self._in_part += [LeftOutItem(where, reason) for where, reason in table.in_part.items()]

    def _opened(self, skips: Optional[Skips] = None) -> Iterator[tuple[str, _Rows, dict[str, str]]]:
        """Yield (path, rows, columns) for each file or folder, as `_open` opens it; see `_leave_file_out`.

        Raises `DataError` if there is none.

        skips: where files that are left out are counted; None: nowhere
        """
        paths, skips, are_any = paths_of(self.path), skips or self._new_skips(), False
        paths = paths if self._only is None else (paths[self._only],)
        require_files(paths)
        for path in paths:
            try:
                table, roles = self._open(path)
            except DataError as error:
                self._leave_file_out(path, error, skips)
                continue
            are_any = True
            yield path, table, roles
        if not are_any and self._only is None:
            skips.require_none()
            raise DataError(f"{self.path}: no documents; {skips.report()}; expected texts")

    def _leave_file_out(self, path: str, error: DataError, skips: Skips) -> None:
        """Count one of several files as bad; raise the error about a file that is the only one."""
        if len(paths_of(self.path)) == 1:
            raise error
        skips.add(path, "", str(error).removeprefix(path).lstrip(":, "))

    def _document(self, row: Mapping[str, Any], title_name: Optional[str]) -> Union[DocumentRow, BadRow]:
        """Convert a row to a document.

        title_name: name of the column that becomes the title, or None

        If the row has a file that is to be read, the document's text is the title (or "file") until the texts of the
        file's parts replace it.
        """
        if not self._files.has_file(row):
            return _document(row, title_name, self._joins_title, self._declared)
        named = {f"{name}_" if name == "text" else name: value for name, value in row.items()}
        title = row.get("title" if title_name is None else title_name)
        if not title:
            file = next(str(row[name]) for name in self._files.read if row.get(name))
            title = row.get("id") if file.startswith("data:") else _title_of(file)
        return _document({**named, "text": title or "file"}, title_name, False, self._declared)

    def _open(self, path: str) -> tuple[_Rows, dict[str, str]]:
        """Return (rows, columns): the rows of a file or folder, and the names of its columns by role (id, title, text).

        Prints the columns when the file is opened for the first time.
        """
        if holds_contents(path, self._files):
            _refuse_columns(path, self._rules)
            return _FileRows(path, self._files, self.path), {role: role for role in ROLES}
        stat, rules = os.stat(path) if os.path.exists(path) else None, self._rules
        table = _open_table(
            path, stat and (stat.st_size, stat.st_mtime_ns), rules.separator, rules.header, rules.sheet or ""
        )
        chosen = {role: name for role in ROLES if (name := getattr(rules, f"{role}_column")) is not None}
        expected = {role: name for role, name in self._columns.items() if name in table.columns}
        free = {name: facts for name, facts in table.columns.items() if name not in self._files.read}
        roles = _roles(free, {**expected, **chosen}, path)
        table.describe(roles, self._declared)
        return table, roles


def _document(
    row: Mapping[str, Any], title_name: Optional[str], joins_title: bool, declared: Declared
) -> Union[DocumentRow, BadRow]:
    """Convert a row to a document; return a `BadRow` with the reason if it cannot be a document.

    title_name: name of the column that becomes the title, or None
    joins_title: whether the title is put before the text
    declared: see `DocumentFile`
    """
    fields = without_nan({name: value for name, value in row.items() if name not in ("id", "text")})
    for name, spelling in declared.items():
        value = value_at(fields, name)
        if spelling is not None and isinstance(value, str if spelling.type == LIST else (str, list)):
            try:
                fields = _spelled(fields, name, spelling)
            except ValueError as error:
                problem = f"expected a {spelling.type} written as {spelling.format}"
                return BadRow(f"{name} is {quoted(str(error))}, {problem}")
    titles = (value_at(fields, name) for name in (title_name, *TITLES) if name is not None)
    title = next((candidate for candidate in titles if isinstance(candidate, str) and candidate.strip()), "")
    text: Any = row.get("text")
    id: Any = row.get("id")
    id = str(id) if isinstance(id, int) and not isinstance(id, bool) else id
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        text = json.dumps(text)
    elif isinstance(text, list) and all(isinstance(item, str) for item in text):
        text = "\n".join(text)
    if text is None or (isinstance(text, str) and not text.strip()):
        text = title or text_of_values(fields) or id or text
    elif joins_title and title not in ("", text):
        text = f"{title} {text}"
    for name, value in (("text", text), ("id", id)):
        if value is None and name == "id":
            continue
        if value is None or (value == "" and name not in row):
            return BadRow(f"no text, only {listed(row) or 'nothing'}")
        if not isinstance(value, str):
            return BadRow(f"{name} is a {type(value).__name__}, expected text")
        if not value.strip():
            return BadRow(f"the {name} is empty")
        if not is_storable(value):
            return BadRow(f"the {name} holds a NUL or half of a surrogate pair, expected text")
    if not all(map(is_finite, fields.values())):
        return BadRow("a field holds an infinite number, which JSON cannot hold")
    return DocumentRow(text, id, fields)


def _spelled(fields: Mapping[str, Any], name: str, spelling: ValueSpelling) -> dict[str, Any]:
    """Return fields with the texts at the path `name` as values; raises `ValueError` with a text spelled otherwise."""

    def value_of(path: str, text: str) -> Any:
        try:
            return spelling.value(text) if path == name else text
        except ValueError:
            raise ValueError(text) from None

    return {key: with_texts(value, value_of, key) if name.startswith(key) else value for key, value in fields.items()}


class _Dialect(NamedTuple):
    r"""Storage form of a table in a text file.

    encoding: encoding of the text
    separator: character between cells
    quote: character around cells; "" for none
    names: names of the columns
    is_dump: whether the file is a database dump, with `\N` for a missing value and a backslash before n, t and r
    """

    encoding: str
    separator: str
    quote: str
    names: tuple[str, ...]
    is_dump: bool


@lru_cache(maxsize=8)
def _open_table(
    path: str,
    version: object,
    separator: str,
    header: Optional[bool],
    sheet: str,
) -> _DocumentRows:
    """Return the table of a file, cached by the file's `version`: its size and time of change.

    separator, header, sheet: as in `_DocumentRows`
    """
    return _DocumentRows(path, separator, header, sheet, version)


def keep_facts(facts: Mapping[object, dict[str, _ColumnFacts]]) -> None:
    """Keep facts about columns, of `DocumentFile.column_facts` of any process, for whoever opens the files here."""
    _FACTS.update(facts)
    while len(_FACTS) > 1 and sum(map(len, _FACTS.values())) > _FACTS_KEPT:
        del _FACTS[next(iter(_FACTS))]


class TableInFile(NamedTuple):
    """Table of a file that is no spreadsheet.

    title: texts above the header, such as the title of a report
    rows: called without arguments, yields (number, row) for each row: a dict from column names to cells, or a `BadRow`
    """

    title: str
    rows: Callable[[], Iterator[tuple[int, Union[dict[str, Any], BadRow]]]]


def table_in(path: str) -> TableInFile:
    """Return the table of a file that is no spreadsheet.

    The first row names the columns unless it is clearly a row of data. If rows differ in length, the separator is the
    most frequent of comma, semicolon, bar and tab in the first row. The dict of a short row lacks the last columns.
    """
    try:
        table = _DocumentRows(path, TAB, None, "")
    except DataError:
        table = _DocumentRows(path, TAB, True, "")
    if table.holds_lines and table.is_ragged:
        return TableInFile("", table.ragged_rows)
    return TableInFile(table.title, table.named_rows)


class TableHead(NamedTuple):
    """TableHead of a table: the rows above its header, and its header.

    above: number of rows above the header, such as a report's title
    lines: number of rows of the header: 2 if the first names groups of columns, 0 if there is no header
    """

    above: int
    lines: int

    def names(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """Return the names of the columns; those of a group are preceded by its name."""
        if self.lines < 2:
            return [*rows[self.above]] if self.lines else []
        names = _in_groups(rows[self.above], rows[self.above + 1])
        return [name if group in ("", name) else f"{group} {name}" for group, name in names]


def head_of(rows: Sequence[Sequence[str]]) -> TableHead:
    """Find the header of a table that has one, in its first rows.

    A row above the header has at most half of the columns that the table's rows fill, or one text in several columns,
    as merged cells have. A header of two rows has names of several columns in the first, and names of each in the
    second, below which there are numbers, or of which several groups have the same. A column in no group has its name
    in either row.
    """
    filled = [[place for place, cell in enumerate(row) if cell.strip()] for row in rows]
    texts = [len({row[place] for place in places}) for row, places in zip(rows, filled)]
    of_table = [places for places, count in zip(filled, texts) if count > 1]
    if 2 * len(of_table) <= len(rows):
        return TableHead(0, 1)
    counts = Counter(place for places in of_table for place in places)
    used = {place for place, count in counts.items() if 10 * count > len(of_table)}
    above = 0
    for place, places in enumerate(filled[:_MOST_ABOVE]):
        if texts[place] > 1 and 2 * len(used.intersection(places)) > len(used):
            above = place
            break
    # A group's name alone in its row does not stand where a title does, and a title tells no columns apart.
    if above:
        is_no_title = min(filled[above - 1], default=0) > min(used)
        if _has_groups(rows[above - 1 :], used, by_numbers=is_no_title):
            above -= 1
    return TableHead(above, 2 if _has_groups(rows[above:], used) else 1)


def _has_groups(rows: Sequence[Sequence[str]], used: Container[int], *, by_numbers: bool = True) -> bool:
    """Return whether the first of `rows` names groups of the columns `used`, and the second the columns.

    by_numbers: whether numbers below the names suffice; if not, several groups must have the same names
    """
    if len(rows) < 3 or len(rows[0]) != len(rows[1]):
        return False
    groups = _spread(rows[0])
    if not any(group and group == groups[place - 1] for place, group in enumerate(groups) if place):
        return False
    in_groups = _in_groups(rows[0], rows[1])
    below = [
        [row[place] for row in rows[2:12] if place < len(row) and row[place].strip()] for place in range(len(in_groups))
    ]
    joined = [in_group for place, in_group in enumerate(in_groups) if place in used]
    if len({*joined}) < len(joined) or not all(name and number_of(name) is None for _, name in joined):
        return False
    if by_numbers and len(rows) > 3 and any(cells and None not in map(number_of, cells) for cells in below):
        return True
    return _are_shared(in_groups) and not any(name in cells for (_, name), cells in zip(in_groups, below))


def _are_shared(in_groups: Sequence[tuple[str, str]]) -> bool:
    """Return whether two groups of several columns have columns of the same name."""
    sizes = Counter(group for group, _ in in_groups if group)
    names = Counter(name for group, name in in_groups if sizes[group] > 1)
    return any(count > 1 for count in names.values())


def _in_groups(groups: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (group, name) for each column; a name that stands in the upper row alone is that of no group."""
    pairs = zip(groups, _spread(groups), names)
    return [(group, name.strip()) if name.strip() else ("", own.strip()) for own, group, name in pairs]


def _spread(groups: Sequence[str]) -> list[str]:
    """Return names of groups, each also in the empty cells behind it, unless its cells repeat it, as merged ones do."""
    spread, last, is_repeated = list[str](), "", False
    for group in map(str.strip, groups):
        is_repeated = group == last if group else is_repeated
        last = group or ("" if is_repeated else last)
        spread.append(last)
    return spread


def text_above(rows: Sequence[Sequence[str]]) -> str:
    """Return the texts of the rows above a header, of which merged cells have the same."""
    return " ".join(dict.fromkeys(cell.strip() for row in rows for cell in row if cell.strip()))


class _DocumentRows:
    """The rows of a file, and facts about its columns.

    separator: separator of a text file; a tab means that it is detected
    header: whether the first row of a table names the columns; None means that this is detected in text files, and that
        those of spreadsheets have names
    sheet: name of the sheet of a spreadsheet that is read, or `all`; "" means the first
    version: the file's size and time of change, if facts about the columns are kept; see `keep_facts`
    """

    def __init__(self, path: str, separator: str, header: Optional[bool], sheet: str, version: object = None) -> None:
        """Find out how the file holds a table; raises `DataError` as `_detect` does."""
        self.key = (path, version, separator, header, sheet)
        self.path, self.in_part = path, dict[str, str]()  # by place: the reason why it is read in part
        self.found_none, self.expected = "no documents", "texts"  # for an error about a table without any
        self._sheets, others = _sheets_in(path, sheet)
        if others:
            self.in_part[path] = others
        is_text = not self._sheets and is_table_or_lines(path)
        self._encoding = found_encoding(path) if is_text else None
        self._head, self.title = TableHead(0, 1), ""
        self._dialect = None if self._encoding is None else self._detect(self._encoding, separator, header)
        self._has_header = header is not False

    @property
    def is_of_texts(self) -> bool:
        """Whether the cells are texts, whose spelling decides what they are: those of text files and spreadsheets."""
        return self._dialect is not None or bool(self._sheets)

    @property
    def spelled(self) -> dict[str, _ColumnFacts]:
        """The columns about whose spellings something may be said: of JSON and Parquet, texts that could have order."""
        if self.is_of_texts:
            return self.columns
        return {name: facts for name, facts in self.columns.items() if facts.are_ordered_texts}

    @property
    def holds_lines(self) -> bool:
        """Whether the file holds lines of text in place of a table."""
        return self._encoding is not None and self._dialect is None

    @property
    def is_ragged(self) -> bool:
        """Whether a file that holds lines has columns, in rows of different lengths."""
        return self._ragged_separator != ""

    @cached_property
    def _ragged_separator(self) -> str:
        with open_text(self.path, str(self._encoding)) as stream:
            line = stream.readline().decode("utf-8", "replace")
        separator = max(",;|\t", key=line.count)
        return separator if separator in line else ""

    def ragged_rows(self) -> Iterator[tuple[int, Union[dict[str, Any], BadRow]]]:
        """Yield (number, row) for each row below the first, which names the columns; rows may have fewer cells."""
        names = tuple[str, ...]()
        for number, row in self._separated(str(self._encoding), self._ragged_separator, '"'):
            if isinstance(row, BadRow):
                yield number, row
            elif not names:
                names = _column_names(row)
            elif any(row[len(names) :]):
                yield number, BadRow(f"{len(row)} columns, expected {len(names)}")
            else:
                yield number, dict(zip(names, row))

    @cached_property
    def columns(self) -> dict[str, _ColumnFacts]:
        """Facts about each column by its name; the first access reads the whole file, unless they are kept."""
        if self.key in _FACTS:
            return _FACTS[self.key]
        columns, paths = dict[str, _ColumnFacts](), Paths()
        for number, row in self.named_rows():
            for name, value in paths.of(row).items() if isinstance(row, dict) else ():
                columns.setdefault(name, _ColumnFacts()).add(value, number)
        columns = {name: facts for name, facts in columns.items() if not paths.is_dropped(name)}
        comma = any(column.spellings.has_decimal_comma for column in columns.values())
        for column in columns.values():
            column.close(comma)
        if self.key[1] is not None:
            keep_facts({self.key: columns})
        return columns

    @property
    def counts(self) -> dict[str, int]:
        """How many cells of each column are not empty, by the column's name."""
        return {name: facts.count for name, facts in self.columns.items()}

    def rows(
        self, roles: Mapping[str, str], files: FileFields, declared: Declared
    ) -> Iterator[tuple[int, Union[dict[str, Any], BadRow]]]:
        """Yield (number, row) for each row: a dict from column names to values, or a `BadRow` with the reason.

        In text files the number is the line's. Values are converted by the spelling inferred for their column, HTML to
        its text; missing values are absent.

        roles: names of the columns that become id, title and text, by role; in the rows the id and text columns are
            called `id` and `text`
        files: fields whose values are files; a row with a file to read needs no text
        declared: see `DocumentFile`; the values of declared fields are not converted here
        """
        id, title, text = map(roles.get, ROLES)
        is_table, spellings = self.is_of_texts, self._inferred(roles, declared)
        html = {name for name, facts in self.columns.items() if facts.is_html}
        for number, row in self.named_rows():
            if isinstance(row, BadRow):
                yield number, row
                continue
            named, has_file = dict[str, Any](), files.has_file(row)
            names = {id: "id", title if text is None and not has_file else text: "text"}
            for role, path in roles.items():
                if path not in row and (value := value_at(row, path)) is not None:
                    row = {**replaced(row, path, None), path: value} if role != "title" else row
            for name, value in row.items():
                spelling = spellings.get(name)
                if spelling is not None and isinstance(value, str):
                    value = spelling.value(value)
                elif html:
                    value = with_texts(value, lambda path, text: text_of_html(text) if path in html else text, name)
                if value is not None and (value != "" or not is_table):
                    named[names.get(name, f"{name}_" if name in ("id", "text") else name)] = value
            if has_file:
                yield number, named
                continue
            if title is not None and not named.get("text"):
                named["text"] = value_at(named, title)
            if is_table and not named.get("text"):  # the texts as they are spelled
                named["text"] = " ".join(filter(None, row.values()))
            yield number, named

    def named_rows(self) -> Iterator[tuple[int, Union[dict[str, Any], BadRow]]]:
        """Yield (number, row) for each row: a dict from the file's column names to cells, or a `BadRow`."""
        if self.holds_lines:
            assert self._encoding is not None
            with open_text(self.path, self._encoding) as stream:
                for number, line in lines_of(self.path, stream):
                    if line != EMPTY_LINE:
                        yield number, line if isinstance(line, BadRow) else {"text": line}
            return
        if self._sheets:
            yield from self._rows_of_sheets()
        elif self._dialect is not None:
            cells = islice(self._cells(self._dialect), self._head.above + self._head.lines, None)
            yield from _named(self._dialect.names, cells)
        else:
            yield from self._objects()

    def _rows_of_sheets(self) -> Iterator[tuple[int, Union[dict[str, Any], BadRow]]]:
        for sheet in self._sheets:
            rows, not_read = sheet.read()
            cells = [row for _, row in rows]
            head = head_of(cells[:_SAMPLE_ROWS]) if self._has_header else TableHead(0, 0)
            if not_read:
                note_once(f"{self.path}: {not_read}")
                self.in_part[f"{self.path}, sheet {sheet.name}"] = not_read
            if not rows:
                continue
            if head.above:
                left_above = f"{_left_above(head)}: {brief(text_above(cells[: head.above]))}"
                note_once(f"{self.path}: {left_above}")
                self.in_part[f"{self.path}, sheet {sheet.name}, row {rows[0][0]}"] = left_above
            if head.lines and len(rows) == head.above + head.lines:
                self._has_header_alone()
            names = _column_names(head.names(cells)) if head.lines else _numbered(max(map(len, cells)))
            for number, row in _named(names, iter(rows[head.above + head.lines :])):
                if isinstance(row, dict) and len(self._sheets) > 1:
                    row.setdefault("sheet", sheet.name)
                yield SheetRow(number, sheet.name), row

    def _has_header_alone(self) -> None:
        self.found_none, self.expected = "a header and no rows", "rows below it"

    def _objects(self) -> Iterator[tuple[int, Union[dict[str, Any], BadRow]]]:
        id: Any = None  # id of the next row, if an action before it states one
        for number, row in self._rows_of_json():
            if isinstance(row, BadRow):
                yield number, row
            elif isinstance(row, dict):
                if (action := _action(row)) is not None:
                    id = action.get("_id")
                    continue
                for document in map(unwrapped, _documents_in(row)):
                    yield number, document if id is None else {"_id": id, **document}
                id = None

    def _rows_of_json(self) -> Iterator[tuple[int, Any]]:
        """Yield (number, row) for each object of the file, or for each row of the list that its only object holds."""
        rows = read_rows(self.path)
        first = list(islice(rows, 2))
        if len(first) == 1 and isinstance(first[0][1], dict) and not self.path.endswith(_JSON_LINES):
            listed_rows = _list_in(first[0][1])
            if listed_rows is not None:
                name, rows_in_list = listed_rows
                found = f"its {len(rows_in_list):,} rows are the list {quoted(name)}"
                note_once(f"{self.path}: {found}; to keep the whole object as one document, name the file .jsonl")
                yield from enumerate(rows_in_list, start=1)
                return
        yield from first
        yield from rows

    def _cells(self, dialect: _Dialect) -> Iterator[tuple[int, Union[list[str], BadRow]]]:
        for number, row in self._separated(dialect.encoding, dialect.separator, dialect.quote):
            yield number, [*map(_undumped, row)] if dialect.is_dump and not isinstance(row, BadRow) else row

    def _separated(self, encoding: str, separator: str, quote: str) -> Iterator[tuple[int, Union[list[str], BadRow]]]:
        """Yield (number, cells) for each row of a text file, or (number, `BadRow`).

        Skips empty lines, and a first line such as `sep=;` that tells spreadsheets the separator.
        """
        with open_text(self.path, encoding) as stream:
            if self._has_separator_line:
                stream.readline()
            for number, row in separated_rows(self.path, stream, separator, quote):
                if row != EMPTY_LINE:
                    yield number, row

    def _detect(self, encoding: str, separator: str, header: Optional[bool]) -> Optional[_Dialect]:
        """Detect how a text file stores a table; None if it holds lines of text.

        separator, header: as in `_DocumentRows`

        Raises `DataError` for SQL, and if `header` is None but it is unclear whether the first row is a header.
        """
        with open_text(self.path, encoding) as stream:
            start = stream.read(_SAMPLE_BYTES)
        require_text(self.path, start)
        sample = start.decode("utf-8", "ignore").removeprefix("\ufeff")
        if _SQL.search(sample):
            raise DataError(
                f"{self.path}: SQL, expected a table; write one with \\copy (SELECT ...) TO 'file.csv' CSV HEADER"
            )
        separator_line, quote, is_told = _SEPARATOR_LINE.match(sample), '"', separator != TAB and header is True
        self._has_separator_line = separator_line is not None
        if separator == TAB:
            dialect = (separator_line[1], quote) if separator_line is not None else _sniffed(sample)
            if dialect is None:
                return None
            separator, quote = dialect
        sampled = [row for _, row in islice(self._separated(encoding, separator, quote), _SAMPLE_ROWS)]
        rows = [row for row in sampled if not isinstance(row, BadRow)]
        head = TableHead(0, 0) if header is False else head_of(rows)
        above, rows = rows[: head.above], rows[head.above :]
        widths = Counter(map(len, rows))
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        is_named = bool(rows) and names_columns(rows[0])
        if is_told and rows:  # rows of another width than the header's are bad
            width = len(rows[0])
        elif count < _SAME_WIDTH * len(rows) or (width == 1 and not (is_named or _QUOTED.search(sample))):
            return None
        if header is None:
            votes = _header_votes(rows[0], [row for row in rows[1:] if len(row) == width])
            if not is_named and votes == 0 and len(rows) > 1 and head.lines < 2:
                raise DataError(
                    f"{self.path}, line 1: {brief(listed(rows[0]))} may name the columns, or be a document: type "
                    "--header true or --header false"
                )
            header = is_named or votes > 0 or head.lines > 1
        if not (header or width > 2 or separator == "\t" or self.path.lower().endswith(_TABLES)):
            return None  # two halves of a sentence
        self._head = head if header else TableHead(head.above, 0)
        if self._head.lines and len(sampled) == head.above + head.lines:
            self._has_header_alone()
        self.title = text_above(above)
        if above:
            self.in_part[f"{self.path}, line 1"] = f"{_left_above(head)}: {brief(self.title)}"
        is_dump = not quote and any(cell == _NO_VALUE for row in rows for cell in row)
        separator = _NONE if width == 1 else separator
        names = _column_names(head._replace(above=0).names(rows)) if header else _numbered(width)
        return _Dialect(encoding, separator, quote, names, is_dump)

    def _inferred(self, roles: Mapping[str, str], declared: Declared) -> dict[str, ValueSpelling]:
        """Return the inferred spellings of a table's columns of texts, without id, title, text and declared fields."""
        columns = self.columns.items() if self.is_of_texts else ()
        apart = {*roles.values(), *declared}
        return {name: facts.spelling for name, facts in columns if facts.spelling and name not in apart}

    def spellings(self, roles: Mapping[str, str], declared: Declared) -> dict[str, ValueSpelling]:
        """Return the spellings by which columns are read, declared or inferred; the arguments as in `rows`."""
        return {
            **{name: spelling for name, spelling in declared.items() if spelling},
            **self._inferred(roles, declared),
        }

    def describe(self, roles: Mapping[str, str], declared: Declared) -> None:
        """Print the detected encoding, separator, columns and spellings, with the options that would set them.

        roles, declared: as in `rows`
        """
        notes, columns, spellings = list[str](), self.columns, self._inferred(roles, declared)
        if self.holds_lines and columns and self.path.lower().endswith(_TABLES):
            notes.append("no table, as too many lines differ in their separators: each line is a document")
        if self._encoding not in (None, "utf-8"):
            notes.append(f"text in {ENCODINGS.get(str(self._encoding), self._encoding)}")
        if self._dialect is not None:
            separator = self._dialect.separator
            columns_are = f"columns separated by {_SEPARATORS.get(separator, separator)}"
            notes.append("a table of one column" if separator == _NONE else f"a table, {columns_are}")
        if self._head.above:
            notes.append(f"{_left_above(self._head)}: {brief(self.title)}")
        if self._dialect is not None and not self._head.lines:
            notes.append("the first row is a document (--header true if it names columns)")
        if self._dialect is not None or roles != {role: role for role in roles}:
            notes.append(" ".join(f"--{role}_column {shlex.quote(roles.get(role, NO_COLUMN))}" for role in ROLES))
        if notes:
            note_once(f"{self.path}: {'; '.join(notes)}")
        for name, spelling in spellings.items():
            example = columns[name].example
            value = json.dumps(spelling.read(example), ensure_ascii=False)
            note_once(f"{self.path}: {_field_option(name, spelling)}: {quoted(example)} is {value}")
        for name in [name for name, facts in columns.items() if facts.is_html]:
            note_once(f"{self.path}: {name}: HTML, its text is kept without tags")
        for name, facts in self.spelled.items():
            stays = f"{self.path}: {name} stays text"
            if name in spellings or name in declared or name in roles.values() or not facts.spellings.count:
                continue
            values = facts.spellings
            if facts.spelling is not None:  # texts of JSON and Parquet, which could have been numbers or dates
                value = json.dumps(facts.spelling.read(facts.example), ensure_ascii=False)
                option = _field_option(name, facts.spelling)
                note_once(f"{stays}, as it is in the rows: with {option}, {quoted(facts.example)} is {value}")
            elif values.doubtful_dates:
                options = " or ".join(_field_option(name, spelling_of("date", date)) for date in values.doubtful_dates)
                note_once(f"{stays}, for no value tells whether days or months come first: {options}")
            elif values.has_doubtful_points and self.is_of_texts:
                option = _field_option(name, spelling_of("number", "1.234,5"))
                note_once(f"{self.path}: {name}: points are before decimals; if they are between thousands, {option}")
            elif reason := values.doubt():
                note_once(f"{stays}: {reason}")


def _field_option(name: str, spelling: ValueSpelling) -> str:
    """Return the option `--field` that declares the field `name` with a spelling."""
    kind = f"keyword:{LIST}" if spelling.type == LIST else spelling.type
    unit = f":unit={spelling.unit}" if spelling.unit else ""
    return f"--field {shlex.quote(f'{name}:{kind}{unit}:format={spelling.format}')}"


def holds_contents(path: str, files: FileFields) -> bool:
    """Return whether a path is read as contents: a folder, or one file of a kind that `files` or a folder takes.

    A file of a format of rows, such as CSV or a spreadsheet, holds documents instead.
    """
    name = path.lower()
    if os.path.isdir(path):
        return True
    name = name.removesuffix(GZIP)
    takes = Path(name).suffix[1:] in files.by_suffix or name.endswith((*_WHOLE, *HOLDERS))
    return takes and not any(name.endswith(file_format.extensions) for file_format in FORMATS.values())


class _FileRows:
    """A folder's files, or one file, as rows: a file's path is its id, its suffix selects its field.

    Attributes:
        folder: the folder of the files.
        columns: names of the rows' values.
        counts: number of files by field.
    """

    def __init__(self, path: str, files: FileFields, corpus: Union[str, os.PathLike[str]]) -> None:
        """List the files of `path`, a folder with its subfolders or one file.

        files: the fields that take the files
        corpus: all paths of the corpus; if they are several, ids begin with the path
        """
        is_folder = os.path.isdir(path)
        self.folder = path if is_folder else os.path.dirname(path)
        self._root, self._files, self._names = Path(self.folder), files, list[str]()
        self._base = folder_of(corpus)  # to which the names of files in rows are relative
        self._before = "" if len(paths_of(corpus)) == 1 else self.folder
        self._left_out = list[Unread]()
        if is_folder:
            if _is_index(Path(path)):
                raise DataError(f"{path}: an index, expected documents; name the files of which it was built")
            self._list(path)
        else:
            self._names.append(os.path.basename(path))
        is_empty = not self._names and not self._left_out
        self.found_none = "an empty folder" if is_empty else "no documents"  # for an error about a folder without any
        suffixes = (f".{suffix}" for suffix in files.by_suffix)
        self.expected = f"files that are read: {', '.join(sorted({*_PLAIN, *HOLDERS, *suffixes}))}, and {GZIP} of these"
        self.counts = Counter(filter(None, map(self._field_of, self._names)))
        self.columns = dict.fromkeys([*ROLES, _FILE, *sorted(self.counts)])

    def _list(self, path: str) -> None:
        def unlisted(error: OSError) -> None:
            self._left_out.append(Unread(self._named(Path(str(error.filename))), _no_access(error)))

        for parent, folders, names in os.walk(path, onerror=unlisted):
            kept = list[str]()
            for name in sorted([*folders, *names]):
                full = Path(parent, name)
                if reason := _reason_to_leave_out(full):
                    self._left_out.append(Unread(_shown_name(self._named(full)), reason))
                elif full.is_dir():
                    kept.append(name)
                else:
                    self._names.append(self._named(full))
            folders[:] = kept

    def _named(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _field_of(self, name: str) -> Optional[str]:
        return self._files.by_suffix.get(Path(name).suffix[1:].lower())

    def _holds_others(self, name: str) -> bool:
        """Return whether a file, by its name in lower case, is unpacked: a holder, or a file in gzip that is read."""
        plain = name.removesuffix(GZIP)
        is_read = plain.endswith(_PLAIN) or self._field_of(plain) is not None
        return plain.endswith(HOLDERS) or (plain != name and is_read)

    def rows(
        self, roles: Mapping[str, str], files: FileFields, declared: Declared
    ) -> Iterator[tuple[str, Union[dict[str, Any], Unread, BadRow]]]:
        """Yield (name, row) for each file: a dict, an `Unread` for a file of no kind that is read, or a `BadRow`.

        The parameters are unused; they are those of `_DocumentRows.rows`.
        """
        for left_out in self._left_out:
            yield left_out.name, left_out
        with ExitStack() as ends:
            unpacker: Optional[ChildProcess] = None
            for name in self._names:
                if self._holds_others(name.lower()):
                    if unpacker is None:
                        unpacker = ChildProcess()
                        ends.callback(unpacker.close)
                    yield from self._rows_within(name, unpacker)
                else:
                    yield _shown_name(name), self._row_or_problem(name, self._root / name)

    def _rows_within(
        self, name: str, unpacker: ChildProcess
    ) -> Iterator[tuple[str, Union[dict[str, Any], Unread, BadRow]]]:
        """Yield (name, row) for each member of a file that holds others; its files are there until the next row."""
        with tempfile.TemporaryDirectory(prefix="paddle_ranker_") as folder:
            try:
                unpacker.ask(UNPACK, (self._root / name).resolve(), folder, name)
            except (DataError, OSError) as error:
                yield _shown_name(name), BadRow(one_line(error))
                return
            for member in members_in(Path(folder)):
                inside = f"{name}/{member.name}" if member.name else name
                id = os.path.join(self._before, inside)
                if member.reason:
                    yield inside, Unread(id, member.reason)
                elif member.path is not None:
                    row = self._row_or_problem(inside, member.path)
                    yield inside, {**member.values, **row} if isinstance(row, dict) else row
                else:
                    yield inside, {"id": id, _FILE: id, **member.values}

    def _row_or_problem(self, name: str, path: Path) -> Union[dict[str, Any], Unread, BadRow]:
        try:
            return self._row(name, path)
        except (DataError, OSError) as error:
            return BadRow(one_line(error).removeprefix(f"{path}: "))

    def _row(self, name: str, path: Path) -> Union[dict[str, Any], Unread]:
        if not is_storable(name):
            raise DataError("its name is not UTF-8; rename it")
        field, id = self._field_of(name), os.path.join(self._before, name)
        row: dict[str, Any] = {"id": id, _FILE: id}
        if field is not None:
            inside = os.path.relpath(path, self._base)
            row[field] = path if inside.startswith("..") else Path(inside).as_posix()
            # A file that is read may have a title of its own.
            return row if field in self._files.read else {**row, "title": _title_of(name)}
        plain = name.lower().removesuffix(GZIP)
        suffix = Path(plain).suffix + name.lower()[len(plain) :]
        if suffix not in _PLAIN:
            return Unread(id, f"{NOT_OF_A_KIND}{f' ({suffix})' if suffix else ''}{_remedy(suffix)}")
        text = _text_in(str(path))
        if not text.strip():
            return Unread(id, "it is empty")
        if len(text) > _MOST_TEXT:
            return Unread(id, f"it has more than {_MOST_TEXT:,} bytes")
        return {**row, "title": _title_of(name), "text": text}


def _remedy(suffix: str) -> str:
    """Return what reads or converts files of a suffix, to follow a message; "" if that is not known."""
    from paddle_ranker.data.files.pictures import PHONE_SUFFIXES, PHONES_INSTALL, reads_format

    kind = PHONE_SUFFIXES.get(suffix[1:])
    if suffix in _JSON:
        return "; --corpus FILE reads one as rows, outside a folder"
    if suffix not in _CONVERTERS or (kind is not None and reads_format(kind)):
        return ""
    installs = f"{PHONES_INSTALL} reads them, or " if kind is not None else ""
    return f"; {installs}{_CONVERTERS[suffix]} converts them"


def _text_in(path: str) -> str:
    """Return the text of a file, of which at most one byte more than `_MOST_TEXT` is read.

    Raises `DataError` for a file that holds no text, although its name says so.
    """
    is_table_or_lines(path)  # raises for binary data
    with open_text(path, found_encoding(path)) as stream:
        data = stream.read(_MOST_TEXT + 1)
    require_text(path, data)
    if b"\0" in data:
        raise DataError("a NUL byte, expected text")
    return data.decode("utf-8", "replace").removeprefix("\ufeff")


def require_text(path: str, start: bytes) -> None:
    """Raise `DataError` if a file without a suffix that says so begins as a PDF, a web page or the like.

    start: the file's first bytes
    """
    for pattern, what, suffix in _NO_TEXTS:
        if pattern.match(start):
            raise DataError(f"{path}: {what}, expected text; name it {suffix}")


def _reason_to_leave_out(path: Path) -> str:
    """Return why `path`, a file or folder in a folder of documents, is left out; "" if it is not."""
    try:
        if path.is_symlink() or path.name.startswith("."):
            return "a link" if path.is_symlink() else "hidden"
        if not (path.is_dir() or path.is_file()):
            return "no file, but a pipe, a socket or a device"
    except OSError as error:  # the folder may be listed, and not entered
        return _no_access(error)
    return "an index" if _is_index(path) else ""


def _no_access(error: OSError) -> str:
    """Return why a file or folder cannot be looked at, and what to do."""
    return f"{error.strerror}; change its permissions, or run as another user"


def _is_index(path: Path) -> bool:
    return any(os.path.isfile(path / name) for name in _OF_INDEXES)  # false if the folder may not be entered


def _shown_name(name: str) -> str:
    """Return a file's name for messages; bytes that are not UTF-8 are shown in hexadecimal."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _title_of(path: str) -> str:
    return Path(path).stem.replace("_", " ").strip()


def _refuse_columns(path: str, rules: DocumentOptions) -> None:
    """Raise `UsageError` if the rules set options of tables, since the files of `path` are contents."""
    for name, value in (
        ("header", rules.header),
        ("sheet", rules.sheet),
        *((f"{role}_column", getattr(rules, f"{role}_column")) for role in ROLES),
    ):
        if value is not None:
            raise UsageError(
                f"--{name} {value}: is about the columns of a table, and {path} is read file by file; leave it out"
            )


def _sniffed(sample: str) -> Optional[tuple[str, str]]:
    """Return the separator and the quote ("" for none) of a table's text; None if it is no table."""
    import clevercsv

    is_quoted = _QUOTED.search(sample) is not None
    try:
        dialect = clevercsv.Sniffer().sniff(sample, delimiters="".join(_SEPARATORS))
    except clevercsv.Error:
        return None
    if dialect is None or dialect.delimiter not in _SEPARATORS:
        return (",", '"') if is_quoted else None  # one column, of quoted texts
    is_quoted = is_quoted or _has_quoted_cells(sample, dialect.delimiter)
    return dialect.delimiter, '"' if is_quoted else dialect.quotechar or ""


def _has_quoted_cells(sample: str, separator: str) -> bool:
    """Return whether cells are in quotes: each that begins with a quote also ends with one.

    Databases write tables of tabs without quotes, so that those in them are texts.
    """
    begin, end = f'(?:^|{re.escape(separator)})"', f"(?={re.escape(separator)}|\\r?$)"
    begun = len(re.findall(begin, sample, re.MULTILINE))
    ended = len(re.findall(f'{begin}(?:[^"]|"")*"{end}', sample, re.MULTILINE))
    return separator != "\t" and 0 < begun == ended


def _named(
    names: Sequence[str], rows: Iterator[tuple[int, Union[list[str], BadRow]]]
) -> Iterator[tuple[int, Union[dict[str, Any], BadRow]]]:
    """Yield (number, row) for rows of cells: dicts by the names of the columns, or a `BadRow` for another width.

    Rows of empty cells, which spreadsheet programs write below a table, are left out as empty lines are.
    """
    for number, row in rows:
        if isinstance(row, BadRow):
            yield number, row
        elif len(row) < len(names) or any(row[len(names) :]):
            yield number, BadRow(f"{len(row)} columns, expected {len(names)}")
        elif any(map(str.strip, row)):
            yield number, dict(zip(names, row))


def _numbered(width: int) -> tuple[str, ...]:
    """Return names for columns without names."""
    return tuple(f"column_{place + 1}" for place in range(width))


def _left_above(head: TableHead) -> str:
    return (
        f"{head.above} {'row' if head.above == 1 else 'rows'} above the header left out (--header false for documents)"
    )


def _sheets_in(path: str, chosen: str) -> tuple[list[Sheet], str]:
    """Return the sheets of a spreadsheet that are read, and which are not, for a message.

    chosen: the name of a sheet, `all`, or "" for the first

    Returns no sheets for a file that is no spreadsheet.
    """
    with open_text(path, "utf-8") as stream:
        if not is_spreadsheet(path.lower().removesuffix(".gz"), stream.peek(len(ZIP))):
            if chosen:
                raise UsageError(f"--sheet {quoted(chosen)}: is about spreadsheets, and {path} is none; leave it out")
            return [], ""
        sheets = sheets_of(path, stream)
    names = [sheet.name for sheet in sheets]
    if chosen == ALL_SHEETS and chosen not in names:
        return sheets, ""
    if chosen:
        if chosen not in names:
            hint = spelling_hint(chosen, names)
            raise UsageError(f"--sheet {quoted(chosen)}: {path} has the sheets {listed(names)}{hint}")
        return [sheet for sheet in sheets if sheet.name == chosen], ""
    others = ""
    if len(names) > 1:
        others = f"its first sheet is read, {quoted(names[0])}; not read: {listed(names[1:])} (--sheet NAME, or all)"
        note_once(f"{path}: {others}")
    return sheets[:1], others


def _header_votes(first: Sequence[str], others: Sequence[Sequence[str]]) -> int:
    """Return for how many columns the first row seems a header, minus for how many it seems a row of data.

    A first cell unlike the cells below it counts for a header, a first cell that occurs again below it counts against.

    first: cells of the first row
    others: the rows below the first

    Returns -1 if the first cells repeat, are numbers or are too long to be names.
    """
    names = [*map(plain_name, first)]
    if 2 * len({*names}) <= len(names):
        return -1
    if any(number_of(cell) is not None or len(cell) > _LONGEST_NAME for cell in names):
        return -1
    votes = 0
    for name, cells in zip(first, zip(*others)):
        values = [cell for cell in cells if cell.strip()]
        texts = sum(not any(character.isdigit() for character in cell) for cell in values)
        length = sum(map(len, values)) / max(1, len(values))
        is_alike = name in values
        votes += -1 if is_alike else bool(values) and (texts < len(values) / 10 or length > 2.5 * max(4, len(name)))
    return votes


def _column_names(cells: Sequence[str]) -> tuple[str, ...]:
    """Return distinct names for columns: the cells without the spaces and quotes around them."""
    names = list[str]()
    for place, cell in enumerate(cells):
        name = unquoted(" ".join(cell.split())) or f"column_{place + 1}"
        names.append(name if name not in names else f"{name}_{place + 1}")
    return tuple(names)


def _undumped(cell: str) -> str:
    return "" if cell == _NO_VALUE else _ESCAPE.sub(lambda match: _ESCAPED[match[1]], cell)


def _documents_in(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the documents in a row: the hits of Elasticsearch's output (`_source`), or else the row itself."""
    hits = row.get("hits")
    if isinstance(hits, dict) and isinstance(hits.get("hits"), list):
        for hit in hits["hits"]:
            yield from _documents_in(hit) if isinstance(hit, dict) else ()
    elif isinstance(row.get("_source"), dict):
        yield {**({"_id": row["_id"]} if "_id" in row else {}), **row["_source"]}
    else:
        yield row


def _list_in(row: Mapping[str, Any]) -> Optional[tuple[str, list[dict[str, Any]]]]:
    """Return (path, rows) of the only list of objects in an object such as `{"data": [...], "total": 2}`.

    Returns None for an object with several such lists, and for a document, which has an id, a title or a text beside
    its list; a number of rows is no id.
    """
    lists, inner = dict[str, list[dict[str, Any]]](), list[tuple[str, list[dict[str, Any]]]]()
    for name, value in row.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            lists[name] = value
        elif isinstance(value, dict) and (found := _list_in(value)) is not None:
            inner.append((f"{name}{BETWEEN}{found[0]}", found[1]))
    if len(lists) != 1 and (lists or len(inner) != 1):
        return None
    path, rows = next(iter(lists.items()), None) or inner[0]
    is_document = any(
        isinstance(value, (str, int)) and value not in ("", len(rows)) and _names_a_document(key_of(name))
        for name, value in row.items()
    )
    return None if is_document else (path, rows)


def _names_a_document(key: str) -> bool:
    return key in (*ID, *TITLES, *_TEXTS) or _ID_NAME.fullmatch(key) is not None


def _action(row: Mapping[str, Any]) -> Optional[Mapping[str, Any]]:
    """Return the action that precedes a document in Elasticsearch's bulk format, or None for any other row."""
    action = next(iter(row.values())) if len(row) == 1 else None
    return action if isinstance(action, dict) and "_index" in action else None


class _ColumnFacts:
    """Facts about the cells of a column: `add` counts each cell, `close` completes the facts.

    Attributes:
        spellings: spellings that fit all values.
        spelling: the chosen spelling; None for plain numbers, ISO dates and texts.
        count: number of cells that are not empty.
        codes: number of values that could be ids.
        are_different: whether all values differ.
        are_objects: whether all values are objects or lists of JSON.
        are_texts: whether most values have several words and differ, and they are neither dates nor lists.
        example: the first value.
    """

    def __init__(self) -> None:
        self.spellings = Spellings()
        self.spelling: Optional[ValueSpelling] = None
        self.example = ""
        self.count = self.codes = self._characters = self._words = self._marked_up = 0
        self._are_strings = self.are_objects = self.are_different = True
        self.are_texts = False
        self._values = set[int]()  # hashes, of all as long as all differ

    @property
    def mean(self) -> float:
        """Mean length of a value in characters."""
        return self._characters / max(1, self.count)

    @property
    def is_html(self) -> bool:
        """Whether most values have tags of HTML."""
        return 2 * self._marked_up > self.count

    @property
    def are_ordered_texts(self) -> bool:
        """Whether all values are texts, and most of them look like numbers or dates."""
        return self._are_strings and bool(self.spellings.looks_like())

    def add(self, value: object, row: int) -> None:
        if value is None or (isinstance(value, str) and not value.strip()):
            return
        self.count += 1
        self._are_strings &= isinstance(value, str)
        self.are_objects &= isinstance(value, (dict, list))
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        self.example = self.example or text
        self.spellings.add(text, row)
        self._characters += len(text)
        self.codes += _ID.fullmatch(text) is not None and not isinstance(value, (float, bool))
        self._marked_up += isinstance(value, str) and has_markup(value)
        self._words += (" " in text or not text.isascii()) and any(map(str.isalpha, text))
        if len(self._values) < (_MOST_DIFFERENT if self.are_different else _SAMPLED):
            self._values.add(hash(text))
            self.are_different &= len(self._values) == self.count

    def close(self, decimal_comma: bool) -> None:
        """Choose the spelling, and free the values; `decimal_comma` as in `Spellings.chosen`."""
        differ = 2 * len(self._values) > min(self.count, _SAMPLED)
        has_words = self._are_strings and differ and 2 * self._words > self.count
        self.are_texts = has_words and self.spellings.chosen() is None and not self.spellings.doubt()
        self.spelling = self.spellings.chosen(decimal_comma)
        self._values.clear()
        self.spellings.close()


def _roles(columns: Mapping[str, _ColumnFacts], chosen: Mapping[str, str], path: str) -> dict[str, str]:
    """Return the names of the columns that become id, title and text, by role.

    columns: facts about all columns that may be chosen
    chosen: by role, the column that an option or the index chooses
    path: the file, for messages

    A role without a chosen column gets a column by its name, or else by its values.
    """
    roles = dict[str, str]()
    for role, name in chosen.items():
        named = name if name in columns else None
        if named is None and name != NO_COLUMN:
            raise UsageError(
                f"--{role}_column {quoted(name)}: {path} has {listed(columns)}{spelling_hint(name, columns)}"
            )
        if named is not None:
            roles[role] = named
    total = max((column.count for column in columns.values()), default=0)
    free = {name: facts for name, facts in columns.items()
            if name not in roles.values() and facts.count and not facts.are_objects}  # fmt: skip
    for role, known_names in (("id", ID), ("text", _TEXTS), ("title", TITLES)):
        keys = {key_of(plain_name(name)): name for name in reversed(free)}
        named = next((keys[name] for name in known_names if name in keys), None)
        if role not in chosen and named is not None:
            roles[role] = named
            del free[named]
    if "id" not in chosen and "id" not in roles:
        for place, (name, facts) in enumerate(columns.items()):
            is_id = _ID_NAME.fullmatch(key_of(plain_name(name))) or (place == 0 and name.startswith("column_"))
            if name in free and is_id and facts.are_different and facts.count == total == facts.codes:
                roles["id"] = name
                del free[name]
                break
    texts = {name: facts for name, facts in free.items() if facts.are_texts}
    if "title" not in chosen and "title" not in roles and len(texts) > ("text" not in roles):
        short = [name for name, facts in texts.items() if facts.mean <= _LONGEST_TITLE]
        if short:
            roles["title"] = short[0]
            del texts[short[0]]
    if "text" not in chosen and "text" not in roles:
        longest = max(texts, key=lambda name: texts[name].mean, default=None)
        title = columns.get(roles.get("title", ""))
        if longest is not None and (title is None or texts[longest].mean > title.mean):
            roles["text"] = longest
    return roles
