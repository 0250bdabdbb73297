"""`POST /v1/embeddings` in OpenAI's format, also with Voyage's names; `/v2/embed` in Cohere's format; `/embed` in Text
Embeddings Inference's format.

The first two take pictures, too: `/v1/embeddings` as Jina's clients send them in `input`, and vLLM's in `messages`.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Annotated, Any, Literal, Optional, Union

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from typing_extensions import TypeAliasType, TypedDict

from paddle_ranker.array_types import Array
from paddle_ranker.errors import quoted
from paddle_ranker.retrieval.vectors.text_vectors import normalised
from paddle_ranker.serving.core.faults import INVALID, NOT_FOUND, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import number_lists, text_bounds
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.threads import run_in_thread
from paddle_ranker.serving.core.validation import Body, refusal, validated
from paddle_ranker.serving.http.exchange import SHARE, deadline_of, read_request
from paddle_ranker.serving.http.lengths import TruncationRequest
from paddle_ranker.serving.http.openapi import DescribedRoute
from paddle_ranker.serving.http.rerank_formats import ClientRequest, Side, Texts, Usage
from paddle_ranker.serving.http.sent_pictures import Picture
from paddle_ranker.serving.slots.services import TextVectors
from paddle_ranker.serving.slots.tower_slot import TowerSlot

OPENAI, OTHER_TEI = ("/v1/embeddings", "/embeddings"), ("/embed_all", "/embed_sparse")
COHERE, COHERE_V1 = "/v2/embed", "/v1/embed"
_ENDS = {"START": "left", "END": "right"}  # at which texts are cut, by Cohere's names
_IS_QUERY = {"query": True, "search_query": True, "document": False, "search_document": False, "passage": False}
_UNION_TAGS = ("str", "list[str]", "list[union[str,Item]]", "Item", "list[MessagePart]", "MessagePart", "ImageUrl")
_TEXT_BYTES, _BASE64_BYTES = 32, 16  # memory of a vector's component, from the engine's array to the answer


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Item(_Strict):
    """A text or a picture (Jina)."""

    text: Optional[str] = None
    image: Optional[str] = Field(None, description="the file in base64, or as a data: URL; addresses are not fetched")


Items = TypeAliasType("Items", Annotated[list[Union[str, Item]], FailFast()])


class ImageUrl(_Strict):
    """The data URL of a picture."""

    url: str = Field(description="a data: URL in base64; addresses are not fetched")
    detail: Optional[str] = None


class MessagePart(_Strict):
    """A part of a message: a text or a picture."""

    type: Literal["text", "image_url"]
    text: Optional[str] = None
    image_url: Optional[Union[str, ImageUrl]] = None


class Message(_Strict):
    """A message (vLLM) with one text or one picture. Parts with an empty text are ignored."""

    role: str = "user"
    content: Union[str, list[MessagePart]]


class EmbeddingsRequest(ClientRequest):
    """Request for vectors of texts and pictures (OpenAI, Voyage, Jina, vLLM, LangChain, LiteLLM)."""

    input: Union[str, Items, None] = Field(
        None, description="a text or several, or pictures of a tower that reads them; not tokens"
    )
    messages: Optional[list[Message]] = Field(
        None, max_length=1, description="a message in place of input, with one text or one picture (vLLM)"
    )
    input_type: Optional[Literal["query", "document", "search_query", "search_document", "passage"]] = Field(
        None, description="which prompt of the tower's precedes the texts: its query's, or (default) its documents'"
    )
    task: Optional[Literal["retrieval.query", "retrieval.passage"]] = Field(None, description="Jina's input_type")
    encoding_format: Optional[Literal["float", "base64"]] = Field(
        "float", description="numbers, or the base64 of float32, little-endian"
    )
    dimensions: Optional[int] = Field(
        None, ge=1, description="only so many of the first, of a tower that was trained for that"
    )
    output_dimension: Optional[int] = Field(None, ge=1, description="Voyage's name for dimensions")
    truncation: Optional[bool] = Field(None, description="cut what is too long (default), or refuse it (Voyage)")
    truncate: Optional[bool] = Field(None, description="as truncation (Jina)")
    truncation_side: Optional[Side] = Field(None, description="at which end long texts are cut (vLLM)")
    truncate_prompt_tokens: Optional[int] = Field(None, ge=-1, description="tokens that a text may have (vLLM)")
    normalize: Optional[bool] = Field(None, description="make each 1 long; default: as the tower was trained")
    normalized: Optional[bool] = Field(None, description="as normalize (Jina)")
    use_activation: Optional[bool] = Field(None, description="as normalize (vLLM)")

    @property
    def items(self) -> list[Union[str, Picture]]:
        """The texts and pictures whose vectors are requested.

        Raises `Fault` if the request has both `input` and `messages` or neither, or if an item does not have exactly
        one text or picture.
        """
        if (self.input is None) == (self.messages is None):
            problem = "is required" if self.input is None else "stands beside messages: leave one out"
            raise Fault(UNPROCESSABLE, problem, field="input")
        if self.messages is not None:
            if len(self.messages) != 1:
                raise Fault(UNPROCESSABLE, "is empty, expected a message", field="messages")
            return [_content(self.messages[0].content, "messages[0].content")]
        if not isinstance(self.input, list):
            return [self.input or ""]
        return [
            item if isinstance(item, str) else _item(item, f"input[{place}]") for place, item in enumerate(self.input)
        ]

    @property
    def is_query(self) -> bool:
        """Whether the texts are queries. Raises `Fault` if two fields contradict each other."""
        kind = None if self.input_type is None else _IS_QUERY[self.input_type]
        task = None if self.task is None else self.task == "retrieval.query"
        if kind is not None and task is not None and kind != task:
            raise Fault(UNPROCESSABLE, "says otherwise than input_type: leave one out", field="task")
        return bool(kind or task)


def _item(item: Item, field: str) -> Union[str, Picture]:
    if (item.text is None) == (item.image is None):
        raise Fault(UNPROCESSABLE, "has a text and an image, or neither: give one of them", field=field)
    return item.text if item.image is None else Picture(f"{field}.image", item.image)  # type: ignore[return-value]


def _content(content: Union[str, list[MessagePart]], field: str) -> Union[str, Picture]:
    if isinstance(content, str):
        return content
    contents = list[Union[str, Picture]]()
    for place, part in enumerate(content):
        if getattr(part, part.type) is None:
            raise Fault(UNPROCESSABLE, "is required", field=f"{field}[{place}].{part.type}")
        if part.image_url is not None:
            url = part.image_url if isinstance(part.image_url, str) else part.image_url.url
            contents.append(Picture(f"{field}[{place}].image_url", url))
        elif part.text:
            contents.append(part.text)
    if len(contents) != 1:
        problem = (
            f"has {len(contents)} texts and pictures; a vector is made of one: send each in a request, or as input"
        )
        raise Fault(UNPROCESSABLE, problem, field=field)
    return contents[0]


class CohereInput(_Strict):
    """An input in Cohere's format: one text or one picture."""

    content: list[MessagePart]


