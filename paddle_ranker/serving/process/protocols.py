"""Protocols of the server's port: the first bytes of a connection say which handler gets it.

A module that `PADDLE_RANKER_PLUGINS` names can add one; `start_echo` returns its `ProtocolHandler`:

    PROTOCOLS.add("echo", PortProtocol("echo", b"ECHO", start_echo))
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional

from paddle_ranker.registry import Registry
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.storage.temporary import TemporaryFolder

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from paddle_ranker.serving.core.logs import JsonLog
    from paddle_ranker.serving.core.metrics import Metrics
    from paddle_ranker.serving.core.scores import Counting, ModelService
    from paddle_ranker.serving.core.slots import Slots
    from paddle_ranker.serving.paddle.grpc_services import GrpcServer

BACKLOG = 2048  # connections that wait to be accepted
_SILENT_SECONDS = 10.0  # after which a connection is closed that has not said which protocol it speaks
_LOOKED_AT = 4096  # bytes of a connection's beginning
_FULL_SECONDS = 0.02  # until the next look whether there is room
_FAILED_SECONDS = 1.0  # after the system had no descriptor, or no memory
_BEGUN_SECONDS = 0.02  # until the next look at first bytes that may still become one of several protocols
_KEEP_ALIVE_SECONDS = 75  # longer than proxies keep idle connections, which must be the ones to close them
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerContext:
    """Parts of a worker that its protocols use.

    ranker: the ranker, with the tower beside it: answers Paddle Serving's protocols
    slots: slots of the server
    app: the HTTP application
    log: log of requests; None: requests are not logged
    """

    config: ServeConfig
    connections: Connections
    ranker: ModelService
    slots: Slots
    metrics: Metrics
    app: ASGIApp
    log: Optional[JsonLog] = None

    def counting(self, protocol: str) -> Counting:
        """Return a function that makes `CountedRequest`s, which count and log requests of `protocol`."""
        from paddle_ranker.serving.core.scores import CountedRequest

        log_texts = self.config.log_texts
        return partial(CountedRequest, protocol=protocol, metrics=self.metrics, log=self.log, log_texts=log_texts)


class ProtocolHandler:
    """A protocol in one worker.

    Args:
        make: returns the `asyncio.Protocol` of a connection, which gets its bytes from the first one on. If it is also
            a `paddle_ranker.serving.core.connections.Connection`, it adds itself to `Connections`, and discards itself.
    """

    def __init__(self, make: Callable[[], Any]):
        self._make = make

    def connection(self, begin: bytes) -> Any:
        """Return the `asyncio.Protocol` of a connection; `begin` holds the bytes that have come so far."""
        return self._make()

    async def stop(self, seconds: float) -> None:
        """Stop the handler's servers and tasks; requests in flight have `seconds` to finish."""


Handlers = Sequence[tuple[bytes, ProtocolHandler]]


@dataclass(frozen=True)
class PortProtocol:
    """A protocol of the server's port.

    title: its name in the server's first line
    begins: the first bytes of its connections; empty: it gets the connections of no other protocol
    start: makes its handler, in every worker
    """

    title: str
    begins: bytes
    start: Callable[[ServerContext], Awaitable[ProtocolHandler]]


