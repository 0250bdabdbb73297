"""Convert between files and rows: tab-separated text, JSON lines or Parquet, plain or in gzip.

Tab-separated text has no quoting: `"` is an ordinary character. Python's csv module reads text with other separators;
quoted cells may contain the separator and line ends. `FORMATS` is the registry of formats. `records` beside this module
interprets the rows (columns, header, roles).
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, Optional, Union, cast

from paddle_ranker.data.files.cell_formats import shown_value
from paddle_ranker.data.files.spreadsheets import EXTENSIONS, ZIP, is_spreadsheet, sheets_of
from paddle_ranker.errors import DataError, listed, package_for, quoted
from paddle_ranker.options import TAB, note_once
from paddle_ranker.options.input_files import require_file
from paddle_ranker.registry import Registry
from paddle_ranker.storage.atomic import check_writable, new_file
from paddle_ranker.storage.prefetch import chunks

BOM = b"\xef\xbb\xbf"
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b") | {127}
_MOST_CONTROL = 0.05  # maximum share of control bytes in a text; random bytes have a tenth
_ENOUGH = 64  # minimum bytes for judging the share
_LONGEST = 1 << 25  # maximum characters of a quoted cell; a longer cell lacks its closing quote
UTF_8, UTF_16 = "utf-8", "utf-16"  # the second is decoded wherever a file is opened
ENCODINGS = {"cp1252": "Windows-1252", "gb18030": "GBK", "cp932": "Shift JIS", "big5": "Big5", "cp949": "EUC-KR",
             "euc_jp": "EUC-JP", "cp1251": "Windows-1251", "koi8_r": "KOI8-R", "cp866": "DOS code page 866",
             "cp1250": "Windows-1250", "cp1253": "Windows-1253", "cp1254": "Windows-1254", "cp1255": "Windows-1255",
             "cp1256": "Windows-1256", "cp874": "Windows-874", UTF_16: "UTF-16"}  # fmt: skip
# Encodings that are taken for one another, since a byte is a letter in all of them: the letters beyond ASCII of each of
# their languages. Equal counts mean the first encoding.
_RIVALS: tuple[dict[str, tuple[str, ...]], ...] = (
    {
        "cp1252": (
            "àâçèéêëîïôùûüœæ",
            "äöüß",
            "áéíóúñü¿¡",
            "ãâáàçéêíóôõúü",
            "àèéìòóù",
            "åäöæøé",
            "éëïóöü",
            "áéíóúýþæöð",
        ),
        "cp1250": ("áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "ąćęłńóśźż", "áéíóöőúüű", "čćđšž", "äăâîşţ"),
        "cp1254": ("çğıöşü",),
    },
    {"cp874": ("กขคฆงจฉชซฌญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรลวศษสหฬอฮะาิีึืุู",), "cp1255": ("אבגדהוזחטיךכלםמןנסעףפץצקרשת",)},
)
# Lines with other characters than ASCII by which an encoding is found, and maximum bytes that are read for them
_ODD_LINES, _SAMPLE_BYTES = 1000, 1 << 23
_MOST_FIT = 0.9  # minimum share of these lines that GBK can hold, if the others do not count
_NAMED = {".parquet": "Parquet", ".gz": "gzip"}


@dataclass(frozen=True)
class BadRow:
    """Unreadable row, with the reason."""

    reason: str


EMPTY_LINE = BadRow("an empty line")


def _refuse_binary(path: str, name: str, start: bytes) -> None:
    """Raise `DataError` if a file's first bytes show that it is binary.

    name: the file's name in lower case, which may show its format
    start: the file's first bytes
    """
    if _is_utf8(start):
        return
    named = next((what for ending, what in _NAMED.items() if name.endswith(ending)), None)
    if named is not None:
        raise DataError(f"{path}: its name says {named}, its content is none; make or download the file again")
    if len(start) >= _ENOUGH and sum(byte in _CONTROL for byte in start) > _MOST_CONTROL * len(start):
        raise DataError(f"{path}: binary data, expected text, Parquet or gzip; check the path, or make the file again")


def _is_utf8(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # a character may be cut at the end
    except UnicodeDecodeError:
        return False
    return True


def lines_of(path: str, stream: IO[bytes]) -> Iterator[tuple[int, Union[str, BadRow]]]:
    r"""Yield (number from 1, line without its line end); a line that cannot be decoded becomes a `BadRow`.

    path: the file's path, for messages

    The encoding is that of most lines with other characters than ASCII, see `encoding_of`; a note names it unless it is
    UTF-8. Only `\n` ends a line: `str.splitlines` would also split at U+2028, U+0085 and vertical tabs, which occur in
    titles. Empty lines are bad rows, except at the end of the file. Raises `DataError` if the file is damaged, or if
    its lines end in `\r` alone.
    """
    lines, number, encoding = _byte_lines(path, stream), 0, ""
    try:
        for number, raw in lines:
            if encoding or raw.isascii():
                yield number, _decode(raw, encoding)
                continue
            sample = [(number, raw), *_sampled(lines)]
            encoding = encoding_of(raw for _, raw in sample)
            if encoding != UTF_8:
                note_once(f"{path}: text in {ENCODINGS[encoding]}")
            for number, raw in sample:
                yield number, _decode(raw, encoding)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}, after line {number}: damaged or cut short ({error}); make or download the file again"
        ) from error


def _sampled(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yield as many lines as `encoding_of` needs."""
    odd, size = 0, 0
    while odd < _ODD_LINES and size < _SAMPLE_BYTES and (numbered := next(lines, None)) is not None:
        odd, size = odd + (not numbered[1].isascii()), size + len(numbered[1])
        yield numbered


