"""See that token arrays from the network are ones that the ranker's graph takes, before it meets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from paddle_ranker.encoding.blend import TYPES, BlendedPairEncoder
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.errors import DataError
from paddle_ranker.model.exported import ExportedFolder
from paddle_ranker.scoring.engines.inputs import InputLimits
from paddle_ranker.scoring.loading import LoadedRanker
from paddle_ranker.serving.core.faults import INVALID, Fault
from paddle_ranker.serving.core.jobs import TokenPairs, token_pairs


class TokenInputs:
    """Check token arrays and turn them into pairs.

    Args:
        loaded: the ranker.
        folder: where it lies.
    """

    def __init__(self, loaded: LoadedRanker, folder: Path):
        network: Any = getattr(loaded.engine, "network", None)  # of a ranker that was not exported
        if network is not None:
            self._limits = InputLimits([member.config for member in getattr(network, "members", [network])])
        else:
            self._limits = InputLimits.of(ExportedFolder.open(folder if folder.is_dir() else folder.parent))
        encoder = loaded.pair_encoder
        self._pad_id = encoder.pad_id
        self._members = len(encoder.members) if isinstance(encoder, BlendedPairEncoder) else 1

    def pairs(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> EncodedPairs:
        """Return `[n, length]` arrays as pairs; raises `Fault(INVALID)`, which names the place, where they are none."""
        try:
            ids, types = self._limits.check(input_ids, token_type_ids)
        except DataError as error:
            raise Fault(INVALID, str(error)) from error
        if self._members > 1:
            self._check_sides(types)
            return TokenPairs.of(ids, types)
        is_empty = (ids == self._pad_id).all(axis=1)
        if is_empty.any():
            row = int(np.argmax(is_empty))
            raise Fault(INVALID, f"holds nothing but padding ({self._pad_id})", field=f"input_ids[{row}]")
        return token_pairs(ids, types, self._pad_id)

    def _check_sides(self, types: np.ndarray) -> None:
        """Raise `Fault` where the columns are not every member's own, one after another, alike in all rows."""
        owners = types // TYPES
        first = owners[0]
        sound = (owners == first).all() and (np.diff(first) >= 0).all()
        if not (sound and np.array_equal(np.unique(first), np.arange(self._members))):
            raise Fault(
                INVALID,
                f"of a blend, token types 0 and 1 are the first ranker's, 2 and 3 the second's, in columns of their "
                f"own: all {self._members} must be there, in this order, alike in every row",
                field="token_type_ids",
            )
