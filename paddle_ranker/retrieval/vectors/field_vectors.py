"""Vectors of a segment's documents in a vector field, one per document or one per passage."""

from __future__ import annotations

from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans, Integers
from paddle_ranker.retrieval.vectors.exact_search import StoredVectors
from paddle_ranker.retrieval.vectors.faiss_index import FaissSegment

Passages = NDArray[np.int32]  # `[passages, 3]`: row of the document, ascending; start and end, 0 and 0 for all its text


class FieldVectors:
    """Vectors of some documents in a vector field.

    Args:
        count: number of documents.
        stored: the vectors.
        passages: row of the document, start and end of each vector's passage, `[vectors, 3] int32`; None if each
            document has one vector.

    Attributes:
        index: approximate index of the vectors, set by `Segment.open_index`; None: every vector is compared.
    """

    def __init__(self, count: int, stored: StoredVectors, passages: Optional[Passages] = None):
        self.count, self.stored, self.passages = count, stored, passages
        self.index: Optional[FaissSegment] = None

    def __len__(self) -> int:
        """Return how many vectors there must be: one per passage, or one per document if there are no passages."""
        return self.count if self.passages is None else len(self.passages)

    def rows(self, row: int) -> Integers:
        """Return the row numbers, in `stored`, of the vectors of the document at `row`."""
        if self.passages is None:
            return np.array([row])
        first, after = np.searchsorted(self.passages[:, 0], [row, row + 1]).tolist()
        return np.arange(first, after)

    def of(self, mask: Booleans) -> Booleans:
        """Turn a mask of documents into a mask of their vectors, `[vectors] bool`."""
        return mask if self.passages is None else mask[self.passages[:, 0]]
