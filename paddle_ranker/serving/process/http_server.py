"""HTTP/1.1 by uvicorn and httptools, with bounds on what a connection may send before a request is complete."""

from __future__ import annotations

import asyncio
import http
import time
from contextlib import nullcontext, suppress
from typing import Any, Optional

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from paddle_ranker.serving.core.connections import Connections, PeerTimeout, ProtocolHandler, close_gently, peer_of
from paddle_ranker.serving.core.faults import INVALID, TIMED_OUT, TOO_LARGE, UNAVAILABLE, Fault
from paddle_ranker.serving.slots.services import Counting

HEAD_BYTES = 64 * 1024  # most bytes of a head, of trailers, and between two parts of a chunked body
HEADER_FIELDS = 100  # most fields of a head or of trailers: each takes some 200 bytes of memory beside its text
_HEAD_SLICE, _BODY_SLICE = 8 * 1024, 64 * 1024  # bytes that the parser gets at a time
_KINDS = {400: INVALID, 408: TIMED_OUT, 431: TOO_LARGE, 503: UNAVAILABLE}
_INVALID = "this is not a valid HTTP request"
_TOO_MUCH = f"a head, or what stands around a body, has at most {HEAD_BYTES // 1024} KiB and {HEADER_FIELDS} fields"


class HttpConnection(HttpToolsProtocol):
    """A connection whose unfinished heads, trailers and pipelined requests are counted and limited.

    httptools itself has no limits. So it gets a few bytes at a time, and none while pipelined requests wait.

    Args:
        connections: the open connections of the worker, with the byte budget.
        counting: counts requests that are refused before the application gets them.
        uvicorn: keyword arguments of `HttpToolsProtocol`.
    """

    def __init__(self, connections: Connections, counting: Counting = nullcontext, **uvicorn: Any):
        super().__init__(**uvicorn)
        self._counting = counting
        self.headers = []  # until a request begins
        self._share = connections.budget.share()
        self._reading, self._writing = PeerTimeout(self._on_slow_request), PeerTimeout(self._abort)
        self._held = b""  # bytes that came behind pipelined requests
        self._unfinished = 0  # bytes since the last head, part of a body or end of a request
        self._large_heads = 0  # bytes of the large heads of requests without an answer
        self._is_open = self._is_in_body = False  # whether a request has begun, and whether its head is complete
        self._is_over = False  # further bytes are ignored
        self.waits_since: Optional[float] = time.monotonic()

    def connection_lost(self, exc: Any) -> None:
        self._is_over, self._held = True, b""
        self._reading.end()
        self._writing.end()
        self._share.end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._is_over:
            self._read(self._held + data if self._held else data)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self._writing.wait()  # asyncio would wait for ever for the client to receive the rest
            return
        if not self.pipeline:
            self._large_heads = 0
            self.waits_since = time.monotonic()
        if not self._is_over and (self._held or self._share.held):
            self._read(self._held)

    def on_message_begin(self) -> None:
        self._is_open = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if len(self.headers) > HEADER_FIELDS:
            self._refuse(431, _TOO_MUCH)
            raise ValueError(_TOO_MUCH)  # stops the parser
        if self.parser.should_upgrade():
            return  # see `_read_without_upgrade`
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (codings != [b"chunked"] or self.parser.get_http_version() == "1.0"):
            # A proxy that speaks HTTP/1.0 would find another end of the body (RFC 9112, 6.1).
            self._refuse(400, _INVALID)
            raise ValueError(_INVALID)
        if self._unfinished > _HEAD_SLICE:
            self._large_heads += self._unfinished
        super().on_headers_complete()
        self._unfinished, self._is_in_body = 0, True
        self.headers = []  # for trailers, which the application does not get

    def on_body(self, body: bytes) -> None:
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._unfinished, self._is_open, self._is_in_body = 0, False, False
            self.waits_since = None
            self._reading.stop()
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing.wait()

    def resume_writing(self) -> None:
        self._writing.stop()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self._abort()  # the client has not received the last answer
        super().timeout_keep_alive_handler()

    def _read(self, data: bytes) -> None:
        """Pass bytes to the parser until pipelined requests wait. Keep and count the bytes that are left."""
        if data and self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        size, start = len(data), 0
        while start < size and not self.pipeline and not self._is_over:
            part = data[start : start + (_BODY_SLICE if self._is_in_body else _HEAD_SLICE)]
            start += len(part)
            self._unfinished += len(part)
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade as offer:
                self._read_without_upgrade(part[offer.args[0] :])
            except httptools.HttpParserError:
                self._refuse(400, _INVALID)
            if self._unfinished and (self._unfinished > HEAD_BYTES or len(self.headers) > HEADER_FIELDS):
                self._refuse(431, _TOO_MUCH)
        if not self._is_over:
            self._held = data[start:]
            if self._held or self._is_open or self._unfinished or self._share.held:
                self._count(size)

    def _count(self, size: int) -> None:
        """Count the bytes of the unfinished request in the byte budget, and give the client time to send the rest.

        size: number of bytes that have come since the last call
        """
        if self._held:
            self.flow.pause_reading()
        if self._is_open or self._unfinished:
            is_wanted = not (self._is_in_body and self.cycle.response_complete)
            self._reading.wait(size if is_wanted else 0)
        held = len(self._held) + self._large_heads + self._unfinished
        if held != self._share.held and not self._share.set(held):
            self._refuse(503, "the server holds as many bytes of requests as it may; try again")

    def _read_without_upgrade(self, rest: bytes) -> None:
        """Read a request that offers to switch protocols as a plain request (RFC 9110, 7.8). Java's client offers h2c.

        httptools takes the body after such a head for data of the offered protocol. So a new parser gets the head
        without the offer.

        rest: the bytes after the head
        """
        kept = [(name, value) for name, value in self.headers if name != b"upgrade"]
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if len(kept) == len(self.headers):
            self._refuse(400, f"{method.decode()} is not answered here")
            return
        lines = [b"%s %s HTTP/%s" % (method, self.url, version), *(b"%s: %s" % field for field in kept), b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(b"\r\n".join(lines))
            self.parser.feed_data(rest)
        except httptools.HttpParserError:
            self._refuse(400, _INVALID)

    def _on_slow_request(self) -> None:
        if self.flow.read_paused:  # the server is the slow one
            self._reading.wait()
        else:
            self._refuse(408, "the request did not come in time")

    def _refuse(self, status: int, problem: str) -> None:
        """End the connection after an unreadable request. Answer with `status` unless another answer is in progress."""
        if self._is_over:
            return
        self._is_over, self._held = True, b""
        self._reading.stop()
        self._share.set(0)
        self.headers.clear()  # the connection stays for a moment
        cycle = self.cycle
        self._note_refusal(status, problem)
        if cycle is not None and not cycle.response_complete and not self._is_in_body:
            cycle.keep_alive = False  # closes after the answer to the last request
            return
        if self._is_in_body:
            is_answered = cycle.response_started or bool(self.pipeline)
            cycle.disconnected = True
            cycle.message_event.set()
            if is_answered:
                self.transport.close()
                return
        content = problem.encode()
        head = [
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}",
            "content-type: text/plain; charset=utf-8",
            f"content-length: {len(content)}",
            "connection: close",
        ]
        self.transport.write("\r\n".join([*head, "\r\n"]).encode() + content)
        close_gently(self.transport)

    def _note_refusal(self, status: int, problem: str) -> None:
        """Count and log a refused request, or let the application do so if it has the request already."""
        fault = Fault(_KINDS[status], problem)
        if self._is_in_body:
            self.scope.setdefault("state", {}).update(refused=status, outcome=fault.kind.name)
            return
        with suppress(Fault), self._counting() as record:
            if record is not None:
                record.describe(status=status, client=peer_of(self.transport), request_bytes=self._unfinished)
            raise fault

    def give_way(self) -> None:
        """Close the connection, on which no complete request waits for its answer."""
        if self._is_open or self._unfinished:
            self._refuse(408, "the request did not come in time: other clients need the connection")
        self.transport.close()

    def _abort(self) -> None:
        self.transport.abort()


class HttpServer(ProtocolHandler):
    """Handler of HTTP/1.1 connections: passes accepted sockets to uvicorn."""

    def __init__(
        self,
        app: ASGIApp,
        connections: Connections,
        drain_seconds: float = 30.0,
        keep_alive_seconds: float = 75.0,
        counting: Counting = nullcontext,
    ):
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=keep_alive_seconds,  # type: ignore[arg-type]  # passed to call_later
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
        )
        config.load()
        self._server = uvicorn.Server(config)
        state = self._server.server_state
        connections.http = state.connections
        super().__init__(lambda: HttpConnection(connections, counting, config=config, server_state=state, app_state={}))

    async def start(self) -> HttpServer:
        """Start uvicorn without listening sockets, and return this handler. uvicorn replaces the signal handlers."""
        self._serving = asyncio.ensure_future(self._server.serve(sockets=[]))
        while not self._server.started and not self._serving.done():
            await asyncio.sleep(0)
        return self

    async def stop(self, seconds: float) -> None:
        """Close idle connections. Finish requests in flight, for at most `drain_seconds`; `seconds` is not used."""
        self._server.should_exit = True
        await self._serving
