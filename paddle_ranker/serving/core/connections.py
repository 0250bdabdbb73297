"""The server's open connections, of all protocols: limits on their number and on how long they may be slow."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Optional, Protocol

from paddle_ranker.serving.core.budget import ByteBudget

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


class Closing:
    """Aborts a connection that was closed if the other side does not take its last bytes.

    Args:
        seconds: seconds that the other side has to take them.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._since: Optional[float] = None

    def check(self, transport: asyncio.Transport, now: float) -> bool:
        """Return whether the connection was closed; abort it if that was first seen more than `seconds` ago."""
        if not transport.is_closing():
            return False
        if self._since is None:
            self._since = now
        elif now - self._since > self._seconds:
            transport.abort()
        return True


class Unread:
    """Aborts a connection whose client takes none of the bytes that are sent to it.

    Args:
        seconds: seconds that the client may leave the bytes untouched.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._size, self._since = 0, 0.0

    def check(self, transport: asyncio.Transport, now: float) -> None:
        """Compare the bytes left with those of the last check; abort after `seconds` without progress."""
        size = transport.get_write_buffer_size()
        if not size or not self._size or size < self._size:
            self._since = now
        elif now - self._since > self._seconds:
            transport.abort()
        self._size = size


class Connections:
    """Count and watch connections.

    Args:
        most: connections that may be open.
        budget: budget of the bytes that all connections hold; default: no limit.
    """

    def __init__(self, most: int, budget: Optional[ByteBudget] = None):
        self.most = most
        self.budget = budget or ByteBudget()
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
