"""Convert between files and rows: tab-separated text, JSON lines or Parquet, plain or in gzip.

`FORMATS` is the registry of formats. `paddle_ranker.data.records` interprets the rows (columns, header, roles).
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, Union, cast

from paddle_ranker.data.text import BOM, EMPTY_LINE, lines_of, refuse_binary, separated_rows
from paddle_ranker.data.text import BadRow as BadRow
from paddle_ranker.errors import DataError, DependencyError, quoted
from paddle_ranker.options import TAB
from paddle_ranker.options.files import require_file
from paddle_ranker.registry import Registry
from paddle_ranker.storage.atomic import check_writable, new_file

JSON_EXTENSIONS = (".jsonl", ".ndjson", ".json")
_BEGINNINGS = ("[", "{", "[{")  # first lines of indented JSON
_ONE_OBJECT = "expected one object a line: jq -c '.[]?' FILE makes that of an array, jq -c . FILE of objects"


# Cells by position or by column name
Row = Union[list[str], dict[str, Any], BadRow]


@dataclass(frozen=True)
class FileFormat:
    """File format: functions that recognise, read and write it. Gzip is handled by the callers.

    is_in: returns whether a file with this lower-case name (without `.gz`) and these first bytes is in this format
    read: yields (number from 1, row) from an open stream; the path is for messages
    write: writes columns and rows, with a header if requested and supported
    extensions: file name extensions that select this format for writing
    is_text: whether `read_lines` can read it
    """

    is_in: Callable[[str, bytes], bool]
    read: Callable[[str, io.BufferedReader], Iterator[tuple[int, Row]]]
    write: Callable[[IO[bytes], tuple[str, ...], Iterable[tuple[Any, ...]], bool], None]
    extensions: tuple[str, ...]
    is_text: bool = True


FORMATS: Registry[FileFormat] = Registry("file format")
_TABS = "tsv"  # the default format


def _format_of(path: str, start: bytes) -> FileFormat:
    name = path.lower().removesuffix(".gz")
    return _first(name, lambda one: one.is_in(name, start))


def _first(name: str, fits: Callable[[FileFormat], bool]) -> FileFormat:
    """Return the first format that fits a file with this name; defaults to tab-separated text."""
    found = next(filter(fits, FORMATS.values()), None)
    if found is None and not name.endswith(FORMATS[_TABS].extensions):
        FORMATS.load_plugins()  # an installed package may know it
        found = next(filter(fits, FORMATS.values()), None)
    return found or FORMATS[_TABS]


def read_rows(path: str, separator: str = TAB) -> Iterator[tuple[int, Row]]:
    """Yield (number, row) of a file, numbered from 1; in text files the numbers are line numbers.

    Magic numbers identify gzip and Parquet; the extension (`.jsonl`, `.ndjson`, `.json`) or a JSON object on the first
    line identifies JSON lines. Other files are text with `separator` between columns. Raises `DataError` if the path is
    missing or a folder, or the file is damaged or binary.
    """
    with _open(path) as stream:
        found = _recognise(path, stream)
        if separator != TAB and found is FORMATS[_TABS]:
            yield from separated_rows(path, stream, separator)
        else:
            yield from found.read(path, stream)


def read_lines(path: str) -> Iterator[tuple[int, Union[str, BadRow]]]:
    """Yield (number, line) of a text file, plain or in gzip, without interpreting the lines.

    Raises `DataError` as `read_rows` does, and for formats that are not text, such as Parquet.
    """
    with _open(path) as stream:
        found = _recognise(path, stream)
        if not found.is_text:
            name = next(name for name, one in FORMATS.items() if one is found)
            raise DataError(f"{path}: {name.capitalize()} data, expected text; name the file {found.extensions[0]}")
        for number, line in lines_of(path, stream):
            yield number, "" if line == EMPTY_LINE else line


def _recognise(path: str, stream: io.BufferedReader) -> FileFormat:
    """Return the format of an open file; raises `DataError` for UTF-16, zip and other binary data."""
    start = _peek(stream)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: UTF-16 text, expected UTF-8; convert it with iconv -f UTF-16 -t UTF-8")
    if start.startswith(b"PK\x03\x04"):
        raise DataError(f"{path}: a zip archive or a spreadsheet; unpack it, or save it as tab-separated text")
    found = _format_of(path, start)
    if found is FORMATS[_TABS]:
        is_gzip = isinstance(stream.raw, gzip.GzipFile)  # `start` is the unpacked content
        refuse_binary(path, path.lower().removesuffix(".gz") if is_gzip else path.lower(), start)
    return found


@contextmanager
def _open(path: str) -> Iterator[io.BufferedReader]:
    """Open a file for reading bytes, and unpack gzip."""
    if os.path.isdir(path):
        raise DataError(f"{path}: a folder, expected a file; name one of the files in it")
    require_file(path)
    with open(path, "rb") as raw:
        if _peek(raw).startswith(b"\x1f\x8b"):
            # GzipFile reads no more than `peek` needs, so gzip from a pipe works, too.
            yield io.BufferedReader(cast(Any, gzip.GzipFile(fileobj=raw)), 1 << 16)
        else:
            yield raw


def _peek(stream: io.BufferedReader) -> bytes:
    try:
        return stream.peek(4096)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{stream.name}: damaged or cut short ({error}); make or download the file again") from error


def _tab_rows(path: str, stream: io.BufferedReader) -> Iterator[tuple[int, Row]]:
    for number, line in lines_of(path, stream):
        yield number, line if isinstance(line, BadRow) else line.split("\t")


def _json_rows(path: str, stream: io.BufferedReader) -> Iterator[tuple[int, Row]]:
    for number, line in lines_of(path, stream):
        yield number, _json_cells(line)


def _is_json(name: str, start: bytes) -> bool:
    if name.endswith(JSON_EXTENSIONS):
        return True
    line = start.removeprefix(BOM)
    return line.startswith(b"{") and isinstance(_json_cells(line.split(b"\n")[0].decode("utf-8", "replace")), dict)


def _json_cells(line: Union[str, BadRow]) -> Union[dict[str, Any], BadRow]:
    if isinstance(line, BadRow):
        return line
    try:
        cells = json.loads(line)
    except (ValueError, RecursionError) as error:
        if line.strip() in _BEGINNINGS:
            return BadRow(f"JSON that goes on in further lines, {_ONE_OBJECT}")
        return BadRow(f"not JSON ({error}); expected one object a line")
    if not isinstance(cells, dict):
        return BadRow(f"a JSON {type(cells).__name__}, {_ONE_OBJECT}")
    return cells


def _parquet_rows(path: str, stream: io.BufferedReader) -> Iterator[tuple[int, Row]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyError(f"{path}: reading Parquet needs pyarrow; install it with pip install pyarrow") from error
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


def write_rows(path: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]], header: bool) -> None:
    """Write rows atomically in the format of the file's extension; unknown extensions mean tab-separated text.

    Raises `DataError` for a cell that tab-separated text cannot hold.
    """
    check_writable(path)
    plain = path.lower().removesuffix(".gz")
    chosen = _first(plain, lambda one: plain.endswith(one.extensions))
    with new_data_file(path) as stream:
        chosen.write(stream, columns, rows, header)


@contextmanager
def new_data_file(path: str) -> Iterator[IO[bytes]]:
    """Yield a file that is written atomically, as by `new_file`; packs it with gzip if its name ends in `.gz`."""
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
        cells = [_cell(value) for value in row]
        line = "\t".join(cells)
        if line.count("\t") != len(cells) - 1 or "\n" in line or "\r" in line:
            raise DataError(f"{quoted(line)}: a tab or a line end inside a field; write .jsonl or .parquet instead")
        stream.write(line.encode("utf-8") + b"\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def _write_parquet(stream: IO[bytes], columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]], header: bool) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyError("writing Parquet needs pyarrow; install it with pip install pyarrow") from error
    writer = None
    rows = iter(rows)
    while chunk := list(islice(rows, 1 << 14)):
        table = pyarrow.table({name: list(cells) for name, cells in zip(columns, zip(*chunk))})
        writer = writer or parquet.ParquetWriter(stream, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


FORMATS.add(
    "parquet",
    FileFormat(
        lambda name, start: start.startswith(b"PAR1"), _parquet_rows, _write_parquet, (".parquet",), is_text=False
    ),
)
FORMATS.add("jsonl", FileFormat(_is_json, _json_rows, _write_json, JSON_EXTENSIONS))
FORMATS.add(_TABS, FileFormat(lambda name, start: False, _tab_rows, _write_tabs, (".tsv", ".csv", ".txt")))
