"""Measure a small ranker before a large one: what the cascade costs, and how much faster it is.

python -m paddle_ranker cascade LARGE SMALL:20 --test_file dev.tsv
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Optional

from paddle_ranker import runtime
from paddle_ranker.evaluation.options import MeasuringOptions
from paddle_ranker.options import option, run_command

if TYPE_CHECKING:
    import numpy as np

    from paddle_ranker.metrics.ranking import Floats

SHOWN = ("auc", "mrr@10", "ndcg@10")


@dataclass(frozen=True)
class CascadeOptions(MeasuringOptions):
    """Options of `cascade`."""

    large: str = option(positional=True, help="the ranker that scores the best titles of each query")
    cascade: str = option(
        positional=True, help="SMALL_RANKER:20, the ranker that scores all titles, and how many the large one sees"
    )
    rounds: int = option(3, help="how often each way is timed, in turns; the best counts", minimum=1)
    timed_queries: int = option(50, help="queries that are timed, one after the other as they come in", minimum=1)


@dataclass(frozen=True)
class Timing:
    """What one way of ranking takes: mean and median milliseconds a query, and titles a second."""

    name: str
    mean: float
    median: float
    titles_per_second: float


def measure_cascade(options: CascadeOptions) -> None:
    """Score with both rankers, print what the cascade costs in ranking quality, and what it gains in speed."""
    from paddle_ranker.scoring.cascade import parse_cascade

    source, depth = parse_cascade(options.cascade)
    runtime.prepare_command(options.cpu_threads)
    import numpy as np

    from paddle_ranker.evaluation.comparison import System, compare_systems
    from paddle_ranker.evaluation.pairs import require_both_classes
    from paddle_ranker.evaluation.report.text import comparison_json, systems_table
    from paddle_ranker.evaluation.systems import messages, read_measured_pairs
    from paddle_ranker.scoring.cascade_by_query import options_of_small
    from paddle_ranker.scoring.files import load_for_scoring, say_truncated, scorer_for

    pairs = read_measured_pairs(options, {})
    if options.test_file is not None:
        require_both_classes(options.test_file, pairs.labels, "AUC")
    queries, titles = pairs.texts(options.large)
    scorers, logits = [], []
    for path, given in ((options.large, options), (source, options_of_small(options, source))):
        parts = load_for_scoring(path, given)
        scorers.append(scorer_for(parts, given))
        logits.append(scorers[-1].logits(scorers[-1].encode(queries, titles)))
        say_truncated(parts.pair_encoder, scorers[-1].windows, file=messages(options))
    rows_of: dict[str, list[int]] = {}
    for row, query in enumerate(query for query, is_one in zip(pairs.query_ids, pairs.candidates) if is_one):
        rows_of.setdefault(query, []).append(row)
    groups = [np.array(rows) for rows in rows_of.values()]

    names = ["large", "small", f"cascade:{depth}"]
    columns = [*logits, cascade_scores(groups, logits[0], logits[1], depth)]
    systems = [System(name, pairs.spread(column), "model") for name, column in zip(names, columns)]
    comparison = compare_systems(pairs, systems, ties=options.ties, resamples=options.resamples, seed=options.seed)
    comparison = replace(comparison, measures=[name for name in SHOWN if name in comparison.measures])
    seen = sum(min(depth, len(rows)) for rows in groups)

    def all_of(number: int) -> Callable[[np.ndarray], object]:
        return lambda rows: scorers[number].score([queries[row] for row in rows], [titles[row] for row in rows])

    def in_stages(rows: np.ndarray) -> object:
        from paddle_ranker.scoring.cascade import chosen

        small = scorers[1].score([queries[row] for row in rows], [titles[row] for row in rows])
        best = rows[chosen(small, depth)]
        return scorers[0].score([queries[row] for row in best], [titles[row] for row in best])

    timings = time_ways(
        dict(zip(names, (all_of(0), all_of(1), in_stages))), groups[: options.timed_queries], options.rounds
    )
    if options.format == "json":
        shown: dict[str, Any] = comparison_json(comparison)
        shown["titles_seen_by_large"] = seen
        shown["milliseconds"] = {one.name: {"mean": one.mean, "median": one.median} for one in timings}
        print(json.dumps(shown, ensure_ascii=False, indent=2))
        return
    for note in pairs.notes:
        print(note)
    print(f"large: {options.large}; small: {source}; {pairs.source}: {len(titles):,} titles of {len(groups):,} queries")
    print("\n".join(systems_table(comparison)))
    print(f"\nthe large ranker scores {seen:,} of the {len(titles):,} titles ({seen / len(titles):.0%})")
    for one in timings:
        print(
            f"{one.name:12} {one.mean:8.1f} ms a query (median {one.median:.1f}), "
            f"{one.titles_per_second:,.0f} titles/s, {timings[0].mean / one.mean:.2f} times as fast as the large one"
        )


def cascade_scores(groups: Sequence[np.ndarray], large: Floats, small: Floats, depth: int) -> Floats:
    """Return scores that order each query's titles as the cascade does, `[n] float64`.

    Args:
        groups: the rows of each query.
        large, small: both rankers' logits of all rows, `[n] float64`.
    """
    import numpy as np

    from paddle_ranker.scoring.cascade import chosen, rerank

    scores = np.empty(len(small), np.float64)
    for rows in groups:
        best = chosen(small[rows], depth)
        order, ordered = rerank(small[rows], best, large[rows[best]])
        scores[rows[order]] = ordered
    return scores


def time_ways(
    ways: Mapping[str, Callable[[np.ndarray], object]],
    groups: Sequence[np.ndarray],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time each way on each query, all ways in turns; of the rounds the best of each query counts."""
    import numpy as np

    best = {name: np.full(len(groups), np.inf) for name in ways}
    for way in ways.values():
        way(groups[0])  # the first time, kernels are chosen
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


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(measure_cascade, CascadeOptions, argv, description=(__doc__ or "").partition("\n")[0])
