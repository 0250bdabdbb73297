"""Arrays in memory-mapped files, read a few values at a time without keeping the file in memory."""

from __future__ import annotations

import os
import weakref
from typing import IO

import numpy as np

_GAP = 16  # maximum unneeded values to read along, which saves a system call


def map_file(file: IO[bytes], dtype: np.dtype) -> np.memmap:
    """Map an open, non-empty file as a read-only array [n] of `dtype`.

    Reading a value directly can map two megabytes around it into the process's memory (Linux maps large pages of its
    cache), so use `gather`, which reads the file.
    """
    array = np.memmap(file, dtype=dtype, mode="r")
    descriptor = os.dup(file.fileno())
    weakref.finalize(array, os.close, descriptor)
    array.descriptor = descriptor  # type: ignore[attr-defined]  # views of the array lack this attribute
    return array


def gather(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return `array[indices]` for non-negative indices; reads only nearby values of a file from `map_file`."""
    descriptor = getattr(array, "descriptor", None)
    if descriptor is None:
        return array[indices]
    if not indices.size:
        return np.empty(indices.shape, array.dtype)
    # Read neighbouring indices, such as a pair's tokens, at once, with small gaps between them.
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
