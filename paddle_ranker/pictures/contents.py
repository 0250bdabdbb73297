"""The type of fields of pictures; importing this module registers it, and needs no Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paddle_ranker.retrieval.stored.schema import A_PIXEL, FIELD_TYPES, PICTURE_TYPES, file_type, open_picture_tower

# By Pillow's names of formats. MPO: several JPEGs, of which the first is the picture.
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif",
             "AVIF": "avif", "HEIF": "heic"}  # fmt: skip


def _suffix_of(data: bytes) -> str:
    """Return the suffix of a picture's format by its header, without decoding the picture.

    Raises `ValueError` if `data` is no picture, or one that is cut short or too large.
    """
    from paddle_ranker.data.files.pictures import picture_format

    with _refused():
        return _SUFFIXES[picture_format(data)]


def _check(data: bytes) -> None:
    """Decode a picture; raises `ValueError` if it is damaged."""
    from paddle_ranker.data.files.pictures import decoded

    with _refused(), decoded(data):
        pass


@contextmanager
def _refused() -> Iterator[None]:
    from paddle_ranker.data.files.pictures import ImageError

    try:
        yield
    except ImageError as error:
        raise ValueError(error.message.removeprefix("the image: ")) from error


def _frames_not_read(path: Path) -> str:
    from paddle_ranker.data.files.pictures import frame_count

    count = frame_count(path)
    return f"only the first of its {count:,} frames or pages is read" if count > 1 else ""


FIELD_TYPES.add(
    "picture",
    file_type(
        "a picture (JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF)",
        PICTURE_TYPES,
        _suffix_of,
        open_picture_tower,
        A_PIXEL,
        not_read=_frames_not_read,
        check=_check,
    ),
)