def _byte_lines(path: str, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line without its line end) for each line, except empty lines at the end of the file."""
    empty: list[int] = []
    for number, raw in enumerate(stream, start=1):
        if number == 1 and raw.startswith(BOM):
            raw = raw[len(BOM) :]
        if number == 1 and not raw.endswith(b"\n") and b"\r" in raw.rstrip(b"\r"):
            raise DataError(
                f"{path}: its lines end in carriage returns alone, as on old Macs; turn them into line feeds with "
                "tr '\\r' '\\n'"
            )
        raw = raw[:-1] if raw.endswith(b"\n") else raw
        raw = raw[:-1] if raw.endswith(b"\r") else raw
        if not raw:
            empty.append(number)
            continue
        for skipped in empty:
            yield skipped, b""
        empty.clear()
        yield number, raw


def _decode(raw: bytes, encoding: str) -> Union[str, BadRow]:
    if not raw:
        return EMPTY_LINE
    if b"\0" in raw:
        return BadRow("a NUL byte, expected text")
    try:
        return raw.decode(encoding or "ascii")
    except UnicodeDecodeError as error:
        byte, name = raw[error.start : error.start + 1].hex(), ENCODINGS.get(encoding, "UTF-8")
        return BadRow(f"byte 0x{byte} at position {error.start + 1} is not {name}, unlike most lines of the file")


def encoding_of(lines: Iterable[bytes]) -> str:
    """Detect the encoding of a text from its lines: UTF-8, unless most lines with non-ASCII bytes are no UTF-8."""
    odd = [line for line in lines if not line.isascii()]
    wrong = [line for line in odd if not _is_utf8(line + b"\n")]
    if 2 * len(wrong) <= len(odd):
        return UTF_8
    import charset_normalizer

    fit = [line for line in wrong if isinstance(_decode(line, "gb18030"), str)]  # a damaged line does not decide
    text = b"\n".join(fit if len(fit) >= _MOST_FIT * len(wrong) else wrong)
    best = charset_normalizer.from_bytes(
        text, cp_isolation=[encoding for encoding in ENCODINGS if encoding != UTF_16]
    ).best()
    name = best.encoding if best is not None else "cp1252"
    for rivals in _RIVALS:  # charset-normalizer takes French for Central European, and Hebrew for Thai
        if name in rivals:
            return max(rivals, key=lambda encoding: _covered(text.decode(encoding, "replace"), rivals[encoding]))
    return name


def _covered(text: str, alphabets: Iterable[str]) -> int:
    """Return how many of a text's non-ASCII letters an alphabet has: the one that has most."""
    letters = Counter(letter for letter in text.lower() if not letter.isascii())
    return max(sum(letters[letter] for letter in alphabet) for alphabet in alphabets)


