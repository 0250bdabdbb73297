"""One trained ranker or several as one: the mean of their logits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paddle_ranker import runtime
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.metrics.ranking import Floats
from paddle_ranker.scoring.options import ScoringOptions


class Teachers:
    """Score pairs with every ranker that `sources` names, each with its own tokenizer, length and calibration.

    Rankers that differ in scale weigh differently in the mean of logits: calibrate them first.

    sources: model folders (or parameter files), `os.pathsep` between them
    options: device, batch size and the like; prepares the process for Paddle

    Raises `CheckpointError` where one cannot be loaded.
    """

    def __init__(self, sources: str, options: ScoringOptions) -> None:
        runtime.prepare_command(options.cpu_threads)
        from paddle_ranker.scoring.files import scorer_for
        from paddle_ranker.scoring.loading import load_model

        self._rankers = []
        for source in split_paths(sources):
            parts = load_model(source, options.load_options())
            self._rankers.append(scorer_for(parts, options))

    def __len__(self) -> int:
        return len(self._rankers)

    def logits(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the mean logit of every (queries[i], titles[i]), `[n] float64`."""
        logits = [scorer.logits(scorer.encode(queries, titles)) for scorer in self._rankers]
        return np.asarray(np.mean(logits, axis=0), np.float64)

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the sigmoid of every mean logit, `[n] float64`."""
        return np.asarray(sigmoid(self.logits(queries, titles)), np.float64)

    def say_truncated(self) -> None:
        """Say of each ranker how many pairs were too long for it, if any were."""
        from paddle_ranker.scoring.files import say_truncated

        for scorer in self._rankers:
            say_truncated(scorer.pair_encoder, scorer.windows)


def split_paths(paths: str) -> list[str]:
    """Return the paths between which `os.pathsep` stands; a path that is there is one, whatever is in its name."""
    return [paths] if Path(paths).exists() else paths.split(os.pathsep)
