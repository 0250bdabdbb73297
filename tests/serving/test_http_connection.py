"""What a client may do on an HTTP connection: offer upgrades, frame bodies badly, pipeline, half-close, leave."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.http.connection import HttpConnection
from tests.live_service import SECONDS, LiveService
from tests.started import until

pytestmark = pytest.mark.server
PATH = b"/GeneralModelService/inference"
BODY = b'{"tensor":[{"name":"query","elem_type":20,"data":["a"]},{"name":"title","elem_type":20,"data":["b"]}]}'
LARGE = BODY + b" " * 200_000  # above the 64 KiB of a body at which reading stops
UPGRADES = {
    # JDK's HttpClient sends the first, `curl --http2` the second
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAEAAEAAAAIAAAAB", b"Upgrade: h2c"),
    "h2c_alone": (b"Connection: Upgrade", b"Upgrade: h2c"),
    "websocket": (b"Upgrade: websocket", b"Connection: keep-alive, Upgrade", b"Sec-WebSocket-Version: 13"),
    "twice": (b"Connection: upgrade", b"X:", b"Connection: keep-alive", b"Upgrade: TLS/1.3", b"Upgrade: h2c"),
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


def request(body: bytes = BODY, *headers: bytes, method: bytes = b"POST", length: bool = True) -> bytes:
    lines = [method + b" " + PATH + b" HTTP/1.1", b"Host: x", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


def chunked(body: bytes) -> bytes:
    return b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


REQUEST = request()
PORTS = ("http", "shared")  # as --http_port and --port


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
    """Return the statuses of answers, without the interim ones that tell a server, sooner or later, who has left."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([2-5]\d\d)", answers)]


def statuses_of(live: LiveService, *parts: bytes, port: str = "http") -> list[int]:
    """Send parts and close this side; return the statuses of all answers."""
    with connect(live, *parts, port=port) as connection:
        connection.shutdown(socket.SHUT_WR)
        return statuses(read_all(connection))


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("body", [BODY, REQUEST], ids=["a_body", "a_body_like_a_request"])
def test_an_upgrade_that_nobody_asked_for_is_ignored(live: LiveService, upgrade: str, body: bytes) -> None:
    head = request(b"", *UPGRADES[upgrade], b"Content-Length: %d" % len(body), length=False)
    chunks = request(b"", *UPGRADES[upgrade], b"Transfer-Encoding: chunked", length=False)
    wanted = 200 if body == BODY else 400  # it is not JSON
    next_one = request(BODY, b"Connection: close")
    for begin, rest in ((head, body), (chunks, chunked(body))):
        with connect(live, begin + rest + next_one) as connection:  # in one packet
            assert statuses(read_all(connection)) == [wanted, 200]
        with connect(live, begin + rest[:10]) as connection:
            for part in (rest[10:-3], rest[-3:] + request(b"{}", *UPGRADES[upgrade]), next_one):
                connection.sendall(part)
            assert statuses(read_all(connection)) == [wanted, 400, 200]
        with connect(live, begin[:-2] + b"Expect: 100-continue\r\n\r\n") as connection:
            assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(rest + next_one)
            assert statuses(read_all(connection)) == [wanted, 200]
    assert len(live.service.calls) == (12 if body == BODY else 6)  # half of them are the next one's


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_that_would_like_to_speak_http_2(live: LiveService) -> None:
    if "HTTP2" not in subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("needs a curl with HTTP/2")
    url = f"http://127.0.0.1:{live.http}{PATH.decode()}"
    line = ["curl", "-sS", "--http2", "--data-binary", BODY.decode(), "-H", "Content-Type: application/json", url]
    assert '"outputs"' in subprocess.run(line, capture_output=True, text=True, timeout=SECONDS, check=True).stdout