def separated_rows(
    path: str, stream: IO[bytes], separator: str, quote: str = '"'
) -> Iterator[tuple[int, Union[list[str], BadRow]]]:
    """Yield (number of the first line, cells) for each row of text; a quoted cell may span several lines.

    quote: the character around cells; "" if there is none
    """
    csv.field_size_limit(_LONGEST)  # for the whole process; the default is 131,072
    lines = _CsvLines(lines_of(path, stream))
    if quote:
        reader = csv.reader(lines, delimiter=separator, strict=True, quotechar=quote)
    else:
        reader = csv.reader(lines, delimiter=separator, strict=True, quotechar=None, quoting=csv.QUOTE_NONE)
    while True:
        lines.begin = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            is_endless = "end of data" in str(error) or "field larger" in str(error)
            reason = "a quote that is never closed" if is_endless else str(error)
            yield lines.begin or lines.number, BadRow(reason)
        except _BadLineError as problem:
            yield lines.begin or lines.number, BadRow(str(problem))
        else:
            yield lines.begin or lines.number, cells if cells else EMPTY_LINE


class _BadLineError(Exception):
    """Line that is not text; the message is the reason."""


class _CsvLines:
    """Iterator over lines for Python's csv module.

    A line that is not UTF-8 ends the row that it belongs to, since its quotes may begin or end a cell.
    """

    def __init__(self, lines: Iterator[tuple[int, Union[str, BadRow]]]):
        self._lines = lines
        self.number = 0
        self.begin: Optional[int] = None  # first line of the current row

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        self.begin = self.begin or self.number
        if isinstance(line, BadRow) and line != EMPTY_LINE:
            raise _BadLineError(line.reason)
        return "\n" if isinstance(line, BadRow) else line + "\n"


