"""What the Model Context Protocol adds to the server; importing this module registers it, and is fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from paddle_ranker.mcp.options import AssistantOptions, assistant_options
from paddle_ranker.serving.core.faults import INTERNAL, NOT_FOUND, Fault
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.http.endpoints import ENDPOINTS, Endpoint
from paddle_ranker.serving.slots.index_options import INDEX
from paddle_ranker.serving.slots.slot_kinds import SERVE_OPTIONS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from paddle_ranker.serving.slots.slots import Slots

_PATH = "/mcp"
_INVALID_REQUEST, _INTERNAL_ERROR = -32600, -32603  # of JSON-RPC


class _Assistants(Endpoint):
    """The protocol over HTTP. Pages of other sites may not use it, as its path is no `read_paths`."""

    slots = (INDEX,)
    paths: ClassVar[Mapping[str, str]] = {_PATH: "mcp"}

    def announced(self, config: ServeConfig) -> Mapping[str, str]:
        return {"assistants (MCP)": _PATH} if assistant_options(config).mcp else {}

    def routes(self, slots: Slots, config: ServeConfig) -> list[BaseRoute]:
        from starlette.routing import Route

        options = assistant_options(config)
        if not options.mcp:
            return [Route(_PATH, _switched_off, methods=self.methods)]
        from paddle_ranker.mcp.http import AssistantApp

        app = AssistantApp.of(slots, options.url, keep_texts=config.log_texts)
        return [Route(_PATH, app, methods=self.methods)]

    def refusal(self, fault: Fault, request_id: str) -> dict[str, object]:
        """Convert a fault to an error of JSON-RPC, which clients of the protocol show their users."""
        code = _INTERNAL_ERROR if fault.kind is INTERNAL else _INVALID_REQUEST
        data = {"error_type": fault.kind.name, "request_id": request_id}
        return {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": str(fault), "data": data}}


async def _switched_off(request: Request) -> Response:
    raise Fault(NOT_FOUND, "this server does not answer assistants: start it with --mcp")


SERVE_OPTIONS.add("mcp", AssistantOptions)
ENDPOINTS.add("mcp", _Assistants())
