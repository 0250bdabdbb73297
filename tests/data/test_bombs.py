"""Small files that would take much time or memory to decode: refused from their headers, or ended with their caller."""

from __future__ import annotations

import gzip
import io
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_ranker.data.files.containers import unpack
from paddle_ranker.data.files.file_readers import READERS, Unread
from paddle_ranker.data.files.metering import CALLER, CallerLeft, DecodedBytes, DecodingCaller
from paddle_ranker.data.files.pictures import ImageError, ImageLimits, opened_picture
from paddle_ranker.errors import DataError
from paddle_ranker.recordings import film
from paddle_ranker.recordings.audio import read_recording
from paddle_ranker.retrieval.work.turns import Abandoned, Caller

pytestmark = pytest.mark.unit
av = pytest.importorskip("av", reason="needs: pip install 'paddle-ranker[sound,film]'")
pytest.importorskip("soxr", reason="needs: pip install 'paddle-ranker[sound]'")


def png(width: int, height: int) -> bytes:
    """Return a PNG of black pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer, row, rows = zlib.compressobj(1), bytes(1 + width), max(1, (1 << 20) // (1 + width))
    data = b"".join(packer.compress(row * min(rows, height - start)) for start in range(0, height, rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", data + packer.flush()), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def wav(rate: int, samples: int) -> bytes:
    size = 2 * samples
    head = struct.pack("<IHHIIHH", 16, 1, 1, rate, (2 * rate) % 2**32, 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + head + b"data" + struct.pack("<I", size) + bytes(size)


def flac(minutes: int, is_stated: bool) -> bytes:
    soundfile, stream = pytest.importorskip("soundfile"), io.BytesIO()
    with soundfile.SoundFile(stream, "w", 16_000, 1, format="FLAC") as file:
        for _ in range(minutes):
            file.write(np.zeros(16_000 * 60, np.float32))
    data = bytearray(stream.getvalue())
    if not is_stated:  # the lower 36 bits of the 8 bytes at 18
        data[21], data[22:26] = data[21] & 0xF0, bytes(4)
    return bytes(data)


def scans() -> bytes:
    """Return a progressive JPEG whose last scan comes again and again."""
    stream = io.BytesIO()
    Image.new("L", (4000, 4000), 9).save(stream, "JPEG", progressive=True)
    data = stream.getvalue()[:-2]
    return data + data[data.rindex(b"\xff\xda") :] * 90 + b"\xff\xd9"


def lying_film(count: int) -> bytes:
    """Return a film whose tables state `count` frames of one byte."""
    from tests.recordings.test_film import RED, make

    data = bytearray(make((RED,)))
    sizes, chunks, times = (data.index(name) + 4 for name in (b"stsz", b"stsc", b"stts"))
    data[sizes + 4 : sizes + 12] = struct.pack(">II", 1, count)
    data[chunks + 12 : chunks + 16] = data[times + 8 : times + 12] = struct.pack(">I", count)
    return bytes(data)


def large_film() -> bytes:
    from tests.recordings.test_film import RED, make

    return make((RED,), "mp4", seconds=0.2, size=(6000, 6000))


def sound(data: bytes) -> int:
    return sum(map(len, read_recording(data, most_seconds=600)))


def picture(data: bytes) -> int:
    with opened_picture(data) as image:
        return image.width


def frames(data: bytes) -> int:
    return sum(1 for _ in film.sampled_frames(data))


def unpacked(data: bytes) -> int:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.txt.gz").write_bytes(data)
        (Path(folder) / "members").mkdir()
        unpack(Path(folder) / "a.txt.gz", Path(folder) / "members", "a.txt.gz")
    return 0


def xml(data: bytes) -> int:
    """Read the text of an XML file; raise what is said of it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.xml").write_bytes(data)
        parts = [*READERS["office"].read(Path(folder) / "a.xml")]
    for part in parts:
        if isinstance(part, Unread):
            raise DataError(part.reason)
    return len(parts)


def laughs() -> bytes:
    """Return XML with an entity of ten entities, each of ten, and so on."""
    entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10 if n else 'ha' * 100}'>" for n in range(10))
    return f"<!DOCTYPE a [{entities}]><a>&e9;</a>".encode()


BOMBS: dict[str, tuple[Callable[[bytes], int], Callable[[], bytes], str]] = {
    "1 sample a second": (sound, lambda: wav(1, 500), "states 1 samples a second"),
    "4 GHz": (sound, lambda: wav(4_000_000_000, 500), "no recording"),
    "hours at 1 kHz": (sound, lambda: wav(1000, 4_000_000), "4,000 seconds, longer than 600"),
    "hours of silence": (sound, lambda: flac(240, True), "14,400 seconds, longer than 600"),
    "silence of unknown length": (sound, lambda: flac(240, False), "longer than 600"),
    "one column": (picture, lambda: png(1, 39_000_000), "a side above 65,535"),
    "many scans": (picture, scans, "scans of 4,000 x 4,000 pixels"),
    "20 million frames": (frames, lambda: lying_film(20_000_000), "states 20,000,000 frames"),
    "4 million frames": (frames, lambda: lying_film(4_100_000), "tables state too many|no frames that can be"),
    "large frames": (frames, large_film, "make it smaller"),
    "zeros in gzip": (unpacked, lambda: gzip.compress(bytes(70 << 20)), "far larger unpacked than packed"),
    "entities of entities": (xml, laughs, "entities, such as &e9;, are left out|damaged"),
    "elements in each other": (xml, lambda: b"<a>" * 1_000_000, "damaged, and read in part"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_seconds_and_takes_little_memory(name: str) -> None:
    read, make, problem = BOMBS[name]
    data = make()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, began = film._memory("VmRSS"), time.process_time()
    with pytest.raises((DataError, ImageError), match=problem):
        read(data)
    assert time.process_time() - began < 3
    assert film._memory("VmHWM") - before < 350_000_000


@pytest.mark.parametrize("name", ["sound", "film"])
def test_decoding_ends_when_the_caller_leaves(name: str) -> None:
    from tests.recordings.test_film import RED, make

    read, data = (sound, wav(8000, 4_000_000)) if name == "sound" else (frames, make([RED] * 30))
    calls = 0
    caller = Caller()

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise CallerLeft

    token = CALLER.set(DecodingCaller(check, nullcontext))
    try:
        with pytest.raises(CallerLeft):
            read(data)
    finally:
        CALLER.reset(token)
    caller.leave()
    with pytest.raises(Abandoned):
        caller.run(lambda: read(data))


def test_the_memory_of_a_picture_is_reserved_until_its_pixels_are_freed() -> None:
    limits = ImageLimits(decoded=DecodedBytes(100_000))
    with opened_picture(png(64, 64), limits):
        assert limits.decoded._held > 64 * 64
        caller = Caller(deadline=time.monotonic() + 0.3)
        with pytest.raises(Abandoned):  # no room, and the wait ends with the caller
            caller.run(lambda: picture_in(limits))
    assert limits.decoded._held == 0


def picture_in(limits: ImageLimits) -> None:
    with limits.decoded.reserve(limits.decoded.most):
        raise AssertionError("there is no room")
