"""Evaluate a cross-encoder on labelled pairs (query, title, label).

paddle-ranker evaluate --model checkpoint/best --test dev.tsv
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.evaluation.options import EvaluateOptions
from paddle_ranker.options import run_command


def evaluate(options: EvaluateOptions) -> None:
    """Print the AUC and the measures per query, with intervals, the accuracy and the cross-entropy."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.evaluation.command import print_evaluation, score_measured_pairs
    from paddle_ranker.evaluation.evaluate import classification_metrics

    _, pairs, logits = score_measured_pairs(options, "cross_encoder")
    print_evaluation(options, pairs, logits, classification_metrics(pairs.labels[pairs.candidates], logits))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(evaluate, EvaluateOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
