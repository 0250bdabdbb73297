"""Requests that are nearly right: mutations of valid frames, messages, HTTP requests and JSON bodies."""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from PIL import Image

from benchmarks.serving_client import http
from multimodal_entailment.plugin import PATH as ENTAILMENT_PATH
from paddle_ranker.paddle_serving import baidu_std
from paddle_ranker.paddle_serving.json_messages import write_message
from paddle_ranker.paddle_serving.messages import GENERAL_SERVICE, Message, messages

TITLES = ("深度学习", "b c d", "")
INTEGERS = (0, 1, -1, 2, 7, 127, 128, 255, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63))
VALUES: tuple[Any, ...] = (
    *(None, True, [], {}, [[]], "", "x" * 300, "\ud800", "\x00", "NaN", 0.5, 1e308, -1, 2**31, 2**63, 2**64),
    *([[[[[[[[1]]]]]]]], {"a": {"a": {"a": 1}}}, ["x"] * 50, [1.5], [-1], [2**40]),
)


def good_request() -> Message:
    """Return a valid Request of texts."""
    request = messages().Request(fetch_var_names=["predict"], log_id=3)
    request.tensor.add(name="query", elem_type=20, data=["深度"])
    request.tensor.add(name="title", elem_type=20, data=list(TITLES), shape=[len(TITLES)])
    return request


def token_request() -> Message:
    """Return a valid Request of tokens, with ids that every vocabulary has."""
    request = messages().Request()
    for name, values in (("input_ids", [1, 3, 2, 4, 2, 1, 3, 2, 2, 0]), ("token_type_ids", [0, 0, 0, 1, 1] * 2)):
        request.tensor.add(name=name, alias_name=name, int64_data=values, shape=[2, 5])
    return request


def frame(payload: bytes, **fields: Any) -> bytes:
    """Return a valid baidu_std frame around a payload."""
    meta = messages().RpcMeta(correlation_id=5, **fields)
    meta.request.service_name, meta.request.method_name = GENERAL_SERVICE, "inference"
    meta.request.timeout_ms = 5000
    return baidu_std.write_frame(meta, payload)


