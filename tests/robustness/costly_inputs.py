"""Requests that cost a server far more than their bytes, where it reads before it counts. All are small once packed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.serving_client import http
from tests.robustness.fuzz_inputs import frame

UNPACKED = 15 * 1024 * 1024  # bytes, below --request_bytes
JSON, PROTO = "application/json", "application/proto"


class Attack(NamedTuple):
    """What is sent on one connection, and how many bytes it is once unpacked."""

    name: str
    data: bytes
    unpacked: int


def filled(begin: str, part: str, end: str, size: int = UNPACKED) -> bytes:
    """Return `begin`, as many of `part` as fit into `size` bytes, and `end`."""
    return (begin + part * ((size - len(begin) - len(end)) // len(part)) + end).encode()


def pipeline_value(begin: str, part: str, end: str, size: int = UNPACKED) -> bytes:
    """Return a request of the pipeline with one value."""
    value = filled(begin, part, end, size // 2).decode()
    return json.dumps({"key": ["0"], "value": [value]}).encode()


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


def packed_post(path: str, body: bytes, content_type: str = JSON) -> bytes:
    """Return an HTTP request whose body is packed with gzip."""
    return http(path, gzip.compress(body, 6), content_type, "Content-Encoding: gzip")


def attacks(size: int = UNPACKED) -> Iterator[Attack]:
    """Yield all that is sent whole."""
    for name, (path, content_type, body) in http_bodies(size).items():
        yield Attack(name, packed_post(path, body, content_type), len(body))
    tensors = b"\x0a\x00" * (size // 2)
    yield Attack("empty tensors, baidu_std", frame(tensors, compress_type=2), len(tensors))


def half_sent(protocol: str, size: int) -> bytes:
    """Return `size` bytes of a request that does not end: "http" or "baidu_std"."""
    whole = http("/v1/rerank", b" " * size) if protocol == "http" else frame(bytes(size))
    return whole[:size]
