"""Limits of an HTTP connection that uvicorn has none of: for slow clients, large heads, and requests that wait."""

from __future__ import annotations

import time
from typing import Any, Optional

from uvicorn.config import Config

from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.http.connection import BODY, HEAD, WAITING, HttpConnection
from paddle_ranker.serving.http.writes import full, refusal


class HeadTooLarge(Exception):
    """The head of a request is above the limit."""


class WatchedHttpProtocol(HttpConnection):
    """One connection.

    Args:
        config, server_state: uvicorn's.
        serve_config: says how long a head, a body and an answer may take, and how large a head may be.
        connections: watches this one.
    """

    def __init__(self, config: Config, server_state: Any, serve_config: ServeConfig, connections: Connections):
        super().__init__(config, server_state, app_state={})
        self._limits = serve_config
        self._watched = connections
        self._waiting = connections.budget.share()
        self._since = time.monotonic()
        self._head_bytes = 0
        self._ended_one = False  # a request, with the bytes that came last
        self._too_large = False
        self._unread: Optional[tuple[int, float]] = None  # bytes that the client does not take, and since when

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Forget the connection."""
        self._watched.discard(self)
        self._waiting.end()
        super().connection_lost(exc)

    def check(self, now: float) -> None:
        """See `Connection`."""
        self._check_reading(now)
        unread = self.transport.get_write_buffer_size()
        if not unread:
            self._unread = None
        elif self._unread is None or unread < self._unread[0]:
            self._unread = (unread, now)
        elif now - self._unread[1] > self._limits.body_seconds:
            self.transport.abort()

    def abort(self) -> None:
        """See `Connection`."""
        self.transport.abort()

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self._since, self._head_bytes = time.monotonic(), 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin with the request."""
        self._since = time.monotonic()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that all of a request is there."""
        self._since, self._ended_one = time.monotonic(), True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note that the next request may come."""
        if self.phase == WAITING:
            self._since = time.monotonic()
        super().on_response_complete()
        if self._waiting.held:
            self._hold_waiting()

    def feed(self, data: bytes) -> None:
        """Take bytes. A header that does not end is not shown to `on_header`, so bytes are counted as well."""
        begun, self._ended_one = self.phase == HEAD, False
        super().feed(data)
        if begun and self.phase == HEAD and not (self._ended_one or self.ending):  # all of it is of one head
            self._head_bytes += len(data)
            if self._head_bytes > 2 * self._limits.limits.header_bytes:  # each byte counts twice at the most
                self.end_with(refusal(b"431 Request Header Fields Too Large", "the head is too large"))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or has too large a head."""
        if self._too_large:
            most = self._limits.limits.header_bytes
            self.end_with(refusal(b"431 Request Header Fields Too Large", f"the head has more than {most:,} bytes"))
        else:
            super().send_400_response(msg)

    def _read_on(self) -> None:
        super()._read_on()
        if self._to_read or self.pipeline:
            self._hold_waiting()

    def _hold_waiting(self) -> None:
        """Count what has come of requests that wait for one before them; where there is no room, refuse them."""
        size = len(self._to_read) + sum(len(cycle.body) for cycle, _ in self.pipeline)
        if not self._waiting.set(size) and not self.ending:
            self._to_read.clear()
            self.pipeline.clear()
            self._waiting.set(0)
            self.end_with(full(str(self._waiting.refusal())))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.limits.header_bytes:
            self._too_large = True
            raise HeadTooLarge  # the parser makes it its own error, which ends in `send_400_response`

    def _check_reading(self, now: float) -> None:
        """Refuse what does not come in time."""
        if self.ending:
            return
        if self.flow.read_paused:  # it is not the client who is slow
            self._since = now
        limits, waited = self._limits, now - self._since
        if self.phase == HEAD and waited > limits.header_seconds:
            self._end_late(f"no request came in {limits.header_seconds:g} seconds")
        elif self.phase == BODY and waited > limits.body_seconds:
            self._end_late(f"the body took more than {limits.body_seconds:g} seconds")
        elif self.phase == WAITING and self.is_idle and waited > limits.idle_seconds:
            self.end_with(b"")  # uvicorn's own timer ends with any byte, such as that of a blank line

    def _end_late(self, message: str) -> None:
        self.end_with(refusal(b"408 Request Timeout", message))
