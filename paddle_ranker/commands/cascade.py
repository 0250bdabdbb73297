"""Measure a cascade, a small ranker before a large one: its cost in quality, and its gain in speed.

paddle-ranker cascade LARGE SMALL:20 --test dev.tsv
"""

from __future__ import annotations

from dataclasses import dataclass

from paddle_ranker import runtime
from paddle_ranker.evaluation.measuring_options import MeasuringOptions
from paddle_ranker.evaluation.report.text import comparison_json, systems_table
from paddle_ranker.options import json_text, main_of, note, option
from paddle_ranker.options.declare import FETCHED_FOLDER


@dataclass(frozen=True)
class CascadeOptions(MeasuringOptions):
    large: str = option(
        positional=True, help="the ranker that scores the best titles of each query", addresses=FETCHED_FOLDER
    )
    cascade: str = option(
        positional=True,
        help="SMALL_RANKER:20, the ranker that scores all titles, and the number left to the large ranker",
    )
    rounds: int = option(3, help="timed rounds of each way, in turns; the fastest counts", minimum=1)
    timed_queries: int = option(50, help="number of queries to time, one after another", minimum=1)


def cascade(options: CascadeOptions) -> None:
    """Measure a cascade; print how much quality it loses against the large ranker, and how much faster it is."""
    from paddle_ranker.scoring.cascade import parse_cascade

    small, depth = parse_cascade(options.cascade)
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.evaluation.cascade_cost import measure_cascade

    measured = measure_cascade(
        options, options.large, small, depth, rounds=options.rounds, timed_queries=options.timed_queries
    )
    comparison, timings = measured.comparison, measured.timings
    if options.format == "json":
        shown = comparison_json(comparison)
        shown["titles_seen_by_large"] = measured.seen
        shown["milliseconds"] = {timing.name: {"mean": timing.mean, "median": timing.median} for timing in timings}
        print(json_text(shown, indent=2))
        return
    for line in comparison.pairs.notes:
        note(line)
    count = f"{measured.titles:,} titles of {measured.queries:,} queries"
    print(f"large: {options.large}; small: {small}; {comparison.pairs.source}: {count}")
    print("\n".join(systems_table(comparison)))
    share = measured.seen / measured.titles
    print(f"\nthe large ranker scores {measured.seen:,} of the {measured.titles:,} titles ({share:.0%})")
    for timing in timings:
        print(
            f"{timing.name:12} {timing.mean:8.1f} ms a query (median {timing.median:.1f}), "
            f"{timing.titles_per_second:,.0f} titles/s, {timings[0].mean / timing.mean:.2f} times as fast as the large "
            "one"
        )


main = main_of(cascade, CascadeOptions, __doc__)
