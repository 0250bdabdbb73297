"""A request and its answer, as an ASGI application sees them; and answers that are sent without the application."""

from __future__ import annotations

import asyncio
import http
import logging
import time
from email.utils import formatdate
from functools import lru_cache
from typing import Optional, Protocol

from starlette.types import ASGIApp, Message, Scope

from paddle_ranker.serving.core.apart import MUCH_BYTES
from paddle_ranker.serving.core.connections import Unsent
from paddle_ranker.serving.http.exchange import SHARE
from paddle_ranker.serving.http.middleware import cancel_work

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in http.HTTPStatus}
_LOG = logging.getLogger(__name__)


class Connection(Protocol):
    """What an exchange needs from its connection.

    Attributes: `unsent` sends answers; `writable` is set while the client keeps up with what is sent.
    """

    unsent: Unsent
    writable: asyncio.Event

    def read_or_pause(self) -> None:
        """Resume reading if the application has taken enough of the body."""

    def answered(self, exchange: Exchange) -> None:
        """Go on with the next request, or close."""


class Exchange:
    """A request and its answer, as an ASGI application sees them.

    Attributes:
        body: bytes of the request's body that have arrived and the application has not taken.
        head_bytes: bytes of memory that the request's head takes.
        keep_alive: whether another request may follow.
        has_written: whether a part of the answer was sent.
        is_abandoned: whether nothing more is written.
    """

    def __init__(self, connection: Connection, scope: Scope, keep_alive: bool, expects: bool, head_bytes: int):
        self._connection, self._scope = connection, scope
        self.keep_alive, self.head_bytes = keep_alive, head_bytes
        self.body = bytearray()
        self._has_all = self._gave_all = False  # of the body
        self._expects_continue = expects
        self._has_news = asyncio.Event()
        self.is_abandoned = False
        self._head = b""  # of the answer, until it is written with the first part of the body
        self._is_complete = self.has_written = False
        self._is_chunked = self._is_empty = False
        self._owed: Optional[int] = None  # bytes of the answer that are to come; None: the application does not say

    async def run(self, app: ASGIApp) -> None:
        """Run the application; if it does not complete its answer, close the connection."""
        try:
            await app(self._scope, self.receive, self.send)
        except Exception:
            _LOG.exception("an HTTP request failed")
        finally:
            if not (self._is_complete or self.is_abandoned):
                if not self.has_written:
                    self._write(refusal(b"500 Internal Server Error", "internal error; see the server's log"))
                self._complete(keep_alive=False)

    def take(self, body: bytes, is_end: bool = False) -> None:
        """Store a part of the request's body; discard it if the answer is already complete."""
        self._has_all = is_end
        if not self._is_complete:
            self.body += body
            self._has_news.set()

    def abandon(self) -> None:
        """End the work on the request, and write nothing more."""
        self.is_abandoned = True
        self._has_news.set()
        cancel_work(self._scope)

    def tell_to_wait(self) -> None:
        """Send an interim response, 100 Continue, if one can be sent."""
        if not self.has_written and self._scope["http_version"] == "1.1":
            self._connection.unsent.write(_CONTINUE)

    async def receive(self) -> Message:
        """ASGI's `receive`: return what has arrived of the body; once all was returned, wait until the request ends."""
        if self._expects_continue:
            self._expects_continue = False
            self.tell_to_wait()
        while not (self.body or (self._has_all and not self._gave_all) or self._is_complete or self.is_abandoned):
            self._has_news.clear()
            await self._has_news.wait()
        if self._is_complete or self.is_abandoned:
            return {"type": "http.disconnect"}
        body, self._gave_all = bytes(self.body), self._has_all
        self.body.clear()
        self._connection.read_or_pause()
        return {"type": "http.request", "body": body, "more_body": not self._has_all}

    async def send(self, message: Message) -> None:
        """ASGI's `send`: write a part of the answer when the client has taken enough of the earlier parts."""
        await self._connection.writable.wait()
        if self.is_abandoned:
            return
        has_started = bool(self._head) or self.has_written
        wanted = "http.response.body" if has_started else "http.response.start"
        if message["type"] != wanted or self._is_complete:
            raise RuntimeError(f"the application sends {message['type']!r} out of its turn")
        if not has_started:
            self._start(message)
        else:
            self._send_body(message.get("body", b""), message.get("more_body", False))

    def _start(self, message: Message) -> None:
        """Make the answer's head. Raises `Fault(UNAVAILABLE)` if the byte budget has no room for a large answer."""
        status, says_close, self._owed = message["status"], False, None
        if not self._has_all:  # of the request: nobody will read the rest, which may never end
            self.keep_alive = False
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status, _date_line(int(time.time()))]
        for name, value in message.get("headers", ()):
            if name == b"content-length":
                self._owed = int(value)
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive, says_close = False, True
            lines.append(name + b": " + value)
        if self._owed is not None and self._owed > MUCH_BYTES and SHARE in self._scope["state"]:
            self._scope["state"][SHARE].hold(self._owed)  # in place of the request, which its handler has forgotten
        if not (self.keep_alive or says_close):
            lines.append(b"connection: close")
        if self._scope["method"] == "HEAD" or status in (204, 304):
            self._is_empty = True  # whatever the application sends
        elif self._owed is None and self._scope["http_version"] == "1.1":  # else the answer ends with the connection
            self._is_chunked = True
            lines.append(b"transfer-encoding: chunked")
        self._head = b"\r\n".join([*lines, b"", b""])
        if self._head.count(b"\n") != len(lines) + 1 or self._head.count(b"\r") != len(lines) + 1:
            raise RuntimeError("a line break in a field of the answer's head")

    def _send_body(self, body: bytes, goes_on: bool) -> None:
        if self._is_empty:
            body = b""
        elif self._is_chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if goes_on else b"0\r\n\r\n")
        elif self._owed is not None:
            self._owed -= len(body)
            if self._owed < 0 or (self._owed and not goes_on):
                raise RuntimeError("the answer is not as long as its head says")
        if len(body) > MUCH_BYTES and not goes_on and SHARE in (state := self._scope["state"]):
            state[SHARE].end()  # from here on `unsent` counts what the client does not take
        self._write(self._head + body)
        self._head = b""
        if not goes_on:
            self._complete(self.keep_alive)

    def _write(self, data: bytes) -> None:
        self.has_written = True
        self._connection.unsent.write(data)

    def _complete(self, keep_alive: bool) -> None:
        self._is_complete, self.keep_alive = True, keep_alive
        self.body.clear()
        self._has_news.set()
        self._connection.answered(self)


def refusal(status: bytes, message: str, *headers: bytes) -> bytes:
    """Return a complete HTTP error response that ends the connection."""
    body = b'{"error": "%s", "message": "%s"}' % (message.encode(), message.encode())
    lines = [b"HTTP/1.1 " + status, b"content-type: application/json", b"content-length: %d" % len(body)]
    return b"\r\n".join([*lines, b"connection: close", *headers, b"", body])


def full(message: str) -> bytes:
    """Return the 503 response to a connection above the limit, or with requests above the byte budget."""
    return refusal(b"503 Service Unavailable", message, b"retry-after: 1")


@lru_cache(maxsize=1)
def _date_line(second: int) -> bytes:
    return b"date: " + formatdate(second, usegmt=True).encode()