class Acceptor:
    """Acceptor of connections: looks at their first bytes without taking them, and hands each socket to its protocol.

    While as many connections are open as may be, further ones wait in the system's queue.

    Args:
        listener: the socket; `close` closes it.
        handlers: (first bytes, handler) of each protocol, sorted by falling length of the first bytes.
        at_a_time: connections that are accepted in one go; 1 where several processes share a socket, else the first
            process would take them all.
    """

    def __init__(self, listener: socket.socket, handlers: Handlers, connections: Connections, at_a_time: int = BACKLOG):
        self._listener, self._connections, self._at_a_time = listener, connections, at_a_time
        self._handlers = handlers
        self._loop: Any = asyncio.get_running_loop()  # typeshed has `connect_accepted_socket` elsewhere
        self._handed: set[asyncio.Task[Any]] = set()
        self._pause: Optional[asyncio.TimerHandle] = None
        self._start()

    def close(self) -> None:
        """Accept nothing more."""
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        self._listener.close()

    def _start(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _stop_for(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._start)

    def _accept(self) -> None:
        for _ in range(self._at_a_time):
            if len(self._connections) + len(self._handed) >= self._connections.most:
                self._stop_for(_FULL_SECONDS)
                return
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _LOG.warning("no connection can be accepted (%s)", error.strerror)
                self._stop_for(_FAILED_SECONDS)
                return
            accepted.setblocking(False)
            self._connections.add(_Unknown(accepted, self._handlers, self._connections, self._hand_on))

    def _hand_on(self, accepted: socket.socket, make: Callable[[], Any]) -> None:
        task = self._loop.create_task(self._loop.connect_accepted_socket(make, accepted))
        self._handed.add(task)
        task.add_done_callback(self._begun)

    def _begun(self, task: asyncio.Task[Any]) -> None:
        self._handed.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("a connection could not begin", exc_info=task.exception())


class _Unknown:
    """A connection whose protocol is not known yet."""

    def __init__(
        self,
        accepted: socket.socket,
        handlers: Handlers,
        connections: Connections,
        hand_on: Callable[[socket.socket, Callable[[], Any]], None],
    ):
        self._accepted, self._handlers, self._connections, self._hand_on = accepted, handlers, connections, hand_on
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_SILENT_SECONDS, self.abort)
        self._next_look: Optional[asyncio.TimerHandle] = None
        self._loop.add_reader(accepted, self._look)

    def shutdown(self) -> None:
        """See `Connection`."""
        self.abort()

    def abort(self) -> None:
        """See `Connection`."""
        self._forget()
        self._accepted.close()

    def _look(self) -> None:
        try:
            begin = self._accepted.recv(_LOOKED_AT, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            begin = b""
        if not begin:
            self.abort()
        elif any(len(begin) < len(begins) and begins.startswith(begin) for begins, _ in self._handlers):
            self._loop.remove_reader(self._accepted)  # the bytes stay readable: it would be called at once
            self._next_look = self._loop.call_later(_BEGUN_SECONDS, self._look)
        else:
            self._forget()
            handler = next(one for begins, one in self._handlers if begin.startswith(begins))
            self._hand_on(self._accepted, partial(handler.connection, begin))

    def _forget(self) -> None:
        self._timer.cancel()
        if self._next_look is not None:
            self._next_look.cancel()
        self._loop.remove_reader(self._accepted)
        self._connections.discard(self)


async def _start_baidu_std(context: ServerContext) -> ProtocolHandler:
    from paddle_ranker.serving.paddle.baidu_std_server import BaiduStdProtocol

    make = partial(
        BaiduStdProtocol,
        context.ranker,
        api_key=context.config.api_key,
        connections=context.connections,
        counting=context.counting("baidu_std"),
    )
    return ProtocolHandler(make)


class HttpServer(ProtocolHandler):
    """HTTP/1.1 by uvicorn, which gets accepted sockets.

    The parser is httptools, or h11 for a connection whose first request offers an upgrade: httptools takes the body of
    such a request for another protocol's, and Java's HttpClient offers h2c by default.
    """

    def __init__(self, app: ASGIApp, connections: Connections, drain_seconds: float = 30.0):
        import uvicorn

        make = partial(
            uvicorn.Config,
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
        )
        configs = [make(http="httptools"), make(http="h11")]
        for config in configs:
            config.load()
        self._server = uvicorn.Server(configs[0])
        state = self._server.server_state
        connections.http = state.connections
        protocols: list[tuple[Any, uvicorn.Config]] = [(config.http_protocol_class, config) for config in configs]
        usual, upgrading = (partial(one, config=config, server_state=state, app_state={}) for one, config in protocols)
        super().__init__(usual)
        self._make_upgrading = upgrading

    def connection(self, begin: bytes) -> Any:
        return self._make_upgrading() if b"\nupgrade:" in begin.lower() else self._make()

    async def start(self) -> HttpServer:
        """Start the server's clock, which it has beside its connections; it handles signals until others do."""
        self._serving = asyncio.ensure_future(self._server.serve(sockets=[]))
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0)
        return self

    async def stop(self, seconds: float) -> None:
        """Close idle connections; finish requests in flight."""
        self._server.should_exit = True
        await self._serving


async def _start_http(context: ServerContext) -> ProtocolHandler:
    return await HttpServer(context.app, context.connections, context.config.drain_seconds).start()


class _Pipe(asyncio.Protocol):
    """One end of a pipe of bytes: what comes goes to the other end, as fast as that one takes it."""

    other: Any = None  # the other end's transport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.other.write(data)

    def pause_writing(self) -> None:
        self.other.pause_reading()

    def resume_writing(self) -> None:
        self.other.resume_reading()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        if self.other is not None:
            self.other.close()


class GrpcConnection(_Pipe):
    """The client's end of a pipe to grpcio, which takes no accepted sockets: it listens on a private Unix socket."""

    def __init__(self, path: str, connections: Connections):
        self._path, self._connections = path, connections

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._early = b""  # Python 3.9 reads a little even if reading is paused here
        self._connections.add(self)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        server = _Pipe()
        server.other = self.transport
        try:
            self.other, _ = await asyncio.get_running_loop().create_unix_connection(lambda: server, self._path)
        except OSError:
            self.abort()
        if self.transport.is_closing():
            self.connection_lost(None)
        else:
            self.other.write(self._early)
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)
        else:
            self._early += data
            self.transport.pause_reading()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._connections.discard(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """See `Connection`: grpcio says goodbye itself."""

    def abort(self) -> None:
        """See `Connection`."""
        self.transport.abort()


class _GrpcHandler(ProtocolHandler):
    def __init__(self, make: Callable[[], Any], server: GrpcServer, folder: TemporaryFolder):
        super().__init__(make)
        self._server, self._folder = server, folder

    async def stop(self, seconds: float) -> None:
        await self._server.stop(seconds)
        self._folder.cleanup()


async def _start_grpc(context: ServerContext) -> ProtocolHandler:
    from paddle_ranker.serving.paddle.grpc_services import start_grpc
    from paddle_ranker.serving.paddle.pipeline import PipelineNames

    folder = TemporaryFolder()
    path = os.path.join(folder.name, "grpc")
    config = context.config
    server = await start_grpc(
        context.ranker,
        f"unix:{path}",
        limits=config.limits,
        api_key=config.api_key,
        names=PipelineNames(config.pipeline_service, config.pipeline_method),
        counting=context.counting("grpc"),
        budget=context.connections.budget,
    )
    return _GrpcHandler(partial(GrpcConnection, path, context.connections), server, folder)


PROTOCOLS: Registry[PortProtocol] = Registry("protocol")
PROTOCOLS.add("baidu_std", PortProtocol("baidu_std", b"PRPC", _start_baidu_std))
PROTOCOLS.add("http", PortProtocol("HTTP", b"", _start_http))
PROTOCOLS.add("grpc", PortProtocol("gRPC", b"PRI ", _start_grpc))
