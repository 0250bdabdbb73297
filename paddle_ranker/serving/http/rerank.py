"""`POST /v1/rerank`, `/v2/rerank` in Cohere's and Jina's format; `/rerank` in Text Embeddings Inference's, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Protocol

import numpy as np
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from paddle_ranker.encoding.columns import Array
from paddle_ranker.serving.core.apart import apart
from paddle_ranker.serving.core.faults import TOO_LARGE, Fault
from paddle_ranker.serving.core.jobs import Check
from paddle_ranker.serving.core.json_text import text_bounds
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.scores import Scores, ScoringService
from paddle_ranker.serving.core.validation import validated
from paddle_ranker.serving.http.exchange import answer, deadline_of, json_bytes, read_body
from paddle_ranker.serving.http.openapi import NUMBER, operation, results_schema, schemas_of
from paddle_ranker.serving.http.rerank_formats import RankedResult, RerankRequest, ScoredResult, TextsRequest

_UNION_TAGS = ("str", "Document")
_OF_COHERE_ALONE = "/v2/rerank"


class RerankService(ScoringService, Protocol):
    """What these routes need from the server: scores and the model's name."""

    @property
    def name(self) -> str: ...

    async def score_pairs(
        self,
        queries: Sequence[str],
        titles: Sequence[str],
        *,
        deadline: Optional[float] = None,
        check_lengths: Optional[Check] = None,
    ) -> Scores:
        """Return the scores of the pairs, see `ScoringService`; `check_lengths` may refuse them by their tokens."""
        ...


class Reranker:
    """The handlers of the routes.

    Args:
        service: gives the scores.
        keep_texts: put the texts into the request's state, for the log.
    """

    def __init__(self, service: RerankService, *, keep_texts: bool = False):
        self._service = service
        self._keep_texts = keep_texts
        self._documents = TypeAdapter(RerankRequest)
        self._texts = TypeAdapter(TextsRequest)

    async def ranked(self, request: Request) -> Response:
        """Answer in Cohere's and Jina's format."""
        deadline = deadline_of(request)
        body = await read_body(request, self._service.limits.request_bytes)
        asked = await self._parse(self._documents, body, deadline)
        del body  # its texts are held once
        return await self._rank_documents(request, asked, deadline)

    async def any_shape(self, request: Request) -> Response:
        """Answer in the format of the request: Text Embeddings Inference's if it has `texts`, else Cohere's."""
        deadline = deadline_of(request)
        body = await read_body(request, self._service.limits.request_bytes)
        asked = None
        if b'"texts"' in body:  # a document may hold the word, too
            try:
                asked = await self._parse(self._texts, body, deadline)
            except Fault as fault:
                if fault.field != "texts" or "required" not in str(fault):  # it has texts, and something else is wrong
                    raise
                fault.settled()
        if asked is None:
            asked = await self._parse(self._documents, body, deadline)
        del body  # its texts are held once
        rank = self._rank_texts if isinstance(asked, TextsRequest) else self._rank_documents
        return await rank(request, asked, deadline)

    async def _rank_documents(self, request: Request, asked: RerankRequest, deadline: Optional[float]) -> Response:
        titles = [document if isinstance(document, str) else document.text for document in asked.documents]
        scores = await self._score(request, asked.query, titles, "documents", deadline)
        probabilities = scores.probabilities.tolist()
        best = np.argsort(-scores.probabilities, kind="stable")[: asked.top_n or asked.top_k].tolist()
        scored: list[RankedResult] = [{"index": i, "relevance_score": probabilities[i]} for i in best]
        results = scored
        if asked.return_documents:
            results = [{**one, "document": {"text": titles[one["index"]]}} for one in scored]
        path = request.scope["path"]
        content = {
            "id": request.scope["state"]["request_id"],
            "model": self._service.name,
            "results": None,
            "meta": {"api_version": {"version": "1" if path.startswith("/v1") else "2"}},
            "usage": {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens},
        }
        if path != _OF_COHERE_ALONE:  # Voyage's clients read their own names, and do not say who they are
            content.update({"object": "list", "data": None})
        returned = sum(map(len, titles)) if asked.return_documents else 0
        encoded = await apart(returned, _with_results, content, results, scored)
        return answer(request, encoded, "application/json")

    async def _rank_texts(self, request: Request, asked: TextsRequest, deadline: Optional[float]) -> Response:
        request.scope["state"]["protocol"] = "tei"
        cuts = asked.truncate or self._service.limits.auto_truncate
        check = None if cuts else _refuse_long
        scores = await self._score(request, asked.query, asked.texts, "texts", deadline, check)
        shown = (scores.logits if asked.raw_scores else scores.probabilities).tolist()
        ranked: list[ScoredResult] = []
        for i in np.argsort(-scores.logits, kind="stable").tolist():
            ranked.append({"index": i, "score": shown[i]})
            if asked.return_text:
                ranked[-1]["text"] = asked.texts[i]
        returned = sum(map(len, asked.texts)) if asked.return_text else 0
        return answer(request, await apart(returned, json_bytes, ranked), "application/json")

    async def _score(
        self,
        request: Request,
        query: str,
        titles: list[str],
        field: str,
        deadline: Optional[float],
        check_lengths: Optional[Check] = None,
    ) -> Scores:
        state, limits = request.scope["state"], self._service.limits
        state["pairs"] = len(titles)
        if self._keep_texts:
            state["texts"] = {"query": query, field: titles}
        limits.check_pairs(len(titles), field)
        query, taken = limits.scored_text(query, "query"), limits.scored_texts(titles, field)
        queries = [query] * len(taken)
        return await self._service.score_pairs(queries, taken, deadline=deadline, check_lengths=check_lengths)

    async def _parse(self, adapter: TypeAdapter[Any], body: bytes, deadline: Optional[float]) -> Any:
        return await apart(len(body), _validated, adapter, body, self._service.limits, deadline=deadline)


