"""What an exported graph must not be fed: a runtime reads outside its memory, or dies, where the network would say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paddle_ranker.errors import CheckpointError, DataError
from paddle_ranker.model.config import EncoderConfig, read_config
from paddle_ranker.model.exported import INPUTS, OUTPUTS, ExportedFolder

_TYPES = 2  # token types of a ranker; a blend's second member has the next two, and so on


class InputLimits:
    """The ids and lengths that a graph takes.

    Args:
        configs: of the ranker, or of each member of a blend.
    """

    def __init__(self, configs: Sequence[EncoderConfig]):
        self._vocabulary = np.array([config.vocab_size for config in configs], np.int64)
        self._longest = sum(config.longest_pair for config in configs)

    @classmethod
    def of(cls, folder: ExportedFolder) -> InputLimits:
        """Return the limits of a static model."""
        if not folder.info.blend:
            return cls([folder.config])
        configs = [read_config(folder.folder / name) for name in folder.info.blend["members"]]
        return cls([folder.config if config is None else config for config in configs])

    def smallest(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a batch that any such graph takes: a blend's must hold something for each member."""
        types = [_TYPES * member + side for member in range(len(self._vocabulary)) for side in (0, 0, 0, 1, 1)]
        return np.ones((2, len(types)), np.int64), np.array([types, types], np.int64)

    def check(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return both as C-contiguous int64 `[batch, length]`; raise `DataError` for what the graph does not take."""
        ids, types = (np.ascontiguousarray(values, np.int64) for values in (input_ids, token_type_ids))
        if ids.ndim != 2 or ids.shape != types.shape or not ids.shape[1]:
            raise DataError(
                f"input_ids {list(ids.shape)} and token_type_ids {list(types.shape)}: both must be [batch, length], "
                "and alike"
            )
        if ids.shape[1] > self._longest:
            raise DataError(f"pairs of {ids.shape[1]} tokens: the ranker has {self._longest} positions")
        if not ids.size:
            return ids, types
        if types.min() < 0 or types.max() >= _TYPES * len(self._vocabulary):
            raise DataError(f"token_type_ids from {types.min()} to {types.max()}: 0 to {_TYPES - 1} are there")
        vocabulary = self._vocabulary[0] if len(self._vocabulary) == 1 else self._vocabulary[types // _TYPES]
        is_wrong = (ids < 0) | (ids >= vocabulary)
        if is_wrong.any():
            row, column = np.argwhere(is_wrong)[0].tolist()
            most = int(np.broadcast_to(vocabulary, ids.shape)[row, column]) - 1
            raise DataError(f"input_ids[{row}, {column}] is {ids[row, column]}: the vocabulary's ids are 0 to {most}")
        return ids, types


def check_names(source: object, inputs: Sequence[str], outputs: int, expected: int = len(OUTPUTS)) -> None:
    """Raise `CheckpointError` where a graph's inputs are not the ones of a ranker, or it has not `expected` outputs."""
    if tuple(inputs) != INPUTS:
        raise CheckpointError(
            f"{source}: takes {', '.join(inputs)}, expected {', '.join(INPUTS)}: it is not a graph of this toolkit; "
            "export the ranker again"
        )
    if outputs != expected:
        raise CheckpointError(
            f"{source}: has {outputs} output{'s' * (outputs != 1)}, expected {', '.join(OUTPUTS[:expected])}: it is "
            "not the graph that its ranker.json describes; export the ranker again"
        )
