"""Read recordings (WAV, FLAC, OGG, MP3), mixed down to one channel, in blocks of samples; refuse damaged files.

for samples in read_recording(Path("talk.mp3")):  # [samples] float32
    ...
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, cast

import numpy as np

from paddle_ranker.array_types import Array, Vectors
from paddle_ranker.data.files.metering import step
from paddle_ranker.errors import DataError, brief, package_for
from paddle_ranker.recordings.media import MediaSource, library, opened_media

RATE = 16_000  # samples a second that networks of speech take
_LEAST_RATE, _MOST_RATE = 1_000, 768_000  # of recordings; resampling 1 sample a second would make 16,000 of each
_FORMATS = "wav,flac,ogg,mp3"
# Codecs of these formats. WAV and OGG may hold any codec, and each is code that processes foreign bytes.
_NAMES = """
pcm_u8 pcm_s16le pcm_s24le pcm_s32le pcm_f32le pcm_f64le pcm_alaw pcm_mulaw adpcm_ima_wav adpcm_ms adpcm_g726 gsm_ms
flac vorbis opus speex mp3 mp3float
"""
_CODECS = frozenset(_NAMES.split())
_READS = "WAV, FLAC, OGG or MP3"
_PACKAGE = "'paddle-ranker[sound]'"
_BLOCK = 1 << 17  # samples of all channels that are mixed at a time
_OPPOSITE = 0.25  # share of the energy of independent channels below which their mean cancels them out
_GAP, _LONGEST_GAP = 0.1, 60.0  # seconds without samples that are a damage; most seconds that become silence
_SHORT = 0.5  # seconds by which a recording is shorter than its header states, from which on its end is missing
_UNKNOWN_SIZE = 0x7FFFF000  # programs that write WAV files to a pipe state this size, or more
_PAGE, _LAST_PAGE, _LONGEST_PAGE = b"OggS", 4, 65_307  # of OGG: a page's start, flag of the last page, maximum bytes
_HEAD = 1 << 14  # bytes within which the header of a WAV or MP3 file states its length


class IncompleteRecordingError(DataError):
    """A stretch or the end of a recording is damaged or missing; all samples that can be read were yielded."""


def read_recording(source: MediaSource, rate: int = RATE, most_seconds: float = math.inf) -> Iterator[Vectors]:
    """Yield blocks of a recording's samples, `[samples] float32`, `rate` per second.

    Channels are mixed to their mean or, where they would cancel each other out, to the loudest channel. Chained and
    joined files are read to their end. Memory is bounded, however long the recording is.

    most_seconds: maximum length; of a longer recording at most so many seconds are decoded

    Raises:
        DataError: the file is not a recording, has no samples, a rate that no recording has, NaN or infinite samples,
            or is longer than `most_seconds`.
        IncompleteRecordingError: a stretch or the end is missing or damaged; raised after the last sample was yielded.
        DependencyError: av or soxr is missing.
    """
    problem = f"is no recording, or is damaged: expected {_READS}; ffmpeg converts others"
    with opened_media(source, _FORMATS, problem, _PACKAGE) as container:
        stream = next(iter(container.streams.audio), None)
        if stream is None or stream.codec_context is None or stream.codec_context.name not in _CODECS:
            raise DataError(f"is a recording in a codec that is not read here: convert it to {_READS}, as ffmpeg does")
        missing, stated = _missing_end(container.format.name, source), _stated_seconds(container, stream, source)
        if stated > most_seconds:
            raise DataError(_too_long(most_seconds, stated))
        decoder, mixer = _Decoder(container, stream), _Mixer(rate)
        for samples, samples_rate in decoder.blocks():
            if decoder.seconds > most_seconds:
                raise DataError(_too_long(most_seconds))
            yield from mixer.mixed(samples, samples_rate)
        yield from mixer.end()
    read, problem = decoder.seconds, decoder.problem or missing
    if not read:
        raise DataError(problem or "has no samples")
    if not problem and read < stated - _SHORT:
        problem = f"missing, or damaged: its header states {stated:,.2f} seconds"
    if problem:
        raise IncompleteRecordingError(f"from second {decoder.damaged or read:,.2f} on it is {problem}")


def _too_long(most: float, seconds: Optional[float] = None) -> str:
    length = "" if seconds is None else f"has {seconds:,.0f} seconds, "
    return f"{length}{'' if length else 'is '}longer than {most:,.0f} seconds; cut it"


class _Decoder:
    """Decoder of a recording's stream.

    Attributes:
        seconds: seconds that were decoded so far.
        damaged: second at which the first damage begins; None without one.
        problem: description of the damage; "" without one.
    """

    def __init__(self, container: Any, stream: Any):
        self._container, self._stream = container, stream
        stream.codec_context.thread_count = 1
        self.seconds, self.problem = 0.0, ""
        self.damaged: Optional[float] = None

    def blocks(self) -> Iterator[tuple[Array, int]]:
        """Yield (samples `[samples, channels]` float32, samples per second) in the order of time.

        Gaps between samples, where the file is damaged, are silence.
        """
        av = library(_PACKAGE)
        held, count, expected = list[Array](), 0, 0.0
        before: tuple[int, int] = (0, 0)  # rate and channels
        for frame in self._frames(av):
            samples, kind = _samples_of(frame), (frame.sample_rate, len(frame.layout.channels))
            if not _LEAST_RATE <= kind[0] <= _MOST_RATE:
                limits = f"{_LEAST_RATE:,} to {_MOST_RATE:,} are read"
                raise DataError(f"states {kind[0]:,} samples a second, and {limits}: convert it, as ffmpeg does")
            begin = expected if frame.pts is None else float(frame.pts * frame.time_base)
            if begin < 0:
                samples = samples[round(-begin * kind[0]) :]  # what a codec needs to begin
            if begin - expected > _GAP and self.seconds:
                if self.damaged is None:
                    self.damaged, self.problem = self.seconds, f"damaged for {begin - expected:,.2f} seconds"
                gap = np.zeros((round(min(begin - expected, _LONGEST_GAP) * kind[0]), kind[1]), np.float32)
                samples = np.concatenate([gap, samples])
            expected = begin + frame.samples / kind[0]
            if held and (kind != before or count >= _BLOCK):
                yield np.concatenate(held), before[0]
                held, count = [], 0
            before, count = kind, count + samples.size
            held.append(samples)
            if not np.isfinite(samples).all():
                second = self.seconds + int(np.isfinite(samples).all(axis=1).argmin()) / kind[0]
                raise DataError(f"has a sample at second {second:,.2f} that is no number")
            self.seconds += len(samples) / kind[0]
        if held:
            yield np.concatenate(held), before[0]

    def _frames(self, av: Any) -> Iterator[Any]:
        try:
            for packet in self._container.demux(self._stream):
                step()
                with suppress(av.FFmpegError):  # a damaged packet leaves a gap, other bytes between joined files do not
                    yield from packet.decode()
        except av.FFmpegError as error:
            self.damaged, self.problem = self.seconds, f"damaged ({brief(error.strerror)})"


def _samples_of(frame: Any) -> Array:
    """Return a frame's samples, `[samples, channels]` float32 from -1 to 1."""
    values: Array = frame.to_ndarray()
    samples = values.T if frame.format.is_planar else values.reshape(-1, len(frame.layout.channels))
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / np.float32(-float(np.iinfo(samples.dtype).min))
    return samples.astype(np.float32)


