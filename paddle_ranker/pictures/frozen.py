"""Frozen networks of pictures: each picture is computed once, and only what follows the network is trained.

Zhai et al., 2022, "LiT: Zero-Shot Transfer with Locked-image Text Tuning".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from paddle_ranker.array_types import Array, Arrays, Integers
from paddle_ranker.encoding.columns import Columns, Indices
from paddle_ranker.model.tower_network import TowerModel
from paddle_ranker.pictures.picture_encoder import PictureCache
from paddle_ranker.progress import Progress
from paddle_ranker.scoring.engines.dygraph import DygraphEngine


@dataclass(frozen=True)
class PooledPictures(Columns):
    """Pooled states of pictures.

    states: `[n, hidden]` float32
    cost: cost of a picture as a number of tokens
    """

    states: Array
    cost: int

    def __len__(self) -> int:
        return len(self.states)

    def lengths_of(self, indices: Indices) -> Integers:
        """Return `cost` for each picture, `[m]` int64."""
        return np.full(len(indices), self.cost)

    def take(self, indices: Indices) -> PooledPictures:
        return replace(self, states=self.states[np.asarray(indices, np.int64)])

    def pad(self, indices: Indices) -> Arrays:
        """Return the states of the pictures at `indices`; all have one size, so nothing is padded."""
        return {"states": np.array(self.states[np.asarray(indices, np.int64)])}

    @classmethod
    def concat(cls, parts: Sequence[PooledPictures]) -> PooledPictures:
        return replace(parts[0], states=np.concatenate([part.states for part in parts]))


def freeze(tower: TowerModel, pictures: Columns, batch_size: int, folder: Path, max_bytes: int) -> Columns:
    """Freeze the encoder of a tower of pictures, and return the pooled states of pictures.

    folder: folder of a file that keeps states beyond `max_bytes`; up to that they are in memory
    """
    network = tower.network
    engine, shape = DygraphEngine(network, tower.signature), (network.config.hidden_size,)
    states = PictureCache(len(pictures), shape, np.float32, folder, max_bytes).values
    parts: Progress[tuple[Integers, Columns]] = Progress(
        pictures.chunks(batch_size), desc="frozen pictures", unit="batch", total=-(-len(pictures) // batch_size)
    )
    for rows, batch in parts:
        states[rows] = engine.call(network.pooled, batch.pad(np.arange(len(batch))))[0]
    for parameter in network.encoder.parameters():
        parameter.stop_gradient = True
    network.is_frozen = True
    return PooledPictures(states, tower.row_encoder.max_length)
