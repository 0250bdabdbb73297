"""The server's HTTP application, an ASGI one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Optional

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import Server

from paddle_ranker.serving.core.budget import ByteBudget
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.faults import NOT_FOUND, Fault
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.model_slot import ModelSlot
from paddle_ranker.serving.core.service import EngineService
from paddle_ranker.serving.http.admin import AdminRoutes, Controls
from paddle_ranker.serving.http.connection import HttpConnection
from paddle_ranker.serving.http.endpoints import ENDPOINTS, RANKER, Endpoint
from paddle_ranker.serving.http.middleware import Middleware
from paddle_ranker.serving.paddle.http import routes as paddle_routes
from paddle_ranker.serving.paddle.pipeline import PipelineNames

BACKLOG = 2048  # connections that wait to be accepted


def make_app(
    services: Mapping[str, ModelSlot[Any]],
    config: ServeConfig,
    metrics: Metrics,
    *,
    log: Optional[JsonLog] = None,
    controls: Optional[Controls] = None,
    budget: Optional[ByteBudget] = None,
) -> ASGIApp:
    """Return the application: the middleware around the routes of every endpoint, admin's and Paddle Serving's.

    Args:
        services: of each served model, by the name of its endpoint; the routes of others say that there is no model.
        budget: of the bytes of all requests.
    """
    routes: list[BaseRoute] = []
    for name, endpoint in ENDPOINTS.items():
        routes += endpoint.routes(services[name], config) if name in services else _without_model(endpoint)
    routes += AdminRoutes(services, metrics, config, controls or Controls()).routes()
    ranker: Any = services.get(RANKER) or EngineService(config.limits, is_served=False)
    routes += paddle_routes(ranker, PipelineNames(config.pipeline_service, config.pipeline_method))
    return Middleware(
        Router(routes, redirect_slashes=False, default=_not_found),
        metrics,
        api_key=config.api_key,
        log=log if config.log_requests else None,
        log_texts=config.log_texts,
        budget=budget,
    )


def _without_model(endpoint: Endpoint) -> list[BaseRoute]:
    async def missing(request: Request) -> Response:
        raise Fault(NOT_FOUND, f"this server has no {endpoint.what}: start it with --{endpoint.option}")

    return [Route(path, missing, methods=["POST"]) for path in endpoint.paths]


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise Fault(NOT_FOUND, f"{scope['method']} {scope['path'][:120]!r} is nothing here; see /docs")


def uvicorn_config(app: ASGIApp, config: ServeConfig, **others: Any) -> Config:
    """Return uvicorn's configuration, for the port of all protocols and for that of HTTP alone."""
    return Config(
        app,
        interface="asgi3",
        http=HttpConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=int(config.idle_seconds),
        **others,
    )


class HttpPort(Server):
    """uvicorn's server on the port of HTTP alone; the worker handles the signals."""

    def __init__(self, app: ASGIApp, config: ServeConfig):
        # asyncio accepts up to `backlog` connections at a time: one of several workers would have them all.
        at_a_time = BACKLOG if config.workers == 1 else 1
        super().__init__(
            uvicorn_config(
                app,
                config,
                backlog=at_a_time,
                limit_concurrency=config.limits.connections + 1,  # at so many uvicorn refuses
                timeout_graceful_shutdown=config.drain_seconds,
            )
        )

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self.server_state.connections)

    async def begin(self, listener: socket.socket) -> None:
        """Serve on a socket that listens, until `end`."""
        self._serving = asyncio.ensure_future(self.serve(sockets=[listener]))
        while not (self.started or self._serving.done()):
            await asyncio.sleep(0.005)
        listener.listen(BACKLOG)

    async def end(self) -> None:
        """Accept nothing more, answer what is in flight."""
        self.should_exit = True
        await self._serving
