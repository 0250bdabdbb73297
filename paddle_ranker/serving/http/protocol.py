"""HTTP/1.1 on a connection: uvicorn's protocol, which has no limits of its own for slow clients and large heads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Optional, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.http.middleware import cancel_work

_LINGER_SECONDS = 1.0
_IDLE, _HEAD, _BODY, _ANSWER = range(4)  # what the connection waits for


class HeadTooLarge(Exception):
    """The head of a request is above the limit."""


class WatchedHttpProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        config, server_state: uvicorn's.
        serve_config: says how long a head, a body and an answer may take, and how large a head may be.
        connections: watches this one.
    """

    def __init__(self, config: Config, server_state: Any, serve_config: ServeConfig, connections: Connections):
        super().__init__(config=config, server_state=server_state, app_state={})
        self._limits = serve_config
        self._watched = connections
        self._phase, self._since = _HEAD, time.monotonic()
        self._head_bytes = 0
        self._too_large = False
        self._unread: Optional[tuple[int, float]] = None  # bytes that the client does not take, and since when

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; what is written goes out in few pieces."""
        self._joined = JoinedWrites(cast(asyncio.Transport, transport), lambda: self._phase == _BODY)
        super().connection_made(cast(asyncio.Transport, self._joined))

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Forget the connection, and end the work on its request: nobody waits for it."""
        self._watched.discard(self)
        super().connection_lost(exc)
        if self.cycle is not None and not self.cycle.response_complete:
            cancel_work(cast(Any, self.cycle.scope))

    def check(self, now: float) -> None:
        """See `Connection`."""
        waited = now - self._since
        if self._phase == _HEAD and waited > self._limits.header_seconds:
            self._refuse(b"408 Request Timeout", f"no request came in {self._limits.header_seconds:g} seconds")
        elif self._phase == _BODY and waited > self._limits.body_seconds:
            self._refuse(b"408 Request Timeout", f"the body took more than {self._limits.body_seconds:g} seconds")
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
        self._phase, self._since, self._head_bytes = _HEAD, time.monotonic(), 0

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
        self._phase, self._since = _BODY, time.monotonic()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that all of the request is there."""
        self._phase = _ANSWER
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note that the next request may come."""
        if self._phase == _ANSWER:
            self._phase = _IDLE
        self._joined.flush()
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Take bytes. A header that does not end is not shown to `on_header`, so bytes are counted as well."""
        in_head = self._phase == _HEAD
        super().data_received(data)
        if in_head and self._phase == _HEAD and self.parser is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > 2 * self._limits.limits.header_bytes:  # each byte counts twice at the most
                self._refuse(b"431 Request Header Fields Too Large", "the head is too large")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or has too large a head."""
        if self._too_large:
            most = self._limits.limits.header_bytes
            self._refuse(b"431 Request Header Fields Too Large", f"the head has more than {most:,} bytes")
        else:
            self._refuse(b"400 Bad Request", "this is not HTTP/1.1")

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.limits.header_bytes:
            self._too_large = True
            raise HeadTooLarge  # the parser makes it its own error, which ends in `send_400_response`

    def _refuse(self, status: bytes, message: str) -> None:
        if self.transport.is_closing():
            return
        between = self.cycle is None or self.cycle.response_complete
        if between if self._phase == _HEAD else not (between or self.cycle.response_started):
            self.transport.write(refusal(status, message))
        self._phase = _IDLE
        self.transport.close()


class JoinedWrites:
    """A transport that joins what is written in one go, a response's head and its body, into one packet.

    It has what uvicorn asks of a transport.

    Args:
        is_sending: whether the client has not sent all of its request. Closed then, the kernel would reset the
            connection, and the answer would be lost on its way: what still comes is thrown away for a moment.
    """

    def __init__(self, transport: asyncio.Transport, is_sending: Callable[[], bool]):
        self._transport = transport
        self._is_sending = is_sending
        self._ended = False
        self._written: list[bytes] = []
        self._call_soon = asyncio.get_running_loop().call_soon
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.set_protocol = transport.set_protocol

    def write(self, data: bytes) -> None:
        """Write soon."""
        if not self._written:
            self._call_soon(self.flush)
        self._written.append(data)

    def flush(self) -> None:
        """Write now."""
        if self._written and not self._ended:
            self._transport.write(b"".join(self._written))
        self._written.clear()

    def close(self) -> None:
        """Write what there is, then close."""
        self.flush()
        if self._ended or not self._is_sending() or self._transport.is_closing():
            self._transport.close()
            return
        self._ended = True
        self._transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._transport.close)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the client has not taken."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._written))


def refusal(status: bytes, message: str, *headers: bytes) -> bytes:
    """Return a whole HTTP response that ends the connection."""
    body = b'{"error": "%s", "message": "%s"}' % (message.encode(), message.encode())
    lines = [b"HTTP/1.1 " + status, b"content-type: application/json", b"content-length: %d" % len(body)]
    return b"\r\n".join([*lines, b"connection: close", *headers, b"", body])
