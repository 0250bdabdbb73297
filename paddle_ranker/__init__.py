"""Semantic-search ranking on PaddlePaddle: train a ranker, measure it, speed it up, serve it.

from paddle_ranker import Ranker, train

result = train("pairwise", train="mine.tsv", test="dev.tsv", output="checkpoint")
Ranker.load(result.best_checkpoint).rank("query", titles, top_k=10)
"""

from __future__ import annotations

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
