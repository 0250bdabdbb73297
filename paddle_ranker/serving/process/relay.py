"""Hand a connection on to another server of this process: gRPC has its own, on a Unix socket that nobody else sees."""

from __future__ import annotations

import asyncio
import time
from typing import Optional, cast

from paddle_ranker.serving.core.connections import Closing, Connections
from paddle_ranker.serving.core.peers import look_at
from paddle_ranker.serving.process.http2_streams import ENHANCE_YOUR_CALM, OpenStreams, goaway

_GOODBYE_SECONDS = 1.0  # that a client has to go by itself when the server stops


class Relay(asyncio.Protocol):
    """The client's side. Above the budget of bytes that all connections have, it is closed.

    Args:
        path: of the Unix socket.
        idle_seconds: after which a connection on which nothing moves is closed.
        body_seconds: that a request may take to arrive.
    """

    def __init__(self, path: str, connections: Connections, idle_seconds: float, body_seconds: float):
        self._path = path
        self._connections = connections
        self._idle_seconds, self._body_seconds = idle_seconds, body_seconds
        self._streams, self._buffered = OpenStreams(), connections.budget.share()
        self._moved = time.monotonic()
        self._closing = Closing(body_seconds)
        self._stopping: Optional[float] = None  # since when
        self._owed: set[int] = set()  # streams that had begun then
        self._waiting = bytearray()  # until the other side is connected
        self._other: Optional[asyncio.Transport] = None
        self._task: Optional[asyncio.Task[None]] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect with the other server."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()  # until it is
        self._task = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        """Pass on what the client sends."""
        self._moved = time.monotonic()
        self._streams.sent(data, self._moved)
        if not self._buffered.set(self._streams.held):
            self._end(str(self._buffered.refusal()))
        elif self._other is None:
            self._waiting += data
        else:
            self._other.write(data)

    def returned(self, data: bytes) -> None:
        """Pass on what the server answers."""
        self._moved = time.monotonic()
        self._streams.answered(data)
        self._buffered.set(self._streams.held)
        if not self.transport.is_closing():
            self.transport.write(data)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Leave the server, too."""
        self._connections.discard(self)
        self._buffered.end()
        if self._task is not None:
            self._task.cancel()
        if self._other is not None:
            self._other.close()

    def pause_writing(self) -> None:
        """Read no more from the server: the client does not keep up."""
        if self._other is not None:
            self._other.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self._other is not None:
            self._other.resume_reading()

    def check(self, now: float) -> None:
        """See `Connection`."""
        if now - self._moved > self._idle_seconds:
            self.transport.abort()
        if self._closing.check(self.transport, now):
            return
        if not self.transport.is_reading() and look_at(self.transport).sent_all:
            self.transport.abort()  # as where it is read from: who closes his side has left
        since = self._streams.half_sent_since()
        if since is not None and now - since > self._body_seconds:
            self._end(f"a request did not arrive within {self._body_seconds:g} seconds")
        elif self._stopping is not None and now - self._stopping > _GOODBYE_SECONDS and not self._is_owed():
            self.transport.close()

    def shutdown(self) -> None:
        """Wait for what is in flight. gRPC's server says GOAWAY; for a client that does not go it would wait long."""
        if self._stopping is None:
            self._stopping, self._owed = time.monotonic(), self._streams.unanswered()

    def abort(self) -> None:
        """See `Connection`."""
        self.transport.abort()

    def _is_owed(self) -> bool:
        """Return whether an answer is to come of what had begun when the server was stopped."""
        return bool(self._owed & self._streams.unanswered())

    async def _connect(self) -> None:
        try:
            other, _ = await asyncio.get_running_loop().create_unix_connection(lambda: _Server(self), self._path)
        except OSError:
            self.transport.abort()
            return
        self._other = other
        other.write(bytes(self._waiting))
        self._waiting.clear()
        self.transport.resume_reading()

    def _end(self, reason: str) -> None:
        """Close the connection, and say why."""
        if not self.transport.is_closing():
            self.transport.write(goaway(ENHANCE_YOUR_CALM, reason))
            self.transport.close()
        self._buffered.end()
        if self._other is not None:
            self._other.abort()  # what it has read of the requests is forgotten


class _Server(asyncio.Protocol):
    """The server's side."""

    def __init__(self, relay: Relay):
        self._relay = relay

    def data_received(self, data: bytes) -> None:
        self._relay.returned(data)

    def pause_writing(self) -> None:
        self._relay.transport.pause_reading()

    def resume_writing(self) -> None:
        self._relay.transport.resume_reading()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._relay.transport.close()
