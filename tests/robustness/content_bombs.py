"""Small files and tables that cost much to decode, for `POST` requests: each is sent as it is, and in gzip."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.data.test_bombs import flac, large_film, lying_film, png, scans, wav

FILM_SIDE, FILM_FRAMES = 1920, 1500


class Bomb(NamedTuple):
    """A request whose contents cost much.

    path: route
    body: returns the request, JSON-ready
    server: key of `SERVERS` in attacked_contents.py
    """

    path: str
    body: Callable[[], dict[str, Any]]
    server: str = "pictures"


def url(data: bytes) -> str:
    """Return a `data:` URL."""
    return "data:;base64," + base64.b64encode(data).decode()


def skipped_film(side: int = FILM_SIDE, count: int = FILM_FRAMES) -> bytes:
    """Return a film of one key frame and many frames that repeat it, about 100 bytes each."""
    import av
    import numpy as np

    stream_file = io.BytesIO()
    with av.open(stream_file, "w", format="matroska") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = side
        stream.pix_fmt, stream.gop_size = "yuv420p", 600
        frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), 90, np.uint8), format="rgb24")
        packets = []
        for number in range(3):
            frame.pts = number
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for number in range(count):
            packet = av.Packet(bytes(packets[min(number, len(packets) - 1)]))
            packet.stream, packet.time_base = stream, packets[0].time_base
            packet.pts = packet.dts = number * (packets[1].pts - packets[0].pts)
            packet.is_keyframe = number == 0
            container.mux(packet)
    return stream_file.getvalue()


def _like(name: str, make: Callable[[], bytes]) -> Bomb:
    return Bomb("/v1/search", lambda: {"query": "", "like": {name: url(make())}, "top_k": 3})


def _document(name: str, make: Callable[[], bytes]) -> Bomb:
    return Bomb("/v1/documents", lambda: {"documents": [{"id": "bomb", "text": "a", "fields": {name: url(make())}}]})


def _embedded(make: Callable[[], bytes], count: int = 1) -> Bomb:
    return Bomb("/v1/embeddings", lambda: {"input": [{"image": url(make())}] * count})


def _ranked(make: Callable[[], bytes], count: int = 1) -> Bomb:
    return Bomb("/v1/rerank", lambda: {"query": "a", "documents": [{"image": url(make())}] * count})


def _titles(places: Callable[[], list[list[float]]], text: str, server: str, count: int = 1) -> Bomb:
    def body() -> dict[str, Any]:
        own = places()
        documents = [{"text": text[: -len(end)] + end, "places": own} for end in map(str, range(count))]
        return {"query": "7 or may 1, 2001", "documents": documents}

    return Bomb("/v1/rerank", body, server)


def _span(number: int) -> tuple[int, int]:
    return 3 * number, 3 * number + 2


def _noise(seconds: int, rate: int) -> bytes:
    data = bytearray(wav(rate, seconds * rate))
    data[44:] = random.Random(0).randbytes(len(data) - 44)
    return bytes(data)


def bombs() -> dict[str, Bomb]:
    """Return requests by name."""
    wide, letters = lambda: png(6300, 6300), "ab " * 30_000
    return {
        "example, WAV at 1 Hz": _like("recording", lambda: wav(1, 500)),
        "example, WAV of noise at 1 kHz": _like("recording", lambda: _noise(590, 1000)),
        "example, WAV of 10 minutes": _like("recording", lambda: _noise(590, 8000)),
        "example, hours of silence": _like("recording", lambda: flac(240, True)),
        "example, silence of unknown length": _like("recording", lambda: flac(240, False)),
        "example, film of skipped frames": _like("film", skipped_film),
        "example, film of large frames": _like("film", large_film),
        "example, film that states 20 million frames": _like("film", lambda: lying_film(20_000_000)),
        "example, film that states 4 million frames": _like("film", lambda: lying_film(4_100_000)),
        "example, picture of one column": _like("picture", lambda: png(1, 39_000_000)),
        "example, picture of 6300 x 6300": _like("picture", wide),
        "example, JPEG of many scans": _like("picture", scans),
        "document, picture of 6300 x 6300": _document("picture", wide),
        "document, film of skipped frames": _document("film", skipped_film),
        "document, hours of silence": _document("recording", lambda: flac(240, True)),
        "document, WAV of 10 minutes": _document("recording", lambda: _noise(590, 8000)),
        "vectors, 20 pictures of 6300 x 6300": _embedded(wide, 20),
        "ranked, 20 pictures of 6300 x 6300": _ranked(wide, 20),
        "ranked, picture of one column": _ranked(lambda: png(1, 39_000_000)),
        "tables, far cells": _titles(lambda: [[0, 1, n * 1000, n * 1000] for n in range(60)], letters, "tables", 50),
        # A request may hold 128,000 values, 5 for each cell and 7 for each box.
        "tables, many cells": _titles(
            lambda: [[*_span(n), n // 30, n % 30] for n in range(7_800)], letters, "tables", 3
        ),
        "tables, many numbers": _titles(lambda: [[0, 90_000, 0, 0]], "7 " * 45_000, "tables", 50),
        "tables, many dates": _titles(lambda: [[0, 90_000, 0, 0]], "may 1, 2001 " * 7_500, "tables", 50),
        "boxes, one for each word": _titles(
            lambda: [[*_span(n), 0.1, 0.1, 0.2, 0.2] for n in range(5_800)], letters, "boxes", 3
        ),
        "boxes, all of one word": _titles(lambda: [[0, 1, 0.1, 0.1, 0.2, 0.2]] * 17_500, "ab", "boxes"),
    }
