"""This recipe's endpoint of the server; importing this module registers it, and is fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from multimodal_entailment.info import KIND
from multimodal_entailment.serve_options import LIMITS, PostLimits
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.slot_kinds import SLOTS, SlotKind
from paddle_ranker.serving.http.endpoints import ENDPOINTS, Endpoint

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from paddle_ranker.serving.core.slots import Served, Slot, Slots

NAME, PATH = "entailment", "/v1/entailment"


def _slot(config: ServeConfig) -> Slot[Served]:
    from multimodal_entailment.served import EntailmentSlot

    return EntailmentSlot(config, config if isinstance(config, PostLimits) else PostLimits())


class Entailments(Endpoint):
    """Endpoint for pairs of posts, does one follow from the other: `POST /v1/entailment`."""

    slots = (NAME,)
    paths: ClassVar[Mapping[str, str]] = {PATH: "entailment"}

    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        from starlette.routing import Route

        from multimodal_entailment.endpoint import EntailmentRoute
        from multimodal_entailment.served import EntailmentSlot

        route = EntailmentRoute(slots.of(NAME, EntailmentSlot), keep_texts=config.log_texts)
        return [Route(PATH, route.answer, methods=["POST"])]

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        from multimodal_entailment.endpoint import describe

        paths, schemas = describe()
        return {PATH: paths}, schemas


SLOTS.add(NAME, SlotKind("model of pairs of posts", "entailment_model", PostLimits, _slot, (KIND,), LIMITS))
ENDPOINTS.add(NAME, Entailments())
