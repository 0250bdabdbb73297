"""A server of every protocol over the fake service, in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Coroutine
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional

from starlette.routing import Router

from paddle_ranker.paddle_serving.baidu_std_server import BaiduStdProtocol
from paddle_ranker.paddle_serving.grpc_services import start_grpc
from paddle_ranker.paddle_serving.http import routes
from paddle_ranker.paddle_serving.port_protocols import GrpcConnection
from paddle_ranker.serving.core.byte_budget import ByteBudget
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.http.middleware import Middleware
from paddle_ranker.serving.process.http_server import HttpServer
from paddle_ranker.serving.process.protocols import Acceptor, Handlers, ProtocolHandler
from paddle_ranker.serving.slots.services import CountedRequest, Counting
from tests.fake_service import FakeService

if TYPE_CHECKING:
    from typing_extensions import Self

SECONDS = 30  # for what takes milliseconds, on a machine that has much else to do


class LoopThread:
    """A thread with an event loop, for what a test's own process serves. Use it in a `with`: see `start` and `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self.start())
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.run(self.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop; return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    async def start(self) -> None:
        """Begin to serve."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End it."""
        raise NotImplementedError


class LiveService(LoopThread):
    """Ports of 127.0.0.1: `baidu_std`, `http`, `grpc`, and `shared` of all three. Use it in a `with`.

    Attributes: `service`, which answers; `metrics`, which count; `budget`, of all but gRPC's requests and answers,
    without an end until its `most` is set.
    """

    keep_alive_seconds = 75.0  # of gRPC

    def __init__(self, limits: Optional[Limits] = None, api_key: Optional[str] = None) -> None:
        self._limits = limits
        self._api_key = api_key
        super().__init__()
        self.metrics = Metrics()
        self.budget = ByteBudget()

    def hold(self) -> None:
        """Let requests wait until `release`."""

        async def make() -> None:
            self.service.gate = asyncio.Event()

        self.run(make())

    def release(self) -> None:
        async def open_gate() -> None:
            gate, self.service.gate = self.service.gate, None
            assert gate is not None
            gate.set()

        self.run(open_gate())

    def counts(self, protocol: str) -> dict[str, int]:
        """Return how many requests of a protocol have had each outcome."""
        text = self.metrics.render()[0].decode()
        found = re.findall(rf'^ranker_requests_total{{outcome="(\w+)",protocol="{protocol}"}} (\S+)$', text, re.M)
        return {outcome: int(float(count)) for outcome, count in found}

    def requests(self) -> int:
        """Return how many requests of all protocols have been counted."""
        found = re.findall(r"^ranker_requests_total{.*} (\S+)$", self.metrics.render()[0].decode(), re.M)
        return sum(int(float(count)) for count in found)

    def _counting(self, protocol: str) -> Counting:
        return partial(CountedRequest, protocol=protocol, metrics=self.metrics)

    async def start(self) -> None:
        self.service = FakeService(self._limits)
        self.is_ready = True
        self._grpc, dial = await start_grpc(
            self.service,
            api_key=self._api_key,
            counting=self._counting("grpc"),
            is_ready=lambda: self.is_ready,
            keep_alive_seconds=self.keep_alive_seconds,
        )
        app = Middleware(
            Router(routes(self.service)), self.metrics, ServeConfig(api_key=self._api_key), budget=self.budget
        )
        self._connections = Connections(100, self.budget)
        baidu_std = partial(
            BaiduStdProtocol,
            self.service,
            api_key=self._api_key,
            connections=self._connections,
            counting=self._counting("baidu_std"),
        )
        self._http = await HttpServer(app, self._connections, SECONDS, counting=self._counting("http")).start()
        rpc = ProtocolHandler(baidu_std)
        grpc = ProtocolHandler(partial(GrpcConnection, dial, self._connections))
        self._acceptors: list[Acceptor] = []
        self.grpc = self._listen([(b"", grpc)])
        self.baidu_std = self._listen([(b"", rpc)])
        self.http = self._listen([(b"", self._http)])
        self.shared = self._listen([(b"PRPC", rpc), (b"PRI ", grpc), (b"", self._http)])

    def _listen(self, handlers: Handlers) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self._acceptors.append(Acceptor(listener, handlers, self._connections))
        return int(listener.getsockname()[1])

    async def stop(self) -> None:
        if self.service.gate is not None:
            self.service.gate.set()
        for acceptor in self._acceptors:
            acceptor.close()
        await asyncio.gather(self._http.stop(SECONDS), self._connections.drain(SECONDS), self._grpc.stop(1.0))
