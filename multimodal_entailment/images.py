"""Decode an image of any common kind into a square of pixels.

The picture is not cropped: it is scaled to fit the square, and white fills the rest. The label of a pair of posts can
depend on something at a picture's edge.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from paddle_ranker.data.files.pictures import DecodedBytes as DecodedBytes
from paddle_ranker.data.files.pictures import ImageError as ImageError
from paddle_ranker.data.files.pictures import ImageLimits, Source, decoded, min_is_white_in, rgb, upright
from paddle_ranker.data.files.pictures import ImageTooLargeError as ImageTooLargeError
from paddle_ranker.data.files.pictures import read_image as read_image

_BAND_BYTES = 1024 * 1024  # size of the rows that are converted and reduced at a time
_WHITE = (255, 255, 255)
_DEFAULT_LIMITS = ImageLimits()


def load_image(source: Source, size: int, limits: ImageLimits = _DEFAULT_LIMITS) -> np.ndarray:
    """Return an image, a file or its bytes, as RGB pixels `[size, size, 3] uint8`.

    EXIF's orientation is applied, and transparency becomes white. Only an animation's first frame is read, and only the
    upper 8 bits of 16-bit pixels.

    Waits and raises as `paddle_ranker.data.files.pictures.decoded` does.
    """
    with decoded(source, limits, size) as (image, name):
        return _squared(upright(_scaled(image, name, size), image), size)


def _scaled(image: Image.Image, name: str, size: int) -> Image.Image:
    """Return an image in RGB whose longer side is `size`.

    The result equals Pillow's `resize(..., reducing_gap=2.0)` of the image in RGB. To save memory, bands of rows are
    converted and reduced, so the image in RGB never exists as a whole.
    """
    (width, height), longest = image.size, max(image.size)
    small = max(1, round(width * size / longest)), max(1, round(height * size / longest))
    by_x, by_y = max(1, int(width / small[0] / 2.0)), max(1, int(height / small[1] / 2.0))
    min_is_white = min_is_white_in(image)
    reduced = Image.new("RGB", (-(-width // by_x), -(-height // by_y)))
    rows = by_y * max(1, _BAND_BYTES // (4 * width * by_y))
    for top in range(0, height, rows):
        band = rgb(image.crop((0, top, width, min(top + rows, height))), name, min_is_white=min_is_white)
        reduced.paste(band.reduce((by_x, by_y)), (0, top // by_y))
    return reduced.resize(small, Image.Resampling.BICUBIC, box=(0, 0, width / by_x, height / by_y))


def _squared(image: Image.Image, size: int) -> np.ndarray:
    square = Image.new("RGB", (size, size), _WHITE)
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return np.array(square)
