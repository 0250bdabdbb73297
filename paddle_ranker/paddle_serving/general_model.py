"""GeneralModelService, for any protocol: converts a Request of tensors or texts to a Response of scores or vectors."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Callable, Optional

import numpy as np

from paddle_ranker.array_types import Array, Arrays
from paddle_ranker.errors import quoted
from paddle_ranker.model.model_kind import ExportFacts
from paddle_ranker.model.tower import VECTOR
from paddle_ranker.paddle_serving.messages import Bounds, Message, bounds_of, messages
from paddle_ranker.paddle_serving.served_models import Models
from paddle_ranker.paddle_serving.serving_files import EMBEDDING
from paddle_ranker.serving.core.byte_budget import Share
from paddle_ranker.serving.core.faults import INVALID, Fault
from paddle_ranker.serving.core.jobs import Texts
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.threads import run_in_thread
from paddle_ranker.serving.slots.services import CountedRequest, Scores, ScoringService, VectorService

_MOST_FIELDS = 1000  # fields of a Request: two tensors, the fetched names, and room for later clients
ENGINE_NAME = "GeneralInferOp_0"
PROBABILITY = "sigmoid_2.tmp_0"  # the variable of the exported model; its alias is "predict"
TOKENS = ("input_ids", "token_type_ids")
INT64, FLOAT32, INT32, STRING = 0, 1, 2, 20  # elem_type
_FLOAT_DATA = b"\x12"  # the tag of the field, whose elements are packed
_NUMBER_BYTES = 40  # most memory of a vector's component in an answer, as JSON
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


Feeds = dict[str, tuple[str, Message]]  # a tensor's name -> its name in errors, and the tensor


class ServedTensors(ABC):
    """Tensors of a served model: inputs are tokens or texts, outputs float32 arrays, each with a name.

    Attributes:
        limits: limits of requests.
        texts: the sets of string tensors, each a tuple of names, that the model takes in place of tokens.
        logged: names under which the log has the texts of a set, one name for each tensor.
        outputs: dict from each name that clients may fetch to (name, alias) of the output; the first is the default.
        inputs: dict from the alias that an export gave a token input to the input's name.
    """

    texts: tuple[tuple[str, ...], ...]
    logged: tuple[str, ...]
    outputs: dict[str, tuple[str, str]]

    def __init__(self, limits: Limits, aliases: Mapping[str, str]):
        self.limits, self.inputs = limits, {aliases[name]: name for name in TOKENS if name in aliases}

    def rows(self, feeds: Feeds) -> tuple[list[str], ...]:
        """Return the texts that a Request feeds, a list for each tensor, all of the same length.

        Raises `Fault` if the lengths differ or are above the limit.

        feeds: the string tensors by name, see `Feeds`
        """
        for _, tensor in feeds.values():
            self.limits.check_most(len(tensor.data), next(reversed(feeds)))
        return tuple(text_column(tensor, field) for field, tensor in feeds.values())

    @abstractmethod
    def answer_bytes(self, rows: int) -> int:
        """Return how much memory, in bytes, the answer for `rows` rows takes in addition to its request."""

    @abstractmethod
    async def of_texts(self, names: tuple[str, ...], texts: Texts, deadline: Optional[float]) -> Arrays:
        """Compute the outputs of texts: `[n, ...]` by name. Raises `Fault`.

        names: names of the string tensors
        texts: texts of each tensor
        """

    @abstractmethod
    async def of_tokens(self, input_ids: Array, token_type_ids: Array, deadline: Optional[float]) -> Arrays:
        """Compute the outputs of encoded rows, `[n, length]` int64 arrays: `[n, ...]` by name. Raises `Fault`."""


class RankerTensors(ServedTensors):
    """The tensors by which requests use a ranker: tokens or texts come in, probabilities and logits go out.

    If the tensor of queries has a single query, all titles are scored for this query.
    """

    texts, logged = (("query", "title"),), ("queries", "titles")

    def __init__(self, service: ScoringService):
        self._service, aliases = service, _aliases(service.info.export)
        super().__init__(service.limits, aliases)
        alias = aliases.get(PROBABILITY) or "predict"
        named = dict.fromkeys((alias, "predict", PROBABILITY), (PROBABILITY, alias))
        self.outputs = {**named, "logit": ("logit", "logit")}

    def rows(self, feeds: Feeds) -> tuple[list[str], ...]:
        queries, titles = super().rows(feeds)
        if len(queries) == 1:
            queries = queries * len(titles)
        if len(queries) != len(titles):
            problem = f"holds {len(queries):,} texts and title {len(titles):,}: send one query, or one for each title"
            raise Fault(INVALID, problem, field=f"{feeds['query'][0]}.data")
        return queries, titles

    def answer_bytes(self, rows: int) -> int:
        return 0

    async def of_texts(self, names: tuple[str, ...], texts: Texts, deadline: Optional[float]) -> Arrays:
        return self._named(await self._service.score_pairs(*texts, deadline=deadline))

    async def of_tokens(self, input_ids: Array, token_type_ids: Array, deadline: Optional[float]) -> Arrays:
        return self._named(await self._service.score_tokens(input_ids, token_type_ids, deadline=deadline))

    def _named(self, scores: Scores) -> Arrays:
        return {PROBABILITY: scores.probabilities, "logit": scores.logits}


class TowerTensors(ServedTensors):
    """The tensors by which requests use a tower: tokens, texts or queries come in, vectors go out."""

    texts, logged = (("text",), ("query",)), ("texts",)

    def __init__(self, service: VectorService):
        self._service, aliases = service, _aliases(service.info.export)
        super().__init__(service.limits, aliases)
        alias = aliases.get(VECTOR, EMBEDDING)
        self.outputs = dict.fromkeys((alias, EMBEDDING, VECTOR), (VECTOR, alias))

    def answer_bytes(self, rows: int) -> int:
        return rows * self._service.info.size * _NUMBER_BYTES

    async def of_texts(self, names: tuple[str, ...], texts: Texts, deadline: Optional[float]) -> Arrays:
        is_query = names == ("query",)
        computed = await self._service.vectors(texts[0], is_query=is_query, deadline=deadline, field=names[0])
        return {VECTOR: computed.vectors}

    async def of_tokens(self, input_ids: Array, token_type_ids: Array, deadline: Optional[float]) -> Arrays:
        return {VECTOR: (await self._service.token_vectors(input_ids, token_type_ids, deadline=deadline)).vectors}


def _aliases(export: Optional[ExportFacts]) -> dict[str, str]:
    return export.get("aliases", {}) if export else {}


def most_rows(models: Models) -> int:
    """Return the maximum number of rows in a request: the higher of the models' limits."""
    return max(model.limits.pairs for model in (models.ranker, models.tower) if model is not None)


