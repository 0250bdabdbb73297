"""Readers: the words of files that are no texts, such as PDFs and recordings, and where in the file each stands.

for part in READERS["pdf"].read(Path("manual.pdf")):
    part.text, part.places    # "Warranty\nTwo years ...", [(0, 8, 0.1, 0.08, 0.31, 0.1), ...]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Union

from paddle_ranker.registry import Registry

Place = tuple[Union[int, float], ...]


class Part(NamedTuple):
    """Part of a file, which becomes a document: a page, some minutes of a recording, rows of a table.

    name: tells it from the file's other parts, such as "3"; "" if the file is one part
    text: its words
    fields: further fields of the document, such as `{"page": 3}`
    places: where spans of the text stand in the file, `(start, end, *place)` in the order of the text; start and end
        in code points, and the place as the reader says
    """

    name: str
    text: str
    fields: Mapping[str, object] = {}
    places: Sequence[Place] = ()


class Unread(NamedTuple):
    """Part of a file that was not read, and why."""

    name: str
    reason: str


class Reader(NamedTuple):
    """A way to read files.

    read: yields the parts of a file, and those that it cannot read; raises `DataError` if the whole file cannot be
        read, and `DependencyError` with the line that installs what is missing
    place: names of the numbers of a place, such as `("x0", "y0", "x1", "y1")`
    version: changes whenever the parts of a file may change: of the code, the library and the model
    """

    read: Callable[[Path], Iterator[Union[Part, Unread]]]
    place: tuple[str, ...]
    version: Callable[[], str]


READERS: Registry[Reader] = Registry("reader")
