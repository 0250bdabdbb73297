"""gRPC: both services, called with grpcio; on the complete stack with the vendor's own client too."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from paddle_ranker.errors import RankerError
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.serving.core.faults import OVERLOADED, TIMED_OUT, UNAVAILABLE, Fault
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.paddle.grpc_services import start_grpc
from paddle_ranker.serving.paddle.messages import GENERAL_SERVICE, PIPELINE_SERVICE, messages
from tests.conftest import REPOSITORY
from tests.fake_service import FakeService, logit_of, text_request
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


def request_bytes(titles: tuple[str, ...] = ("abcd", "a")) -> bytes:
    return text_request("ab", titles, log_id=4)


def refused(channel: Any, data: bytes, *arguments: Any, **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, data, *arguments, **options)
    return caught.value


def test_scores(channel: Any) -> None:
    expected = sigmoid([logit_of("ab", "abcd"), logit_of("ab", "a")])
    response = messages().Response.FromString(call(channel, request_bytes()))
    assert np.allclose(response.outputs[0].tensor[0].float_data, expected, atol=1e-7) and response.log_id == 4
    response = messages().Response.FromString(call(channel, request_bytes(), f"/{GENERAL_SERVICE}/debug"))
    assert len(response.profile_time) == 6


def test_the_pipeline(channel: Any) -> None:
    method = f"/{PIPELINE_SERVICE}/inference"
    pair = {"query": "深度", "title": "深度学习"}
    expected = float(np.float32(sigmoid([0.25])[0]))
    for value in (json.dumps(pair), str(pair)):
        request = messages().PipelineRequest(key=["0", "pipeline.profile"], value=[value, "1"])
        response = messages().PipelineResponse.FromString(call(channel, request.SerializeToString(), method))
        assert (response.err_no, list(response.key), list(response.value)) == (0, ["predict"], [f"[[{expected!r}]]"])
    request = messages().PipelineRequest(key=["0"], value=["?"], name="bert")
    assert messages().PipelineResponse.FromString(call(channel, request.SerializeToString(), method)).err_no == 3002


def test_what_is_malformed_is_refused_and_the_server_goes_on(channel: Any) -> None:
    for data, code, words in (
        (b"\xff\xff", Code.INVALID_ARGUMENT, "not a baidu"),
        (b"", Code.INVALID_ARGUMENT, "tensor: lacks input_ids"),
        (b"x" * 5001, Code.RESOURCE_EXHAUSTED, "has 5,001 bytes, above the 5,000"),
        (b"x" * 500_000, Code.RESOURCE_EXHAUSTED, "larger than max"),
    ):
        error = refused(channel, data)
        assert error.code() is code and words in error.details(), error
        assert call(channel, request_bytes())
    assert refused(channel, request_bytes(), f"/{GENERAL_SERVICE}/train").code() is Code.UNIMPLEMENTED
    assert refused(channel, request_bytes(), key="wrong").code() is Code.UNAUTHENTICATED


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


def test_faults_have_their_status(live: LiveService, channel: Any, caplog: pytest.LogCaptureFixture) -> None:
    for kind, code in (
        (OVERLOADED, Code.RESOURCE_EXHAUSTED),
        (UNAVAILABLE, Code.UNAVAILABLE),
        (TIMED_OUT, Code.DEADLINE_EXCEEDED),
    ):
        live.service.failure = Fault(kind, "a reason", retry_after=2)
        error = refused(channel, request_bytes())
        assert (error.code(), error.details()) == (code, "a reason")
        assert ("retry-after", "2") in [tuple(item) for item in error.trailing_metadata()]
    live.service.failure = RuntimeError("a secret")
    error = refused(channel, request_bytes())
    assert error.code() is Code.INTERNAL and "secret" not in error.details() and "a secret" in caplog.text


def test_a_deadline_frees_the_work_as_leaving_does(live: LiveService, channel: Any) -> None:
    live.hold()
    try:
        assert refused(channel, request_bytes(), timeout=0.1).code() is Code.DEADLINE_EXCEEDED
        until(lambda: live.service.waiting == 0)
        future = channel.unary_unary(f"/{GENERAL_SERVICE}/inference").future(
            request_bytes(), metadata=(("x-api-key", "right"),)
        )
        until(lambda: live.service.waiting == 1)
        future.cancel()
        until(lambda: live.service.waiting == 0)
    finally:
        live.release()
    assert call(channel, request_bytes())


def test_a_port_that_is_taken_is_said(live: LiveService) -> None:
    with pytest.raises(RankerError, match=f"127.0.0.1:{live.grpc}: gRPC cannot listen there"):
        live.run(start_grpc(FakeService(), f"127.0.0.1:{live.grpc}"))
    with pytest.raises(RankerError, match="107 characters at most; set TMPDIR to a folder with a shorter name"):
        live.run(start_grpc(FakeService(), f"unix:/{'long/' * 30}socket"))


def test_a_unix_socket(live: LiveService, tmp_path: Any) -> None:
    address = f"unix:{tmp_path}/socket"
    server = live.run(start_grpc(FakeService(), address))
    with grpc.insecure_channel(address) as opened:
        assert call(opened, request_bytes())
    live.run(server.stop(0))


VENDOR = """
import collections, collections.abc, sys
from paddle_serving_server.pipeline import PipelineClient
client = PipelineClient()
client.connect(["127.0.0.1:%d"])
found = client.predict(feed_dict={"0": str({"query": "ab", "title": "abcd"}), "clientip": "127.0.0.1"})
print(found.err_no, list(found.key), found.value[0])
"""


def test_the_vendor_s_pipeline_client() -> None:
    pytest.importorskip("paddle_serving_server", reason="needs the vendor's packages, which the complete stack has")
    with LiveService() as server:
        done = subprocess.run(
            [sys.executable, "-c", VENDOR % server.grpc], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
        )
    expected = float(np.float32(sigmoid([0.25])[0]))
    assert done.stdout.splitlines()[-1] == f"0 ['predict'] [[{expected!r}]]", done.stderr
