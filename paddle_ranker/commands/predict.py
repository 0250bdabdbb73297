"""Score the pairs of a file (query, title) with a model; the model's folder says which kind it is of.

paddle-ranker predict --model checkpoint/best --input pairs.tsv
paddle-ranker predict --model checkpoint/best --help
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.commands.registry import run_for_kind
from paddle_ranker.options import run_command
from paddle_ranker.scoring.options import PredictOptions


def predict(options: PredictOptions, expected_kind: Optional[str] = None) -> None:
    """Print `{'query': ..., 'title': ..., 'pred_prob': ...}` for every pair of the input file, in order."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.scoring.files import predict_pairs, shown_pair

    for pair, probability in predict_pairs(options, expected_kind):
        print(shown_pair(pair.query, pair.title, probability, pair.recall_score))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command for the model's kind, else this command, which takes any ranker; return the exit status."""
    status = run_for_kind("predict", argv)
    if status is not None:
        return status
    return run_command(predict, PredictOptions, argv, description=__doc__ or "", ends_with_reader=True)
