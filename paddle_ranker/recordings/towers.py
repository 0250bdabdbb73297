"""Towers of fields of recordings and films: vectors of sounds, and of films' frames.

encode_sounds(Tower.open("wav2vec2-base"), ["prompt.wav"])    # [1, 768]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Union

import numpy as np

from paddle_ranker.array_types import Array, Integers, Vectors
from paddle_ranker.data.files.file_readers import FilePiece
from paddle_ranker.data.files.pictures import Source, opened_picture
from paddle_ranker.encoding.columns import PICTURE, FileEncoder
from paddle_ranker.recordings.audio import StretchReader
from paddle_ranker.recordings.film import FrameReader, is_film, sampled_frames
from paddle_ranker.recordings.sound_encoder import SOUND, SoundEncoder
from paddle_ranker.retrieval.vectors.field_towers import FileTower
from paddle_ranker.retrieval.vectors.text_vectors import Tower, mean_vector
from paddle_ranker.retrieval.work.turns import check, checked, long_step

_LONGEST_EXAMPLE = 600.0  # seconds of a sound that is searched by


def encode_sounds(
    tower: Tower,
    sounds: Sequence[Union[Source, Array]],
    takes_incomplete: bool = False,
    most_seconds: float = math.inf,
) -> Vectors:
    """Return the vectors of sounds, `[n, size]`, for searches by a sound or among sounds.

    sounds: paths, files' bytes, or samples `[samples]` at the tower's rate. A sound of more than half a minute is
        read in pieces; its vector is the mean of the pieces' vectors, scaled to their mean length
    takes_incomplete: whether to accept a file whose end is missing, and read the part that is there
    most_seconds: maximum length of a sound

    Raises `DataError` for data that is no sound, or for a longer one, `UsageError` if the tower reads no sounds.
    """
    tower, vectors = tower.reading(SOUND), list[Vectors]()
    assert isinstance(tower.encoder, SoundEncoder)
    for number, sound in enumerate(sounds):
        name = str(sound) if isinstance(sound, (str, Path)) else f"sound {number}"
        read = tower.encoder.pieces(sound, name, takes_incomplete=takes_incomplete, most_seconds=most_seconds)
        pieces = list[tuple[Vectors, Integers]]()
        for piece in checked(read):
            with long_step():
                pieces.append((tower.compute(piece), piece.lengths))
        vectors.append(mean_vector(*(np.concatenate(parts) for parts in zip(*pieces))))
    return np.concatenate(vectors) if vectors else tower.compute(tower.encoder.encode([]))


class SoundTower(FileTower):
    """Tower of a field of recordings. Thread-safe."""

    reads, remedy = SOUND, "a wav2vec2 or a hubert"

    def __init__(self, tower: Tower):
        super().__init__(tower)
        encoder = tower.reading(SOUND).encoder
        assert isinstance(encoder, SoundEncoder)
        self._stretches = StretchReader(encoder.rate)

    def vectors(self, files: Sequence[Union[bytes, FilePiece]]) -> Vectors:
        """Return the vectors of recordings, or of pieces of them, `[n, size]`."""
        sounds = [self._stretches.read(*file) if isinstance(file, FilePiece) else file for file in files]
        # The reader counts the end that is missing. A whole file is an example.
        return encode_sounds(self._tower, sounds, takes_incomplete=True, most_seconds=_LONGEST_EXAMPLE)


class FilmTower(FileTower):
    """Tower of a field of films: a tower of pictures, which reads their frames. Thread-safe."""

    def __init__(self, tower: Tower):
        super().__init__(tower)
        self._frames = FrameReader()

    def vectors(self, files: Sequence[Union[bytes, FilePiece]]) -> Vectors:
        """Return the vectors of pieces of films, of whole films and of pictures, `[n, size]`.

        A piece has the vector of its first frame, a whole film the mean of the vectors of sampled frames.
        """
        owners = list[int]()

        def frames() -> Iterator[Array]:
            for number, file in enumerate(files):
                for frame in self._frames_of(file):
                    check()
                    owners.append(number)
                    yield frame

        tower = self._tower.reading(PICTURE)
        assert isinstance(tower.encoder, FileEncoder)
        vectors = tower.compute(tower.encoder.encode_each(frames()))
        ends = np.cumsum(np.bincount(owners, minlength=len(files)))
        return np.concatenate([mean_vector(frame_vectors) for frame_vectors in np.split(vectors, ends[:-1])])

    def _frames_of(self, file: Union[bytes, FilePiece]) -> Iterator[Array]:
        if isinstance(file, FilePiece):
            yield self._frames.read(file.path, file.start)
        elif is_film(file):
            yield from sampled_frames(file)
        else:
            with opened_picture(file) as image:
                yield np.asarray(image)
