"""One process of the server: an event loop, the protocols, the models."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Callable, Optional

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from paddle_ranker.errors import quoted
from paddle_ranker.progress import BAR_AFTER, LINE_EVERY
from paddle_ranker.runtime import trim_memory
from paddle_ranker.serving.core.byte_budget import ByteBudget
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.faults import NOT_FOUND, Fault
from paddle_ranker.serving.core.logs import JsonLog, routed_logging
from paddle_ranker.serving.core.metrics import MULTIPROCESS_VARIABLE, Metrics
from paddle_ranker.serving.core.observers import Observer, open_observers
from paddle_ranker.serving.core.page_options import PageOptions
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.http.admin import AdminRoutes, Controls, noting_gauges
from paddle_ranker.serving.http.endpoints import ENDPOINTS, Endpoint
from paddle_ranker.serving.http.middleware import ADMIN_PATHS, SEARCH_PATHS, Middleware
from paddle_ranker.serving.http.page import is_page
from paddle_ranker.serving.process.protocols import (
    BACKLOG,
    PROTOCOLS,
    Acceptor,
    ProtocolHandler,
    ServerContext,
)
from paddle_ranker.serving.slots.reload import NOT_SWITCHED, Reloader
from paddle_ranker.serving.slots.slot_kinds import SLOTS, fit_models, served_by
from paddle_ranker.serving.slots.slots import Slots

BEAT = 2.0  # seconds between two signs of life for the supervisor
_TRIM_SECONDS = 30.0  # between two times that freed memory is returned to the system
_GAUGE_SECONDS = 1.0  # between two updates of a worker's gauges, if there are several workers


def make_app(
    slots: Slots,
    config: ServeConfig,
    metrics: Metrics,
    *,
    log: Optional[JsonLog] = None,
    controls: Optional[Controls] = None,
    budget: Optional[ByteBudget] = None,
    observers: Sequence[Observer] = (),
) -> ASGIApp:
    """Return the ASGI application: the middleware around the routes of admin and of all endpoints.

    slots: slots of the server; an endpoint refuses requests with `NOT_FOUND` if it needs a slot that is not in `slots`
    log: log of requests; None: requests are not logged
    controls: callbacks into the process for the admin routes
    budget: budget of the bytes of all requests; default: no limit
    observers: are told of each answered request
    """
    routes: list[BaseRoute] = []
    ENDPOINTS.load_plugins()
    for endpoint in sorted(ENDPOINTS.values(), key=lambda endpoint: endpoint.comes_last):
        missing = [name for name in endpoint.slots if name not in slots]
        routes += _without_slot(endpoint, missing[0]) if missing else endpoint.routes(slots, config)
    routes = [*AdminRoutes(slots, metrics, config, controls or Controls(), routes).routes(), *routes]
    app = Middleware(
        Router(routes, redirect_slashes=False, default=_not_found),
        metrics,
        config,
        slots=slots,
        log=log if config.log_requests else None,
        budget=budget,
        stopping=(controls or Controls()).stopping,
        observers=observers,
    )
    return with_origins(app, config.cors_origin if isinstance(config, PageOptions) else ())


def with_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return an application that lets pages of other sites read the answers to searches, and no others.

    origins: the sites; none: `app` itself
    """
    if not origins:
        return app
    # Around the middleware: refusals must be readable, too, and a browser's question before a request has no key.
    headers = ("content-type", "x-api-key", "authorization")
    shared = CORSMiddleware(app, allow_origins=origins, allow_methods=("GET", "POST"), allow_headers=headers)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        is_search = scope["type"] == "http" and scope["path"] in SEARCH_PATHS
        await (shared if is_search else app)(scope, receive, send)

    return dispatch


def _without_slot(endpoint: Endpoint, name: str) -> list[BaseRoute]:
    async def missing(request: Request) -> Response:
        raise Fault(NOT_FOUND, f"this server has no {SLOTS[name].what}: start it with --{SLOTS[name].option}")

    return [Route(path, missing, methods=endpoint.methods) for path in endpoint.paths]


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise Fault(NOT_FOUND, f"{scope['method']} {quoted(scope['path'])} is nothing here; see /docs")


def _waiting(app: ASGIApp, settled: asyncio.Event, seconds: float) -> ASGIApp:
    """Return the application with requests for models waiting until the server has loaded them, or stops.

    A proxy that does not ask `/ready`, such as nginx, sends requests once it can connect, and would pass a 503 on.
    Bodies are not read meanwhile. After `seconds`, the request is refused as it would have been at once.
    """

    async def wait_and_answer(scope: Scope, receive: Receive, send: Send) -> None:
        if not settled.is_set() and scope["type"] == "http" and scope["path"] not in ADMIN_PATHS and not is_page(scope):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(settled.wait(), seconds)
        await app(scope, receive, send)

    return wait_and_answer


