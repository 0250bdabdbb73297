"""The server's HTTP application, an ASGI one."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Callable, Optional

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.faults import NOT_FOUND, Fault
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.service import EngineService
from paddle_ranker.serving.http.admin import Operators, Reload
from paddle_ranker.serving.http.middleware import ENTAILMENT_PATH, Gate
from paddle_ranker.serving.http.rerank import Reranker
from paddle_ranker.serving.paddle.http import routes as paddle_routes
from paddle_ranker.serving.paddle.pipeline import PipelineNames

if TYPE_CHECKING:
    from multimodal_entailment.served import EntailmentService


def make_app(
    service: EngineService,
    config: ServeConfig,
    metrics: Metrics,
    *,
    entailment: Optional[EntailmentService] = None,
    log: Optional[JsonLog] = None,
    reload: Optional[Reload] = None,
    stopping: Callable[[], bool] = lambda: False,
    connections: Callable[[], int] = lambda: 0,
) -> ASGIApp:
    """Return the application; see `Gate`, `Reranker`, `EntailmentEndpoint` and `Operators` for what it is made of."""
    reranker = Reranker(service, keep_texts=config.log_texts)
    operators = Operators(
        service,
        metrics,
        config,
        entailment=entailment,
        reload=reload,
        stopping=stopping,
        connections=connections,
    )
    names = PipelineNames(config.pipeline_service, config.pipeline_method)
    routes: list[BaseRoute] = [
        Route("/v1/rerank", reranker.ranked, methods=["POST"]),
        Route("/v2/rerank", reranker.ranked, methods=["POST"]),
        Route("/rerank", reranker.any_shape, methods=["POST"]),
        Route(ENTAILMENT_PATH, _judge(entailment, config), methods=["POST"]),
        *operators.routes(),
        *paddle_routes(service, names),
    ]
    router = Router(routes, redirect_slashes=False, default=_not_found)
    return Gate(
        router,
        metrics,
        api_key=config.api_key,
        log=log if config.log_requests else None,
        log_texts=config.log_texts,
    )


def _judge(service: Optional[EntailmentService], config: ServeConfig) -> Callable[[Request], Awaitable[Response]]:
    if service is not None:
        from multimodal_entailment.endpoint import EntailmentEndpoint

        return EntailmentEndpoint(service, keep_texts=config.log_texts).answer

    async def missing(request: Request) -> Response:
        raise Fault(NOT_FOUND, "this server has no model of pairs of posts: start it with --entailment_model")

    return missing


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise Fault(NOT_FOUND, f"{scope['method']} {scope['path'][:120]!r} is nothing here; see /docs")
