"""Measure a model on labelled pairs (query, title, label); the kind of model is read from its folder.

paddle-ranker evaluate --model checkpoint/best --test dev.tsv
paddle-ranker evaluate --model checkpoint/best --help
"""

from __future__ import annotations

from paddle_ranker import runtime
from paddle_ranker.commands.command_registry import main_for_kinds
from paddle_ranker.evaluation.measuring_options import EvaluateOptions
from paddle_ranker.options import main_of


def evaluate(options: EvaluateOptions) -> None:
    """Print the AUC, the measures by query with their intervals, the accuracy and the cross-entropy."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.evaluation.command_steps import print_evaluation, score_measured_pairs
    from paddle_ranker.evaluation.evaluation_set import classification_metrics

    _, pairs, logits = score_measured_pairs(options)
    print_evaluation(options, pairs, logits, classification_metrics(pairs.labels[pairs.candidates], logits))


main = main_for_kinds("evaluate", main_of(evaluate, EvaluateOptions, __doc__))
