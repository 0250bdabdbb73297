"""What a client can make a server hold, and for how long: answers that it does not take, texts, bodies in pieces."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import re
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from paddle_ranker.serving.core.budget import ByteBudget
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.connections import Connections, Unsent
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.turns import Pace, Turns
from paddle_ranker.serving.http.connection import HttpConnection
from paddle_ranker.serving.http.middleware import Middleware
from tests.live_service import SECONDS, LiveService
from tests.serving.test_http_connection import (
    BODY,
    CHUNKED,
    PATH,
    PORTS,
    answering,
    chunked,
    connect,
    part,
    read_all,
    request,
    start,
    statuses,
    statuses_of,
)
from tests.started import until, until_in_loop

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def live() -> Iterator[LiveService]:
    with LiveService(Limits(request_bytes=2_000_000)) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[LiveService]:
    with LiveService(api_key="a key") as server:
        yield server


class Taking(asyncio.Transport):
    """A transport whose client takes what the test says."""

    def __init__(self) -> None:
        self.left, self.aborts = 0, 0

    def write(self, data: Any) -> None:
        self.left += len(data)

    def get_write_buffer_size(self) -> int:
        return self.left

    def abort(self) -> None:
        self.left, self.aborts = 0, self.aborts + 1


def test_a_whole_answer_is_taken_in_time_however_steadily() -> None:
    transport, budget = Taking(), ByteBudget(10_000)
    unsent = Unsent(transport, budget, 10.0)
    for second in range(100):  # an answer a second, each taken within some seconds: the buffer is never empty
        unsent.write(bytes(100))
        transport.left = min(transport.left, 700)
        unsent.check(second)
        assert budget.held == transport.left > 0
    transport.left = 0
    unsent.check(100)
    assert (budget.held, transport.aborts) == (0, 0)
    unsent.write(bytes(1000))
    for second in range(101, 112):
        transport.left -= 50  # a trickle
        unsent.check(second)
        assert transport.aborts == 0 and budget.held == transport.left
    unsent.check(112)
    assert transport.aborts == 1
    unsent.check(113)
    assert budget.held == 0


def test_who_takes_nothing_is_cut_off_where_the_budget_has_no_room() -> None:
    transport, budget = Taking(), ByteBudget(100_000)
    unsent = Unsent(transport, budget, 10.0)
    unsent.write(bytes(60_000))
    other = Taking()
    Unsent(other, budget, 10.0).write(bytes(50_000))
    assert (other.aborts, transport.aborts, budget.held) == (1, 0, 60_000)
    unsent.end()
    assert budget.held == 0


async def asked(port: int, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection that has sent some bytes and reads nothing by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    cast(asyncio.ReadTransport, writer.transport).pause_reading()
    writer.write(sent)
    return reader, writer


def test_answers_count_in_the_budget_until_they_are_taken() -> None:
    size, budget = 12_000_000, ByteBudget(60_000_000)
    app = Middleware(answering(start((b"content-length", b"%d" % size)), part(bytes(size))), Metrics(), budget=budget)
    sent = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        cast(asyncio.ReadTransport, writer.transport).resume_reading()
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        body = b""
        while len(body) < length:
            body += await asyncio.wait_for(reader.read(1 << 20), SECONDS)
        return head

    async def run() -> None:
        connections = Connections(100, budget)
        made: list[HttpConnection] = []

        def make() -> HttpConnection:
            made.append(HttpConnection(app, ServeConfig(), connections))
            return made[-1]

        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        clients = []
        for number in range(1, 31):  # the system takes some of each answer
            clients.append(await asked(port, sent))
            await until_in_loop(lambda: len(made) == number and made[-1].unsent._sent > 0)  # noqa: B023
            assert budget.held <= 45_000_000  # three quarters
            if made[-1].unsent._sent < size:
                break
        assert 2 < len(clients) < 30
        assert budget.held == sum(one.transport.get_write_buffer_size() for one in made)
        heads = [await read(*client) for client in clients]
        assert [int(head.split()[1]) for head in heads] == [200] * (len(heads) - 1) + [503]
        assert b"retry-after: 1" in heads[-1]
        for one in made:
            one.check(0.0)
        assert budget.held == 0
        for _, writer in clients:
            writer.close()
        server.close()

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


REFUSED = {
    "too large, unpacked": (PATH, b"\0" * 3_000_000, 413),
    "no JSON": (PATH, b"[" + b" " * 1_900_000, 400),
    "a value of the wrong type": (PATH, b'{"tensor": [{"name": 7}], "x": "' + b"a" * 1_900_000 + b'"}', 400),
    "wide, and no room": (PATH, b'{"x": "\\ud83d\\ude00' + b"a" * 1_900_000 + b'"}', 413),
    "no pair": (b"/ernie/prediction", b'{"key": [], "x": "' + b"a" * 1_900_000 + b'"}', 200),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_forgotten_at_once(live: LiveService, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors refer to the frames that they passed, and these to what was read: no garbage collection is waited for."""
    path, body, status = REFUSED[name]
    monkeypatch.setattr(live.budget, "most", 9_000_000)
    sent = request(gzip.compress(body), b"Content-Encoding: gzip").replace(PATH, path)
    assert statuses_of(live, sent)[-1] == status
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(3):
            assert statuses_of(live, sent)[-1] == status
        until(lambda: live.budget.held == 0)
        until(lambda: tracemalloc.get_traced_memory()[0] < 1_000_000)
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("rest", [b"a" * 10_000, b"1\r\na\r\n" * 2000, b"0\r\n" + b"X: a\r\n" * 2000])
def test_of_a_request_that_is_refused_no_more_is_read(
    guarded: LiveService, port: str, rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its body nor its trailers, which need no key, and may never end."""
    fed: list[bytes] = []
    feed = HttpConnection.feed

    def watched(self: HttpConnection, data: bytes) -> None:
        if self._connections is guarded._connections:  # the other server may still read of what another test sent
            fed.append(data)
        feed(self, data)

    monkeypatch.setattr(HttpConnection, "feed", watched)
    framing = b"Content-Length: 20000000" if rest[:1] == b"a" else b"Transfer-Encoding: chunked"
    head = request(b"", framing, length=False)
    with connect(guarded, head, port=port) as connection:
        answer = connection.recv(65536)
        assert statuses(answer) == [401] and b"connection: close" in answer
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                connection.sendall(rest)
            connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
    assert b"".join(fed) == head


@pytest.mark.parametrize("port", PORTS)
def test_a_body_in_tiny_chunks_is_read_slowly(live: LiveService, port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[HttpConnection] = []
    waits: list[Pace] = []
    monkeypatch.setattr(HttpConnection, "connection_made", recorded(HttpConnection.connection_made, made))
    wait = Turns.wait_for_pieces

    def waiting(turns: Turns, pace: Pace) -> None:
        waits.append(pace)
        wait(turns, pace)

    monkeypatch.setattr(Turns, "wait_for_pieces", waiting)
    chunks = [b"%x\r\n" % 1000 + b" " * 1000 + b"\r\n"] * 900
    whole = CHUNKED + b"".join(chunks) + chunked(BODY)
    assert statuses_of(live, whole, port=port) == [200]
    assert made and made[-1]._pace not in waits
    with connect(live, CHUNKED, b"1\r\n \r\n" * 100_000, port=port):
        until(lambda: made[-1]._pace in waits)
        assert made[-1]._pace.owes <= 1024 // 6 + 1  # a slice's


def recorded(method: Callable[..., None], made: list[Any]) -> Callable[..., None]:
    """Return a method that notes the object that it is called of."""

    def recording(self: Any, *arguments: Any) -> None:
        made.append(self)
        method(self, *arguments)

    return recording
