"""The contract of every protocol: scores, refusals by their published codes, the key, deadlines, counts."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional

import grpc
import numpy as np
import pytest
import requests

from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.paddle_serving import baidu_std
from paddle_ranker.paddle_serving.messages import GENERAL_SERVICE, PIPELINE_SERVICE, messages
from paddle_ranker.serving.core.faults import OVERLOADED, TIMED_OUT, UNAVAILABLE, Fault
from paddle_ranker.serving.core.limits import Limits
from tests.fake_service import logit_of, text_request
from tests.live_service import SECONDS, LiveService
from tests.started import until

pytestmark = pytest.mark.server
KEY = "right"
TITLES = ("abcd", "a")
EXPECTED = sigmoid([logit_of("ab", title) for title in TITLES])
FAILURES = {
    "overloaded": Fault(OVERLOADED, "a reason", retry_after=2),
    "unavailable": Fault(UNAVAILABLE, "a reason", retry_after=2),
    "deadline_exceeded": Fault(TIMED_OUT, "a reason"),
    "internal": RuntimeError("a secret"),
}


class Answer(NamedTuple):
    """What came back: the protocol's code, its text, the scores, and when to come again."""

    code: Any
    said: str = ""
    scores: Sequence[float] = ()
    retry_after: Optional[str] = None


class Asked(NamedTuple):
    """A request of any protocol."""

    payload: bytes
    key: str = KEY
    method: str = "inference"
    milliseconds: int = 0


def texts(titles: Sequence[str] = TITLES) -> bytes:
    return text_request("ab", titles)


def pairs(titles: Sequence[str] = TITLES) -> tuple[list[str], list[str]]:
    return [str(n) for n in range(len(titles))], [json.dumps({"query": "ab", "title": title}) for title in titles]


def as_message(titles: Sequence[str] = TITLES) -> bytes:
    key, value = pairs(titles)
    return bytes(messages().PipelineRequest(key=key, value=value).SerializeToString())


def as_json(titles: Sequence[str] = TITLES) -> bytes:
    return json.dumps(dict(zip(("key", "value"), pairs(titles)))).encode()


def scores_in(response: Any) -> list[float]:
    return list(response.outputs[0].tensor[0].float_data)


def over_baidu_std(live: LiveService, asked: Asked) -> Answer:
    meta = messages().RpcMeta(correlation_id=1, authentication_data=asked.key.encode())
    meta.request.service_name, meta.request.method_name = GENERAL_SERVICE, asked.method
    meta.request.timeout_ms = asked.milliseconds
    with socket.create_connection(("127.0.0.1", live.baidu_std), SECONDS) as connection:
        connection.sendall(baidu_std.write_frame(meta, asked.payload))
        with connection.makefile("rb") as stream:
            _, body_size, meta_size = struct.unpack(">4sII", stream.read(12))
            body = stream.read(body_size)
    answered = messages().RpcMeta.FromString(body[:meta_size]).response
    if answered.error_code:
        return Answer(answered.error_code, answered.error_text)
    return Answer(0, scores=scores_in(messages().Response.FromString(body[meta_size:])))


def post(live: LiveService, path: str, asked: Asked, content_type: str) -> requests.Response:
    headers = {"X-API-Key": asked.key, "Content-Type": content_type}
    if asked.milliseconds:
        headers["X-Request-Timeout-Ms"] = str(asked.milliseconds)
    return requests.post(f"http://127.0.0.1:{live.http}{path}", data=asked.payload, headers=headers, timeout=SECONDS)


def over_http(live: LiveService, asked: Asked) -> Answer:
    found = post(live, f"/GeneralModelService/{asked.method}", asked, "application/proto")
    if found.status_code != 200:
        code = found.status_code, found.headers.get("x-bd-error-code")
        return Answer(code, found.text, retry_after=found.headers.get("retry-after"))
    return Answer(0, scores=scores_in(messages().Response.FromString(found.content)))


def over_gateway(live: LiveService, asked: Asked) -> Answer:
    found = post(
        live, "/ernie/prediction" if asked.method == "inference" else f"/ernie/{asked.method}", asked, "text/json"
    )
    content = found.json()
    if found.status_code != 200 or content["err_no"]:
        return Answer(content.get("err_no", found.status_code), found.text)
    return Answer(0, scores=[row[0] for row in json.loads(content["value"][0])])


def call(live: LiveService, asked: Asked, service: str) -> Any:
    metadata = (("authorization", f"Bearer {asked.key}"),)
    with grpc.insecure_channel(f"127.0.0.1:{live.grpc}") as channel:
        method = channel.unary_unary(f"/{service}/{asked.method}")
        return method(asked.payload, metadata=metadata, timeout=asked.milliseconds / 1000 or SECONDS)


