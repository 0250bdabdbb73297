"""Read films (MP4, MOV, WebM, MKV, AVI): their length and their frames. Only a few frames are in memory at a time.

frames = FrameReader()
frames.read(Path("film.mp4"), 12.0)  # [height, width, 3] uint8: the frame at second 12
"""

from __future__ import annotations

import math
import queue
import re
import resource
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.data.files.file_readers import FIRST_SECOND, LAST_SECOND, MOST_PIECES, READERS, Part, Unread
from paddle_ranker.data.files.metering import DECODED, pause, step
from paddle_ranker.data.files.pictures import ImageLimits
from paddle_ranker.data.files.reader_pool import ChildProcess, limited
from paddle_ranker.errors import DataError, brief
from paddle_ranker.recordings.media import FILM_BEGINNINGS, library, opened_media
from paddle_ranker.runtime import usable_cores

_VERSION = 1  # raised when the same film would give other parts
_KINDS = "MP4, MOV, WebM, MKV or AVI"
_PACKAGE = "'paddle-ranker[film]'"
_MOST_PIXELS = ImageLimits.max_pixels  # most pixels of a frame
_LEAST_PIXELS = 1 << 21  # pixels that a frame may have if the first has fewer: some films change their size
_PADDING = 128  # pixels by which a codec's frames may be wider and higher than what is shown
_HELD_FRAMES = 10  # frames to which later ones may refer, and those that are decoded
_RGB_BYTES = 6  # per pixel of a frame in RGB: as decoded, and upright
_SAMPLED = 16  # frames of a film that is an example
# Processor seconds and bytes after which reading an example's packets is ended; on a busy machine they take longer.
PROBE_SECONDS, _PROBE_BYTES, _WAITED_SECONDS = 5.0, 1 << 30, 60.0
_MOST_FRAMES = 1 << 22  # of a track, as stated
_MOST_TABLES = 1 << 27  # bytes of the tables of an example's packets
_POLL_SECONDS = 0.1  # after which a wait for a process looks whether the caller still waits
_MOST_DECODED = 1 << 33  # pixels of all frames that are decoded of an example, some seconds of work
_LEAST = 0.04  # seconds of a film whose only frame states no duration
_MISSING = 1.0  # seconds by which a film is shorter than its header states, from which on its end is missing


