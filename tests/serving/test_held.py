"""Memory that a request may hold, and for how long: texts, answers that are not taken, what is refused."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import tracemalloc
from collections.abc import Iterator
from functools import partial

import pytest
from starlette.types import Receive, Scope, Send

from paddle_ranker.serving.core.budget import ByteBudget
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.http.middleware import Middleware
from paddle_ranker.serving.process.protocols import HttpServer
from tests.live_service import SECONDS, LiveService
from tests.serving.test_http_connection import PATH, connect, read_all, request, statuses
from tests.started import until, until_in_loop

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def live() -> Iterator[LiveService]:
    with LiveService(Limits(request_bytes=2_000_000)) as server:
        yield server


def test_a_large_answer_counts_in_the_budget_until_it_is_taken() -> None:
    size, budget = 12_000_000, ByteBudget(30_000_000)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    async def run() -> None:
        server = await HttpServer(Middleware(app, Metrics(), budget=budget), Connections(100, budget)).start()
        make = partial(server.connection, b"")
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
    sent = request(gzip.compress(body), b"Content-Encoding: gzip", b"Connection: close").replace(PATH, path)

    def answered() -> list[int]:
        with connect(live, sent) as connection:
            return statuses(read_all(connection))

    assert answered() == [status]
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(3):
            assert answered() == [status]
        until(lambda: live.budget.held == 0)
        until(lambda: tracemalloc.get_traced_memory()[0] < 1_000_000)
    finally:
        tracemalloc.stop()
        gc.enable()
