"""Connections to the server's port: which protocol gets them, how many there are, who offers upgrades, who leaves."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.process import protocols
from tests.live_service import SECONDS, LiveService
from tests.started import until

pytestmark = pytest.mark.server
PATH = b"/GeneralModelService/inference"
BODY = b'{"tensor":[{"name":"query","elem_type":20,"data":["a"]},{"name":"title","elem_type":20,"data":["b"]}]}'
LARGE = BODY + b" " * 200_000
UPGRADES = {
    # Java's HttpClient sends the first, `curl --http2` the second
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAEAAEAAAAIAAAAB", b"Upgrade: h2c"),
    "h2c_alone": (b"Connection: Upgrade", b"Upgrade: h2c"),
    "websocket": (b"Upgrade: websocket", b"Connection: keep-alive, Upgrade", b"Sec-WebSocket-Version: 13"),
}


@pytest.fixture(scope="module")
def live() -> Iterator[LiveService]:
    with LiveService(Limits(request_bytes=1_000_000)) as server:
        yield server


@pytest.fixture(autouse=True)
def as_new(live: LiveService) -> Iterator[None]:
    live.service.calls.clear()
    live.service.cancelled = 0
    yield
    if live.service.gate is not None:
        live.release()
    until(lambda: live.service.waiting == 0)


def request(body: bytes = BODY, *headers: bytes, length: bool = True) -> bytes:
    lines = [b"POST " + PATH + b" HTTP/1.1", b"Host: x", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


def chunked(body: bytes) -> bytes:
    return b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


REQUEST = request()
LAST = request(BODY, b"Connection: close")


def connect(live: LiveService, *parts: bytes, port: str = "http") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", getattr(live, port)), SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for part in parts:
        connection.sendall(part)
    return connection


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([2-5]\d\d)", answers)]


@pytest.mark.parametrize("framing", ["a length", "chunks"])
@pytest.mark.parametrize("upgrade", UPGRADES)
def test_an_upgrade_that_is_offered_is_ignored(live: LiveService, upgrade: str, framing: str) -> None:
    headers = UPGRADES[upgrade]
    sent = request(BODY, *headers)
    if framing == "chunks":
        sent = request(b"", *headers, b"Transfer-Encoding: chunked", length=False) + chunked(BODY)
    for parts in ((sent + LAST,), (sent, LAST), (sent[:-10], sent[-10:], LAST)):
        with connect(live, *parts) as connection:
            assert statuses(read_all(connection)) == [200, 200]
    assert live.service.calls == [1] * 6


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_that_would_like_to_speak_http_2(live: LiveService) -> None:
    if "HTTP2" not in subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("needs a curl with HTTP/2")
    url = f"http://127.0.0.1:{live.http}{PATH.decode()}"
    line = ["curl", "-sS", "--http2", "--data-binary", BODY.decode(), "-H", "Content-Type: application/json", url]
    assert '"outputs"' in subprocess.run(line, capture_output=True, text=True, timeout=SECONDS, check=True).stdout


def test_requests_in_one_packet_are_answered_in_order(live: LiveService) -> None:
    with connect(live, REQUEST + request(b"{}") + request(LARGE) + LAST, port="shared") as connection:
        assert statuses(read_all(connection)) == [200, 400, 200, 200]


def test_the_first_bytes_may_come_one_by_one(live: LiveService) -> None:
    with connect(live, *(bytes((byte,)) for byte in LAST[:8]), LAST[8:], port="shared") as connection:
        assert statuses(read_all(connection)) == [200]


def test_who_says_nothing_is_closed(live: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "_SILENT_SECONDS", 0.05)
    for sent in (b"", b"PR"):
        with connect(live, sent, port="shared") as connection, contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    until(lambda: len(live._connections) == 0)


def test_connections_above_the_limit_wait(live: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live._connections, "most", 2)
    live.hold()
    with connect(live, REQUEST), connect(live, REQUEST) as second, connect(live, LAST) as third:
        until(lambda: live.service.waiting == 2)
        second.close()
        until(lambda: live.service.cancelled == 1 and live.service.waiting == 2)
        live.release()
        assert statuses(read_all(third)) == [200]


LEAVING = {
    "a small body": REQUEST,
    "a large body": request(LARGE),
    "a large body in chunks": request(chunked(LARGE), b"Transfer-Encoding: chunked", length=False),
    "an upgrade": request(LARGE, *UPGRADES["h2c"]),
}


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_work_ends_when_its_caller_leaves(live: LiveService, how: str) -> None:
    live.hold()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(live, sent)) for sent in LEAVING.values()]
        until(lambda: live.service.waiting == len(LEAVING))
        for connection in clients:
            if how == "resets":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: live.service.waiting == 0)
    assert live.service.cancelled == len(live.service.calls) == len(LEAVING)
