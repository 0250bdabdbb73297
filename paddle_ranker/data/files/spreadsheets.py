"""Read spreadsheets: the cells of each sheet as texts, as a person sees them, with what cannot be seen named.

for sheet in sheets_of("prices.xlsx", stream):
    rows, not_read = sheet.read()    # [(1, ["Item", "Price"]), (2, ["Tea", "2.50 €"])], ""

python-calamine reads the cells. It takes memory for every cell up to the last, so what the XML of Excel's and
LibreOffice's files declares is looked through before.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from itertools import accumulate
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple, Optional
from xml.parsers import expat

from paddle_ranker.data.files.archives import MOST_UNPACKED, TooLargeError, open_archive
from paddle_ranker.data.files.cell_formats import cell_text
from paddle_ranker.data.files.number_formats import BUILT_IN, shown_number
from paddle_ranker.errors import DataError, brief, package_for, quoted

ZIP = b"PK\x03\x04"
_XLS = b"\xd0\xcf\x11\xe0"  # start of a spreadsheet of Excel before 2007
# Start of a stream of cells that is not in such a file: Excel 2 to 4, and some programs
_BIFF = (b"\x09\x00\x04\x00", b"\x09\x02\x06\x00", b"\x09\x04\x06\x00", b"\x09\x08\x08\x00", b"\x09\x08\x10\x00")
_BINARY_PART = b"xl/workbook.bin"  # of an .xlsb file
CONVERTER = "libreoffice --headless --convert-to xlsx"
EXTENSIONS = (".xlsx", ".xlsm", ".xlsb", ".ods", ".xls")
_MOST_TEXT = 1 << 20  # characters of a cell; Excel holds 32,767
_MOST_AREA, _LEAST_FILLED = 1 << 22, 64  # cells up to the last; one of so many is filled in a larger sheet
_BLOCK = 1 << 16
_KNOWN_ERRORS = frozenset(["#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"])  # to calamine
_ERROR_CELL = re.compile(rb"""(<(?:\w+:)?c\b[^>]*\bt=["']e["'][^>]*>(?:(?!</(?:\w+:)?c>).)*?<(?:\w+:)?v>)[^<]*""", re.S)
_PLACE = re.compile(r"([A-Z]{1,3})(\d{1,7})", re.IGNORECASE)

_OF_BINARY = (
    "its numbers are read without their formats (00123 as 123), its formulas without stored values as empty cells; "
    f"{CONVERTER} FILE keeps them"
)

Place = tuple[int, int]  # row and column, from 0


def is_spreadsheet(name: str, start: bytes) -> bool:
    """Return whether a file's name in lower case, and its first bytes, are those of a spreadsheet."""
    return start.startswith((ZIP, _XLS, *_BIFF)) and name.endswith(EXTENSIONS)


class _Cells(NamedTuple):
    """What the XML of a sheet says beyond the values of its cells.

    shown: texts of numbers whose format shows more than digits
    formulas: places of formulas without a stored value
    errors: places of errors, such as #DIV/0!, which are read as empty cells
    """

    shown: Mapping[Place, str]
    formulas: Sequence[tuple[Place, str]]
    errors: Sequence[tuple[Place, str]] = ()


class Sheet(NamedTuple):
    """A sheet of a spreadsheet.

    name: the sheet's name
    read: called without arguments; returns the rows that have text, `(row number from 1, texts of the cells)`, and what
        is not read, for a message, or ""; the text of a merged cell stands in each cell that was merged
    """

    name: str
    read: Callable[[], tuple[list[tuple[int, list[str]]], str]]


def sheets_of(path: str, stream: IO[bytes]) -> list[Sheet]:
    """Return the sheets of a spreadsheet; raises `DataError` if it is damaged, or far larger than what it holds."""
    with package_for(f"{path}: reading spreadsheets", "'paddle-ranker[excel]'"):
        import python_calamine
    data = stream.read()
    is_binary = not data.startswith(ZIP) or _BINARY_PART in data
    remedy = f"save it again{f' as .xlsx, or convert it: {CONVERTER} FILE' if is_binary else ''}"
    try:
        cells = _looked_through(data) if data.startswith(ZIP) else {}
        if any(error not in _KNOWN_ERRORS for facts in cells.values() for _, error in facts.errors):
            data = _with_known_errors(data)
        book = python_calamine.load_workbook(io.BytesIO(data))
    except TooLargeError as error:
        raise DataError(f"{path}: {error}") from error
    except (
        python_calamine.CalamineError, zipfile.BadZipFile, expat.ExpatError, EOFError, OSError, zlib.error, ValueError,
        NotImplementedError,
    ) as error:  # fmt: skip
        problem = "a spreadsheet that is damaged, too old or protected" if is_binary else "a damaged spreadsheet"
        raise DataError(f"{path}: {problem} ({brief(str(error))}); {remedy}") from error

    def read(name: str) -> tuple[list[tuple[int, list[str]]], str]:
        try:
            sheet = book.get_sheet_by_name(name)
            values = sheet.to_python(skip_empty_area=False)
            merged = sheet.merged_cell_ranges or ()
        except python_calamine.CalamineError as error:
            raise DataError(f"{path}: a damaged sheet, {quoted(name)} ({error}); {remedy}") from error
        rows = [[*map(_text_of, row)] for row in values]
        lost = is_binary and any(value == "" or type(value) in (int, float) for row in values for value in row)
        facts = cells.get(name, _Cells({}, ()))
        for (row, column), text in facts.shown.items():
            if row < len(rows) and column < len(rows[row]) and rows[row][column]:
                rows[row][column] = text
        _repeat_merged(rows, merged)
        kept = [(number, texts) for number, texts in enumerate(rows, start=1) if any(texts)]
        unread = [_without_values(facts.formulas), _with_errors(facts.errors), _OF_BINARY if lost else ""]
        return kept, "; ".join(filter(None, unread))

    return [Sheet(name, partial(read, name)) for name in book.sheet_names]


def _text_of(value: Any) -> str:
    if isinstance(value, timedelta):
        seconds = round(value.total_seconds())
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return cell_text(value)


def _repeat_merged(rows: list[list[str]], merged: Sequence[tuple[Place, Place]]) -> None:
    """Repeat the text of each merged cell in its area, as far as that takes no more work than there are cells."""
    left = 4 * sum(map(len, rows)) + _BLOCK
    for (top, first), (bottom, last) in merged:
        area = rows[top : bottom + 1]
        left -= len(area) * (last + 1 - first)
        if left < 0 or not area or first >= len(area[0]):
            continue
        for row in area:
            row[first : last + 1] = [area[0][first]] * len(row[first : last + 1])


def _without_values(formulas: Sequence[tuple[Place, str]]) -> str:
    if not formulas:
        return ""
    place, formula = formulas[0]
    return (
        f"{len(formulas):,} formulas have no stored value, such as {_place_name(place)} (={brief(formula)}); "
        "open and save the file in a spreadsheet program"
    )


def _with_errors(errors: Sequence[tuple[Place, str]]) -> str:
    if not errors:
        return ""
    place, error = errors[0]
    return f"{len(errors):,} cells hold errors and count as empty, such as {_place_name(place)} ({brief(error)})"


def _with_known_errors(data: bytes) -> bytes:
    """Return a workbook whose errors are all #VALUE!: calamine refuses a sheet with a newer one, such as #SPILL!."""
    archive, copied = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(copied, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as copy:
        for entry in archive.infolist():
            content = archive.read(entry)
            is_sheet = "/worksheets/" in entry.filename
            copy.writestr(entry.filename, _ERROR_CELL.sub(rb"\1#VALUE!", content) if is_sheet else content)
    return copied.getvalue()


def _place_name(place: Place) -> str:
    row, column = place
    return f"{_letters(column)}{row + 1}"


def _letters(column: int) -> str:
    name = ""
    while column >= 0:
        column, letter = column // 26 - 1, chr(ord("A") + column % 26)
        name = letter + name
    return name


def _looked_through(data: bytes) -> dict[str, _Cells]:
    """Return facts about the sheets of a zipped spreadsheet, by name; raises `TooLargeError`."""
    archive = open_archive(io.BytesIO(data), len(data))
    names = {entry.filename: entry for entry in archive.infolist()}
    if "content.xml" in names:
        return _Ods(partial(_blocks_of, archive, names["content.xml"])).sheets
    for name in names:
        if name.endswith(".bin") and "/worksheets/" in name:
            _check_binary(archive.read(name))
    for name in names:
        if name.lower().endswith("sharedstrings.xml"):
            _XmlParser().parse(_blocks_of(archive, names[name]))
    return _excel_sheets(archive, names)


def _blocks_of(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content of a file of an archive; raises `TooLargeError` if it is longer than it is said to be."""
    if entry.compress_type == zipfile.ZIP_STORED:
        yield archive.read(entry)
        return
    archive.open(entry).close()  # raises for an encrypted file, and checks the header
    stream, left, inflate = archive.fp, entry.compress_size, zlib.decompressobj(-15)
    assert stream is not None
    stream.seek(entry.header_offset + 26)
    lengths = stream.read(4)
    stream.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), io.SEEK_CUR)
    at, written = stream.tell(), 0
    while left > 0 and not inflate.eof:
        stream.seek(at)
        packed = stream.read(min(left, _BLOCK))
        if not packed:
            break
        at, left = at + len(packed), left - len(packed)
        while packed:
            block = inflate.decompress(packed, 16 * _BLOCK)
            written += len(block)
            if written > entry.file_size:
                raise TooLargeError("a part of it is longer than it is said to be; save it again")
            yield block
            packed = inflate.unconsumed_tail


class _XmlParser:
    """Parser of a spreadsheet's XML; subclasses have methods `begin` and `end`."""

    def __init__(self) -> None:
        self.text, self._wanted, self._length = list[str](), False, 0

    def parse(self, blocks: Iterator[bytes]) -> None:
        """Parse XML; raises `TooLargeError` for long texts, and `ValueError` for a document type."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._refuse
        for block in blocks:
            parser.Parse(block, False)
        parser.Parse(b"", True)

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        self._length = 0
        self.begin(tag.rpartition(":")[2], attributes)

    def _end(self, tag: str) -> None:
        self.end(tag.rpartition(":")[2])

    def _characters(self, text: str) -> None:
        self._length += len(text)
        if self._length > _MOST_TEXT:
            raise TooLargeError(f"a cell of more than {_MOST_TEXT:,} characters; save it as a text")
        if self._wanted:
            self.text.append(text)

    def _refuse(self, *names: object) -> None:
        raise ValueError("a document type, which spreadsheets do not have")

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin an element."""

    def end(self, tag: str) -> None:
        """End an element."""

    def want(self) -> None:
        """Begin to keep the text of an element."""
        self.text.clear()
        self._wanted = True

    def taken(self) -> str:
        """Return the kept text, and keep no more."""
        self._wanted = False
        return "".join(self.text)


class _Area:
    """The cells of a sheet that are filled, counted, and the area up to the last of them."""

    def __init__(self) -> None:
        self._filled, self._rows, self._columns = 0, 0, 0

    def add(self, row: int, column: int, count: int = 1) -> None:
        self._filled += count
        self._rows, self._columns = max(self._rows, row + 1), max(self._columns, column + 1)
        if self._filled > MOST_UNPACKED >> 3:
            raise TooLargeError(f"more than {MOST_UNPACKED >> 3:,} cells; save it as CSV")

    def check(self) -> None:
        area = self._rows * self._columns
        if area > _MOST_AREA and area > _LEAST_FILLED * self._filled:
            raise TooLargeError(
                f"{self._filled:,} cells in an area of {area:,}; delete the cells far from the table, or save it as CSV"
            )


class _ExcelSheet(_XmlParser):
    """Parser of a sheet of Excel.

    formats: format of each style
    """

    def __init__(self, formats: Sequence[str]) -> None:
        super().__init__()
        self._formats, self._area = formats, _Area()
        self._row = self._column = -1
        self._kind, self._format, self._value = "", "", ""
        self._formula: Optional[str] = None
        self.shown = dict[Place, str]()
        self.formulas, self.errors = list[tuple[Place, str]](), list[tuple[Place, str]]()

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin a row, a cell, or its formula or value."""
        if tag == "row":
            self._row, self._column = int(attributes.get("r", self._row + 2)) - 1, -1
        elif tag == "c":
            place = _PLACE.fullmatch(attributes.get("r", ""))
            if place is None:
                self._column += 1
                self._row = max(self._row, 0)
            else:
                self._row, self._column = int(place[2]) - 1, _number_of(place[1])
            style = attributes.get("s", "0")
            self._format = self._formats[int(style)] if int(style) < len(self._formats) else ""
            self._kind, self._formula, self._value = attributes.get("t", "n"), None, ""
        elif tag in ("f", "v", "t"):
            self.want()

    def end(self, tag: str) -> None:
        """End what `begin` began."""
        if tag == "f":
            self._formula = self.taken()
        elif tag in ("v", "t"):
            self._value = self._value or self.taken()
        elif tag == "c":
            place = self._row, self._column
            if self._value:
                self._area.add(*place)
                if self._kind == "e":
                    self.errors.append((place, self._value))
            elif self._formula is not None and self._kind != "str":
                self.formulas.append((place, self._formula))
            if self._format and self._kind == "n" and self._value:
                text = shown_number(float(self._value), self._format)
                if text is not None:
                    self.shown[place] = text
        elif tag == "sheetData":
            self._area.check()


class _Ods(_XmlParser):
    """Parser of the sheets of LibreOffice, which states how often rows and cells are repeated."""

    def __init__(self, blocks: Callable[[], Iterator[bytes]]) -> None:
        super().__init__()
        self.sheets = dict[str, _Cells]()
        self._name, self._area, self._formulas = "", _Area(), list[tuple[Place, str]]()
        self._row, self._column, self._filled, self._repeated, self._last = 0, 0, 0, 1, 0
        self._cell = 1, False
        self.parse(blocks())

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        """Begin a sheet, a row or a cell."""
        of = {name.rpartition(":")[2]: value for name, value in attributes.items()}
        if tag == "table":
            self._name, self._area, self._formulas, self._row = of.get("name", ""), _Area(), [], 0
        elif tag == "table-row":
            self._column, self._filled, self._last = 0, 0, 0
            self._repeated = int(of.get("number-rows-repeated", 1))
        elif tag in ("table-cell", "covered-table-cell"):
            count = int(of.get("number-columns-repeated", 1))
            if "value-type" in of:
                self._filled += count
                self._last = self._column + count
            elif "formula" in of:
                self._formulas.append(((self._row, self._column), of["formula"].rpartition(":=")[2]))
            self._column += count

    def end(self, tag: str) -> None:
        """End a row or a sheet."""
        if tag == "table-row":
            if self._filled:
                self._area.add(self._row + self._repeated - 1, self._last - 1, self._filled * self._repeated)
            self._row += self._repeated
        elif tag == "table":
            self._area.check()
            self.sheets[self._name] = _Cells({}, self._formulas)


class _Elements(_XmlParser):
    """Parser that keeps the elements of some tags, with their parents' tags."""

    def __init__(self, blocks: Iterator[bytes], *tags: str) -> None:
        super().__init__()
        self._tags, self._open = tags, list[str]()
        self.found = list[tuple[str, str, dict[str, str]]]()  # tag of the parent, tag, attributes
        self.parse(blocks)

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        """Keep an element."""
        if tag in self._tags:
            parent = self._open[-1] if self._open else ""
            self.found.append((parent, tag, {name.rpartition(":")[2]: value for name, value in attributes.items()}))
        self._open.append(tag)

    def end(self, tag: str) -> None:
        """End an element."""
        self._open.pop()


def _excel_sheets(archive: zipfile.ZipFile, names: Mapping[str, zipfile.ZipInfo]) -> dict[str, _Cells]:
    def elements(name: str, *tags: str) -> list[tuple[str, str, dict[str, str]]]:
        return _Elements(_blocks_of(archive, names[name]), *tags).found if name in names else []

    codes = dict(BUILT_IN)
    styles = elements("xl/styles.xml", "numFmt", "xf")
    codes.update((int(of["numFmtId"]), of.get("formatCode", "")) for _, tag, of in styles if tag == "numFmt")
    formats = [codes.get(int(of.get("numFmtId", 0)), "") for parent, tag, of in styles if parent == "cellXfs"]
    targets = {
        of.get("Id", ""): of.get("Target", "") for *_, of in elements("xl/_rels/workbook.xml.rels", "Relationship")
    }
    sheets = dict[str, _Cells]()
    for *_, of in elements("xl/workbook.xml", "sheet"):
        target = targets.get(of.get("id", ""), "")
        name = str(PurePosixPath("xl", target)) if not target.startswith("/") else target[1:]
        if name in names and name.endswith(".xml"):
            sheet = _ExcelSheet(formats)
            sheet.parse(_blocks_of(archive, names[name]))
            sheets[of.get("name", "")] = _Cells(sheet.shown, sheet.formulas, sheet.errors)
    return sheets


def _number_of(letters: str) -> int:
    return [*accumulate(letters.upper(), lambda number, sign: number * 26 + ord(sign) - 64, initial=0)][-1] - 1


def _check_binary(data: bytes) -> None:
    """Check the area of a sheet of an .xlsb file, whose records are a type, a length and their content."""
    at, row, area = 0, 0, _Area()

    def number(most: int) -> int:
        nonlocal at
        value = 0
        for place in range(most):
            value |= (data[at] & 127) << 7 * place
            at += 1
            if data[at - 1] < 128:
                break
        return value

    try:
        while at < len(data):
            kind, length = number(2), number(4)
            if kind == 0:  # a row
                row = int.from_bytes(data[at : at + 4], "little")
            elif 2 <= kind <= 11:  # a cell with a value
                area.add(row, int.from_bytes(data[at : at + 4], "little"))
            at += length
    except IndexError as error:
        raise ValueError("cut short") from error
    area.check()
