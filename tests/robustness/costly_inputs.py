"""Requests that cost a server far more than their bytes, where it reads before it counts. All are small once packed."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from typing import NamedTuple

from paddle_ranker.serving.paddle import baidu_std
from paddle_ranker.serving.paddle.messages import GENERAL_SERVICE, messages

UNPACKED = 15 * 1024 * 1024  # bytes, below --request_bytes
JSON, PROTO = "application/json", "application/proto"
_HEAD = "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}\r\n"


class Attack(NamedTuple):
    """What is sent on one connection, and how many bytes it is once unpacked."""

    name: str
    data: bytes
    unpacked: int


def post(path: str, body: bytes, content_type: str = JSON, packed: bool = True) -> bytes:
    """Return an HTTP request; its body is packed with gzip unless told otherwise."""
    sent = gzip.compress(body, 6) if packed else body
    encoding = "Content-Encoding: gzip\r\n" if packed else ""
    return _HEAD.format(path, content_type, len(sent), encoding).encode() + sent


def filled(begin: str, part: str, end: str, size: int = UNPACKED) -> bytes:
    """Return `begin`, as many of `part` as fit into `size` bytes, and `end`."""
    return (begin + part * ((size - len(begin) - len(end)) // len(part)) + end).encode()


def pipeline_value(begin: str, part: str, end: str, size: int = UNPACKED) -> bytes:
    """Return a request of the pipeline with one value."""
    value = filled(begin, part, end, size // 2).decode()
    return json.dumps({"key": ["0"], "value": [value]}).encode()


def frame(payload: bytes, **meta_fields: int) -> bytes:
    """Return a baidu_std frame of a request."""
    meta = messages().RpcMeta(correlation_id=1, **meta_fields)
    meta.request.service_name, meta.request.method_name = GENERAL_SERVICE, "inference"
    return baidu_std.write_frame(meta, payload)


def http_bodies(size: int = UNPACKED) -> dict[str, tuple[str, str, bytes]]:
    """Return path, content type and body by name."""
    pipeline, general, rerank = "/ernie/prediction", "/GeneralModelService/inference", "/v1/rerank"
    keys = json.dumps({"key": [str(n) for n in range(size // 40)], "value": ["{}"] * (size // 40)}).encode()
    return {
        "a printed dictionary": (pipeline, JSON, pipeline_value("{'query': '", "\\\\", "'}", size)),
        "one that does not end": (pipeline, JSON, pipeline_value("{'query': '", "\\'", "}", size)),
        "long numbers": (pipeline, JSON, pipeline_value('{"query": [', "1" * 399 + ",", "]}", size)),
        "keys of the pipeline": (pipeline, JSON, keys),
        "pairs of one value": (pipeline, JSON, pipeline_value("[", '{"query":"a","title":"b"},', "0]", size)),
        "wrong documents": (rerank, JSON, filled('{"query":"a","documents":[', "1,", "1]}", size)),
        "empty documents": (rerank, JSON, filled('{"query":"a","documents":[', "{},", "{}]}", size)),
        "wrong texts": ("/rerank", JSON, filled('{"query":"a","texts":[', "1,", "1]}", size)),
        "a long query of many texts": (
            "/rerank",
            JSON,
            json.dumps({"query": "深 " * 40_000, "texts": ["a"] * 1000}).encode(),
        ),
        "empty tensors": (general, JSON, filled('{"tensor":[', "{},", "{}]}", size)),
        "numbers as floats": (general, JSON, filled('{"tensor":[{"float_data":[', "1,", "1]}]}", size)),
        "numbers as strings": (general, JSON, filled('{"tensor":[{"int64_data":[', '"1",', "1]}]}", size)),
        "empty tensors, protobuf": (general, PROTO, b"\x0a\x00" * (size // 2)),
        "wrong pairs of posts": ("/v1/entailment", JSON, filled('{"pairs":[', "1,", "1]}", size)),
    }


def attacks(size: int = UNPACKED) -> Iterator[Attack]:
    """Yield all that is sent whole."""
    for name, (path, content_type, body) in http_bodies(size).items():
        yield Attack(name, post(path, body, content_type), len(body))
    tensors = b"\x0a\x00" * (size // 2)
    yield Attack("empty tensors, baidu_std", frame(tensors, compress_type=2), len(tensors))


def half_sent(protocol: str, size: int) -> bytes:
    """Return `size` bytes of a request that does not end: "http" or "baidu_std"."""
    if protocol == "http":
        return (_HEAD.format("/v1/rerank", JSON, size + 1, "").encode()).ljust(size, b" ")
    meta = messages().RpcMeta(correlation_id=1)
    meta.request.service_name, meta.request.method_name = GENERAL_SERVICE, "inference"
    head = meta.SerializeToString()
    return (struct.pack(">4sII", baidu_std.MAGIC, size + 1, len(head)) + head).ljust(size, b"\x00")