class _Mixer:
    """Mixes channels and changes the rate of samples.

    rate: samples per second of the result
    """

    def __init__(self, rate: int):
        self._rate, self._from = rate, 0
        self._resampler: Any = None

    def mixed(self, samples: Array, rate: int) -> Iterator[Vectors]:
        """Yield the mix of a block `[samples, channels]`; joined files may have different rates."""
        if rate != self._from:
            yield from self.end()
            with package_for("reading recordings", _PACKAGE):
                import soxr
            self._from, self._resampler = rate, soxr.ResampleStream(rate, self._rate, 1, dtype="float32")
        yield from self._resampled(_mix(samples), False)

    def end(self) -> Iterator[Vectors]:
        """Yield the last samples."""
        if self._resampler is not None:
            yield from self._resampled(np.empty(0, np.float32), True)

    def _resampled(self, samples: Array, is_last: bool) -> Iterator[Vectors]:
        resampled = self._resampler.resample_chunk(samples, last=is_last)
        if len(resampled):
            yield resampled


def _mix(samples: Array) -> Array:
    """Return the mean of the channels or, if they cancel each other out, the loudest channel, `[samples]`.

    Independent channels of energies e have a mean of energy `e.sum() / channels ** 2`; that of opposite ones is less.
    """
    mean = samples.mean(axis=1)
    if samples.shape[1] > 1:
        energies = np.square(samples).sum(axis=0)
        if np.square(mean).sum() < _OPPOSITE * energies.sum() / samples.shape[1] ** 2:
            return np.ascontiguousarray(samples[:, int(energies.argmax())])
    return mean


