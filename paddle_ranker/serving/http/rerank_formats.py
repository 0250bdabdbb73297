"""Rerank requests and answers over HTTP, in the formats that the server reads and writes, and that clients use.

`RERANK_FORMATS` describes the requests and answers of each service for a client.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Optional, Union

from pydantic import BaseModel, ConfigDict, FailFast, Field, with_config
from typing_extensions import NotRequired, TypeAliasType, TypedDict

from paddle_ranker.serving.core.faults import UNPROCESSABLE, Fault
from paddle_ranker.serving.core.validation import Body

_FINITE = ConfigDict(strict=True, allow_inf_nan=False)
Score = Annotated[float, Field(ge=-1e9, le=1e9)]  # far more than any logit
LABEL: Literal["LABEL_0"] = "LABEL_0"  # the only class of a ranker, as /info shows it


Texts = TypeAliasType("Texts", Annotated[list[str], FailFast()])
Side = Literal["left", "Left", "right", "Right"]


class ClientRequest(Body):
    """A request in the format of another service. Some fields that its clients send have no effect on this server."""

    without_effect: ClassVar[Mapping[str, Collection[object]]] = {
        **dict.fromkeys(("model", "user", "request_id", "priority", "cache_salt", "padding"), ()),
        "rank_fields": (["text"],),  # Cohere
        "max_chunks_per_doc": (1,),
        "return_embeddings": (False,),  # Jina
        "embedding_type": ("float",),
        "late_chunking": (False,),
        "return_multivector": (False,),
        "output_dtype": ("float",),  # Voyage
        "encoding_format": ("float",),
        "embed_dtype": ("float32",),  # vLLM, LiteLLM, SiliconFlow
        "endianness": ("native", "little"),
        "instruction": ("",),
        "mm_processor_kwargs": ({},),
        "add_special_tokens": (True,),
        "chat_template_kwargs": ({},),
        "return_len": (False,),  # Xinference
        "modality": ("text",),  # Infinity
        "return_documents": (False,),
        "return_text": (False,),  # Text Embeddings Inference
        "parameters": ({},),  # Hugging Face
    }


class DocumentObject(BaseModel):
    """A title as a JSON object. With `return_documents`, the answer has all its fields."""

    model_config = ConfigDict(strict=True, extra="allow")

    text: str = ""
    image: Optional[str] = Field(
        None, description="a picture in place of the text, as a data: URL or in base64, for a ranker that reads them"
    )
    places: Optional[list[list[Union[float, int]]]] = Field(  # an int stays one; of both errors, the first is told
        None,
        description="spans of the text with boxes, `[start, end, x0, y0, x1, y1]` as fractions of the page, or cells, "
        "`[start, end, row, column]`; an empty list is none",
    )


class Activation(ClientRequest):
    """Fields that ask for logits: `raw_scores` (Text Embeddings Inference), and vLLM's three names."""

    raw_scores: Optional[bool] = Field(None, description="logits instead of probabilities")
    use_activation: Optional[bool] = Field(None, description="vLLM's name: false for logits")
    softmax: Optional[bool] = Field(None, description="vLLM's older name of use_activation")
    activation: Optional[bool] = Field(None, description="vLLM's older name of use_activation")
    truncate_prompt_tokens: Optional[int] = Field(
        None, ge=-1, description="tokens that a pair may have; -1: as many as are scored"
    )
    truncation_side: Optional[Side] = Field(None, description="at which end long texts are cut")

    @property
    def wants_logits(self) -> bool:
        """Whether the request asks for logits. Raises `Fault` if its fields contradict each other."""
        activated = self.value_of("use_activation", "softmax", "activation")
        if self.raw_scores is not None and self.raw_scores == activated:
            raise Fault(UNPROCESSABLE, "says otherwise than use_activation: leave one out", field="raw_scores")
        return bool(self.raw_scores) or activated is False


