"""This recipe's endpoint of the server; importing this module registers it, and is fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from multimodal_entailment.info import ENTAILMENT
from multimodal_entailment.serve_options import LIMITS, PostLimits
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.http.endpoints import ENDPOINTS, Endpoint
from paddle_ranker.serving.slots.slot_kinds import SLOTS, SlotKind

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from paddle_ranker.serving.slots.slots import Served, Slot, Slots

NAME, PATH = "entailment", "/v1/entailment"


def _slot(config: ServeConfig) -> Slot[Served]:
    from multimodal_entailment.served import EntailmentSlot

    return EntailmentSlot(config, config if isinstance(config, PostLimits) else PostLimits())


class Entailments(Endpoint):
    """Endpoint that says whether one post follows from another: `POST /v1/entailment`."""

    slots = (NAME,)
    paths: ClassVar[Mapping[str, str]] = {PATH: "entailment"}
    read_paths = paths.keys()

    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        from multimodal_entailment.endpoint import routes
        from multimodal_entailment.served import EntailmentSlot

        return routes(PATH, slots.of(NAME, EntailmentSlot), keep_texts=config.log_texts)


SLOTS.add(NAME, SlotKind("model of pairs of posts", "entailment_model", PostLimits, _slot, ENTAILMENT, LIMITS))
ENDPOINTS.add(NAME, Entailments())
