"""Semantic-search ranking on PaddlePaddle: train a ranker, measure it, speed it up, serve it.

from paddle_ranker import Ranker, train

result = train("pairwise", train="mine.tsv", test="dev.tsv", output="checkpoint")
Ranker.load(result.best_checkpoint).rank("query", titles, top_k=10)
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle_ranker.commands.calls import train as train
    from paddle_ranker.scoring.ranker import RankedTitle as RankedTitle
    from paddle_ranker.scoring.ranker import Ranker as Ranker

__version__ = "0.1.0"
__all__ = ["RankedTitle", "Ranker", "__version__", "train"]


def __getattr__(name: str) -> Any:
    """Import Paddle when a ranker is first asked for, and choose its math library's code path just before."""
    if name in ("Ranker", "RankedTitle"):
        from paddle_ranker.runtime import prepare

        prepare(threads=0)
        from paddle_ranker.scoring import ranker

        return getattr(ranker, name)
    if name == "train":
        from paddle_ranker.commands.calls import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _is_command() -> bool:
    """Return whether this process runs one of the toolkit's commands: the installed one, or a script of a checkout."""
    started = sys.argv[0] if sys.argv else ""
    if started == "-m" or os.path.basename(started) == "paddle-ranker":  # -m: of a module that is only looked for yet
        return True
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folders = os.path.relpath(os.path.abspath(started), root).split(os.sep)
    is_script = started.endswith(".py") and len(folders) in (2, 3) and folders[0] != os.pardir
    return is_script and os.path.isfile(os.path.join(root, "pyproject.toml"))


if _is_command():  # before all that it imports: there Ctrl-C would end in a traceback, and with another status
    from paddle_ranker.interrupts import wait_for_imports

    wait_for_imports()
