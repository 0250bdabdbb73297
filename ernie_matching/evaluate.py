"""Evaluate a pairwise ranker on labelled pairs (query, title, label).

paddle-ranker evaluate --model checkpoint/best --test dev.tsv
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, cast

from paddle_ranker import runtime
from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.evaluation.measuring_options import EvaluateOptions
from paddle_ranker.options import main_of, note, option
from paddle_ranker.registry import VARIABLE

if TYPE_CHECKING:
    from paddle_ranker.array_types import Floats
    from paddle_ranker.evaluation.pairs import MeasuredPairs
    from paddle_ranker.model.info import RankerInfo


@dataclass(frozen=True)
class EvaluatePairwiseOptions(EvaluateOptions):
    margin: Optional[float] = option(
        None, help="margin of the printed margin loss (default: the margin of the ranker's training)", minimum=0
    )


def evaluate(options: EvaluatePairwiseOptions) -> None:
    """Print the AUC and the measures per query, with intervals, and the margin loss."""
    runtime.prepare_command(options.cpu_threads)
    from paddle_ranker.evaluation.command_steps import print_evaluation, score_measured_pairs

    ranker, pairs, logits = score_measured_pairs(options)
    print_evaluation(options, pairs, logits, _margin_loss(options, ranker.info, pairs, logits))


def _margin_loss(
    options: EvaluatePairwiseOptions, info: RankerInfo, pairs: MeasuredPairs, logits: Floats
) -> dict[str, float]:
    """Return the margin loss by its name; empty, with a note, if the ranker's loss is unknown here."""
    from paddle_ranker.evaluation.evaluation_set import mean_margin_loss
    from paddle_ranker.training.losses.expression import margin_of

    loss = str(info.training.get("loss", "margin_probability"))  # the default is the published checkpoints' loss
    trained_with = cast(Optional[float], info.training.get("margin"))
    try:
        margin, on_probabilities = margin_of(loss, trained_with if options.margin is None else options.margin)
    except UsageError:
        note(
            f"note: no margin_loss: {options.init_from_ckpt} was trained with {quoted(loss)}, whose margin is not "
            f"known here; {VARIABLE} names the module that adds this loss"
        )
        return {}
    queries, _ = pairs.texts("the margin loss")
    labels = pairs.labels[pairs.candidates]
    # Undo the calibration: the margin was trained on logits that were not calibrated.
    trained = info.calibration.undo(logits) if info.calibration else logits
    return {"margin_loss": mean_margin_loss(queries, labels, trained, margin, probabilities=on_probabilities)}


main = main_of(evaluate, EvaluatePairwiseOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
