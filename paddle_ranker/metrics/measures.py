"""Measures of ranking quality: pure functions of NumPy arrays, exact and fast enough for millions of pairs.

    metrics = evaluate_ranking(queries, labels, scores)           # {"auc": ..., "ndcg@10": ..., ...}
    values = ndcg_at(rank(queries, labels, scores), k=10)          # one value a query

Conventions. A title is relevant when its label is at least 1. Queries are grouped by their text, wherever their rows
stand. Measures of one query are trec_eval's, a query without a relevant title counting 0, and means are over all
queries. Equal scores are ordered against the system, the less relevant title first: so no measure depends on the
order of the rows, and a system that scores everything alike gains nothing; where documents have ids, trec_eval's order
can be asked for (`rank`). AUC and the share of ordered pairs count a tie as a half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.errors import DataError

RELEVANT = 1.0
NOT_RETURNED = -np.inf  # the score of a judged document that a system did not return
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


UNRANKED = np.iinfo(np.int64).max // 2


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


def number_queries(queries: Union[Sequence[str], NDArray[Any]]) -> Integers:
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


def check_pairs(
    queries: Union[Sequence[str], NDArray[Any]], labels: ArrayLike, scores: ArrayLike
) -> tuple[Integers, Floats, Floats]:
    """Return query numbers, labels and scores (each `[pairs]`), checked as `check_scores` does."""
    checked = check_scores(labels, scores)
    if len(queries) != len(checked[0]):
        raise DataError(f"{len(queries):,} queries and {len(checked[0]):,} scores: give one of each a pair")
    return number_queries(queries), *checked


def rank(
    queries: Union[Sequence[str], NDArray[Any]],
    labels: ArrayLike,
    scores: ArrayLike,
    ids: Optional[Sequence[str]] = None,
) -> Ranking:
    """Order the pairs of each query by score; raises `DataError` for lengths that differ and values not finite.

    Equal scores: the lower label first. With `ids` (of the documents, one a pair) as trec_eval orders them: scores
    compared in single precision, the higher id first.
    """
    numbers, labels, scores = check_pairs(queries, labels, scores)
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


def ndcg_at(ranking: Ranking, k: int) -> Floats:
    """Return normalised discounted cumulative gain of the best `k`: `[queries] float64`.

    The gain is the label (negative ones count 0), the discount log2(position + 2) with positions from 0, and the
    ideal order that of the query's own labels (Järvelin and Kekäläinen 2002, as trec_eval's ndcg_cut).
    """
    gains = np.maximum(ranking.labels, 0.0)
    ideal = gains[np.lexsort((-gains, ranking.query))]
    found, best = (
        ranking.sum_by_query(np.where(places < k, values / np.log2(places + 2.0), 0.0))
        for values, places in ((gains, ranking.position), (ideal, ranking.place))
    )
    return _divide(found, best)


def reciprocal_rank_at(ranking: Ranking, k: int) -> Floats:
    """Return 1 / place of the first relevant title, 0 if it is not among the best `k`: `[queries] float64`."""
    values = np.zeros(ranking.queries)
    hits = ranking.relevant & (ranking.position < k)
    np.maximum.at(values, ranking.query[hits], 1.0 / (ranking.position[hits] + 1.0))
    return values


def average_precision(ranking: Ranking) -> Floats:
    """Return the mean of the precisions at each relevant title's place: `[queries] float64`."""
    relevant = ranking.relevant
    before: Integers = np.cumsum(relevant) - relevant
    first = np.flatnonzero(ranking.place == 0)
    found = before - before[first][ranking.query] + 1.0  # relevant titles up to this one, if this one is
    precisions = np.where(relevant & (ranking.position < UNRANKED), found / (ranking.position + 1.0), 0.0)
    return _divide(ranking.sum_by_query(precisions), ranking.sum_by_query(relevant))


def precision_at(ranking: Ranking, k: int) -> Floats:
    """Return how many of the best `k` are relevant, over `k` even where there are fewer: `[queries] float64`."""
    return ranking.sum_by_query(ranking.relevant & (ranking.position < k)) / k


def recall_at(ranking: Ranking, k: int) -> Floats:
    """Return the share of the query's relevant titles that is among the best `k`: `[queries] float64`."""
    hits = ranking.sum_by_query(ranking.relevant & (ranking.position < k))
    return _divide(hits, ranking.sum_by_query(ranking.relevant))


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve: how often a relevant pair outscores another, ties counting a half.

    Exact (the Mann-Whitney statistic of ranks). Raises `DataError` where all pairs are relevant, or none is.
    """
    labels, scores = check_scores(labels, scores)
    relevant = labels >= RELEVANT
    count = int(relevant.sum())
    if count in (0, len(labels)):
        what = "none" if count == 0 else "each"
        raise DataError(
            f"AUC needs relevant pairs (label >= 1) and others: {what} of the {len(labels):,} is relevant; "
            "measure on a file that has both"
        )
    ordered = ordered_pairs(np.zeros(len(labels), np.int64), relevant, scores)
    return float(ordered.sum() / (count * (len(labels) - count)))


def pairwise_accuracy(queries: Union[Sequence[str], NDArray[Any]], labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the share of rightly ordered pairs of titles among those of one query with different labels.

    Ties count a half. Raises `DataError` where no query has titles of different labels.
    """
    numbers, labels, scores = check_pairs(queries, labels, scores)
    total = comparable_pairs(numbers, labels).sum()
    if not total:
        raise DataError("no query has titles of different labels: there is no order to check")
    return float(ordered_pairs(numbers, labels, scores).sum() / total)


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


def evaluate_ranking(
    queries: Union[Sequence[str], NDArray[Any]], labels: ArrayLike, scores: ArrayLike
) -> dict[str, float]:
    """Return all measures by name.

    Always `auc` and `pairs` (how many); where some query has two titles or more, also the means `mrr@10`, `ndcg@10`
    and `map`, `pairs_ordered` (where labels differ within a query), `queries` and `queries_with_positive`.
    Raises `DataError` as `roc_auc` and `rank` do.
    """
    ranking = rank(queries, labels, scores)
    metrics = {"auc": roc_auc(labels, scores)}
    if ranking.queries < len(ranking.query):
        metrics["mrr@10"] = float(reciprocal_rank_at(ranking, 10).mean())
        metrics["ndcg@10"] = float(ndcg_at(ranking, 10).mean())
        metrics["map"] = float(average_precision(ranking).mean())
        if comparable_pairs(ranking.query, ranking.labels).any():
            metrics["pairs_ordered"] = pairwise_accuracy(queries, labels, scores)
        metrics["queries"] = ranking.queries
        metrics["queries_with_positive"] = int((ranking.sum_by_query(ranking.relevant) > 0).sum())
    metrics["pairs"] = len(ranking.query)
    return metrics


def measures_by_query(ranking: Ranking) -> dict[str, Floats]:
    """Return the measures that are means over queries, by name, one value a query: each `[queries] float64`."""
    return {
        "mrr@10": reciprocal_rank_at(ranking, 10),
        "ndcg@10": ndcg_at(ranking, 10),
        "map": average_precision(ranking),
        **{f"p@{k}": precision_at(ranking, k) for k in (1, 5, 10)},
        "r@10": recall_at(ranking, 10),
    }


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """Divide where the denominator is not 0; a query without anything to find counts 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
