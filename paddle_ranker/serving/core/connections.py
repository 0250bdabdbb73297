"""Open connections of all protocols: their count, the budget of bytes that they share, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection
from typing import Callable, Optional, Protocol

from paddle_ranker.serving.core.byte_budget import ByteBudget

PEER_SECONDS = 30.0  # time for a peer to send a request, or to receive a part of an answer
_BYTES_A_SECOND = 64 * 1024  # each time this many bytes of a request have come, the peer has a second more
_LINGER_SECONDS = 1.0
_PATIENCE = 1.0  # seconds that a connection may wait for a request before it gives way to others


class Connection(Protocol):
    """An open connection that the server can end."""

    def shutdown(self) -> None:
        """Begin no new request. Close when the requests in flight are answered."""

    def abort(self) -> None:
        """Close at once."""


class Connections:
    """The open connections of a worker.

    Args:
        most: maximum number of open connections; further ones wait in the system's queue.
        budget: budget of the bytes that all connections hold; default: no limit.

    Attributes:
        http: connections of the HTTP server; they count, but the HTTP server ends them.
    """

    def __init__(self, most: int, budget: Optional[ByteBudget] = None):
        self.most = most
        self.budget = budget or ByteBudget()
        self.http: Collection[object] = ()
        self.stopping = False
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open) + len(self.http)

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        if self.stopping:
            connection.shutdown()

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)

    def make_room(self) -> None:
        """Close the connection that has waited longest for its client, at least a second, as all places are taken.

        So clients that keep connections open, or send half a head, do not keep out probes. Connections have a place in
        this if they have `waits_since` (a time, or None while a request is answered) and `give_way`.
        """
        latest, longest = time.monotonic() - _PATIENCE, None
        for connection in (*self._open, *self.http):
            since = getattr(connection, "waits_since", None)
            if since is not None and since < latest:
                latest, longest = since, connection
        if longest is not None:
            longest.give_way()  # type: ignore[attr-defined]

    async def drain(self, seconds: float) -> int:
        """Shut down all connections after their requests. Return how many were still open after `seconds`.

        Connections that are still open are aborted, except those in `http`.
        """
        self.stopping = True
        for connection in list(self._open):
            connection.shutdown()
        end = time.monotonic() + seconds
        while len(self) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        left = len(self)
        for connection in list(self._open):
            connection.abort()
        return left


class ProtocolHandler:
    """A protocol in one worker.

    Args:
        make: called for each connection; returns its `asyncio.Protocol`, which receives all bytes from the first on. If
            the protocol is also a `Connection`, it adds itself to `Connections` and discards itself.
    """

    def __init__(self, make: Callable[[], asyncio.BaseProtocol]):
        self._make = make

    def connection(self) -> asyncio.BaseProtocol:
        """Return the `asyncio.Protocol` of a new connection."""
        return self._make()

    async def check(self) -> None:
        """Raise `Fault` if this protocol would answer no request. `/ready` calls this."""

    async def stop(self, seconds: float) -> None:
        """Stop the handler's servers and tasks. Requests in flight have `seconds` to finish."""


class PeerTimeout:
    """A limit on the time that a peer takes to send a request or to receive a part of an answer.

    It costs nothing while the connection is idle.

    Args:
        give_up: called when the time is over.
    """

    def __init__(self, give_up: Callable[[], None]):
        self._give_up, self._loop = give_up, asyncio.get_running_loop()
        self._timer: Optional[asyncio.TimerHandle] = None
        self._is_waiting, self._size = False, 0

    def wait(self, size: int = 0) -> None:
        """Start the clock if it does not run. Allow more time for `size` more bytes that have come."""
        if not self._is_waiting:
            self._is_waiting, self._size, self._began = True, 0, self._loop.time()
            if self._timer is None:
                self._timer = self._loop.call_later(PEER_SECONDS, self._look)
        self._size += size

    def stop(self) -> None:
        """Stop the clock: the peer has sent the request, or received the part of the answer.

        The timer continues, since cancelling it costs more than letting it run.
        """
        self._is_waiting = False

    def end(self) -> None:
        """Stop the clock and cancel the timer."""
        self._is_waiting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._is_waiting:
            end = self._began + PEER_SECONDS + self._size / _BYTES_A_SECOND
            if self._loop.time() < end:
                self._timer = self._loop.call_at(end, self._look)
            else:
                self._is_waiting = False
                self._give_up()


def peer_of(transport: asyncio.BaseTransport) -> Optional[str]:
    """Return the address of a connection's peer, without its port; None for a Unix socket."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else None


def close_gently(transport: asyncio.Transport) -> None:
    """Close a connection a moment after the last bytes were sent. The peer may still be sending.

    Closing with unread bytes makes the system reset the connection, and the peer may lose the last answer.
    """
    with contextlib.suppress(OSError):  # the peer has closed the connection
        transport.write_eof()
    asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.close)
