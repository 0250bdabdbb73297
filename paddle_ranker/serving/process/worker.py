"""One process of the server: an event loop, the protocols, the models."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Callable, Optional

from paddle_ranker.serving.core.budget import ByteBudget
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.logs import JsonLog, route_logging
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.reload import Part, Reloader
from paddle_ranker.serving.core.service import EngineService
from paddle_ranker.serving.http.admin import Controls
from paddle_ranker.serving.http.endpoints import RANKER, served_by
from paddle_ranker.serving.process.acceptor import Acceptor
from paddle_ranker.serving.process.http_app import BACKLOG, HttpPort, make_app
from paddle_ranker.serving.process.protocols import PROTOCOLS, ProtocolHandler, ServerContext, SniffingProtocol


class Worker:
    """Serve on sockets that listen.

    Args:
        early: accept connections before the model is loaded: they are answered with 503.
        on_ready: called once, when the model answers.
        pass_on_reload: asks whoever started this process to let all of its kind reload; None: it is alone.
        parent: a pipe from whoever started this process: at its end, this one ends too.
    """

    def __init__(
        self,
        config: ServeConfig,
        sockets: Sequence[socket.socket],
        *,
        early: bool = True,
        on_ready: Callable[[], None] = lambda: None,
        pass_on_reload: Optional[Callable[[], None]] = None,
        parent: Optional[int] = None,
    ):
        self._config, self._sockets = config, sockets
        self._early, self._on_ready = early, on_ready
        self._pass_on_reload, self._parent = pass_on_reload, parent
        self._log = JsonLog(with_texts=config.log_texts)
        route_logging(self._log)
        self._metrics = Metrics()
        self._endpoints = served_by(config)
        self._services = {name: endpoint.service(config) for name, endpoint in self._endpoints.items()}
        self._ranker: Any = self._services.get(RANKER) or EngineService(config.limits, is_served=False)
        # What an engine imports may take the signals' handlers.
        self._reloader = Reloader(self._parts(), self._metrics, self._log, self._handle_signals)
        self._acceptors: list[Acceptor] = []
        self._handlers: list[tuple[bytes, ProtocolHandler]] = []
        self._http: Optional[HttpPort] = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self) -> int:
        """Serve until a signal; return the exit status. Raises what loading the models raises."""
        if any(endpoint.needs_paddle(self._config) for endpoint in self._endpoints.values()):
            # Here, because it takes the signals' handlers, which only this thread gets back.
            with suppress(ImportError):
                importlib.import_module("paddle")
        try:
            asyncio.run(self._serve())
        finally:
            self._log.close()
        return 0

    def _parts(self) -> list[Part]:
        """Return what is served, none of it loaded yet."""
        parts = []
        for name, endpoint in self._endpoints.items():
            folder, observer = endpoint.folder(self._config), self._metrics.batches(name)
            assert folder is not None
            parts.append(Part(folder, partial(endpoint.load, self._config, observer), self._services[name].switch))
        return parts

    async def _serve(self) -> None:
        from uvicorn.server import ServerState

        config, state = self._config, ServerState()
        self._stop = asyncio.Event()
        self._connections = Connections(config.limits.connections, state, ByteBudget(config.limits.buffered))
        log = self._log if config.log_requests else None
        controls = Controls(
            reload=self._reload,
            stopping=lambda: self._connections.stopping,
            connections=lambda: len(self._connections) + (self._http.connections if self._http else 0),
            protocols=list(PROTOCOLS),
        )
        app = make_app(
            self._services, config, self._metrics, log=log, controls=controls, budget=self._connections.budget
        )
        if config.http_port is not None:
            self._http = HttpPort(app, config)
        context = ServerContext(config, self._connections, self._ranker, self._services, self._metrics, app, state, log)
        self._handle_signals()
        watching = asyncio.ensure_future(self._connections.watch())
        try:
            for protocol in PROTOCOLS.values():
                self._handlers.append((protocol.begins, await protocol.start(context)))
            self._handlers.sort(key=lambda item: -len(item[0]))
            if self._early:
                await self._listen()
            if await self._load():
                if not self._early:
                    await self._listen()
                self._on_ready()
                await self._stop.wait()
        finally:
            await self._end()
            watching.cancel()

    async def _load(self) -> bool:
        """Load the model; return False where the server is stopped meanwhile."""
        loading = asyncio.ensure_future(self._reloader.load())
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loading.done():
            loading.cancel()
            return False
        loading.result()
        return True

    async def _listen(self) -> None:
        config = self._config
        make = partial(SniffingProtocol, config, self._connections, self._handlers)
        ports = len(config.ports)
        at_a_time = BACKLOG if config.workers == 1 else 1
        for listener in self._sockets[:ports]:
            self._acceptors.append(Acceptor(listener, make, self._connections, at_a_time))
        if self._http is not None:
            await self._http.begin(self._sockets[ports])

    async def _end(self) -> None:
        """Accept nothing more, finish what is in flight, unload the models."""
        await asyncio.sleep(0.01)  # who connected before the signal is accepted still
        for acceptor in self._acceptors:
            acceptor.close()
        seconds = self._config.drain_seconds
        ending: list[Any] = [handler.stop(seconds) for _, handler in self._handlers]
        if self._http is not None and self._http.started:
            ending.append(self._http.end())
        aborted, *_ = await asyncio.gather(self._connections.drain(seconds), *ending)
        if aborted:
            self._log.write("stop", message=f"{aborted} connections were cut off after {seconds:g} seconds")
        for task in self._tasks:
            task.cancel()
        await self._reloader.close(1.0)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, partial(self._on_stop, number))
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        if self._parent is not None:
            loop.add_reader(self._parent, self._on_parent_end)

    def _on_stop(self, number: int) -> None:
        if self._stop.is_set():  # a second time
            os._exit(128 + number)
        self._log.write("stop", message="no further requests are accepted; those in flight are answered")
        self._stop.set()

    def _on_parent_end(self) -> None:
        assert self._parent is not None
        asyncio.get_running_loop().remove_reader(self._parent)
        self._stop.set()

    def _on_reload(self) -> None:
        async def reload() -> None:
            with suppress(Exception):  # the log says what was wrong
                await self._reloader.reload()

        task = asyncio.ensure_future(reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self) -> dict[str, Any]:
        if self._pass_on_reload is not None:
            self._pass_on_reload()
            return {"status": "passed on", "message": "every worker loads the model; the log says what came of it"}
        return await self._reloader.reload()
