"""Admin routes: whether the server is alive and ready, what it serves, its metrics, reloading its models."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable, Optional

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from paddle_ranker.serving.core.faults import NOT_FOUND, UNAVAILABLE, Fault
from paddle_ranker.serving.core.limits import API_KEY_VARIABLE, MODEL_OWNER
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.server_config import RANKER_SLOT, ServeConfig
from paddle_ranker.serving.http.endpoints import ENDPOINTS
from paddle_ranker.serving.http.openapi import MODELS_PATH, openapi
from paddle_ranker.serving.http.page import docs_routes
from paddle_ranker.serving.slots.slot_kinds import SLOTS
from paddle_ranker.serving.slots.slots import ServedModel, Slots
from paddle_ranker.version import __version__

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_SCHEME, _PREFIX = re.compile("https?"), re.compile(r"(?:/[A-Za-z0-9._~-]+){1,16}")
Reload = Callable[[], Awaitable[dict[str, Any]]]


async def _nothing_to_check() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Controls:
    """Callbacks into the process for the admin routes. All are called without arguments.

    starting: returns whether other workers have not loaded their models yet, at the server's start
    reload: reloads the models and returns the outcome. Raises `Fault` if the new models were not accepted. None: this
        process cannot reload
    stopping: returns whether the server is stopping and accepts no more requests
    check: raises `Fault` if another protocol than HTTP would answer no request
    connections: returns the number of open connections
    protocols: names of the protocols of the server's port
    """

    reload: Optional[Reload] = None
    starting: Callable[[], bool] = lambda: False
    stopping: Callable[[], bool] = lambda: False
    check: Callable[[], Awaitable[None]] = _nothing_to_check
    connections: Callable[[], int] = lambda: 0
    protocols: Sequence[str] = ()


class AdminRoutes:
    """Handlers of the admin routes.

    Args:
        slots: slots of the server.
        metrics: the server's metrics.
        config: the server's options.
        controls: callbacks into the process.
        described: routes that the OpenAPI description shows in addition to the admin routes.
    """

    def __init__(
        self,
        slots: Slots,
        metrics: Metrics,
        config: ServeConfig,
        controls: Controls,
        described: Sequence[BaseRoute] = (),
    ):
        self._described = described
        self._slots, self._metrics = slots, metrics
        self._config, self._controls = config, controls

    def routes(self) -> list[BaseRoute]:
        """Return the admin routes, and those of `/docs`."""
        return [
            Route("/live", self.live),
            Route("/ready", self.ready),
            Route("/health", self.ready),
            Route("/metrics", self.metrics),
            Route("/info", self.info),
            Route(MODELS_PATH, self.models),
            Route("/openapi.json", self.openapi),
            *docs_routes(),
            Route("/admin/reload", self.reload, methods=["POST"]),
        ]

    async def live(self, request: Request) -> Response:
        return _json({"status": "live"})

    async def ready(self, request: Request) -> Response:
        if self._controls.stopping():
            raise Fault(UNAVAILABLE, "the server is stopping", retry_after=1.0)
        if self._controls.starting():
            raise Fault(UNAVAILABLE, "other workers are loading their models", retry_after=1.0)
        await self._controls.check()
        return _json({"status": "ready", "model": " and ".join(slot.name for slot in self._slots.values())})

    async def metrics(self, request: Request) -> Response:
        note = noting_gauges(self._slots, self._metrics, self._controls.connections())
        content, content_type = await asyncio.to_thread(self._metrics.shown, note)
        return Response(content, headers={"content-type": content_type})

    async def info(self, request: Request) -> Response:
        return _json(describe(self._slots, self._config, self._controls.protocols))

    async def models(self, request: Request) -> Response:
        """List the models in OpenAI's format, which OpenAI's clients request before they request vectors."""
        served = [slot.ready() for slot in self._slots.values()]
        data = [
            {"id": model.name, "object": "model", "created": int(model.loaded_at), "owned_by": MODEL_OWNER}
            for model in served
            if isinstance(model, ServedModel)
        ]
        return _json({"object": "list", "data": data})

    async def openapi(self, request: Request) -> Response:
        address, content = address_of(request), self._description
        if _forwarded(request, "x-forwarded-proto", _SCHEME) or _forwarded(request, "x-forwarded-prefix", _PREFIX):
            content = b'{"servers": [{"url": "SERVER"}], ' + content[1:]  # else the address of this description
        content = content.replace(b"SERVER", address.encode())
        return Response(content, headers={"content-type": "application/json"})

    @cached_property
    def _description(self) -> bytes:
        """The OpenAPI description. Cached, since it can be requested without a key."""
        endpoints = [endpoint for endpoint in ENDPOINTS.values() if self._slots.keys() >= set(endpoint.slots)]
        key = f'curl -H "X-API-Key: ${API_KEY_VARIABLE}" ' if self._config.api_key else "curl "
        examples = [endpoint.example.replace("curl ", key, 1) for endpoint in endpoints if endpoint.example]
        return _encoded(openapi(self._described, examples))

    async def reload(self, request: Request) -> Response:
        """Reload the models. A server without an API key refuses, since any caller could cause this work."""
        if self._config.api_key is None or self._controls.reload is None:
            raise Fault(NOT_FOUND, f"needs an API key: start the server with {API_KEY_VARIABLE} set, or send it SIGHUP")
        return _json(await self._controls.reload())


def noting_gauges(slots: Slots, metrics: Metrics, connections: int) -> Callable[[], None]:
    """Return a function that sets the gauges of this process's queues and connections, and of the index.

    Call that function in a thread, because it may read index.json.
    """
    queued, known = {name: slot.queued_rows for name, slot in slots.items() if slot.has_queue}, [*slots.values()]

    def note() -> None:
        for name, rows in queued.items():
            metrics.batches(name).queue(rows)
        for slot in known:
            metrics.gauges(slot.gauges())
        metrics.connections(connections)

    return note


def address_of(request: Request) -> str:
    """Return this server's URL, `http://127.0.0.1:8600`, from the request's valid `Host`, or else from the socket.

    A proxy before it adds scheme and path: `X-Forwarded-Proto`, and `X-Forwarded-Prefix` if it strips a prefix.
    """
    named = request.headers.get("host", "")
    host, port = request.scope.get("server") or ("127.0.0.1", None)
    if not _HOST.fullmatch(named):
        named = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    scheme = _forwarded(request, "x-forwarded-proto", _SCHEME) or request.scope["scheme"]
    return f"{scheme}://{named}{_forwarded(request, 'x-forwarded-prefix', _PREFIX)}"


def _forwarded(request: Request, name: str, form: re.Pattern[str]) -> str:
    """Return the value of a proxy's header field, or "" if it is not of its form. It only changes what is shown."""
    value = request.headers.get(name, "").rstrip("/")
    return value if form.fullmatch(value) else ""


def describe(slots: Slots, config: ServeConfig, protocols: Sequence[str]) -> dict[str, Any]:
    """Return the JSON of `/info`.

    The ranker's values are at the top level, as in Text Embeddings Inference. Another model's values are under the name
    of its slot. If it is the only model, its values are also at the top level.
    """
    shown: dict[str, Any] = {"version": __version__, "digest": slots.lineup.digest}
    limits = config.values()
    for name, kind in SLOTS.items():
        limits.update((limit, getattr(kind.options_of(config), limit)) for limit in kind.limits)
        if name in slots:
            description = slots[name].describe()
            if name == RANKER_SLOT or len(slots) == 1:
                shown.update(description)
            if name != RANKER_SLOT:
                shown[name] = description
    settings = ("device", "workers", "streams", "cpu_threads", "max_wait_us")
    return {
        **shown,
        **{name: getattr(config, name) for name in settings},
        "limits": limits,
        "timeouts": {"drain_seconds": config.drain_seconds},
        "protocols": list(protocols),
    }


def _encoded(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode("utf-8")


def _json(content: object, status: int = 200) -> Response:
    return Response(_encoded(content), status_code=status, headers={"content-type": "application/json"})
