"""Labelled pairs in the order of a system's scores, which is the input of every measure of ranking quality.

Conventions: a title is relevant if its label is at least 1. Rows with the same query text are one query, wherever they
are in the file. Equal scores are ordered against the system, the less relevant title first, so that no measure depends
on the order of the rows, and a system that gives equal scores to all titles gains nothing. If documents have ids,
`rank` can order equal scores as trec_eval does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Optional, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.array_types import Floats, Integers
from paddle_ranker.errors import DataError

RELEVANT = 1.0
NOT_RETURNED = -np.inf  # the score of a judged document that a system did not return
_MOVED = 1e-5  # rounding a value may change its standardised value by this at most
UNRANKED = np.iinfo(np.int64).max // 2  # the position of a document that a system did not return
Queries = Union[Sequence[str], NDArray[Any]]


@dataclass(frozen=True)
class Ranking:
    """Pairs sorted by query (in order of first occurrence), then by score, best first.

    query: `[pairs] int64`, index of the pair's query, ascending
    position: `[pairs] int64`, the pair's rank within its query, from 0. A document that the system did not return has
        `UNRANKED`; if it is relevant, it counts as missed
    labels: `[pairs] float64`
    queries: number of queries
    """

    query: Integers
    position: Integers
    labels: Floats
    queries: int

    @property
    def relevant(self) -> NDArray[np.bool_]:
        return self.labels >= RELEVANT

    @property
    def place(self) -> Integers:
        """Each pair's rank within its query, from 0, `[pairs] int64`; documents that were not returned come last."""
        starts = np.flatnonzero(np.diff(self.query, prepend=-1))
        return np.arange(len(self.query)) - starts[self.query]

    def sum_by_query(self, values: Any) -> Floats:
        """Return the sum of `values` (`[pairs]`) within each query: `[queries] float64`."""
        return add_by_query(self.query, values, self.queries).astype(np.float64)


def number_queries(queries: Queries) -> Integers:
    """Return the index of each row's query, `[pairs] int64`, from 0 in order of first occurrence."""
    numbers: dict[Any, int] = {}
    return np.fromiter((numbers.setdefault(query, len(numbers)) for query in queries), np.int64, len(queries))


def add_by_query(numbers: Integers, values: Any, queries: int) -> Floats:
    """Return the sum of `values` (`[pairs]`) within each query: `[queries] float64`.

    numbers: index of each pair's query, from 0, `[pairs]`
    """
    return np.bincount(numbers, weights=values, minlength=queries).astype(np.float64, copy=False)


