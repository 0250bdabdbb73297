"""`POST /v1/rerank`, `/v2/rerank` in Cohere's and Jina's format; `/rerank` also in Text Embeddings Inference's.

Pairs without an order: `/score` and `/v1/score` in vLLM's format, `/predict` in Text Embeddings Inference's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Union, cast

import numpy as np
from pydantic import TypeAdapter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from paddle_ranker.data.files.placed_text import PlacedText
from paddle_ranker.errors import listed
from paddle_ranker.serving.core.faults import INVALID, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import text_bounds
from paddle_ranker.serving.core.limits import Limits, require_words
from paddle_ranker.serving.core.threads import MUCH_BYTES, run_in_thread
from paddle_ranker.serving.core.validation import validated
from paddle_ranker.serving.http.exchange import SHARE, answer, deadline_of, read_request
from paddle_ranker.serving.http.lengths import TruncationRequest
from paddle_ranker.serving.http.openapi import DescribedRoute
from paddle_ranker.serving.http.rerank_formats import (
    LABEL,
    PAIRS_OF_FIELDS,
    DocumentObject,
    PairScores,
    Predicted,
    PredictRequest,
    Ranked,
    RankedResult,
    RerankRequest,
    Scored,
    ScoredResult,
    ScoreRequest,
    TeiRequest,
    TextsRequest,
)
from paddle_ranker.serving.http.sent_pictures import Picture
from paddle_ranker.serving.slots.ranker_slot import RankerSlot
from paddle_ranker.serving.slots.services import Scores

_BYTES_A_PLACE = 64  # that checking a place costs as much as reading
_UNION_TAGS = ("str", "DocumentObject", "list[str]", "float", "int")
_OF_COHERE_ALONE = "/v2/rerank"
_TOKENS = ("truncate_prompt_tokens", "max_tokens_per_doc", "max_tokens_per_query")


class Reranker:
    """Handlers of the routes that rank or score.

    Args:
        service: slot of the ranker.
        keep_texts: whether to put the texts into the request's state, for the log.
    """

    def __init__(self, service: RankerSlot, *, keep_texts: bool = False):
        self._service = service
        self._keep_texts = keep_texts
        self._documents, self._texts = TypeAdapter(RerankRequest), TypeAdapter(TextsRequest)
        self._predict, self._score = TypeAdapter(PredictRequest), TypeAdapter(ScoreRequest)

    async def ranked(self, request: Request) -> Response:
        """Answer in Cohere's and Jina's format."""
        return await self._rank_documents(request, await self._read(request, self._documents))

    async def any_shape(self, request: Request) -> Response:
        """Answer in the request's format: Text Embeddings Inference's if the request has `texts`, else Cohere's."""
        limits = self._service.limits

        def parse(body: bytes) -> Union[TextsRequest, RerankRequest]:
            if b'"texts"' in body:  # a document may hold the word, too
                try:
                    return _validated(self._texts, body, limits)
                except Fault as fault:
                    if fault.field != "texts" or b'"documents"' not in body:  # another field is wrong
                        raise
            return _validated(self._documents, body, limits)

        parsed = await read_request(request, limits.request_bytes, parse)
        if isinstance(parsed, TextsRequest):
            return await self._rank_texts(request, parsed)
        return await self._rank_documents(request, parsed)

    async def _rank_documents(self, request: Request, rerank_request: RerankRequest) -> Response:
        titles = await self._titles(request, rerank_request.documents)
        spans = sum(len(title.places) for title in titles if isinstance(title, PlacedText))
        clipped = await run_in_thread(_BYTES_A_PLACE * spans, self._clipped, titles)
        wants_logits, top = rerank_request.wants_logits, rerank_request.value_of("top_n", "top_k")
        cuts = TruncationRequest(
            "documents",
            rerank_request.value_of("truncate", "truncation") is False and not self._service.limits.auto_truncate,
            {name: getattr(rerank_request, name) for name in ("truncation_direction", "truncation_side")},
            {name: getattr(rerank_request, name) for name in _TOKENS},
        )
        scores = await self._scores(request, [rerank_request.query], titles, ("query", "documents"), cuts)
        shown = (scores.logits if wants_logits else scores.probabilities).tolist()
        best = np.argsort(-scores.logits, kind="stable")[:top].tolist()
        scored: list[RankedResult] = [{"index": i, "relevance_score": shown[i]} for i in best]
        results = scored
        if rerank_request.return_documents:
            documents = [
                {"text": document} if isinstance(document, str) else document.model_dump(exclude_unset=True)
                for document in rerank_request.documents
            ]
            results = [{**result, "document": documents[result["index"]]} for result in scored]
        path = request.scope["path"]
        content = {
            "id": request.scope["state"]["request_id"],
            "model": self._service.name,
            "results": results,
            "meta": {"api_version": {"version": "1" if path.startswith("/v1") else "2"}},
            "usage": {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens},
        }
        if clipped:
            content["meta"]["clipped_boxes"] = clipped
        if path != _OF_COHERE_ALONE:  # Voyage's clients, which cannot be told apart, read these names
            content.update({"object": "list", "data": scored})
        has_more = rerank_request.return_documents and any(
            isinstance(document, DocumentObject) for document in rerank_request.documents
        )
        returned = MUCH_BYTES + 1 if has_more else sum(map(len, titles)) if rerank_request.return_documents else 0
        encoded = await run_in_thread(returned, to_json, content)
        return answer(request, encoded)

    def _clipped(self, titles: Sequence[str]) -> int:
        """Return how many boxes reach outside their pages; raises `Fault` for places of another form."""
        placed = [(number, title) for number, title in enumerate(titles) if isinstance(title, PlacedText)]
        return sum(self._service.check_places(title, f"documents[{number}].places") for number, title in placed)

    async def _titles(self, request: Request, documents: Sequence[Union[str, DocumentObject]]) -> list[str]:
        """Return the texts of a request's documents. Pictures are decoded to `FileTitle`s."""
        objects = {number: one for number, one in enumerate(documents) if isinstance(one, DocumentObject)}
        if not objects:
            return cast("list[str]", documents)
        spans = sum(len(one.places or ()) for one in objects.values())
        texts = await run_in_thread(_BYTES_A_PLACE * spans, _texts_of, objects)
        titles = [texts.get(number, one) for number, one in enumerate(cast("list[str]", documents))]
        pictures = {
            number: Picture(f"documents[{number}].image", one.image)
            for number, one in objects.items()
            if one.image is not None
        }
        if not pictures:
            return titles
        fields = [picture.field for picture in pictures.values()]
        if not self._service.reads_pictures:
            raise Fault(UNPROCESSABLE, "is a picture, and this ranker reads texts: serve a ViLT", field=fields[0])
        size = sum(len(picture.data) for picture in pictures.values())
        if SHARE in request.scope["state"]:
            request.scope["state"][SHARE].reserve_answer(size + len(pictures) * self._service.picture_bytes())
        deadline = deadline_of(request)
        files = await run_in_thread(size, lambda: [picture.file() for picture in pictures.values()], deadline=deadline)
        read = await self._service.picture_titles(files, fields, deadline=deadline)
        for place, title in zip(pictures, read):
            titles[place] = title
        return titles

    async def _rank_texts(self, request: Request, texts_request: TextsRequest) -> Response:
        request.scope["state"]["protocol"] = "tei"
        cuts = self._tei_cuts(texts_request, "texts")
        scores = await self._scores(request, [texts_request.query], texts_request.texts, ("query", "texts"), cuts)
        shown = (scores.logits if texts_request.raw_scores else scores.probabilities).tolist()
        ranked: list[ScoredResult] = []
        for i in np.argsort(-scores.logits, kind="stable").tolist():
            ranked.append({"index": i, "score": shown[i]})
            if texts_request.return_text:
                ranked[-1]["text"] = texts_request.texts[i]
        returned = sum(map(len, texts_request.texts)) if texts_request.return_text else 0
        return answer(request, await run_in_thread(returned, to_json, ranked))

    async def scored(self, request: Request) -> Response:
        """Answer in vLLM's format of scores, in the order of the pairs."""
        score_request: ScoreRequest = await self._read(request, self._score)
        names = _fields_of(score_request)
        values: list[Any] = [getattr(score_request, name) for name in names]
        queries, texts = [[value] if isinstance(value, str) else value for value in values]
        wants_logits, sides = score_request.wants_logits, {"truncation_side": score_request.truncation_side}
        cuts = TruncationRequest(
            names[1], False, sides, {"truncate_prompt_tokens": score_request.truncate_prompt_tokens}
        )
        scores = await self._scores(request, queries, texts, names, cuts)
        shown = (scores.logits if wants_logits else scores.probabilities).tolist()
        content = {
            "id": request.scope["state"]["request_id"],
            "object": "list",
            "created": int(time.time()),
            "model": self._service.name,
            "data": [{"index": i, "object": "score", "score": score} for i, score in enumerate(shown)],
            "usage": {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens},
        }
        return answer(request, to_json(content))

    async def predicted(self, request: Request) -> Response:
        """Answer in Text Embeddings Inference's format of classes, in the order of the pairs."""
        predict_request: PredictRequest = await self._read(request, self._predict)
        is_one = all(isinstance(text, str) for text in predict_request.inputs)
        pairs = [predict_request.inputs] if is_one else predict_request.inputs
        for place, pair in enumerate(pairs):
            if isinstance(pair, str) or len(pair) != 2:
                problem = "is no pair: a ranker takes [query, text], or several of these"
                raise Fault(UNPROCESSABLE, problem, field="inputs" if is_one else f"inputs[{place}]")
        queries, texts = [str(pair[0]) for pair in pairs], [str(pair[1]) for pair in pairs]
        cuts = self._tei_cuts(predict_request, "inputs")
        scores = await self._scores(request, queries, texts, ("inputs", "inputs"), cuts)
        shown = (scores.logits if predict_request.raw_scores else scores.probabilities).tolist()
        classes = [[{"score": score, "label": LABEL}] for score in shown]
        return answer(request, to_json(classes[0] if is_one else classes))

    def _tei_cuts(self, request: TeiRequest, field: str) -> TruncationRequest:
        refuses = not (request.truncate or self._service.limits.auto_truncate)
        return TruncationRequest(field, refuses, {"truncation_direction": request.truncation_direction})

    async def _scores(
        self,
        request: Request,
        queries: list[str],
        titles: list[str],
        fields: tuple[str, str],
        cuts: TruncationRequest,
    ) -> Scores:
        """Score each title, for its own query or for the only query.

        fields: names of the request's fields with queries and titles, for faults
        cuts: how the request wants long texts to be treated
        """
        state, limits, (query_field, field) = request.scope["state"], self._service.limits, fields
        state["pairs"] = len(titles)
        if self._keep_texts:
            state["texts"] = {query_field: queries if len(queries) > 1 else queries[0], field: titles}
        limits.check_pairs(len(titles), field)
        if len(queries) not in (1, len(titles)):
            problem = f"holds {len(queries):,} texts and {field} {len(titles):,}: send one, or one for each"
            raise Fault(INVALID, problem, field=query_field)
        if len(queries) == 1:
            queries = [limits.scored_text(queries[0], query_field)] * len(titles)
            require_words(queries[0], query_field)
        else:
            queries = list(limits.scored_texts(queries, query_field))
            require_words(queries, query_field)
        taken = limits.scored_texts(titles, field)
        require_words(taken, field)
        check = cuts.check(self._service.encoders)
        deadline = deadline_of(request)
        scores = await self._service.score_pairs(queries, taken, deadline=deadline, check_lengths=check)
        state["spans"] = scores.spans
        return scores

    async def _read(self, request: Request, adapter: TypeAdapter[Any]) -> Any:
        limits = self._service.limits
        return await read_request(request, limits.request_bytes, partial(_validated, adapter, limits=limits))


