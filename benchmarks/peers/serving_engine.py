"""The server's engine without the server: `python -m benchmarks.peers.serving_engine FOLDER ENGINE THREADS`.

It scores the pairs of all requests at once: in the scorer's batches, in batches of 32 pairs of similar length, or one
by one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.answers import Stopwatch, answer_commands, take_stdout
from paddle_ranker import runtime
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.model.model_folder import RANKER
from paddle_ranker.scoring.loading import open_model


def main() -> int:
    folder, engine, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    answers = take_stdout()
    runtime.prepare_command(threads)
    from paddle_ranker.scoring.scorer import Scorer

    loaded = open_model(folder / "exported", RANKER, LoadOptions(engine=engine, threads=threads))
    scorer = Scorer(loaded.engine, loaded.row_encoder)
    queries, titles = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    encoded = scorer.encode(queries, titles)
    order = np.argsort(encoded.lengths, kind="stable")

    def batches(size: int) -> Callable[[int], int]:
        def score(turn: int) -> int:
            count = len(order) // size
            start = turn % count * size if count else 0
            rows = order[start : start + size]
            scorer.compute(encoded, rows)
            return len(rows)

        return score

    def all_pairs(turn: int) -> int:
        return len(scorer.logits(encoded))

    ways = {"scorer": all_pairs, "batch_32": batches(32), "batch_1": batches(1)}
    all_pairs(0)  # every shape once, because an engine prepares for each new shape
    for size in (1, 32):
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            if size > 1 or not start or encoded.lengths[rows[0]] != encoded.lengths[order[start - 1]]:
                scorer.compute(encoded, rows)

    def answer(command: dict[str, Any]) -> dict[str, float]:
        return _timed(ways[command["way"]], command["seconds"], command["seed"])

    answer_commands(answers, answer, sys.stdin)
    return 0


def _timed(score: Callable[[int], int], seconds: float, seed: int) -> dict[str, float]:
    """Score for `seconds`, in batches drawn at random, so that short and long pairs balance."""
    turns = np.random.default_rng(seed).permutation(1 << 16)
    watch, pairs = Stopwatch(), 0
    for turn in turns.tolist():
        pairs += score(turn)
        if watch.seconds >= seconds:
            break
    return {"pairs": pairs, **watch.took()}


if __name__ == "__main__":
    sys.exit(main())