def check_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Return labels and scores as float64, `[pairs]` each.

    Raises `DataError` if labels and scores differ in length or are empty, or if a value is not finite. A score may also
    be `NOT_RETURNED`.
    """
    checked = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if checked[0].ndim != 1 or checked[0].shape != checked[1].shape:
        raise DataError(f"labels of shape {checked[0].shape} and scores of {checked[1].shape}: give one of each a pair")
    if not len(checked[0]):
        raise DataError("no pairs to measure: give at least one")
    for name, values, allowed in (("label", checked[0], np.nan), ("score", checked[1], NOT_RETURNED)):
        wrong = np.flatnonzero(~(np.isfinite(values) | (values == allowed)))
        if len(wrong):
            raise DataError(
                f"the {name} of pair {wrong[0] + 1:,} is {values[wrong[0]]} ({len(wrong):,} of {len(values):,} are "
                f"not finite): a {name} must be a finite number"
            )
    return checked


def check_pairs(queries: Queries, labels: ArrayLike, scores: ArrayLike) -> tuple[Integers, Floats, Floats]:
    """Check and convert pairs as `check_scores` does; return (index of each pair's query, labels, scores).

    Each result has the shape `[pairs]`. Also raises `DataError` if the number of queries is not the number of pairs.
    """
    checked = check_scores(labels, scores)
    if len(queries) != len(checked[0]):
        raise DataError(f"{len(queries):,} queries and {len(checked[0]):,} scores: give one of each a pair")
    return number_queries(queries), *checked


def rank(
    queries: Queries,
    labels: ArrayLike,
    scores: ArrayLike,
    ids: Optional[Sequence[str]] = None,
) -> Ranking:
    """Order the pairs of each query by score; raises `DataError` if lengths differ or a value is not finite.

    Among equal scores, the lower label comes first. With `ids`, the documents' ids (one per pair), the order is that of
    trec_eval: scores are compared in single precision, and among equal scores the higher id comes first.
    """
    return _ranking(*check_pairs(queries, labels, scores), ids)


def _ranking(numbers: Integers, labels: Floats, scores: Floats, ids: Optional[Sequence[str]]) -> Ranking:
    order = ranking_order(numbers, labels, scores, ids)
    numbers = numbers[order]
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    positions = np.where(scores[order] != NOT_RETURNED, np.arange(len(numbers)) - starts[numbers], UNRANKED)
    return Ranking(numbers, positions, labels[order], len(starts))


def ranking_order(numbers: Integers, labels: Floats, scores: Floats, ids: Optional[Sequence[str]] = None) -> Integers:
    """Return the indices that sort rows by query and, within a query, in the order of `rank`, `[pairs] int64`.

    Documents that the system did not return come last in their query.

    numbers: index of each row's query, from 0, `[pairs]`
    """
    returned = scores != NOT_RETURNED
    ties: Any = labels
    if ids is not None:
        ties = -np.unique(np.array([name.encode() for name in ids], object), return_inverse=True)[1].reshape(-1)
        with np.errstate(over="ignore"):
            scores = scores.astype(np.float32).astype(np.float64)
    return np.lexsort((ties, -scores, ~returned, numbers))


class Standardised(NamedTuple):
    """Columns scaled to mean 0 and standard deviation 1.

    values: the scaled columns, `[n, k]`; a constant column becomes 0
    mean, deviation: mean and standard deviation of each column before it was scaled, `[k]` each; the deviation of a
        constant column is given as 1
    """

    values: Floats
    mean: Floats
    deviation: Floats


def standardise(values: Floats, dtype: type[np.floating[Any]]) -> Standardised:
    """Scale the columns of `values`, `[n, k]` or `[n]`, to mean 0 and standard deviation 1.

    dtype: type in which the values were computed

    A column counts as constant if its deviation is so small that rounding a value to `dtype` would move the
    standardised value by more than 1e-5. For float32, that is a deviation below 1.2 percent of the mean, unless the
    mean is near 0. After a division by so small a deviation, a model's logits would differ from engine to engine.
    """
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    # A value near 0 may be the difference of values around 1, whose rounding remains.
    is_constant = deviation <= np.finfo(dtype).eps * np.maximum(np.abs(mean) / _MOVED, 8.0)
    deviation = np.where(is_constant, 1.0, deviation)
    return Standardised(np.where(is_constant, 0.0, values - mean) / deviation, mean, deviation)


def standardised(scores: Floats) -> Floats:
    """Return scores scaled to mean 0 and standard deviation 1, `[n] float64`, in the same order.

    Models fitted to different folds of queries differ in scale and bias, but AUC compares pairs of different folds. So
    the scores of each fold's model are standardised before the scores of all folds are joined. No labels are needed.
    """
    return standardise(scores, np.float64).values


class Scored:
    """Labelled pairs with the scores of one system.

    Args:
        queries, labels, scores: query, label and score of each pair.
        ids: the documents' ids; if given, equal scores are in trec_eval's order (see `rank`).
        judged: `[pairs] bool`, True for pairs with a known label (default: all).

    Attributes:
        ranking: all pairs, best first.
        numbers: index of the query of each judged pair, from 0, `[judged]`, in the order of the arguments.
        labels, scores: label and score of each judged pair, `[judged]` each, in the order of `numbers`.

    Raises `DataError` if lengths differ or a value is not finite.
    """

    def __init__(
        self,
        queries: Queries,
        labels: ArrayLike,
        scores: ArrayLike,
        *,
        ids: Optional[Sequence[str]] = None,
        judged: Optional[NDArray[np.bool_]] = None,
    ):
        checked = check_pairs(queries, labels, scores)
        self.ranking = _ranking(*checked, ids)
        rows = slice(None) if judged is None else judged
        self.numbers, self.labels, self.scores = checked[0][rows], checked[1][rows], checked[2][rows]

    @cached_property
    def ordered(self) -> Floats:
        """Number of each query's `comparable` pairs that the scores order as the labels do, `[queries] float64`.

        Equal scores count a half.
        """
        counts = ordered_pairs(self.numbers, self.labels, self.scores)
        return add_by_query(self.numbers, counts, self.ranking.queries)

    @cached_property
    def comparable(self) -> Floats:
        """Number of each query's pairs of judged titles with different labels, `[queries] float64`."""
        return add_by_query(self.numbers, comparable_pairs(self.numbers, self.labels), self.ranking.queries)


def ordered_pairs(groups: Integers, labels: NDArray[Any], scores: Floats) -> Floats:
    """Count, for each row, the rows of its group with a lower label and a lower score: `[rows] float64`.

    groups: index of each row's group

    A row with a lower label and an equal score counts a half. The cost is one sort, then one pass per distinct label.
    """
    order = np.lexsort((scores, groups))
    groups, labels, scores = groups[order], labels[order], scores[order]
    new_group = np.diff(groups, prepend=groups[0] - 1) != 0
    block = np.cumsum(new_group | changes(scores)) - 1  # number of the run of equal scores
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    ends = np.append(starts[1:], len(block))
    group_start = np.maximum.accumulate(np.where(new_group, np.arange(len(groups)), 0))[starts]
    counts = np.zeros(len(labels))
    for level in np.unique(labels)[:-1]:
        below = np.concatenate(([0], np.cumsum(labels == level)))
        lower, equal = below[starts] - below[group_start], below[ends] - below[starts]
        counts += np.where(labels > level, (lower + 0.5 * equal)[block], 0.0)
    result = np.empty_like(counts)
    result[order] = counts
    return result


def changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return whether each value differs from the previous value, `[n] bool`; False for the first value."""
    return np.concatenate((np.zeros(min(1, len(values)), bool), values[1:] != values[:-1]))


def comparable_pairs(groups: Integers, labels: NDArray[Any]) -> Floats:
    """Count, for each row, the rows of its group with a lower label: `[rows] float64`."""
    _, levels = np.unique(labels, return_inverse=True)
    keys = groups * (levels.max() + 1) + levels  # sorts rows by group, then by label
    in_order = np.sort(keys)
    return (np.searchsorted(in_order, keys) - np.searchsorted(in_order, keys - levels)).astype(np.float64)
