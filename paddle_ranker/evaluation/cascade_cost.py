"""Measure how much ranking quality a cascade of a small and a large ranker loses, and how much faster it is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Callable

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.evaluation.comparison import Comparison, System, compare_systems
from paddle_ranker.evaluation.measuring_options import MeasuringOptions
from paddle_ranker.evaluation.systems import read_measured_pairs
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.scoring.by_query import options_of_small
from paddle_ranker.scoring.cascade import chosen, rerank
from paddle_ranker.scoring.files import scorer_for
from paddle_ranker.scoring.loading import open_model

SHOWN = ("auc", "mrr@10", "ndcg@10")

# A function that scores the titles of one query, given their row numbers, `[n] int64`.
Way = Callable[[np.ndarray], object]


@dataclass(frozen=True)
class Timing:
    """Speed of a ranking method: mean and median milliseconds per query, and titles per second."""

    name: str
    mean: float
    median: float
    titles_per_second: float


@dataclass(frozen=True)
class MeasuredCascade:
    """Measures and timings of the large ranker, the small ranker and the cascade of both, in this order.

    comparison: measures of the rankers and the cascade
    timings: speeds of the rankers and the cascade
    titles, queries: number of titles and of queries that were scored
    seen: number of titles that the large ranker scores in the cascade
    """

    comparison: Comparison
    timings: list[Timing]
    titles: int
    queries: int
    seen: int


def measure_cascade(
    options: MeasuringOptions, large: str, small: str, depth: int, *, rounds: int, timed_queries: int
) -> MeasuredCascade:
    """Score the pairs of the options' files with both rankers; compare and time both rankers and their cascade.

    large, small: paths of the rankers
    depth: number of titles of a query that the large ranker scores in the cascade
    rounds: how often each query is timed; its shortest time counts
    timed_queries: number of queries that are timed
    """
    pairs = read_measured_pairs(options, {})
    queries, titles = pairs.texts(large)
    scorers, logits = [], []
    for path, of_ranker in ((large, options), (small, options_of_small(options, small))):
        ranker = open_model(path, RANKER, LoadOptions.of(of_ranker))
        scorers.append(scorer_for(ranker, of_ranker, options.test_file))
        logits.append(scorers[-1].logits(scorers[-1].encode(queries, titles)))
    rows_of: dict[str, list[int]] = {}
    for row, query in enumerate(query for query, is_one in zip(pairs.query_ids, pairs.candidates) if is_one):
        rows_of.setdefault(query, []).append(row)
    groups = [np.array(rows) for rows in rows_of.values()]

    def score(stage: int, rows: np.ndarray) -> np.ndarray:
        return scorers[stage].score([queries[row] for row in rows], [titles[row] for row in rows])

    ways: dict[str, Way] = {
        "large": lambda rows: score(0, rows),
        "small": lambda rows: score(1, rows),
        f"cascade:{depth}": lambda rows: score(0, rows[chosen(score(1, rows), depth)]),
    }
    columns = [*logits, cascade_scores(groups, logits[0], logits[1], depth)]
    systems = [System(name, pairs.spread(column), "model") for name, column in zip(ways, columns)]
    comparison = compare_systems(pairs, systems, ties=options.ties, resamples=options.resamples, seed=options.seed)
    comparison = replace(comparison, measures=[name for name in SHOWN if name in comparison.measures])
    timings = time_ways(ways, groups[:timed_queries], rounds)
    seen = sum(min(depth, len(rows)) for rows in groups)
    return MeasuredCascade(comparison, timings, len(titles), len(groups), seen)


def cascade_scores(groups: Sequence[np.ndarray], large: Floats, small: Floats, depth: int) -> Floats:
    """Return scores that order each query's titles as the cascade does, `[n] float64`.

    groups: each query's row numbers
    large, small: both rankers' logits of all rows, `[n] float64`
    """
    scores = np.empty(len(small), np.float64)
    for rows in groups:
        best = chosen(small[rows], depth)
        order, ordered = rerank(small[rows], best, large[rows[best]])
        scores[rows[order]] = ordered
    return scores


def time_ways(
    ways: Mapping[str, Way],
    groups: Sequence[np.ndarray],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time ranking methods on each query, one after another, in several rounds; a query's shortest time counts.

    ways: ranking functions by name; each is called with the row numbers of a query's titles
    groups: row numbers of each query's titles
    """
    best = {name: np.full(len(groups), np.inf) for name in ways}
    for way in ways.values():
        way(groups[0])  # the first call is slower, because it chooses kernels
    for _ in range(rounds):
        for place, rows in enumerate(groups):
            for name, way in ways.items():
                began = clock()
                way(rows)
                best[name][place] = min(best[name][place], clock() - began)
    count = sum(map(len, groups))
    return [
        Timing(name, 1000 * float(taken.mean()), 1000 * float(np.median(taken)), count / float(taken.sum()))
        for name, taken in best.items()
    ]
