"""How an engine gets logits out of a graph: there is an output with them, or the probability alone."""

from __future__ import annotations

from typing import Optional

import numpy as np

from paddle_ranker.metrics.calibration import Calibration
from paddle_ranker.model.exported import OUTPUTS, ExportedFolder

# Float32 goes down to 1e-38 at the one end, and has no number between this one and 1 at the other.
_LEAST, _MOST = float(np.finfo(np.float32).tiny), 1.0 - 2.0**-24


class LogitOutput:
    """What the outputs of a folder's static model are, and how they become logits.

    Attributes: `count`, how many outputs the graph has; `index`, which of them to fetch.
    """

    def __init__(self, folder: ExportedFolder):
        self.count = len(folder.outputs)
        self._is_logit = OUTPUTS[1] in folder.outputs
        self.index = folder.outputs.index(OUTPUTS[1]) if self._is_logit else 0
        self._calibration = None if self._is_logit else folder.info.calibration

    def logits(self, values: np.ndarray) -> np.ndarray:
        """Return float32 `[batch]` logits, not calibrated, of the fetched output, `[batch, 1]` float32."""
        flat = np.asarray(values, np.float32).reshape(-1)
        return flat if self._is_logit else logit_of(flat, self._calibration)


def logit_of(probability: np.ndarray, calibration: Optional[Calibration]) -> np.ndarray:
    """Return the ranker's own logit, float32, of a probability that its calibration has made.

    A probability that float32 rounds to 0 or 1 becomes the logit of its nearest neighbour.
    """
    clipped = np.clip(probability.astype(np.float64), _LEAST, _MOST)
    logit = np.log(clipped) - np.log1p(-clipped)
    return np.asarray(logit if calibration is None else calibration.undo(logit), np.float32)