def _texts_of(objects: Mapping[int, DocumentObject]) -> dict[int, str]:
    return {number: _text(document, number) for number, document in objects.items()}


def _text(document: DocumentObject, number: int) -> str:
    if not {"text", "image"} & document.model_fields_set:
        raise Fault(UNPROCESSABLE, "has no text and no image", field=f"documents[{number}].text")
    if not document.places:
        return document.text
    try:
        return PlacedText(document.text, document.places)
    except ValueError as error:
        raise Fault(UNPROCESSABLE, f"is no list of places ({error})", field=f"documents[{number}].places") from None


def _validated(adapter: TypeAdapter[Any], body: bytes, limits: Limits) -> Any:
    request = validated(adapter, body, text_bounds(limits.pairs), _UNION_TAGS)
    field = {TextsRequest: "texts", RerankRequest: "documents", PredictRequest: "inputs"}.get(type(request))
    if field is not None:
        limits.check_most(len(getattr(request, field)), field)
    return request


def _fields_of(request: ScoreRequest) -> tuple[str, str]:
    """Return the names of the request's two fields with the queries and the titles.

    Raises `Fault` unless the request has exactly two fields that belong together.
    """
    present = {name for names in PAIRS_OF_FIELDS for name in names if getattr(request, name) is not None}
    for names in PAIRS_OF_FIELDS:
        if present == set(names):
            return names
    choice = " or ".join(" and ".join(names) for names in PAIRS_OF_FIELDS)
    raise Fault(UNPROCESSABLE, f"holds {listed(sorted(present)) or 'no texts'}: send {choice}", field="body")


def routes(service: RankerSlot, *, keep_texts: bool = False) -> list[BaseRoute]:
    reranker = Reranker(service, keep_texts=keep_texts)
    rank = reranker.ranked, "Rank documents for a query", [RerankRequest], [Ranked]
    score = reranker.scored, "Score pairs, as vLLM does", [ScoreRequest], [PairScores]
    return [
        DescribedRoute("POST", "/v1/rerank", *rank),
        DescribedRoute("POST", "/v2/rerank", *rank),
        DescribedRoute(
            "POST",
            "/rerank",
            reranker.any_shape,
            "Rank documents, or texts as Text Embeddings Inference has them",
            [RerankRequest, TextsRequest],
            [Ranked, Scored],
        ),
        DescribedRoute("POST", "/score", *score),
        DescribedRoute("POST", "/v1/score", *score),
        DescribedRoute(
            "POST",
            "/predict",
            reranker.predicted,
            "Score pairs, as Text Embeddings Inference does",
            [PredictRequest],
            [Predicted],
        ),
    ]
