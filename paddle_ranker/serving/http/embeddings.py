"""`POST /v1/embeddings` in OpenAI's format, with Voyage's names beside; `/embed` in Text Embeddings Inference's."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Optional, Union

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from typing_extensions import TypeAliasType

from paddle_ranker.encoding.columns import Array
from paddle_ranker.errors import quoted
from paddle_ranker.retrieval.vectors import normalised
from paddle_ranker.serving.core.apart import apart
from paddle_ranker.serving.core.faults import INVALID, NOT_FOUND, TOO_LARGE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import check_json, number_lists
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.scores import TextVectors
from paddle_ranker.serving.core.tower_slot import TowerSlot
from paddle_ranker.serving.core.validation import refusal
from paddle_ranker.serving.http.exchange import SHARE, deadline_of, json_bytes, read_body
from paddle_ranker.serving.http.openapi import NUMBER, operation, schemas_of

OPENAI, TEI, OTHER_TEI = ("/v1/embeddings", "/embeddings"), ("/embed", "/"), ("/embed_all", "/embed_sparse")
_IS_QUERY = {"query": True, "search_query": True, "document": False, "search_document": False, "passage": False}
_UNION_TAGS = ("str", "list[str]")
_VALUES = 64  # in JSON, for each text
_TEXT_BYTES, _BASE64_BYTES = 32, 16  # of memory that a number takes, from the engine's array to the answer
Texts = TypeAliasType("Texts", Annotated[list[str], FailFast()])


class EmbeddingsRequest(BaseModel):
    """Make vectors of texts (OpenAI, Voyage, LangChain, LiteLLM); keys that are not here are ignored."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    input: Union[str, Texts] = Field(description="a text or several; not tokens")
    model: Optional[str] = Field(None, description="ignored: there is one")
    input_type: Optional[Literal["query", "document", "search_query", "search_document", "passage"]] = Field(
        None, description="which prompt of the tower's precedes the texts: its query's, or (default) its documents'"
    )
    encoding_format: Optional[Literal["float", "base64"]] = Field(
        "float", description="numbers, or the base64 of float32, little-endian"
    )
    dimensions: Optional[int] = Field(
        None, ge=1, validation_alias=AliasChoices("dimensions", "output_dimension"),
        description="only so many of the first, of a tower that was trained for that",
    )  # fmt: skip
    truncation: Optional[bool] = Field(True, description="cut what is too long (Voyage's name); false: refuse it")


class EmbedRequest(BaseModel):
    """Make vectors of texts (Text Embeddings Inference)."""

    model_config = ConfigDict(strict=True)

    inputs: Union[str, Texts]
    truncate: Optional[bool] = Field(
        False, description="cut what is too long, instead of refusing it; a server with --auto_truncate always does"
    )
    truncation_direction: Optional[Literal["right", "Right"]] = Field("right", description="where texts are cut")
    prompt_name: Optional[str] = Field(None, description="query or document, as input_type of /v1/embeddings")
    normalize: Optional[bool] = Field(None, description="make each 1 long; default: as the tower was trained")
    dimensions: Optional[int] = Field(None, ge=1, description="as in /v1/embeddings")


