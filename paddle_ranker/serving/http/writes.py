"""What is written to an HTTP connection: in few packets, refusals among it, and closed so that it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

_LINGER_SECONDS = 1.0


class JoinedWrites:
    """A transport that joins what is written in one go, a response's head and its body, into one packet.

    It has what uvicorn asks of a transport.

    Args:
        is_sending: whether the client may be sending still. Closed then, the kernel would reset the connection, and
            the answer would be lost on its way: what still comes is thrown away for a moment.
    """

    def __init__(self, transport: asyncio.Transport, is_sending: Callable[[], bool]):
        self._transport = transport
        self._is_sending = is_sending
        self.has_ended = False  # nothing more is written; closed soon
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
        if self._written and not self.has_ended:
            self._transport.write(b"".join(self._written))
        self._written.clear()

    def close(self) -> None:
        """Write what there is, then close."""
        self.flush()
        if self.has_ended or not self._is_sending() or self._transport.is_closing():
            self._transport.close()
            return
        self.has_ended = True
        with suppress(OSError):  # the client was quicker
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


def full(message: str) -> bytes:
    """Return the response to a connection above the limit."""
    return refusal(b"503 Service Unavailable", message, b"retry-after: 1")
