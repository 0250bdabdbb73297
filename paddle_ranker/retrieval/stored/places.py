"""Places of a document's words in the file that it was read from: boxes on a page, seconds, or cells of a table.

A document's field `places` has the packed places of all words. `place_of` returns the places of spans of its text.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Integers
from paddle_ranker.data.files.file_readers import FIRST_SECOND, LAST_SECOND, MOST_PIECES, READERS, FilePiece
from paddle_ranker.data.files.placed_text import PlacedText, SpanPlace
from paddle_ranker.data.rows.labels import number_of
from paddle_ranker.errors import CheckpointError, brief
from paddle_ranker.lexical.passages import Span
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, PLACES, Field, Schema
from paddle_ranker.storage.untrusted import Unchecked

PlaceInFile = Mapping[str, Unchecked]
_SCALE = 10_000  # numbers of a place are stored as integers, in units of 1/10,000
_MOST_BYTES = 1 << 26  # size of a document's unpacked places
MOST_PLACES = 100  # most places of a hit
_MOST_SECONDS = 1e7  # longest recording
_SECOND = 100  # starts and ends of pieces are stored in 1/100 seconds


def pieces_of(document: Document, field: Field) -> list[Span]:
    """Return starts and ends, in 1/100 seconds, of the equally long pieces of a recording or film that get vectors.

    Returns [] for a field of other values, and for a document without the seconds of its file.
    """
    name = FIELD_TYPES[field.type].reader
    reader = READERS[name] if name and isinstance(document.fields.get(field.name), str) else None
    if reader is None or reader.places != "seconds":
        return []
    first, last = (number_of(document.fields.get(name)) for name in (FIRST_SECOND, LAST_SECOND))
    if first is None or last is None or not 0 <= first < last < _MOST_SECONDS:
        return []
    count = min(math.ceil((last - first) / reader.piece), MOST_PIECES)
    edges = np.rint(np.linspace(first, last, count + 1) * _SECOND).astype(int).tolist()
    return [*zip(edges, edges[1:])]


def pieces_in(path: Optional[Path], spans: Iterable[Span]) -> list[FilePiece]:
    """Return the pieces of a recording between starts and ends in 1/100 seconds."""
    assert path is not None
    return [FilePiece(path, start / _SECOND, end / _SECOND) for start, end in spans]


def pack_places(places: Sequence[SpanPlace]) -> str:
    """Pack places of spans, `(start, end, *place)` in the order of the text, into a short text."""
    values = np.asarray(places, np.float64).T
    values[1] -= values[0]
    values[0] = np.diff(values[0], prepend=0)
    values[2:] *= _SCALE
    data = np.rint(values).astype("<i8")
    return f"{len(data)}:{base64.b64encode(zlib.compress(data.tobytes())).decode()}"


def unpack_places(text: str) -> tuple[Integers, Integers]:
    """Return the starts and ends of spans, `[n, 2]`, and their places, in 1/10,000, `[n, numbers of a place]`.

    Raises `ValueError` for a text that `pack_places` does not make.
    """
    width, _, data = text.partition(":")
    inflate = zlib.decompressobj()
    try:
        numbers = np.frombuffer(inflate.decompress(base64.b64decode(data, validate=True), _MOST_BYTES), "<i8")
    except (zlib.error, binascii.Error) as error:
        raise ValueError(str(error)) from error
    if not inflate.eof:
        raise ValueError("it is cut short or too long")
    values = numbers.reshape(int(width), -1).copy()
    values[0] = np.cumsum(values[0])
    values[1] += values[0]
    return values[:2].T, values[2:].T


def place_of(
    document: Document, schema: Schema, spans: Iterable[Span], piece: Optional[Span] = None
) -> Optional[PlaceInFile]:
    """Return the place of a document in the file that it was read from; None without such a file.

    The result has numbers from the document's fields, such as `page`, and the places of `spans`, such as `boxes`.
    Raises `CheckpointError` if the stored places are damaged.

    spans: parts of the document's text, without overlaps
    piece: start and end, in 1/100 seconds, of the piece of a recording or film that a search by vectors found; the
        place of the piece is returned if no span has a place
    """
    reader = schema.reader_of(document)
    if reader is None:
        return None
    place: dict[str, Unchecked] = {
        name: document.fields[name] for name, kind in reader.fields.items()
        if kind == "number" and name in document.fields
    }  # fmt: skip
    if PLACES in document.fields:
        ranges, places = _places_of(document)
        rows = dict[int, None]()
        for start, end in spans:
            first, last = np.searchsorted(ranges[:, 1], start, "right"), np.searchsorted(ranges[:, 0], end, "left")
            rows.update(dict.fromkeys(range(int(first), min(int(last), int(first) + MOST_PLACES))))
        shown = places[[*rows][:MOST_PLACES]]
        place[reader.places] = [
            [int(number) if number == int(number) else number for number in numbers]
            for numbers in (shown / _SCALE).tolist()
        ]
    if piece is not None and not place.get(reader.places):
        place[reader.places] = [[edge / _SECOND for edge in piece]]
    return place


def placed_text(document: Document, schema: Schema, places: str) -> str:
    """Return a document's text; as `PlacedText` if the document has places of the kind `places`, such as "boxes"."""
    reader = schema.reader_of(document)
    if reader is None or reader.places != places or PLACES not in document.fields:
        return document.text
    ranges, numbers = _places_of(document)
    span_places = zip(ranges.tolist(), (numbers / _SCALE).tolist())
    return PlacedText(document.text, ((*span, *place) for span, place in span_places))


def _places_of(document: Document) -> tuple[Integers, Integers]:
    try:
        return unpack_places(str(document.fields[PLACES]))
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"document {document.id}: its places are damaged ({brief(str(error))})") from error


def shown_place(place: PlaceInFile) -> str:
    """Format a place as `page 3`, `0:12:34` or `row 7, column 2`; "" for a place without such numbers."""
    if seconds := place.get("seconds"):
        return str(timedelta(seconds=int(seconds[0][0])))
    if cells := place.get("cells"):
        row, column = next((cell for cell in cells if cell[0] >= 0), cells[0])
        return f"{f'row {row + 1:,}' if row >= 0 else 'header'}, column {column + 1:,}"
    return f"page {place['page']:,}" if "page" in place else ""
