"""Pairs of posts in columns: encoded texts, and images that are in memory or are decoded for each batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Protocol, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding.columns import Columns, EncodedPairs, Indices
from paddle_ranker.encoding.pair_encoder import PairEncoder


@dataclass(frozen=True)
class PostEncoder:
    """Encoder of pairs of posts as columns.

    texts: encodes the two texts; None for models without texts
    image_size: the size that images are scaled to, in pixels per side; None for models without images
    """

    texts: Optional[PairEncoder]
    image_size: Optional[int]

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Write the tokenizer's files, if there is a tokenizer, into `folder`."""
        if self.texts is not None:
            self.texts.save(folder)


class Images(Protocol):
    """A list of images; several entries may hold the same image, or none."""

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the images at `indices` `[m]`, and whether each entry has an image, `[m]` bool.

        Pixels are uint8 `[m, 3, size, size]`; features of a frozen encoder are float32 `[m, regions, width]`.
        """
        ...


@dataclass(frozen=True)
class HeldImages:
    """Images in memory: `pixels` `[m, 3, size, size]` uint8, 0 for a missing image; `present` `[m]` bool."""

    pixels: np.ndarray
    present: np.ndarray

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.pixels[indices], self.present[indices]


@dataclass(frozen=True)
class _Chosen:
    """A sublist of a list of images: the entries at `indices`."""

    images: Images
    indices: np.ndarray

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.images.take(self.indices[indices])


@dataclass(frozen=True)
class Posts(Columns):
    """Pairs of posts.

    count: the number of pairs
    texts: encoded pairs of texts; None: the model takes no texts
    images: 2 x count entries: image one of every pair, then image two of every pair; None: the model takes no images
    """

    count: int
    texts: Optional[EncodedPairs]
    images: Optional[Images]

    def __len__(self) -> int:
        return self.count

    def lengths_of(self, indices: Indices) -> NDArray[np.int64]:
        """Return the token count of each pair in `indices`, `[m]`; 1 without texts."""
        return np.ones(len(indices), np.int64) if self.texts is None else self.texts.lengths_of(indices)

    def take(self, indices: Indices) -> Posts:
        rows = np.asarray(indices, dtype=np.int64)
        texts = None if self.texts is None else self.texts.take(rows)
        images = None if self.images is None else _Chosen(self.images, self._places(rows))
        return Posts(len(rows), texts, images)

    @classmethod
    def concat(cls, parts: Sequence[Posts]) -> Posts:
        """Join `parts`, all with images or all without; the images are loaded into memory."""
        texts = [part.texts for part in parts if part.texts is not None]
        held = [part.held() for part in parts]
        images = None
        if held[0].images is not None:
            taken = [part.images.take(np.arange(2 * len(part))) for part in held if part.images is not None]
            pixels, present = (_first_then_second([pair[side] for pair in taken]) for side in (0, 1))
            images = HeldImages(pixels, present)
        return cls(sum(map(len, parts)), EncodedPairs.concat(texts) if texts else None, images)

    def held(self) -> Posts:
        """Return the pairs with their images in memory; raises `ImageError` for a broken image."""
        if self.images is None or isinstance(self.images, HeldImages):
            return self
        return Posts(self.count, self.texts, HeldImages(*self.images.take(np.arange(2 * self.count))))

    def pad(self, indices: Indices) -> Arrays:
        """Return the model's inputs (`kind.signature_of`) for the pairs `indices` `[batch]`.

        If the images are a frozen encoder's features, `image_1` and `image_2` are float32 `[batch, regions, width]`.
        """
        rows = np.asarray(indices, dtype=np.int64)
        arrays: Arrays = {} if self.texts is None else self.texts.pad(rows)
        if self.images is not None:
            images, is_there = self.images.take(self._places(rows))
            arrays["image_1"], arrays["image_2"] = images[: len(rows)], images[len(rows) :]
            arrays["present"] = is_there.reshape(2, -1).T.astype(np.float32)
        return arrays

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([rows, rows + self.count])


def _first_then_second(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Join arrays `[2 n, ...]`, each with first images before second images, into an array in the same order."""
    halves = [(part[: len(part) // 2], part[len(part) // 2 :]) for part in parts]
    return np.concatenate([*(first for first, _ in halves), *(second for _, second in halves)])
