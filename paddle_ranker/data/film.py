"""Read films (MP4, MOV, WebM, MKV, AVI): their length and their frames. Only a few frames are in memory at a time.

frames = FrameReader()
frames.read(Path("film.mp4"), 12.0)  # [height, width, 3] uint8: the frame at second 12
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.data.file_readers import FIRST_SECOND, LAST_SECOND, MOST_PIECES, READERS, Part, Unread
from paddle_ranker.data.pictures import ImageLimits
from paddle_ranker.errors import DataError, brief, package_for

# First bytes of films, as regular expressions, with the suffix of each format
BEGINNINGS = (
    (rb".{4}(ftypqt|moov|mdat|wide)", "mov"),
    (rb".{4}ftyp(?!hei|hev|mif|msf|avi)", "mp4"),
    (rb"\x1a\x45\xdf\xa3.{,64}webm", "webm"),
    (rb"\x1a\x45\xdf\xa3", "mkv"),
    (rb"RIFF.{4}AVI ", "avi"),
)
_VERSION = 1  # raised when the same film would give other parts
_KINDS = "MP4, MOV, WebM, MKV or AVI"
_MOST_PIXELS = ImageLimits.max_pixels  # most pixels of a frame
_SAMPLED = 16  # frames of a film that is an example
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
                if packet.size and packet.pts is not None:
                    second = float((packet.pts + (packet.duration or 0)) * packet.time_base) - begin
                    end = max(end, second)
                    last = max(last, second, _LEAST) if packet.stream is video else last
        except _library().FFmpegError as error:
            problem = f"damaged ({brief(str(error))})"
    if not last:
        raise DataError(problem or "has no frames")
    FrameReader().read(path, 0.0)  # raises if its frames cannot be decoded
    yield Part("", "", {FIRST_SECOND: 0, LAST_SECOND: round(last, 2)})
    if problem or end < duration - _MISSING:
        missing = problem or f"missing, or damaged: its header states {duration:,.2f} seconds"
        yield Unread("", f"from second {end:,.2f} on it is {missing}")
    if last > MOST_PIECES * (step := READERS["film"].piece):
        yield Unread("", f"a frame each {last / MOST_PIECES:,.1f} seconds has a vector, not each {step:g}")


def version() -> str:
    """Return a text that changes whenever `read` may yield other parts (`Reader.version`)."""
    return f"{_VERSION}, av {_library().__version__}"


class FrameReader:
    """Reader of films' frames, fast if the frames of a film are read in the order of time. Thread-safe."""

    def __init__(self) -> None:
        self._lock, self._second = threading.Lock(), 0.0
        self._source: Union[Path, bytes] = b""
        self._frames: Iterator[tuple[float, Any]] = iter(())
        self._shown: Optional[Any] = None  # the frame that is seen at `_second`
        self._next: Optional[tuple[float, Any]] = None  # the frame after it, and when it is seen

    def read(self, source: Union[Path, bytes], second: float) -> Array:
        """Return the frame that the film shows at `second`, turned upright: `[height, width, 3] uint8`.

        source: path, or the bytes of a file

        Raises `DataError` if no frame can be decoded, or if the frame is larger than a picture may be.
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
            pixels: Array = self._shown.to_ndarray(format="rgb24")
            return np.rot90(pixels, round(self._shown.rotation / 90))

    def _decoded(self, source: Union[Path, bytes]) -> Iterator[tuple[float, Any]]:
        """Yield (second, frame) in the order of time, beginning at or before the last key frame before `_second`."""
        with _opened(source) as (film, stream):
            begin, held = (film.start_time or 0) / 1e6, list[Any]()

            def seen(timed: Any, *times: Optional[int]) -> float:
                time = next((moment for moment in times if moment is not None), None)
                return 0.0 if time is None else float(time * timed.time_base) - begin

            with suppress(_library().FFmpegError):  # `read` has said that the end is missing
                for packet in film.demux(stream):
                    if packet.is_keyframe and packet.size and seen(packet, packet.pts, packet.dts) <= self._second:
                        if held:
                            stream.codec_context.flush_buffers()
                        held = []
                    held.append(packet)
                    if packet.size and seen(packet, packet.dts, packet.pts) <= self._second:
                        continue  # a later key frame may make the held packets needless
                    for held_packet in held:
                        with suppress(_library().FFmpegError):  # a damaged frame
                            for frame in held_packet.decode():
                                yield seen(frame, frame.pts, frame.dts), frame
                    held = []


def is_film(data: bytes) -> bool:
    """Return whether a file's bytes begin like a film's."""
    return any(re.match(pattern, data, re.S) for pattern, _ in BEGINNINGS)


def sampled_frames(film: bytes) -> Iterator[Array]:
    """Yield frames of a film at equal distances in time; raises as `FrameReader.read` does.

    film: the bytes of a file
    """
    with _opened(film) as (opened, _):
        seconds = (opened.duration or 0) / 1e6
    frames = FrameReader()
    for second in np.unique(np.linspace(0, seconds, _SAMPLED, endpoint=False)):
        yield frames.read(film, float(second))


@contextmanager
def _opened(source: Union[Path, bytes]) -> Iterator[tuple[Any, Any]]:
    """Open a film; yield its PyAV container and its stream of frames. Raises `DataError` if it cannot be read."""
    av = _library()
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        try:  # the list excludes formats that open further files and addresses, such as playlists
            film = av.open(file, options={"format_whitelist": "mov,matroska,avi"})
        except av.FFmpegError as error:
            problem = f"is no film in {_KINDS}, or is damaged or cut short"
            raise DataError(f"{problem} ({brief(error.strerror)})") from None
        with film:
            covers = av.stream.Disposition.attached_pic  # of a recording
            stream = next((video for video in film.streams.video if not video.disposition & covers), None)
            if stream is None:
                raise DataError("has no moving pictures; a sound can be given in a field of recordings")
            if stream.codec_context is None:
                raise DataError("is in a codec that is not read here; convert it, as ffmpeg does")
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > _MOST_PIXELS:
                limit = f"more than the limit of {_MOST_PIXELS:,}"
                raise DataError(f"has {width:,} x {height:,} pixels, {limit}; make it smaller")
            stream.codec_context.options = {"max_pixels": str(_MOST_PIXELS)}  # frames may have other sizes
            stream.thread_type = "AUTO"
            yield film, stream


def _library() -> Any:
    with package_for("reading films", "'paddle-ranker[film]'"):
        import av
    return av
