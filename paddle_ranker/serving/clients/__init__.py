"""Clients of this project's server; `paddle_ranker.paddle_serving.clients` has those of Paddle Serving's protocols.

    from paddle_ranker.serving.clients import RerankClient

    with RerankClient("127.0.0.1", 8600) as client:
        titles = client.rank(query, titles)

| class | server | sends |
| --- | --- | --- |
| `RerankClient` | this project's server and others that have `/v1/rerank` | texts |
| `EmbeddingsClient` | this project's server of a tower and others that have `/v1/embeddings` | texts |
| `SearchClient` | this project's server of an index, `/v1/search` | queries, documents |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle_ranker.serving.clients.embeddings_client import EmbeddingsClient as EmbeddingsClient
    from paddle_ranker.serving.clients.http_client import RerankClient as RerankClient
    from paddle_ranker.serving.clients.search_client import SearchClient as SearchClient

_MODULES = {
    "EmbeddingsClient": "embeddings_client",
    "RerankClient": "http_client",
    "SearchClient": "search_client",
}
__all__ = ["EmbeddingsClient", "RerankClient", "SearchClient"]


def __getattr__(name: str) -> Any:
    """Import a client's module on first access: options of a teacher at a URL need no HTTP."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
