"""What every engine is to those that score with it."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Engine(Protocol):
    """What computes logits; may be called from several threads at once.

    Attributes: `name`, as `--engine` has it; `precision`, of the matrix products.
    """

    name: str
    precision: str

    def logits(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        """Return float32 `[batch]` logits of int64 `[batch, length]` ids and token types."""
        ...
