"""Accept connections on a socket that listens, as long as there is room for them."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any, Callable, Optional

from paddle_ranker.serving.core.connections import Connections

_FULL_SECONDS = 0.02  # until the next look whether there is room
_FAILED_SECONDS = 1.0  # after the system had no descriptor, or no memory
_LOG = logging.getLogger(__name__)


class Acceptor:
    """What asyncio's server does, but that connections for which there is no room wait in the system's queue.

    Args:
        listener: is closed with it.
        make: returns the protocol of a connection, which adds itself to `connections`.
        at_a_time: connections that are accepted in one go. Several processes that share a socket take one each: the
            first would have them all.
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