class CohereRequest(ClientRequest):
    """Request for vectors of texts and pictures (Cohere)."""

    texts: Optional[Texts] = None
    images: Optional[list[str]] = Field(None, description="data: URLs in base64; addresses are not fetched")
    inputs: Optional[list[CohereInput]] = None
    input_type: Literal["search_query", "search_document", "image"] = Field(
        description="which prompt of the tower's precedes the texts"
    )
    embedding_types: list[Literal["float", "base64"]] = Field(
        ["float"], min_length=1, description="numbers, or the base64 of float32, little-endian"
    )
    output_dimension: Optional[int] = Field(None, ge=1, description="as dimensions of /v1/embeddings")
    truncate: Literal["NONE", "START", "END"] = Field("END", description="refuse long texts, or cut them at an end")
    max_tokens: Optional[int] = Field(None, ge=1, description="tokens that a text may have")

    @property
    def source(self) -> str:
        """Name of the request's field with inputs. Raises `Fault` unless exactly one of the three fields is set."""
        names = [name for name in ("texts", "images", "inputs") if getattr(self, name) is not None]
        if len(names) != 1:
            problem = f"stands beside {names[0]}: leave one out" if names else "is required, or images, or inputs"
            raise Fault(UNPROCESSABLE, problem, field=names[1] if names else "texts")
        return names[0]

    @property
    def items(self) -> list[Union[str, Picture]]:
        """The texts and pictures whose vectors are requested.

        Raises `Fault` as `source` does, and for an input that is not exactly one text or one picture.
        """
        name = self.source
        if name == "inputs":
            return [_content(item.content, f"inputs[{place}].content") for place, item in enumerate(self.inputs or ())]
        pictures = [Picture(f"images[{place}]", data) for place, data in enumerate(self.images or ())]
        return [*(self.texts or ()), *pictures]


class CohereV1Request(CohereRequest):
    """Request for vectors of texts and pictures (version 1 of Cohere's interface)."""

    input_type: Literal["search_query", "search_document", "image"] = Field(
        "search_document", description="which prompt of the tower's precedes the texts"
    )
    embedding_types: Optional[list[Literal["float", "base64"]]] = Field(  # type: ignore[assignment]  # optional here
        None, min_length=1, description="as of /v2/embed; left out: a list of numbers for each text or picture"
    )