class Embedder:
    """The handlers of the routes.

    Args:
        tower: makes the vectors.
        keep_texts: put the texts into the request's state, for the log.
    """

    def __init__(self, tower: TowerSlot, *, keep_texts: bool = False):
        self._tower, self._keep_texts = tower, keep_texts
        self._openai, self._tei = TypeAdapter(EmbeddingsRequest), TypeAdapter(EmbedRequest)

    async def embeddings(self, request: Request) -> Response:
        """Answer in OpenAI's format."""
        deadline = deadline_of(request)
        body = await read_body(request, self._tower.limits.request_bytes)
        try:
            asked = await apart(len(body), _validated, self._openai, body, self._tower.limits, deadline=deadline)
        except Fault as fault:  # OpenAI's clients know 400
            kind = INVALID if fault.kind is UNPROCESSABLE else fault.kind
            raise Fault(kind, fault.problem, field=fault.field) from fault.settled()
        del body  # its texts are held once
        is_base64 = asked.encoding_format == "base64"
        found = await self._vectors(
            request,
            asked.input,
            "input",
            is_query=_IS_QUERY[asked.input_type or "document"],
            dimensions=asked.dimensions,
            cuts=asked.truncation is not False,
            number_bytes=_BASE64_BYTES if is_base64 else _TEXT_BYTES,
        )
        usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
        frame = {"object": "list", "data": None, "model": self._tower.name, "usage": usage}
        return _answer(await apart(found.vectors.nbytes, _openai_answer, frame, found.vectors, is_base64))

    async def embed(self, request: Request) -> Response:
        """Answer in Text Embeddings Inference's format."""
        deadline = deadline_of(request)
        body = await read_body(request, self._tower.limits.request_bytes)
        asked = await apart(len(body), _validated, self._tei, body, self._tower.limits, deadline=deadline)
        del body  # its texts are held once
        if asked.prompt_name not in (None, *_IS_QUERY):
            problem = f"is {quoted(asked.prompt_name)}, expected query or document"
            raise Fault(UNPROCESSABLE, problem, field="prompt_name")
        if asked.normalize is False and self._tower.info.normalize:
            raise Fault(UNPROCESSABLE, "is false, and this tower has vectors of length 1 alone", field="normalize")
        found = await self._vectors(
            request,
            asked.inputs,
            "inputs",
            is_query=_IS_QUERY[asked.prompt_name or "document"],
            dimensions=asked.dimensions,
            cuts=bool(asked.truncate or self._tower.limits.auto_truncate),
            number_bytes=_TEXT_BYTES,
        )
        vectors = normalised(found.vectors) if asked.normalize and not self._tower.info.normalize else found.vectors
        return _answer(await apart(vectors.nbytes, _tei_answer, vectors))

    async def not_made(self, request: Request) -> Response:
        """Refuse what this server has no vectors for."""
        raise Fault(NOT_FOUND, "a tower makes one vector of numbers for a text: ask POST /embed or /v1/embeddings")

    async def _vectors(
        self,
        request: Request,
        given: Union[str, list[str]],
        field: str,
        *,
        is_query: bool,
        dimensions: Optional[int],
        cuts: bool,
        number_bytes: int,
    ) -> TextVectors:
        state, info = request.scope["state"], self._tower.info
        texts = [given] if isinstance(given, str) else given
        state["pairs"] = len(texts)
        if self._keep_texts:
            state["texts"] = {field: texts}
        if dimensions not in (None, info.size, *info.nested_sizes):
            sizes = " or ".join(map(str, (*info.nested_sizes, info.size)))
            raise Fault(INVALID, f"is {dimensions}, this tower's vectors have {sizes} numbers", field="dimensions")
        self._tower.limits.check_pairs(len(texts), field)
        if SHARE in state:
            state[SHARE].hold_answer(len(texts) * info.size * number_bytes)
        check = None if cuts else _LengthCheck(field)
        found = await self._tower.vectors(
            texts, is_query=is_query, deadline=deadline_of(request), field=field, check_lengths=check
        )
        if dimensions in (None, info.size):
            return found
        nested = found.vectors[:, :dimensions]
        return TextVectors(normalised(nested) if info.normalize else nested, found.tokens)


class _LengthCheck:
    """Refuses a text that would be truncated; `field` is the name of the texts."""

    def __init__(self, field: str):
        self._field = field

    def __call__(self, first: int, lengths: Array, most: int) -> None:
        if lengths.max() > most:
            place = int(np.argmax(lengths > most))
            problem = (
                f"has more than the {most} tokens that are looked at; let it be cut (truncate: true), or start "
                "the server with --auto_truncate true"
            )
            raise Fault(TOO_LARGE, problem, field=f"{self._field}[{first + place}]")


