"""Exact search of vectors: compute the product of every query with every vector, and keep the best products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import STORED_TYPES, Array, Booleans, Integers, Vectors
from paddle_ranker.errors import DataError, UsageError
from paddle_ranker.retrieval.work.top_k import NOT_FOUND, BestRows
from paddle_ranker.retrieval.work.turns import check, checked

_CELLS = 1 << 18  # most products, and components of converted vectors, at a time, so that they fit a CPU's cache
_QUERIES = 512  # queries searched for at a time
_FEW = 1024  # up to this many products are computed without blocks, as in segments of few documents
_SPARE = 16  # further candidates, because a matrix product orders equal vectors at random, by rounding errors


@dataclass(frozen=True)
class StoredVectors:
    """Vectors as an index stores them, memory-mapped.

    values: `[n, size]` float32, float16 or int8
    scales: `[n] float32`, the factor of each row of int8 values; None for the other types
    """

    values: NDArray[np.generic]
    scales: Optional[NDArray[np.float32]] = None

    @classmethod
    def of(cls, vectors: Vectors, dtype: str) -> StoredVectors:
        """Convert vectors to `dtype`: float32, float16 or int8; raises `UsageError` for another type.

        For int8, each vector is scaled so that its largest absolute component is 127; a vector of zeros stays so.
        """
        if dtype == "int8":
            scales = (np.abs(vectors).max(axis=1, initial=0.0) / 127.0).astype(np.float32)
            divisors = np.where(scales > 0, scales, 1.0)[:, None]
            return cls(np.rint(vectors / divisors).astype(np.int8), scales)
        if dtype not in STORED_TYPES:
            raise UsageError(f"--dtype {dtype}: choose from {', '.join(STORED_TYPES)}")
        return cls(vectors.astype(dtype))

    def __len__(self) -> int:
        return len(self.values)

    def have_form(self, count: int, size: int, dtype: str) -> bool:
        """Return whether this object has `count` vectors of `size` components, stored as `dtype`."""
        scales = None if self.scales is None else (self.scales.shape, self.scales.dtype.name)
        wanted = ((count,), "float32") if dtype == "int8" else None
        return (self.values.shape, self.values.dtype.name, scales) == ((count, size), dtype, wanted)

    def rows(self, rows: Integers) -> Vectors:
        """Return the vectors at row numbers, `[rows, size]` float32."""
        return _as_floats(self.values[rows], None if self.scales is None else self.scales[rows])

    def block(self, start: int, stop: int) -> Vectors:
        """Return the vectors from `start` up to `stop` as float32; not copied if they are stored as float32."""
        return _as_floats(self.values[start:stop], None if self.scales is None else self.scales[start:stop])


def refuse_unstorable(vectors: Vectors, dtype: str, whose: Callable[[int], str]) -> None:
    """Raise `DataError` if a vector, a row of `vectors`, has a component that is not finite or too large for `dtype`.

    whose: called with the index of a vector; returns its name for the message
    """
    most = float(np.finfo(np.float16 if dtype == "float16" else np.float32).max)
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    bad = np.flatnonzero(~(largest <= most))
    if len(bad):
        component, row = float(largest[bad[0]]), int(bad[0])
        if math.isfinite(component):
            problem = f"its vector holds {component:g}, {dtype} ends at {most:g}"
            raise DataError(f"{whose(row)}: {problem}; take another --dtype")
        raise DataError(f"{whose(row)}: its vector holds numbers that are not finite (NaN or infinity); make it again")


def _as_floats(values: NDArray[np.generic], scales: Optional[NDArray[np.float32]]) -> Vectors:
    floats: Vectors = values.astype(np.float32, copy=False)
    return floats if scales is None else floats * scales[:, None]


@dataclass(frozen=True)
class VectorPart:
    """The vectors of a part of a collection.

    live: which vectors belong to documents that are not removed, `[vectors] bool`; None: all
    first: number of the part's first vector in the collection
    """

    vectors: StoredVectors
    live: Optional[Booleans]
    first: int

    def count(self, mask: Optional[Booleans]) -> int:
        """Return how many vectors a mask allows; None allows all."""
        return len(self.vectors) if mask is None else int(np.count_nonzero(mask))


def products_of(stored: StoredVectors, rows: Integers, queries: Vectors) -> Vectors:
    """Return the inner products of each query with the vectors in its row of `rows`, `[q, n] float32`.

    A product is -inf if the row number is `NOT_FOUND`, or if the product would be NaN. Equal vectors get equal
    products. In a matrix product they may differ, because rows at the end of a block, or of few queries, are summed in
    another order.

    rows: for each query, row numbers in `stored`, or `NOT_FOUND`, `[q, n]`
    queries: `[q, size]`
    """
    products = np.empty(rows.shape, np.float32)
    at_once = max(1, _CELLS // max(1, rows.shape[1] * queries.shape[1]))
    for start in range(0, len(rows), at_once):
        batch = slice(start, start + at_once)
        vectors = stored.rows(rows[batch].reshape(-1)).reshape(*rows[batch].shape, queries.shape[1])
        np.einsum("qnj,qj->qn", vectors, queries[batch], out=products[batch])
    products[(rows == NOT_FOUND) | np.isnan(products)] = -np.inf
    return products


def nearest(
    vectors: Union[Array, StoredVectors], queries: Vectors, k: int, mask: Optional[Booleans] = None
) -> tuple[Integers, Vectors]:
    """Find, for each query, the `k` vectors with the largest products, or all vectors if there are fewer.

    Returns row numbers, `[q, k]` int64, and products (see `products_of`), `[q, k]`, best first; equal products are in
    the order of the vectors. The search takes little longer than the matrix product, and little memory.

    vectors: `[n, size]`, may be a memory-mapped file, of float32, float16 or, as `StoredVectors`, int8
    queries: `[q, size]`
    mask: `[n] bool`, which vectors may be found; None: all
    """
    stored = vectors if isinstance(vectors, StoredVectors) else StoredVectors(vectors)
    most = len(stored) if mask is None else int(np.count_nonzero(mask))
    k = min(k, most)
    check()
    numbers, products = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries) if k else 0, _QUERIES):
        part = np.ascontiguousarray(queries[start : start + _QUERIES], np.float32)
        if most * len(part) <= _FEW:
            candidates = np.tile(np.arange(len(stored)) if mask is None else np.flatnonzero(mask), (len(part), 1))
        else:
            best = BestRows(len(part), min(k + _SPARE, most))
            for rows, block in checked(_blocks(stored, mask, len(part))):
                best.add(rows, part @ block.T)
            candidates = best.result()[0]
        scores = products_of(stored, candidates, part)
        order = np.lexsort((candidates, -scores))[:, :k]
        row = np.arange(len(part))[:, None]
        here = slice(start, start + len(part))
        numbers[here], products[here] = candidates[row, order], scores[row, order]
    return numbers, products


def _blocks(stored: StoredVectors, mask: Optional[Booleans], queries: int) -> Iterator[tuple[Integers, Vectors]]:
    """Yield the rows that a mask allows, `[n]`, and their vectors, `[n, size]`, in small blocks.

    queries: number of queries that each block will be multiplied with
    """
    wanted = None if mask is None or bool(mask.all()) else np.flatnonzero(mask)
    copies = wanted is not None or stored.values.dtype != np.float32
    at_once = max(1, _CELLS // max(1, queries, stored.values.shape[1] if copies else 1))
    count = len(stored) if wanted is None else len(wanted)
    for start in range(0, count, at_once):
        stop = min(start + at_once, count)
        if wanted is None:
            yield np.arange(start, stop), stored.block(start, stop)
        else:
            yield wanted[start:stop], stored.rows(wanted[start:stop])