def refused(error: Any) -> Answer:
    trailing = dict(tuple(item) for item in error.trailing_metadata() or ())
    return Answer(error.code().name, error.details(), retry_after=trailing.get("retry-after"))


def over_grpc(live: LiveService, asked: Asked) -> Answer:
    try:
        return Answer(0, scores=scores_in(messages().Response.FromString(call(live, asked, GENERAL_SERVICE))))
    except grpc.RpcError as error:
        return refused(error)


def over_pipeline(live: LiveService, asked: Asked) -> Answer:
    try:
        found = messages().PipelineResponse.FromString(call(live, asked, PIPELINE_SERVICE))
    except grpc.RpcError as error:
        return refused(error)
    scores = [row[0] for row in json.loads(found.value[0])] if found.value else []
    return Answer(found.err_no, found.err_msg, scores)


class Protocol(NamedTuple):
    """How to ask over a protocol, how it is counted, and the code of each kind of fault."""

    ask: Callable[[LiveService, Asked], Answer]
    write: Callable[..., bytes]
    counted: str
    codes: dict[str, Any]


PROTOCOLS = {
    "baidu_std": Protocol(over_baidu_std, texts, "baidu_std", {
        "invalid_request": 1003, "unauthorized": 1004, "no_such_method": 1002, "too_large": 1003, "overloaded": 2004,
        "unavailable": 2004, "deadline_exceeded": 1008, "internal": 2001,
    }),
    "http": Protocol(over_http, texts, "brpc_http", {
        "invalid_request": (400, "1003"), "unauthorized": (401, None), "no_such_method": (404, "1002"),
        "too_large": (413, "1003"), "overloaded": (429, "2004"), "unavailable": (503, "2004"),
        "deadline_exceeded": (504, "1008"), "internal": (500, "2001"),
    }),
    "grpc": Protocol(over_grpc, texts, "grpc", {
        "invalid_request": "INVALID_ARGUMENT", "unauthorized": "UNAUTHENTICATED", "too_large": "RESOURCE_EXHAUSTED",
        "overloaded": "RESOURCE_EXHAUSTED", "unavailable": "UNAVAILABLE", "deadline_exceeded": "DEADLINE_EXCEEDED",
        "internal": "INTERNAL",
    }),
    "pipeline": Protocol(over_pipeline, as_message, "grpc", {
        "invalid_request": "INVALID_ARGUMENT", "unauthorized": "UNAUTHENTICATED", "too_large": "RESOURCE_EXHAUSTED",
        "overloaded": 3001,
    }),
    "gateway": Protocol(over_gateway, as_json, "pipeline_http", {
        "invalid_request": 400, "unauthorized": 401, "no_such_method": 3002, "too_large": 413, "overloaded": 3001,
    }),
}  # fmt: skip


@pytest.fixture(scope="module")
def live() -> Iterator[LiveService]:
    with LiveService(Limits(request_bytes=5000), api_key=KEY) as server:
        yield server


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, protocol in PROTOCOLS.items() for kind in protocol.codes]
)
def test_what_is_refused_has_its_code_is_counted_and_the_next_request_is_answered(
    live: LiveService, name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    protocol, good = PROTOCOLS[name], Asked(PROTOCOLS[name].write())
    asked = {
        "invalid_request": good._replace(payload=b"\xff\xff"),
        "unauthorized": good._replace(key="wrong"),
        "no_such_method": good._replace(method="train"),
        "too_large": good._replace(payload=protocol.write(["x" * 6000])),
    }.get(kind, good)
    before = live.counts(protocol.counted)
    live.service.failure = FAILURES.get(kind)
    try:
        answer = protocol.ask(live, asked)
    finally:
        live.service.failure = None
    assert answer.code == protocol.codes[kind], answer
    assert kind not in ("overloaded", "deadline_exceeded") or "a reason" in answer.said
    assert "secret" not in answer.said and ("a secret" in caplog.text) == (kind == "internal")
    assert answer.retry_after == ("2" if kind in ("overloaded", "unavailable") and name in ("http", "grpc") else None)
    found = protocol.ask(live, good)
    assert found.code == 0
    np.testing.assert_allclose(found.scores, EXPECTED, atol=1e-7)
    until(lambda: live.budget.held == 0)
    wanted = {**before, kind: before.get(kind, 0) + 1, "ok": before.get("ok", 0) + 1}
    until(lambda: live.counts(protocol.counted) == wanted)  # counted when the answer has gone


@pytest.mark.parametrize("name", ["baidu_std", "http", "grpc"])
def test_a_deadline_passes(live: LiveService, name: str) -> None:
    protocol = PROTOCOLS[name]
    live.hold()
    try:
        asked = Asked(protocol.write(), milliseconds=100)
        assert protocol.ask(live, asked).code == protocol.codes["deadline_exceeded"]
        until(lambda: live.service.waiting == 0)
    finally:
        live.release()
