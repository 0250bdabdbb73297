"""GeneralModelService, for any protocol: takes a Request of tensors or texts, returns a Response of scores."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np

from paddle_ranker.errors import quoted
from paddle_ranker.serving.core.apart import apart
from paddle_ranker.serving.core.faults import INVALID, Fault
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.scores import Scores, ScoringService
from paddle_ranker.serving.paddle.messages import Message, messages

MOST_FIELDS = 1000  # of a Request: two tensors, the names of what is fetched, and what a later client may add
ENGINE_NAME = "GeneralInferOp_0"
PROBABILITY = "sigmoid_2.tmp_0"  # the variable of the exported model; its alias is "predict"
TOKENS = ("input_ids", "token_type_ids")
TEXTS = ("query", "title")
_FETCHED = {"predict": (PROBABILITY, "predict"), PROBABILITY: (PROBABILITY, "predict"), "logit": ("logit", "logit")}
INT64, FLOAT32, INT32, STRING = 0, 1, 2, 20  # elem_type
# By elem_type: the field that may hold the elements, and their NumPy type (little-endian) in tensor_content.
_INTEGERS = {INT64: ("int64_data", "<i8"), INT32: ("int_data", "<i4")}
_DATA_FIELDS = (
    "int64_data",
    "float_data",
    "int_data",
    "float64_data",
    "uint32_data",
    "bool_data",
    "complex64_data",
    "complex128_data",
    "data",
    "tensor_content",
)


async def infer(request: Message, service: ScoringService, *, deadline: Optional[float] = None) -> Message:
    """Return the Response to a Request.

    It feeds, by name or alias, either `input_ids` and `token_type_ids`, int64 or int32 `[n, length]`, or `query` and
    `title`, n strings each, or one query for all titles. It fetches `predict` or `sigmoid_2.tmp_0`, both the
    probability, or `logit`; if it fetches nothing, it gets the probability. Each output is float32 `[n, 1]`. An export
    for Paddle Serving may have given the token inputs and the probability further aliases.

    Args:
        deadline: see `ScoringService`.

    Raises `Fault`, which names the field, if the Request is malformed, and what the service raises.
    """
    began = _microseconds()
    export = service.info.export
    aliases = export.get("aliases", {}) if export else {}
    fetched = _fetched(request, aliases.get(PROBABILITY))
    feeds = _feeds(request, {aliases[name]: name for name in TOKENS if name in aliases})
    scores, read = await _scores(feeds, service, request.ByteSize(), deadline)
    inferred = _microseconds()
    response = _response(request, fetched, scores)
    if request.profile_server:
        response.profile_server = True
        # The begin and the end of the vendor's three steps: reader, inference, response.
        response.profile_time.extend([began, read, read, inferred, inferred, _microseconds()])
    return response


async def _scores(
    feeds: dict[str, tuple[str, Message]], service: ScoringService, size: int, deadline: Optional[float]
) -> tuple[Scores, int]:
    """Return the scores of the fed pairs, and the time at which they had been read, in microseconds since 1970.

    Args:
        size: size of the request in bytes.
    """
    if "query" in feeds:
        queries, titles = await apart(size, _texts, feeds, service.limits, deadline=deadline)
        read = _microseconds()
        return await service.score_pairs(queries, titles, deadline=deadline), read
    input_ids, token_type_ids = await apart(size, _tokens, feeds, service.limits, deadline=deadline)
    read = _microseconds()
    return await service.score_tokens(input_ids, token_type_ids, deadline=deadline), read


def _response(request: Message, fetched: list[tuple[str, str]], scores: Scores) -> Message:
    response = messages().Response(log_id=request.log_id)
    output = response.outputs.add(engine_name=ENGINE_NAME)
    for name, alias_name in fetched:
        values = scores.logits if name == "logit" else scores.probabilities
        fill_column(output.tensor.add(), name, alias_name, values)
    return response


def _fetched(request: Message, alias: Optional[str]) -> list[tuple[str, str]]:
    """Return (name, alias) of every output that the Request fetches, in its order.

    Args:
        alias: alias of the probability, if the export gave it one.
    """
    outputs = _FETCHED
    if alias:
        outputs = {**dict.fromkeys((alias, *_FETCHED), (PROBABILITY, alias)), "logit": _FETCHED["logit"]}
    found: list[tuple[str, str]] = []
    for place, name in enumerate(request.fetch_var_names):
        if name not in outputs:
            problem = f"{quoted(name)} is not an output of this model: choose from {', '.join(outputs)}"
            raise Fault(INVALID, problem, field=f"fetch_var_names[{place}]")
        if outputs[name] in found:
            raise Fault(INVALID, f"{quoted(name)} is asked for twice", field=f"fetch_var_names[{place}]")
        found.append(outputs[name])
    return found or [outputs[PROBABILITY]]


def _feeds(request: Message, names: Mapping[str, str]) -> dict[str, tuple[str, Message]]:
    """Return a dict from each feed's name to (its name in errors, its tensor); the feeds are all tokens or all texts.

    Args:
        names: dict from the aliases that the export gave the token inputs to the inputs' names.
    """
    feeds: dict[str, tuple[str, Message]] = {}
    for place, tensor in enumerate(request.tensor):
        given = [names.get(name, name) for name in (tensor.name, tensor.alias_name)]
        known = [name for name in given if name in (*TOKENS, *TEXTS)]
        if not known:
            shown = " or ".join(map(quoted, dict.fromkeys((tensor.name, tensor.alias_name))))
            problem = f"{shown} is not an input of this model: {' and '.join(TOKENS)}, or {' and '.join(TEXTS)}, are"
            raise Fault(INVALID, problem, field=f"tensor[{place}].name")
        if known[0] in feeds:
            raise Fault(INVALID, f"{known[0]} is there twice", field=f"tensor[{place}].name")
        feeds[known[0]] = (f"tensor[{place}] ({known[0]})", tensor)
    wanted = TEXTS if any(name in feeds for name in TEXTS) and not any(name in feeds for name in TOKENS) else TOKENS
    missing = [name for name in wanted if name not in feeds]
    if missing:
        there = ", ".join(feeds) or "nothing"
        raise Fault(INVALID, f"lacks {' and '.join(missing)}; there is {there}", field="tensor")
    if len(feeds) > len(wanted):
        raise Fault(INVALID, f"holds {', '.join(feeds)}: send tokens or texts, not both", field="tensor")
    return feeds


def _tokens(feeds: dict[str, tuple[str, Message]], limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    (ids_field, ids), (types_field, types) = feeds["input_ids"], feeds["token_type_ids"]
    input_ids, token_type_ids = integer_matrix(ids, ids_field, limits), integer_matrix(types, types_field, limits)
    if input_ids.shape != token_type_ids.shape:
        problem = f"is {list(token_type_ids.shape)}, that of input_ids is {list(input_ids.shape)}"
        raise Fault(INVALID, problem, field=f"{types_field}.shape")
    return input_ids, token_type_ids


def _texts(feeds: dict[str, tuple[str, Message]], limits: Limits) -> tuple[list[str], list[str]]:
    (query_field, query), (title_field, title) = feeds["query"], feeds["title"]
    for tensor in (title, query):
        limits.check_most(len(tensor.data), "title")
    queries, titles = text_column(query, query_field), text_column(title, title_field)
    if len(queries) == 1:
        queries = queries * len(titles)
    if len(queries) != len(titles):
        problem = f"holds {len(queries):,} texts and title {len(titles):,}: send one query, or one for each title"
        raise Fault(INVALID, problem, field=f"{query_field}.data")
    return queries, titles


def _microseconds() -> int:
    return time.time_ns() // 1000


def integer_matrix(tensor: Message, field: str, limits: Limits) -> np.ndarray:
    """Return a tensor's elements, `[rows, columns]` int64.

    Args:
        field: name of the tensor in errors, `tensor[0] (input_ids)`.

    Raises `Fault(INVALID)` for another type or rank, for a shape that does not match the data, and for data in a field
    of another type; raises `Fault(TOO_LARGE)` for too many rows.
    """
    if tensor.elem_type not in _INTEGERS:
        raise Fault(INVALID, f"is {tensor.elem_type}, expected 0 (int64) or 2 (int32)", field=f"{field}.elem_type")
    name, dtype = _INTEGERS[tensor.elem_type]
    held = _one_field(tensor, field, (name, "tensor_content"))
    _refuse_lod(tensor, field)
    shape = tuple(tensor.shape)
    if len(shape) != 2:
        raise Fault(INVALID, f"is {list(shape)[:8]}, expected [pairs, tokens]", field=f"{field}.shape")
    if min(shape) < 1:
        raise Fault(INVALID, f"is {list(shape)}, expected at least one pair of one token", field=f"{field}.shape")
    if held == "tensor_content":
        size = np.dtype(dtype).itemsize
        count, rest = divmod(len(tensor.tensor_content), size)
        if rest:
            problem = f"has {len(tensor.tensor_content):,} bytes, elements of {size} bytes do not fill them"
            raise Fault(INVALID, problem, field=f"{field}.tensor_content")
    else:
        count = len(getattr(tensor, name))
    if math.prod(shape) != count:
        raise Fault(INVALID, f"{list(shape)} does not match {count:,} elements", field=f"{field}.shape")
    limits.check_most(shape[0], "input_ids")
    if held == "tensor_content":
        elements = np.frombuffer(tensor.tensor_content, dtype)
    else:
        elements = np.asarray(getattr(tensor, name), dtype)
    return elements.reshape(shape).astype(np.int64, copy=False)


def text_column(tensor: Message, field: str) -> list[str]:
    """Return a tensor's strings; raises `Fault(INVALID)` unless its shape is `[n]`, `[n, 1]` or missing."""
    if tensor.elem_type != STRING:
        raise Fault(INVALID, f"is {tensor.elem_type}, expected 20 (string)", field=f"{field}.elem_type")
    _one_field(tensor, field, ("data",))
    _refuse_lod(tensor, field)
    texts = list(tensor.data)
    shape = list(tensor.shape)
    if shape and shape not in ([len(texts)], [len(texts), 1]):
        raise Fault(INVALID, f"{shape[:8]} does not match {len(texts):,} texts", field=f"{field}.shape")
    return texts


