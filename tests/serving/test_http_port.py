"""The port of HTTP alone, `--http_port`: what the port of every protocol answers; its limits are in `test_server`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
import requests

from paddle_ranker.errors import UsageError
from paddle_ranker.serving.core.config import ServeConfig
from tests.export_cases import write_case
from tests.serving.test_server import SECONDS, Server, read_all, require_answer_before_the_end, serving
from tests.started import children, until

pytestmark = pytest.mark.server
KEY = "a-key"
ASKED = {"query": "深度学习", "documents": ["深度学习研究", "老年人护理", "ab"]}


class TwoPorts(Server):
    """A server with a port of HTTP alone, `http_port`."""

    def post(self, port: int, body: Any = None, path: str = "/v1/rerank", **headers: str) -> requests.Response:
        data = json.dumps(ASKED if body is None else body) if not isinstance(body, bytes) else body
        return requests.post(f"http://127.0.0.1:{port}{path}", data=data, headers=headers, timeout=SECONDS)

    def connect_http(self, data: bytes = b"") -> socket.socket:
        return self.connect(data, "http_port")


@contextlib.contextmanager
def two_ports(model: Path, folder: Path, *options: str, key: Optional[str] = None) -> Iterator[TwoPorts]:
    with serving(model, folder, "--http_port", "0", *options, key=key) as server:
        yield TwoPorts(server.command, server.ports)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("models") / "ranker")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoPorts]:
    folder = tmp_path_factory.mktemp("server") / "run"
    with two_ports(model, folder, "--request_bytes", "5000", "--connections", "8", key=KEY) as one:
        yield one


def test_both_ports_answer_alike(server: TwoPorts) -> None:
    assert f"http://127.0.0.1:{server.http_port} (HTTP)\n" in server.command.output
    answered = 'ranker_requests_total{outcome="ok",protocol="rerank"}'
    before = server.figure(answered)
    answers = [
        server.post(port, **{"X-API-Key": KEY, "X-Request-Id": "mine"}) for port in (server.port, server.http_port)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert [answer.headers["x-request-id"] for answer in answers] == ["mine", "mine"]
    assert server.figure(answered) - before == 2


def test_the_key_and_the_limits_hold_there(server: TwoPorts) -> None:
    assert server.post(server.http_port).status_code == 401
    with_key = {"X-API-Key": KEY}
    assert server.post(server.http_port, b"x" * 5001, **with_key).status_code == 413
    assert server.post(server.http_port, {**ASKED, "documents": ["a"] * 1001}, **with_key).status_code == 413
    assert server.post(server.http_port, {"query": 7, "documents": []}, **with_key).json()["field"] == "query"
    chunked = requests.post(
        f"http://127.0.0.1:{server.http_port}/v1/rerank",
        data=iter([b"x" * 3000] * 2),
        headers=with_key,
        timeout=SECONDS,
    )
    assert chunked.status_code == 413
    assert server.post(server.http_port, b"{}", "/GeneralModelService/inference").status_code == 401
    refused = {"protocol": "rerank", "path": "/v1/rerank", "status": 413}.items()
    until(lambda: [line for line in server.logged("request") if refused <= line.items()])


def test_no_other_protocol_and_no_more_connections(server: TwoPorts) -> None:
    until(lambda: server.figure("ranker_connections") == 1)  # that which asks
    with server.connect_http(b"PRPC" + b"\0" * 8 + b"\r\n\r\n") as connection:
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ") and json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    request = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(server.connect_http(request)) for _ in range(8)]
        statuses = [connection.recv(65536)[:13] for connection in held]
        answer = read_all(stack.enter_context(server.connect_http(request)))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert statuses[0] == b"HTTP/1.1 200 " and answer[:13] == b"HTTP/1.1 503 "
    assert b"content-type: application/json" in head and b"retry-after: 1" in head
    assert json.loads(body)["error"] == "8 connections are open, which is the limit"
    until(lambda: server.post(server.http_port, **{"X-API-Key": KEY}).status_code == 200)


def test_on_both_ports_a_body_is_no_request_and_who_has_sent_all_is_answered(server: TwoPorts) -> None:
    body = json.dumps(ASKED).encode()
    head = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nX-API-Key: %b\r\nContent-Length: %d\r\n"
    smuggled = b"POST /admin/reload HTTP/1.1\r\nHost: x\r\nX-API-Key: %b\r\n\r\n" % KEY.encode()
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    reloads = len(server.logged("reload"))
    for port in (server.port, server.http_port):
        for sent, wanted in ((body, b"200"), (smuggled, b"400")):
            with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
                connection.sendall(head % (KEY.encode(), len(sent)) + upgrade + b"\r\n")
                time.sleep(0.05)  # the body comes in a packet of its own
                connection.sendall(sent + b"garbage\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                codes = re.findall(rb"HTTP/1.1 (\d+)", read_all(connection))
                # While the first is worked on, a server asks by an interim answer whether the client is there.
                assert [code for code in codes if code != b"100"] == [wanted, b"400"]
    assert len(server.logged("reload")) == reloads


def test_a_new_model_is_loaded_on_request(server: TwoPorts) -> None:
    answer = server.post(server.http_port, b"", "/admin/reload", **{"X-API-Key": KEY})
    assert (answer.status_code, answer.json()["status"]) == (200, "switched")


def test_what_is_in_flight_is_answered_when_the_server_stops(model: Path, tmp_path: Path) -> None:
    with two_ports(model, tmp_path / "run") as one:
        require_answer_before_the_end(one, one.connect_http)


def test_several_workers_share_it(model: Path, tmp_path: Path) -> None:
    with two_ports(model, tmp_path / "run", "--workers", "2") as one:
        workers = children(one.pid)
        for _ in range(10):
            assert one.post(one.http_port).status_code == 200
        os.kill(min(workers), signal.SIGKILL)
        until(lambda: len(children(one.pid)) == 2 and children(one.pid) != workers)
        for _ in range(10):
            assert one.post(one.http_port).status_code == 200
        os.kill(one.pid, signal.SIGTERM)
        assert one.command.process.wait(SECONDS) == 0


@pytest.mark.parametrize("more", [{"port": 8080}, {"more_ports": (8080,)}])
def test_a_port_is_for_one_of_the_two(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--http_port 8080: --port or --more_ports has it already"):
        ServeConfig(http_port=8080, **more)
