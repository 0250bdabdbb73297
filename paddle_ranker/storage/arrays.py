"""Arrays in memory-mapped files: read a few values at a time without keeping the file in memory."""

from __future__ import annotations

import os
import weakref
from typing import IO

import numpy as np

_GAP = 16  # unneeded values up to this many are read along, to save a system call


def map_file(file: IO[bytes], dtype: np.dtype) -> np.memmap:
    """Map an open, non-empty file as a read-only array [n] of `dtype`.

    The array works like any other. But reading a value of a memory-mapped file can bring two megabytes around it into
    the process's memory (Linux maps as much as its cache holds in one piece), so use `gather`, which reads the file.
    """
    array = np.memmap(file, dtype=dtype, mode="r")
    descriptor = os.dup(file.fileno())
    weakref.finalize(array, os.close, descriptor)
    array.descriptor = descriptor  # type: ignore[attr-defined]  # views of the array lack this attribute
    return array


def gather(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return `array[indices]` for non-negative indices; of a mapped file (`map_file`) only values nearby are read."""
    descriptor = getattr(array, "descriptor", None)
    if descriptor is None:
        return array[indices]
    if not indices.size:
        return np.empty(indices.shape, array.dtype)
    # Neighbouring indices, such as those of a pair's tokens, are read at once, together with small gaps between them.
    places, size = indices.reshape(-1), array.itemsize
    steps = np.diff(places)
    starts = np.append(0, np.flatnonzero((steps < 0) | (steps > _GAP)) + 1)
    firsts, counts = places[starts], places[np.append(starts[1:] - 1, -1)] - places[starts] + 1
    ends = np.cumsum(counts)
    values = np.empty(ends[-1], array.dtype)
    into = memoryview(values.view(np.uint8).data)
    for first, count, end in zip(firsts.tolist(), counts.tolist(), ends.tolist()):
        wanted = into[(end - count) * size : end * size]
        if os.preadv(descriptor, [wanted], first * size) != len(wanted):
            raise IndexError(f"index {first + count - 1} of {len(array)} values in a file")
    shifts = np.repeat(ends - counts - firsts, np.diff(np.append(starts, len(places))))
    gathered: np.ndarray = values[places + shifts].reshape(indices.shape)
    return gathered
