"""A reader of a made-up format, for tests: pages of words, each word in a box; a plugin, which reading processes load.

A file begins with PAGES and a line's end. A form feed ends a page; the word number n of a page has the box
(n / 100, 0.5, (n + 1) / 100, 0.6). The words
!unread, !bad, !lacks, !die, !spin, !grow (to 256 MiB) and !wait alone on a page are what they say, the last until there
is a file `go`. Each reading is counted in the folder `MADE_READINGS`.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.data.files.file_readers import READERS, Part, Reader, Unread
from paddle_ranker.data.files.placed_text import SpanPlace
from paddle_ranker.errors import DataError, DependencyError, UsageError
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, file_type

BEGINNING = b"PAGES\n"


def read(path: Path) -> Iterator[Union[Part, Unread]]:
    if "MADE_READINGS" in os.environ:
        Path(os.environ["MADE_READINGS"], f"{path.name}-{os.getpid()}").touch(exist_ok=False)
    for number, page in enumerate(path.read_bytes()[len(BEGINNING) :].decode().split("\f"), 1):
        if page == "!die":
            os.kill(os.getpid(), signal.SIGKILL)
        while page == "!spin":
            pass
        if page == "!grow":
            bytearray(1 << 28)
        while page == "!wait" and not Path(os.environ["MADE_READINGS"], "go").exists():
            time.sleep(0.02)
        if page == "!bad":
            raise DataError(f"{path}: page {number} is bad")
        if page == "!lacks":
            raise DependencyError("needs magic: pip install magic")
        if page == "!unread":
            yield Unread(str(number), "it says so")
            continue
        words = enumerate(re.finditer(r"\S+", page))
        places = [(*one.span(), n / 100, 0.5, (n + 1) / 100, 0.6) for n, one in words]
        yield Part(str(number), page, {"page": number}, places)


def suffix_of(data: bytes) -> str:
    if not data.startswith(BEGINNING):
        raise ValueError("it does not begin with PAGES")
    return "pages"


def read_tape(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield words, one a second; the recording may hold anything."""
    text = "Hello from the tape"
    yield Part("", text, {}, [(*one.span(), n, n + 1) for n, one in enumerate(re.finditer(r"\S+", text))])


def read_sheet(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield the lines of a file of cells, two rows a part, the header first in each."""
    header, *rows = path.read_text().splitlines()[1:]
    for first in range(0, len(rows), 2):
        text, places, own = "\n".join([header, *rows[first : first + 2]]), list[SpanPlace](), rows[first : first + 2]
        for number, line in enumerate([header, *own]):
            start = sum(len(one) + 1 for one in [header, *own][:number])
            for column, cell in enumerate(line.split(" | ")):
                places.append((start, start + len(cell), number + first - 1, column))
                start += len(cell) + 3
        yield Part(f"{first // 2 + 1}", text, {"first_row": first, "last_row": first + len(own) - 1}, places)


def lacking() -> str:
    raise DependencyError("needs tape: pip install tape")


class PageTower:
    """A tower of the made format: a vector says how many bytes a file has."""

    def vectors(self, files: Sequence[Any]) -> Vectors:
        return np.array([[1, len(one)] for one in files], np.float32)

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        raise UsageError("no texts")

    def query_read(self, query: str) -> Optional[int]:
        return None


READERS.add("tape", Reader(read_tape, lambda: lacking() if "MADE_LACKS" in os.environ else "1", "seconds"))
FIELD_TYPES.add("tape", file_type("a tape", {"wav": "audio/wav"}, lambda data: "wav", reader="tape"))
READERS.add("sheet", Reader(read_sheet, lambda: "1", "cells", {"first_row": "number", "last_row": "number"}))
FIELD_TYPES.add("sheet", file_type("a sheet", {"csv": "text/csv"}, lambda data: "csv", reader="sheet"))
READERS.add(
    "pages",
    Reader(
        read, lambda: os.environ.get("MADE_VERSION", "1"), "boxes", {"page": "number"}, seconds=1.0, memory=1 << 27
    ),
)  # fmt: skip
FIELD_TYPES.add(
    "pages",
    file_type(
        "pages", {"pages": "application/pages"}, suffix_of, lambda *_: PageTower(), sample=b"PAGES", reader="pages"
    ),
)
