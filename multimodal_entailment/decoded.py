"""Images that are decoded when their batch is computed, then dropped: for predictions, which use each image once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Optional, Union

import numpy as np

from multimodal_entailment.images import ImageError, ImageLimits, load_image

Image = Union[str, Path, bytes]  # a file, or the bytes of a file


class DecodedImages:
    """The images of n pairs of posts: image one of every pair, then image two of every pair.

    Args:
        images: 2n images; None is a missing image.
        size: pixels per side.
        pool: the threads that read and decode.
        limits: the largest image that is decoded.
        places: the name of each image in messages (default: `pair 3, image_1`).
        skip_bad: treat a broken image as missing, and note it in `bad`; if False, it raises `ImageError`.
        before_each: called in the pool before each image; if it raises, no further image is decoded.
    """

    def __init__(
        self,
        images: Sequence[Optional[Image]],
        size: int,
        pool: ThreadPoolExecutor,
        limits: ImageLimits,
        *,
        places: Optional[Sequence[str]] = None,
        skip_bad: bool = False,
        before_each: Optional[Callable[[], None]] = None,
    ):
        self._images, self._size, self._pool, self._limits = images, size, pool, limits
        self._places, self._skip_bad = places, skip_bad
        self._before_each = before_each
        self.bad: list[str] = []

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels `[m, 3, size, size]` uint8 of the images `indices` `[m]`, and which exist, `[m]` bool."""
        pixels = np.zeros((len(indices), 3, self._size, self._size), np.uint8)
        present = np.zeros(len(indices), bool)
        for place, (index, decoded) in enumerate(zip(indices, self._pool.map(self._decode, indices.tolist()))):
            if isinstance(decoded, ImageError):
                error = decoded.at(self._place(int(index)))
                if not self._skip_bad:
                    raise error
                self.bad.append(str(error))
            elif decoded is not None:
                pixels[place], present[place] = decoded, True
        return pixels, present

    def _decode(self, index: int) -> Union[np.ndarray, ImageError, None]:
        image = self._images[index]
        if image is None:
            return None
        if self._before_each is not None:
            self._before_each()
        try:
            return load_image(image, self._size, self._limits).transpose(2, 0, 1)
        except ImageError as error:
            return error

    def _place(self, index: int) -> str:
        if self._places is not None:
            return self._places[index]
        second, pair = divmod(index, len(self._images) // 2)
        return f"pair {pair + 1}, image_{second + 1}"
