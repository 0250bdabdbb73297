"""Score pairs (query, title) with a pairwise ranker, one line per pair.

paddle-ranker predict --model checkpoint/best --input pairs.tsv
"""

from __future__ import annotations

from paddle_ranker.commands.predict import predict
from paddle_ranker.options import main_of
from paddle_ranker.scoring.scoring_options import PrintingOptions

main = main_of(predict, PrintingOptions, __doc__, ends_with_reader=True)


if __name__ == "__main__":
    raise SystemExit(main())
