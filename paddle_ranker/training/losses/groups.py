"""Group the titles of a batch by query, in the forms that losses need: pairs, a grid, a ranking.

Every loss over groups ends in `Queries.mean_over_titles`, so that the losses of a batch's parts add up to the loss of
the batch if no query is split.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from paddle_ranker.metrics.ranking import Booleans, Floats, Integers, Numbers

if TYPE_CHECKING:
    from paddle import Tensor


def constant(values: Numbers, like: Tensor) -> Tensor:
    """Return values as a tensor of the dtype of `like`."""
    import paddle

    return paddle.to_tensor(np.asarray(values), dtype=like.dtype)


def differences(values: Tensor, first: Integers, second: Integers) -> Tensor:
    """Return values[first] - values[second], `[pairs]`; there must be at least one pair."""
    import paddle

    return paddle.gather(values, paddle.to_tensor(first)) - paddle.gather(values, paddle.to_tensor(second))


def zero(logits: Tensor) -> Tensor:
    """Return a 0 that is connected to `logits`, so that backward works; NaN if some logit is NaN or infinite."""
    return logits.sum() * 0.0


class Queries:
    """Assignment of n titles to queries.

    Attributes: `codes` [n] int64, the query of each title, from 0; `titles` [queries], how many each query has.
    """

    def __init__(self, queries: Numbers):
        _, self.codes = np.unique(queries, return_inverse=True)
        self.titles = np.bincount(self.codes)

    def pairs(self, labels: Numbers) -> tuple[Integers, Integers]:
        """Return all pairs of titles of one query with different labels: the higher and the lower, `[pairs]` each."""
        higher, lower = np.nonzero(self._together() & (labels[:, None] > labels[None, :]))
        return higher, lower

    def all_pairs(self) -> tuple[Integers, Integers]:
        """Return all pairs of two titles of one query, each once: `[pairs]` each."""
        first, second = np.nonzero(np.triu(self._together(), 1))
        return first, second

    def _together(self) -> Booleans:
        same: Booleans = self.codes[:, None] == self.codes[None, :]
        return same

    def share_of_pairs(self, first: Integers) -> Floats:
        """Return 1 / (number of pairs of the same query) for each pair; `first` are the pairs' first titles."""
        of_query = self.codes[first]
        share: Floats = 1.0 / np.bincount(of_query)[of_query]
        return share

    def mean_over_titles(self, values: Tensor, codes: Integers, share: Floats) -> Tensor:
        """Return the mean over all titles of their query's loss, the sum of share * value over the query's values.

        Args:
            values: `[m]`.
            codes, share: the query of each value, and its factor, `[m]` each.
        """
        weights = share * self.titles[codes] / len(self.codes)
        return (values * constant(weights, values)).sum()

    def ranks(self, order: Integers) -> Integers:
        """Return each title's rank within its query, `[n]`, from 0; `order` sorts all titles by query, then by rank."""
        starts = np.cumsum(self.titles) - self.titles
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order)) - starts[self.codes[order]]
        return places

    def gains(self, labels: Numbers) -> Floats:
        """Return each title's gain, 2^label - 1, divided by its query's ideal DCG, `[n]`."""
        grades = np.maximum(labels, 0.0).astype(np.float64)
        highest = np.zeros(len(self.titles))
        np.maximum.at(highest, self.codes, grades)
        # Both are divided by 2^highest, which cancels: 2 to the power of a label of thousands would be infinite.
        gains = np.exp2(grades - highest[self.codes]) - np.exp2(-highest[self.codes])
        ideal = gains / np.log2(2.0 + self.ranks(np.lexsort((-gains, self.codes))))
        best = np.bincount(self.codes, weights=ideal)[self.codes]
        return np.divide(gains, best, out=np.zeros_like(gains), where=best > 0)


@dataclass(frozen=True)
class Grid:
    """The titles of queries in rows: `places` `[queries, longest]` are the titles' indices in the batch.

    `there` `[queries, longest]` is False for padding; `codes` `[queries]` are the queries of the rows.
    """

    places: Integers
    there: Booleans
    codes: Integers

    @classmethod
    def of(cls, queries: Queries) -> Grid:
        """Arrange all titles in rows, one for each query, in the order of the batch."""
        order = np.argsort(queries.codes, kind="stable")
        there = np.arange(queries.titles.max(initial=0)) < queries.titles[:, None]
        places = np.zeros(there.shape, np.int64)
        places[there] = order
        return cls(places, there, np.arange(len(queries.titles)))

    def __len__(self) -> int:
        return len(self.places)

    def rows(self, chosen: Booleans) -> Grid:
        """Return the rows for which `chosen` [queries] is true."""
        return replace(self, places=self.places[chosen], there=self.there[chosen], codes=self.codes[chosen])

    def values(self, values: Numbers, padding: float) -> Floats:
        """Arrange values `[n]` in rows, `[queries, longest]`, with `padding` in the empty places."""
        rows: Floats = np.where(self.there, values[self.places], padding)
        return rows

    def logits(self, logits: Tensor, kept: Booleans) -> Tensor:
        """Arrange logits `[n]` in rows, `[queries, longest]`; where `kept` of that shape is False, exp(logit) is 0."""
        import paddle

        rows = paddle.gather(logits, paddle.to_tensor(self.places.ravel())).reshape(self.places.shape)
        # Minus infinity is no alternative: its gradient would be 0 times infinity.
        return paddle.where(paddle.to_tensor(kept), rows, paddle.full_like(rows, -1e30))
