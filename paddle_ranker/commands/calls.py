"""Commands from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker.commands.registry import COMMANDS
from paddle_ranker.errors import UsageError, did_you_mean
from paddle_ranker.options import options_from

if TYPE_CHECKING:
    from paddle_ranker.training.task import FitResult, OnEvaluation

_PREFIX = "train-"


def train(what: str, *, on_evaluation: Optional[OnEvaluation] = None, **options: Any) -> FitResult:
    """Train as the command of that name does; return where it ended.

        result = train("pairwise", train="mine.tsv", test="dev.tsv", output="checkpoint", epochs=1)
        result.best_checkpoint, result.best["step"], result.best["auc"]

    Args:
        what: pairwise, ce, entailment or pretrain: the command `train-pairwise` and so on.
        on_evaluation: called with the step and the measures of each evaluation, {"auc": 0.79, ...}; what returns True
            ends the training there, as --early_stopping does. Of several processes the first one calls it.
        options: those of the command, by any of its names for them.

    Raises `UsageError` as the command does, and what else ends it: a `RankerError`, whose message says what to do.
    """
    COMMANDS.load_plugins()
    trainings = {name.replace(_PREFIX, "", 1): one for name, one in COMMANDS.items() if one.options is not None}
    name = what.replace(_PREFIX, "", 1) if isinstance(what, str) else what
    if name not in trainings:
        raise UsageError(
            f"train {what!r}: choose from {', '.join(trainings)}{did_you_mean(str(what), list(trainings))}"
        )
    if on_evaluation is not None and not callable(on_evaluation):
        raise UsageError(f"on_evaluation {on_evaluation!r}: expected a function of a step and its measures")
    module = trainings[name].load()
    result: FitResult = module.train(
        options_from(getattr(module, str(trainings[name].options)), **options), on_evaluation=on_evaluation
    )
    return result