SMUGGLED = {
    "length and chunks": (b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    "chunks and length": (b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    "two lengths": (b"Content-Length: 0\r\nContent-Length: %d" % len(REQUEST), b""),
    "a list of lengths": (b"Content-Length: 0, %d" % len(REQUEST), b""),
    "a signed length": (b"Content-Length: +%d" % len(REQUEST), b""),
    "a length in two words": (b"Content-Length: 0 %d" % len(REQUEST), b""),
    "a length that wraps": (b"Content-Length: %d" % 2**64, b""),
    "no length": (b"Content-Length:", b""),
    "a length after a blank": (b"Content-Length : %d" % len(REQUEST), b""),
    "a folded length": (b"Content-Length:\r\n %d" % len(REQUEST), b""),
    "a length in a folded header": (b"X: a\r\n Content-Length: %d" % len(REQUEST), b""),
    "a length after a line feed": (b"X: a\nContent-Length: %d" % len(REQUEST), b""),
    "a length after a carriage return": (b"X: a\rContent-Length: %d" % len(REQUEST), b""),
    "an unknown coding": (b"Transfer-Encoding: xchunked", b""),
    "a coding after chunked": (b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n"),
    "a coding before chunked": (b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
    "a coding in a field before chunked": (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    "chunked twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    "two codings": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"0\r\n\r\n"),
    "a coding after a blank": (b"Transfer-Encoding : chunked", b"0\r\n\r\n"),
    "a folded coding": (b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n"),
    "a coding after a tab": (b"Transfer-Encoding:\x0bchunked", b"0\r\n\r\n"),
    "a signed chunk": (b"Transfer-Encoding: chunked", b"+0\r\n\r\n"),
    "a chunk in C's hexadecimal": (b"Transfer-Encoding: chunked", b"0x0\r\n\r\n"),
    "a chunk that wraps": (b"Transfer-Encoding: chunked", b"1" + b"0" * 16 + b"\r\n\r\n\r\n"),
    "a chunk before a blank": (b"Transfer-Encoding: chunked", b"0 \r\n\r\n"),
    "a chunk after a blank": (b"Transfer-Encoding: chunked", b" 0\r\n\r\n"),
    "a chunk before a line feed": (b"Transfer-Encoding: chunked", b"0\n\n"),
    "a line feed in a chunk's extension": (b"Transfer-Encoding: chunked", b"2;\nxx\r\n0\r\n\r\n"),
    "a chunk that does not end": (b"Transfer-Encoding: chunked", b"2\r\n{}xx0\r\n\r\n"),
    "a length as trailer": (b"Transfer-Encoding: chunked", b"0\r\nContent-Length: 3\r\n\r\n"),
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_where_a_body_ends_is_never_guessed(live: LiveService, name: str) -> None:
    header, body = SMUGGLED[name]
    for port in PORTS:
        assert statuses_of(live, request(body, header, length=False) + REQUEST, port=port) == [400]
    head = request(b"", header, length=False)
    for upgrade in (b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"):
        assert statuses_of(live, head[:-2] + upgrade + b"\r\n", body + REQUEST) == [400]
    assert live.service.calls == []


CHUNKED = request(b"", b"Transfer-Encoding: chunked", length=False)
HEADS = {
    "100 fields": (request(BODY, *[b"X: a"] * 98), 200),  # with Host and Content-Length
    "101 fields": (request(BODY, *[b"X: a"] * 99), 431),
    "101 fields and an upgrade": (request(BODY, *[b"X: a"] * 97, *UPGRADES["h2c_alone"]), 431),
    "a long target": (REQUEST.replace(PATH, PATH + b"?" + b"a" * 70_000), 431),
    "a field without an end": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000, 431),
    "blank lines without an end": (b"\r\n" * 50_000, 431),
    "trailers": (CHUNKED + chunked(BODY)[:-2] + b"X: a\r\nY: b\r\n\r\n", 200),
    "large trailers": (CHUNKED + chunked(BODY)[:-2] + (b"X: " + b"a" * 1000 + b"\r\n") * 70 + b"\r\n", 431),
    "a trailer without an end": (CHUNKED + chunked(BODY)[:-2] + b"X: " + b"a" * 100_000, 431),
    "a chunk's extension without an end": (CHUNKED + b"2;" + b"a" * 100_000, 431),
    "no host": (REQUEST.replace(b"Host: x\r\n", b""), 400),
    "no host, HTTP/1.0": (REQUEST.replace(b"Host: x\r\n", b"").replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
    "two hosts": (request(BODY, b"Host: x"), 400),
}


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("name", HEADS)
def test_a_head_and_its_trailers_are_within_limits(live: LiveService, name: str, port: str) -> None:
    sent, status = HEADS[name]
    assert statuses_of(live, sent, port=port) == [status]
    assert statuses_of(live, REQUEST, sent, port=port) == [200, status]
    assert len(live.service.calls) == (3 if status == 200 else 1)


@pytest.mark.parametrize("sent", [b"\r\nX: " + b"a" * 20_000, b"\r\nX: " + b"\r\nX:" * 90], ids=["long", "many"])
def test_half_a_head_is_of_the_budget(live: LiveService, sent: bytes) -> None:
    """Each of its fields takes some hundred bytes of memory."""
    line, rest = REQUEST.split(b"\r\n", 1)
    with connect(live, line + sent) as connection:
        until(lambda: live.budget.held > 15_000)
        connection.sendall(b"\r\n" + rest)
        assert statuses(connection.recv(65536)) == [200]
        until(lambda: live.budget.held == 0)


@pytest.mark.parametrize("target", [PATH, b"example.com:80"])
def test_a_tunnel_is_refused(live: LiveService, target: bytes) -> None:
    head = b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(REQUEST)
    assert statuses_of(live, head + REQUEST) == [400]
    assert statuses_of(live, head, REQUEST) == [400]
    assert live.service.calls == []


def test_what_follows_a_request_that_ends_the_connection_is_not_read(live: LiveService) -> None:
    last = request(BODY, b"Connection: close")
    for follows in (REQUEST, b"garbage\r\n\r\n", b"\r\n"):
        with connect(live, last + follows) as connection:
            assert statuses(read_all(connection)) == [200]
    assert live.service.calls == [1, 1, 1]


GARBAGE = {
    "no HTTP": b"\x00garbage\r\n\r\n",
    "no URL": b"GET http://[ HTTP/1.1\r\n\r\n",
    "a bad chunk": request(b"zz\r\n", b"Transfer-Encoding: chunked", length=False),
    "a tunnel": b"CONNECT example.com:80 HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_requests_before_garbage_are_answered_first(live: LiveService, garbage: bytes) -> None:
    live.hold()
    with connect(live, REQUEST + REQUEST + garbage) as connection:
        until(lambda: live.service.waiting == 1)
        live.release()
        assert statuses(read_all(connection)) == [200, 200, 400]
    with connect(live, garbage) as connection:
        assert statuses(read_all(connection)) == [400]


def test_an_address_as_curl_sends_it_is_told_how_to_be_written(live: LiveService) -> None:
    with connect(live, "GET /live?q=水稻 HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as connection:
        answer = b"".join(iter(partial(connection.recv, 1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 400 ") and b"percent-encoded (curl: -G --data-urlencode)" in answer


def test_of_many_requests_in_a_packet_few_are_read_at_a_time(
    live: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What becomes of a request in memory has a hundred times its bytes."""
    waiting = []
    feed = HttpConnection.feed

    def watched(self: HttpConnection, data: bytes) -> None:
        feed(self, data)
        waiting.append(len(self._queue))

    monkeypatch.setattr(HttpConnection, "feed", watched)
    least = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for sent in (least * 2000 + REQUEST, least * 300 + request(LARGE) + least * 300 + REQUEST):
        wanted = [method == b"POST" for method in re.findall(rb"GET|POST", sent)]
        assert [status == 200 for status in statuses_of(live, sent)] == wanted
    assert 0 < max(waiting) < 400


def test_requests_that_wait_for_another_are_of_the_budget(live: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bytes] = []
    end_with = HttpConnection.end_with

    def watched(self: HttpConnection, answer: bytes) -> None:
        ended.append(answer)
        end_with(self, answer)

    monkeypatch.setattr(HttpConnection, "end_with", watched)
    live.hold()
    behind = request(LARGE) + REQUEST
    with connect(live, REQUEST) as first, connect(live, REQUEST) as second:
        until(lambda: live.service.waiting == 2)
        before = live.budget.held
        first.sendall(behind)
        until(lambda: live.budget.held > before)  # of what came first; then it is not read from for now
        most = live.budget.held + 1000
        with monkeypatch.context() as patch:
            patch.setattr(live.budget, "most", most)
            second.sendall(behind)
            until(lambda: bool(ended))
        live.release()
        found = read_all(second)
        assert statuses(found) == [200, 503]
        assert b"retry-after: 1" in found and f"{most:,} bytes".encode() in found
        first.shutdown(socket.SHUT_WR)
        assert statuses(read_all(first)) == [200, 200, 200]
    until(lambda: live.budget.held == 0)


def test_who_has_sent_all_and_closes_his_side_is_answered(live: LiveService) -> None:
    live.hold()
    with connect(live, REQUEST, request(LARGE), REQUEST[:-5]) as connection:  # the last one is not whole
        until(lambda: live.service.waiting == 1)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)  # he is there: interim answers make that known
        assert {*answer.split(b"\r\n\r\n")} == {b"HTTP/1.1 100 Continue", b""}
        live.release()
        assert statuses(read_all(connection)) == [200, 200]
    assert live.service.cancelled == 0


def test_http_1_0_is_not_told_to_continue(live: LiveService) -> None:
    live.hold()
    with connect(live, REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0")) as connection:
        until(lambda: live.service.waiting == 1)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(1.0)
        with pytest.raises(socket.timeout):
            connection.recv(1)
        connection.settimeout(SECONDS)
        live.release()
        assert statuses(read_all(connection)) == [200]


LEAVING = {
    "a small body": REQUEST,
    "a large body": request(LARGE),
    "a large body in chunks": request(chunked(LARGE), b"Transfer-Encoding: chunked", length=False),
    "a large body and an upgrade": request(LARGE, *UPGRADES["h2c"]),
    "requests that wait": REQUEST + request(LARGE) + REQUEST,
}


@pytest.mark.parametrize("how", ["closes", "resets", "half-closes first"])
def test_who_leaves_is_noticed(live: LiveService, how: str) -> None:
    live.hold()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(live, sent)) for sent in LEAVING.values()]
        until(lambda: live.service.waiting == len(LEAVING))
        for connection in clients:
            if how == "resets":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif how == "half-closes first":
                connection.shutdown(socket.SHUT_WR)
    until(lambda: live.service.waiting == 0)
    assert live.service.cancelled == len(live.service.calls) == len(LEAVING)


@pytest.mark.parametrize("port", PORTS)
def test_who_leaves_behind_more_than_is_read_is_noticed(live: LiveService, port: str) -> None:
    live.hold()
    with connect(live, REQUEST, request(b"", b"Content-Length: 1000000", length=False), port=port) as connection:
        until(lambda: live.service.waiting == 1)
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:  # until the system takes no more: its end will come behind that
                connection.send(bytes(65536))
    until(lambda: live.service.waiting == 0)
    assert live.service.cancelled == len(live.service.calls) == 1


App = Callable[[Any, Any, Any], Awaitable[None]]


def answering(*messages: dict[str, Any]) -> App:
    """Return an application that sends these messages, and expects that its client takes the whole answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        for message in messages:
            await send(message)
        if messages and not messages[-1].get("more_body"):
            assert (await receive())["type"] == "http.disconnect"

    return app


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes, more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more_body}


def answers_of(app: App, sent: bytes) -> bytes:
    """Return what a client is answered that sends this and closes its side."""

    async def run() -> bytes:
        connections = Connections(10)
        make = partial(HttpConnection, app, ServeConfig(), connections)
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.write(sent)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), SECONDS)
        writer.close()
        server.close()
        return answer

    return asyncio.run(run())


LENGTH = (b"content-length", b"4")
ANSWERS: dict[str, tuple[App, bytes]] = {
    "with a length": (answering(start(LENGTH), part(b"a", True), part(b"bcd")), b"content-length: 4||abcd"),
    "in chunks": (
        answering(start(), part(b"a" * 18, True), part(b"", True), part(b"b", True), part(b"")),
        b"transfer-encoding: chunked||12|" + b"a" * 18 + b"|1|b|0||",
    ),
    "without a body": (answering(start(status=204), part(b"")), b""),
    "that ends the connection": (answering(start(LENGTH, (b"connection", b"close")), part(b"abcd")), b"close||abcd"),
    "that is none": (answering(), b"server's log\"}"),
    "that is an error": (answering(part(b"abcd")), b"server's log\"}"),
    "with a line break in its head": (answering(start((b"x", b"a\r\ny: b")), part(b"")), b"server's log\"}"),
    "longer than it says": (answering(start(LENGTH), part(b"ab", True), part(b"cde")), b"content-length: 4||ab"),
    "shorter than it says": (answering(start(LENGTH), part(b"ab", True), part(b"c")), b"content-length: 4||ab"),
    "twice": (answering(start(LENGTH), part(b"abcd"), part(b"abcd")), b"content-length: 4||abcd"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_framed_as_its_application_says(name: str) -> None:
    app, wanted = ANSWERS[name]
    sent = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    head, _, body = answers_of(app, sent).partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status == (500 if b"log" in wanted else 204 if not wanted else 200)
    assert (head + b"\r\n\r\n" + body).replace(b"\r\n", b"|").endswith(wanted or b"||")
    assert head.count(b"\r\ndate: ") == (status != 500)
    goes_on = name in ("with a length", "in chunks", "without a body", "twice")
    twice = answers_of(app, sent + sent)
    assert len(statuses(twice)) == (2 if goes_on else 1)


def test_what_http_1_0_and_head_are_answered() -> None:
    chunks = answering(start(), part(b"a", True), part(b"b"))
    old = answers_of(chunks, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
    assert old.endswith(b"connection: close\r\n\r\nab") and b"chunked" not in old
    head = answers_of(answering(start(LENGTH), part(b"abcd")), b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    assert head.count(b"content-length: 4\r\n") == 2 and head.endswith(b"\r\n\r\n") and b"abcd" not in head


def test_an_answer_waits_for_a_client_that_does_not_keep_up() -> None:
    size, parts = 1 << 20, 40
    written = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        for number in range(parts):
            await send(part(bytes(size), more_body=True))
            written.append(number)
        await send(part(b""))

    async def run() -> None:
        make = partial(HttpConnection, app, ServeConfig(), Connections(10))
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while not written:
            await asyncio.sleep(0.01)
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert len(written) < parts  # what the system takes, and no more
        found = 0
        while found < size * parts:
            found += len(await asyncio.wait_for(reader.read(1 << 20), SECONDS))
        writer.close()
        server.close()

    asyncio.run(run())
