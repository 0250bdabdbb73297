"""Evaluate a cross-encoder on labelled pairs (query, title, label)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.options import run_command
from paddle_ranker.scoring_options import EvaluateOptions


def evaluate(options: EvaluateOptions) -> None:
    """Print the AUC, the measures by query, the accuracy and the cross-entropy."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.evaluation import classification_figures
    from paddle_ranker.metrics import evaluate_ranking
    from paddle_ranker.scoring import print_figures, score_evaluation_file

    _, evaluation, logits = score_evaluation_file(options, "cross_encoder")
    figures = evaluate_ranking(evaluation.queries, evaluation.labels, logits)
    print_figures({**figures, **classification_figures(evaluation.labels, logits)})


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(evaluate, EvaluateOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
