"""Frozen networks of pictures: each picture is computed once, and only what follows the network is trained.

Zhai et al., 2022, "LiT: Zero-Shot Transfer with Locked-image Text Tuning".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from paddle_ranker.array_types import Array, Arrays, Integers
from paddle_ranker.encoding.columns import PICTURE, Columns, Indices
from paddle_ranker.errors import UsageError
from paddle_ranker.model.tower_network import TowerModel
from paddle_ranker.progress import Progress
from paddle_ranker.scoring.engines.dygraph import DygraphEngine
from paddle_ranker.training.training_options import TrainingOptions
from recall.data import TextPairs
from recall.training import TowerStart


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


def freeze_pictures(start: TowerStart, pairs: TextPairs, options: TrainingOptions) -> TextPairs:
    """Freeze the encoders of pictures, and return the pairs with these encoders' states in place of pictures.

    The states are kept in memory or, beyond the options' limit, in a file. Raises `UsageError` if no pictures are read,
    or if nothing is left to train.
    """
    model, queries = start.model, start.queries or start.model
    if PICTURE not in (model.row_encoder.reads, queries.row_encoder.reads):
        raise UsageError("--freeze_pictures: this tower reads no pictures: leave it out")
    titles = _frozen(model, pairs.titles, options)
    frozen = replace(
        pairs,
        titles=titles,
        queries=titles if pairs.queries is pairs.titles else _frozen(queries, pairs.queries, options),
    )
    if all(parameter.stop_gradient for parameter in model.network.parameters()):
        raise UsageError("--freeze_pictures: nothing is left to train: give --output_emb_size, or leave it out")
    return frozen


def _frozen(tower: TowerModel, pictures: Columns, options: TrainingOptions) -> Columns:
    """Freeze a tower's encoder, and return the pictures' pooled states; return other columns unchanged."""
    if tower.row_encoder.reads != PICTURE:
        return pictures
    from paddle_ranker.pictures.picture_encoder import PictureCache

    network, size = tower.network, options.batch_size
    engine = DygraphEngine(network, tower.signature)
    shape, memory = (network.config.hidden_size,), options.data_memory_mb << 20
    states = PictureCache(len(pictures), shape, np.float32, Path(options.save_dir), memory).values
    parts: Progress[tuple[Integers, Columns]] = Progress(
        pictures.chunks(size), desc="frozen pictures", unit="batch", total=-(-len(pictures) // size)
    )
    for rows, batch in parts:
        states[rows] = engine.call(network.pooled, batch.pad(np.arange(len(batch))))[0]
    for parameter in network.encoder.parameters():
        parameter.stop_gradient = True
    network.is_frozen = True
    return PooledPictures(states, tower.row_encoder.max_length)
