"""Measures of ranking quality: exact, and fast enough for millions of pairs.

    measures = evaluate_ranking(queries, labels, scores)            # {"auc": ..., "ndcg@10": ..., ...}
    values = ndcg_at(rank(queries, labels, scores), k=10)           # one value a query
    MEASURES["map"].value(Scored(queries, labels, scores))          # any measure by its name

A new measure only has to be added to `MEASURES`: intervals, comparisons and their tests, option choices and tables
read that registry. Measures per query are trec_eval's: a query without a relevant title counts 0, and means are over
all queries. `paddle_ranker.metrics.ranking` defines the order of titles; AUC and the share of ordered pairs count a tie
as a half.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Callable, Optional

import numpy as np
from numpy.typing import ArrayLike

from paddle_ranker.array_types import Floats, Integers
from paddle_ranker.errors import DataError, refuse_text
from paddle_ranker.metrics.auc import auc_difference, auc_of, count_relevant, roc_auc
from paddle_ranker.metrics.intervals import Interval, Statistic, bootstrap_intervals, difference, mean_of, ratio_of
from paddle_ranker.metrics.ranking import RELEVANT, UNRANKED, Queries, Ranking, Scored
from paddle_ranker.metrics.significance import randomisation_test, swap_test
from paddle_ranker.registry import Registry

FEWEST_PERMUTATIONS = 1000
_AUC_CELLS = 400_000_000  # permutations x pairs, at most, in the test of an AUC: half a minute


class Measure(ABC):
    """A measure: one number for the scores that a system gives labelled pairs.

    title: the name that tables and pictures show
    what: one line of documentation
    higher_is_better: whether the higher of two values is better
    in_training: whether evaluations during a training print the measure, and `--metric` may name it to choose the best
        checkpoint
    """

    def __init__(self, title: str, what: str, *, higher_is_better: bool = True, in_training: bool = False):
        self.title, self.what = title, what
        self.higher_is_better, self.in_training = higher_is_better, in_training

    def applies(self, scored: Scored) -> bool:
        """Return whether the measure can be computed; by default, if some query has at least two titles to rank."""
        return scored.ranking.queries < len(scored.ranking.query)

    @property
    def sign(self) -> float:
        """1.0 if higher values are better, else -1.0; an improvement, multiplied by the sign, is positive."""
        return 1.0 if self.higher_is_better else -1.0

    @abstractmethod
    def value(self, scored: Scored) -> float:
        """Return the measure over all pairs; may raise `DataError` if `applies` is False."""

    @abstractmethod
    def statistic(self, scored: Scored) -> Statistic:
        """Return the measure as a `Statistic`, a function of how often each query was drawn."""

    def by_query(self, scored: Scored) -> Optional[Floats]:
        """Return the value of each query, `[queries] float64`; None if the measure has no values per query.

        A query for which the measure has no value has NaN.
        """
        return None

    def p_value(self, ours: Scored, theirs: Scored, permutations: int, seed: int) -> Optional[float]:
        """Return the two-sided p-value of two systems' difference on the same pairs; None if the measure has no test.

        permutations: maximum number of random swaps
        """
        return None


class QueryMean(Measure):
    """Measure that is the mean over queries of a function's values.

    of_queries: the function; called as `of_queries(ranking, *arguments)`, returns `[queries] float64`
    flags: `higher_is_better` and `in_training` of `Measure`
    """

    def __init__(self, title: str, what: str, of_queries: Callable[..., Floats], *arguments: int, **flags: bool):
        super().__init__(title, what, **flags)
        self._of_queries, self._arguments = of_queries, arguments

    def by_query(self, scored: Scored) -> Floats:
        return self._of_queries(scored.ranking, *self._arguments)

    def value(self, scored: Scored) -> float:
        return float(self.by_query(scored).mean())

    def statistic(self, scored: Scored) -> Statistic:
        return mean_of(self.by_query(scored))

    def p_value(self, ours: Scored, theirs: Scored, permutations: int, seed: int) -> float:
        return randomisation_test(self.by_query(ours) - self.by_query(theirs), permutations=permutations, seed=seed)


class RetrievalMean(QueryMean):
    """A `QueryMean` that measures searches of a collection; it applies only if some documents are not judged."""

    def applies(self, scored: Scored) -> bool:
        return super().applies(scored) and len(scored.labels) < len(scored.ranking.query)


class AreaUnderCurve(Measure):
    """The area under the ROC curve over all judged pairs of all queries."""

    def applies(self, scored: Scored) -> bool:
        relevant = scored.labels >= RELEVANT
        return bool(relevant.any() and not relevant.all())

    def value(self, scored: Scored) -> float:
        return roc_auc(scored.labels, scored.scores)

    def statistic(self, scored: Scored) -> Statistic:
        return auc_of(scored.numbers, scored.labels, scored.scores)

    def p_value(self, ours: Scored, theirs: Scored, permutations: int, seed: int) -> float:
        fewer = max(FEWEST_PERMUTATIONS, min(permutations, _AUC_CELLS // len(ours.numbers)))
        swapped = auc_difference(ours.numbers, ours.labels, (ours.scores, theirs.scores))
        return swap_test(swapped, ours.ranking.queries, min(permutations, fewer), seed)


class OrderedPairs(Measure):
    """The share of correctly ordered pairs, among all pairs of judged titles of one query with different labels."""

    def applies(self, scored: Scored) -> bool:
        return bool(scored.comparable.any())

    def value(self, scored: Scored) -> float:
        if not self.applies(scored):
            raise DataError("no query has titles of different labels: there is no order to check")
        return float(scored.ordered.sum() / scored.comparable.sum())

    def statistic(self, scored: Scored) -> Statistic:
        return ratio_of(scored.ordered, scored.comparable)

    def by_query(self, scored: Scored) -> Floats:
        total = scored.comparable
        return np.divide(scored.ordered, total, out=np.full(len(total), np.nan), where=total > 0)

    def p_value(self, ours: Scored, theirs: Scored, permutations: int, seed: int) -> float:
        # Both systems have the same denominator, so a test of the numerators suffices.
        return randomisation_test(ours.ordered - theirs.ordered, permutations=permutations, seed=seed)


def ndcg_at(ranking: Ranking, k: int) -> Floats:
    """Return the normalised discounted cumulative gain of the first `k` titles: `[queries] float64`.

    A title's gain is its label (0 if negative), and its discount is log2(position + 2), with positions from 0. The
    ideal order sorts the query's own labels (Järvelin and Kekäläinen 2002; the same as trec_eval's ndcg_cut).
    """
    gains = np.maximum(ranking.labels, 0.0)
    ideal = gains[np.lexsort((-gains, ranking.query))]
    gained, best = (
        ranking.sum_by_query(np.where(places < k, values / np.log2(places + 2.0), 0.0))
        for values, places in ((gains, ranking.position), (ideal, ranking.place))
    )
    return _divide(gained, best)


def reciprocal_rank_at(ranking: Ranking, k: int) -> Floats:
    """Return 1 / rank of the first relevant title, or 0 if its rank is above `k`: `[queries] float64`."""
    values = np.zeros(ranking.queries)
    hits = ranking.relevant & (ranking.position < k)
    np.maximum.at(values, ranking.query[hits], 1.0 / (ranking.position[hits] + 1.0))
    return values


def average_precision(ranking: Ranking) -> Floats:
    """Return the mean of the precisions at the ranks of the relevant titles: `[queries] float64`."""
    relevant = ranking.relevant
    before: Integers = np.cumsum(relevant) - relevant
    first = np.flatnonzero(ranking.place == 0)
    hits = before - before[first][ranking.query] + 1.0  # number of relevant titles up to this one, if it is relevant
    precisions = np.where(relevant & (ranking.position < UNRANKED), hits / (ranking.position + 1.0), 0.0)
    return _divide(ranking.sum_by_query(precisions), ranking.sum_by_query(relevant))


def precision_at(ranking: Ranking, k: int) -> Floats:
    """Return the number of relevant titles among the first `k`, divided by `k`: `[queries] float64`."""
    return ranking.sum_by_query(ranking.relevant & (ranking.position < k)) / k


def recall_at(ranking: Ranking, k: int) -> Floats:
    """Return the share of a query's relevant titles that are among the first `k` titles: `[queries] float64`."""
    hits = ranking.sum_by_query(ranking.relevant & (ranking.position < k))
    return _divide(hits, ranking.sum_by_query(ranking.relevant))


