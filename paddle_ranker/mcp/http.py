"""The protocol over HTTP: one POST for each message, in any worker, without sessions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Optional

from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from paddle_ranker.mcp.protocol import make_server
from paddle_ranker.mcp.tools import SearchTools, ToolCall
from paddle_ranker.serving.core.json_text import JsonBounds, check_json
from paddle_ranker.serving.core.threads import run_in_thread
from paddle_ranker.serving.http.admin import address_of
from paddle_ranker.serving.http.exchange import deadline_of, read_body, refuse_parameters, reserve_of
from paddle_ranker.serving.slots.slots import Slots

if TYPE_CHECKING:
    from mcp.server import Server

MOST_BYTES = 64 * 1024  # of a message, which the SDK parses on the event loop
_BOUNDS = JsonBounds(structures=2000, values=2000)


class AssistantApp:
    """ASGI application that answers messages by the SDK's server.

    The bounds of all routes hold before the SDK sees a byte: the middleware has checked host, origin and key, the body
    is read within `MOST_BYTES` and the byte budget, and its JSON is counted.

    Args:
        server: see `make_server`.
    """

    def __init__(self, server: Server):
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        self._manager = partial(StreamableHTTPSessionManager, server, json_response=True, stateless=True)

    @classmethod
    def of(cls, slots: Slots, url: Optional[str], *, keep_texts: bool = False) -> AssistantApp:
        """Return the application for the index of a server; see `SearchTools`."""
        return cls(make_server(SearchTools(slots, url, keep_texts=keep_texts), _circumstances))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        request = Request(scope, receive)
        refuse_parameters(request)
        body = await read_body(request, MOST_BYTES)
        await run_in_thread(len(body), check_json, body, _BOUNDS, deadline=deadline_of(request))
        # The body is unpacked, and as long as it is.
        headers = [field for field in scope["headers"] if field[0] not in (b"content-encoding", b"content-length")]
        # A manager is made for each request, and ends with it: if the caller leaves, so does the work for it.
        manager = self._manager()
        async with manager.run():
            await manager.handle_request({**scope, "headers": headers}, _replayed(body, receive), send)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that has been read, and then what comes after it."""
    unread = [body]

    async def replay() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return replay


def _circumstances(request: Request) -> ToolCall:
    state = request.scope["state"]
    return ToolCall(deadline_of(request), address_of(request), reserve_of(request), state)
