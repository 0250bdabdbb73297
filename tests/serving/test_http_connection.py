"""Connections to the server's port: which protocol gets them, how many there are, who leaves, what requests hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send

from paddle_ranker.serving.core.budget import ByteBudget
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.http.middleware import Middleware
from paddle_ranker.serving.process import protocols
from paddle_ranker.serving.process.http_server import HttpServer
from tests.live_service import SECONDS, LiveService
from tests.started import until, until_in_loop

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
    with LiveService(Limits(request_bytes=2_000_000)) as server:
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


def test_a_large_answer_counts_in_the_budget_until_it_is_taken() -> None:
    size, budget = 12_000_000, ByteBudget(30_000_000)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    async def run() -> None:
        server = await HttpServer(Middleware(app, Metrics(), budget=budget), Connections(100, budget)).start()
        make = server.connection
        listening = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        clients = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname(), limit=1000)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            heads = [await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)]
            clients.append((reader, writer))
        assert heads[0].startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in heads[0]
        assert budget.held == size
        reader, writer = clients[0]
        await asyncio.wait_for(reader.readexactly(size), SECONDS)
        await until_in_loop(lambda: budget.held == 0)
        for _, writer in clients:
            writer.close()
        listening.close()
        await server.stop(0)

    asyncio.run(run())


def test_texts_count_in_the_budget_as_wide_as_they_are(live: LiveService) -> None:
    texts = ["a" * 30_000, "a" * 30_000 + "\U0001f600"]
    tensors = [{"name": name, "elem_type": 20, "data": texts} for name in ("query", "title")]
    live.hold()
    with connect(live, request(json.dumps({"tensor": tensors}).encode())) as connection:
        until(lambda: live.service.waiting == 1)
        assert live.budget.held > 4 * 4 * 30_000
        live.release()
        assert statuses(connection.recv(65536)) == [200]
        until(lambda: live.budget.held == 0)
