"""Rerank requests and answers over HTTP: the names that the server reads and writes, and that its clients do.

`RERANK_PROTOCOLS` says what each service's clients ask and how its answers are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Optional, Union

from pydantic import BaseModel, ConfigDict, FailFast, Field, with_config
from typing_extensions import NotRequired, TypedDict

_FINITE = ConfigDict(strict=True, allow_inf_nan=False)
Score = Annotated[float, Field(ge=-1e9, le=1e9)]  # far more than any logit


class Document(BaseModel):
    """A title as an object; what it holds beside the text is left alone."""

    model_config = ConfigDict(strict=True)

    text: str


class RerankRequest(BaseModel):
    """Rank documents for a query (Cohere, Jina, Voyage, LiteLLM); keys that are not here are ignored."""

    model_config = ConfigDict(strict=True, protected_namespaces=())
    titles_field: ClassVar[str] = "documents"

    query: str
    # The first wrong one says enough: what is told of each is a thousand times its bytes.
    documents: Annotated[list[Union[str, Document]], FailFast()] = Field(
        description="titles, as texts or as objects with a `text`"
    )
    model: Optional[str] = Field(None, description="ignored: there is one")
    top_n: Optional[int] = Field(None, ge=1, description="only so many, the best")
    top_k: Optional[int] = Field(None, ge=1, description="Voyage's name for top_n")
    return_documents: Optional[bool] = Field(False, description="answer with the texts")


class TextsRequest(BaseModel):
    """Rank texts for a query (Text Embeddings Inference)."""

    model_config = ConfigDict(strict=True)
    titles_field: ClassVar[str] = "texts"

    query: str
    texts: Annotated[list[str], FailFast()]
    raw_scores: Optional[bool] = Field(False, description="logits instead of probabilities")
    return_text: Optional[bool] = Field(False, description="answer with the texts")
    truncate: Optional[bool] = Field(
        False, description="cut what is too long, instead of refusing it; a server with --auto_truncate always does"
    )


class VllmRequest(RerankRequest):
    """Rank documents for a query (vLLM): what it takes beside Cohere's and Jina's fields."""

    truncate_prompt_tokens: Optional[int] = None  # -1: to the model's length
    use_activation: Optional[bool] = None  # False: logits


@with_config(_FINITE)
class RankedResult(TypedDict):
    """A result in Cohere's, Jina's, Voyage's and vLLM's answers."""

    index: int
    relevance_score: Score
    document: NotRequired[Any]


@with_config(_FINITE)
class ScoredResult(TypedDict):
    """A result in Text Embeddings Inference's answers."""

    index: int
    score: Score
    text: NotRequired[Any]


class RankedAnswer(TypedDict):
    """An answer to a `RerankRequest`: results, and what they cost."""

    results: list[RankedResult]
    usage: NotRequired[Any]
    meta: NotRequired[Any]


class VoyageAnswer(TypedDict):
    """Voyage's answer."""

    data: list[RankedResult]
    usage: NotRequired[Any]


@dataclass(frozen=True)
class RerankProtocol:
    """How a service's clients ask it to rank, and how its answers are read.

    what: the services that speak it
    request: the request's class, whose `titles_field` names the titles
    says: fields that a request has beside the query, the titles and the model
    answer: the answer's type, for pydantic
    results: name of the results in the answer; None: the answer is the results
    score: name of the score in a result
    paths: ends of the paths at which services are asked so
    hosts: ends of the names of hosts that are asked so whatever the path
    has_model: whether a request may name a model
    has_logits: whether the scores are logits, since the request asks for them; else the scores themselves show it
    batch: titles of a request, unless its sender says otherwise; Cohere bills a hundred as one
    tokens_header: header of the answer with the number of tokens that were computed
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
        """Return a request, JSON-ready; without fields that it need not say."""
        named = {} if model is None else {"model": model}
        titles_named = {self.request.titles_field: list(titles)}
        # Not checked: that is the server's.
        asked = self.request.model_construct(query=query, **titles_named, **self.says, **named)
        return asked.model_dump(exclude_unset=True, warnings=False)


_OWN_TEXTS = {"return_documents": False}
RERANK_PROTOCOLS: Mapping[str, RerankProtocol] = {
    "cohere": RerankProtocol(
        "Cohere v2", RerankRequest, {}, RankedAnswer, "results",
        paths=("/v2/rerank",),
    ),
    "jina": RerankProtocol(
        "Jina and Cohere v1", RerankRequest, _OWN_TEXTS, RankedAnswer, "results",
        paths=("/v1/rerank", "/v1/reranking"),
    ),
    "voyage": RerankProtocol(
        "Voyage", RerankRequest, _OWN_TEXTS, VoyageAnswer, "data", hosts=("voyageai.com",),
    ),
    "tei": RerankProtocol(
        "Text Embeddings Inference", TextsRequest, {"raw_scores": True, "truncate": True}, list[ScoredResult], None,
        score="score", paths=("/rerank",), has_model=False, has_logits=True, batch=32,
        tokens_header="x-compute-tokens",
    ),
    "vllm": RerankProtocol(
        "vLLM", VllmRequest, {"truncate_prompt_tokens": -1, "use_activation": False}, RankedAnswer, "results",
    ),
}  # fmt: skip
# Where an answer says what it cost: the path of names, and what is counted there.
COSTS = (
    (("usage", "total_tokens"), "tokens"),
    (("meta", "tokens", "input_tokens"), "tokens"),
    (("meta", "billed_units", "search_units"), "search units"),
)


def protocol_of(host: str, path: str) -> Optional[str]:
    """Return the name of the protocol that a URL's host, or else its path, stands for; None if neither is known."""
    for name, protocol in RERANK_PROTOCOLS.items():
        if any(host == end or host.endswith(f".{end}") for end in protocol.hosts):
            return name
    ends = [
        (len(end), name) for name, protocol in RERANK_PROTOCOLS.items() for end in protocol.paths if path.endswith(end)
    ]
    return max(ends)[1] if ends else None
