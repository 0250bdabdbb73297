"""Requests that cost a server far more than their bytes, where it reads before it counts. All are small once packed."""

from __future__ import annotations

import gzip
import json
import random
import string
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.serving_client import http
from paddle_ranker.paddle_serving.messages import messages
from tests.robustness.fuzz_inputs import frame

UNPACKED = 15 * 1024 * 1024  # bytes, below --request_bytes
JSON, PROTO = "application/json", "application/proto"


PATH = b"/GeneralModelService/inference"
HEAD = b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# What has no end: how it begins, what goes on, and the status with which it is refused.
ENDLESS = {
    "a request line": (b"GET /", b"a", 431),
    "a name": (HEAD, b"a", 431),
    "a value": (HEAD + b"a: ", b"a", 431),
    "many fields": (HEAD, b"a:b\r\n", 431),
    "fields without a value": (HEAD, b"a:\r\n", 431),
    "empty lines": (b"", b"\r\n", 431),
    "trailers": (CHUNKED + b"1\r\n{\r\n0\r\n", b"a:b\r\n", 431),
    "a trailer": (CHUNKED + b"1\r\n{\r\n0\r\na:", b"b", 431),
    "an extension": (CHUNKED + b"1;", b"a", 431),
    "a size of zeros": (CHUNKED, b"0", 431),
    "a large size": (CHUNKED, b"f", 400),
    "no request": (b"", b"\x00", 400),
    "a request line with a fragment": (b"GET /#", b"#", 431),
}


class Attack(NamedTuple):
    """What is sent on some connections, how many bytes of each it is once unpacked, and whether answers are taken."""

    name: str
    data: bytes
    unpacked: int
    connections: int = 1
    is_taken: bool = True


def filled(begin: str, part: str, end: str, size: int = UNPACKED) -> bytes:
    """Return `begin`, as many of `part` as fit into `size` bytes, and `end`."""
    return (begin + part * ((size - len(begin) - len(end)) // len(part)) + end).encode()


def pipeline_value(begin: str, part: str, end: str, size: int = UNPACKED) -> bytes:
    """Return a request of the pipeline with one value."""
    value = filled(begin, part, end, size // 2).decode()
    return json.dumps({"key": ["0"], "value": [value]}).encode()


def documents_of(part: str, size: int) -> bytes:
    """Return a request with long documents that consist of `part`; "": of words that are all different."""
    longest = 99_000
    if part:
        document = part * (longest // len(part))
        documents = [document + str(number) for number in range(size // len(document.encode()))]
    else:
        generator = random.Random(0)
        words = ["".join(generator.choices(string.ascii_lowercase, k=98)) for _ in range(size // 99)]
        documents = [" ".join(words[first : first + 1000]) for first in range(0, len(words), 1000)]
    return json.dumps({"query": "a", "documents": documents}, ensure_ascii=False).encode()


def texts_of(size: int) -> bytes:
    """Return a request for the vectors of long texts whose words nobody has said."""
    asked = json.loads(documents_of("", size))
    return json.dumps({"input": asked["documents"]}).encode()


def long_documents(size: int) -> bytes:
    """Return a request that adds long documents, whose words nobody has said, and a last one that is refused."""
    asked = json.loads(documents_of("", size))
    given = [{"id": str(number), "text": text} for number, text in enumerate(asked["documents"])]
    return json.dumps({"documents": [*given, given[0]]}).encode()


def http_bodies(size: int = UNPACKED) -> dict[str, tuple[str, str, bytes]]:
    """Return path, content type and body by name."""
    pipeline, general, rerank = "/ernie/prediction", "/GeneralModelService/inference", "/v1/rerank"
    vectors = "/v1/embeddings"
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
        "characters that are dropped": (rerank, JSON, documents_of("\u0300", size)),
        "characters whose order matters": (rerank, JSON, documents_of("\u302f\u0901\u302e", size)),
        "words that nobody has said": (rerank, JSON, documents_of("", size)),
        "a long query of many texts": (
            "/rerank",
            JSON,
            json.dumps({"query": "深 " * 40_000, "texts": ["a"] * 1000}).encode(),
        ),
        "wrong texts for vectors": (vectors, JSON, filled('{"input":[', "[],", "[]]}", size)),
        "tokens for vectors": (vectors, JSON, filled('{"input":[', "1,", "1]}", size)),
        "empty texts for vectors": (vectors, JSON, filled('{"input":[', '"",', '""]}', size)),
        "long texts for vectors": (vectors, JSON, texts_of(size)),
        "a long search": ("/v1/search", JSON, json.dumps({"query": "深度 " * (size // 8), "rank_top": 3}).encode()),
        "a search of many conditions": (
            "/v1/search",
            JSON,
            filled('{"query":"a","where":{"year":[', "1,", "1]}}", size),
        ),
        "long documents for the index": ("/v1/documents", JSON, long_documents(size)),
        "empty tensors": (general, JSON, filled('{"tensor":[', "{},", "{}]}", size)),
        "numbers as floats": (general, JSON, filled('{"tensor":[{"float_data":[', "1,", "1]}]}", size)),
        "numbers as strings": (general, JSON, filled('{"tensor":[{"int64_data":[', '"1",', "1]}]}", size)),
        "empty tensors, protobuf": (general, PROTO, b"\x0a\x00" * (size // 2)),
        "packed numbers": (general, PROTO, messages().Request(tensor=[{"int64_data": [1] * size}]).SerializeToString()),
        "wrong pairs of posts": ("/v1/entailment", JSON, filled('{"pairs":[', "1,", "1]}", size)),
    }


def packed_post(path: str, body: bytes, content_type: str = JSON) -> bytes:
    """Return an HTTP request whose body is packed with gzip."""
    return http(path, gzip.compress(body, 6), content_type, "Content-Encoding: gzip")


def attacks(size: int = UNPACKED) -> Iterator[Attack]:
    """Yield all that is sent."""
    for name, (path, content_type, body) in http_bodies(size).items():
        yield Attack(name, packed_post(path, body, content_type), len(body))
    tensors = b"\x0a\x00" * (size // 2)
    yield Attack("empty tensors, baidu_std", frame(tensors, compress_type=2), len(tensors))
    packed = gzip.compress(documents_of("", size), 6)
    for _ in range(3):
        packed = gzip.compress(packed, 6)
    yield Attack("packed four times", http("/v1/rerank", packed, JSON, "Content-Encoding: gzip"), size)
    for name, (begin, part, _) in ENDLESS.items():
        yield Attack(f"without an end: {name}", begin + part * (size // 4 // len(part)), size // 4)
    yield Attack("halves of frames", frame(bytes(size))[: -size // 2], size // 2, 200, is_taken=False)
    whole = http("/v1/rerank", documents_of("a", size // 8))
    yield Attack("halves of requests", whole[: len(whole) // 2], len(whole), 200, is_taken=False)
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100
    yield Attack("answers that are not taken", asked, len(asked), 200, is_taken=False)
