"""Protocols of the server's port: a connection's first bytes decide which handler gets it.

A module that `PADDLE_RANKER_PLUGINS` names can add a protocol; `start_echo` returns its `ProtocolHandler`:

    PROTOCOLS.add("echo", PortProtocol("echo", b"ECHO", start_echo))
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional

from paddle_ranker.registry import Registry
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.connections import ProtocolHandler as ProtocolHandler
from paddle_ranker.serving.core.server_config import ServeConfig

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from paddle_ranker.serving.core.logs import JsonLog
    from paddle_ranker.serving.core.metrics import Metrics
    from paddle_ranker.serving.slots.services import CountedRequest
    from paddle_ranker.serving.slots.slots import Slots

BACKLOG = 2048  # maximum number of connections that wait to be accepted
_SILENT_SECONDS = 10.0  # a connection is closed if its protocol is still unknown after this time
_ARRIVAL_SECONDS = 0.2  # the same when the server stops
_FULL_SECONDS = 0.02  # between attempts to accept while the maximum number of connections is open
_FAILED_SECONDS = 1.0  # before the next attempt if the system had no descriptor or no memory
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerContext:
    """Parts of a worker that its protocols use.

    slots: the server's slots
    app: the HTTP application
    log: log of requests; None: requests are not logged
    is_ready: returns whether the server is ready for requests
    """

    config: ServeConfig
    slots: Slots
    connections: Connections
    metrics: Metrics
    app: ASGIApp
    log: Optional[JsonLog] = None
    is_ready: Callable[[], bool] = lambda: True

    def counting(self, protocol: str) -> Callable[[], CountedRequest]:
        """Return a function that returns a new `CountedRequest` of `protocol`."""
        from paddle_ranker.serving.slots.services import CountedRequest

        metrics, log, log_texts = self.metrics, self.log, self.config.log_texts
        return partial(
            CountedRequest, protocol=protocol, metrics=metrics, slots=self.slots, log=log, log_texts=log_texts
        )


Handlers = Sequence[tuple[bytes, ProtocolHandler]]


@dataclass(frozen=True)
class PortProtocol:
    """A protocol of the server's port.

    title: name in the line that the server prints at its start
    begins: first bytes of the protocol's connections; empty: it gets the connections that no other protocol gets
    start: coroutine function, called in every worker; returns the protocol's handler
    """

    title: str
    begins: bytes
    start: Callable[[ServerContext], Awaitable[ProtocolHandler]]


class Acceptor:
    """Acceptor of connections: hands each connection to a protocol as soon as the first bytes tell which one.

    While the maximum number of connections is open, further ones wait in the system's queue until one is closed or,
    after a second, gives way.

    Args:
        listener: the socket; `close` closes it.
        handlers: (first bytes, handler) of each protocol, sorted by the length of the first bytes, longest first.
        at_a_time: maximum number of connections to accept in one go; 1 if several processes share the socket, since the
            first process would otherwise take them all.
    """

    def __init__(self, listener: socket.socket, handlers: Handlers, connections: Connections, at_a_time: int = BACKLOG):
        self._listener, self._connections, self._at_a_time = listener, connections, at_a_time
        self._handlers = handlers
        self._loop: Any = asyncio.get_running_loop()  # typeshed has `connect_accepted_socket` elsewhere
        self._beginning: set[asyncio.Task[Any]] = set()
        self._pause: Optional[asyncio.TimerHandle] = None
        self._start()

    def close(self) -> None:
        """Accept the connections that wait in the system's queue, which it would reset, and close the socket."""
        self._at_a_time = BACKLOG
        self._accept()
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _start(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _stop_for(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._start)

    def _accept(self) -> None:
        for _ in range(self._at_a_time):
            if len(self._connections) + len(self._beginning) >= self._connections.most:
                self._connections.make_room()
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
            make = partial(_Unknown, self._handlers, self._connections)
            task = self._loop.create_task(self._loop.connect_accepted_socket(make, accepted))
            self._beginning.add(task)
            task.add_done_callback(self._begun)

    def _begun(self, task: asyncio.Task[Any]) -> None:
        self._beginning.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("a connection could not begin", exc_info=task.exception())


class _Unknown(asyncio.Protocol):
    """A connection whose protocol is unknown until the first bytes come. The handler then gets the connection."""

    def __init__(self, handlers: Handlers, connections: Connections):
        self._handlers, self._connections, self._begin = handlers, connections, b""
        self.waits_since = time.monotonic()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(_SILENT_SECONDS, self.abort)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        begin = self._begin = self._begin + data
        if not any(len(begin) < len(begins) and begins.startswith(begin) for begins, _ in self._handlers):
            self.connection_lost(None)
            handler = next(candidate for begins, candidate in self._handlers if begin.startswith(begins))
            protocol: Any = handler.connection()
            self._transport.set_protocol(protocol)
            protocol.connection_made(self._transport)
            protocol.data_received(begin)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._timer.cancel()
        self._connections.discard(self)

    def shutdown(self) -> None:
        """Close soon: the first bytes of a request may be on their way."""
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_ARRIVAL_SECONDS, self.abort)

    def give_way(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._transport.abort()


async def _start_http(context: ServerContext) -> ProtocolHandler:
    from paddle_ranker.serving.process.http_server import HttpServer

    config = context.config
    counting = context.counting("http")
    made = HttpServer(context.app, context.connections, config.drain_seconds, config.keep_alive_seconds, counting)
    return await made.start()


PROTOCOLS: Registry[PortProtocol] = Registry("protocol", recipes="plugin")
PROTOCOLS.add("http", PortProtocol("HTTP", b"", _start_http))
