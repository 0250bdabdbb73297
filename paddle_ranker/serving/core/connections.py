"""The open connections of the server, of all protocols: how many there may be, and how long they may be slow."""

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
    """What is watched."""

    def check(self, now: float) -> None:
        """Close the connection where it has been slow or idle for too long; `now` as `time.monotonic()` has it."""

    def shutdown(self) -> None:
        """Begin nothing new; close when what is in flight is answered."""

    def abort(self) -> None:
        """Close at once."""


def close_lingering(transport: asyncio.Transport) -> None:
    """Close a connection whose client may still be sending, a moment after the last answer.

    Closed with bytes unread, the kernel would reset it, and the answer be lost on its way. The protocol discards input.
    """
    with suppress(OSError):  # the client was quicker
        transport.write_eof()
    asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.close)


class Closing:
    """End a connection that was closed, but whose last bytes the other side does not take.

    Args:
        seconds: that it has for them.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._since: Optional[float] = None

    def check(self, transport: asyncio.Transport, now: float) -> bool:
        """Return whether it was closed; end it where that was long ago."""
        if not transport.is_closing():
            return False
        if self._since is None:
            self._since = now
        elif now - self._since > self._seconds:
            transport.abort()
        return True


class Unread:
    """End a connection whose client takes none of the bytes that are sent to it.

    Args:
        seconds: that it may take for the next of them.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._size, self._since = 0, 0.0

    def check(self, transport: asyncio.Transport, now: float) -> None:
        """Look how many are left."""
        size = transport.get_write_buffer_size()
        if not size or not self._size or size < self._size:
            self._since = now
        elif now - self._since > self._seconds:
            transport.abort()
        self._size = size


class Connections:
    """Count and watch connections.

    Args:
        most: that may be open.
        budget: of the bytes that all of them hold; default: without an end.
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
        """Watch `new` in place of `old`: the protocol is known."""
        self._open.discard(old)
        self._open.add(new)
        if self.stopping:
            new.shutdown()

    @property
    def room(self) -> int:
        """How many more may be accepted, those among them that are refused."""
        return self.most + max(self.most, _REFUSED_AT_ONCE) - len(self._open)

    async def watch(self) -> None:
        """Look after all connections, until cancelled."""
        while True:
            now = time.monotonic()
            for connection in list(self._open):
                connection.check(now)
            await asyncio.sleep(_LOOK_SECONDS)

    async def drain(self, seconds: float) -> int:
        """Let what is in flight finish, for so long; abort the rest and return how many connections that were."""
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