def _validated(adapter: TypeAdapter[Any], body: bytes, limits: Limits) -> Any:
    try:
        # Not the tokens of texts, for which other requests have room, but what a client may add to each.
        check_json(body, limits.json_bounds._replace(values=_VALUES * max(limits.pairs, _VALUES)))
    except Fault as fault:
        if fault.kind is TOO_LARGE:
            raise Fault(TOO_LARGE, f"{fault.problem}; send texts, not tokens", field=fault.field) from fault.settled()
        raise
    try:
        asked = adapter.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        is_list = "str" in first["loc"] and isinstance(first["input"], list)  # then the next error is of its items
        if is_list and _are_tokens(first["input"]):
            problem = "holds tokens, and of another model: send texts (LangChain: check_embedding_ctx_length=False)"
            raise Fault(UNPROCESSABLE, problem, field=str(first["loc"][0])) from error
        raise refusal(error, _UNION_TAGS, int(is_list)) from error
    given = asked.input if isinstance(asked, EmbeddingsRequest) else asked.inputs
    if isinstance(given, list):
        limits.check_most(len(given), "input" if isinstance(asked, EmbeddingsRequest) else "inputs")
    return asked


def _are_tokens(given: object) -> bool:
    while isinstance(given, list) and given:
        given = given[0]
    return type(given) is int


def _openai_answer(frame: dict[str, Any], vectors: Array, is_base64: bool) -> bytes:
    if is_base64:
        rows = [b'"%b"' % base64.b64encode(row.astype("<f4").tobytes()) for row in vectors]
    else:
        rows = number_lists(vectors)
    data = [b'{"object":"embedding","index":%d,"embedding":%b}' % item for item in enumerate(rows)]
    return json_bytes(frame).replace(b'"data":null', b'"data":[%b]' % b",".join(data), 1)


def _tei_answer(vectors: Array) -> bytes:
    return b"[%b]" % b",".join(number_lists(vectors))


def _answer(content: bytes) -> Response:
    # Not packed, whoever offers to unpack it: gzip takes longer than all else here, and leaves half of the digits.
    return Response(content, headers={"content-type": "application/json"})


def openai_refusal(fault: Fault, request_id: str) -> dict[str, object]:
    """Return a fault's JSON as OpenAI has it."""
    is_callers = fault.kind.http < 500
    return {
        "error": {
            "message": str(fault),
            "type": "invalid_request_error" if is_callers else "server_error",
            "param": fault.field,
            "code": fault.kind.name,
        },
        "request_id": request_id,
    }


def routes(tower: TowerSlot, paths: Iterable[str], *, keep_texts: bool = False) -> list[BaseRoute]:
    """Return the routes at those of `paths` that are known here; see `Embedder`."""
    embedder = Embedder(tower, keep_texts=keep_texts)
    handlers = dict.fromkeys(OPENAI, embedder.embeddings)
    handlers.update(dict.fromkeys(TEI, embedder.embed))
    handlers.update(dict.fromkeys(OTHER_TEI, embedder.not_made))
    return [Route(path, handlers[path], methods=["POST"]) for path in paths]


_VECTOR = {"type": "array", "items": NUMBER}
_EMBEDDING = {
    "type": "object",
    "required": ["object", "index", "embedding"],
    "properties": {
        "object": {"const": "embedding"},
        "index": {"type": "integer"},
        "embedding": {"oneOf": [_VECTOR, {"type": "string", "description": "base64 of float32, little-endian"}]},
    },
}
_COUNT = {"type": "integer", "description": "tokens that were looked at"}
_SCHEMAS = {
    "Embeddings": {
        "type": "object",
        "required": ["object", "data", "model", "usage"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "description": "in the order of the texts", "items": _EMBEDDING},
            "model": {"type": "string"},
            "usage": {"type": "object", "properties": {"prompt_tokens": _COUNT, "total_tokens": _COUNT}},
        },
    },
    "Vectors": {"type": "array", "description": "in the order of the texts", "items": _VECTOR},
}


def describe(paths: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the OpenAPI descriptions of those of `paths` that make vectors, and their schemas."""
    openai = operation("Make vectors of texts", ["EmbeddingsRequest"], ["Embeddings"], "Vectors")
    tei = operation("Make vectors, as Text Embeddings Inference does", ["EmbedRequest"], ["Vectors"], "Vectors")
    made = {**dict.fromkeys(OPENAI, openai), **dict.fromkeys(TEI, tei)}
    schemas = {**_SCHEMAS, **schemas_of(EmbeddingsRequest, EmbedRequest)}
    return {path: {"post": made[path]} for path in paths if path in made}, schemas
