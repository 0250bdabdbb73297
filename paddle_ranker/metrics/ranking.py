"""Labelled pairs in the order of a system's scores: what every measure of ranking quality reads.

Conventions. A title is relevant when its label is at least 1. Queries are grouped by their text, wherever their rows
stand. Equal scores are ordered against the system, the less relevant title first: so no measure depends on the order of
the rows, and a system that scores everything alike gains nothing; where documents have ids, trec_eval's order can be
asked for (`rank`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Optional, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.errors import DataError

RELEVANT = 1.0
NOT_RETURNED = -np.inf  # the score of a judged document that a system did not return
UNRANKED = np.iinfo(np.int64).max // 2  # its position
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Numbers = NDArray[Union[np.bool_, np.int64, np.float32, np.float64]]  # what labels, queries and scores come as
Queries = Union[Sequence[str], NDArray[Any]]


@dataclass(frozen=True)
class Ranking:
    """Pairs in the order of a ranking: query by query (as they first occur), best score first.

    query: `[pairs] int64`, number of the pair's query, ascending
    position: `[pairs] int64`, place within the query, from 0
    labels: `[pairs] float64`
    queries: how many queries there are

    A document that was not returned has the position `UNRANKED`: it counts as one to be found, and is not found.
    """

    query: Integers
    position: Integers
    labels: Floats
    queries: int

    @property
    def relevant(self) -> NDArray[np.bool_]:
        """Whether each pair is relevant: `[pairs] bool`."""
        return self.labels >= RELEVANT

    @property
    def place(self) -> Integers:
        """Each row's place within its query, from 0, returned or not: `[pairs] int64`."""
        starts = np.flatnonzero(np.diff(self.query, prepend=-1))
        return np.arange(len(self.query)) - starts[self.query]

    def sum_by_query(self, values: Any) -> Floats:
        """Add `values` (`[pairs]`) up within each query: `[queries] float64`."""
        return add_by_query(self.query, values, self.queries).astype(np.float64)


def number_queries(queries: Queries) -> Integers:
    """Return each row's query as a number, `[pairs] int64`, numbered from 0 as they first occur."""
    numbers: dict[Any, int] = {}
    return np.fromiter((numbers.setdefault(query, len(numbers)) for query in queries), np.int64, len(queries))


def add_by_query(numbers: Integers, values: Any, queries: int) -> Floats:
    """Add `values` (`[pairs]`) up for each query number: `[queries] float64`."""
    return np.bincount(numbers, weights=values, minlength=queries).astype(np.float64, copy=False)


def check_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Return both as `[pairs] float64`; raises `DataError` if lengths differ, none is there, or one is not finite.

    A score may be `NOT_RETURNED`.
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
    """Return query numbers, labels and scores (each `[pairs]`), checked as `check_scores` does."""
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
    """Order the pairs of each query by score; raises `DataError` for lengths that differ and values not finite.

    Equal scores: the lower label first. With `ids` (of the documents, one a pair) as trec_eval orders them: scores
    compared in single precision, the higher id first.
    """
    return _ranking(*check_pairs(queries, labels, scores), ids)


def _ranking(numbers: Integers, labels: Floats, scores: Floats, ids: Optional[Sequence[str]]) -> Ranking:
    order = ranking_order(numbers, labels, scores, ids)
    numbers = numbers[order]
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    positions = np.where(scores[order] != NOT_RETURNED, np.arange(len(numbers)) - starts[numbers], UNRANKED)
    return Ranking(numbers, positions, labels[order], len(starts))


def ranking_order(numbers: Integers, labels: Floats, scores: Floats, ids: Optional[Sequence[str]] = None) -> Integers:
    """Return the rows by query number and place, as `rank` orders them: `[pairs] int64`; not returned ones last."""
    returned = scores != NOT_RETURNED
    ties: Any = labels
    if ids is not None:
        ties = -np.unique(np.array([name.encode() for name in ids], object), return_inverse=True)[1].reshape(-1)
        with np.errstate(over="ignore"):
            scores = scores.astype(np.float32).astype(np.float64)
    return np.lexsort((ties, -scores, ~returned, numbers))


class Scored:
    """One system's scores of labelled pairs.

    Args:
        queries, labels, scores: one a pair.
        ids: the documents' ids: equal scores in trec_eval's order (`rank`).
        judged: `[pairs] bool`, which pairs somebody judged (default: all).

    Attributes:
        ranking: all pairs, best first.
        numbers, labels, scores: `[judged]`, of the judged pairs, in the order given: the query's number, from 0, the
            label and the score.

    Raises `DataError` for lengths that differ and values not finite.
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
        known = slice(None) if judged is None else judged
        self.numbers, self.labels, self.scores = checked[0][known], checked[1][known], checked[2][known]

    @cached_property
    def ordered(self) -> Floats:
        """How many pairs of a query's judged titles with different labels are in order: `[queries] float64`."""
        counts = ordered_pairs(self.numbers, self.labels, self.scores)
        return add_by_query(self.numbers, counts, self.ranking.queries)

    @cached_property
    def comparable(self) -> Floats:
        """How many pairs of a query's judged titles have different labels: `[queries] float64`."""
        return add_by_query(self.numbers, comparable_pairs(self.numbers, self.labels), self.ranking.queries)


def ordered_pairs(groups: Integers, labels: NDArray[Any], scores: Floats) -> Floats:
    """Count, for each row, the rows of its group with a lower label and a lower score: `[rows] float64`.

    Equal scores count a half. One sort, then one pass for each distinct label.
    """
    order = np.lexsort((scores, groups))
    groups, labels, scores = groups[order], labels[order], scores[order]
    new_group = np.diff(groups, prepend=groups[0] - 1) != 0
    block = np.cumsum(new_group | changes(scores)) - 1  # a run of equal scores
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
    """Say which values differ from the one before, `[n] bool`; the first does not. Infinite ones may be equal too."""
    return np.concatenate((np.zeros(min(1, len(values)), bool), values[1:] != values[:-1]))


def comparable_pairs(groups: Integers, labels: NDArray[Any]) -> Floats:
    """Count, for each row, the rows of its group with a lower label: `[rows] float64`."""
    order = np.lexsort((labels, groups))
    groups, labels = groups[order], labels[order]
    places = np.arange(len(groups))
    new_group = np.diff(groups, prepend=groups[0] - 1) != 0
    new_label = new_group | (np.diff(labels, prepend=labels[0]) != 0)
    counts = np.maximum.accumulate(np.where(new_label, places, 0)) - np.maximum.accumulate(
        np.where(new_group, places, 0)
    )
    result = np.empty(len(groups))
    result[order] = counts
    return result
