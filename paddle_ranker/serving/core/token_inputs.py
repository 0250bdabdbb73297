"""See that token arrays from the network are ones that the ranker's graph takes, before it meets them."""

from __future__ import annotations

import numpy as np

from paddle_ranker.encoding.columns import Columns
from paddle_ranker.errors import DataError, InputError
from paddle_ranker.scoring.loading import LoadedModel
from paddle_ranker.serving.core.faults import INVALID, Fault


class TokenInputs:
    """Check token arrays and turn them into pairs."""

    def __init__(self, loaded: LoadedModel):
        self._limits, self._encoder = loaded.engine.limits, loaded.pair_encoder

    def pairs(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> Columns:
        """Return `[n, length]` arrays as pairs; raises `Fault(INVALID)`, which names the place, where they are none."""
        try:
            arrays = self._limits.check({"input_ids": input_ids, "token_type_ids": token_type_ids})
            pairs: Columns = self._encoder.given(**arrays)
        except InputError as error:
            raise Fault(INVALID, error.problem, field=error.field) from error
        except DataError as error:
            raise Fault(INVALID, str(error)) from error
        return pairs
