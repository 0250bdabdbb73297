"""baidu_std and gRPC on the server's port."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Callable, Optional

from paddle_ranker.paddle_serving.baidu_std_server import BaiduStdProtocol
from paddle_ranker.paddle_serving.grpc_services import Dial, start_grpc
from paddle_ranker.paddle_serving.pipeline import PipelineNames
from paddle_ranker.paddle_serving.pipeline_options import pipeline_options
from paddle_ranker.paddle_serving.served_models import models_of
from paddle_ranker.serving.core.connections import Connections, PeerTimeout, ProtocolHandler
from paddle_ranker.serving.core.faults import UNAVAILABLE, Fault
from paddle_ranker.serving.process.protocols import ServerContext


async def start_baidu_std(context: ServerContext) -> ProtocolHandler:
    make = partial(
        BaiduStdProtocol,
        models_of(context.slots, context.config),
        api_key=context.config.api_key,
        connections=context.connections,
        counting=context.counting("baidu_std"),
    )
    return ProtocolHandler(make)


class _Pipe(asyncio.Protocol):
    """One end of a pipe of bytes: forwards what it receives to the other end, as fast as that end accepts it."""

    other: Any = None  # the other end's transport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.other.write(data)

    def pause_writing(self) -> None:
        self.other.pause_reading()

    def resume_writing(self) -> None:
        self.other.resume_reading()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        if self.other is not None:
            self.other.close()


class GrpcConnection(_Pipe):
    """The client's end of a pipe to grpcio.

    grpcio takes no accepted sockets, so it listens at a private address.

    Args:
        dial: connects to that address.
    """

    def __init__(self, dial: Dial, connections: Connections):
        self._dial, self._connections = dial, connections

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timeout = PeerTimeout(self.abort)
        self._early = b""  # Python 3.9 reads a little even if reading is paused here
        self._connections.add(self)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        server = _Pipe()
        server.other = self.transport
        try:
            self.other, _ = await self._dial(lambda: server)
        except OSError:
            self.abort()
        if self.transport.is_closing():
            self.connection_lost(None)
        else:
            self.other.write(self._early)
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)
        else:
            self._early += data
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._timeout.wait()

    def resume_writing(self) -> None:
        self._timeout.stop()
        super().resume_writing()

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self._timeout.end()
        self._connections.discard(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Do nothing, since grpcio ends its connections itself."""

    def abort(self) -> None:
        self.transport.abort()


class _GrpcHandler(ProtocolHandler):
    def __init__(self, make: Callable[[], Any], server: Any, dial: Dial):
        super().__init__(make)
        self._server, self._dial = server, dial

    async def check(self) -> None:
        try:
            transport, _ = await self._dial(asyncio.Protocol)
        except OSError as error:
            raise Fault(UNAVAILABLE, f"gRPC does not answer ({error.strerror or error})") from error
        transport.close()

    async def stop(self, seconds: float) -> None:
        await self._server.stop(seconds)


async def start_grpc_behind_port(context: ServerContext) -> ProtocolHandler:
    config, names = context.config, pipeline_options(context.config)
    server, dial = await start_grpc(
        models_of(context.slots, context.config),
        api_key=config.api_key,
        names=PipelineNames(names.pipeline_service, names.pipeline_method),
        counting=context.counting("grpc"),
        budget=context.connections.budget,
        is_ready=context.is_ready,
        keep_alive_seconds=config.keep_alive_seconds,
    )
    return _GrpcHandler(partial(GrpcConnection, dial, context.connections), server, dial)
