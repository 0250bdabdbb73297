"""Score pairs (query, title) with a pairwise ranker, one line a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.options import run_command
from paddle_ranker.scoring.options import PredictOptions


def predict(options: PredictOptions) -> None:
    """Print `{'query': ..., 'title': ..., 'pred_prob': ...}` for every pair of the input file, in order."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.scoring.files import predict_pairs, shown_pair

    for pair, probability in predict_pairs(options, "pairwise"):
        print(shown_pair(pair.query, pair.title, probability, pair.recall_score))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(predict, PredictOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
