"""A kind of content of a plugin: sounds. A tower in NumPy makes vectors of WAV files and of words such as "deep"."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.array_types import Vectors
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES, file_type

RATE = 8000


class SoundTower:
    """Maps a sound to the energy in some bands of frequencies, and a word to the band that it names."""

    def __init__(self, bands: dict[str, list[int]]):
        self._bands = bands

    @classmethod
    def open(cls, folder: Path, options: LoadOptions, batch_size: int) -> SoundTower:
        return cls(json.loads((folder / "bands.json").read_text(encoding="utf-8")))

    def vectors(self, sounds: Sequence[bytes]) -> Vectors:
        found = np.zeros((len(sounds), len(self._bands)), np.float32)
        for row, sound in enumerate(sounds):
            with wave.open(io.BytesIO(sound)) as stream:
                samples = np.frombuffer(stream.readframes(stream.getnframes()), np.int16)
            energy = np.abs(np.fft.rfft(samples)) ** 2
            frequency = np.fft.rfftfreq(len(samples), 1 / RATE)
            for column, (low, high) in enumerate(self._bands.values()):
                found[row, column] = energy[(low <= frequency) & (frequency < high)].sum()
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        return np.array([[float(name in query) for name in self._bands] for query in queries], np.float32)

    def query_read(self, query: str) -> Optional[int]:
        return None  # a query of any length is read


def suffix_of(sound: bytes) -> str:
    try:
        wave.open(io.BytesIO(sound)).close()
    except (wave.Error, EOFError) as error:
        raise ValueError(f"no sound: {error}") from error
    return "wav"


FIELD_TYPES.add("sound", file_type("a sound (WAV)", {"wav": "audio/wav"}, suffix_of, SoundTower.open))
