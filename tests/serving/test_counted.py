"""Every request of every protocol is counted, those that are refused before anything is scored among them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests

from paddle_ranker.serving.core.faults import OVERLOADED, Fault
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.scores import CountedRequest
from paddle_ranker.serving.paddle import baidu_std
from paddle_ranker.serving.paddle.messages import GENERAL_SERVICE, PIPELINE_SERVICE, messages
from tests.fake_service import FakeService, text_request
from tests.live_service import SECONDS, LiveService
from tests.started import until

KEY = "right"


@pytest.fixture
def live() -> Iterator[LiveService]:
    with LiveService(Limits(request_bytes=5000), api_key=KEY) as server:
        yield server


def general(*titles: str) -> bytes:
    return text_request("ab", titles)


def frame(payload: bytes, *, key: str = KEY, method: str = "inference") -> bytes:
    meta = messages().RpcMeta(correlation_id=1, authentication_data=key.encode())
    meta.request.service_name, meta.request.method_name = GENERAL_SERVICE, method
    return baidu_std.write_frame(meta, payload)


def send(live: LiveService, data: bytes) -> None:
    """Send bytes to the baidu_std port, and wait for the first of the answer."""
    with socket.create_connection(("127.0.0.1", live.baidu_std), SECONDS) as connection:
        connection.sendall(data)
        assert connection.recv(1)


@pytest.mark.server
def test_baidu_std(live: LiveService) -> None:
    send(live, frame(general("a", "b")))
    assert live.counts("baidu_std") == {"ok": 1}
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"PRPC" + b"\0" * 7 + b"\1", frame(b"\xff\xff"), frame(b"")):
        send(live, data)
    send(live, frame(general("a"), key="wrong"))
    send(live, frame(general("a"), method="train"))
    send(live, frame(general("x" * 100_000)))
    live.service.failure = Fault(OVERLOADED, "a reason")
    send(live, frame(general("a")))
    live.service.failure = RuntimeError("a bug")
    send(live, frame(general("a")))
    assert live.counts("baidu_std") == {
        "ok": 1,
        "invalid_request": 4,
        "unauthorized": 1,
        "no_such_method": 1,
        "too_large": 1,
        "overloaded": 1,
        "internal": 1,
    }
    live.service.failure = None
    live.hold()
    with socket.create_connection(("127.0.0.1", live.baidu_std), SECONDS) as connection:
        connection.sendall(frame(general("a")))
        until(lambda: live.service.waiting == 1)
    until(lambda: live.counts("baidu_std").get("cancelled") == 1)
    live.release()


@pytest.mark.server
def test_grpc_and_the_pipeline_s_answers_that_are_errors(live: LiveService) -> None:
    def call(data: bytes, service: str = GENERAL_SERVICE, key: str = KEY) -> Any:
        with grpc.insecure_channel(f"127.0.0.1:{live.grpc}") as channel:
            method = channel.unary_unary(f"/{service}/inference")
            try:
                return method(data, metadata=(("x-api-key", key),), timeout=SECONDS)
            except grpc.RpcError as error:
                return error

    def pipeline(value: str, **fields: Any) -> int:
        request = messages().PipelineRequest(key=["0"], value=[value], **fields)
        answered = messages().PipelineResponse.FromString(call(request.SerializeToString(), PIPELINE_SERVICE))
        return int(answered.err_no)

    pair = json.dumps({"query": "a", "title": "b"})
    assert call(general("a")) and pipeline(pair) == 0
    assert live.counts("grpc") == {"ok": 2}
    for data, key in ((b"\xff\xff", KEY), (b"", KEY), (general("a"), "wrong"), (general("x" * 6000), KEY)):
        assert isinstance(call(data, key=key), grpc.RpcError)
    assert isinstance(call(b"\xff\xff", PIPELINE_SERVICE), grpc.RpcError)
    assert (pipeline("?"), pipeline(pair, name="bert")) == (5000, 3002)
    live.service.failure = Fault(OVERLOADED, "a reason")
    assert pipeline(pair) == 3001
    assert live.counts("grpc") == {
        "ok": 2,
        "invalid_request": 4,
        "unauthorized": 1,
        "too_large": 1,
        "not_found": 1,
        "overloaded": 1,
    }


@pytest.mark.server
def test_the_gateway_s_errors_of_status_200(live: LiveService) -> None:
    def ask(value: str, path: str = "/ernie/prediction") -> tuple[int, int]:
        body = json.dumps({"key": ["0"], "value": [value]})
        headers = {"X-API-Key": KEY}
        answered = requests.post(f"http://127.0.0.1:{live.http}{path}", data=body, headers=headers, timeout=SECONDS)
        return answered.status_code, answered.json()["err_no"]

    assert ask(json.dumps({"query": "a", "title": "b"})) == (200, 0)
    assert ask("?") == (200, 5000)
    assert ask("?", "/bert/prediction") == ask("?", "/ernie/train") == (200, 3002)
    counts = {"ok": 1, "invalid_request": 1, "not_found": 1, "no_such_method": 1}
    until(lambda: live.counts("pipeline_http") == counts)  # counted when the answer has gone


@pytest.mark.unit
@pytest.mark.parametrize("log_texts", [False, True])
def test_the_log_s_lines(tmp_path: Path, log_texts: bool) -> None:
    path = tmp_path / "log"
    with path.open("wb") as stream:
        log = JsonLog(stream.fileno())

        def request(asked: FakeService) -> CountedRequest:
            return CountedRequest(asked, protocol="grpc", metrics=Metrics(), log=log, log_texts=log_texts)

        with request(FakeService()) as service:
            asyncio.run(service.score_pairs(["a", "a"], ["b", "c"]))
        failing = FakeService()
        failing.failure = Fault(OVERLOADED, "a reason")
        with pytest.raises(Fault), request(failing) as service:
            asyncio.run(service.score_pairs(["a"], ["b"]))
        log.close()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["event"], line["protocol"], line["outcome"]) for line in lines] == [
        ("request", "grpc", "ok"),
        ("request", "grpc", "overloaded"),
    ]
    assert [line["pairs"] for line in lines] == [2, 1]
    assert lines[0].get("texts") == ({"queries": ["a", "a"], "titles": ["b", "c"]} if log_texts else None)
