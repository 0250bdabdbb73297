"""The parts of split rankers that are exported, too; importing this module registers them, and is fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddle_ranker.model.builtin_kinds import RANKER_PARTS

if TYPE_CHECKING:
    from paddle_ranker.encoding.pair_encoder import PairEncoder
    from paddle_ranker.model.info import RankerInfo
    from paddle_ranker.model.model_kind import ModelPart, TrainedModel


def _parts(model: TrainedModel[RankerInfo, PairEncoder]) -> tuple[ModelPart, ...]:
    if not model.info.stored_titles:
        return ()
    from paddle_ranker.stored_titles.split import parts

    return parts(model)


RANKER_PARTS.add("stored titles", _parts)