def fill_column(tensor: Message, name: str, alias_name: str, values: np.ndarray) -> None:
    """Make `tensor` a column of the response: float32 `[n, 1]`."""
    tensor.name, tensor.alias_name, tensor.elem_type = name, alias_name, FLOAT32
    tensor.shape.extend([len(values), 1])
    tensor.float_data.extend(np.asarray(values, np.float32).tolist())


def _one_field(tensor: Message, field: str, allowed: Sequence[str]) -> str:
    """Return which of the `allowed` fields holds the data; raises `Fault` if none does, or another field does too."""
    held = [name for name in _DATA_FIELDS if len(getattr(tensor, name))]
    if not held:
        raise Fault(INVALID, "holds no data", field=f"{field}.{allowed[0]}")
    if held[0] not in allowed:
        problem = f"holds data, which a tensor of elem_type {tensor.elem_type} has in {allowed[0]}"
        raise Fault(INVALID, problem, field=f"{field}.{held[0]}")
    if len(held) > 1:
        raise Fault(INVALID, f"holds data, and {held[0]} does too", field=f"{field}.{held[1]}")
    return held[0]


def _refuse_lod(tensor: Message, field: str) -> None:
    if len(tensor.lod):
        raise Fault(INVALID, "is not for this model: it takes padded tensors", field=f"{field}.lod")
