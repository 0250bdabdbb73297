"""What a new connection speaks: its first four bytes say it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Optional, cast

from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.counted import Counting
from paddle_ranker.serving.core.scores import ScoringService
from paddle_ranker.serving.http.protocol import WatchedHttpProtocol, refusal
from paddle_ranker.serving.paddle.baidu_std_server import BaiduStdProtocol
from paddle_ranker.serving.process.relay import Relay

_BAIDU_STD, _HTTP_2 = b"PRPC", b"PRI "
_DECIDE = 4  # bytes


class Speakers:
    """Make what speaks each protocol.

    Args:
        uvicorn_config, server_state: of the HTTP side.
        rpc: answers baidu_std.
        counting: counts its requests.
        grpc_path: the Unix socket of the gRPC server.
    """

    def __init__(
        self,
        config: ServeConfig,
        connections: Connections,
        *,
        uvicorn_config: Any,
        server_state: Any,
        rpc: ScoringService,
        counting: Counting,
        grpc_path: str,
    ):
        self.config = config
        self.connections = connections
        self._uvicorn_config, self._server_state = uvicorn_config, server_state
        self._rpc, self._counting, self._grpc_path = rpc, counting, grpc_path

    def first(self) -> SniffingProtocol:
        """Return what a new connection gets."""
        return SniffingProtocol(self)

    def speaker(self, begin: bytes) -> Any:
        """Return the protocol for a connection that begins so."""
        if begin.startswith(_BAIDU_STD):
            return WatchedBaiduStd(self._rpc, self._counting, self.config, self.connections)
        if begin.startswith(_HTTP_2):
            return Relay(self._grpc_path, self.connections, self.config.rpc_idle_seconds)
        return WatchedHttpProtocol(self._uvicorn_config, self._server_state, self.config, self.connections)


class SniffingProtocol(asyncio.Protocol):
    """A connection that has not said yet what it speaks."""

    def __init__(self, speakers: Speakers):
        self._speakers = speakers
        self._connections = speakers.connections
        self._begin = b""
        self._since = time.monotonic()
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes, if there may be one more connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._refused = not self._connections.add(self)
        if self._connections.is_flooded:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Give the connection to who speaks as it begins."""
        begin = self._begin = self._begin + data
        if len(begin) < _DECIDE and (_BAIDU_STD.startswith(begin) or _HTTP_2.startswith(begin)):
            return
        if self._refused:
            self._refuse(begin)
            return
        speaker = self._speakers.speaker(begin)
        speaker.connection_made(self._transport)
        self._transport.set_protocol(speaker)
        self._connections.replace(self, speaker)
        speaker.data_received(begin)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """Forget the connection."""
        self._connections.discard(self)

    def check(self, now: float) -> None:
        """See `Connection`."""
        if now - self._since > self._speakers.config.header_seconds:
            self._transport.abort()

    def shutdown(self) -> None:
        """See `Connection`."""
        self._transport.close()

    def abort(self) -> None:
        """See `Connection`."""
        self._transport.abort()

    def _refuse(self, begin: bytes) -> None:
        if not begin.startswith((_BAIDU_STD, _HTTP_2)):
            message = f"{self._connections.most} connections are open, which is the limit"
            self._transport.write(refusal(b"503 Service Unavailable", message, b"retry-after: 1"))
        self._transport.close()


class WatchedBaiduStd(BaiduStdProtocol):
    """baidu_std, closed where nothing is asked for long."""

    def __init__(self, service: ScoringService, counting: Counting, config: ServeConfig, connections: Connections):
        forget = cast(Callable[[BaiduStdProtocol], None], connections.discard)
        super().__init__(
            service, api_key=config.api_key, on_close=forget, counting=counting, body_seconds=config.body_seconds
        )
        self._idle_seconds = config.rpc_idle_seconds
        self._asked = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self._asked = time.monotonic()
        super().data_received(data)

    def check(self, now: float) -> None:
        """See `Connection`."""
        if now - self._asked > self._idle_seconds and not self.in_flight:
            self.shutdown()

    def abort(self) -> None:
        """See `Connection`."""
        self._transport.abort()
