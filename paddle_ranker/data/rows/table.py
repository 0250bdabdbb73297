"""Read tables as parts: a summary of the columns, then parts with some rows each. Every part repeats the header.

CSV and other text, Parquet and JSON lines are streamed; spreadsheets and HTML are held in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Union

from paddle_ranker.data.files.cell_formats import cell_text
from paddle_ranker.data.files.file_readers import Part, Unread
from paddle_ranker.data.files.html_text import is_declared, page_of
from paddle_ranker.data.files.placed_text import SpanPlace
from paddle_ranker.data.files.spreadsheets import is_spreadsheet, sheets_of
from paddle_ranker.data.rows.documents import head_of, table_in, text_above
from paddle_ranker.data.rows.formats import BadRow, found_encoding
from paddle_ranker.data.rows.labels import number_of
from paddle_ranker.errors import DataError
from paddle_ranker.options import note

_VERSION = 2  # raised when the same table would give other parts
# Characters of a part, of which the header has a third at most. Numbers have a token for two or three characters, so
# that a part fits into the 512 tokens of a ranker.
_MOST, _MOST_HEADER = 1200, 400
_VALUES, _MOST_VALUES = 30, 4000  # different texts of a column in a summary, and characters of all of them
_MANY = 1000  # tables with more parts are noted
_BETWEEN = " | "
_MOST_HTML = 1 << 26  # bytes
_PAGE = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*<[a-z!?]", re.IGNORECASE)  # start of HTML

Row = Union[Sequence[str], BadRow]


class _FileTable(NamedTuple):
    """A table of a file.

    name: name that no other table of the file has; "" if the file has one table
    title: words about the table, such as a caption or the name of a sheet
    header: names of the columns
    rows: called without arguments, returns an iterator over the rows below the header
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Callable[[], Iterator[Row]]


