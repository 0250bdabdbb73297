"""gRPC: both services, called with grpcio; on the complete stack with the vendor's own client too."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import grpc
import numpy as np
import pytest

from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.paddle_serving.grpc_services import start_grpc
from paddle_ranker.paddle_serving.messages import GENERAL_SERVICE, PIPELINE_SERVICE, messages
from paddle_ranker.paddle_serving.port_protocols import _GrpcHandler
from paddle_ranker.serving.core.faults import Fault
from paddle_ranker.serving.core.limits import Limits
from tests.conftest import REPOSITORY
from tests.fake_service import FakeService, text_request
from tests.live_service import SECONDS, LiveService
from tests.started import until

pytestmark = pytest.mark.server
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def live() -> Iterator[LiveService]:
    with LiveService(Limits(request_bytes=5000), api_key="right") as server:
        yield server


@pytest.fixture
def channel(live: LiveService) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{live.grpc}") as opened:
        yield opened
    live.service.failure = None


def call(
    channel: Any, data: bytes, method: str = f"/{GENERAL_SERVICE}/inference", key: str = "right", **options: Any
) -> bytes:
    options.setdefault("timeout", SECONDS)
    answered: bytes = channel.unary_unary(method)(data, metadata=(("authorization", f"Bearer {key}"),), **options)
    return answered


@pytest.mark.skipif(grpc.__version__.startswith("1.33."), reason="its asyncio server keeps them open")
def test_connections_without_a_call_are_closed_and_the_next_call_opens_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveService, "keep_alive_seconds", 0.5)
    with LiveService() as live, grpc.insecure_channel(f"127.0.0.1:{live.grpc}") as channel:
        for _ in range(2):
            live.hold()
            answer = channel.unary_unary(f"/{GENERAL_SERVICE}/inference").future(request_bytes(), timeout=SECONDS)
            until(lambda: live.service.waiting == 1)
            time.sleep(1.0)  # a call in progress is not idle
            live.release()
            assert answer.result()
            until(lambda: len(live._connections) == 0)


def request_bytes(titles: tuple[str, ...] = ("abcd", "a")) -> bytes:
    return text_request("ab", titles, log_id=4)


def refused(channel: Any, data: bytes, *arguments: Any, **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, data, *arguments, **options)
    return caught.value


def test_the_key_is_looked_at_before_the_message_comes(live: LiveService, channel: Any) -> None:
    never, asked = threading.Event(), live.counts("grpc").get("unauthorized", 0)

    def messages_to_come() -> Iterator[bytes]:
        never.wait(SECONDS)
        yield request_bytes()

    method = channel.stream_unary(f"/{GENERAL_SERVICE}/inference")
    try:
        with pytest.raises(grpc.RpcError) as caught:
            method(messages_to_come(), metadata=(("x-api-key", "wrong"),), timeout=SECONDS)
    finally:
        never.set()
    assert caught.value.code() is Code.UNAUTHENTICATED
    assert live.counts("grpc")["unauthorized"] == asked + 1


def test_gzip_becomes_no_more_than_a_message_may_have(channel: Any) -> None:
    unpacked = messages().Request(log_id=4, fetch_var_names=["x" * 50_000_000]).SerializeToString()
    error = refused(channel, unpacked, compression=grpc.Compression.Gzip)
    # Old versions of grpcio unpack first, so there it is not taken at all.
    assert error.code() in (Code.RESOURCE_EXHAUSTED, Code.UNIMPLEMENTED), error


def test_a_caller_who_leaves_frees_the_work(live: LiveService, channel: Any) -> None:
    live.hold()
    method = channel.unary_unary(f"/{GENERAL_SERVICE}/inference")
    future = method.future(request_bytes(), metadata=(("x-api-key", "right"),))
    until(lambda: live.service.waiting == 1)
    future.cancel()
    until(lambda: live.service.waiting == 0)
    live.release()
    assert call(channel, request_bytes())


def test_health_is_readiness_and_needs_no_key(live: LiveService, channel: Any) -> None:
    def asked(service: str) -> bytes:
        # HealthCheckRequest and -Response have one field each, 1: a string, and an enum with SERVING = 1.
        sent = b"" if not service else b"\x0a" + bytes([len(service)]) + service.encode()
        answered: bytes = channel.unary_unary("/grpc.health.v1.Health/Check")(sent, timeout=SECONDS)
        return answered

    assert asked("") == asked(GENERAL_SERVICE) == asked(PIPELINE_SERVICE) == b"\x08\x01"
    live.is_ready = False
    assert asked("") == b"\x08\x02"
    live.is_ready = True
    with pytest.raises(grpc.RpcError) as caught:
        asked("another.Service")
    assert caught.value.code() is Code.NOT_FOUND


def test_readiness_asks_whether_grpc_answers() -> None:
    async def check() -> None:
        server, dial = await start_grpc(FakeService())
        handler = _GrpcHandler(MagicMock(), server, dial)
        await handler.check()
        await handler.stop(0.0)
        with pytest.raises(Fault, match="gRPC does not answer"):
            await handler.check()

    asyncio.run(check())


VENDOR = """
import collections, collections.abc, sys
from paddle_serving_server.pipeline import PipelineClient
client = PipelineClient()
client.connect(["127.0.0.1:%d"])
found = client.predict(feed_dict={"0": str({"query": "ab", "title": "abcd"}), "clientip": "127.0.0.1"})
print(found.err_no, list(found.key), found.value[0])
"""


def test_the_vendor_s_pipeline_client() -> None:
    if importlib.util.find_spec("paddle_serving_server") is None:  # importing it takes over signals and logs
        pytest.skip("needs the vendor's packages, which the complete stack has")
    with LiveService() as server:
        done = subprocess.run(
            [sys.executable, "-c", VENDOR % server.grpc], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
        )
    expected = float(np.float32(sigmoid([0.25])[0]))
    assert done.stdout.splitlines()[-1] == f"0 ['predict'] [[{expected!r}]]", done.stderr
