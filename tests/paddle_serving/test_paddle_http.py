"""HTTP of the C++ server and of the pipeline's gateway, with real clients against a real port."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests

from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.paddle_serving.clients import PipelineClient
from paddle_ranker.paddle_serving.messages import messages
from paddle_ranker.serving.core.limits import Limits
from tests.fake_service import logit_of, logits_of_tokens, text_request
from tests.live_service import SECONDS, LiveService

pytestmark = pytest.mark.server
# The contract's line; only the port is another.
BODY = '{"tensor":[{"int64_data":[1,12,21,2],"elem_type":0,"name":"input_ids","alias_name":"input_ids","shape":[1,4]},{"int64_data":[0,0,1,1],"elem_type":0,"name":"token_type_ids","alias_name":"token_type_ids","shape":[1,4]}],"fetch_var_names":["sigmoid_2.tmp_0"],"log_id":0}'  # noqa: E501
EXPECTED = float(np.float32(sigmoid(logits_of_tokens(np.array([[1, 12, 21, 2]]), np.array([[0, 0, 1, 1]])))[0]))
FULL = "baidu.paddle_serving.predictor.general_model.GeneralModelService"


@pytest.fixture(scope="module")
def live() -> Iterator[LiveService]:
    with LiveService(Limits(request_bytes=100_000)) as server:
        yield server


def post(live: LiveService, path: str, data: Any, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(f"http://127.0.0.1:{live.http}{path}", data=data, headers=named, timeout=SECONDS)


def is_alive(live: LiveService) -> bool:
    answered = post(live, "/GeneralModelService/inference", BODY)
    return answered.status_code == 200 and answered.json()["outputs"][0]["tensor"][0]["float_data"] == [EXPECTED]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_tutorial_s_curl_line(live: LiveService) -> None:
    url = f"http://127.0.0.1:{live.http}/GeneralModelService/inference"
    done = subprocess.run(["curl", "-sS", "-XPOST", url, "-d", BODY], capture_output=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    # As json2pb prints it: the float widened, log_id and elem_type 0 left out.
    text = f'"float_data":[{EXPECTED!r}],"elem_type":1,"shape":[1,1],"name":"sigmoid_2.tmp_0","alias_name":"predict"'
    assert done.stdout.decode() == f'{{"outputs":[{{"tensor":[{{{text}}}],"engine_name":"GeneralInferOp_0"}}]}}'


@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/GeneralModelService/inference", "application/proto"), (f"/{FULL}/debug", "application/x-protobuf")],
)
def test_protobuf_and_gzip(live: LiveService, path: str, content_type: str) -> None:
    body = gzip.compress(text_request("abc", ["x" * n for n in range(1, 301)], log_id=2**63))
    answered = post(live, path, body, Content_Type=content_type, Content_Encoding="gzip", Accept_Encoding="gzip")
    assert answered.status_code == 200 and answered.headers["content-type"] == content_type
    assert answered.headers["content-encoding"] == "gzip"
    response = messages().Response.FromString(answered.content)
    expected = sigmoid([logit_of("abc", "x" * n) for n in range(1, 301)])
    assert np.allclose(response.outputs[0].tensor[0].float_data, expected, atol=1e-7)
    assert response.log_id == 2**63
    assert len(response.profile_time) == (6 if path.endswith("debug") else 0)
    assert "content-encoding" not in post(live, path, body, Content_Encoding="gzip", Accept_Encoding="gzip;q=0").headers


REFUSED = [
    (BODY[:-1], {}, 400, 1003, "body: is not JSON"),
    (b"\xff{}", {}, 400, 1003, "is not JSON"),
    ("9" * 5000, {}, 400, 1003, "is not JSON"),
    ("[]", {}, 400, 1003, "body: is an array, expected an object"),
    ('{"tensor": [{"shape": [1, "2"]}]}', {}, 400, 1003, "tensor[0].shape[1]: is the string '2'"),
    (BODY.replace("12", "999"), {}, 400, 1003, "999"),
    (BODY, {"Content_Encoding": "gzip"}, 400, 1003, "not gzip"),
    (BODY, {"Content_Encoding": "br"}, 400, 1003, "Content-Encoding: 'br'"),
    (BODY, {"X_Request_Timeout_Ms": "soon"}, 400, 1003, "x-request-timeout-ms: is 'soon'"),
    (BODY, {"X_Request_Timeout_Ms": "0" * 12 + "9" * 5000}, 400, 1003, "x-request-timeout-ms: is '0000"),
    (BODY, {"X_Request_Timeout_Ms": "0"}, 504, 1008, "nobody waits"),
    ("x" * 100_001, {}, 413, 1003, "body: has 100001 bytes"),
    (iter([b"x" * 60_000, b"x" * 60_000]), {}, 413, 1003, "more than the 100,000"),
    (gzip.compress(bytes(10**6)), {"Content_Encoding": "gzip"}, 413, 1003, "unpacks to more"),
]


@pytest.mark.parametrize(("data", "headers", "status", "number", "words"), REFUSED)
def test_what_is_malformed_is_refused_by_name_and_the_server_goes_on(
    live: LiveService, data: Any, headers: dict[str, str], status: int, number: int, words: str
) -> None:
    answered = post(live, "/GeneralModelService/inference", data, **headers)
    assert (answered.status_code, answered.headers["x-bd-error-code"]) == (status, str(number)), answered.text
    assert words in answered.text
    assert is_alive(live)


def gateway(live: LiveService, body: Any, path: str = "/ernie/prediction") -> dict[str, Any]:
    answered = post(live, path, body if isinstance(body, (str, bytes)) else json.dumps(body))
    assert answered.status_code == 200, answered.text
    found: dict[str, Any] = answered.json()
    assert list(found) == ["err_no", "err_msg", "key", "value", "tensors"]
    return found


def test_the_pipeline_s_gateway(live: LiveService) -> None:
    pair = {"query": "it's", "title": 'a "title"'}
    expected = float(np.float32(sigmoid([logit_of(**pair)])[0]))
    for value in (json.dumps(pair), json.dumps([pair]), str(pair)):
        found = gateway(live, {"key": ["0"], "value": [value]})
        assert (found["err_no"], found["key"], found["value"]) == (0, ["predict"], [str([[expected]])]), found

    info = live.service.info
    live.service.info = dataclasses.replace(info, export={"aliases": {"sigmoid_2.tmp_0": "score"}})
    try:
        assert gateway(live, {"key": ["0"], "value": [value]})["key"] == ["score"]
        with PipelineClient(port=live.http, protocol="http", timeout=SECONDS) as client:
            assert client.score([pair["query"]], [pair["title"]]).tolist() == [expected]
    finally:
        live.service.info = info

    titles = ["a", "ab", "abc"]
    values = [json.dumps({"query": "q", "title": title}) for title in titles]
    found = gateway(live, {"key": ["2", "0", "1"], "value": [values[2], values[0], values[1]], "name": "ignored"})
    assert np.allclose(json.loads(found["value"][0]), sigmoid([[0.0], [0.125], [0.25]]), atol=1e-7)


@pytest.mark.parametrize(
    ("path", "body", "number", "words"),
    [
        ("/bert/prediction", {"key": ["0"], "value": ["{}"]}, 3002, "'bert' is not 'ernie'"),
        ("/ernie/train", {"key": ["0"], "value": ["{}"]}, 3002, "'train' is no method"),
        ("/ernie/prediction", {}, 5000, "key: is empty"),
        ("/ernie/prediction", {"key": ["0", "1"], "value": ["{}"]}, 5000, "value: holds 1 values for 2 keys"),
        ("/ernie/prediction", {"key": ["0", "0"], "value": ["[]", "[]"]}, 5000, "key[1]: '0' is there twice"),
        ("/ernie/prediction", {"key": ["0"], "value": ["[]"]}, 5000, "value: holds no pair"),
        ("/ernie/prediction", {"key": ["0"], "value": ["[3]"]}, 5000, "value[0][0]: 3 is not an object"),
        ("/ernie/prediction", {"key": ["0"], "value": ['{"query": "a"}']}, 5000, "value[0].title: is missing"),
        ("/ernie/prediction", {"key": ["0"], "value": ["__import__('os').abort()"]}, 5000, "is not JSON"),
        ("/ernie/prediction", {"key": ["0"], "value": ["{'query': 'a', 'title': open('x')}"]}, 5000, "is not JSON"),
        ("/ernie/prediction", {"key": ["0"], "value": ["["] * 1, "tensors": [{"name": "x"}]}, 5000, "tensors: is not"),
    ],
)
def test_the_gateway_says_what_is_wrong_with_status_200(
    live: LiveService, path: str, body: Any, number: int, words: str
) -> None:
    found = gateway(live, body, path)
    assert found["err_no"] == number and words in found["err_msg"] and found["value"] == []


def test_the_gateway_refuses_what_is_no_message(live: LiveService) -> None:
    answered = post(live, "/ernie/prediction", '{"key": "0"}')
    assert (answered.status_code, answered.json()["code"]) == (400, 3)
    assert answered.json()["message"] == "key: is the string '0', expected an array"
