"""Evaluate a pairwise ranker on labelled pairs (query, title, label).

paddle-ranker evaluate --model checkpoint/best --test dev.tsv
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, cast

from paddle_ranker import runtime
from paddle_ranker.evaluation.options import EvaluateOptions
from paddle_ranker.options import option, run_command


@dataclass(frozen=True)
class EvaluatePairwiseOptions(EvaluateOptions):
    margin: Optional[float] = option(
        None, help="margin of the margin loss that is printed (default: what the ranker was trained with)", minimum=0
    )


def evaluate(options: EvaluatePairwiseOptions) -> None:
    """Print the AUC and the measures per query, with intervals, and the margin loss."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.evaluation.command import print_evaluation, score_measured_pairs
    from paddle_ranker.evaluation.evaluate import mean_margin_loss
    from paddle_ranker.training.losses.expression import margin_of

    parts, pairs, logits = score_measured_pairs(options, "pairwise")
    queries, _ = pairs.texts("the margin loss")
    training = parts.info.training
    loss = str(training.get("loss", "margin_probability"))  # the default is the published checkpoints' loss
    trained_with = cast(Optional[float], training.get("margin"))
    margin, on_probabilities = margin_of(loss, trained_with if options.margin is None else options.margin)
    labels = pairs.labels[pairs.candidates]
    # Undo the calibration: the margin was trained on logits that were not calibrated.
    trained = parts.info.calibration.undo(logits) if parts.info.calibration else logits
    margin_loss = mean_margin_loss(queries, labels, trained, margin, probabilities=on_probabilities)
    print_evaluation(options, pairs, logits, {"margin_loss": margin_loss})


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(evaluate, EvaluatePairwiseOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