def read(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield the parts of each table of a file, and an `Unread` for a table's bad rows; see `Reader.read`.

    A small table is one part. The first part of a large table summarises its columns; each other part has some rows.
    The text of an HTML page outside of its tables is a part, too.
    """
    with open(path, "rb") as stream:
        start = stream.read(1024)
    if _PAGE.match(start) or _PAGE.match(start.replace(b"\0", b"")):  # also in UTF-16
        yield from _parts_of_page(path)
        return
    if is_spreadsheet(path.name.lower(), start):
        yield from _parts_of_sheets(path)
        return
    tables = [*_rows_of(path)]
    for table in tables:
        yield from _parts(table)
    if not tables:
        yield Unread("", "no rows")


def version() -> str:
    """Return a text that changes whenever the parts of a table may change (`Reader.version`)."""
    return str(_VERSION)


def _rows_of(path: Path) -> Iterator[_FileTable]:
    table = table_in(str(path))
    columns = dict[str, None]()
    for _, row in table.rows():
        columns.update(dict.fromkeys(row) if isinstance(row, dict) else {})
    if not columns:
        return

    def rows() -> Iterator[Row]:
        for number, row in table.rows():
            if isinstance(row, BadRow):
                yield BadRow(f"line {number}: {row.reason}")
            else:
                yield [cell_text(row.get(name)) for name in columns]

    yield _FileTable("", table.title, [*columns], rows)


def _parts_of_sheets(path: Path) -> Iterator[Union[Part, Unread]]:
    with open(path, "rb") as stream:
        sheets = [(sheet.name, *sheet.read()) for sheet in sheets_of(str(path), stream)]
    filled = [name for name, rows, _ in sheets if rows]
    for name, rows, not_read in sheets:
        if rows:
            cells = [row for _, row in rows]
            head = head_of(cells)
            body = cells[head.above + head.lines :]
            title = " ".join(filter(None, (name, text_above(cells[: head.above]))))
            table = _FileTable(name if len(filled) > 1 else "", title, head.names(cells), partial(iter, body))
            yield from _parts(table)
        if not_read:
            yield Unread(name if len(sheets) > 1 else "", not_read)
    if not filled:
        yield Unread("", "no rows")


def _parts_of_page(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield the text of an HTML page outside of its tables, and the parts of its tables."""
    if path.stat().st_size > _MOST_HTML:
        raise DataError(f"{path}: {path.stat().st_size:,} bytes of HTML, more than the limit of {_MOST_HTML:,}")
    data = path.read_bytes()
    try:
        page = page_of(data, "" if is_declared(data) else found_encoding(str(path)))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if page.lines or not page.tables:
        yield Part("text" if page.tables else "", "\n".join(page.lines), {"title": page.title} if page.title else {})
    for number, table in enumerate(page.tables, start=1):
        title = " ".join(dict.fromkeys(filter(None, (page.title, table.title))))
        (header, *rows), width = table.rows, max(map(len, table.rows))
        names = [*header, *[""] * (width - len(header))]
        name = str(number) if len(page.tables) > 1 or page.lines else ""
        yield from _parts(_FileTable(name, title, names, partial(iter, rows)))
    if page.is_cut:
        yield Unread("", "some of its cells span more rows or columns than their text can fill")


class _ColumnSummary:
    """Facts about a column, for the table's summary: range of its numbers, first different values."""

    def __init__(self) -> None:
        self.numbers, self.count, self.low, self.high = 0, 0, "", ""
        self.values = dict[str, int]()  # the first distinct values, with the row of their first occurrence

    def add(self, cell: str, row: int) -> None:
        """Count a cell that is not empty, in row number `row`."""
        number = number_of(cell)
        self.count += 1
        if number is not None:
            self.numbers += 1
            self.low = min(self.low or cell, cell, key=lambda text: number_of(text) or 0.0)
            self.high = max(self.high or cell, cell, key=lambda text: number_of(text) or 0.0)
        elif len(self.values) < _VALUES:
            self.values.setdefault(cell, row)


def _parts(table: _FileTable) -> Iterator[Union[Part, Unread]]:
    """Yield the parts of a table, in two passes over its rows, and an `Unread` for its bad rows."""
    columns, bad, rows, size = [_ColumnSummary() for _ in table.header], list[str](), 0, 0
    for number, row in enumerate(table.rows()):
        rows += 1
        if isinstance(row, BadRow):
            bad.append(row.reason) if len(bad) < 3 else bad.append("")
            continue
        for column, cell in zip(columns, row):
            if cell:
                column.add(cell, number)
        size += sum(map(len, row)) + len(_BETWEEN) * len(row)
    fields = {"title": table.title} if table.title else {}
    whole = {**fields, "first_row": 0, "last_row": max(0, rows - 1)}
    width = range(len(table.header))
    shown = sum(map(len, map(_with_words, table.header))) + len(_BETWEEN) * len(width)
    if shown + size <= _MOST:
        writer = _PlacedWriter(table, width, _with_words)
        for number, row in enumerate(table.rows()):
            if not isinstance(row, BadRow):
                writer.add(number, row, width)
        yield Part(table.name, writer.text, whole, writer.places)
    else:
        yield _summary(table, columns, whole)
        blocks = _blocks(table.header)
        count = len(blocks) + size // (_MOST - min(_MOST_HEADER, shown))
        if count > _MANY:
            note(f"{rows:,} rows of {len(columns):,} columns, which are about {count:,} parts")
        yield from _row_parts(table, blocks, fields)
    if bad:
        yield Unread(table.name, f"{len(bad):,} of {rows:,} rows, such as {bad[0]}")


class _PlacedWriter:
    """Writer of a part's text; records the places of its cells, `(start, end, row, column)`."""

    def __init__(self, table: _FileTable, columns: range, shown: Callable[[str], str] = str) -> None:
        """Begin with the title and the header of `columns`; the header is row -1.

        shown: called with a column's name; returns the text to write for it
        """
        self.text = f"{table.title}\n" if table.title else ""
        self.places = list[SpanPlace]()
        self.first = self.last = -1
        for column in columns:
            self.text += _BETWEEN if column > columns.start else ""
            self.cell(shown(table.header[column]), -1, column)

    def add(self, number: int, row: Sequence[str], columns: range) -> None:
        """Add row number `number` as a line: its cells in `columns`."""
        self.first, self.last = number if self.first < 0 else self.first, number
        self.text += "\n"
        for column in columns:
            self.text += _BETWEEN if column > columns.start else ""
            self.cell(row[column] if column < len(row) else "", number, column)

    def cell(self, text: str, row: int, column: int) -> None:
        """Append a cell's text, and record its place if it is not empty."""
        if text:
            self.places.append((len(self.text), len(self.text) + len(text), row, column))
        self.text += text


def _with_words(name: str) -> str:
    """Return a column's name. If it joins several words, they follow in parentheses: `unitPrice (unit Price)`."""
    words = "".join(f" {sign}" if _begins_word(name, at) else sign for at, sign in enumerate(name)).replace("_", " ")
    words = " ".join(words.split())
    return name if words == name or not words else f"{name} ({words})"


def _begins_word(name: str, at: int) -> bool:
    """Return whether a word begins within a name at an index: at a capital, or where digits begin or end."""
    if not at or not (name[at - 1].isalnum() and name[at].isalnum()):
        return False
    before, sign, after = name[at - 1], name[at], name[at + 1 : at + 2]
    if before.isdigit() or sign.isdigit():
        return before.isdigit() != sign.isdigit()
    return sign.isupper() and (before.islower() or (before.isupper() and after.islower()))


def _blocks(names: Sequence[str]) -> list[range]:
    """Divide the columns into ranges, each with a header that is short enough for a part.

    names: names of the columns
    """
    blocks, start = list[range](), 0
    for column in range(1, len(names) + 1):
        if column == len(names) or len(_BETWEEN.join(names[start : column + 1])) > _MOST_HEADER:
            blocks.append(range(start, column))
            start = column
    return blocks


def _summary(table: _FileTable, columns: Sequence[_ColumnSummary], fields: dict[str, Any]) -> Part:
    """Return the part that summarises a table: the names of its columns, and the range or the first values of each.

    fields: the part's fields
    """
    writer, left = _PlacedWriter(table, range(len(columns)), _with_words), _MOST_VALUES
    for number, (name, column) in enumerate(zip(table.header, columns)):
        if column.numbers * 2 > column.count:
            writer.text += f"\n{name}: {column.low} to {column.high}"
        elif column.values and left > 0:
            writer.text += f"\n{name}: "
            for place, (value, row) in enumerate(column.values.items()):
                writer.text += "; " if place else ""
                writer.cell(value, row, number)
                left -= len(value)
                if left <= 0:
                    break
    return Part(table.name, writer.text, fields, writer.places)


def _row_parts(table: _FileTable, blocks: Sequence[range], fields: dict[str, Any]) -> Iterator[Part]:
    """Yield parts of some rows; if the header is too long for a part, each part has some of the columns.

    blocks: ranges of columns
    fields: fields of every part
    """
    writers = [_PlacedWriter(table, block) for block in blocks]

    def part(index: int) -> Part:
        writer, writers[index] = writers[index], _PlacedWriter(table, blocks[index])
        rows = f"{writer.first}-{writer.last}"
        name = rows if len(blocks) == 1 else f"{rows},{blocks[index].start}-{blocks[index].stop - 1}"
        shown = {**fields, "first_row": writer.first, "last_row": writer.last}
        return Part(f"{table.name}:{name}" if table.name else name, writer.text, shown, writer.places)

    for number, row in enumerate(table.rows()):
        if isinstance(row, BadRow):
            continue
        for index, block in enumerate(blocks):
            if block.start >= max(1, len(row)):
                break  # rows of HTML may be shorter than the header
            size = sum(len(cell) + len(_BETWEEN) for cell in row[block.start : block.stop])
            if writers[index].first >= 0 and len(writers[index].text) + size > _MOST:
                yield part(index)
            writers[index].add(number, row, block)
    for index in range(len(blocks)):
        if writers[index].first >= 0:
            yield part(index)
