"""HTTP/1.1 on a connection: uvicorn's protocol, mended where it mistakes what a client says or where it has gone.

- An upgrade (h2c, websocket) that nobody here asked for is ignored (RFC 9110, 7.8): uvicorn's parser skips such a
  request's body, and reads it as the next request.
- What is no HTTP is refused at its turn, after the requests before it are answered.
- A client that has sent all, and says so by closing its side, gets its answers; one that has left is noticed, whether
  or not it is being read from, and the work on its request ends.
"""

from __future__ import annotations

import asyncio
from typing import Any, Optional, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from paddle_ranker.serving.core.peers import look_at
from paddle_ranker.serving.http.middleware import cancel_work
from paddle_ranker.serving.http.writes import JoinedWrites, full, refusal

WAITING, HEAD, BODY = range(3)  # what has come of the request that is being read: nothing, or up to somewhere in it
_LOOK_SECONDS, _LONGEST_LOOK = 0.25, 2.0  # between looks whether a client is still there; they grow
_MOST_WAITING = 32  # requests that are read before those before them are answered
_HEAD_SLICE, _BODY_SLICE = 4 * 1024, 16 * 1024  # bytes that are read at a time: they may be many requests
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _NoRequest(Exception):
    """What comes is not read as a request: it follows one that ends the connection, or asks for a tunnel."""