def read(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield a film as one part without words; see `Reader.read`.

    Yields an `Unread` if the film's end is missing, and if its pieces must be longer than `Reader.piece` seconds.
    """
    with _opened(path) as (film, video):
        begin, duration = (film.start_time or 0) / 1e6, (film.duration or 0) / 1e6
        if film.format.name == "avi" and video.average_rate:  # whose duration follows from the bytes that are there
            duration = float(video.frames / video.average_rate)
        last, end, problem = 0.0, 0.0, ""
        try:
            for packet in film.demux():
                step()
                if packet.size and packet.pts is not None:
                    second = float((packet.pts + (packet.duration or 0)) * packet.time_base) - begin
                    end = max(end, second)
                    last = max(last, second, _LEAST) if packet.stream is video else last
        except library(_PACKAGE).FFmpegError as error:
            problem = f"damaged ({brief(str(error))})"
    if not last:
        raise DataError(problem or "has no frames")
    FrameReader().read(path, 0.0)  # raises if its frames cannot be decoded
    yield Part("", "", {FIRST_SECOND: 0, LAST_SECOND: round(last, 2)})
    if problem or end < duration - _MISSING:
        missing = problem or f"missing, or damaged: its header states {duration:,.2f} seconds"
        yield Unread("", f"from second {end:,.2f} on it is {missing}")
    if last > MOST_PIECES * (piece := READERS["film"].piece):
        yield Unread("", f"it is searched by a frame each {last / MOST_PIECES:,.1f} seconds, not each {piece:g}")


def version() -> str:
    """Return a text that changes whenever `read` may yield other parts (`Reader.version`)."""
    return f"{_VERSION}, av {library(_PACKAGE).__version__}"


class FrameReader:
    """Reader of films' frames, fast if the frames of a film are read in the order of time. Thread-safe.

    most_pixels: maximum pixels of all frames that are decoded; None: no maximum
    """

    def __init__(self, most_pixels: Optional[int] = None) -> None:
        self._lock, self._second, self._pixels_left = threading.Lock(), 0.0, most_pixels
        self._source: Union[Path, bytes] = b""
        self._frames: Iterator[tuple[float, Any]] = iter(())
        self._shown: Optional[Any] = None  # the frame that is seen at `_second`
        self._next: Optional[tuple[float, Any]] = None  # the frame after it, and when it is seen

    def read(self, source: Union[Path, bytes], second: float) -> Array:
        """Return the frame that the film shows at `second`, turned upright: `[height, width, 3] uint8`.

        source: path, or the bytes of a file

        Raises `DataError` if no frame can be decoded, or if the frame is larger than a picture may be, or if frames up
        to `second` have more pixels than are left of `most_pixels`.
        """
        with self._lock:
            if source != self._source or second < self._second or self._shown is None:
                self._source, self._frames = source, self._decoded(source)
                self._shown = self._next = None
            self._second = second
            self._next = self._next or next(self._frames, None)
            while self._next is not None and (self._shown is None or self._next[0] <= second):
                self._shown, self._next = self._next[1], next(self._frames, None)
            if self._shown is None:
                raise DataError("has no frames that can be decoded")
            return _upright(self._shown)

    def _decoded(self, source: Union[Path, bytes]) -> Iterator[tuple[float, Any]]:
        """Yield (second, frame) in the order of time, beginning at or before the last key frame before `_second`."""
        with _opened(source) as (film, stream):
            begin, held = (film.start_time or 0) / 1e6, list[Any]()

            def seen(timed: Any, *times: Optional[int]) -> float:
                time = next((moment for moment in times if moment is not None), None)
                return 0.0 if time is None else float(time * timed.time_base) - begin

            with suppress(film_error := library(_PACKAGE).FFmpegError):  # `read` has said that the end is missing
                for packet in film.demux(stream):
                    step()
                    if packet.is_keyframe and packet.size and seen(packet, packet.pts, packet.dts) <= self._second:
                        if held:
                            stream.codec_context.flush_buffers()
                        held = []
                    held.append(packet)
                    if packet.size and seen(packet, packet.dts, packet.pts) <= self._second:
                        continue  # a later key frame may make the held packets needless
                    for held_packet in held:
                        step()
                        with suppress(film_error):  # a damaged frame
                            for frame in held_packet.decode():
                                self._count(frame.width * frame.height)
                                yield seen(frame, frame.pts, frame.dts), frame
                    held = []

    def _count(self, pixels: int) -> None:
        if self._pixels_left is not None:
            self._pixels_left -= pixels
            if self._pixels_left < 0:
                problem = "takes too long to decode: its frames are large, and its key frames far apart"
                raise DataError(
                    f"{problem}; make it smaller, or cut it: ffmpeg -i IN.mp4 -t 60 -vf scale=-2:480 OUT.mp4"
                )


def _upright(frame: Any) -> Array:
    """Return a frame's pixels `[height, width, 3] uint8`, turned and mirrored by its display matrix as players do."""
    pixels: Array = frame.to_ndarray(format="rgb24")
    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return pixels
    a, b, _, c, d, *_ = np.frombuffer(bytes(stored), np.int32).tolist()  # x' = a x + c y; y' = b x + d y
    if max(abs(b), abs(c)) > max(abs(a), abs(d)):
        pixels, (a, d) = pixels.transpose(1, 0, 2), (c, b)
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def is_film(data: bytes) -> bool:
    """Return whether a file's bytes begin like a film's."""
    return any(re.match(pattern, data, re.S) for pattern, _ in FILM_BEGINNINGS)


def sampled_frames(film: bytes) -> Iterator[Array]:
    """Yield frames of a film at equal distances in time; the memory that decoding takes is reserved until the end.

    film: the bytes of a file

    Raises as `FrameReader.read` does, and `DataError` if decoding takes more memory or time than an example may.
    """
    _try_tables(film)
    with _opened(film) as (opened, stream):
        seconds, size = (opened.duration or 0) / 1e6, _decoded_bytes(stream.codec_context)
        shape = f"{stream.codec_context.width:,} x {stream.codec_context.height:,}"
    if size > DECODED.most:
        raise DataError(
            f"has {shape} pixels, which take {size:,} bytes to decode, above {DECODED.most:,}; make it smaller"
        )
    with DECODED.reserve(size):
        frames = FrameReader(_MOST_DECODED)
        for second in np.unique(np.linspace(0, seconds, _SAMPLED, endpoint=False)):
            yield frames.read(film, float(second))
        del frames


def _try_tables(film: bytes) -> None:
    """Read a film's packets in a process with limits of time and memory; raises `DataError` if it needs more.

    Tables of a few bytes may state any number of frames, and ffmpeg cannot be stopped while it reads them.
    """
    children = _children()
    child = None
    while child is None:
        step()
        with suppress(queue.Empty), pause():
            child = children.get(timeout=_POLL_SECONDS)
    try:
        with pause(), tempfile.NamedTemporaryFile(suffix=".film") as file:
            file.write(film)
            file.flush()
            child.ask(_PACKETS, Path(file.name), seconds=_WAITED_SECONDS)
    finally:
        children.put(child)


@lru_cache(maxsize=1)
def _children() -> queue.Queue[ChildProcess]:
    children: queue.Queue[ChildProcess] = queue.Queue()
    for _ in range(usable_cores()):
        children.put(ChildProcess())
    return children


_PACKETS = f"{__name__}:read_packets_limited"  # task of a `ChildProcess`


def read_packets_limited(path: Path) -> None:
    """Call `read_packets` with a limit of processor time."""
    with limited(math.inf, PROBE_SECONDS, PROBE_SECONDS):
        read_packets(path)


def read_packets(path: Path) -> None:
    """Read a film's packets, in a process of its own; raises `DataError` if that takes too much memory."""
    limits, before = resource.getrlimit(resource.RLIMIT_AS), _memory("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (before + _PROBE_BYTES, limits[1]))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # lets the peak begin anew
    before = _memory("VmRSS")
    try:
        with _opened(path) as (film, stream), suppress(library(_PACKAGE).FFmpegError):
            most = _MOST_TABLES + _decoded_bytes(stream.codec_context)
            coded = [one for one in film.streams if one.codec_context and not one.codec_context.name.startswith("pcm")]
            if (count := max(one.frames for one in coded)) > _MOST_FRAMES:
                raise DataError(f"states {count:,} frames, more than {_MOST_FRAMES:,}: cut it")
            for _ in film.demux():
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    if (taken := _memory("VmHWM") - before) > most:  # ffmpeg goes on after memory was refused
        raise DataError(f"takes {taken:,} bytes of memory to read, above {most:,}: its tables state too many frames")


def _memory(name: str) -> int:
    """Return a size of this process in bytes, by its name in Linux's `/proc/self/status`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition(f"{name}:")[2].split(maxsplit=1)[0])


def _decoded_bytes(codec: Any) -> int:
    """Return how many bytes of memory a film's decoder and a frame in RGB may take."""
    pixels = max(_LEAST_PIXELS, (codec.width + _PADDING) * (codec.height + _PADDING))
    depth = 4.0 if codec.format is None else sum(_bytes_a_pixel(part, codec.format) for part in codec.format.components)
    return int(pixels * (_HELD_FRAMES * depth + _RGB_BYTES))


def _bytes_a_pixel(part: Any, format: Any) -> float:
    width, height = (format.chroma_width(1024), format.chroma_height(1024)) if part.is_chroma else (1024, 1024)
    return (1 if part.bits <= 8 else 2) * width * height / 1024**2


@contextmanager
def _opened(source: Union[Path, bytes]) -> Iterator[tuple[Any, Any]]:
    """Open a film; yield its PyAV container and its stream of frames. Raises `DataError` if it cannot be read."""
    problem = f"is no film in {_KINDS}, or is damaged or cut short"
    with opened_media(source, "mov,matroska,avi", problem, _PACKAGE) as film:
        covers = library(_PACKAGE).stream.Disposition.attached_pic  # of a recording
        stream = next((video for video in film.streams.video if not video.disposition & covers), None)
        if stream is None:
            raise DataError("has no moving pictures; a sound can be given in a field of recordings")
        codec = stream.codec_context
        if codec is None:
            raise DataError("is in a codec that is not read here; convert it, as ffmpeg does")
        if codec.width * codec.height > _MOST_PIXELS:
            limit = f"more than the limit of {_MOST_PIXELS:,}"
            raise DataError(f"has {codec.width:,} x {codec.height:,} pixels, {limit}; make it smaller")
        # Frames may have other sizes. Those of an example must fit into the memory that is reserved for it.
        declared = max(_LEAST_PIXELS, (codec.width + _PADDING) * (codec.height + _PADDING))
        codec.options = {"max_pixels": str(declared if isinstance(source, bytes) else _MOST_PIXELS)}
        if isinstance(source, bytes):
            codec.thread_count = 1
        else:
            stream.thread_type = "AUTO"
        yield film, stream
