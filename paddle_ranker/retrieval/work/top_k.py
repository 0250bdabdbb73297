"""Select the k best scores of a collection that is scored part by part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Floats, Integers

_SAMPLE = 1 << 14
NOT_FOUND = -1  # stands for a missing number, as in faiss
_MOST_WAITING = 4  # at most this many times the entries to keep wait to be sorted


class _Candidates(NamedTuple):
    rows: Integers
    numbers: Integers
    products: NDArray[np.float32]


def best_rows(
    parts: Sequence[tuple[Integers, NDArray[np.float32]]], rows: int, k: int
) -> list[tuple[Integers, Floats]]:
    """Return, for each row (a query), the numbers and scores of its `k` best entries, best first.

    Entries of equal scores are in the order of their numbers.

    parts: for each part of a collection, numbers and their scores, `[rows, n]` each; `NOT_FOUND` marks a missing number
    rows: number of rows
    """
    if not parts:
        return [(np.empty(0, np.int64), np.empty(0))] * rows
    numbers, scores = parts[0] if len(parts) == 1 else (np.concatenate(arrays, axis=1) for arrays in zip(*parts))
    order = np.lexsort((numbers.view(np.uint64), -scores))[:, :k]  # so `NOT_FOUND` is the largest number
    row = np.arange(rows)[:, None]
    numbers, scores = numbers[row, order], scores[row, order].astype(np.float64)
    counts = (numbers != NOT_FOUND).sum(axis=1).tolist()
    return [(of_row[:count], row_scores[:count]) for of_row, row_scores, count in zip(numbers, scores, counts)]


class Best:
    """The `k` best scores of all scores added so far, with the documents' numbers; equal scores by number."""

    def __init__(self, k: int):
        self.k = k
        self._numbers, self._scores = np.empty(0, np.int64), np.empty(0, np.float64)
        self.least = -np.inf  # no lower score can be among the best

    def add(self, numbers: Integers, scores: NDArray[Union[np.float32, np.float64]]) -> None:
        """Add documents: their numbers and scores, `[n]` each; no number may be added twice."""
        if len(scores) > _SAMPLE and len(self._scores) < self.k <= _SAMPLE:
            # The k-th best score of a sample is a lower bound, which costs less to find.
            self.least = max(self.least, float(np.partition(scores[:_SAMPLE], -self.k)[-self.k]))
        if self.least > -np.inf:
            kept = np.flatnonzero(scores >= self.least)
            numbers, scores = numbers[kept], scores[kept]
        all_numbers = np.concatenate([self._numbers, numbers])
        all_scores = np.concatenate([self._scores, scores.astype(np.float64)])
        if len(all_scores) > self.k:
            self.least = max(self.least, float(np.partition(all_scores, -self.k)[-self.k]))
            good = all_scores >= self.least
            all_numbers, all_scores = all_numbers[good], all_scores[good]
        order = np.lexsort((all_numbers, -all_scores))[: self.k]
        self._numbers, self._scores = all_numbers[order], all_scores[order]

    def result(self) -> tuple[Integers, Floats]:
        """Return the numbers and scores, best first."""
        return self._numbers, self._scores


class BestRows:
    """The `k` largest products of each query so far, with the vectors' numbers; equal products are sorted by number.

    A new product of a query is kept if it is larger than the least of the query's `k` best. Kept products are sorted
    only when the number of added vectors has doubled, or when there are too many. This costs a fraction of the matrix
    product.
    """

    def __init__(self, rows: int, k: int):
        self.rows, self.k = rows, k
        self._least = np.full(rows, -np.inf, np.float32)  # per row; later products that are not larger are dropped
        self._kept: list[_Candidates] = []
        self._waiting, self._seen, self._sort_at = 0, 0, 0

    def add(self, numbers: Integers, products: NDArray[np.float32]) -> None:
        """Add vectors: numbers `[n]`, ascending and above all numbers added before, and products `[rows, n]`."""
        if self._seen < self.k:
            products = np.where(np.isnan(products), -np.inf, products).astype(np.float32)
            self._keep(np.arange(self.rows), numbers, products, products >= self._kth(products)[:, None])
        else:
            rows = np.flatnonzero(np.fmax.reduce(products, axis=1) > self._least)
            if len(rows):
                products = products[rows]
                is_above = products > self._least[rows, None]
                if np.count_nonzero(is_above) > _MOST_WAITING * self.k * len(rows):  # as with ascending products
                    is_above &= products >= self._kth(products)[:, None]
                self._keep(rows, numbers, products, is_above)
        self._seen += len(numbers)
        if self._seen >= self._sort_at or self._waiting > _MOST_WAITING * self.rows * self.k:
            self._sort()

    def result(self) -> tuple[Integers, NDArray[np.float32]]:
        """Return numbers and products, best first, `[rows, k]` each; with fewer than `k` vectors, `[rows, vectors]`."""
        if not self._kept:
            return np.empty((self.rows, 0), np.int64), np.empty((self.rows, 0), np.float32)
        self._sort()
        (kept,) = self._kept
        return kept.numbers.reshape(self.rows, -1), kept.products.reshape(self.rows, -1)

    def _kth(self, products: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the k-th largest product of each row, `[rows]`; -infinity if a row has at most k products."""
        if products.shape[1] <= self.k:
            return np.full(len(products), -np.inf, np.float32)
        kth: NDArray[np.float32] = np.partition(products, -self.k, axis=1)[:, -self.k]
        return kth

    def _keep(
        self, rows: Integers, numbers: Integers, products: NDArray[np.float32], wanted: NDArray[np.bool_]
    ) -> None:
        indices = np.flatnonzero(wanted)
        row, column = np.divmod(indices, products.shape[1])
        self._kept.append(_Candidates(rows[row], numbers[column], products.ravel()[indices]))
        self._waiting += len(indices)

    def _sort(self) -> None:
        rows, numbers, products = (np.concatenate(arrays) for arrays in zip(*self._kept))
        order = np.lexsort((numbers, -products, rows))
        rows, numbers, products = rows[order], numbers[order], products[order]
        counts = np.bincount(rows, minlength=self.rows)
        first = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) < self.k
        self._kept = [_Candidates(rows[first], numbers[first], products[first])]
        counts = np.minimum(counts, self.k)
        is_full = counts == self.k
        self._least[is_full] = products[first][np.cumsum(counts)[is_full] - 1]
        self._waiting, self._sort_at = 0, 2 * self._seen
