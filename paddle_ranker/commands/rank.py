"""Rank the titles of each query of a file, best first.

paddle-ranker rank --model checkpoint/best --input pairs.tsv --top_k 5
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from paddle_ranker import runtime
from paddle_ranker.options import json_text, main_of, option
from paddle_ranker.scoring.scoring_options import RankingOptions


@dataclass(frozen=True)
class RankOptions(RankingOptions):
    top_k: int = option(10, help="titles that are shown of each query", minimum=1)
    max_queries: int = option(0, help="stop after so many queries; 0: all", minimum=0)
    format: str = option("text", help="text for people, jsonl for programs", choices=("text", "jsonl"))


def rank(options: RankOptions) -> None:
    """Print the best `top_k` titles of every query; queries keep the order of the file."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.scoring.by_query import rank_by_query
    from paddle_ranker.scoring.files import shown_probability

    ranked = rank_by_query(options, options.top_k)
    for query, titles in islice(ranked, options.max_queries or None):
        if options.format == "jsonl":
            shown = [
                {
                    "title": t.title,
                    "probability": shown_probability(t.probability),
                    **({} if t.answer is None else t.answer.as_json()),
                }
                for t in titles
            ]
            print(json_text({"query": query, "titles": shown}))
        else:
            print(f"\n{query}")
            for place, t in enumerate(titles, 1):
                print(f"{place:4}. {t.probability:.4f}  {t.title}")
                if t.answer is not None:
                    print(f"      {t.answer}")


main = main_of(rank, RankOptions, __doc__, ends_with_reader=True)
