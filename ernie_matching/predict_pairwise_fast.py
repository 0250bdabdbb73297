"""Score pairs (query, title) with a pairwise ranker and the fast tokenizer, which every command uses: equal scores.

paddle-ranker predict-fast --model checkpoint/best --input pairs.tsv
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ernie_matching.predict_pairwise import predict
from paddle_ranker.options import main_of, option
from paddle_ranker.scoring.options import PrintingOptions


@dataclass(frozen=True)
class PredictFastOptions(PrintingOptions):
    tokenizer: str = option(
        "installed",
        help="accepted as before: each name means the built-in tokenizer, which gives the same ids as all of them",
        choices=("installed", "fast_tokenizer", "tokenizers"),
    )


def predict_fast(options: PredictFastOptions) -> None:
    """Print the scores as `predict_pairwise` does."""
    predict(dataclasses.replace(options, tokenizer="fast_tokenizer"))


main = main_of(predict_fast, PredictFastOptions, __doc__, ends_with_reader=True)


if __name__ == "__main__":
    raise SystemExit(main())
