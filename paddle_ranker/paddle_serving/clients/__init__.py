"""Clients of Paddle Serving's C++ server and pipeline, and of this project's server by their protocols.

    from paddle_ranker.paddle_serving.clients import BaiduStdClient

    with BaiduStdClient("127.0.0.1", 8600, model_dir="output") as client:
        probabilities = client.score(queries, titles)

| class | server | sends |
| --- | --- | --- |
| `BaiduStdClient` | the C++ server, baidu_std | tokens |
| `HttpClient` | the C++ server, HTTP with JSON or protobuf | tokens |
| `GrpcClient` | the C++ server, gRPC | tokens |
| `PipelineClient` | the pipeline's server, gRPC or its HTTP gateway | texts |

Without `model_dir` the first three send texts instead, which only this project's server accepts. All also get vectors
from a tower: `client.vectors(texts)`.
"""

from __future__ import annotations

from paddle_ranker.paddle_serving.clients.baidu_std_client import BaiduStdClient
from paddle_ranker.paddle_serving.clients.general_http import HttpClient
from paddle_ranker.paddle_serving.clients.grpc import GrpcClient
from paddle_ranker.paddle_serving.clients.pipeline_client import PipelineClient

__all__ = ["BaiduStdClient", "GrpcClient", "HttpClient", "PipelineClient"]