def other_columns(line: str, separator: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (separator, cells) for each separator, other than `separator`, that splits the line into several cells."""
    for other in {"\t": TAB, ",": ",", ";": ";", "|": "|"}.items():
        if other[1] != separator:
            with suppress(csv.Error):  # a quoted cell that continues on the next line
                cells = next(csv.reader([line], delimiter=other[0], strict=True), [])
                if len(cells) > 1:
                    yield other[1], cells


JSON_EXTENSIONS = (".jsonl", ".ndjson", ".json")
_ONE_OBJECT = "expected an object"
_BETWEEN = " \t\r\n,"
_BLOCK = 1 << 16  # characters
_SEVERAL_LINES = (b"[", b"{", b"[{")  # first lines of JSON that is not an object a line


# Cells by position or by column name
Row = Union[list[str], dict[str, Any], BadRow]


@dataclass(frozen=True)
class FileFormat:
    """File format: functions that recognise, read and write it. The callers open and gunzip files.

    is_in: called with a file's name in lower case (without `.gz`) and its first bytes; returns whether the file has
        this format
    read: called with the path, for messages, and the open stream; yields (number from 1, row)
    write: called with an open stream, column names, rows, and whether to write a header; writes them
    extensions: file name extensions that select this format for writing
    is_text: whether `read_lines` can read files of this format
    """

    is_in: Callable[[str, bytes], bool]
    read: Callable[[str, io.BufferedReader], Iterator[tuple[int, Row]]]
    write: Callable[[IO[bytes], tuple[str, ...], Iterable[tuple[Any, ...]], bool], None]
    extensions: tuple[str, ...]
    is_text: bool = True


FORMATS: Registry[FileFormat] = Registry("file format")
_TABS = "tsv"  # the default format


def _first(name: str, fits: Callable[[FileFormat], bool]) -> FileFormat:
    """Return the first format for which `fits` returns True; if there is none, tab-separated text.

    name: the file's name in lower case; plugins are loaded unless the name is that of a text file
    """
    chosen = next(filter(fits, FORMATS.values()), None)
    if chosen is None and not name.endswith(FORMATS[_TABS].extensions):
        FORMATS.load_plugins()  # an installed package may know it
        chosen = next(filter(fits, FORMATS.values()), None)
    return chosen or FORMATS[_TABS]


def read_rows(path: str, separator: str = TAB) -> Iterator[tuple[int, Row]]:
    """Yield (number, row) of a file, numbered from 1; in text files the numbers are line numbers.

    Magic numbers identify gzip and Parquet; the extension (`.jsonl`, `.ndjson`, `.json`) or a JSON object on the first
    line identifies JSON lines. Other files are text with `separator` between columns. Blank lines are left out (as by
    pandas), and a note counts them. Raises `DataError` if the path is missing or a folder, or the file is damaged or
    binary.
    """
    with _open(path) as stream:
        file_format = _recognise(path, stream)
        is_separated = separator != TAB and file_format is FORMATS[_TABS]
        rows = separated_rows(path, stream, separator) if is_separated else file_format.read(path, stream)
        blank, first_blank = 0, 0
        for number, row in rows:
            if row == EMPTY_LINE or (isinstance(row, list) and len(row) == 1 and not row[0].strip(" ")):
                blank, first_blank = blank + 1, first_blank or number
            else:
                yield number, row
    if blank:
        note_once(f"{path}: left out {blank:,} blank lines, the first of them line {first_blank:,}")


def is_table_or_lines(path: str) -> bool:
    """Return whether a file is text that is not in another format, such as JSON lines."""
    with _open(path) as stream:
        return _recognise(path, stream, any_encoding=True) is FORMATS[_TABS]


def found_encoding(path: str) -> str:
    """Detect the encoding of a text file, as `lines_of` does."""
    with _open(path) as stream:
        if isinstance(stream.raw, _Transcoded):
            return UTF_16
        odd = (line.rstrip(b"\r\n") for line in stream if not line.isascii())
        return encoding_of(line for _, line in _sampled(enumerate(odd)))


def line_count(path: str) -> Optional[int]:
    """Return the approximate number of rows of a file without parsing it; None for a file in gzip or UTF-16.

    Counts the lines of text, so header lines and every line of a multi-line row count, too.
    """
    with _open(path) as stream:
        if not isinstance(stream.raw, io.FileIO):
            return None
        if _recognise(path, stream).is_text:
            return sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b""))
    from pyarrow import parquet

    return int(parquet.read_metadata(path).num_rows)


def read_lines(path: str) -> Iterator[tuple[int, Union[str, BadRow]]]:
    """Yield (number from 1, line) of a text file, plain or in gzip, without splitting lines into columns.

    An unreadable line (not UTF-8, or with a NUL byte) comes as a `BadRow`, an empty line between others as "". Raises
    `DataError` as `read_rows` does, and for formats that are not text, such as Parquet.
    """
    with _open(path) as stream:
        file_format = _recognise(path, stream)
        if not file_format.is_text:
            name = next(name for name, other in FORMATS.items() if other is file_format)
            suffix = file_format.extensions[0]
            raise DataError(f"{path}: {name.capitalize()} data, expected text; name the file {suffix}")
        for number, line in lines_of(path, stream):
            yield number, "" if line == EMPTY_LINE else line


def _recognise(path: str, stream: io.BufferedReader, *, any_encoding: bool = False) -> FileFormat:
    """Return the format of an open file; raises `DataError` for archives and other binary data.

    any_encoding: whether a text in another encoding than UTF-8 is accepted
    """
    start, name = _peek(stream), path.lower().removesuffix(".gz")
    file_format = _first(name, lambda file_format: file_format.is_in(name, start))
    if file_format is FORMATS[_TABS] and start.startswith(ZIP):
        raise DataError(f"{path}: a zip archive, expected a file of rows; unpack it")
    if file_format is FORMATS[_TABS]:
        is_gzip = isinstance(stream.raw, gzip.GzipFile)  # `start` is the unpacked content
        if not (any_encoding and b"\0" not in start):
            _refuse_binary(path, name if is_gzip else path.lower(), start)
    return file_format


class _Transcoded(io.RawIOBase):
    """Stream of UTF-8 bytes, converted from a text file in another encoding; undecodable bytes become U+FFFD."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._text, self._left = io.TextIOWrapper(stream, encoding, "replace", newline=""), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; return how many bytes it got, 0 at the end of the file."""
        self._left = self._left or self._text.read(1 << 14).encode("utf-8")
        part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


@contextmanager
def open_text(path: str, encoding: str) -> Iterator[io.BufferedReader]:
    """Open a text file in `encoding`; the stream yields its text as UTF-8 bytes."""
    with _open(path) as stream:
        yield stream if encoding in (UTF_8, UTF_16) else io.BufferedReader(_Transcoded(stream, encoding), 1 << 16)


@contextmanager
def _open(path: str) -> Iterator[io.BufferedReader]:
    """Open a file for reading bytes, with gzip decompressed and UTF-16 converted to UTF-8."""
    if os.path.isdir(path):
        raise DataError(f"{path}: a folder, expected a file; name one of the files in it")
    require_file(path)
    with open(path, "rb") as raw:
        stream = raw
        if _peek(raw).startswith(b"\x1f\x8b"):
            # GzipFile reads no more than `peek` needs, so gzip from a pipe works, too.
            stream = io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=raw)), 1 << 16)
        if _peek(stream).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            stream = io.BufferedReader(_Transcoded(stream, UTF_16), 1 << 16)
        yield stream


