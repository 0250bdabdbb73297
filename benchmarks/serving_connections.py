"""Connections that ask a server and cost little: keep-alive, one request at a time, an answer found by its length."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Optional, Union

from benchmarks.serving_dialects import BAIDU_STD, GRPC, OK, Dialect
from paddle_ranker.errors import RankerError
from paddle_ranker.serving.paddle import baidu_std

CLOSED, LATE = "closed", "late"  # no answer came: the connection ended; it took longer than patience lasts
_HEAD_END, _LENGTH = b"\r\n\r\n", b"content-length:"


class Answer(NamedTuple):
    """`code` is `OK`, `CLOSED`, `LATE`, or the protocol's own for an error; `body` what came."""

    code: str
    body: bytes


def split_http(buffer: bytearray) -> Optional[Answer]:
    """Return the answer at the beginning of `buffer`, None until all of it is there."""
    end = buffer.find(_HEAD_END)
    if end < 0:
        return None
    head = bytes(buffer[:end]).lower()
    place = head.find(_LENGTH)
    if place < 0:
        raise RankerError(f"the server's answer has no Content-Length: {head[:200]!r}")
    length = int(head[place + len(_LENGTH) :].split(b"\r\n", 1)[0])
    if len(buffer) < end + 4 + length:
        return None
    status = head[9:12].decode("ascii", "replace")
    return Answer(OK if status == "200" else status, bytes(buffer[end + 4 : end + 4 + length]))


def split_baidu_std(buffer: bytearray) -> Optional[Answer]:
    """Return the payload of the frame at the beginning of `buffer`, None until all of it is there."""
    if len(buffer) < baidu_std.HEAD_BYTES:
        return None
    head = baidu_std.read_head(buffer)
    begin = baidu_std.HEAD_BYTES + head.meta_size
    if len(buffer) < baidu_std.HEAD_BYTES + head.body_size:
        return None
    meta = baidu_std.read_meta(bytes(buffer[baidu_std.HEAD_BYTES : begin]))
    payload = bytes(buffer[begin : baidu_std.HEAD_BYTES + head.body_size])
    return Answer(str(meta.response.error_code) if meta.response.error_code else OK, payload)


class _Stream(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, split: Any) -> None:
        self._split = split
        self._buffer = bytearray()
        self._asked: Optional[asyncio.Future[Answer]] = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            answer = self._split(self._buffer)
        except Exception as error:  # no answer of the protocol's: the run is to end with it
            if self._asked and not self._asked.done():
                self._asked.set_exception(error)
            return
        if answer is not None:
            self._buffer.clear()
            self._finish(answer)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self.transport = None
        self._finish(Answer(CLOSED, b""))

    async def ask(self, data: bytes, patience: float) -> Answer:
        loop = asyncio.get_running_loop()
        self._asked = loop.create_future()
        timer = loop.call_later(patience, self._give_up)
        self.transport.write(data)
        try:
            return await self._asked
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self._finish(Answer(LATE, b""))
        if self.transport is not None:
            self.transport.abort()
            self.transport = None  # at once: what is asked next is to have another connection

    def _finish(self, answer: Answer) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(answer)


class StreamConnection:
    """A connection of HTTP or baidu_std, opened anew where it has ended."""

    def __init__(self, host: str, port: int, transport: str, patience: float) -> None:
        self._host, self._port, self._patience = host, port, patience
        self._split = split_baidu_std if transport == BAIDU_STD else split_http
        self._stream: Optional[_Stream] = None

    async def ask(self, data: bytes) -> Answer:
        """Send a request and return what is answered."""
        if self._stream is None or self._stream.transport is None:
            try:
                _, self._stream = await asyncio.get_running_loop().create_connection(
                    lambda: _Stream(self._split), self._host, self._port
                )
            except OSError:
                return Answer(CLOSED, b"")
        return await self._stream.ask(data, self._patience)

    async def close(self) -> None:
        """End the connection."""
        if self._stream is not None and self._stream.transport is not None:
            self._stream.transport.abort()


class GrpcConnection:
    """A channel with a connection of its own."""

    def __init__(self, host: str, port: int, method: str, patience: float) -> None:
        import grpc
        import grpc.aio

        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        options.append(("grpc.initial_reconnect_backoff_ms", 100))
        self._channel = grpc.aio.insecure_channel(f"{host}:{port}", options=options)
        self._call = self._channel.unary_unary(method)
        self._error = grpc.aio.AioRpcError
        self._patience = patience

    async def ask(self, data: bytes) -> Answer:
        """Call the method and return what is answered."""
        try:
            return Answer(OK, await self._call(data, timeout=self._patience))
        except self._error as error:
            code: str = error.code().name
            return Answer(LATE if code == "DEADLINE_EXCEEDED" else code, (error.details() or "").encode())

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close(None)


Connection = Union[StreamConnection, GrpcConnection]


def connect(dialect: Dialect, host: str, port: int, patience: float = 60.0) -> Connection:
    """Return a connection that is opened at its first request; `patience`: seconds that an answer may take."""
    if dialect.transport == GRPC:
        return GrpcConnection(host, port, dialect.method, patience)
    return StreamConnection(host, port, dialect.transport, patience)
