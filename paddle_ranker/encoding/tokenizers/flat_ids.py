"""Ids of many texts in two arrays, the form in which every backend returns them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Ids of all texts, one after another, [total] int32; tokens of each text, [n] int64.
FlatIds = tuple[NDArray[np.int32], NDArray[np.int64]]


def flatten(rows: Sequence[Sequence[int]]) -> FlatIds:
    """Join the ids of each text."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    flat = np.fromiter((i for row in rows for i in row), dtype=np.int32, count=int(lengths.sum()))
    return flat, lengths
