"""Requests as they go over the wire, in each way of asking a server, and what its answers say.

`OK` is an answer with scores; every other one is called by the protocol's own number or name for what went wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_ranker.encoding.columns import Columns
from paddle_ranker.serving.paddle import baidu_std
from paddle_ranker.serving.paddle.json_messages import write_message
from paddle_ranker.serving.paddle.messages import GENERAL_SERVICE, PIPELINE_SERVICE, Message, messages

OK = "ok"
HTTP, BAIDU_STD, GRPC = "HTTP", "baidu_std", "gRPC"  # transports
_INFERENCE, _GATEWAY = "/GeneralModelService/inference", "/ernie/prediction"


def http(path: str, body: bytes, content_type: str = "application/json", *headers: str) -> bytes:
    """Return a valid HTTP request."""
    head = [f"POST {path} HTTP/1.1", "Host: ranker", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, *headers, "", ""]).encode() + body


@dataclass(frozen=True)
class Asked:
    """One query with its titles, as texts and as ids."""

    query: str
    titles: list[str]
    pairs: Columns
    pad_id: int

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and token types, `[titles, length]` int64 each."""
        input_ids, token_type_ids = self.pairs.pad(np.arange(len(self.pairs))).values()
        return input_ids, token_type_ids


@dataclass(frozen=True)
class Dialect:
    """A way of asking.

    write: a request's bytes; of gRPC the message
    read: what the body of an answer that is `OK` to the transport says, and the probabilities in it, `[titles]`
    method: of gRPC
    busy: what the server says of a request that is to come again
    """

    name: str
    transport: str
    write: Callable[[Asked], bytes]
    read: Callable[[bytes, int], tuple[str, np.ndarray]]
    busy: frozenset[str]
    method: str = ""


def _rerank(asked: Asked) -> bytes:
    body = json.dumps({"query": asked.query, "documents": asked.titles}, ensure_ascii=False)
    return http("/v1/rerank", body.encode())


def _read_rerank(body: bytes, count: int) -> tuple[str, np.ndarray]:
    return _by_index(json.loads(body)["results"], "relevance_score", count)


def _tei(asked: Asked) -> bytes:
    body = {"query": asked.query, "texts": asked.titles, "truncate": True}
    return http("/rerank", json.dumps(body, ensure_ascii=False).encode())


def _read_tei(body: bytes, count: int) -> tuple[str, np.ndarray]:
    return _by_index(json.loads(body), "score", count)


def _by_index(results: Sequence[dict[str, Any]], name: str, count: int) -> tuple[str, np.ndarray]:
    probabilities = np.full(count, np.nan)
    for result in results:
        probabilities[result["index"]] = result[name]
    return OK, probabilities


def _tokens(asked: Asked) -> Message:
    request = messages().Request(fetch_var_names=["predict"])
    for name, values in zip(("input_ids", "token_type_ids"), asked.arrays()):
        tensor = request.tensor.add(name=name, alias_name=name, elem_type=0, shape=values.shape)
        tensor.int64_data.extend(values.ravel().tolist())
    return request


def _texts(asked: Asked) -> Message:
    request = messages().Request(fetch_var_names=["predict"])
    request.tensor.add(name="query", elem_type=20, data=[asked.query], shape=[1])
    request.tensor.add(name="title", elem_type=20, data=asked.titles, shape=[len(asked.titles)])
    return request


def _json(asked: Asked) -> bytes:
    return http(_INFERENCE, write_message(_tokens(asked)))


def _read_json(body: bytes, count: int) -> tuple[str, np.ndarray]:
    [output] = json.loads(body)["outputs"]
    [tensor] = output["tensor"]
    return OK, np.array(tensor["float_data"])


def _proto(asked: Asked) -> bytes:
    return http(_INFERENCE, _texts(asked).SerializeToString(), "application/proto")


def _message(asked: Asked) -> bytes:
    return bytes(_tokens(asked).SerializeToString())


def _baidu_std(asked: Asked) -> bytes:
    meta = messages().RpcMeta(correlation_id=1)
    meta.request.service_name, meta.request.method_name = GENERAL_SERVICE, "inference"
    return baidu_std.write_frame(meta, _message(asked))


def _read_message(body: bytes, count: int) -> tuple[str, np.ndarray]:
    response = messages().Response.FromString(body)
    if response.err_no:
        return str(response.err_no), np.empty(0)
    return OK, np.array(response.outputs[0].tensor[0].float_data)


def _pipeline_message(asked: Asked) -> Message:
    values = [json.dumps({"query": asked.query, "title": title}, ensure_ascii=False) for title in asked.titles]
    return messages().PipelineRequest(key=[str(place) for place in range(len(values))], value=values)


def _pipeline(asked: Asked) -> bytes:
    return bytes(_pipeline_message(asked).SerializeToString())


def _read_pipeline(body: bytes, count: int) -> tuple[str, np.ndarray]:
    response = messages().PipelineResponse.FromString(body)
    return _printed(response.err_no, response.value)


def _gateway(asked: Asked) -> bytes:
    return http(_GATEWAY, write_message(_pipeline_message(asked)))


def _read_gateway(body: bytes, count: int) -> tuple[str, np.ndarray]:
    answer = json.loads(body)
    return _printed(answer.get("err_no", 0), answer.get("value", ()))


def _printed(number: int, values: Sequence[str]) -> tuple[str, np.ndarray]:
    if number:
        return str(number), np.empty(0)
    return OK, np.array(json.loads(values[0])).reshape(-1)


_HTTP_BUSY = frozenset({"429", "503"})
_GRPC_BUSY = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})
_RPC_BUSY = frozenset({"2003", "2004"})  # brpc: logged off, over a limit
_PIPELINE_BUSY = frozenset({"3001"})  # closed

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("rerank", HTTP, _rerank, _read_rerank, _HTTP_BUSY),
        Dialect("tei", HTTP, _tei, _read_tei, _HTTP_BUSY),
        Dialect("json", HTTP, _json, _read_json, _HTTP_BUSY),
        Dialect("proto", HTTP, _proto, _read_message, _HTTP_BUSY),
        Dialect("baidu_std", BAIDU_STD, _baidu_std, _read_message, _RPC_BUSY),
        Dialect("grpc", GRPC, _message, _read_message, _GRPC_BUSY, f"/{GENERAL_SERVICE}/inference"),
        Dialect("pipeline_http", HTTP, _gateway, _read_gateway, _PIPELINE_BUSY | _HTTP_BUSY),
        Dialect("pipeline_grpc", GRPC, _pipeline, _read_pipeline, _PIPELINE_BUSY, f"/{PIPELINE_SERVICE}/inference"),
    )
}
