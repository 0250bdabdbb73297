"""Semantic-search ranking on PaddlePaddle: train a ranker, measure it, speed it up, serve it.

from paddle_ranker import Ranker, train

result = train("pairwise", train="mine.tsv", test="dev.tsv", output="checkpoint")
Ranker.load(result.best_checkpoint).rank("query", titles, top_k=10)
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from paddle_ranker.scoring.ranker import RankedTitle as RankedTitle
    from paddle_ranker.scoring.ranker import Ranker as Ranker
    from paddle_ranker.training.task import FitResult, OnEvaluation

__version__ = "0.1.0"
__all__ = ["RankedTitle", "Ranker", "__version__", "train"]


def __getattr__(name: str) -> Any:
    """Import Paddle when a ranker is first asked for, and choose its math library's code path just before."""
    if name in ("Ranker", "RankedTitle"):
        from paddle_ranker.runtime import prepare

        prepare(threads=0)
        from paddle_ranker.scoring import ranker

        return getattr(ranker, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def train(what: str, *, on_evaluation: Optional[OnEvaluation] = None, **options: Any) -> FitResult:
    """Train as the command of that name does, and return its result.

        result = train("pairwise", train="mine.tsv", test="dev.tsv", output="checkpoint", epochs=1)
        result.best_checkpoint, result.best["step"], result.best["auc"]

    Args:
        what: the command's name, with or without `train-`: pairwise, ce, batch-neg, simcse, entailment or pretrain.
        on_evaluation: called after each evaluation with the step and the measures, {"auc": 0.79, ...}; if it returns
            True, training stops there, as with --early_stopping. Only the first of several processes calls it.
        options: the command's options, under any name that the command accepts for them.

    Without a HOME that can be written the process gets a temporary one, as a command does. Raises the errors of the
    command: `UsageError` or another `RankerError`, whose message says what to do.
    """
    from paddle_ranker.commands.registry import COMMANDS
    from paddle_ranker.errors import UsageError, did_you_mean, quoted
    from paddle_ranker.libraries import ensure_home
    from paddle_ranker.options import options_from

    ensure_home()
    COMMANDS.load_plugins()
    trainings = {name.replace("train-", "", 1): one for name, one in COMMANDS.items() if one.options is not None}
    name = what.replace("train-", "", 1) if isinstance(what, str) else what
    if name not in trainings:
        raise UsageError(
            f"train {quoted(what)}: choose from {', '.join(trainings)}{did_you_mean(str(what), list(trainings))}"
        )
    if on_evaluation is not None and not callable(on_evaluation):
        raise UsageError(f"on_evaluation {quoted(on_evaluation)}: expected a function of a step and its measures")
    module = trainings[name].load()
    result: FitResult = module.train(
        options_from(getattr(module, str(trainings[name].options)), **options), on_evaluation=on_evaluation
    )
    return result


def _is_command() -> bool:
    """Return whether this process runs a command of the toolkit: `paddle-ranker`, `-m`, or a script of a checkout."""
    started = sys.argv[0] if sys.argv else ""
    if started == "-m" or os.path.basename(started) == "paddle-ranker":  # -m: of a module that is only looked for yet
        return True
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folders = os.path.relpath(os.path.abspath(started), root).split(os.sep)
    is_script = started.endswith(".py") and len(folders) in (2, 3) and folders[0] != os.pardir
    return is_script and os.path.isfile(os.path.join(root, "pyproject.toml"))


if _is_command():  # before all that it imports: there Ctrl-C would end in a traceback, and with another status
    from paddle_ranker.interrupts import report_early_interrupts

    report_early_interrupts()

from paddle_ranker.libraries import switch_off_telemetry  # noqa: E402  # an import, too

switch_off_telemetry()  # here, for whoever imports any part of this package, and then whatever library
