"""Read the words of scans and other pictures, and the box of each word, by rapidocr: PP-OCR without Paddle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from paddle_ranker.data.page_text import Box, Line, around, page_text
from paddle_ranker.data.pictures import ImageError, ImageLimits, decoded, rgb, upright
from paddle_ranker.data.readers import Part, Unread
from paddle_ranker.errors import DataError, DependencyError

if TYPE_CHECKING:
    from PIL import Image

_VERSION = 1  # of what this module makes of a picture


def read(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield the words of a picture, as `Reader.read` says; the pages of a TIFF are parts."""
    engine = _engine()
    try:
        with decoded(path) as (picture, name):
            pages = getattr(picture, "n_frames", 1)
            for number in range(1, pages + 1 if picture.format == "TIFF" else 2):
                pass
    except ImageError as error:
        raise DataError(str(error)) from error


def version() -> str:
    """Return what the words of a picture depend on; the same as long as no OCR is installed."""
    with suppress(metadata.PackageNotFoundError):
        return f"{_VERSION}, rapidocr {metadata.version('rapidocr')}"
    return "no OCR"