class RerankRequest(Activation):
    """Request to rank documents for a query (Cohere, Jina, Voyage, vLLM, LiteLLM)."""

    titles_field: ClassVar[str] = "documents"

    query: str
    # Validation stops at the first wrong document, since an error takes a thousand times a document's bytes.
    documents: Annotated[list[Union[str, DocumentObject]], FailFast()] = Field(
        description="titles, as texts or as objects with a `text`"
    )
    top_n: Optional[int] = Field(None, ge=1, description="only so many, the best")
    top_k: Optional[int] = Field(None, ge=1, description="Voyage's name for top_n")
    return_documents: Optional[bool] = Field(False, description="answer with the documents")
    truncation: Optional[bool] = Field(None, description="false: refuse what is too long (Voyage)")
    truncate: Optional[bool] = Field(None, description="as truncation")
    truncation_direction: Optional[Side] = Field(None, description="as truncation_side")
    max_tokens_per_doc: Optional[int] = Field(None, ge=1, description="tokens that a document may have with the query")
    max_tokens_per_query: Optional[int] = Field(None, ge=1, description="tokens that the query may have")


class TeiRequest(ClientRequest):
    """Fields that Text Embeddings Inference takes beside texts."""

    raw_scores: Optional[bool] = Field(False, description="logits instead of probabilities")
    truncate: Optional[bool] = Field(
        False, description="cut what is too long, instead of refusing it; a server with --auto_truncate always does"
    )
    truncation_direction: Optional[Side] = Field("right", description="at which end long texts are cut")


class TextsRequest(TeiRequest):
    """Request to rank texts for a query (Text Embeddings Inference)."""

    titles_field: ClassVar[str] = "texts"

    query: str
    texts: Texts
    return_text: Optional[bool] = Field(False, description="answer with the texts")


class PredictRequest(TeiRequest):
    """Request to score a pair of texts, or several (Text Embeddings Inference)."""

    inputs: Annotated[list[Union[str, Texts]], FailFast()] = Field(description="[query, text], or several of these")


_Texts = Optional[Union[str, Texts]]
PAIRS_OF_FIELDS = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


class ScoreRequest(Activation):
    """Request to score pairs of texts (vLLM): one query for all documents, or one for each."""

    text_1: _Texts = Field(None, description="the query, or one for each text of text_2")
    text_2: _Texts = Field(None, description="the text, or several")
    queries: _Texts = Field(None, description="as text_1, with documents or items")
    documents: _Texts = None
    items: _Texts = None
    data_1: _Texts = Field(None, description="as text_1, with data_2")
    data_2: _Texts = None


class Usage(TypedDict):
    """Number of tokens that were computed. The query counts again for each document."""

    prompt_tokens: int
    total_tokens: int


@with_config(_FINITE)
class RankedResult(TypedDict):
    """A result in Cohere's, Jina's, Voyage's and vLLM's answers."""

    index: int
    relevance_score: Annotated[Score, Field(description="the probability of relevance")]
    document: NotRequired[Annotated[Any, Field(description="an object with the text, and what came with it")]]


@with_config(_FINITE)
class ScoredResult(TypedDict):
    """A result in Text Embeddings Inference's answers."""

    index: int
    score: Score
    text: NotRequired[Any]


class RankedAnswer(TypedDict):
    """An answer to a `RerankRequest`: results, best first, and counts for billing."""

    results: list[RankedResult]
    usage: NotRequired[Any]
    meta: NotRequired[Any]


class VoyageAnswer(TypedDict):
    """Voyage's answer."""

    data: list[RankedResult]
    usage: NotRequired[Any]


class Ranked(TypedDict):
    """This server's answer to a `RerankRequest`, which the clients of all services can read."""

    id: str
    model: str
    results: Annotated[list[RankedResult], Field(description="best first")]
    meta: Annotated[dict[str, Any], Field(description="version; clipped_boxes: boxes that reached outside their pages")]
    usage: Usage
    object: NotRequired[Literal["list"]]
    data: NotRequired[
        Annotated[
            list[RankedResult],
            Field(description="results without their documents, for Voyage's clients; not at /v2/rerank"),
        ]
    ]


Scored = Annotated[list[ScoredResult], Field(description="best first")]


