"""Parts that the peers' servers share: the request of `/v1/rerank`, and uvicorn on a free port, which is printed."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Optional

import uvicorn
from pydantic import BaseModel

MAX_SEQ_LENGTH = 128


class RerankRequest(BaseModel):
    """A query and its titles."""

    query: str
    documents: list[str]
    top_n: Optional[int] = None


def results(probabilities: list[float], top_n: Optional[int]) -> dict[str, Any]:
    """Return the answer's JSON object, with the best `top_n` titles first; None means all."""
    best = sorted(range(len(probabilities)), key=lambda place: -probabilities[place])
    return {"results": [{"index": i, "relevance_score": probabilities[i]} for i in best[:top_n]]}


def serve(app: Any) -> None:
    """Serve until a signal ends the server; print the address once requests are answered."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    # uvloop and httptools, as `uvicorn[standard]` installs them.
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, loop="uvloop", http="httptools"))

    async def run() -> None:
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        print(f"serving on http://127.0.0.1:{port}", flush=True)
        await serving

    import uvloop

    uvloop.install()
    asyncio.run(run())
