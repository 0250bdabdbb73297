"""Tests of the reading of recordings: formats, channels and rates, bounded memory, and what is refused."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

import numpy as np
import pytest

from paddle_ranker.array_types import Array, Vectors
from paddle_ranker.errors import DataError
from paddle_ranker.recordings import audio
from paddle_ranker.recordings.audio import RATE, IncompleteRecordingError, StretchReader, read_recording
from tests.checkout import ONCE

soundfile = pytest.importorskip("soundfile", reason="pip install 'paddle-ranker[sound]'")
pytest.importorskip("soxr", reason="pip install 'paddle-ranker[sound]'")
pytestmark = pytest.mark.unit

SECONDS = 3.0


def tone(rate: int, hertz: float = 440.0, seconds: float = SECONDS) -> Vectors:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encode(samples: Array, rate: int = RATE, format: str = "WAV", subtype: Optional[str] = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=format, subtype=subtype)
    return stream.getvalue()


def read_all(data: bytes) -> Vectors:
    return np.concatenate(list(read_recording(io.BytesIO(data))))


@pytest.mark.parametrize(
    "format, subtype, tolerance",
    [("WAV", "PCM_16", 1e-4), ("WAV", "PCM_24", 1e-4), ("WAV", "FLOAT", 1e-6), ("WAV", "ULAW", 0.02),
     ("FLAC", None, 1e-4), ("OGG", "VORBIS", 0.03), ("OGG", "OPUS", 0.03), ("MP3", None, 0.03)],
)  # fmt: skip
def test_each_format_has_the_samples_that_were_written(format: str, subtype: Optional[str], tolerance: float) -> None:
    samples = read_all(encode(tone(RATE), format=format, subtype=subtype))
    inside = slice(RATE // 2, -RATE // 2)  # compression may change the edges
    assert samples.dtype == np.float32 and 0 <= len(samples) - SECONDS * RATE <= 128  # a block of Vorbis may be longer
    np.testing.assert_allclose(samples[: len(tone(RATE))][inside], tone(RATE)[inside], atol=tolerance)


@ONCE
@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 100])
def test_rates_are_resampled_and_channels_mixed(rate: int, channels: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (channels, 1)).astype(np.float32)
    shares = 1 + noise - noise.mean()  # of mean 1: the mix is the tone
    samples = read_all(encode((shares * tone(rate)).T, rate, subtype="FLOAT"))
    inside = slice(RATE // 10, -RATE // 10)
    assert len(samples) == SECONDS * RATE
    np.testing.assert_allclose(samples[inside], tone(RATE)[inside], atol=2e-3)


def test_what_16_khz_cannot_hold_is_filtered_and_not_folded() -> None:
    assert np.abs(read_all(encode(tone(48_000, hertz=15_000.0), 48_000))[RATE:-RATE]).max() < 1e-3


def test_a_long_recording_is_read_block_by_block() -> None:
    data = io.BytesIO(encode(np.zeros((200_000, 10), np.int16), 8_000))
    blocks = [len(block) for block in read_recording(data)]
    assert sum(blocks) == 400_000 and max(blocks) <= 2 * audio._BLOCK // 10 + RATE and len(blocks) > 10


def with_field(data: bytes, position: int, value: int) -> bytes:
    return data[:position] + struct.pack("<I", value) + data[position + 4 :]


WHOLE = encode(tone(RATE))
NAN = tone(RATE)
NAN[RATE] = np.nan
REFUSED = {
    "no bytes": (b"", "is no recording"),
    "text": (b"hello world " * 99, "is no recording"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(999), "is no recording"),
    "M4A": (b"\0\0\0\x20ftypM4A " + bytes(999), "is no recording"),
    "a header's half": (WHOLE[:30], "is no recording"),
    "another format": (encode(tone(RATE), format="AIFF"), "ffmpeg converts others"),
    "no samples": (encode(tone(RATE)[:0]), "has no samples"),
    "no rate": (with_field(WHOLE, 24, 0), "is no recording"),
    "a rate of 3 GHz": (with_field(WHOLE, 24, 3_000_000_000), "is no recording"),
    "NaN": (encode(NAN, subtype="FLOAT"), "second 1.00 that is no number"),
    "infinity": (encode(NAN * 0 + np.float32(np.inf), subtype="FLOAT"), "second 0.00 that is no number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sound_recording_is_refused(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(DataError, match=message) as error:
        list(read_recording(io.BytesIO(data)))
    assert not isinstance(error.value, IncompleteRecordingError)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def hole(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(2000) + data[len(data) // 2 + 2000 :]


@pytest.mark.parametrize(
    "format, subtype, damage",
    [("WAV", "PCM_16", half), ("WAV", "IMA_ADPCM", half), ("RF64", None, half),
     ("FLAC", None, half), ("FLAC", None, hole), ("OGG", "VORBIS", half), ("OGG", "OPUS", half),
     ("MP3", None, half), ("MP3", None, hole)],
)  # fmt: skip
def test_what_is_around_a_damage_is_read_and_the_damage_is_said(
    format: str, subtype: Optional[str], damage: Callable[[bytes], bytes]
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 30 * RATE)
    seconds = 0.0
    with pytest.raises(IncompleteRecordingError, match=r"^from second [12][3459][\d.]+ on it is (missing|damaged)"):
        for block in read_recording(io.BytesIO(damage(encode(noise, format=format, subtype=subtype)))):
            seconds += len(block) / RATE
    assert 0 < seconds < 30 if damage is half else 29 < seconds <= 30  # what follows a hole is read, too


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_file_that_was_written_to_a_pipe_is_whole(size: int) -> None:
    assert len(read_all(with_field(with_field(WHOLE, 4, size), 40, size))) == SECONDS * RATE


def test_a_path_is_read_like_a_stream(tmp_path: Path) -> None:
    (tmp_path / "a.ogg").write_bytes(encode(tone(RATE), format="OGG"))
    blocks: Iterator[Vectors] = read_recording(tmp_path / "a.ogg")
    np.testing.assert_array_equal(np.concatenate(list(blocks)), read_all((tmp_path / "a.ogg").read_bytes()))


def test_stretches_are_those_of_the_whole_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_BLOCK", 5_000)
    opened = list[Path]()
    read = audio.read_recording

    def counting(path: Path, rate: int) -> Iterator[Vectors]:
        opened.append(path)
        return read(path, rate)

    monkeypatch.setattr(audio, "read_recording", counting)
    whole = np.random.default_rng(0).uniform(-0.5, 0.5, 4 * RATE).astype(np.float32)
    path, cut = tmp_path / "whole.wav", tmp_path / "cut.wav"
    path.write_bytes(encode(whole, subtype="FLOAT"))
    cut.write_bytes(path.read_bytes()[: -4 * RATE])
    reader = StretchReader(RATE)
    for start, end, openings in ((0, 1.5, 1), (1.5, 2, 1), (1.7, 3.2, 1), (3.9, 9, 1), (5, 6, 1), (0.5, 1, 2)):
        np.testing.assert_array_equal(reader.read(path, start, end), whole[int(start * RATE) : int(end * RATE)])
        assert len(opened) == openings
    np.testing.assert_array_equal(reader.read(cut, 2.5, 4), whole[int(2.5 * RATE) : 3 * RATE])
    assert len(reader.read(cut, 3.5, 4)) == 0


@pytest.mark.parametrize("format, subtype", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_joined_files_are_read_to_their_end(format: str, subtype: Optional[str]) -> None:
    part = encode(tone(RATE), format=format, subtype=subtype)
    assert len(read_all(part + part)) / RATE == pytest.approx(2 * SECONDS, abs=0.2)  # with the encoder's delay


def test_a_flac_of_unknown_length_is_read_to_its_end() -> None:
    data = bytearray(encode(tone(RATE), format="FLAC"))
    data[21], data[22:26] = data[21] & 0xF0, bytes(4)
    np.testing.assert_allclose(read_all(bytes(data)), tone(RATE), atol=1e-4)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_channels_that_cancel_each_other_out_are_heard(rate: int) -> None:
    samples = tone(rate)
    mixed = read_all(encode(np.stack([0.9 * samples, -samples], 1), rate, subtype="FLOAT"))[RATE // 2 : -RATE // 2]
    assert np.sqrt(np.square(mixed).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)