class EmbedRequest(ClientRequest):
    """Request for vectors of texts (Text Embeddings Inference)."""

    inputs: Union[str, Texts]
    truncate: Optional[bool] = Field(
        False, description="cut what is too long, instead of refusing it; a server with --auto_truncate always does"
    )
    truncation_direction: Optional[Side] = Field("right", description="at which end long texts are cut")
    prompt_name: Optional[str] = Field(None, description="query or document, as input_type of /v1/embeddings")
    normalize: Optional[bool] = Field(None, description="make each 1 long; default: as the tower was trained")
    dimensions: Optional[int] = Field(None, ge=1, description="as in /v1/embeddings")


class Embedding(TypedDict):
    """The vector of a text, in OpenAI's answers."""

    object: Literal["embedding"]
    index: int
    embedding: Union[list[float], Annotated[str, Field(description="base64 of float32, little-endian")]]


class EmbeddingsAnswer(TypedDict):
    """An answer to an `EmbeddingsRequest`."""

    object: Literal["list"]
    data: Annotated[list[Embedding], Field(description="in the order of the texts")]
    model: str
    usage: Annotated[Usage, Field(description="tokens that were looked at")]


class CohereAnswer(TypedDict):
    """An answer to a `CohereRequest`."""

    id: Annotated[str, Field(description="the request's id")]
    response_type: Literal["embeddings_by_type"]
    embeddings: Annotated[
        dict[Literal["float", "base64"], Union[list[list[float]], list[str]]],
        Field(description="by type, in the order of the texts or pictures"),
    ]
    texts: list[str]
    meta: Annotated[dict[str, dict[str, Any]], Field(description="version, and tokens that were looked at")]


class CohereV1Answer(TypedDict):
    """An answer to a `CohereV1Request` without `embedding_types`; with them it is a `CohereAnswer`."""

    id: Annotated[str, Field(description="the request's id")]
    response_type: Literal["embeddings_floats"]
    embeddings: Annotated[list[list[float]], Field(description="in the order of the texts or pictures")]
    texts: list[str]
    meta: Annotated[dict[str, dict[str, Any]], Field(description="version, and tokens that were looked at")]


Vectors = Annotated[list[list[float]], Field(description="in the order of the texts")]


