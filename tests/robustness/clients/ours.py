"""This project's own clients."""

from __future__ import annotations

import sys
from typing import Any

from paddle_ranker import __version__
from paddle_ranker.serving import clients
from paddle_ranker.serving.paddle.pipeline import PipelineNames
from tests.robustness.clients.given import Scores, run


def _score(given: dict[str, Any], client: Any) -> tuple[str, Scores]:
    with client:
        return __version__, [
            client.score([group["query"]] * len(group["titles"]), group["titles"]).tolist() for group in given["groups"]
        ]


def baidu_std(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send tokens, packed."""
    more = {"model_dir": given["serving_client"], "compression": "gzip"}
    return _score(given, clients.BaiduStdClient(given["host"], given["port"], **more))


def http(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send texts as JSON."""
    return _score(given, clients.HttpClient(given["host"], given["port"]))


def grpc(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send tokens."""
    return _score(given, clients.GrpcClient(given["host"], given["port"], model_dir=given["serving_client"]))


def pipeline_grpc(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send texts to the pipeline's service."""
    return _score(given, clients.PipelineClient(given["host"], given["port"]))


def pipeline_http(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send texts to the pipeline's gateway."""
    return _score(given, clients.PipelineClient(given["host"], given["port"], protocol="http"))


def rerank(given: dict[str, Any]) -> tuple[str, Scores]:
    """Rank the titles of each query."""
    with clients.RerankClient(given["host"], given["port"]) as client:
        return __version__, [client.score(group["query"], group["titles"]).tolist() for group in given["groups"]]


def _vectors(given: dict[str, Any], client: Any, has_queries: bool = True) -> tuple[str, Scores]:
    found = []
    with client:
        for group in given["groups"]:
            found.append(client.vectors(group["titles"]).tolist())
            if has_queries:
                found[-1] += client.vectors([group["query"]], is_query=True).tolist()
    return __version__, found


def vectors_baidu_std(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send tokens, for vectors."""
    return _vectors(given, clients.BaiduStdClient(given["host"], given["port"], model_dir=given["tower_client"]))


def vectors_http(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send texts as JSON, for vectors."""
    return _vectors(given, clients.HttpClient(given["host"], given["port"]))


def vectors_grpc(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send texts, for vectors."""
    return _vectors(given, clients.GrpcClient(given["host"], given["port"]))


def vectors_pipeline(given: dict[str, Any]) -> tuple[str, Scores]:
    """Send texts to the pipeline's service, that of the tower."""
    client = clients.PipelineClient(given["host"], given["port"], names=PipelineNames("tower"))
    return _vectors(given, client, has_queries=False)


VECTORS = (vectors_baidu_std, vectors_http, vectors_grpc, vectors_pipeline)

if __name__ == "__main__":
    sys.exit(run(baidu_std, http, grpc, pipeline_grpc, pipeline_http, rerank, *VECTORS))