def bounds(models: Models) -> Bounds:
    """Return the bounds of a Request's protobuf message."""
    return bounds_of(_MOST_FIELDS, most_rows(models))


async def infer(
    request: Message,
    models: Models,
    *,
    deadline: Optional[float] = None,
    share: Optional[Share] = None,
    record: Optional[CountedRequest] = None,
) -> Message:
    """Return the Response to a Request.

    A Request feeds, by name or alias, either `input_ids` and `token_type_ids`, int64 or int32 `[n, length]`, or
    strings:

    - To a ranker `query` and `title`, n strings each, or one query for all titles. It fetches `predict` or
        `sigmoid_2.tmp_0`, both the probability, or `logit`, float32 `[n, 1]` each.
    - To a tower `text` or `query`, n strings. It fetches `output_embedding` or `vector`, float32 `[n, size]`.

    A Request that fetches nothing gets the probability, or the vector if it feeds `text` or the server has no ranker.
    An export for Paddle Serving may have given the token inputs and the first output further aliases.

    deadline: see `ScoringService`
    share: the request's share of the byte budget, in which a large answer is reserved
    record: record of the request, which gets the number of rows and the texts

    Raises `Fault`, which names the field, if the Request is malformed, and the service's faults.
    """
    began = _microseconds()
    model = _asked_model(request, models)
    fetched = _fetched(request, model)
    feeds = _feeds(request, model)
    has_tokens = TOKENS[0] in feeds
    read_rows: Callable[..., tuple[Any, ...]] = partial(_tokens, limits=model.limits) if has_tokens else model.rows
    rows = await run_in_thread(request.ByteSize(), read_rows, feeds, deadline=deadline)
    if share is not None:
        share.reserve_answer(model.answer_bytes(len(rows[0])))
    if record is not None:
        record.note(len(rows[0]), **({} if has_tokens else dict(zip(model.logged, rows))))
    read = _microseconds()
    if has_tokens:
        input_ids, token_type_ids = rows
        outputs = await model.of_tokens(input_ids, token_type_ids, deadline)
    else:
        outputs = await model.of_texts(tuple(feeds), rows, deadline)
    inferred = _microseconds()
    response = _response(request, fetched, outputs)
    if request.profile_server:
        response.profile_server = True
        # Start and end of each of the vendor's three steps: reader, inference, response.
        response.profile_time.extend([began, read, read, inferred, inferred, _microseconds()])
    return response


def _asked_model(request: Message, models: Models) -> ServedTensors:
    """Return the model whose outputs a Request fetches. See `infer`."""
    if models.tower is not None:
        tower = TowerTensors(models.tower)
        fetches = request.fetch_var_names
        feeds_text = any("text" in (tensor.name, tensor.alias_name) for tensor in request.tensor[:_MOST_FIELDS])
        if not models.has_ranker or (fetches[0] in tower.outputs if fetches else feeds_text):
            return tower
    return RankerTensors(models.ranker)


def _response(request: Message, fetched: list[tuple[str, str]], outputs: Arrays) -> Message:
    response = messages().Response(log_id=request.log_id)
    output = response.outputs.add(engine_name=ENGINE_NAME)
    for name, alias_name in fetched:
        fill_matrix(output.tensor.add(), name, alias_name, outputs[name])
    return response