def _peek(stream: io.BufferedReader) -> bytes:
    try:
        return stream.peek(4096)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{stream.name}: damaged or cut short ({error}); make or download the file again") from error


def _tab_rows(path: str, stream: io.BufferedReader) -> Iterator[tuple[int, Row]]:
    for number, line in lines_of(path, stream):
        yield number, line if isinstance(line, BadRow) else line.split("\t")


def _json_rows(path: str, stream: io.BufferedReader) -> Iterator[tuple[int, Row]]:
    """Yield (number, object) for each object of a JSON file: lines, an array, or objects that span several lines.

    In JSON lines, the number is the line number. In other files, objects are numbered from 1.
    """
    start = _peek(stream).removeprefix(BOM).lstrip()
    if start.startswith(b"[") or start.split(b"\n")[0].strip() in _SEVERAL_LINES:
        yield from _json_values(path, stream)
        return
    for number, line in lines_of(path, stream):
        yield number, _json_cells(line)


def _json_values(path: str, stream: io.BufferedReader) -> Iterator[tuple[int, Row]]:
    decoder, text, number, size = json.JSONDecoder(), "", 0, _BLOCK
    encoding = _encoding_at(_peek(stream))
    if encoding != UTF_8:
        note_once(f"{path}: text in {ENCODINGS[encoding]}")
    characters = io.TextIOWrapper(stream, "utf-8-sig" if encoding == UTF_8 else encoding, newline="")
    try:
        while block := characters.read(size):
            text = (text + block).lstrip(_BETWEEN if number else "[" + _BETWEEN)
            size = _BLOCK
            while text and text[0] != "]":
                try:
                    value, end = decoder.raw_decode(text)
                except ValueError:
                    size = max(_BLOCK, len(text))  # so that a long object is not tried again and again
                    break
                text, number = text[end:].lstrip(_BETWEEN), number + 1
                yield (
                    number,
                    value if isinstance(value, dict) else BadRow(f"a JSON {type(value).__name__}, {_ONE_OBJECT}"),
                )
            if len(text) > _LONGEST:
                break
    except (UnicodeDecodeError, RecursionError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}, after object {number}: damaged or cut short ({error}); make it again") from error
    if text.strip(_BETWEEN + "]"):
        raise DataError(f"{path}: object {number + 1} is not JSON, or is cut short; make or download the file again")


def _is_json(name: str, start: bytes) -> bool:
    if name.endswith(JSON_EXTENSIONS):
        return True
    line = start.removeprefix(BOM).split(b"\n")[0]
    return line.startswith(b"{") and isinstance(_json_cells(line.decode(_encoding_at(line), "replace")), dict)


def _encoding_at(start: bytes) -> str:
    """Detect the encoding of a text from its first bytes, whose last character may be cut."""
    return UTF_8 if _is_utf8(start) else encoding_of([start])


def _json_cells(line: Union[str, BadRow]) -> Union[dict[str, Any], BadRow]:
    if isinstance(line, BadRow):
        return line
    if line.isspace():
        return EMPTY_LINE
    try:
        cells = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRow(f"not JSON ({error}); expected one object a line")
    if not isinstance(cells, dict):
        return BadRow(f"a JSON {type(cells).__name__}, {_ONE_OBJECT}")
    return cells


