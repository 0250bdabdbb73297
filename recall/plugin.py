"""Towers on the server: their slot, and the routes that return vectors. Importing it does not import Paddle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from paddle_ranker.model.tower import KIND
from paddle_ranker.scoring.engines.registry import ENGINES
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.slot_kinds import SLOTS, SlotKind
from paddle_ranker.serving.core.tower_options import LIMITS, TOWER, TowerOptions
from paddle_ranker.serving.http.endpoints import ENDPOINTS, Endpoint

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from paddle_ranker.serving.core.faults import Fault
    from paddle_ranker.serving.core.slots import Served, Slot, Slots


def _slot(config: ServeConfig) -> Slot[Served]:
    from paddle_ranker.serving.core.tower_slot import TowerSlot

    return TowerSlot(config, config if isinstance(config, TowerOptions) else TowerOptions())


def _needs_paddle(config: ServeConfig) -> bool:
    engine = (config.tower_engine if isinstance(config, TowerOptions) else None) or config.engine
    return engine is None or ENGINES[engine].needs_paddle


class _Vectors(Endpoint):
    """Vectors of texts, for clients of Text Embeddings Inference."""

    slots = (TOWER,)
    paths: ClassVar[Mapping[str, str]] = {
        "/embed": "tei_embed", "/": "tei_embed", "/embed_all": "tei_embed", "/embed_sparse": "tei_embed"
    }  # fmt: skip

    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        from paddle_ranker.serving.core.tower_slot import TowerSlot
        from paddle_ranker.serving.http.embeddings import routes

        return routes(slots.of(TOWER, TowerSlot), self.paths, keep_texts=config.log_texts)


class _OpenAI(_Vectors):
    """Vectors of texts, for clients of OpenAI, Voyage and compatible services."""

    paths: ClassVar[Mapping[str, str]] = {"/v1/embeddings": "embeddings", "/embeddings": "embeddings"}
    example = (
        'curl SERVER/v1/embeddings -H \'Content-Type: application/json\' -d \'{"input": ["深度学习", "老年人护理"]}\''
    )

    def refusal(self, fault: Fault, request_id: str) -> dict[str, object]:
        from paddle_ranker.serving.http.embeddings import openai_refusal

        return openai_refusal(fault, request_id)


SLOTS.add(TOWER, SlotKind(TOWER, "tower", TowerOptions, _slot, (KIND,), LIMITS, _needs_paddle, takes_encoders=True))
ENDPOINTS.add("embeddings", _OpenAI())
ENDPOINTS.add("embed", _Vectors())
