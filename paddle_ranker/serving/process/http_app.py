"""The server's HTTP application, an ASGI one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.faults import NOT_FOUND, Fault
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.model_slot import ModelSlot
from paddle_ranker.serving.core.service import EngineService
from paddle_ranker.serving.http.admin import AdminRoutes, Reload
from paddle_ranker.serving.http.endpoints import ENDPOINTS, RANKER, Endpoint
from paddle_ranker.serving.http.middleware import Middleware
from paddle_ranker.serving.paddle.http import routes as paddle_routes
from paddle_ranker.serving.paddle.pipeline import PipelineNames


def make_app(
    services: Mapping[str, ModelSlot[Any]],
    config: ServeConfig,
    metrics: Metrics,
    *,
    log: Optional[JsonLog] = None,
    reload: Optional[Reload] = None,
    stopping: Callable[[], bool] = lambda: False,
    connections: Callable[[], int] = lambda: 0,
) -> ASGIApp:
    """Return the application: the middleware around the routes of every endpoint, admin's and Paddle Serving's.

    Args:
        services: of each served model, by the name of its endpoint; the routes of others say that there is no model.
    """
    routes: list[BaseRoute] = []
    for name, endpoint in ENDPOINTS.items():
        routes += endpoint.routes(services[name], config) if name in services else _without_model(endpoint)
    routes += AdminRoutes(services, metrics, config, reload=reload, stopping=stopping, connections=connections).routes()
    ranker: Any = services.get(RANKER) or EngineService(config.limits, is_served=False)
    routes += paddle_routes(ranker, PipelineNames(config.pipeline_service, config.pipeline_method))
    return Middleware(
        Router(routes, redirect_slashes=False, default=_not_found),
        metrics,
        api_key=config.api_key,
        log=log if config.log_requests else None,
        log_texts=config.log_texts,
    )


def _without_model(endpoint: Endpoint) -> list[BaseRoute]:
    async def missing(request: Request) -> Response:
        raise Fault(NOT_FOUND, f"this server has no {endpoint.what}: start it with --{endpoint.option}")

    return [Route(path, missing, methods=["POST"]) for path in endpoint.paths]


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise Fault(NOT_FOUND, f"{scope['method']} {scope['path'][:120]!r} is nothing here; see /docs")
