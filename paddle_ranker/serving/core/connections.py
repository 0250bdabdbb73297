"""Open connections of all protocols: their number, the budget of bytes that they share, their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Optional, Protocol

from paddle_ranker.serving.core.budget import ByteBudget


class Connection(Protocol):
    """A connection that `Connections` knows."""

    def shutdown(self) -> None:
        """Begin no new request; close when those in flight are answered."""

    def abort(self) -> None:
        """Close at once."""


class Connections:
    """The open connections of a worker.

    Args:
        most: connections that may be open; further ones wait in the system's queue.
        budget: budget of the bytes that all connections hold; default: no limit.

    Attributes: `http`, the connections of the HTTP server, which ends them itself.
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
        """Count a connection."""
        self._open.add(connection)
        if self.stopping:
            connection.shutdown()

    def discard(self, connection: Connection) -> None:
        """Remove a connection from the count."""
        self._open.discard(connection)

    async def drain(self, seconds: float) -> int:
        """Let requests in flight finish for at most `seconds`; abort the connections left and return their number."""
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
