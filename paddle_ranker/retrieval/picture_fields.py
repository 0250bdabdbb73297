"""Fields of pictures: the check of a file, and the tower that makes the vectors of pictures and of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_ranker.array_types import Vectors
from paddle_ranker.errors import UsageError
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.tower import PICTURE, TEXT
from paddle_ranker.retrieval.text_vectors import Tower

_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}


def suffix_of(data: bytes) -> str:
    """Decode a picture and return its format's suffix.

    Raises `ValueError` if it is no picture, damaged or too large.
    """
    from paddle_ranker.data.pictures import ImageError, decoded

    try:
        with decoded(data) as (image, _):
            return _SUFFIXES[str(image.format)]
    except ImageError as error:
        raise ValueError(error.message.removeprefix("the image: ")) from error


class PictureTower:
    """Tower of a field of pictures. Thread-safe.

    Args:
        tower: computes vectors of pictures, and of queries if it has a network for texts.
    """

    def __init__(self, tower: Tower):
        self._tower = tower

    @classmethod
    def open(cls, folder: Path, options: LoadOptions, batch_size: int) -> PictureTower:
        """Open a folder, as `Tower.open` does; raises `UsageError` for a tower that reads only texts."""
        tower = Tower.open(folder, options, batch_size, for_search=True)
        if PICTURE not in tower.reads:
            raise UsageError(f"{folder}: a tower of texts, and the field has pictures; take a CLIP, or train one")
        return cls(tower)

    def vectors(self, pictures: Sequence[bytes]) -> Vectors:
        """Return the vectors of pictures, each the bytes of a file, `[n, size]`."""
        return self._tower.encode_pictures(pictures)

    def query_vectors(self, queries: Sequence[str]) -> Vectors:
        """Return the vectors of texts, `[n, size]`; raises `UsageError` if the tower reads only pictures."""
        if TEXT not in self._tower.reads:
            raise UsageError("the tower reads pictures, and texts were given: take a CLIP, or train one with texts")
        return self._tower.query_vectors(queries)