class StretchReader:
    """Thread-safe reader of stretches of recordings. Reading stretches in the order of time is fastest.

    rate: samples per second of the result
    """

    def __init__(self, rate: int):
        self._rate, self._lock = rate, threading.Lock()
        self._path, self._blocks = Path(), cast("Iterator[Vectors]", iter(()))
        self._first, self._samples = 0, np.empty(0, np.float32)  # `_samples` begins with sample number `_first`

    def read(self, path: Path, start: float, end: float) -> Vectors:
        """Return the samples from second `start` to `end`, fewer if the recording ends before: `[samples] float32`."""
        first, last = round(start * self._rate), round(end * self._rate)
        with self._lock:
            if path != self._path or first < self._first:
                self._path, self._blocks = path, read_recording(path, self._rate)
                self._first, self._samples = 0, np.empty(0, np.float32)
            with suppress(StopIteration, IncompleteRecordingError):
                while self._first + len(self._samples) < last:
                    block, passed = next(self._blocks), min(first - self._first, len(self._samples))
                    self._first, self._samples = self._first + passed, np.concatenate([self._samples[passed:], block])
            return self._samples[max(0, first - self._first) : max(0, last - self._first)]


def _missing_end(format: str, source: MediaSource) -> str:
    """Describe the missing end of a WAV or OGG file, for which ffmpeg reports no error; "" if it is complete."""
    if format == "wav":
        head, size = _ends_of(source, _HEAD, 0)
        position, name = 12, b""
        while head.startswith(b"RIFF") and position + 8 <= len(head) and name != b"data":
            name, length = head[position : position + 4], int.from_bytes(head[position + 4 : position + 8], "little")
            position += 8 + (0 if name == b"data" else length + length % 2)
        if name == b"data" and size - position < length < _UNKNOWN_SIZE:
            return f"missing: {size - position:,} of {length:,} bytes are there"
    if format == "ogg":
        end, _ = _ends_of(source, 0, _LONGEST_PAGE)
        flags = end.rpartition(_PAGE)[2][1:2]
        if not flags or not flags[0] & _LAST_PAGE:
            return "missing: its last page is not there"
    return ""


def _stated_seconds(container: Any, stream: Any, source: MediaSource) -> float:
    """Return the length that a file states; 0 if it states none. ffmpeg estimates that of an MP3 file by its size."""
    if container.format.name != "mp3":
        return float(container.duration or 0) / 1e6
    head, _ = _ends_of(source, _HEAD, 0)
    if head.startswith(b"ID3"):  # sizes have 7 bits in each byte
        tag = sum((byte & 127) << 7 * place for place, byte in enumerate(reversed(head[6:10])))
        head, _ = _ends_of(source, _HEAD, 0, 10 + tag)
    found = re.search(rb"(?:Xing|Info)\0\0\0[\x01-\x0f](.{4})", head, re.S)
    rate = stream.codec_context.sample_rate
    return 0.0 if found is None else int.from_bytes(found[1], "big") * (1152 if rate >= 32_000 else 576) / rate


def _ends_of(source: MediaSource, first: int, last: int, begin: int = 0) -> tuple[bytes, int]:
    """Return (the `first` bytes from `begin` on, or else the `last` bytes, of a file; the file's size)."""
    if isinstance(source, bytes):
        return (source[begin : begin + first] if first else source[-last:]), len(source)
    if isinstance(source, Path):
        with open(source, "rb") as stream:
            return _ends_of(stream, first, last, begin)
    position, size = source.tell(), source.seek(0, 2)
    source.seek(begin if first else max(0, size - last))
    found = source.read(first or last)
    source.seek(position)
    return found, size
