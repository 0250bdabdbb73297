"""What those who run the server ask it: is it alive, is it ready, what does it serve, load the model anew."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable, Optional

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from paddle_ranker import __version__
from paddle_ranker.serving.core.config import API_KEY_VARIABLE, ServeConfig
from paddle_ranker.serving.core.faults import NOT_FOUND, UNAVAILABLE, Fault
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.service import EngineService
from paddle_ranker.serving.http.openapi import docs_page, openapi

if TYPE_CHECKING:
    from multimodal_entailment.served import EntailmentService

Reload = Callable[[], Awaitable[dict[str, Any]]]


class Operators:
    """The handlers of the routes.

    Args:
        entailment: answers for pairs of posts; None: nothing does.
        reload: loads the model anew and says what became of it; raises `Fault` where it did not take it.
        stopping: whether the server stops, and wants no more requests.
        connections: how many are open.
    """

    def __init__(
        self,
        service: EngineService,
        metrics: Metrics,
        config: ServeConfig,
        *,
        entailment: Optional[EntailmentService] = None,
        reload: Optional[Reload] = None,
        stopping: Callable[[], bool] = lambda: False,
        connections: Callable[[], int] = lambda: 0,
    ):
        self._service, self._metrics, self._config = service, metrics, config
        self._entailment = entailment
        self._reload, self._stopping, self._connections = reload, stopping, connections

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/live", self.live),
            Route("/ready", self.ready),
            Route("/health", self.ready),
            Route("/metrics", self.metrics),
            Route("/info", self.info),
            Route("/openapi.json", self.openapi),
            Route("/docs", self.docs),
            Route("/admin/reload", self.reload, methods=["POST"]),
        ]

    async def live(self, request: Request) -> Response:
        return _json({"status": "live"})

    async def ready(self, request: Request) -> Response:
        if self._stopping():
            raise Fault(UNAVAILABLE, "the server is stopping", retry_after=1.0)
        names = [self._service.name] if self._service.is_served else []
        names += [self._entailment.name] if self._entailment is not None else []
        return _json({"status": "ready", "model": " and ".join(names)})

    async def metrics(self, request: Request) -> Response:
        self._metrics.batches("ranker").queue(self._service.queued_pairs)
        if self._entailment is not None:
            self._metrics.batches("entailment").queue(self._entailment.queued_pairs)
        self._metrics.connections(self._connections())
        content, content_type = self._metrics.render()
        return Response(content, headers={"content-type": content_type})

    async def info(self, request: Request) -> Response:
        return _json(describe(self._service, self._config, self._entailment))

    async def openapi(self, request: Request) -> Response:
        return _json(self._openapi())

    async def docs(self, request: Request) -> Response:
        return HTMLResponse(docs_page(self._openapi()))

    def _openapi(self) -> dict[str, Any]:
        return openapi(ranker=self._service.is_served, entailment=self._entailment is not None)

    async def reload(self, request: Request) -> Response:
        """Load the model anew; only where callers must show a key."""
        if self._config.api_key is None or self._reload is None:
            raise Fault(NOT_FOUND, f"needs an API key: start the server with {API_KEY_VARIABLE} set, or send it SIGHUP")
        outcome = await self._reload()
        return _json(outcome, 202 if outcome["status"] == "passed on" else 200)


def describe(
    service: EngineService, config: ServeConfig, entailment: Optional[EntailmentService] = None
) -> dict[str, Any]:
    """Return what `/info` shows; a ranker's first names are those of Text Embeddings Inference."""
    shown = _ranker(service, config) if service.is_served else {"version": __version__}
    if entailment is not None:
        shown["entailment"] = _entailment(entailment)
    return {
        **shown,
        "device": config.device,
        "workers": config.workers,
        "streams": config.streams,
        "cpu_threads": config.cpu_threads,
        "max_wait_us": config.max_wait_us,
        "limits": dataclasses.asdict(config.limits),
        "timeouts": {
            "header_seconds": config.header_seconds,
            "body_seconds": config.body_seconds,
            "idle_seconds": config.idle_seconds,
            "drain_seconds": config.drain_seconds,
        },
        "protocols": ["baidu_std", "http", "grpc"],
    }


def _ranker(service: EngineService, config: ServeConfig) -> dict[str, Any]:
    model = service.model
    if model is None:
        raise Fault(UNAVAILABLE, "the ranker is not loaded yet", retry_after=1.0)
    loaded, scorer = model.loaded, model.batcher.scorer
    calibration = loaded.info.calibration
    return {
        "model_id": model.name,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_input_length": loaded.pair_encoder.max_seq_length,
        "max_client_batch_size": config.limits.pairs,
        "version": __version__,
        "kind": loaded.info.kind,
        "calibrated": None if calibration is None else calibration.method,
        "loaded_at": model.loaded_at,
        "engine": loaded.engine.name,
        "precision": loaded.engine.precision,
        "tokenizer": loaded.pair_encoder.backend,
        "batch_tokens": scorer.max_tokens,
        "batch_pairs": scorer.max_rows,
    }


def _entailment(service: EntailmentService) -> dict[str, Any]:
    served = service.model
    if served is None:
        raise Fault(UNAVAILABLE, "the model of pairs of posts is not loaded yet", retry_after=1.0)
    info = served.model.info
    return {
        "model_id": served.name,
        "labels": list(service.labels),
        "max_input_length": info.max_seq_length,
        "vision": info.vision,
        "image_size": info.image_size,
        "loaded_at": served.loaded_at,
        "engine": served.model.engine,
        "batch_pairs": served.model.max_rows,
    }


def _json(content: object, status: int = 200) -> Response:
    encoded = json.dumps(content, ensure_ascii=False).encode("utf-8")
    return Response(encoded, status_code=status, headers={"content-type": "application/json"})
