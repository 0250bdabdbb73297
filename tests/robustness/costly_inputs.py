"""Requests that cost a server far more than their bytes, where it reads before it counts. All are small once packed."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import string
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.serving_client import http
from paddle_ranker.serving.paddle.messages import GENERAL_SERVICE, messages
from paddle_ranker.serving.process.relay import PREFACE
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
            filled('{"query":"a","filter":{"year":[', "1,", "1]}}", size),
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
    """Yield all that is sent whole."""
    for name, (path, content_type, body) in http_bodies(size).items():
        yield Attack(name, packed_post(path, body, content_type), len(body))
    tensors = b"\x0a\x00" * (size // 2)
    yield Attack("empty tensors, baidu_std", frame(tensors, compress_type=2), len(tensors))


def returned_texts(size: int, wide: bool = False) -> bytes:
    """Return a packed request whose answer holds its texts, of `size` bytes; `wide`: each with an escaped emoji."""
    text = "a" * 90_000 + ("\U0001f600" if wide else "")
    documents = [text] * max(1, size // len(text))
    return packed_post(
        "/v1/rerank", json.dumps({"query": "a", "documents": documents, "return_documents": True}).encode()
    )


_HEAD = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
_CALLS = 1000  # that are written in one go
# By name: what a connection begins with, what it sends again and again, and whether the port of HTTP alone takes it.
_SAME: dict[str, tuple[bytes, bytes, bool]] = {
    "a trailer without an end": (_CHUNKED + b"0\r\nX: ", b"a" * 60_000, True),
    "trailers": (_CHUNKED + b"0\r\n", b"X: a\r\n" * 10_000, True),
    "fields of a head": (_HEAD, b"X:\r\n" * 10_800, True),
    "tiny chunks": (_CHUNKED, b"1\r\n \r\n" * 10_000, True),
    "tiny requests": (b"", b"GET /live HTTP/1.1\r\nHost:\r\n\r\n" * 2000, True),
    "blank lines": (b"", b"\r\n" * 30_000, True),
    "nothing": (b"", b"", True),
    "unknown frames of HTTP/2": (PREFACE + _SETTINGS, b"\0\0\0\x7f\0\0\0\0\0" * 7000, False),
    "empty frames of HTTP/2": (PREFACE + _SETTINGS, _SETTINGS * 7000, False),
    "windows of HTTP/2": (PREFACE + _SETTINGS, b"\0\0\4\x08\0\0\0\0\0\0\0\0\1" * 5000, False),
    "tiny frames of baidu_std": (b"", (b"PRPC" + bytes(8)) * 5000, False),
}
ENDLESS = {**{name: on_both for name, (*_, on_both) in _SAME.items()}, "tiny calls of gRPC": False}


def endless(name: str) -> Iterator[bytes]:
    """Yield what a connection sends, one part after the other."""
    if name in _SAME:
        begin, part, _ = _SAME[name]
        yield begin
        while part:
            yield part
        return
    yield PREFACE + _SETTINGS
    for first in itertools.count(1, 2 * _CALLS):
        yield b"".join(_call(stream) for stream in range(first, first + 2 * _CALLS, 2))


def _call(stream: int) -> bytes:
    """Return a call with an empty message; its fields are written out (RFC 7541, 6.2.2)."""
    path = f"/{GENERAL_SERVICE}/inference".encode()
    fields = b"\x83\x86\x04" + bytes((len(path),)) + path
    for name, value in ((b"content-type", b"application/grpc"), (b"te", b"trailers"), (b":authority", b"x")):
        fields += b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value
    number = stream.to_bytes(4, "big")
    head = len(fields).to_bytes(3, "big") + b"\1\4" + number + fields
    return head + b"\0\0\5\0\1" + number + bytes(5)


def half_sent(protocol: str, size: int) -> bytes:
    """Return `size` bytes of a request that does not end: "http" or "baidu_std"."""
    whole = http("/v1/rerank", b" " * size) if protocol == "http" else frame(bytes(size))
    return whole[:size]
