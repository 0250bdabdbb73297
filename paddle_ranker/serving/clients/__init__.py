"""Clients of this project's server, and of Paddle Serving's C++ server and pipeline.

    from paddle_ranker.serving.clients import BaiduStdClient

    with BaiduStdClient("127.0.0.1", 8600, model_dir="output") as client:
        probabilities = client.score(queries, titles)

| class | server | sends |
| --- | --- | --- |
| `BaiduStdClient` | the C++ server, baidu_std | tokens |
| `HttpClient` | the C++ server, HTTP with JSON or protobuf | tokens |
| `GrpcClient` | the C++ server, gRPC | tokens |
| `PipelineClient` | the pipeline's server, gRPC or its HTTP gateway | texts |
| `RerankClient` | this project's server and others that have `/v1/rerank` | texts |
| `SearchClient` | this project's server of an index, `/v1/search` | queries, documents |

Without `model_dir` the first three send texts instead, which only this project's server accepts. All but `RerankClient`
and `SearchClient` also get vectors from a tower: `client.vectors(texts)`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paddle_ranker.serving.clients.baidu_std_client import BaiduStdClient as BaiduStdClient
    from paddle_ranker.serving.clients.grpc import GrpcClient as GrpcClient
    from paddle_ranker.serving.clients.http_client import HttpClient as HttpClient
    from paddle_ranker.serving.clients.http_client import RerankClient as RerankClient
    from paddle_ranker.serving.clients.pipeline_client import PipelineClient as PipelineClient
    from paddle_ranker.serving.clients.search_client import SearchClient as SearchClient

_MODULES = {
    "BaiduStdClient": "baidu_std_client",
    "GrpcClient": "grpc",
    "HttpClient": "http_client",
    "PipelineClient": "pipeline_client",
    "RerankClient": "http_client",
    "SearchClient": "search_client",
}
__all__ = ["BaiduStdClient", "GrpcClient", "HttpClient", "PipelineClient", "RerankClient", "SearchClient"]


def __getattr__(name: str) -> Any:
    """Import a client's module on first access, so that an HTTP client does not need grpcio."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
