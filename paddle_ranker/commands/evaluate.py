"""Measure a model on labelled pairs (query, title, label); the kind of model is read from its folder.

paddle-ranker evaluate --model checkpoint/best --test dev.tsv
paddle-ranker evaluate --model checkpoint/best --help
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.commands.command_registry import run_for_kind
from paddle_ranker.evaluation.measuring_options import EvaluateOptions
from paddle_ranker.options import run_command


def evaluate(options: EvaluateOptions) -> None:
    """Print the AUC, the measures by query with their intervals, the accuracy and the cross-entropy."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.evaluation.command_steps import print_evaluation, score_measured_pairs
    from paddle_ranker.evaluation.evaluation_set import classification_metrics

    _, pairs, logits = score_measured_pairs(options)
    print_evaluation(options, pairs, logits, classification_metrics(pairs.labels[pairs.candidates], logits))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command for the model's kind, else this command, which takes any ranker; return the exit status."""
    status = run_for_kind("evaluate", argv)
    if status is not None:
        return status
    return run_command(evaluate, EvaluateOptions, argv, description=__doc__ or "")
