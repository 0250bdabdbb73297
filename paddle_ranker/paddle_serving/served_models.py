"""The models of a server that Paddle Serving's protocols ask."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Optional

from paddle_ranker.serving.core.server_config import RANKER_SLOT, ServeConfig
from paddle_ranker.serving.slots.ranker_slot import RankerSlot
from paddle_ranker.serving.slots.services import ScoringService, VectorService
from paddle_ranker.serving.slots.slots import Slots
from paddle_ranker.serving.slots.tower_options import TOWER_SLOT


@dataclass
class Models:
    """Models that score pairs or compute vectors, and refuse what the server has no model for.

    ranker: scores pairs; without a ranker, a service that refuses all requests
    tower: computes vectors; None without a tower
    has_ranker: whether the server has a ranker
    """

    ranker: ScoringService
    tower: Optional[VectorService] = None
    has_ranker: bool = True


def models_of(slots: Slots, config: ServeConfig) -> Models:
    """Return the models for Paddle Serving's protocols. Without a ranker, pairs are refused."""
    has_ranker = RANKER_SLOT in slots
    ranker = slots.of(RANKER_SLOT, RankerSlot) if has_ranker else RankerSlot(dataclasses.replace(config, model=None))
    tower = None
    if TOWER_SLOT in slots:
        from paddle_ranker.serving.slots.tower_slot import TowerSlot

        tower = slots.of(TOWER_SLOT, TowerSlot)
    return Models(ranker, tower, has_ranker)
