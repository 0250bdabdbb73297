r"""Registry of readers, which get the words of PDFs, recordings and other files, with each word's position in the file.

for part in READERS["pdf"].read(Path("manual.pdf")):
    part.text, part.places    # "Warranty\nTwo years ...", [(0, 8, 0.1, 0.08, 0.31, 0.1), ...]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Union, cast

from paddle_ranker.data.files.placed_text import SpanPlace
from paddle_ranker.registry import Registry

FIRST_SECOND, LAST_SECOND = "first_second", "last_second"  # fields of parts whose places are seconds
MOST_PIECES = 1024  # most pieces of a part that get separate vectors


class Part(NamedTuple):
    """Part of a file, which becomes a document: a page, some minutes of a recording, rows of a table.

    name: name that no other part of the file has, such as "3"; "" if the file is one part
    text: the words of the part
    fields: further fields of the document, such as `{"page": 3}`
    places: `(start, end, *place)` for each span of the text, in the order of the text. `start` and `end` count the
        text's code points; `place` has the numbers of the span's position in the file, in the form `Reader.places`
    """

    name: str
    text: str
    fields: Mapping[str, object] = {}
    places: Sequence[SpanPlace] = ()


class Unread(NamedTuple):
    """Report of a part of a file that could not be read.

    name: the part's name, as in `Part`
    reason: why it could not be read, for a message
    """

    name: str
    reason: str


class FilePiece(NamedTuple):
    """Piece of a recording or film, from second `start` to `end`, that gets a separate vector."""

    path: Path
    start: float
    end: float


class Reader(NamedTuple):
    """Reader of a kind of files.

    read: called with a file, in a separate process; yields its parts, and `Unread` for parts that it cannot read. The
        file has the suffix of its format, but not the name that the user gave it. Raises `DataError` if the whole file
        cannot be read, and `DependencyError` if a package is missing
    version: returns a text that changes whenever `read` may yield other parts: after a change of code, library or model
    places: form of the parts' places: `boxes` (left, top, right and bottom as fractions of the page), `seconds` (begin
        and end) or `cells` (row and column); "" if parts have none
    fields: a dict from the name of a part's field to its type, as `--field` takes it; number fields are also shown
        with a hit's place
    piece: for places in seconds: length in seconds of the pieces of a part that get separate vectors. Pieces are
        longer if a part would have more than `MOST_PIECES`
    has_words: whether parts have words; a part without words is then reported
    seconds: maximum processor time between two parts, beside 4 seconds for each MiB of the file; and for each 8 KiB of
        the file, if its parts are many
    memory: maximum bytes that reading takes, beside what the process held before
    draw: task of a `ChildProcess` that draws a page, given the page's number from 1, dots per inch and maximum pixels;
        it returns a JPEG in base64, or raises `DataError`. "": files have no pages
    missing: returns what `pip install` must be given before files are read; "" if nothing is missing
    """

    read: Callable[[Path], Iterator[Union[Part, Unread]]]
    version: Callable[[], str]
    places: str
    fields: Mapping[str, str] = {}
    piece: float = 10
    has_words: bool = True
    seconds: float = 30
    memory: int = 2 << 30
    draw: str = ""
    missing: Callable[[], str] = str


_FILE_NAME = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,8}")


def is_file_name(value: str) -> bool:
    """Return whether `value` is a name of a file that is stored in an index folder: its digest and suffix."""
    return _FILE_NAME.fullmatch(value) is not None


READERS: Registry[Reader] = Registry("reader", recipes="contents")


def add_reader(module: str, places: str, fields: Mapping[str, str], **more: Any) -> None:
    """Register the reader of a module by the module's name; the first call of `read` or `version` imports it.

    places, fields, more: as in `Reader`
    """

    def read(path: Path) -> Iterator[Union[Part, Unread]]:
        return cast("Iterator[Union[Part, Unread]]", import_module(module).read(path))

    def version() -> str:
        return str(import_module(module).version())

    READERS.add(module.rpartition(".")[2], Reader(read, version, places, fields, **more))


add_reader(
    "paddle_ranker.data.files.office",
    "",
    {"section": "number", "slide": "number", "title": "text", "heading": "text"},
)
add_reader("paddle_ranker.data.rows.table", "cells", {"first_row": "number", "last_row": "number"})