class Embedder:
    """Handlers of the routes that return vectors.

    Args:
        tower: computes the vectors.
        keep_texts: whether to put the texts into the request's state, for the log.
    """

    def __init__(self, tower: TowerSlot, *, keep_texts: bool = False):
        self._tower, self._keep_texts = tower, keep_texts
        self._openai, self._tei = TypeAdapter(EmbeddingsRequest), TypeAdapter(EmbedRequest)
        self._cohere = {COHERE: TypeAdapter(CohereRequest), COHERE_V1: TypeAdapter(CohereV1Request)}

    async def embeddings(self, request: Request) -> Response:
        """Answer in OpenAI's format. Faults have the status 400, since OpenAI's clients do not know 422."""
        try:
            return await self._embeddings(request)
        except Fault as fault:
            if fault.kind is not UNPROCESSABLE:
                raise
            raise Fault(INVALID, fault.problem, field=fault.field) from fault.settled()

    async def _embeddings(self, request: Request) -> Response:
        embed_request = await self._read(request, self._openai)
        is_base64 = embed_request.encoding_format == "base64"
        refuses = embed_request.value_of("truncation", "truncate") is False
        most = {"truncate_prompt_tokens": embed_request.truncate_prompt_tokens}
        result = await self._vectors(
            request,
            embed_request.items,
            TruncationRequest("input", refuses, {"truncation_side": embed_request.truncation_side}, most),
            is_query=embed_request.is_query,
            dimensions=embed_request.value_of("dimensions", "output_dimension"),
            normalize=self._normalize(embed_request, "normalize", "normalized", "use_activation"),
            number_bytes=_BASE64_BYTES if is_base64 else _TEXT_BYTES,
        )
        usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
        frame = {"object": "list", "data": None, "model": self._tower.name, "usage": usage}
        return _answer(await run_in_thread(result.vectors.nbytes, _openai_answer, frame, result.vectors, is_base64))

    async def cohere(self, request: Request) -> Response:
        """Answer in Cohere's format."""
        path = request.scope["path"]
        embed_request = await self._read(request, self._cohere[path])
        ends = {"truncate": _ENDS.get(embed_request.truncate)}
        result = await self._vectors(
            request,
            embed_request.items,
            TruncationRequest(
                embed_request.source, embed_request.truncate == "NONE", ends, {"max_tokens": embed_request.max_tokens}
            ),
            is_query=embed_request.input_type == "search_query",
            dimensions=embed_request.output_dimension,
            normalize=None,
            number_bytes=_TEXT_BYTES + _BASE64_BYTES,
        )
        frame = {
            "id": request.scope["state"]["request_id"],
            "response_type": "embeddings_by_type" if embed_request.embedding_types else "embeddings_floats",
            "embeddings": None,
            "texts": embed_request.texts or [],
            "meta": {
                "api_version": {"version": "2" if path == COHERE else "1"},
                "billed_units": {"input_tokens": result.tokens},
            },
        }
        types = embed_request.embedding_types
        return _answer(await run_in_thread(result.vectors.nbytes, _cohere_answer, frame, result.vectors, types))

    async def embed(self, request: Request) -> Response:
        """Answer in Text Embeddings Inference's format."""
        embed_request = await self._read(request, self._tei)
        if embed_request.prompt_name not in (None, *_IS_QUERY):
            problem = f"is {quoted(embed_request.prompt_name)}, expected query or document"
            raise Fault(UNPROCESSABLE, problem, field="prompt_name")
        refuses = not (embed_request.truncate or self._tower.limits.auto_truncate)
        result = await self._vectors(
            request,
            [embed_request.inputs] if isinstance(embed_request.inputs, str) else embed_request.inputs,
            TruncationRequest("inputs", refuses, {"truncation_direction": embed_request.truncation_direction}),
            is_query=_IS_QUERY[embed_request.prompt_name or "document"],
            dimensions=embed_request.dimensions,
            normalize=self._normalize(embed_request, "normalize"),
            number_bytes=_TEXT_BYTES,
        )
        return _answer(await run_in_thread(result.vectors.nbytes, _tei_answer, result.vectors))

    async def not_made(self, request: Request) -> Response:
        """Refuse requests for kinds of vectors that Text Embeddings Inference computes and towers do not."""
        raise Fault(NOT_FOUND, "a tower makes one vector of numbers for a text: ask POST /embed or /v1/embeddings")

    async def _read(self, request: Request, adapter: TypeAdapter[Any]) -> Any:
        limits = self._tower.limits
        return await read_request(request, limits.request_bytes, partial(_validated, adapter, limits=limits))

    def _normalize(self, request: Body, *names: str) -> Optional[bool]:
        for name in names:
            if getattr(request, name) is False and self._tower.info.normalize:
                raise Fault(UNPROCESSABLE, "is false, and this tower has vectors of length 1 alone", field=name)
        choice: Optional[bool] = request.value_of(*names)
        return choice

    async def _vectors(
        self,
        request: Request,
        items: Sequence[Union[str, Picture]],
        cuts: TruncationRequest,
        *,
        is_query: bool,
        dimensions: Optional[int],
        normalize: Optional[bool],
        number_bytes: int,
    ) -> TextVectors:
        state, info, field = request.scope["state"], self._tower.info, cuts.field
        state["pairs"] = len(items)
        texts = [item for item in items if isinstance(item, str)]
        pictures = [item for item in items if isinstance(item, Picture)]
        if self._keep_texts:
            state["texts"] = {field: texts}
        if dimensions not in (None, info.size, *info.nested_sizes):
            sizes = " or ".join(map(str, (*info.nested_sizes, info.size)))
            raise Fault(INVALID, f"is {dimensions}, this tower's vectors have {sizes} numbers", field="dimensions")
        self._tower.limits.check_pairs(len(items), field)
        held = len(items) * info.size * number_bytes
        if pictures:
            held += len(pictures) * self._tower.picture_bytes(pictures[0].field) + sum(
                len(picture.data) for picture in pictures
            )
        if SHARE in state:
            state[SHARE].reserve_answer(held)
        deadline, parts = deadline_of(request), list[TextVectors]()
        if texts:
            check = cuts.check(self._tower.encoders(is_query))
            parts.append(
                await self._tower.vectors(texts, is_query=is_query, deadline=deadline, field=field, check_lengths=check)
            )
        if pictures:
            files = await run_in_thread(held, lambda: [picture.file() for picture in pictures], deadline=deadline)
            fields = [picture.field for picture in pictures]
            parts.append(await self._tower.picture_vectors(files, fields, deadline=deadline))
        order = np.argsort([isinstance(item, Picture) for item in items], kind="stable")
        result = TextVectors(
            np.concatenate([part.vectors for part in parts])[np.argsort(order)], sum(part.tokens for part in parts)
        )
        vectors = result.vectors if dimensions is None else result.vectors[:, :dimensions]
        if (info.normalize and vectors.shape[1] < info.size) or (normalize and not info.normalize):
            vectors = normalised(vectors)
        return TextVectors(vectors, result.tokens)


