"""Connections to the server's port: which protocol gets them, how many there are, who leaves, what requests hold."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from paddle_ranker.serving.core import connections
from paddle_ranker.serving.core.byte_budget import ByteBudget
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.http.middleware import Middleware
from paddle_ranker.serving.process import protocols
from paddle_ranker.serving.process.http_server import HEAD_BYTES, HttpServer
from tests.live_service import SECONDS, LiveService
from tests.robustness.costly_inputs import CHUNKED, ENDLESS, HEAD, PATH
from tests.started import until, until_in_loop

pytestmark = pytest.mark.server
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


def test_half_sent_heads_and_idle_connections_give_way_to_a_probe(
    live: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live._connections, "most", 4)
    monkeypatch.setattr(connections, "_PATIENCE", 0.1)
    live.hold()
    probe = request(BODY, b"Connection: close").replace(b"POST", b"TRACE")  # answered at once: 405
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(connect(live, LAST, port="shared"))
        until(lambda: live.service.waiting == 1)
        held = [stack.enter_context(connect(live, sent, port="shared")) for sent in (b"GET / HT", b"", REQUEST[:-3])]
        for expected in (b"HTTP/1.1 408", b"", b"HTTP/1.1 408"):
            with connect(live, probe, port="shared") as asking:
                assert statuses(read_all(asking)) == [405]
            with contextlib.suppress(ConnectionResetError):
                assert read_all(held.pop(0)).startswith(expected)
            stack.enter_context(connect(live, REQUEST[:-3], port="shared"))
        live.release()
        assert statuses(read_all(busy)) == [200]


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


MUCH = 3 * HEAD_BYTES


@pytest.mark.parametrize("port", ["http", "shared"])
@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_is_refused_and_nothing_of_it_stays(live: LiveService, name: str, port: str) -> None:
    begin, part, status = ENDLESS[name]
    before = live.requests()
    with connect(live, begin, port=port) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(MUCH // 4096):
                connection.sendall(part * (4096 // len(part)))
        assert statuses(read_all(connection)) == [status]
    with connect(live, LAST, port=port) as connection:
        assert statuses(read_all(connection)) == [200]
    until(lambda: live.budget.held == 0)
    until(lambda: live.requests() == before + 2)


UNCLEAR = {
    "two framings": request(chunked(BODY), b"Content-Length: 5", b"Transfer-Encoding: chunked", length=False),
    "two framings, the other way": request(
        chunked(BODY), b"Transfer-Encoding: chunked", b"Content-Length: 5", length=False
    ),
    "two framings and an upgrade": request(
        chunked(BODY), *UPGRADES["h2c"], b"Content-Length: 5", b"Transfer-Encoding: chunked", length=False
    ),
    "two lengths": request(BODY, b"Content-Length: 5"),
    "a length with a sign": request(BODY, b"Content-Length: +5", length=False),
    "a length that is no number": request(BODY, b"Content-Length: 0x5", length=False),
    "a length beyond 64 bits": request(BODY, b"Content-Length: 99999999999999999999", length=False),
    "chunked is not the last": request(chunked(BODY), b"Transfer-Encoding: chunked, gzip", length=False),
    "a coding before chunked": request(chunked(BODY), b"Transfer-Encoding: gzip, chunked", length=False),
    "chunks of HTTP/1.0": request(
        chunked(BODY), b"Transfer-Encoding: chunked", b"Connection: keep-alive", length=False
    ).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "another coding": request(chunked(BODY), b"Transfer-Encoding: xchunked", length=False),
    "a space before the colon": request(BODY, b"Content-Length : 5", length=False),
    "a folded line": request(BODY, b"X: a\r\n b"),
    "a null in a value": request(BODY, b"X: a\0b"),
    "a line feed alone": request(BODY).replace(b"\r\n", b"\n"),
    "a carriage return alone": request(BODY, b"X: a\rY: b"),
    "another version": request(BODY).replace(b"HTTP/1.1", b"HTTP/3.7"),
    "a tunnel": b"CONNECT example.com:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no path": b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    "two hosts": request(BODY, b"Host: y", b"Connection: close"),
    "packed twice": request(gzip.compress(gzip.compress(BODY)), b"Content-Encoding: gzip, gzip", b"Connection: close"),
    "packed twice in two lines": request(
        BODY, b"Content-Encoding: gzip", b"Content-Encoding: gzip", b"Connection: close"
    ),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_a_request_that_two_servers_could_read_differently_is_refused(live: LiveService, name: str) -> None:
    before = live.requests()
    for port in ("http", "shared"):
        with connect(live, UNCLEAR[name], port=port) as connection:
            assert statuses(read_all(connection)) == [400], port
    assert not live.service.calls and live.requests() == before + 2


@pytest.mark.parametrize("far", [0, 3 * 4096, 50_000])
@pytest.mark.parametrize("name", UPGRADES)
def test_an_upgrade_is_not_taken_and_no_body_is_lost(live: LiveService, name: str, far: int) -> None:
    before = [b"X-Before: " + b"a" * far] if far else []
    several = [
        request(LARGE, *before, *UPGRADES[name]),
        request(chunked(LARGE), *before, *UPGRADES[name], b"Transfer-Encoding: chunked", length=False),
        request(BODY, *before, *UPGRADES[name]),
    ]
    for port in ("http", "shared"):
        with connect(live, *several, LAST, port=port) as connection:
            assert statuses(read_all(connection)) == [200] * 4
        with connect(live, *(bytes((byte,)) for byte in several[2][-400:-100] if not far), port=port):
            pass


def test_requests_behind_each_other_wait_outside_of_the_parser(live: LiveService) -> None:
    live.hold()
    many = 2000
    with connect(live, REQUEST * many) as connection:
        until(lambda: live.service.waiting == 1 and live.budget.held > 0)
        (found,) = live._http._server.server_state.connections
        assert len(found.pipeline) * len(REQUEST) < 2 * 4096
        live.release()
        answers = b""
        while len(statuses(answers)) < many:
            part = connection.recv(1 << 20)
            assert part
            answers += part
        assert set(statuses(answers)) == {200}
    until(lambda: live.budget.held == 0)


def test_an_answer_is_not_taken_for_that_of_a_damaged_request_behind_it(live: LiveService) -> None:
    live.hold()
    with connect(live, REQUEST, b"\0\0\0") as connection:
        until(lambda: live.service.waiting == 1)
        time.sleep(0.05)
        live.release()
        assert statuses(read_all(connection)) == [200]


SLOW = {
    "a head": (b"POST /", 408),
    "many small parts of a head": (HEAD + b"X: a", 408),
    "a body": (request(BODY)[:-5], 408),
    "a chunk": (CHUNKED + b"1000\r\n{", 408),
    "trailers": (CHUNKED + b"1\r\n{\r\n0\r\na: b\r\n", 408),
    "a body behind its answer": (request(BODY).replace(b"POST", b"TRACE")[:-5], 405),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_request_comes_in_time_or_is_refused(live: LiveService, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PEER_SECONDS", 0.2)
    sent, status = SLOW[name]
    before = live.requests()
    with connect(live, sent) as connection:
        found = read_all(connection)
        assert statuses(found) == [status], found
    until(lambda: len(live._connections) == 0 and live.budget.held == 0)
    until(lambda: live.requests() == before + 1)


def test_a_frame_comes_in_time_or_is_refused(live: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PEER_SECONDS", 0.2)
    for port in ("baidu_std", "shared"):
        with connect(live, b"PRPC\0\0\1\0\0\0\0\x10", port=port) as connection:
            assert b"did not come in time" in read_all(connection)
    until(lambda: len(live._connections) == 0 and live.budget.held == 0)


def test_who_does_not_take_answers_is_cut_off(live: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "PEER_SECONDS", 0.2)
    with connect(live) as connection:
        connection.setblocking(False)
        sent, more = 0, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
        with contextlib.suppress(ConnectionError):
            for _ in range(3000):
                with contextlib.suppress(BlockingIOError):
                    sent += connection.send(more)
                time.sleep(0.001)
        until(lambda: len(live._connections) == 0)


def test_a_first_byte_costs_nothing_until_the_next_one(live: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[bytes] = []
    plain = protocols._Unknown.data_received

    def counted(self: Any, data: bytes) -> None:
        received.append(data)
        plain(self, data)

    monkeypatch.setattr(protocols._Unknown, "data_received", counted)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(live, b"P", port="shared")) for _ in range(50)]
        until(lambda: len(received) == 50)
        time.sleep(0.2)
        assert len(received) == 50
        for client in clients:
            client.sendall(LAST[1:])
        assert [statuses(read_all(client)) for client in clients] == [[200]] * 50
