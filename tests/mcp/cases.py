"""An index that assistants search, and clients of the SDK: without a network, or over a port of this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.serving.core.byte_budget import ByteBudget
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.process.http_server import HttpServer
from paddle_ranker.serving.process.protocols import Acceptor
from tests.live_service import LoopThread
from tests.serving_cases import SECONDS
from tests.tiny import write_index, write_tower

ERAS = ("2025-11-25", "2026-07-28")  # the last revision with `initialize`, and the first without it
SUBJECTS = ("水稻", "老年人", "语言文化", "深度学习")
DOCUMENTS = [
    Document(f"d{n}", f"{one}研究", {"year": 2000 + n, "lang": "en" if n % 2 else "zh", "sku": f"a/{n}"})
    for n, one in enumerate(SUBJECTS)
]


def index_of(folder: Path, *more: Document) -> Path:
    return write_index(folder / "index", write_tower(folder / "tower"), [*DOCUMENTS, *more])


def mode_of(era: str) -> Any:
    """Return the mode of the SDK's client that speaks a revision."""
    return "legacy" if era == ERAS[0] else era


@asynccontextmanager
async def client_of(app: Any, era: str, **headers: str) -> AsyncIterator[Client]:
    """Connect the SDK's client to an application without a network."""
    async with (
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), headers=headers, timeout=SECONDS) as http,
        Client(streamable_http_client("http://127.0.0.1:8600/mcp", http_client=http), mode=mode_of(era)) as client,
    ):
        assert client.protocol_version == era
        yield client


def soon(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine; fail where that takes very long."""
    return asyncio.run(asyncio.wait_for(work, SECONDS))


class LiveApp(LoopThread):
    """An application at a port of 127.0.0.1, `url`, whose callers can leave. Use it in a `with`."""

    def __init__(self, app: Any) -> None:
        super().__init__()
        self._app = app

    async def start(self) -> None:
        self._connections = Connections(100, ByteBudget())
        self._http = await HttpServer(self._app, self._connections, SECONDS).start()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self._acceptor = Acceptor(listener, [(b"", self._http)], self._connections)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"

    async def stop(self) -> None:
        self._acceptor.close()
        await asyncio.gather(self._http.stop(SECONDS), self._connections.drain(SECONDS))
