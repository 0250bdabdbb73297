"""Rank the titles of each query of a file (query, title) with a cross-encoder, one line a title, best first.

paddle-ranker predict --model checkpoint/best --input pairs.tsv --topk 10
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.options import option, run_command
from paddle_ranker.scoring.options import RankingOptions


@dataclass(frozen=True)
class PredictCeOptions(RankingOptions):
    batch_size: int = option(128, help="pairs of full length that are scored at once", minimum=1)
    topk: int = option(10, help="titles that are printed of each query", minimum=1)


def predict(options: PredictCeOptions) -> None:
    """Print `{'text_a': ..., 'text_b': ..., 'pred_prob': ...}` for the best `topk` titles of every query.

    Queries are in the order of their first occurrence in the file.
    """
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.scoring.by_query import rank_by_query
    from paddle_ranker.scoring.files import shown_pair

    for query, titles in rank_by_query(options, options.topk, "cross_encoder"):
        for found in titles:
            print(shown_pair(query, found.title, found.probability, found.recall_score, names=("text_a", "text_b")))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(predict, PredictCeOptions, argv, description=__doc__ or "", ends_with_reader=True)


if __name__ == "__main__":
    raise SystemExit(main())