def _parquet_rows(path: str, stream: io.BufferedReader) -> Iterator[tuple[int, Row]]:
    with package_for(f"{path}: reading Parquet", "pyarrow"):
        import pyarrow
        from pyarrow import parquet
    number = 0
    try:
        # Reading Parquet begins at the end, so streams that cannot seek cheaply (gzip, a pipe) are read into memory.
        source: IO[bytes] = (
            stream if isinstance(stream.raw, io.FileIO) and stream.seekable() else io.BytesIO(stream.read())
        )
        for batch in parquet.ParquetFile(source).iter_batches(batch_size=8192):
            for cells in batch.to_pylist():
                number += 1
                yield number, cells
    except (pyarrow.ArrowException, EOFError, OSError, zlib.error) as error:
        summary = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: damaged Parquet data ({summary}); make or download the file again") from error


def _sheet_rows(path: str, stream: io.BufferedReader) -> Iterator[tuple[int, Row]]:
    """Yield (number, cells as text) for each row of a spreadsheet's first sheet."""
    first, *others = sheets_of(path, stream)
    if others:
        note_once(f"{path}: its first sheet is read, {quoted(first.name)}; not read: {listed(o.name for o in others)}")
    rows, not_read = first.read()
    if not_read:
        note_once(f"{path}: {not_read}")
    yield from rows


def _no_sheet(stream: IO[bytes], columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]], header: bool) -> None:
    raise DataError("a spreadsheet is only read; write .tsv, .jsonl or .parquet")


def write_rows(path: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]], header: bool) -> None:
    """Write rows atomically in the format of the file's extension; unknown extensions mean tab-separated text.

    Raises `DataError` for a cell that tab-separated text cannot hold, and for the extension of a spreadsheet.
    """
    check_writable(path)
    plain = path.lower().removesuffix(".gz")
    chosen = _first(plain, lambda file_format: plain.endswith(file_format.extensions))
    with new_data_file(path) as stream:
        chosen.write(stream, columns, rows, header)


@contextmanager
def new_data_file(path: str) -> Iterator[IO[bytes]]:
    """Yield a stream that writes a data file atomically, compressed if the name ends in `.gz`."""
    with new_file(path, "wb") as raw:
        if path.lower().endswith(".gz"):
            # Without name and time in the header, equal records give equal bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream:
                yield cast(IO[bytes], stream)
        else:
            yield raw


def _write_json(stream: IO[bytes], columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]], header: bool) -> None:
    for row in rows:
        stream.write(json.dumps(dict(zip(columns, row)), ensure_ascii=False).encode("utf-8") + b"\n")


def _write_tabs(stream: IO[bytes], columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]], header: bool) -> None:
    if header:
        stream.write("\t".join(columns).encode("utf-8") + b"\n")
    for row in rows:
        cells = [shown_value(value) for value in row]
        line = "\t".join(cells)
        if line.count("\t") != len(cells) - 1 or "\n" in line or "\r" in line:
            raise DataError(f"{quoted(line)}: a tab or a line end inside a field; write .jsonl or .parquet instead")
        stream.write(line.encode("utf-8") + b"\n")


def _write_parquet(stream: IO[bytes], columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]], header: bool) -> None:
    with package_for("writing Parquet", "pyarrow"):
        import pyarrow
        from pyarrow import parquet
    writer = None
    for chunk in chunks(rows, 1 << 14):
        table = pyarrow.table({name: list(cells) for name, cells in zip(columns, zip(*chunk))})
        writer = writer or parquet.ParquetWriter(stream, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


FORMATS.add(
    "spreadsheet",
    FileFormat(
        is_spreadsheet,
        _sheet_rows,
        _no_sheet,
        EXTENSIONS,
        is_text=False,
    ),
)
FORMATS.add(
    "parquet",
    FileFormat(
        lambda name, start: start.startswith(b"PAR1"), _parquet_rows, _write_parquet, (".parquet",), is_text=False
    ),
)
FORMATS.add("jsonl", FileFormat(_is_json, _json_rows, _write_json, JSON_EXTENSIONS))
FORMATS.add(_TABS, FileFormat(lambda name, start: False, _tab_rows, _write_tabs, (".tsv", ".csv", ".txt")))
