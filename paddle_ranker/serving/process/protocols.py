"""Protocols of the server's port: the first bytes of a connection say which handler gets it.

A module that `PADDLE_RANKER_PLUGINS` names can add one; `start_echo` returns its `ProtocolHandler`:

    PROTOCOLS.add("echo", PortProtocol("echo", b"ECHO", start_echo))
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional, cast

from paddle_ranker.registry import Registry
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.connections import Connections, close_lingering
from paddle_ranker.serving.process.relay import Relay
from paddle_ranker.storage.temporary import TemporaryFolder

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from paddle_ranker.serving.core.logs import JsonLog
    from paddle_ranker.serving.core.metrics import Metrics
    from paddle_ranker.serving.core.scores import Counting, ModelService
    from paddle_ranker.serving.core.slots import Slots
    from paddle_ranker.serving.paddle.grpc_services import GrpcServer

BACKLOG = 2048  # connections that wait to be accepted
_FULL_SECONDS = 0.02  # until the next look whether there is room
_FAILED_SECONDS = 1.0  # after the system had no descriptor, or no memory
_REFUSED_SECONDS = 1.0  # that a connection above the limit has to say which protocol it speaks
_LOG = logging.getLogger(__name__)


class Acceptor:
    """Accepts connections on a socket, as long as `connections` has room; others wait in the system's queue.

    Args:
        listener: the socket; `close` closes it.
        make: returns the `asyncio.Protocol` of a connection, which adds itself to `connections`.
        at_a_time: connections that are accepted in one go; 1 where several processes share a socket, else the first
            process would take them all.
    """

    def __init__(self, listener: socket.socket, make: Callable[[], Any], connections: Connections, at_a_time: int):
        self._listener, self._make, self._connections = listener, make, connections
        self._at_a_time = at_a_time
        self._loop: Any = asyncio.get_running_loop()  # typeshed has `connect_accepted_socket` elsewhere
        self._beginning: set[asyncio.Task[Any]] = set()  # accepted, and not yet among the connections
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
            if self._connections.room <= len(self._beginning):
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
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._make, accepted))
            self._beginning.add(task)
            task.add_done_callback(self._begun)

    def _begun(self, task: asyncio.Task[Any]) -> None:
        self._beginning.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("a connection could not begin", exc_info=task.exception())


@dataclass(frozen=True)
class ServerContext:
    """What a worker's protocols are made with.

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
        """Return the maker of `CountedRequest`s, which count and log the requests of a protocol."""
        from paddle_ranker.serving.core.scores import CountedRequest

        log_texts = self.config.log_texts
        return partial(CountedRequest, protocol=protocol, metrics=self.metrics, log=self.log, log_texts=log_texts)


class ProtocolHandler:
    """A protocol in one worker.

    Args:
        make: returns for each connection an `asyncio.Protocol` that is also a
            `paddle_ranker.serving.core.connections.Connection`; it gets the bytes from the first one on.
    """

    def __init__(self, make: Callable[[], Any]):
        self.connection = make

    def refusal(self, message: str) -> bytes:
        """Return the bytes to send to a connection above the limit before it is closed."""
        return b""

    async def stop(self, seconds: float) -> None:
        """End what the handler started besides connections, giving requests in flight `seconds` to finish."""


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


class SniffingProtocol(asyncio.Protocol):
    """A connection whose protocol is not known yet.

    Args:
        handlers: (first bytes, handler) of each protocol, sorted by falling length of the first bytes.
    """

    def __init__(
        self, config: ServeConfig, connections: Connections, handlers: Sequence[tuple[bytes, ProtocolHandler]]
    ):
        self._config, self._connections, self._handlers = config, connections, handlers
        self._begin = b""
        self._since = time.monotonic()
        self._refused = self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes."""
        self._transport = cast(asyncio.Transport, transport)
        self._refused = not self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Give the connection to the handler for its first bytes, once these say which one that is."""
        if self._ended:
            return
        begin = self._begin = self._begin + data
        if any(len(begin) < len(begins) and begins.startswith(begin) for begins, _ in self._handlers):
            return
        handler = next(handler for begins, handler in self._handlers if begin.startswith(begins))
        if self._refused:
            self._refuse(handler)
            return
        protocol = handler.connection()
        protocol.connection_made(self._transport)
        self._transport.set_protocol(protocol)
        self._connections.replace(self, protocol)
        protocol.data_received(begin)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Forget the connection."""
        self._connections.discard(self)

    def check(self, now: float) -> None:
        """See `Connection`."""
        waited = now - self._since
        if self._refused and not self._ended and waited > _REFUSED_SECONDS:
            self._refuse(self._handlers[-1][1])  # that of any beginning
        elif waited > self._config.header_seconds:
            self._transport.abort()

    def _refuse(self, handler: ProtocolHandler) -> None:
        """Send the reason, and close."""
        self._ended = True
        answer = handler.refusal(f"{self._connections.most} connections are open, which is the limit")
        if not answer:
            self._transport.close()
            return
        self._transport.write(answer)
        close_lingering(self._transport)

    def shutdown(self) -> None:
        """See `Connection`."""
        self._transport.close()

    def abort(self) -> None:
        """See `Connection`."""
        self._transport.abort()


async def _start_baidu_std(context: ServerContext) -> ProtocolHandler:
    from paddle_ranker.serving.paddle.baidu_std_server import BaiduStdProtocol

    config = context.config
    make = partial(
        BaiduStdProtocol,
        context.ranker,
        api_key=config.api_key,
        connections=context.connections,
        counting=context.counting("baidu_std"),
        body_seconds=config.body_seconds,
        answer_seconds=config.answer_seconds,
        idle_seconds=config.rpc_idle_seconds,
    )
    return ProtocolHandler(make)


class _HttpHandler(ProtocolHandler):
    def refusal(self, message: str) -> bytes:
        from paddle_ranker.serving.http.asgi import full

        return full(message)


async def _start_http(context: ServerContext) -> ProtocolHandler:
    from paddle_ranker.serving.http.connection import HttpConnection

    return _HttpHandler(partial(HttpConnection, context.app, context.config, context.connections))


class _GrpcHandler(ProtocolHandler):
    """Relays connections to a gRPC server of this process, on a private Unix socket."""

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
    make = partial(
        Relay,
        path,
        context.connections,
        idle_seconds=config.rpc_idle_seconds,
        body_seconds=config.body_seconds,
        answer_seconds=config.answer_seconds,
    )
    return _GrpcHandler(make, server, folder)


PROTOCOLS: Registry[PortProtocol] = Registry("protocol")
PROTOCOLS.add("baidu_std", PortProtocol("baidu_std", b"PRPC", _start_baidu_std))
PROTOCOLS.add("http", PortProtocol("HTTP", b"", _start_http))
PROTOCOLS.add("grpc", PortProtocol("gRPC", b"PRI ", _start_grpc))