def _fetched(request: Message, model: ServedTensors) -> list[tuple[str, str]]:
    """Return (name, alias) of each output that a Request fetches, in its order. Default: the model's first output."""
    outputs = model.outputs
    fetched: list[tuple[str, str]] = []
    for place, name in enumerate(request.fetch_var_names):
        if name not in outputs:
            problem = f"{quoted(name)} is not an output of this model: choose from {', '.join(outputs)}"
            raise Fault(INVALID, problem, field=f"fetch_var_names[{place}]")
        if outputs[name] in fetched:
            raise Fault(INVALID, f"{quoted(name)} is asked for twice", field=f"fetch_var_names[{place}]")
        fetched.append(outputs[name])
    return fetched or [next(iter(outputs.values()))]


def _feeds(request: Message, model: ServedTensors) -> Feeds:
    """Return the tensors that a Request feeds, by name, see `Feeds`: either token tensors or string tensors."""
    feeds: Feeds = {}
    text_names = tuple(dict.fromkeys(name for names in model.texts for name in names))
    for place, tensor in enumerate(request.tensor):
        names = [model.inputs.get(name, name) for name in (tensor.name, tensor.alias_name)]
        inputs = [name for name in names if name in (*TOKENS, *text_names)]
        if not inputs:
            shown = " or ".join(map(quoted, dict.fromkeys((tensor.name, tensor.alias_name))))
            wanted = " or ".join(" and ".join(names) for names in model.texts)
            problem = f"{shown} is not an input of this model: {' and '.join(TOKENS)}, or {wanted}, are"
            raise Fault(INVALID, problem, field=f"tensor[{place}].name")
        if inputs[0] in feeds:
            raise Fault(INVALID, f"{inputs[0]} is there twice", field=f"tensor[{place}].name")
        feeds[inputs[0]] = (f"tensor[{place}] ({inputs[0]})", tensor)
    has_tokens = any(name in feeds for name in TOKENS)
    wanted_names: tuple[str, ...] = TOKENS
    if not has_tokens:
        wanted_names = next((names for names in model.texts if not feeds.keys().isdisjoint(names)), TOKENS)
    missing = [name for name in wanted_names if name not in feeds]
    if missing:
        present = ", ".join(feeds) or "nothing"
        raise Fault(INVALID, f"lacks {' and '.join(missing)}; there is {present}", field="tensor")
    if len(feeds) > len(wanted_names):
        choice = "tokens or texts, not both" if has_tokens else f"one of {' or '.join(text_names)}"
        raise Fault(INVALID, f"holds {', '.join(feeds)}: send {choice}", field="tensor")
    return {name: feeds[name] for name in wanted_names}


def _tokens(feeds: Feeds, limits: Limits) -> tuple[Array, Array]:
    (ids_field, ids), (types_field, types) = feeds["input_ids"], feeds["token_type_ids"]
    input_ids, token_type_ids = integer_matrix(ids, ids_field, limits), integer_matrix(types, types_field, limits)
    if input_ids.shape != token_type_ids.shape:
        problem = f"is {list(token_type_ids.shape)}, that of input_ids is {list(input_ids.shape)}"
        raise Fault(INVALID, problem, field=f"{types_field}.shape")
    return input_ids, token_type_ids


def _microseconds() -> int:
    return time.time_ns() // 1000


def integer_matrix(tensor: Message, field: str, limits: Limits) -> np.ndarray:
    """Return a tensor's elements, `[rows, columns]` int64.

    field: name of the tensor in errors, `tensor[0] (input_ids)`

    Raises `Fault(INVALID)` for another type or rank, for a shape that does not match the data, and for data in a field
    of another type. Raises `Fault(TOO_LARGE)` for too many rows.
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
    """Return the strings of a tensor. Raises `Fault(INVALID)` if its shape is set and is not `[n]` or `[n, 1]`."""
    if tensor.elem_type != STRING:
        raise Fault(INVALID, f"is {tensor.elem_type}, expected 20 (string)", field=f"{field}.elem_type")
    _one_field(tensor, field, ("data",))
    _refuse_lod(tensor, field)
    texts = list(tensor.data)
    shape = list(tensor.shape)
    if shape and shape not in ([len(texts)], [len(texts), 1]):
        raise Fault(INVALID, f"{shape[:8]} does not match {len(texts):,} texts", field=f"{field}.shape")
    return texts


def fill_matrix(tensor: Message, name: str, alias_name: str, values: Array) -> None:
    """Fill `tensor`, an output of a Response, with float32 `[n, size]`. `values` of the shape `[n]` become `[n, 1]`."""
    rows = np.asarray(values, "<f4").reshape(len(values), -1)
    tensor.name, tensor.alias_name, tensor.elem_type = name, alias_name, FLOAT32
    tensor.shape.extend(rows.shape)
    if rows.size:
        # In wire format, since a vector of Python numbers would take ten times the memory and time.
        tensor.MergeFromString(_FLOAT_DATA + _varint(rows.nbytes) + rows.tobytes())


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*written, number))


def _one_field(tensor: Message, field: str, allowed: Sequence[str]) -> str:
    """Return the name of the `allowed` field of a tensor that has data. `field` is the tensor's name in errors.

    Raises `Fault` if no allowed field has data, or if another field has data, too.
    """
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
