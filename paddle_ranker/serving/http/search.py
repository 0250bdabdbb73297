"""`POST /v1/search`: documents of the index for a query, with what each stage made of them; `GET /v1/index`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any, Optional

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from paddle_ranker.errors import UsageError, listed, quoted
from paddle_ranker.retrieval.filters import Filter
from paddle_ranker.retrieval.fusion import FUSIONS
from paddle_ranker.serving.core.apart import apart
from paddle_ranker.serving.core.faults import TOO_LARGE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import check_json
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.search_log import SearchLine, Shown
from paddle_ranker.serving.core.searching import Found, Query, Searcher
from paddle_ranker.serving.http.exchange import answer, deadline_of, read_body, refusal

TEXT = "text"  # the name of a document's text in `fields`
_RECALL = 100  # documents that each searcher finds unless a request says it


class SearchRequest(BaseModel):
    """Search the documents of the index; keys that are not here are refused."""

    model_config = ConfigDict(strict=True, extra="forbid")

    query: str
    top_k: int = Field(10, ge=1, description="documents of the answer")
    offset: int = Field(0, ge=0, description="leave out so many of the first documents: the next page")
    recall: Optional[int] = Field(None, ge=1, description=f"documents that each searcher finds (default: {_RECALL})")
    rank_top: Optional[int] = Field(None, ge=0, description="order so many of the first by the ranker (default: none)")
    use: Optional[list[str]] = Field(None, description="search by these alone: words, vectors (default: by all)")
    fusion: Optional[str] = Field(None, description="how lists become one: rrf, weighted (default: the server's)")
    filter: Optional[dict[str, Any]] = Field(
        None, description='documents whose fields meet it: {"lang": "zh", "year": {"gte": 2020}}'
    )
    fields: Optional[list[str]] = Field(
        None, description="of each document, these alone (default: text and all fields)"
    )
    explain: bool = Field(False, description="answer with each hit's signals")
    min_probability: float = Field(0.0, ge=0.0, le=1.0, description="leave out ranked documents below")


class SearchRoutes:
    """The handlers of the routes.

    Args:
        searcher: searches.
        keep_texts: put the query into the request's state, for the log.
    """

    def __init__(self, searcher: Searcher, *, keep_texts: bool = False):
        self._searcher, self._keep_texts = searcher, keep_texts
        self._request = TypeAdapter(SearchRequest)

    async def search(self, request: Request) -> Response:
        """Answer `POST /v1/search`."""
        deadline, limits = deadline_of(request), self._searcher.index.limits
        body = await read_body(request, limits.request_bytes)
        asked: SearchRequest = await apart(len(body), _validated, self._request, body, limits, deadline=deadline)
        found = await self._searcher.search(self._query(request, asked), deadline)
        content = self._answer(asked, found)
        self._log(asked, found, content)
        returned = sum(len(one["text"]) for one in content["hits"] if "text" in one)
        return answer(request, await apart(returned, _encoded, content), "application/json")

    async def index(self, request: Request) -> Response:
        """Answer `GET /v1/index`."""
        served = self._searcher.index.ready()
        ranker = self._searcher.ranker
        return answer(
            request,
            _encoded(
                {
                    "name": served.name,
                    "version": served.collection.info.generation,
                    "documents": len(served.collection),
                    "searchers": self._searcher.searchers(served),
                    "fusions": list(FUSIONS),
                    "ranker": None if ranker is None else ranker.name,
                    "writable": self._searcher.index.options.writable,
                    "logging": self._searcher.index.log is not None,
                }
            ),
            "application/json",
        )

    def _query(self, request: Request, asked: SearchRequest) -> Query:
        state, limits, options = request.scope["state"], self._searcher.index.limits, self._searcher.index.options
        if self._keep_texts:
            state["texts"] = {"query": asked.query}
        text = limits.scored_text(asked.query, "query")
        if not text.strip():
            raise Fault(UNPROCESSABLE, "is empty: say what to search for", field="query")
        if asked.fusion is not None and asked.fusion not in FUSIONS:
            raise Fault(UNPROCESSABLE, f"{quoted(asked.fusion)} is no fusion, only {listed(FUSIONS)}", field="fusion")
        recall = min(_RECALL, options.depth) if asked.recall is None else asked.recall
        for name, given, most in (
            ("top_k", asked.top_k, options.hits),
            ("recall", recall, options.depth),
            ("rank_top", asked.rank_top or 0, limits.pairs),
        ):
            if given > most:
                raise Fault(TOO_LARGE, f"is {given:,}, at most {most:,} are allowed", field=name)
        fields = self._searcher.index.ready().collection.fields
        for name in asked.fields or ():
            _check_field(name, [TEXT, *fields], "fields")
        for name in asked.filter or ():
            _check_field(name, fields, "filter")
        return Query(
            text,
            tuple(asked.use or ()),
            _filter(asked.filter),
            asked.fusion,
            recall,
            asked.rank_top or 0,
            asked.offset,
            asked.top_k,
            asked.min_probability,
        )

    def _log(self, asked: SearchRequest, found: Found, content: dict[str, Any]) -> None:
        log, tower = self._searcher.index.log, self._searcher.tower
        if log is not None:
            versions = {
                "index": {"name": found.index.name, "version": found.index.collection.info.generation},
                "tower": None if tower is None else tower.name,
                "ranker": content["model"],
            }
            parameters = asked.model_dump(exclude={"query"}, exclude_none=True)
            shown = [_shown(hit) for hit in content["hits"]]
            log.search(SearchLine(content["search_id"], asked.query, versions, shown, parameters))

    def _answer(self, asked: SearchRequest, found: Found) -> dict[str, Any]:
        index, ranker = found.index, self._searcher.ranker
        hits = [
            _hit(found, place, rank, asked.fields) for rank, place in enumerate(found.shown, start=asked.offset + 1)
        ]
        content: dict[str, Any] = {
            "query": asked.query,
            "model": None if ranker is None else ranker.name,
            "index": {
                "name": index.name,
                "version": index.collection.info.generation,
                "documents": len(index.collection),
            },
            "hits": hits,
            "cut": found.cut,
            "exact": found.exact,
            "ranked": found.ranked,
            "took_ms": found.took,
            "search_id": secrets.token_urlsafe(12),
        }
        if found.degraded:
            content["degraded"] = found.degraded
        return content


def _shown(hit: dict[str, Any]) -> Shown:
    return Shown(hit["id"], {name: one["rank"] for name, one in hit["stages"].items()}, hit.get("probability"))


def _hit(found: Found, place: int, rank: int, fields: Optional[list[str]]) -> dict[str, Any]:
    candidates = found.candidates
    document = found.documents[candidates.ids[place]]
    hit: dict[str, Any] = {"id": document.id, "rank": rank}
    if fields is None or TEXT in fields:
        hit[TEXT] = document.text
    hit["fields"] = {name: value for name, value in document.fields.items() if fields is None or name in fields}
    said = zip(candidates.searchers, candidates.ranks[place].tolist(), candidates.scores[place].tolist())
    stages: dict[str, Any] = {name: {"rank": own, "score": score} for name, own, score in said if own}
    stages["fused"] = {"rank": found.fused_rank[place], "score": float(found.fused[place])}
    if place in found.logits:
        hit["logit"], hit["probability"] = found.logits[place], found.probabilities[place]
        stages["ranked"] = {"rank": rank}
    hit["stages"] = stages
    return hit


def _check_field(name: str, there: Sequence[str], field: str) -> None:
    if name not in there:
        known = listed(there) if there else "none at all"
        raise Fault(UNPROCESSABLE, f"{quoted(name)} is no field of these documents, which have {known}", field=field)


def _filter(conditions: Optional[dict[str, Any]]) -> Optional[Filter]:
    if not conditions:
        return None
    try:
        return Filter.of(conditions)
    except UsageError as error:
        raise Fault(UNPROCESSABLE, str(error), field="filter") from error


def _validated(adapter: TypeAdapter[SearchRequest], body: bytes, limits: Limits) -> SearchRequest:
    check_json(body, limits.json_bounds)
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise refusal(error) from error


def _encoded(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def routes(searcher: Searcher, *, keep_texts: bool = False) -> list[BaseRoute]:
    """Return the routes; see `SearchRoutes`."""
    handlers = SearchRoutes(searcher, keep_texts=keep_texts)
    return [
        Route("/v1/search", handlers.search, methods=["POST"]),
        Route("/v1/index", handlers.index, methods=["GET"]),
    ]
