"""What this recipe adds to `paddle_ranker`: importing the module registers it, and imports nothing large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from multimodal_entailment.serve_options import LIMITS, PostLimits
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.http.endpoints import ENDPOINTS, Endpoint

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from paddle_ranker.serving.core.batcher import BatchObserver
    from paddle_ranker.serving.core.model_slot import ModelSlot, Served

PATH = "/v1/entailment"


class EntailmentModel(Endpoint):
    """Models of pairs of posts: `POST /v1/entailment`."""

    name, what, option = "entailment", "model of pairs of posts", "entailment_model"
    options, limits = PostLimits, LIMITS
    paths: ClassVar[Mapping[str, str]] = {PATH: "entailment"}

    def service(self, config: ServeConfig) -> ModelSlot[Any]:
        from multimodal_entailment.served import EntailmentService

        return EntailmentService(self.given(config))

    def load(self, config: ServeConfig, observer: BatchObserver) -> Served:
        from multimodal_entailment.served import load_entailment_model

        return load_entailment_model(config, self.given(config), observer)

    def routes(self, service: Any, config: ServeConfig) -> list[BaseRoute]:
        from starlette.routing import Route

        from multimodal_entailment.endpoint import EntailmentRoute

        route = EntailmentRoute(service, keep_texts=config.log_texts)
        return [Route(PATH, route.answer, methods=["POST"])]

    def info(self, service: Any, config: ServeConfig) -> dict[str, Any]:
        from multimodal_entailment.endpoint import info

        return info(service)

    def describe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        from multimodal_entailment.endpoint import describe

        paths, schemas = describe()
        return {PATH: paths}, schemas


ENDPOINTS.add(EntailmentModel.name, EntailmentModel())
