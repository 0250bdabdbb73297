"""Evaluate a cross-encoder on labelled pairs (query, title, label).

paddle-ranker evaluate --model checkpoint/best --test dev.tsv
"""

from __future__ import annotations

from paddle_ranker.commands.evaluate import evaluate
from paddle_ranker.evaluation.measuring_options import EvaluateOptions
from paddle_ranker.options import main_of

main = main_of(evaluate, EvaluateOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
