"""The server's open connections, of all protocols: limits on their number, on what they hold and how slow they are."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Optional, Protocol

from paddle_ranker.serving.core.budget import ByteBudget
from paddle_ranker.serving.core.turns import Turns

_LOOK_SECONDS = 0.5  # between checks of all connections: a timer for each would be more expensive
_LINGER_SECONDS = 1.0
_REFUSED_AT_ONCE = 64  # connections above the limit that are open to hear so; as many as the limit, where that is more


class Connection(Protocol):
    """A connection that `Connections` watches."""

    def check(self, now: float) -> None:
        """Close the connection if it has been slow or idle for too long; `now` is the time of `time.monotonic()`."""

    def shutdown(self) -> None:
        """Begin no new request; close when those in flight are answered."""

    def abort(self) -> None:
        """Close at once."""


def close_lingering(transport: asyncio.Transport) -> None:
    """Close a connection whose client may still be sending, a moment after the last answer.

    If it were closed with bytes unread, the kernel would reset it and the answer could be lost. Until then the protocol
    must discard input.
    """
    with suppress(OSError):  # the client was quicker
        transport.write_eof()
    asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.close)


class Unsent:
    """Sends a connection's answers. What its client has not taken of them counts in the budget, and is taken in time.

    Args:
        budget: budget of the bytes that all connections hold; the connection is aborted if it has no room.
        seconds: seconds in which the client must take whatever was sent, however steadily it takes some of it.
    """

    def __init__(self, transport: asyncio.Transport, budget: ByteBudget, seconds: float):
        self._transport, self._seconds = transport, seconds
        self._share = budget.share()
        self._sent = 0  # bytes, taken or not
        self._due, self._since = 0, 0.0  # how many bytes had been sent by when; the client must take these

    def write(self, data: bytes) -> None:
        """Send some bytes."""
        self._transport.write(data)
        self._sent += len(data)
        if self._transport.get_write_buffer_size() or self._share.held:
            self._hold()

    def check(self, now: float) -> None:
        """Count what the client has taken; abort the connection if it was too slow. See `Connection.check`."""
        if self._sent - self._hold() >= self._due:
            self._due, self._since = self._sent, now
        elif now - self._since > self._seconds:
            self._transport.abort()

    def end(self) -> None:
        """Release the bytes: the connection is gone."""
        self._share.end()

    def _hold(self) -> int:
        """Hold the bytes that the client has not taken; return their number."""
        size = self._transport.get_write_buffer_size()
        if not self._share.set(size):
            self._transport.abort()
        return size


class Connections:
    """Count and watch connections.

    Attributes: `turns`, in which all connections are read from.

    Args:
        most: connections that may be open.
        budget: budget of the bytes that all connections hold; default: no limit.
    """

    def __init__(self, most: int, budget: Optional[ByteBudget] = None):
        self.most = most
        self.budget = budget or ByteBudget()
        self.turns = Turns()
        self.stopping = False
        self._open: set[Connection] = set()
        self._refused: set[Connection] = set()  # of these, those above the limit

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> bool:
        """Watch a connection; return whether it is within the limit."""
        self._open.add(connection)
        if len(self._open) - len(self._refused) <= self.most:
            return True
        self._refused.add(connection)
        return False

    def discard(self, connection: Connection) -> None:
        """Watch a connection no more."""
        self._open.discard(connection)
        self._refused.discard(connection)

    def replace(self, old: Connection, new: Connection) -> None:
        """Watch `new` in place of `old`, once the protocol is known."""
        self._open.discard(old)
        self._open.add(new)
        if self.stopping:
            new.shutdown()

    @property
    def room(self) -> int:
        """How many more connections may be accepted, including those that are accepted only to be refused."""
        return self.most + max(self.most, _REFUSED_AT_ONCE) - len(self._open)

    async def watch(self) -> None:
        """Check all connections again and again, until cancelled."""
        while True:
            now = time.monotonic()
            for connection in list(self._open):
                connection.check(now)
            await asyncio.sleep(_LOOK_SECONDS)

    async def drain(self, seconds: float) -> int:
        """Let requests in flight finish for at most `seconds`; abort the connections left and return their number."""
        self.stopping = True
        for connection in list(self._open):
            connection.shutdown()
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end:
            await asyncio.sleep(0.01)
        left = list(self._open)
        for connection in left:
            connection.abort()
        return len(left)
