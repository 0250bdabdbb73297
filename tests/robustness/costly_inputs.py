"""Requests that cost a server far more than their bytes, where it reads before it counts. All are small once packed."""

from __future__ import annotations

import gzip
import json
import random
import string
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.serving_client import http
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
        "characters that are dropped": (rerank, JSON, documents_of("\u0300", size)),
        "characters whose order matters": (rerank, JSON, documents_of("\u302f\u0901\u302e", size)),
        "words that nobody has said": (rerank, JSON, documents_of("", size)),
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


def returned_texts(size: int, wide: bool = False) -> bytes:
    """Return a packed request whose answer holds its texts, of `size` bytes; `wide`: each with an escaped emoji."""
    text = "a" * 90_000 + ("\U0001f600" if wide else "")
    documents = [text] * max(1, size // len(text))
    return packed_post(
        "/v1/rerank", json.dumps({"query": "a", "documents": documents, "return_documents": True}).encode()
    )


_HEAD = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\n"
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
# By name: what a connection begins with, what it sends again and again, and whether the port of HTTP alone takes it.
ENDLESS: dict[str, tuple[bytes, bytes, bool]] = {
    "a trailer without an end": (_CHUNKED + b"0\r\nX: ", b"a" * 60_000, True),
    "trailers": (_CHUNKED + b"0\r\n", b"X: a\r\n" * 10_000, True),
    "fields of a head": (_HEAD, b"X:\r\n" * 10_800, True),
    "tiny chunks": (_CHUNKED, b"1\r\n \r\n" * 10_000, True),
    "blank lines": (b"", b"\r\n" * 30_000, True),
    "nothing": (b"", b"", True),
    "unknown frames of HTTP/2": (PREFACE, b"\0\0\0\x7f\0\0\0\0\0" * 7000, False),
    "empty frames of HTTP/2": (PREFACE + b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\0\0\0\0\0" * 7000, False),
}


def half_sent(protocol: str, size: int) -> bytes:
    """Return `size` bytes of a request that does not end: "http" or "baidu_std"."""
    whole = http("/v1/rerank", b" " * size) if protocol == "http" else frame(bytes(size))
    return whole[:size]