def _packed(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(body) + packer.flush()


def picture() -> bytes:
    """Return a PNG."""
    data = io.BytesIO()
    Image.linear_gradient("L").resize((12, 8)).convert("RGB").save(data, "PNG")
    return data.getvalue()


def form(fields: Mapping[str, bytes]) -> bytes:
    """Return a valid HTTP request with a form, whose fields named `image_...` are files."""
    parts = []
    for name, value in fields.items():
        file = '; filename="x.png"\r\nContent-Type: image/png' if name.startswith("image") else ""
        head = f'--boundary\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + value + b"\r\n")
    return http(ENTAILMENT_PATH, b"".join(parts) + b"--boundary--\r\n", "multipart/form-data; boundary=boundary")


INFERENCE, GATEWAY = "/GeneralModelService/inference", "/ernie/prediction"
RERANK = {"query": "深度", "documents": ["深度学习", {"text": "b"}], "top_n": 2, "return_documents": True, "model": "m"}
TEI = {"query": "深度", "texts": ["深度学习", "b"], "raw_scores": False, "return_text": True, "truncate": True}
EMBEDDINGS = {
    "input": ["深度学习", ""],
    "input_type": "query",
    "encoding_format": "base64",
    "dimensions": 8,
    "model": "m",
}
EMBED = {"inputs": ["深度学习", "b"], "truncate": True, "prompt_name": "query", "normalize": True, "dimensions": 8}
SEARCH = {
    "query": "深度学习",
    "top_k": 2,
    "offset": 1,
    "cursor": "",
    "depth": 5,
    "rank_top": 2,
    "by": ["words", "vectors"],
    "fusion": "rrf",
    "where": {"lang": "zh", "year": {"gte": 2020, "in": [2020, 2021]}},
    "fields": ["text", "year"],
    "explain": True,
    "min_probability": 0.1,
}
ADDED = {"documents": [{"id": "f1", "text": "深度学习", "fields": {"year": 1, "lang": "x"}}, {"id": "f2", "text": "b"}]}
# Ids of searches are signed: `makers` takes that of an answer, so that feedback is refused for its mutation alone.
SAID = {"search_id": "0123456789abcdef-0123456789abcdef01234567", "query": "深度", "id": "f1", "position": 1}
PIPELINE = {"key": ["0", "1"], "value": ['{"query": "深度", "title": "学"}', "{'query': 'a', 'title': \"b\"}"]}


def mutated_bytes(data: bytes, dice: random.Random) -> bytes:
    """Change some bytes: flips, deletions, insertions, repeats, numbers at the edges, an end that comes too soon."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        if not changed:
            break
        place = dice.randrange(len(changed))
        span = slice(place, place + dice.choice((1, 1, 2, 4, 16)))
        kind = dice.randrange(7)
        if kind == 0:
            changed[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del changed[span]
        elif kind == 2:
            changed[place:place] = dice.randbytes(dice.choice((1, 2, 8, 64)))
        elif kind == 3:
            changed[place:place] = changed[span] * dice.choice((1, 3, 30))
        elif kind == 4:
            changed[place : place + 4] = struct.pack(dice.choice((">I", "<I")), dice.choice(INTEGERS) & 0xFFFFFFFF)
        elif kind == 5 and dice.random() < 0.3:
            del changed[place:]
        else:
            changed[place] = dice.randrange(256)
    return bytes(changed)


def mutated_json(value: Any, dice: random.Random) -> Any:
    """Return a copy with some values replaced, removed, repeated or moved under other keys."""
    changed = copy.deepcopy(value)
    for _ in range(dice.randint(1, 3)):
        places = list(_places(changed))
        if not places:
            break
        holder, key = dice.choice(places)
        kind = dice.randrange(4)
        if kind == 0 and isinstance(holder, dict):
            holder[dice.choice(("", "query", "documents", "texts", "tensor", "\u0000"))] = holder.pop(key)
        elif kind == 1:
            del holder[key]
        elif kind == 2 and isinstance(holder, list):
            holder.extend(copy.deepcopy(holder[key : key + 1]) * dice.choice((1, 40)))
        else:
            holder[key] = copy.deepcopy(dice.choice(VALUES))
    return changed


def _places(value: Any) -> Any:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)


def mutated_message(message: Message, dice: random.Random) -> Message:
    """Return a copy that is still a message, with fields that say something else."""
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(dice.randint(1, 3)):
        if not changed.tensor:
            break
        tensor = dice.choice(changed.tensor)
        edge = dice.choice(INTEGERS)
        kind = dice.randrange(9)
        if kind == 0:
            del tensor.shape[:]
            tensor.shape.extend(max(-(2**31), min(2**31 - 1, dice.choice(INTEGERS))) for _ in range(dice.randrange(4)))
        elif kind == 1:
            tensor.elem_type = dice.choice((0, 1, 2, 3, 9, 20, 21, -1))
        elif kind == 2:
            tensor.int64_data.append(max(-(2**63), min(2**63 - 1, edge)))
        elif kind == 3 and tensor.int64_data:
            tensor.int64_data[dice.randrange(len(tensor.int64_data))] = max(-(2**63), min(2**63 - 1, edge))
        elif kind == 4:
            tensor.name = dice.choice(("query", "title", "input_ids", "token_type_ids", "", "x" * 100))
        elif kind == 5:
            tensor.tensor_content = dice.randbytes(dice.choice((1, 8, 80)))
        elif kind == 6:
            changed.tensor.add().CopyFrom(tensor)
        elif kind == 7:
            changed.fetch_var_names.append(dice.choice(("predict", "logit", "sigmoid_2.tmp_0", "softmax", "")))
        else:
            tensor.data.append(dice.choice(("", "\x00", "深" * 3000)))
    return changed


def posts_of(image: bytes) -> dict[str, str]:
    """Return a valid request for a judgment of two posts, one of them with an image."""
    return {"text_1": "深度", "text_2": "学习", "image_1": base64.b64encode(image).decode()}


def text_request() -> Message:
    """Return a request for the vectors of texts."""
    request = messages().Request(fetch_var_names=["output_embedding"])
    request.tensor.add(name="text", elem_type=20, shape=[len(TITLES)], data=list(TITLES))
    return request


def _addressed(dice: random.Random) -> bytes:
    """Return a GET of a search, a document or the pairs to judge, with parameters that are nearly right."""
    value = mutated_json(SEARCH, dice)
    pairs = value.items() if isinstance(value, dict) else ()
    given = "&".join(f"{name}={quote(str(one), errors='replace')}" for name, one in pairs)
    path = dice.choice(
        (
            *(f"/v1/search?q=a&{given}", f"/v1/documents/{given}", f"/v1/judge?offset={given[:5]}", "/v1/index"),
            f"/v1/suggest?q={given}",
        )
    )
    return mutated_bytes(f"GET {path} HTTP/1.1\r\nHost: ranker\r\n\r\n".encode(), dice)


def makers(said: Mapping[str, Any] = SAID) -> dict[str, Callable[[random.Random], bytes]]:
    """Return, by name, what makes a request that is nearly right from a generator of chances.

    said: search_id, query, id and position of a hit of the server's own answer, for feedback
    """
    texts, tokens, image = good_request(), token_request(), picture()
    posts = posts_of(image)
    payloads = [texts.SerializeToString(), tokens.SerializeToString()]
    frames = [frame(payload) for payload in payloads] + [frame(payloads[0], compress_type=2)]
    as_json = json.loads(write_message(texts)), json.loads(write_message(tokens))
    requests = [
        http(INFERENCE, write_message(texts)),
        http(INFERENCE, payloads[0], "application/proto"),
        http(INFERENCE, _packed(write_message(texts)), "application/json", "Content-Encoding: gzip"),
        http("/v1/rerank", json.dumps(RERANK).encode()),
    ]

    def one_of(made: Sequence[bytes]) -> Callable[[random.Random], bytes]:
        return lambda dice: mutated_bytes(dice.choice(made), dice)

    def bodies(path: str, values: Sequence[Any]) -> Callable[[random.Random], bytes]:
        def make(dice: random.Random) -> bytes:
            value = dice.choice(values)
            if dice.random() < 0.5:  # JSON that says something else
                return http(path, json.dumps(mutated_json(value, dice)).encode("utf-8", "surrogatepass"))
            return http(path, mutated_bytes(json.dumps(value, ensure_ascii=False).encode(), dice))

        return make

    def images(dice: random.Random) -> bytes:
        damaged = mutated_bytes(image, dice)
        if dice.random() < 0.5:
            return http(ENTAILMENT_PATH, json.dumps(posts_of(damaged)).encode())
        return form({"text_1": b"a", "text_2": b"b", "image_1": image, "image_2": damaged})

    def message(dice: random.Random) -> bytes:
        return mutated_message(dice.choice((texts, tokens)), dice).SerializeToString()

    removed = bodies("/v1/documents", [{"ids": ["f1", "f3"]}])
    return {
        "baidu_std frames": one_of(frames),
        "protobuf in a frame": lambda dice: frame(mutated_bytes(dice.choice(payloads), dice)),
        "messages in a frame": lambda dice: frame(message(dice)),
        "HTTP requests": one_of(requests),
        "protobuf over HTTP": lambda dice: http(INFERENCE, message(dice), "application/x-protobuf"),
        "JSON, inference": bodies(INFERENCE, as_json),
        "JSON, pipeline": bodies(GATEWAY, [PIPELINE]),
        "JSON, rerank": bodies("/v1/rerank", [RERANK]),
        "JSON, rerank (TEI)": bodies("/rerank", [TEI, RERANK]),
        "JSON, embeddings": bodies("/v1/embeddings", [EMBEDDINGS, {**EMBEDDINGS, "input": "深度"}]),
        "JSON, embed (TEI)": bodies("/embed", [EMBED]),
        "JSON, search": bodies("/v1/search", [SEARCH, {"query": "深度" * 40, "rank_top": 3}]),
        "JSON, documents": bodies("/v1/documents", [ADDED, {**ADDED, "mode": "add"}]),
        "JSON, documents to remove": lambda dice: b"DELETE" + removed(dice)[len("POST") :],
        "JSON, feedback": bodies(
            "/v1/feedback", [{**said, "event": "judged", "label": 1}, {**said, "event": "click", "dwell_ms": 5}]
        ),
        "addresses of a search": _addressed,
        "JSON, pipeline of a tower": bodies("/tower/prediction", [{"key": ["0", "1"], "value": list(TITLES[:2])}]),
        "tensors for vectors": bodies(INFERENCE, [json.loads(write_message(text_request()))]),
        "JSON, entailment": bodies(ENTAILMENT_PATH, [posts, {"pairs": [posts, {"text_1": "a", "text_2": ""}]}]),
        "forms, entailment": one_of([form({"text_1": b"a", "text_2": b"b", "image_2": image})]),
        "images, entailment": images,
    }
