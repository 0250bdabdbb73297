"""HTTP/1.1 on a connection: httptools reads requests, an ASGI application answers them in order, all within limits.

Every byte of a request is read by `HttpConnection.feed`; every byte of an answer is sent by `HttpConnection.unsent`.

- A head is limited in bytes, trailers included, and in fields. Head and body must arrive in time, and the client must
  take its answers in time. An idle connection is closed.
- Requests are answered in order. Only a few waiting requests are read, and their bytes count in the worker's budget.
- The end of a body is never guessed: a request has one length, or one transfer coding, which must be `chunked`.
- An offered upgrade (h2c, websocket) is ignored (RFC 9110, 7.8): the parser would skip such a request's body, and read
  it as the next request. CONNECT is refused.
- Invalid HTTP is refused after the requests before it are answered.
- A client that has sent all requests and closed its side still gets its answers. A client that has left is noticed,
  even while it is not being read from, and the work on its request ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
import urllib.parse
from collections import deque
from functools import partial
from typing import Any, Optional, cast

import httptools
from starlette.types import ASGIApp, Scope

from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.connections import Connections, Unsent, close_lingering
from paddle_ranker.serving.core.peers import look_at
from paddle_ranker.serving.core.turns import REQUEST, Pace
from paddle_ranker.serving.http.asgi import Exchange, full, refusal

WAITING, HEAD, BODY = range(3)  # what has come of the request that is being read: nothing, or up to somewhere in it
_MOST_FIELDS = 100  # of a head
_MOST_WAITING = 32  # requests that are read before those before them are answered
_MOST_UNREAD = 64 * 1024  # bytes of a body that the application has not taken, above which no more is read
_REQUEST_MEMORY, _FIELD_MEMORY = 2000, 200  # bytes that a request and a field take beside their own
_HEAD_UNITS = 8  # of a turn's work, for reading a head
_HEAD_SLICE, _BODY_SLICE = 4 * 1024, 16 * 1024  # bytes that are read at a time: they may be many requests
_BAD, _LATE, _LARGE = b"400 Bad Request", b"408 Request Timeout", b"431 Request Header Fields Too Large"
_ADDRESS = "the address is missing, or holds what must be percent-encoded (curl: -G --data-urlencode)"
_ONCE = frozenset((b"host", b"transfer-encoding"))  # fields that may be there once
_ASGI = {"version": "3.0", "spec_version": "2.3"}
_LOG = logging.getLogger(__name__)


class _NoRequest(Exception):
    """The parser is to stop: the bytes are not read as a request."""


class HttpConnection(asyncio.Protocol):
    """One HTTP connection.

    Args:
        app: answers the requests.
        config: says how long a head, a body and an answer may take, and how large a head may be.
        connections: watches this one.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, connections: Connections):
        self._app, self._config, self._connections = app, config, connections
        self._held = connections.budget.share()
        self._most_head = config.limits.header_bytes
        self._tasks: set[asyncio.Task[None]] = set()
        # What is read
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # `on_message_begin` refuses it
        self._phase, self._since = HEAD, time.monotonic()
        self._to_read = bytearray()  # what has come of requests that have to wait
        self._is_reading = True  # from the client
        self._sent_all = False  # the client has closed its side
        self._is_last = False  # the request that was read last ends the connection
        self._head_bytes = 0  # of the request's head and trailers, those fields that came whole
        self._unfinished = 0  # bytes since the parser has called last: of a field that does not end
        self._fields: list[tuple[bytes, bytes]] = []
        self._refusal = b""  # why the parser was stopped
        self._is_chunked = False  # the body that is being read, or was read last
        self._chunks = self._heads = 0  # that have begun since they were last counted
        self._turns, self._pace = connections.turns, Pace(connections.turns, self._read_on)
        # What is answered
        self._read: Optional[Exchange] = None  # the request that is being read, or was read last
        self._running: Optional[Exchange] = None  # the request that is worked on; others wait for it
        self._queue: deque[Exchange] = deque()
        self.ending = False  # further input is discarded; closed when the requests that came whole are answered
        self._last_answer = b""  # sent then
        self._has_ended = False  # nothing more is written; closed soon

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.unsent = Unsent(self.transport, self._connections.budget, self._config.answer_seconds)
        self._loop = asyncio.get_running_loop()
        self._server, self._client = (
            address and address[:2] for address in map(transport.get_extra_info, ("sockname", "peername"))
        )
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """End the work on a request: nobody waits for it."""
        self._connections.discard(self)
        self._held.end()
        self.unsent.end()
        self.ending = self._has_ended = True
        self._queue.clear()
        self._to_read.clear()
        self._pace.end()
        if self._running is not None:
            self._running.abandon()
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        """Read as many requests as may wait; keep the rest as bytes, which take less memory than read requests."""
        if not self._is_over():
            self._to_read += data
            self._read_on()

    def eof_received(self) -> bool:
        """Return True, which keeps the connection open, if there are answers still to send."""
        self._sent_all = True
        if not self._to_read:
            self.end_with(b"")
        return self._running is not None and not self._has_ended

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    # What `Connections` calls

    def check(self, now: float) -> None:
        """See `Connection`."""
        self._check_reading(now)
        self.unsent.check(now)
        self._look_after_client()

    def shutdown(self) -> None:
        """See `Connection`."""
        self._is_last = True
        if self._running is None:
            self._close()
        else:
            (self._queue[-1] if self._queue else self._running).keep_alive = False

    def abort(self) -> None:
        """See `Connection`."""
        self.transport.abort()

    # Reading

    def _read_on(self) -> None:
        while self._to_read and len(self._queue) < _MOST_WAITING and not self._is_over() and self._may_read():
            size = _BODY_SLICE if self._phase == BODY else _HEAD_SLICE
            if is_small := self._may_be_small():
                size = self._pace.slice(size)
            data = bytes(self._to_read[:size])
            del self._to_read[:size]
            self.feed(data)
            if is_small or self._chunks:
                self._pace.took(self._chunks, len(data), units=_HEAD_UNITS * self._heads)
            self._chunks = self._heads = 0
        if self._is_over():
            self._to_read.clear()
        elif self._sent_all and not self._to_read:
            self.end_with(b"")
        self._hold_what_waits()
        self.read_or_pause()

    def _may_read(self) -> bool:
        return self._pace.may_read() if self._may_be_small() else not self._pace.waits

    def _may_be_small(self) -> bool:
        """Return whether what has come may be many small chunks or many requests."""
        if self._phase == BODY:
            return self._is_chunked
        return bool(self._queue) or len(self._to_read) > _HEAD_SLICE

    def feed(self, data: bytes) -> None:
        """Read some bytes of requests. Bytes of an unfinished field count in the head's limit before `on_header`."""
        self._unfinished += len(data)
        left: Any = data
        try:
            while True:
                try:
                    self._parser.feed_data(left)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    left = memoryview(left)[upgrade.args[0] :]
                    self._read_again_without_upgrade()
            self._check_head()
        except (httptools.HttpParserError, _NoRequest) as error:
            if self._is_over():
                return
            if self._is_last and self._phase == WAITING:  # it follows a request that ends the connection
                self.end_with(b"")
                return
            _LOG.warning("Invalid HTTP request received.")
            is_address = isinstance(error, httptools.HttpParserInvalidURLError)
            self.end_with(self._refusal or refusal(_BAD, _ADDRESS if is_address else "this is not HTTP/1.1"))

    def end_with(self, answer: bytes) -> None:
        """Read nothing more; when all complete requests are answered, send `answer` and close.

        `answer` is for the request that is being read; it is not sent if an answer to that request has begun.
        """
        if self.ending:
            return
        self.ending, self._last_answer = True, answer
        if self._phase == BODY and self._read is not None:  # it will never be whole
            if self._read.has_written:
                self._last_answer = b""
            if self._read is self._running:
                self._running = None
                self._read.abandon()
            elif self._queue and self._queue[-1] is self._read:
                self._queue.pop()
        if self._running is None:
            self._close()
        self.read_or_pause()

    def read_or_pause(self) -> None:
        """Stop reading from a client whose requests wait; where input is discarded, read on to see it leave."""
        is_behind = self._phase == BODY and self._read is not None and len(self._read.body) > _MOST_UNREAD
        wanted = self._is_over() or not (self._to_read or self._queue or self._pace.waits or is_behind)
        if wanted == self._is_reading or self.transport.is_closing():
            return
        self._is_reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _hold_what_waits(self) -> None:
        """Count an unfinished head and waiting requests in the worker's byte budget; if it has no room, refuse them."""
        if not (self._to_read or self._queue or self._held.held or self._phase == HEAD):
            return
        size = len(self._to_read) + sum(one.head_bytes + len(one.body) for one in self._queue)
        if self._phase == HEAD:
            size += self._head_memory()
        if not self._held.set(size) and not self.ending:
            self._to_read.clear()
            self._queue.clear()
            self._held.set(0)
            self.end_with(full(str(self._held.refusal())))

    def _head_memory(self) -> int:
        """Return how many bytes the head takes that is being read."""
        return _REQUEST_MEMORY + _FIELD_MEMORY * len(self._fields) + self._head_bytes + self._unfinished

    def _is_over(self) -> bool:
        """Return whether further input is discarded."""
        return self.ending or self._has_ended

    # What the parser calls

    def on_message_begin(self) -> None:
        if self._is_last:
            raise _NoRequest
        self._phase, self._since = HEAD, time.monotonic()
        self._heads += 1
        self._head_bytes = self._unfinished = 0
        self._url, self._fields = b"", []
        self._once: set[bytes] = set()
        self._expects_continue = self._offers_upgrade = False

    def on_url(self, url: bytes) -> None:
        self._unfinished = 0
        self._head_bytes += len(url)
        self._check_head()
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a field of the head; trailers are counted and discarded."""
        self._unfinished = 0
        self._head_bytes += len(name) + len(value) + 4
        self._check_head()
        if self._phase != HEAD:
            return
        name = name.lower()
        self._fields.append((name, value))
        if len(self._fields) > _MOST_FIELDS:
            self._stop_reading(_LARGE, f"the head has more than {_MOST_FIELDS} fields")
        if name in _ONCE:
            if name in self._once:
                self._stop_reading(_BAD, f"{name.decode()} is there twice")
            if name == b"transfer-encoding" and value.strip(b" \t").lower() != b"chunked":
                self._stop_reading(_BAD, "transfer-encoding is another than chunked")
            self._once.add(name)
        elif name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True

    def on_headers_complete(self) -> None:
        """Start work on the request, or queue it behind those before it."""
        self._unfinished, self._since = 0, time.monotonic()
        parser = self._parser
        method, version = parser.get_method(), parser.get_http_version()
        if parser.should_upgrade():
            if method == b"CONNECT":
                raise _NoRequest
            self._offers_upgrade = True  # `feed` goes on
            return
        if version != "1.0" and b"host" not in self._once:
            self._stop_reading(_BAD, "host is missing")
        url = httptools.parse_url(self._url)
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "method": method.decode("ascii"),
            "root_path": "",
            "path": urllib.parse.unquote(url.path.decode("ascii")),
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self._fields,
            "state": {},
        }
        keep_alive = version != "1.0" and parser.should_keep_alive()
        self._read = Exchange(self, scope, keep_alive, self._expects_continue, self._head_memory())
        self._phase, self._is_last = BODY, not keep_alive
        self._is_chunked = b"transfer-encoding" in self._once
        if self._running is None:
            self._begin(self._read)
        else:
            self._queue.append(self._read)

    def on_chunk_header(self) -> None:
        self._unfinished = 0  # what may stand in it has come whole
        self._chunks += 1

    def on_body(self, body: bytes) -> None:
        self._unfinished = 0
        assert self._read is not None
        self._read.take(body)

    def on_message_complete(self) -> None:
        self._unfinished = 0
        if not self._offers_upgrade:
            self._phase, self._since = WAITING, time.monotonic()
            assert self._read is not None
            self._read.take(b"", is_end=True)

    def _check_head(self) -> None:
        if self._head_bytes + self._unfinished > self._most_head:
            self._stop_reading(_LARGE, f"the head has more than {self._most_head:,} bytes")

    def _stop_reading(self, status: bytes, message: str) -> None:
        """Stop the parser by an exception, which the parser turns into an error of its own."""
        self._refusal = refusal(status, message)
        raise _NoRequest

    def _read_again_without_upgrade(self) -> None:
        """Feed the head that was just read to a new parser, without its offer of an upgrade."""
        parser = self._parser
        lines = [b"%b %b HTTP/%b" % (parser.get_method(), self._url, parser.get_http_version().encode())]
        for name, value in self._fields:
            if name == b"connection":
                value = b", ".join(part for part in value.split(b",") if part.strip().lower() != b"upgrade")
            if name != b"upgrade":
                lines.append(name + b": " + value)
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parser.feed_data(b"\r\n".join([*lines, b"", b""]))

    # Answering

    def _begin(self, exchange: Exchange) -> None:
        """Run the application, or wait for this connection's turn: as many requests wait as there are connections."""
        self._running = exchange
        if self._turns.is_free():
            self._run(exchange)
        else:
            self._turns.line_up(partial(self._run, exchange))

    def _run(self, exchange: Exchange) -> None:
        if exchange.is_abandoned:
            return
        self._turns.spend(REQUEST)
        task = self._loop.create_task(exchange.run(self._app))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, exchange: Exchange) -> None:
        """Go on with the next request, or close."""
        if exchange is not self._running:
            return
        self._running = None
        if self._phase == WAITING:
            self._since = time.monotonic()
        if not exchange.keep_alive:
            self._close()
        elif self._queue:
            self._begin(self._queue.popleft())
        elif self.ending:
            self._close()
        if self._to_read and not self._is_over():
            self._read_on()
        else:
            self._hold_what_waits()
            self.read_or_pause()

    def _close(self) -> None:
        """Send the last answer and close; if the client may still be sending, discard its input for a moment first."""
        if self._has_ended:
            return
        self._has_ended = True
        self._queue.clear()
        self._to_read.clear()
        if self._last_answer:
            self.unsent.write(self._last_answer)
        if (self.ending or self._phase == BODY) and not self._sent_all:
            close_lingering(self.transport)
        else:
            self.transport.close()

    # Time

    def _check_reading(self, now: float) -> None:
        """Refuse a head or body that does not arrive in time, and close an idle connection."""
        if self.ending:
            return
        if not (self._is_reading or self._pace.waits):  # it is not the client who is slow
            self._since = now
        config, waited = self._config, now - self._since
        if self._phase == HEAD and waited > config.header_seconds:
            self.end_with(refusal(_LATE, f"no request came in {config.header_seconds:g} seconds"))
        elif self._phase == BODY and waited > config.body_seconds:
            self.end_with(refusal(_LATE, f"the body took more than {config.body_seconds:g} seconds"))
        elif self._phase == WAITING and self._running is None and waited > config.idle_seconds:
            self.end_with(b"")

    def _look_after_client(self) -> None:
        """End the connection if the client has left while its request is worked on, even if that was not reported.

        A client that has left cannot be told from one that has only finished sending, until it is sent something: if
        it has left, a reset comes back. An interim response serves for that; HTTP/1.1 allows any number of them. Nor
        is it known of one whose further requests are not read yet: its end may come behind more than the system takes.
        """
        running = self._running
        if running is None or not (self._sent_all or not self._is_reading) or self.transport.is_closing():
            return
        peer = look_at(self.transport)
        if peer.left:
            self.transport.abort()
        elif self._sent_all or peer.sent_all or self._queue:
            running.tell_to_wait()
