"""Pairs of posts that wait for their batch: tokens and pixels, all in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding.columns import EncodedPairs, Indices


@dataclass(frozen=True)
class EncodedPosts(EncodedPairs):
    """n pairs of posts. Where texts are not looked at, each pair's are one token, which nobody reads.

    images: `[n, 2, 3, size, size]` uint8, 0 where an image is missing; None: images are not looked at
    present: `[n, 2]` bool, whether there is an image
    """

    images: Optional[NDArray[np.uint8]]
    present: Optional[NDArray[np.bool_]]

    @classmethod
    def of(
        cls, texts: EncodedPairs, images: Optional[NDArray[np.uint8]], present: Optional[NDArray[np.bool_]]
    ) -> EncodedPosts:
        """Put images beside texts."""
        return cls(texts.ids, texts.offsets, texts.second_starts, images, present)

    def take(self, indices: Indices) -> EncodedPosts:
        """Return the pairs at `indices` [m], in that order."""
        rows = np.asarray(indices, dtype=np.int64)
        images = None if self.images is None else self.images[rows]
        present = None if self.present is None else self.present[rows]
        return self.of(super().take(rows), images, present)

    @classmethod
    def concat(cls, parts: Sequence[EncodedPairs]) -> EncodedPosts:
        """Join `parts`, of which all have images or none has."""
        posts = [part for part in parts if isinstance(part, EncodedPosts)]
        images = [part.images for part in posts if part.images is not None]
        present = [part.present for part in posts if part.present is not None]
        return cls.of(
            EncodedPairs.concat(parts),
            np.concatenate(images) if images else None,
            np.concatenate(present) if present else None,
        )


def unread_texts(count: int) -> EncodedPairs:
    """Return what stands for the texts of `count` pairs where nobody looks at them."""
    return EncodedPairs(np.zeros(count, np.int32), np.arange(count + 1, dtype=np.int64), np.zeros(count, np.int32))
