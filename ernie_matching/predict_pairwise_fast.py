"""Score pairs (query, title) with a pairwise ranker and a fast tokenizer: the same scores, or an error without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from ernie_matching.predict_pairwise import predict
from paddle_ranker.options import option, run_command
from paddle_ranker.scoring_options import PredictOptions


@dataclass(frozen=True)
class PredictFastOptions(PredictOptions):
    tokenizer: str = option(
        "fast", help="fast: tokenizers or fast_tokenizer, whichever is installed", choices=("fast", "tokenizers", "fast_tokenizer")
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; return its exit status."""
    return run_command(predict, PredictFastOptions, argv, description=__doc__ or "")


if __name__ == "__main__":
    raise SystemExit(main())
