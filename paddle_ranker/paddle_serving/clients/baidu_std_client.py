"""A client of the C++ server over baidu_std."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any, Optional

from paddle_ranker.paddle_serving import baidu_std
from paddle_ranker.paddle_serving.clients.scoring_client import GeneralModelClient
from paddle_ranker.paddle_serving.messages import GENERAL_SERVICE, Message, messages, parse
from paddle_ranker.serving.clients.base import LARGEST_ANSWER
from paddle_ranker.serving.clients.client_errors import (
    LateError,
    OverloadedError,
    RefusedError,
    ServerError,
    UnreachableError,
)
from paddle_ranker.serving.core.faults import OVERLOADED, TIMED_OUT, Fault
from paddle_ranker.serving.core.limits import stated_milliseconds

_COMPRESSIONS = {"none": baidu_std.NONE, "gzip": baidu_std.GZIP, "zlib": baidu_std.ZLIB}
_LOGGED_OFF = 2003  # brpc: the server is stopping


class BaiduStdClient(GeneralModelClient):
    """A client with one connection, for one request at a time. Threads that share it wait for each other.

    Args:
        compression: compression of requests: none, gzip or zlib.
    """

    def __init__(self, *arguments: Any, compression: str = "none", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._compression = _COMPRESSIONS[compression]
        self._socket: Optional[socket.socket] = None
        self._lock = threading.Lock()
        self._correlation_id = 0

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _ask(self, request: Message) -> Message:
        with self._lock:
            self._correlation_id += 1
            end = time.monotonic() + self.timeout
            try:
                meta, payload = self._exchange(self._frame(request), end)
            except BaseException as error:
                self._disconnect()  # later bytes would answer the abandoned request
                if isinstance(error, socket.timeout):
                    raise LateError(f"{self.address}: no answer within {self.timeout:g} seconds") from error
                if isinstance(error, OSError):
                    raise UnreachableError(f"{self.address}: {error.strerror or error}") from error
                raise
        answered = meta.response
        if answered.error_code:
            raise self._error(answered.error_code, answered.error_text)
        return parse(messages().Response, payload)

    def _frame(self, request: Message) -> bytes:
        meta = messages().RpcMeta(correlation_id=self._correlation_id, compress_type=self._compression)
        meta.request.service_name, meta.request.method_name = GENERAL_SERVICE, "inference"
        meta.request.timeout_ms = stated_milliseconds(self.timeout)
        if self.api_key is not None:
            meta.authentication_data = self.api_key.encode("utf-8")
        return baidu_std.write_frame(meta, request.SerializeToString())

    def _exchange(self, frame: bytes, end: float) -> tuple[Message, bytes]:
        """Send a frame. Return the RpcMeta and the payload of the reply. Raises `OSError` or `ServerError`."""
        if self._socket is None:
            self._socket = socket.create_connection((self.host, self.port), self.timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(_left(end))
        self._socket.sendall(frame)
        try:
            head = baidu_std.read_head(self._read(baidu_std.HEAD_BYTES, end))
            if head.body_size > LARGEST_ANSWER:
                raise ServerError(f"{self.address}: announces an answer of {head.body_size:,} bytes")
            body = self._read(head.body_size, end)
            meta = baidu_std.read_meta(body[: head.meta_size])
            payload = baidu_std.read_body(meta, body[head.meta_size :], LARGEST_ANSWER)
        except Fault as fault:
            raise ServerError(f"{self.address}: does not speak baidu_std ({fault})") from fault
        if meta.correlation_id != self._correlation_id and not meta.response.error_code:
            raise ServerError(f"{self.address}: answers request {meta.correlation_id}, not {self._correlation_id}")
        return meta, payload

    def _read(self, size: int, end: float) -> bytes:
        assert self._socket is not None
        parts = bytearray()
        while len(parts) < size:
            self._socket.settimeout(_left(end))
            part = self._socket.recv(min(size - len(parts), 1 << 20))
            if not part:
                raise ConnectionError("the server closed the connection")
            parts += part
        return bytes(parts)

    def _disconnect(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None

    def _error(self, code: int, text: str) -> ServerError:
        message = f"{self.address}: error {code}: {text}"
        if code in (OVERLOADED.brpc, _LOGGED_OFF):
            return OverloadedError(message, code)
        if code == TIMED_OUT.brpc:
            return LateError(message, code)
        return RefusedError(message, code)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise socket.timeout
    return left
