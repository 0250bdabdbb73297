"""One process of the server: an event loop, the protocols, the models."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Callable, Optional

from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.counted import CountedRequest, Counting
from paddle_ranker.serving.core.logs import JsonLog, route_logging
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.reload import Part, Reloader
from paddle_ranker.serving.core.service import EngineService
from paddle_ranker.serving.http.endpoints import RANKER, served_by
from paddle_ranker.serving.paddle.pipeline import PipelineNames
from paddle_ranker.serving.process.http_app import make_app
from paddle_ranker.serving.process.sniffing import Speakers

_BACKLOG = 2048


class Worker:
    """Serve on sockets that listen.

    Args:
        early: accept connections before the model is loaded: they are told to come again.
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
        self._log = JsonLog()
        route_logging(self._log, config.log_texts)
        self._metrics = Metrics()
        self._endpoints = served_by(config)
        self._services = {name: endpoint.service(config) for name, endpoint in self._endpoints.items()}
        self._ranker: Any = self._services.get(RANKER) or EngineService(config.limits, is_served=False)
        self._reloader = Reloader(self._parts(), self._metrics, self._log)
        self._servers: list[Any] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self) -> int:
        """Serve until a signal; return the exit status. Raises what loading the models raises."""
        if any(endpoint.needs_paddle(self._config) for endpoint in self._endpoints.values()):
            with suppress(
                ImportError
            ):  # here, because it takes the signals' handlers, which only this thread gets back
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
        from uvicorn.config import Config
        from uvicorn.server import ServerState

        from paddle_ranker.serving.paddle.grpc_services import start_grpc

        config, state = self._config, ServerState()
        self._stop = asyncio.Event()
        self._connections = Connections(config.limits.connections, state)
        app = make_app(
            self._services,
            config,
            self._metrics,
            log=self._log,
            reload=self._reload,
            stopping=lambda: self._connections.stopping,
            connections=lambda: len(self._connections),
        )
        uvicorn_config = Config(
            app,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(config.idle_seconds),
        )
        uvicorn_config.load()
        self._handle_signals()
        with tempfile.TemporaryDirectory(prefix="paddle_ranker_") as folder:  # mode 0700
            grpc_path = os.path.join(folder, "grpc")
            names = PipelineNames(config.pipeline_service, config.pipeline_method)
            grpc = await start_grpc(
                self._ranker,
                f"unix:{grpc_path}",
                limits=config.limits,
                api_key=config.api_key,
                names=names,
                counting=self._counting("grpc"),
            )
            speakers = Speakers(
                config,
                self._connections,
                uvicorn_config=uvicorn_config,
                server_state=state,
                rpc=self._ranker,
                counting=self._counting("baidu_std"),
                grpc_path=grpc_path,
            )
            watching = asyncio.ensure_future(self._connections.watch())
            try:
                if self._early:
                    await self._listen(speakers)
                if await self._load():
                    if not self._early:
                        await self._listen(speakers)
                    self._on_ready()
                    await self._stop.wait()
            finally:
                await self._end(grpc)
                watching.cancel()

    async def _load(self) -> bool:
        """Load the model; return False where the server is told to stop meanwhile."""
        loading = asyncio.ensure_future(self._reloader.load())
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loading.done():
            loading.cancel()
            return False
        loading.result()
        self._handle_signals()  # again: what an engine imports may have taken them
        return True

    async def _listen(self, speakers: Speakers) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._sockets:
            # asyncio accepts up to `backlog` connections at a time: one of several workers would have them all.
            at_a_time = _BACKLOG if self._config.workers == 1 else 1
            self._servers.append(await loop.create_server(speakers.first, sock=listener, backlog=at_a_time))
            listener.listen(_BACKLOG)

    async def _end(self, grpc: Any) -> None:
        """Accept nothing more, finish what is in flight, put the model away."""
        await asyncio.sleep(0.01)  # who connected before the signal is accepted still
        for server in self._servers:
            server.close()
        seconds = self._config.drain_seconds
        ending = asyncio.ensure_future(grpc.stop(seconds))
        aborted = await self._connections.drain(seconds)
        await ending
        if aborted:
            self._log.write("stop", message=f"{aborted} connections were cut off after {seconds:g} seconds")
        for task in self._tasks:
            task.cancel()
        await self._reloader.close(1.0)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, partial(self._told_to_stop, number))
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)
        if self._parent is not None:
            loop.add_reader(self._parent, self._orphaned)

    def _told_to_stop(self, number: int) -> None:
        if self._stop.is_set():  # a second time
            os._exit(128 + number)
        self._log.write("stop", message="no further requests are accepted; those in flight are answered")
        self._stop.set()

    def _orphaned(self) -> None:
        assert self._parent is not None
        asyncio.get_running_loop().remove_reader(self._parent)
        self._stop.set()

    def _told_to_reload(self) -> None:
        async def reload() -> None:
            with suppress(Exception):  # the log says what was wrong
                await self._reloader.reload()
            self._handle_signals()

        task = asyncio.ensure_future(reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self) -> dict[str, Any]:
        if self._pass_on_reload is not None:
            self._pass_on_reload()
            return {"status": "passed on", "message": "every worker loads the model; the log says what came of it"}
        try:
            return await self._reloader.reload()
        finally:
            self._handle_signals()

    def _counting(self, protocol: str) -> Counting:
        log = self._log if self._config.log_requests else None
        return partial(
            CountedRequest, protocol=protocol, metrics=self._metrics, log=log, log_texts=self._config.log_texts
        )