def _validated(adapter: TypeAdapter[Any], body: bytes, limits: Limits) -> Any:
    request = validated(adapter, body, text_bounds(limits.pairs), _UNION_TAGS, _refusal)
    field = {EmbeddingsRequest: "input", EmbedRequest: "inputs"}.get(type(request)) or request.source
    value = getattr(request, field)
    if isinstance(value, list):
        limits.check_most(len(value), field)
    return request


def _refusal(error: ValidationError, tags: Collection[str]) -> Fault:
    first = error.errors(include_url=False)[0]
    if first["loc"][:1] == ("inputs",) and _have_pictures(first["input"]):
        problem = "holds pictures, and texts alone are taken here: ask POST /v1/embeddings"
        return Fault(UNPROCESSABLE, problem, field="inputs")
    is_list = "str" in first["loc"] and isinstance(first["input"], list)  # the next error is about its items
    if is_list and _are_tokens(first["input"]):
        problem = "holds tokens, and of another model: send texts (LangChain: check_embedding_ctx_length=False)"
        return Fault(UNPROCESSABLE, problem, field=str(first["loc"][0]))
    return refusal(error, tags, None if is_list else 0)


def _have_pictures(value: object) -> bool:
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, dict) and not {"image", "image_url"}.isdisjoint(item) for item in items)


def _are_tokens(value: object) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    return type(value) is int


def _openai_answer(frame: dict[str, Any], vectors: Array, is_base64: bool) -> bytes:
    rows = _base64_rows(vectors) if is_base64 else number_lists(vectors)
    data = [b'{"object":"embedding","index":%d,"embedding":%b}' % item for item in enumerate(rows)]
    return to_json(frame).replace(b'"data":null', b'"data":[%b]' % b",".join(data), 1)


def _cohere_answer(frame: dict[str, Any], vectors: Array, types: Optional[Sequence[str]]) -> bytes:
    if types is None:
        return to_json(frame).replace(b'"embeddings":null', b'"embeddings":%b' % _tei_answer(vectors), 1)
    rows = {kind: _base64_rows(vectors) if kind == "base64" else number_lists(vectors) for kind in types}
    data = b",".join(b'"%b":[%b]' % (kind.encode(), b",".join(numbers)) for kind, numbers in rows.items())
    return to_json(frame).replace(b'"embeddings":null', b'"embeddings":{%b}' % data, 1)


def _base64_rows(vectors: Array) -> list[bytes]:
    return [b'"%b"' % base64.b64encode(row.astype("<f4").tobytes()) for row in vectors]


def _tei_answer(vectors: Array) -> bytes:
    return b"[%b]" % b",".join(number_lists(vectors))


def _answer(content: bytes) -> Response:
    # Never compressed: gzip would take longer than everything else here, and only halve the size.
    return Response(content, headers={"content-type": "application/json"})


def openai_refusal(fault: Fault, request_id: str) -> dict[str, object]:
    """Convert a fault to the JSON of OpenAI's errors."""
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
    """Return a route for each of `paths`. See `Embedder` for the formats.

    `OPENAI` paths take OpenAI's format, `COHERE` and `COHERE_V1` Cohere's, `OTHER_TEI` paths refuse all requests, and
    all other paths take the format of Text Embeddings Inference's `/embed`.
    """
    embedder = Embedder(tower, keep_texts=keep_texts)
    openai = embedder.embeddings, "Make vectors of texts and pictures", [EmbeddingsRequest], [EmbeddingsAnswer]
    cohere = embedder.cohere, "Make vectors of texts and pictures, as Cohere does", [CohereRequest], [CohereAnswer]
    tei = embedder.embed, "Make vectors, as Text Embeddings Inference does", [EmbedRequest], [Vectors]
    formats: dict[str, tuple[Any, str, list[Any], list[Any]]] = {**dict.fromkeys(OPENAI, openai), COHERE: cohere}
    formats[COHERE_V1] = *cohere[:2], [CohereV1Request], [CohereV1Answer, CohereAnswer]
    made: list[BaseRoute] = []
    for path in paths:
        if path in OTHER_TEI:
            made.append(Route(path, embedder.not_made, methods=["POST"]))
        else:
            handler, summary, takes, gives = formats.get(path, tei)
            made.append(DescribedRoute("POST", path, handler, summary, takes, gives, "Vectors"))
    return made
