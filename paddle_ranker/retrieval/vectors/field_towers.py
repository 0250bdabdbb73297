"""Fields of files: the checks of files, and the towers that make the vectors of files and of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional, Union

import numpy as np

from paddle_ranker.array_types import Array, Vectors
from paddle_ranker.data.files.file_readers import FilePiece
from paddle_ranker.data.files.pictures import ImageError, decoded, opened_picture, picture_format
from paddle_ranker.data.recordings.audio import StretchReader
from paddle_ranker.data.recordings.film import FrameReader, is_film, sampled_frames
from paddle_ranker.encoding.columns import PICTURE, SOUND, TEXT
from paddle_ranker.errors import UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.retrieval.vectors.text_vectors import Tower, mean_vector
from paddle_ranker.retrieval.work.turns import check

_LONGEST_EXAMPLE = 600.0  # seconds of a sound that is searched by
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif",
             "AVIF": "avif", "HEIF": "heic"}  # fmt: skip


def suffix_of(data: bytes) -> str:
    """Return the suffix of a picture's format by its header, without decoding the picture.

    Raises `ValueError` if `data` is no picture, or one that is cut short or too large.
    """
    with _refused():
        return _SUFFIXES[picture_format(data)]


def check_picture(data: bytes) -> None:
    """Decode a picture; raises `ValueError` if it is damaged."""
    with _refused(), decoded(data):
        pass


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ValueError(error.message.removeprefix("the image: ")) from error


class FileTower:
    """Tower of a field of files. Thread-safe.

    Args:
        tower: computes vectors of files, and of queries if it reads texts.
        reads: type of the files that the tower reads, `PICTURE` or `SOUND`, see `TowerInfo`.
    """

    def __init__(self, tower: Tower, reads: str):
        self._tower, self._reads = tower, reads
        self._stretches = StretchReader(tower.sound_rate) if reads == SOUND else None

    @classmethod
    def open(cls, folder: Path, options: LoadOptions, batch_size: int, reads: str) -> FileTower:
        """Open a folder, as `Tower.open` does; raises `UsageError` for a tower that does not read the files."""
        tower = Tower.open(folder, options, batch_size, for_search=True)
        if reads not in tower.reads:
            what = " and ".join(f"{read}s" for read in sorted(tower.reads))
            remedy = "a CLIP, or train one" if reads == PICTURE else "a wav2vec2 or a hubert"
            raise UsageError(f"{folder}: a tower of {what}, and the field has {reads}s; take {remedy}")
        return cls(tower, reads)

    def vectors(self, files: Sequence[Union[bytes, FilePiece]]) -> Vectors:
        """Return the vectors of files, or of pieces of recordings, `[n, size]`."""
        if self._stretches is None:
            return self._tower.encode_pictures([file for file in files if isinstance(file, bytes)])
        sounds = [self._stretches.read(*file) if isinstance(file, FilePiece) else file for file in files]
        # The reader counts the end that is missing. A whole file is an example.
        return self._tower.encode_sounds(sounds, takes_incomplete=True, most_seconds=_LONGEST_EXAMPLE)

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        """Return the vectors of texts, `[n, size]`; raises `UsageError` if the tower reads no texts."""
        if TEXT not in self._tower.reads:
            raise UsageError(f"the tower reads {self._reads}s, and texts were given: take one that reads texts, too")
        return self._tower.query_vectors(queries)

    def query_read(self, query: str) -> Optional[int]:
        """Return how many code points of a query are read, from its start; None if all are."""
        return self._tower.query_read(query)


class FilmTower(FileTower):
    """Tower of a field of films: a tower of pictures, which reads their frames. Thread-safe."""

    def __init__(self, tower: Tower, reads: str):
        super().__init__(tower, reads)
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

        vectors = self._tower.encode_frames(frames())
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
