"""Split text files into lines and columns, and refuse binary data.

Tab-separated text has no quoting: `"` is an ordinary character. Python's csv module reads text with other separators;
quoted cells may contain the separator and line ends.
"""

from __future__ import annotations

import codecs
import csv
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Optional, Union

from paddle_ranker.errors import DataError
from paddle_ranker.options import TAB

BOM = b"\xef\xbb\xbf"
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b") | {127}
_MOST_CONTROL = 0.05  # maximum share of control bytes in a text; random bytes have a tenth
_ENOUGH = 64  # minimum bytes for judging the share
_LONGEST = 1 << 25  # maximum characters of a quoted cell; a longer cell lacks its closing quote
_NAMED = {".parquet": "Parquet", ".gz": "gzip"}


@dataclass(frozen=True)
class BadRow:
    """Unreadable row, with the reason."""

    reason: str


EMPTY_LINE = BadRow("an empty line")


def refuse_binary(path: str, name: str, start: bytes) -> None:
    """Raise `DataError` if `start`, a file's first bytes, is binary; the lower-case `name` may state a format."""
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
    """Yield (number from 1, line without its line end), with a `BadRow` for a line that is not UTF-8 text.

    Only `\\n` ends a line: `str.splitlines` would also split at U+2028, U+0085 and vertical tabs, which occur in
    titles. Empty lines are bad rows, except at the end of the file. Raises `DataError` if the lines end in `\\r` alone.
    """
    number, empty = 0, []
    try:
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
                yield skipped, EMPTY_LINE
            empty.clear()
            yield number, _decode(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{path}, after line {number}: damaged or cut short ({error}); make or download the file again"
        ) from error


def _decode(raw: bytes) -> Union[str, BadRow]:
    if b"\0" in raw:
        return BadRow("a NUL byte, expected text")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found = raw[error.start : error.start + 1].hex()
        return BadRow(
            f"byte 0x{found} at position {error.start + 1} is not UTF-8; "
            "if the file is in GBK, convert it with iconv -f GB18030 -t UTF-8"
        )


def separated_rows(path: str, stream: IO[bytes], separator: str) -> Iterator[tuple[int, Union[list[str], BadRow]]]:
    """Yield (number of the first line, cells) for each row of text with quoting; rows may span several lines."""
    csv.field_size_limit(_LONGEST)  # for the whole process; the default is 131,072
    lines = _CsvLines(lines_of(path, stream))
    reader = csv.reader(lines, delimiter=separator, strict=True)
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
    """Lines for the csv module. An undecodable line ends the row, since a quote in it may begin or end a cell."""

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
    """Yield (separator, cells) for each other separator that splits the line into several cells."""
    for other in {"\t": TAB, ",": ",", ";": ";", "|": "|"}.items():
        if other[1] != separator:
            with suppress(csv.Error):  # a quoted cell that continues on the next line
                cells = next(csv.reader([line], delimiter=other[0], strict=True), [])
                if len(cells) > 1:
                    yield other[1], cells