class HttpConnection(HttpToolsProtocol):
    """One connection."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None):
        super().__init__(config, server_state, app_state, _loop)
        self.phase = HEAD
        self.ending = False  # what comes is thrown away; closed when the requests that came whole are answered
        self._last_answer = b""  # sent then
        self._sent_all = False  # the client has closed its side
        self._to_read = bytearray()  # what has come of requests that have to wait
        self._running: Optional[RequestResponseCycle] = None  # the request that is worked on; others wait for it
        self._offers_upgrade = False
        self._is_last = False  # the request that was read last ends the connection
        self._look: Optional[asyncio.TimerHandle] = None
        self._look_seconds = _LOOK_SECONDS

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; what is written goes out in few packets."""
        self.joined = JoinedWrites(cast(asyncio.Transport, transport), self._is_sending)
        super().connection_made(cast(asyncio.Transport, self.joined))

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """End the work on a request: nobody waits for it."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)
        if self._running is not None:
            _abandon(self._running)
        self.pipeline.clear()
        self._to_read.clear()

    def eof_received(self) -> Optional[bool]:  # type: ignore[override]  # uvicorn's always closes
        """Return True, which keeps the connection open, where there are answers to give."""
        self._sent_all = True
        if not self._to_read:
            self.end_with(b"")
        if self._running is None or self.joined.has_ended:
            return None
        self._watch_client()
        return True

    def data_received(self, data: bytes) -> None:
        """Read requests, as many as may wait; of others the bytes are kept, which is less than what becomes of them."""
        if not self._is_over():
            self._to_read += data
            self._read_on()

    def _read_on(self) -> None:
        self._unset_keepalive_if_required()
        while self._to_read and len(self.pipeline) < _MOST_WAITING:
            size = _BODY_SLICE if self.phase == BODY else _HEAD_SLICE
            data = bytes(self._to_read[:size])
            del self._to_read[:size]
            self.feed(data)
            if self._is_over():
                self._to_read.clear()
        if self._to_read:
            self.flow.pause_reading()
        elif self._sent_all:
            self.end_with(b"")

    def feed(self, data: bytes) -> None:
        """Read some bytes of requests."""
        left: Any = data
        try:
            while True:
                try:
                    self.parser.feed_data(left)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    left = memoryview(left)[upgrade.args[0] :]
                    self._read_again_without_upgrade()
        except httptools.HttpParserError:
            if self._is_over():
                return
            if self._is_last and self.phase == WAITING:
                self.end_with(b"")
                return
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self.end_with(refusal(b"400 Bad Request", "this is not HTTP/1.1"))

    @property
    def is_idle(self) -> bool:
        """Whether no request is worked on."""
        return self._running is None

    def end_with(self, answer: bytes) -> None:
        """Read nothing more; when the requests that have come whole are answered, send `answer` and close.

        It is for the request that is being read, and not sent where that has its answer.
        """
        if self.ending:
            return
        self.ending, self._last_answer = True, answer
        if self.phase == BODY:  # it will never be whole
            if self.cycle.response_started:
                self._last_answer = b""
            if self.cycle is self._running:
                self._running = None
                _abandon(self.cycle)
            elif self.pipeline and self.pipeline[0][0] is self.cycle:
                self.pipeline.popleft()
        if self._running is None:
            self._close()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        if self._is_last:
            raise _NoRequest
        super().on_message_begin()
        self.phase, self._offers_upgrade = HEAD, False

    def on_headers_complete(self) -> None:
        """Begin with the request, or put it behind those before it."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _NoRequest
            self._offers_upgrade = True  # `data_received` comes next
            return
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            # uvicorn's own refusal is no JSON, and does not say when to come again
            self.end_with(full(f"{self.limit_concurrency - 1} connections are open, which is the limit"))
            raise _NoRequest
        previous = self.cycle
        super().on_headers_complete()
        self.phase = BODY
        if not self.parser.should_keep_alive():
            self.cycle.keep_alive = False
        self._is_last = not self.cycle.keep_alive
        if previous is None or previous.response_complete:
            self._running = self.cycle
        else:
            self._watch_client()  # reading is paused

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        super().on_body(body)
        if self.flow.read_paused:
            self._watch_client()

    def on_message_complete(self) -> None:
        """Note that all of a request is there, and read on, if only to see the client leave."""
        if self._offers_upgrade:
            return
        self.phase = WAITING
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """Go on with the next request, or close."""
        self.joined.flush()
        if self.joined.has_ended:
            self.pipeline.clear()
        self._running = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self.ending and self._running is None:
            self._close()
        elif self._to_read and not self.ending:
            self._read_on()

    def _read_again_without_upgrade(self) -> None:
        """Give the head that was just read to a new parser, as if it had not offered an upgrade."""
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(part for part in value.split(b",") if part.strip().lower() != b"upgrade")
            if name != b"upgrade":
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        self.parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    # Whether the client is there

    def _is_over(self) -> bool:
        """Return whether what comes is thrown away."""
        return self.ending or self.joined.has_ended

    def _is_sending(self) -> bool:
        return (self.ending or self.phase == BODY) and not self._sent_all

    def _watch_client(self) -> None:
        """Look after a client that cannot be seen to leave, as long as its request is worked on."""
        if self._look is None:
            self._look_seconds = _LOOK_SECONDS
            self._look = self.loop.call_later(self._look_seconds, self._look_after_client)

    def _look_after_client(self) -> None:
        """End the connection where the client has gone.

        One that has closed both sides cannot be told from one that has closed its own, until it is sent something:
        that it answers with a reset. An interim response says nothing, and HTTP/1.1 allows any number of them.
        """
        self._look = None
        running = self._running
        if running is None or not (self._sent_all or self.flow.read_paused) or self.transport.is_closing():
            return
        peer = look_at(self.transport)
        if peer.left:
            self.transport.abort()
            return
        has_sent_all = self._sent_all or peer.sent_all
        if has_sent_all and running.scope["http_version"] == "1.1" and not running.response_started:
            self.transport.write(_PROBE)
        self._look_seconds = min(2 * self._look_seconds, _LONGEST_LOOK)
        self._look = self.loop.call_later(self._look_seconds, self._look_after_client)

    def _close(self) -> None:
        if self._last_answer and not self.joined.has_ended:
            self.transport.write(self._last_answer)
        self._last_answer = b""
        self.transport.close()


def _abandon(cycle: RequestResponseCycle) -> None:
    """End the work on a request."""
    cycle.disconnected = True
    cycle.message_event.set()
    cancel_work(cast(Any, cycle.scope))
