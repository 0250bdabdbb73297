"""Rank the titles of each query of a file (query, title) with a cross-encoder, one line a title, best first.

paddle-ranker predict --model checkpoint/best --input pairs.tsv --top_k 10
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.commands.predict import predict as predict_pairs
from paddle_ranker.options import main_of, option, redeclare
from paddle_ranker.scoring.scoring_options import PrintingOptions


@dataclass(frozen=True)
class PredictCeOptions(PrintingOptions):
    batch_size: int = option(128, help="pairs of maximum length per batch", minimum=1)
    topk: Optional[int] = redeclare(PrintingOptions, "topk", 10, help="number of titles to print for each query")


def predict(options: PredictCeOptions) -> None:
    """Print `{'text_a': ..., 'text_b': ..., 'pred_prob': ...}` for the best `topk` titles of every query.

    Queries are in the order of their first occurrence in the file.
    """
    predict_pairs(options, names=("text_a", "text_b"))


main = main_of(predict, PredictCeOptions, __doc__, ends_with_reader=True)


if __name__ == "__main__":
    raise SystemExit(main())
