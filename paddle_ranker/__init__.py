"""Semantic-search ranking on PaddlePaddle: search, train a ranker, measure it, speed it up, serve it.

from paddle_ranker import Index, Ranker, evaluate, train

Index.build(rows, "my_index").search("quiet mouse")

result = train("pairwise", train="mine.tsv", test="dev.tsv", output="checkpoint")
Ranker.load(result.best_checkpoint).rank("query", titles, top_k=10)
evaluate(result.best_checkpoint, "dev.tsv").report()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker.version import __version__

if TYPE_CHECKING:
    from paddle_ranker.notebook import Index as Index
    from paddle_ranker.notebook import evaluate as evaluate
    from paddle_ranker.scoring.ranker import RankedTitle as RankedTitle
    from paddle_ranker.scoring.ranker import Ranker as Ranker
    from paddle_ranker.training.task import FitResult, OnEvaluation

__all__ = ["Index", "RankedTitle", "Ranker", "__version__", "evaluate", "train"]
_MODULES = {"Index": "notebook", "evaluate": "notebook", "Ranker": "scoring.ranker", "RankedTitle": "scoring.ranker"}


def __getattr__(name: str) -> Any:
    """Import a public class or function at its first use; first choose the code path of Paddle's math library."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from paddle_ranker.runtime import prepare

    prepare(threads=0)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def train(what: str, *, on_evaluation: Optional[OnEvaluation] = None, **options: Any) -> FitResult:
    """Train as the command `train-WHAT` does, and return the result.

        result = train("pairwise", train="mine.tsv", test="dev.tsv", output="checkpoint", epochs=1)
        result.best_checkpoint, result.best["step"], result.best["auc"]

    Args:
        what: the command's name, with or without `train-`: pairwise, ce, batch-neg, simcse, entailment or pretrain.
        on_evaluation: called after each evaluation with the step and the measures, {"auc": 0.79, ...}. If it returns
            True, training stops there, as with --early_stopping. Only the first of several processes calls it.
        options: the command's options, by any name that the command accepts. In place of a training or test file, a
            data frame or a list of mappings with the file's columns may be given.

    If HOME cannot be written to, it is set to a temporary folder, as in a command. Raises the errors of the command:
    `UsageError` or another `RankerError`, whose message says what to do.
    """
    from contextlib import ExitStack

    from paddle_ranker.commands.command_registry import COMMANDS
    from paddle_ranker.errors import UsageError, quoted, spelling_hint
    from paddle_ranker.libraries import ensure_home, switch_off_telemetry
    from paddle_ranker.options import options_from

    switch_off_telemetry()
    ensure_home()
    COMMANDS.load_plugins()
    commands = {name: command for name, command in COMMANDS.items() if command.options is not None}
    trainings = {name.replace("train-", "", 1): command for name, command in commands.items()}
    name = what.replace("train-", "", 1) if isinstance(what, str) else what
    if name not in trainings:
        raise UsageError(
            f"train {quoted(what)}: choose from {', '.join(trainings)}{spelling_hint(str(what), list(trainings))}"
        )
    if on_evaluation is not None and not callable(on_evaluation):
        raise UsageError(f"on_evaluation {quoted(on_evaluation)}: expected a function of a step and its measures")
    module = trainings[name].load()
    with ExitStack() as files:
        for option, value in options.items():
            if _is_table(value):
                from paddle_ranker.python_rows import written_rows

                options[option] = files.enter_context(written_rows(value))
        result: FitResult = module.train(
            options_from(getattr(module, str(trainings[name].options)), **options), on_evaluation=on_evaluation
        )
    return result


def _is_table(value: object) -> bool:
    """Return whether `value` is a data frame or a list of mappings."""
    return hasattr(value, "columns") or (isinstance(value, (list, tuple)) and any(isinstance(x, dict) for x in value))
