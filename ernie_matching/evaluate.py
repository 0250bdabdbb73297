"""Evaluate a pairwise ranker on labelled pairs (query, title, label)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from paddle_ranker import runtime
from paddle_ranker.options import option, run_command
from paddle_ranker.scoring_options import ScoringOptions


@dataclass(frozen=True)
class EvaluateOptions(ScoringOptions):
    init_from_ckpt: str = option(help="the ranker: a model folder, or its model_state.pdparams")
    test_file: str = option(help="labelled pairs: query, title, label")
    margin: Optional[float] = option(
        None, help="margin of the margin loss that is printed (default: what the ranker was trained with)", minimum=0
    )
    skip_bad_rows: bool = option(False, help="leave out malformed rows and count them, instead of stopping")


def evaluate(options: EvaluateOptions) -> None:
    """Print the AUC, the measures by query, and the margin loss."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.evaluation import EvaluationSet, mean_margin_loss
    from paddle_ranker.losses import margin_for
    from paddle_ranker.metrics import evaluate_ranking
    from paddle_ranker.scorer import DygraphEngine
    from paddle_ranker.scoring import load_for_scoring, say_truncated

    parts = load_for_scoring(options.init_from_ckpt, options, "pairwise")
    evaluation = EvaluationSet(
        options.test_file, parts.pair_encoder, options.batch_size, skip_bad_rows=options.skip_bad_rows
    )
    if evaluation.skipped:
        print(f"{options.test_file}: {evaluation.report}")
    say_truncated(parts.pair_encoder)
    logits = evaluation.logits(DygraphEngine(parts.network))
    figures = evaluate_ranking(evaluation.queries, evaluation.labels, logits)

    loss = parts.info.training.get("loss", "margin_probability")  # that of the published checkpoints
    margin = margin_for(loss, options.margin if options.margin is not None else parts.info.training.get("margin"))
    figures["margin_loss"] = mean_margin_loss(
        evaluation.queries, evaluation.labels, logits, margin, probabilities=loss == "margin_probability"
    )
    print(f"eval_dev auc:{figures.pop('auc'):.3f}")
    for name, value in figures.items():
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(evaluate, EvaluateOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
