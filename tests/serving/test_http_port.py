"""The port of HTTP alone, `--http_port`: what the port of every protocol answers; its limits are in `test_server`."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
import requests

from paddle_ranker.errors import UsageError
from paddle_ranker.serving.core.config import ServeConfig
from tests.export_cases import write_case
from tests.serving.test_server import SECONDS, Server, read_all, require_answer_before_the_end, serving

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
def two_ports(model: Path, folder: Path, key: Optional[str] = None) -> Iterator[TwoPorts]:
    with serving(model, folder, "--http_port", "0", key=key) as server:
        yield TwoPorts(server.command, server.ports)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("models") / "ranker")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoPorts]:
    folder = tmp_path_factory.mktemp("server") / "run"
    with two_ports(model, folder, key=KEY) as one:
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


def test_the_key_is_asked_for_there(server: TwoPorts) -> None:
    assert server.post(server.http_port).status_code == 401
    assert server.post(server.http_port, b"{}", "/GeneralModelService/inference").status_code == 401


def test_no_other_protocol(server: TwoPorts) -> None:
    with server.connect_http(b"PRPC" + b"\0" * 8 + b"\r\n\r\n") as connection:
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


def test_a_new_model_is_loaded_on_request(server: TwoPorts) -> None:
    answer = server.post(server.http_port, b"", "/admin/reload", **{"X-API-Key": KEY})
    assert (answer.status_code, answer.json()["status"]) == (200, "switched")


def test_what_is_in_flight_is_answered_when_the_server_stops(model: Path, tmp_path: Path) -> None:
    with two_ports(model, tmp_path / "run") as one:
        require_answer_before_the_end(one, one.connect_http)


@pytest.mark.parametrize("more", [{"port": 8080}, {"more_ports": (8080,)}])
def test_a_port_is_for_one_of_the_two(more: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--http_port 8080: --port or --more_ports has it already"):
        ServeConfig(http_port=8080, **more)
