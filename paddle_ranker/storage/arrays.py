"""Arrays in files: memory-mapped and read a few values at a time, or written part by part."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"\x93NUMPY\x01\x00"  # of the `.npy` format 1.0
HEADER = 128  # bytes of `npy_header`; NumPy's own header has this length for small shapes, too
_GAP = 16  # maximum unneeded values to read along, which saves a system call


def map_array(file: IO[bytes], dtype: np.dtype) -> np.memmap:
    """Map an open, non-empty file into memory as a read-only array [n] of `dtype`.

    Indexing the array may read two megabytes around a value into memory, since Linux maps large pages of its cache;
    `gather` reads less.
    """
    array = np.memmap(file, dtype=dtype, mode="r")
    descriptor = os.dup(file.fileno())
    weakref.finalize(array, os.close, descriptor)
    array.descriptor = descriptor  # type: ignore[attr-defined]  # views of the array lack this attribute
    return array


def gather(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return `array[indices]` for `indices` >= 0; from a mapped file, only the values and small gaps are read."""
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


def npy_header(kind: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """Return the header of a `.npy` file (format 1.0) of an array, padded to `HEADER` bytes."""
    text = f"{{'descr': {kind.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    length = HEADER - len(_MAGIC) - 2
    return _MAGIC + length.to_bytes(2, "little") + text.ljust(length - 1).encode("latin1") + b"\n"


class ArrayFile:
    """A `.npy` file that grows: `append` writes rows, and `finish` writes the header and closes it.

    path: the file
    dtype: the type of the values
    row: the shape of each row; () if a row is a single value
    """

    def __init__(self, path: Path, dtype: str, row: tuple[int, ...] = ()):
        self.path, self.kind, self.row, self.rows = path, np.dtype(dtype), row, 0
        self._stream = path.open("wb")
        self._stream.write(b"\0" * HEADER)

    def append(self, array: NDArray[np.generic]) -> None:
        """Write rows, an array `[n, *row]`; raises `ValueError` for another shape or dtype than the file's."""
        if array.shape[1:] != self.row or array.dtype != self.kind:
            raise ValueError(f"{self.path}: {array.dtype} {list(array.shape)} after rows of {self.kind} {self.row}")
        self._stream.write(np.ascontiguousarray(array).data)
        self.rows += len(array)

    def finish(self) -> None:
        self._stream.seek(0)
        self._stream.write(npy_header(self.kind, (self.rows, *self.row)))
        self._stream.close()
