"""Calls of engines for logits, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np


def logits_of(engine: Any, input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
    """Return the logits, `[batch]`, of `[batch, length]` ids and token types."""
    found: np.ndarray = engine.run({"input_ids": input_ids, "token_type_ids": token_type_ids})["logit"]
    return found.reshape(-1)
