"""Score pairs (query, title) with a pairwise ranker and a fast tokenizer library: the same scores, or an error.

paddle-ranker predict-fast --model checkpoint/best --input pairs.tsv
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from ernie_matching.predict_pairwise import predict
from paddle_ranker.errors import DependencyError
from paddle_ranker.options import option, run_command
from paddle_ranker.scoring.options import PredictOptions

LIBRARIES = ("fast_tokenizer", "tokenizers")  # of the complete and of the modern stack


@dataclass(frozen=True)
class PredictFastOptions(PredictOptions):
    tokenizer: str = option("installed", help="the library that turns text into ids", choices=("installed", *LIBRARIES))


def predict_fast(options: PredictFastOptions) -> None:
    """Print what `predict_pairwise` prints.

    Raises `DependencyError` where no fast tokenizer library is installed.
    """
    predict(
        dataclasses.replace(options, tokenizer=_installed() if options.tokenizer == "installed" else options.tokenizer)
    )


def _installed() -> str:
    for name in LIBRARIES:
        if importlib.util.find_spec(name):
            return name
    raise DependencyError(
        "no fast tokenizer library is installed: pip install tokenizers, or use predict_pairwise.py, "
        "whose own tokenizer needs none"
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(predict_fast, PredictFastOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
