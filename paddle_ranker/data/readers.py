"""Readers: the words of files that are no texts, such as PDFs and recordings, and where in the file each stands.

for part in READERS["pdf"].read(Path("manual.pdf")):
    part.text, part.places    # "Warranty\nTwo years ...", [(0, 8, 0.1, 0.08, 0.31, 0.1), ...]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, Union, cast

from paddle_ranker.registry import Registry

Place = tuple[Union[int, float], ...]


class Part(NamedTuple):
    """Part of a file, which becomes a document: a page, some minutes of a recording, rows of a table.

    name: differs from the names of the file's other parts, such as "3"; "" if the file is one part
    text: the words of the part
    fields: further fields of the document, such as `{"page": 3}`
    places: where spans of the text stand in the file, `(start, end, *place)` in the order of the text; start and end in
        code points, and the place as the reader says
    """

    name: str
    text: str
    fields: Mapping[str, object] = {}
    places: Sequence[Place] = ()


class Unread(NamedTuple):
    """Part of a file that could not be read.

    name: of the part, as in `Part`
    reason: why, for a message
    """

    name: str
    reason: str


class Reader(NamedTuple):
    """A way to read files.

    read: yields the parts of a file, and those that it cannot read; raises `DataError` if the whole file cannot be
        read, and `DependencyError` with the line that installs what is missing. It runs in a process of its own; the
        file's suffix is that of its format, its name is not the user's
    version: changes whenever the parts of a file may change: of the code, the library and the model
    places: name of a hit's places: `boxes`, `seconds` or `cells`
    fields: types of the parts' fields, as `--field` takes them, by their names; a hit's place shows the numbers, too
    """

    read: Callable[[Path], Iterator[Union[Part, Unread]]]
    version: Callable[[], str]
    places: str
    fields: Mapping[str, str] = {}


_FILE_NAME = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,8}")


def is_file_name(value: str) -> bool:
    """Return whether a text is a name that files have in an index folder."""
    return _FILE_NAME.fullmatch(value) is not None


READERS: Registry[Reader] = Registry("reader")


def _add(name: str, module: str, places: str, **fields: str) -> None:
    """Add the reader of a module with functions `read` and `version`, which is imported when a file is read."""

    def read(path: Path) -> Iterator[Union[Part, Unread]]:
        return cast("Iterator[Union[Part, Unread]]", import_module(module).read(path))

    READERS.add(name, Reader(read, lambda: str(import_module(module).version()), places, fields))


_add("pdf", "paddle_ranker.data.pdf", "boxes", page="number", title="text", heading="text")
_add("ocr", "paddle_ranker.data.ocr", "boxes", page="number")
_add("speech", "paddle_ranker.data.speech", "seconds")
_add("table", "paddle_ranker.data.table", "cells", first_row="number", last_row="number")