def _validated(adapter: TypeAdapter[Any], body: bytes, limits: Limits) -> Any:
    asked = validated(adapter, body, text_bounds(limits.pairs), _UNION_TAGS)
    if isinstance(asked, TextsRequest):
        limits.check_most(len(asked.texts), "texts")
    else:
        limits.check_most(len(asked.documents), "documents")
    return asked


def _refuse_long(first: int, lengths: Array, most: int) -> None:
    """Raise `Fault` if a pair would be truncated, as Text Embeddings Inference does without `truncate`."""
    if lengths.max() > most:
        place = int(np.argmax(lengths > most))
        problem = (
            f"has with its query more than the {most} tokens that are scored; send truncate: true, or start "
            "the server with --auto_truncate true"
        )
        raise Fault(TOO_LARGE, problem, field=f"texts[{first + place}]")


def _with_results(content: dict[str, Any], results: list[RankedResult], data: list[RankedResult]) -> bytes:
    """Return `content` as JSON with `results` and `data`, without the texts, in place of None.

    They are nearly all of it: they are encoded once, and texts are written once.
    """
    frame, written = json_bytes(content), json_bytes(results)
    # A name and its colon stand in no string: the quotes in one are escaped.
    frame = frame.replace(b'"data":null', b'"data":' + (written if data is results else json_bytes(data)))
    return frame.replace(b'"results":null', b'"results":' + written)


def routes(service: RerankService, *, keep_texts: bool = False) -> list[BaseRoute]:
    """Return the routes; see `Reranker`."""
    reranker = Reranker(service, keep_texts=keep_texts)
    return [
        Route("/v1/rerank", reranker.ranked, methods=["POST"]),
        Route("/v2/rerank", reranker.ranked, methods=["POST"]),
        Route("/rerank", reranker.any_shape, methods=["POST"]),
    ]


_RANKED = results_schema(
    "best first",
    index={"type": "integer"},
    relevance_score={**NUMBER, "description": "the probability of relevance"},
    document={"type": "object", "properties": {"text": {"type": "string"}}},
)
_COUNT = {"type": "integer", "description": "tokens that were scored, of the query beside each document"}
_RANKED["properties"].update(
    usage={"type": "object", "properties": {"prompt_tokens": _COUNT, "total_tokens": _COUNT}},
    data={"description": f"results without their documents, for Voyage's clients; not at {_OF_COHERE_ALONE}"},
)
_SCORED = {
    "type": "array",
    "description": "best first",
    "items": {
        "type": "object",
        "required": ["index", "score"],
        "properties": {"index": {"type": "integer"}, "score": NUMBER, "text": {"type": "string"}},
    },
}


def describe() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the routes' OpenAPI descriptions, and their schemas."""
    ranked = operation("Rank documents for a query", ["RerankRequest"], ["Ranked"])
    either = operation(
        "Rank documents, or texts as Text Embeddings Inference has them", ["RerankRequest", "TextsRequest"],
        ["Ranked", "Scored"],
    )  # fmt: skip
    paths = {"/v1/rerank": {"post": ranked}, "/v2/rerank": {"post": ranked}, "/rerank": {"post": either}}
    return paths, {"Ranked": _RANKED, "Scored": _SCORED, **schemas_of(RerankRequest, TextsRequest)}
