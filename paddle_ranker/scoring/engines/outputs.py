"""Logits of a ranker's graph that returns the probability alone, as the folders for Paddle Serving do."""

from __future__ import annotations

from typing import Optional

import numpy as np

from paddle_ranker.encoding.columns import Arrays
from paddle_ranker.metrics.calibration import Calibration
from paddle_ranker.scoring.engines.base import Engine

# Float32 goes down to 1e-38 at the one end, and has no number between this one and 1 at the other.
_LEAST, _MOST = float(np.finfo(np.float32).tiny), 1.0 - 2.0**-24


class LogitOfProbability:
    """An engine that adds the output `logit`, not calibrated, to one that has `predict` alone."""

    def __init__(self, engine: Engine, calibration: Optional[Calibration]):
        self._engine, self._calibration = engine, calibration
        self.name, self.precision, self.limits = engine.name, engine.precision, engine.limits
        if hasattr(engine, "batch_tokens"):
            self.batch_tokens = engine.batch_tokens

    def run(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """Return `predict` and `logit`."""
        outputs = self._engine.run(arrays)
        return {**outputs, "logit": logit_of(outputs["predict"], self._calibration)}


def logit_of(probability: np.ndarray, calibration: Optional[Calibration]) -> np.ndarray:
    """Return the ranker's own logit, float32, of a probability that its calibration has made.

    A probability that float32 rounds to 0 or 1 becomes the logit of its nearest neighbour.
    """
    clipped = np.clip(probability.astype(np.float64), _LEAST, _MOST)
    logit = np.log(clipped) - np.log1p(-clipped)
    return np.asarray(logit if calibration is None else calibration.undo(logit), np.float32)
