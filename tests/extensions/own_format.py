"""A file format of a plugin: `.psv`, with cells between bars, `|`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import IO, Any

from paddle_ranker.data.rows.formats import FORMATS, FileFormat, Row


def _read(path: str, stream: io.BufferedReader) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(stream, start=1):
        yield number, line.decode("utf-8").rstrip("\r\n").split("|")


def _write(stream: IO[bytes], columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]], header: bool) -> None:
    for row in [columns, *rows] if header else rows:
        stream.write(("|".join(map(str, row)) + "\n").encode("utf-8"))


FORMATS.add("psv", FileFormat(lambda name, start: name.endswith(".psv"), _read, _write, (".psv",)))
