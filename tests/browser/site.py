"""The page on the project's own HTTP server, with a made-up search behind it, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Callable, Optional

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.faults import NOT_FOUND, UNAVAILABLE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.http import page
from paddle_ranker.serving.http.middleware import Middleware
from paddle_ranker.serving.http.page_look import PageLook
from paddle_ranker.serving.process.http_server import HttpServer
from paddle_ranker.serving.process.protocols import Acceptor
from paddle_ranker.serving.process.worker import with_origins
from tests.browser.made_up import INDEX, TEXTS, answer, highlights_of, snippet_of, suggestions_of
from tests.live_service import SECONDS, LoopThread

Changed = Callable[[dict[str, Any]], dict[str, Any]]


class Site(LoopThread):
    """A server of the page. Use it in a `with`.

    Attributes:
        address: where it is.
        asked: bodies of the searches that came, in order.
        feedback: bodies of the feedback that came, in order.
        index: what `GET /v1/index` answers; a test may change it.
        change: called with every answer, for answers of another kind.
        change_pair: called with every pair to judge.
        fault: raised instead of an answer.
        look: the look of the page, from the next start on.
        origins: sites whose pages may search here, from the next start on.
        held: queries, and paths, whose answers wait until `release`.
    """

    def __init__(self, api_key: Optional[str] = None, search_key: Optional[str] = None) -> None:
        super().__init__()
        self._api_key, self._search_key, self.port = api_key, search_key, 0
        self.reset()

    def reset(self) -> None:
        """Forget what came, and answer as at the start."""
        self.asked: list[dict[str, Any]] = []
        self.feedback: list[dict[str, Any]] = []
        self.index: dict[str, Any] = dict(INDEX)
        self.labels: list[Any] = [0, 1, 2, 3]
        self.change: Changed = lambda content: content
        self.change_pair: Changed = lambda pair: pair
        self.fault: Optional[Fault] = None
        self.look = PageLook()
        self.origins: tuple[str, ...] = ()
        self.documents: dict[str, dict[str, Any]] = {}  # of the answers, by id
        self.starting = 0  # how often GET /v1/index is answered by 503
        self.held: dict[str, asyncio.Event] = {}

    def start_again(self) -> None:
        """Listen at the same port as before `leave`."""
        self.run(self.start())

    def leave(self) -> None:
        """Stop listening, and close all connections."""
        self.run(self.stop())

    def hold(self, what: str) -> None:
        """Let answers to this query, or `/v1/index` or `/v1/feedback`, wait until `release`.

        A browser's own interception begins some time after it is asked for: what the page sends meanwhile passes it.
        """

        async def close() -> None:
            self.held[what] = asyncio.Event()

        self.run(close())

    def release(self, what: str) -> None:
        self._loop.call_soon_threadsafe(self.held.pop(what).set)

    async def _wait(self, what: str) -> None:
        if what in self.held:
            await self.held[what].wait()

    def app(self) -> ASGIApp:
        """Return what answers: the page's files, and a made-up search behind them."""
        routes = [
            *page.routes(self.look),
            Route("/v1/search", self._search, methods=["GET", "POST"]),
            Route("/v1/index", self._show_index),
            Route("/v1/documents/{id:path}", self._document),
            Route("/v1/suggest", self._suggest),
            Route("/v1/feedback", self._take_feedback, methods=["POST"]),
            Route("/v1/judge", self._pairs),
        ]
        config = ServeConfig(api_key=self._api_key, search_key=self._search_key)
        return with_origins(Middleware(Router(routes), Metrics(), config), self.origins)

    async def start(self) -> None:
        self._connections = Connections(100)
        self._http = await HttpServer(self.app(), self._connections).start()
        listener = socket.create_server(("127.0.0.1", self.port))
        listener.setblocking(False)
        self._acceptor = Acceptor(listener, [(b"", self._http)], self._connections)
        self.port = int(listener.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        self._acceptor.close()
        for gate in self.held.values():
            gate.set()
        await asyncio.gather(self._http.stop(SECONDS), self._connections.drain(SECONDS))

    async def _search(self, request: Request) -> Response:
        of_address: dict[str, Any] = {**request.query_params, "query": request.query_params.get("q", "")}
        asked = json.loads(await request.body()) if request.method == "POST" else of_address
        self.asked.append(asked)
        if self.fault is not None:
            raise self.fault
        unknown = (asked.get("where") or {}).keys() - self.index["fields"].keys()
        if unknown:
            raise Fault(UNPROCESSABLE, f"no field {min(unknown)}; there are kind, year", field="where")
        await self._wait(asked["query"])
        content = self.change(answer(asked, f"search-{len(self.asked)}"))
        for part in ("hits", "dropped"):  # a test's change is of whole texts
            if isinstance(content.get(part), list):
                self.documents.update((one["id"], one) for one in content[part] if _is_document(one))
                cut = [snippet_of(one, asked.get("snippet")) if isinstance(one, dict) else one for one in content[part]]
                content = {**content, part: cut}
        return _json(content)

    async def _document(self, request: Request) -> Response:
        id = request.path_params["id"]
        if id not in self.documents:
            raise Fault(NOT_FOUND, "there is no such document")
        document = self.documents[id]
        return _json({"id": id, "text": document["text"], "fields": document.get("fields", {}), "version": "1"})

    async def _show_index(self, request: Request) -> Response:
        await self._wait("/v1/index")
        if self.starting:
            self.starting -= 1
            raise Fault(UNAVAILABLE, "the index is not loaded yet", retry_after=1)
        return _json(self.index)

    async def _suggest(self, request: Request) -> Response:
        return _json({"suggestions": suggestions_of(request.query_params["q"])})

    async def _take_feedback(self, request: Request) -> Response:
        if not self.index["logging"]:
            raise Fault(NOT_FOUND, "nothing is logged")
        if self.fault is not None:
            raise self.fault
        await self._wait("/v1/feedback")
        self.feedback.append(json.loads(await request.body()))
        return _json({"logged": True})

    async def _pairs(self, request: Request) -> Response:
        if not self.index["logging"]:
            raise Fault(NOT_FOUND, "nothing is logged")
        query = "苹果手机价格"
        done = {one["id"] for one in self.feedback if one["event"] != "unjudged"}
        done -= {one["id"] for one in self.feedback if one["event"] == "unjudged"}
        texts = [(f"doc-{number}", text) for number, text in enumerate(TEXTS[:6]) if f"doc-{number}" not in done]
        pairs = [
            {
                "search_id": "search-1", "query": query, "id": id, "position": place, "text": text.text,
                "fields": {"kind": text.kind, "year": text.year}, "highlights": highlights_of(query, text.text),
                "stages": {"fused": {"rank": 9 - place}, "ranked": {"rank": place}}, "disagreement": 9 - 2 * place,
            }
            for place, (id, text) in enumerate(texts, 1)
        ]  # fmt: skip
        offset = int(request.query_params["offset"])
        return _json(
            {
                "labels": self.labels,
                "pairs": [self.change_pair(pair) for pair in pairs[offset : offset + 3]],
                "judged": len(done),
                "left": len(pairs),
            }
        )


def _is_document(hit: object) -> bool:
    return isinstance(hit, dict) and isinstance(hit.get("id"), str) and isinstance(hit.get("text"), str)


def _json(content: object) -> Response:
    return Response(json.dumps(content, ensure_ascii=False).encode(), headers={"content-type": "application/json"})
