"""Read recordings (WAV, FLAC, OGG, MP3), mixed down to one channel, in blocks of samples; refuse damaged files.

for samples in read_recording(Path("talk.mp3")):  # [samples] float32
    ...
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Union, cast

import numpy as np

from paddle_ranker.errors import DataError, package_for

if TYPE_CHECKING:
    from paddle_ranker.array_types import Vectors

RATE = 16_000  # samples a second that networks of speech take
# Formats that libsndfile reads; its rare ones are left out: each is code that processes foreign bytes.
_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
_BLOCK = 1 << 17  # samples of all channels that are read at a time
# Bytes of a WAV file's samples, or of an RF64 file, in its header and on the disk, in libsndfile's words.
_SIZES = re.compile(r"(?m)^ *(?:data|Riff size) *: (\d+) \(should be (\d+)\)")
_UNKNOWN_SIZE = 0x7FFFF000  # programs that write WAV files to a pipe state this size, or more
_PAGE, _LAST_PAGE, _LONGEST_PAGE = b"OggS", 4, 65_307  # of OGG: a page's start, flag of the last page, maximum bytes


class IncompleteRecordingError(DataError):
    """The end of a recording is damaged or missing; all samples before the damage were yielded."""


def read_recording(source: Union[Path, IO[bytes]], rate: int = RATE) -> Iterator[Vectors]:
    """Yield blocks of a recording's samples, `[samples] float32`: mean of the channels, `rate` per second.

    Memory is bounded, however long the recording is. Raises:
        DataError: the file is not a recording, has no samples, states no rate, or has NaN or infinite samples.
        IncompleteRecordingError: the end is missing or damaged; raised after the last sample was yielded.
        DependencyError: soundfile or soxr is missing.
    """
    soundfile, soxr = _libraries()
    try:
        sound = soundfile.SoundFile(source)
    except soundfile.LibsndfileError as error:
        if "SF_INFO" in str(error):
            raise DataError("states no rate, or one that no recording has") from None
        raise DataError(
            f"is no recording, or is damaged: expected WAV, FLAC, OGG or MP3 ({error.error_string})"
        ) from None
    with sound:
        if sound.format not in _FORMATS:
            raise DataError(f"is a recording in {sound.format}: convert it to WAV, FLAC, OGG or MP3, as ffmpeg does")
        resampler = soxr.ResampleStream(sound.samplerate, rate, 1, dtype="float32")
        size, count, is_last, problem = max(1, _BLOCK // sound.channels), 0, False, _missing_end(sound, source)
        while not is_last:
            try:
                frames = sound.read(size, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                frames, problem = np.zeros((0, sound.channels), np.float32), f"damaged ({error.error_string})"
            is_last, samples = len(frames) < size, frames.mean(axis=1)
            if not np.isfinite(samples).all():
                second = (count + int(np.isfinite(samples).argmin())) / sound.samplerate
                raise DataError(f"has a sample at second {second:,.2f} that is no number")
            count += len(frames)
            resampled = resampler.resample_chunk(samples, last=is_last)
            if len(resampled):
                yield resampled
        if not count:
            raise DataError(problem or "has no samples")
        if count < sound.frames or problem:
            problem = (
                problem or f"missing, or damaged: its header states {sound.frames / sound.samplerate:,.2f} seconds"
            )
            raise IncompleteRecordingError(f"from second {count / sound.samplerate:,.2f} on it is {problem}")


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


def _missing_end(sound: Any, source: Union[Path, IO[bytes]]) -> str:
    """Describe the missing end of a WAV or OGG file, for which libsndfile reports no error; "" if it is complete.

    sound: the open `SoundFile` of `source`
    """
    sizes = _SIZES.search(sound.extra_info)
    if sizes is not None and int(sizes[2]) < int(sizes[1]) < _UNKNOWN_SIZE:
        return f"missing: {int(sizes[2]):,} of {int(sizes[1]):,} bytes are there"
    if sound.format == "OGG":
        end = _end_of(source, _LONGEST_PAGE)
        flags = end.rpartition(_PAGE)[2][1:2]
        if not flags or not flags[0] & _LAST_PAGE:
            return "missing: its last page is not there"
    return ""


def _end_of(source: Union[Path, IO[bytes]], size: int) -> bytes:
    """Return the last `size` bytes of a file. A stream keeps its position."""
    if isinstance(source, Path):
        with open(source, "rb") as stream:
            return _end_of(stream, size)
    position = source.tell()
    source.seek(max(0, source.seek(0, 2) - size))
    end = source.read()
    source.seek(position)
    return end


def _libraries() -> tuple[Any, Any]:
    with package_for("reading recordings", "'paddle-ranker[sound]'"):
        import soundfile
        import soxr
    return soundfile, soxr