def recall_curve(ranking: Ranking, most: int) -> Floats:
    """Return the mean over queries of `recall_at` for each k from 1 to `most`: `[most] float64`."""
    hits = ranking.relevant & (ranking.position < most)
    total = ranking.sum_by_query(ranking.relevant)[ranking.query[hits]]
    gains = np.bincount(ranking.position[hits], 1.0 / total, minlength=most)
    curve: Floats = np.cumsum(gains) / ranking.queries
    return curve


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """Divide; where the denominator is 0, because a query has no relevant title, the result is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


MEASURES: Registry[Measure] = Registry("measure", "--measure")
HEADLINES = ("auc", "ndcg@10")  # the two measures to show where space is short

_SHARE = "share of the query's relevant titles among the first {0}"
_FIRST = "relevant titles among the first {0}, divided by {0} even if there are fewer titles"
for _name, _measure in {
    "auc": AreaUnderCurve(
        "AUC", "how often a relevant pair outscores another one, over all pairs of the file", in_training=True
    ),
    "mrr@10": QueryMean(
        "MRR@10", "1 / place of the first relevant title, 0 from place 11 on", reciprocal_rank_at, 10, in_training=True
    ),
    "ndcg@10": QueryMean(
        "nDCG@10",
        "gain = label, discount = log2(place + 1), divided by the value of the query's ideal order",
        ndcg_at,
        10,
        in_training=True,
    ),
    "map": QueryMean(
        "MAP", "mean of the precisions at the places of the relevant titles", average_precision, in_training=True
    ),
    "p@1": QueryMean("P@1", "whether the first title is relevant", precision_at, 1),
    "p@5": QueryMean("P@5", _FIRST.format(5), precision_at, 5),
    "p@10": QueryMean("P@10", _FIRST.format(10), precision_at, 10),
    "r@10": QueryMean("R@10", _SHARE.format(10), recall_at, 10),
    "pairs_ordered": OrderedPairs(
        "pairs ordered", "share of a query's pairs of titles with different labels that are in order", in_training=True
    ),
    **{
        f"r@{cut}": RetrievalMean(f"R@{cut}", f"{_SHARE.format(cut)}, of searches of a collection", recall_at, cut)
        for cut in (1, 5, 20, 50, 100)
    },
}.items():
    MEASURES.add(_name, _measure)


def training_measures() -> list[str]:
    """Return the names of the measures that are `in_training`, see `Measure`."""
    return [name for name, measure in MEASURES.items() if measure.in_training]


def evaluate_ranking(queries: Queries, labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """Return the `in_training` measures that apply, by name, and the counts of pairs and queries.

    The measure `auc` and the count `pairs` are always present. Measures per query and the counts `queries` and
    `queries_with_positive` are present if a query has two titles or more. Raises `DataError` as `roc_auc` and `rank`
    do.
    """
    refuse_text(queries, "queries", object)
    scored = Scored(queries, labels, scores)
    count_relevant(scored.labels)
    ranking = scored.ranking
    values: dict[str, float] = {
        name: MEASURES[name].value(scored) for name in training_measures() if MEASURES[name].applies(scored)
    }
    if ranking.queries < len(ranking.query):
        values["queries"] = ranking.queries
        values["queries_with_positive"] = int((ranking.sum_by_query(ranking.relevant) > 0).sum())
    values["pairs"] = len(ranking.query)
    return values


def ranking_intervals(
    queries: Queries,
    labels: ArrayLike,
    scores: ArrayLike,
    baseline_scores: Optional[ArrayLike] = None,
    *,
    measures: Sequence[str] = HEADLINES,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 1000,
) -> dict[str, Interval]:
    """Return the confidence interval of each measure, by name.

    With `baseline_scores`, the intervals are those of the paired differences: `scores` minus `baseline_scores`.

    measures: names in `MEASURES`
    confidence, resamples, seed: as in `bootstrap_interval`
    """
    refuse_text(queries, "queries", object)
    refuse_text(measures, "measures")
    scored = Scored(queries, labels, scores)
    statistics = {name: MEASURES[name].statistic(scored) for name in measures}
    if baseline_scores is not None:
        baseline = Scored(queries, labels, baseline_scores)
        statistics = {
            name: difference(statistic, MEASURES[name].statistic(baseline)) for name, statistic in statistics.items()
        }
    return bootstrap_intervals(
        statistics, scored.ranking.queries, confidence=confidence, resamples=resamples, seed=seed
    )