class PairScore(TypedDict):
    """The score of a pair in vLLM's answers."""

    index: int
    object: Literal["score"]
    score: float


class PairScores(TypedDict):
    """An answer to a `ScoreRequest`."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: Annotated[list[PairScore], Field(description="in the order of the pairs")]
    usage: Usage


class Class(TypedDict):
    """The only class of a pair, in Text Embeddings Inference's answers."""

    score: float
    label: Literal["LABEL_0"]


Predicted = Union[
    Annotated[list[Class], Field(description="of a pair")],
    Annotated[list[list[Class]], Field(description="of several pairs")],
]


@dataclass(frozen=True)
class RerankFormat:
    """The requests and answers of a service that ranks, for a client.

    what: names of the services
    request: the request's class, whose `titles_field` names the titles
    says: values of further fields of a request, by name
    answer: the answer's type, for pydantic
    results: name of the list of results in the answer; None: the answer is this list
    score: name of the score in a result
    paths: ends of the URL paths that show this service
    hosts: ends of the host names that show this service, whatever the path
    has_model: whether a request may name a model
    has_logits: whether requests ask for logits; if not, the client infers from their range whether scores are logits
    batch: default number of titles per request; Cohere bills up to 100 titles as one search
    tokens_header: header field of the answer with the number of tokens that were computed
    """

    what: str
    request: type[Union[RerankRequest, TextsRequest]]
    says: Mapping[str, Any]
    answer: Any
    results: Optional[str]
    score: str = "relevance_score"
    paths: Sequence[str] = ()
    hosts: Sequence[str] = ()
    has_model: bool = True
    has_logits: bool = False
    batch: int = 100
    tokens_header: Optional[str] = None

    def body(self, query: str, titles: Sequence[str], model: Optional[str]) -> dict[str, Any]:
        """Return the body of a request, JSON-ready, without optional fields.

        model: the model to name, or None
        """
        named = {} if model is None else {"model": model}
        titles_named = {self.request.titles_field: list(titles)}
        # Not validated here: the server does that.
        request = self.request.model_construct(query=query, **titles_named, **self.says, **named)
        return request.model_dump(exclude_unset=True, warnings=False)


_WITHOUT_TEXTS = {"return_documents": False}
RERANK_FORMATS: Mapping[str, RerankFormat] = {
    "cohere": RerankFormat(
        "Cohere v2", RerankRequest, {}, RankedAnswer, "results",
        paths=("/v2/rerank",),
    ),
    "jina": RerankFormat(
        "Jina and Cohere v1", RerankRequest, _WITHOUT_TEXTS, RankedAnswer, "results",
        paths=("/v1/rerank", "/v1/reranking"),
    ),
    "voyage": RerankFormat(
        "Voyage", RerankRequest, _WITHOUT_TEXTS, VoyageAnswer, "data", hosts=("voyageai.com",),
    ),
    "tei": RerankFormat(
        "Text Embeddings Inference", TextsRequest, {"raw_scores": True, "truncate": True}, list[ScoredResult], None,
        score="score", paths=("/rerank",), has_model=False, has_logits=True, batch=32,
        tokens_header="x-compute-tokens",
    ),
    "vllm": RerankFormat(
        "vLLM", RerankRequest, {"truncate_prompt_tokens": -1, "use_activation": False}, RankedAnswer, "results",
    ),
}  # fmt: skip
# Costs in an answer: path of names in the JSON, and the unit that is counted.
COSTS = (
    (("usage", "total_tokens"), "tokens"),
    (("meta", "tokens", "input_tokens"), "tokens"),
    (("meta", "billed_units", "search_units"), "search units"),
)


def format_of(host: str, path: str) -> Optional[str]:
    """Return the key in `RERANK_FORMATS` for a URL: by its host, else by its path, or None if neither is known."""
    for name, spoken in RERANK_FORMATS.items():
        if any(host == end or host.endswith(f".{end}") for end in spoken.hosts):
            return name
    ends = [(len(end), name) for name, spoken in RERANK_FORMATS.items() for end in spoken.paths if path.endswith(end)]
    return max(ends)[1] if ends else None