async def return_freed_memory() -> None:
    """Return freed memory to the system at regular intervals.

    Large requests and images leave free gaps in the heap of each thread that worked on them. Otherwise each thread
    would keep as much memory as it ever needed at a time.
    """
    while True:
        await asyncio.sleep(_TRIM_SECONDS)
        await asyncio.get_running_loop().run_in_executor(None, trim_memory)


async def report_loading(what: str) -> None:
    """Print on stderr every ten seconds that `what` is still being loaded. On a terminal, begin after two seconds."""
    began, wait = time.monotonic(), BAR_AFTER if sys.stderr.isatty() else LINE_EVERY
    while True:
        await asyncio.sleep(wait)
        wait = LINE_EVERY
        print(f"loading {what}: {time.monotonic() - began:.0f} s so far", file=sys.stderr, flush=True)


# A Python thread yields to another after this time. With the default, ten busy threads would delay the event loop.
SWITCH_SECONDS = 0.0005


class Worker:
    """A server on listening sockets, in one process.

    Args:
        early: whether to accept connections before the models are loaded. Until then, `/ready` is 503, and HTTP
            requests for the models wait until their default deadline.
        on_ready: called once, as soon as the models are loaded and connections are accepted.
        supervisor: the link with the supervisor, see `supervisor`; when it ends, the worker ends too. None if this is
            the only worker.
    """

    def __init__(
        self,
        config: ServeConfig,
        sockets: Sequence[socket.socket],
        *,
        early: bool = True,
        on_ready: Callable[[], None] = lambda: None,
        supervisor: Optional[socket.socket] = None,
    ):
        self._config, self._sockets = config, sockets
        self._early, self._on_ready = early, on_ready
        self._supervisor, self._unread = supervisor, b""
        self._is_waiting = supervisor is not None and early  # for the other workers, at the server's start
        self._outcomes: Optional[asyncio.Future[list[dict[str, str]]]] = None
        self._log = JsonLog(with_texts=config.log_texts)
        self._metrics = Metrics()
        self._kinds = served_by(config)
        self._slots = Slots({name: kind.make(config) for name, kind in self._kinds.items()})
        fit = partial(fit_models, config)
        # Packages that an engine imports may replace the signal handlers, which are then set again.
        self._reloader = Reloader(self._slots, self._metrics, self._log, fit, self._handle_signals, self._report)
        self._is_orphan = False  # whether the supervisor has ended
        self._acceptors: list[Acceptor] = []
        self._handlers: list[tuple[bytes, ProtocolHandler]] = []

    def run(self) -> int:
        """Serve until a signal, or until the supervisor's pipe ends. Return the exit status.

        Raises the errors of loading the models.
        """
        try:
            with routed_logging(self._log):
                if any(kind.needs_paddle(self._config) for kind in self._kinds.values()):
                    # Imported here, because it replaces the signal handlers, which only this thread can set again.
                    with suppress(ImportError):
                        importlib.import_module("paddle")
                asyncio.run(self._serve())
        finally:
            self._log.close()
            if self._is_orphan and MULTIPROCESS_VARIABLE in os.environ:  # the supervisor would have deleted it
                shutil.rmtree(os.environ[MULTIPROCESS_VARIABLE], ignore_errors=True)
        return 0

    async def _serve(self) -> None:
        config = self._config
        sys.setswitchinterval(SWITCH_SECONDS)
        self._stop, self._settled = asyncio.Event(), asyncio.Event()
        self._handle_signals()
        self._connections = Connections(config.connections, ByteBudget(config.buffered))
        log = self._log if config.log_requests else None
        controls = Controls(
            reload=self._reload,
            starting=lambda: self._is_waiting,
            stopping=self._stop.is_set,
            check=self._check,
            connections=lambda: len(self._connections),
            protocols=list(PROTOCOLS),
        )
        observers = open_observers()
        app = make_app(
            self._slots,
            config,
            self._metrics,
            log=log,
            controls=controls,
            budget=self._connections.budget,
            observers=observers,
        )
        app = _waiting(app, self._settled, config.deadline_seconds)
        context = ServerContext(config, self._slots, self._connections, self._metrics, app, log, self._is_ready)
        watching = [asyncio.ensure_future(return_freed_memory())]
        if config.workers > 1:
            watching.append(asyncio.ensure_future(self._keep_gauges()))
        if self._supervisor is not None:
            watching.append(asyncio.ensure_future(self._beat()))
        try:
            for protocol in PROTOCOLS.values():
                self._handlers.append((protocol.begins, await protocol.start(context)))
            self._handlers.sort(key=lambda item: -len(item[0]))
            self._handle_signals()  # again, since uvicorn replaces them when it starts
            if self._early:
                self._listen()
            if await self._load():
                if not self._early:
                    self._listen()
                self._on_ready()
                self._report(None)
                await self._stop.wait()
                await self._leave()
        finally:
            await self._end()
            for task in watching:
                task.cancel()
            for observer in observers:
                await asyncio.to_thread(observer.close)
        if self._reloader.is_busy:
            self._log.close()
            os._exit(0)  # Python would wait at exit for the loading thread, which nothing can stop

    def _is_ready(self) -> bool:
        """Return whether /ready says so, too."""
        is_loaded = all(slot.model is not None for slot in self._slots.values())
        return is_loaded and not self._is_waiting and not self._stop.is_set()

    async def _check(self) -> None:
        """Raise `Fault` if one of the protocols would answer no request."""
        for _, handler in self._handlers:
            await handler.check()

    async def _keep_gauges(self) -> None:
        """Publish this worker's gauges at regular intervals, so that any worker can show them at `/metrics`."""
        while True:
            await asyncio.to_thread(noting_gauges(self._slots, self._metrics, len(self._connections)))
            await asyncio.sleep(_GAUGE_SECONDS)

    async def _beat(self) -> None:
        """Send the supervisor a sign of life at regular intervals."""
        while True:
            self._send({})
            await asyncio.sleep(BEAT)

    async def _leave(self) -> None:
        """Stay open for `stop_after_seconds`, in which proxies find out that this server is not ready any more."""
        end = time.monotonic() + self._config.stop_after_seconds
        while time.monotonic() < end and not self._is_orphan:
            await asyncio.sleep(0.05)

    async def _load(self) -> bool:
        """Load the models. Return False if the server is stopped meanwhile."""
        loading = asyncio.ensure_future(self._reloader.load())
        stopping = asyncio.ensure_future(self._stop.wait())
        folders = " and ".join(str(slot.folder) for slot in self._slots.values())
        reporting = asyncio.ensure_future(report_loading(folders))
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        reporting.cancel()
        self._settled.set()
        if not loading.done():
            loading.cancel()
            return False
        loading.result()
        return True

    def _listen(self) -> None:
        """Accept connections. On `http_port`, the last socket, every connection is HTTP."""
        config, http = self._config, self._handlers[-1:]
        at_a_time = BACKLOG if config.workers == 1 else 1
        for number, listener in enumerate(self._sockets):
            spoken = self._handlers if number < len(config.ports) else http
            self._acceptors.append(Acceptor(listener, spoken, self._connections, at_a_time))

    async def _end(self) -> None:
        """Accept no more connections, finish requests in flight, unload the models."""
        await asyncio.sleep(0.01)  # clients that connected before the signal are still accepted
        for acceptor in self._acceptors:
            acceptor.close()
        seconds = self._config.drain_seconds
        ending: list[Any] = [handler.stop(seconds) for _, handler in self._handlers]
        aborted, *_ = await asyncio.gather(self._connections.drain(seconds), *ending)
        if aborted:
            self._log.write("stop", message=f"{aborted} connections were cut off after {seconds:g} seconds")
        await self._reloader.close(1.0)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, partial(self._on_stop, number))
        loop.add_signal_handler(signal.SIGHUP, self._reloader.reload_soon)
        if self._supervisor is not None and not self._is_orphan:
            loop.add_reader(self._supervisor, self._on_message)

    def _on_stop(self, number: int) -> None:
        if self._stop.is_set():  # a second time
            os._exit(128 + number)
        self._log.write("stop", message="no further requests are accepted; those in flight are answered")
        self._stop.set()

    def _send(self, message: dict[str, object]) -> None:
        """Send the supervisor a message; it may have ended."""
        if self._supervisor is not None:
            with suppress(OSError):
                self._supervisor.sendall(json.dumps(message).encode() + b"\n")

    def _report(self, problem: Optional[str]) -> None:
        """Tell the supervisor which models are served now, or why a reload failed."""
        self._send({"digest": self._slots.lineup.digest} if problem is None else {"failed": problem})

    def _on_message(self) -> None:
        assert self._supervisor is not None
        data = self._supervisor.recv(1 << 16)
        if not data:
            asyncio.get_running_loop().remove_reader(self._supervisor)
            self._is_orphan = True
            self._stop.set()
        *lines, self._unread = (self._unread + data).split(b"\n")
        for message in map(json.loads, lines):
            if "all_ready" in message:
                self._is_waiting = False
            if "outcomes" in message and self._outcomes is not None and not self._outcomes.done():
                self._outcomes.set_result(message["outcomes"])

    async def _reload(self) -> dict[str, Any]:
        """Reload the models of all workers. Raises `Fault` if one of them was not accepted by a worker."""
        if self._supervisor is None:
            return await self._reloader.reload()
        if self._outcomes is None or self._outcomes.done():
            self._outcomes = asyncio.get_running_loop().create_future()
            self._send({"reload": True})
        outcomes = await asyncio.shield(self._outcomes)
        if failed := [outcome["failed"] for outcome in outcomes if "failed" in outcome]:
            raise Fault(NOT_SWITCHED, f"{len(failed)} of {len(outcomes)} workers go on as they were: {failed[0]}")
        return {"status": "switched", "model": " and ".join(slot.name for slot in self._slots.values())}
