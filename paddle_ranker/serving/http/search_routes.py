"""`POST /v1/search`: documents of the index for a query, with their score in each stage; `GET /v1/index`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Annotated, Any, Callable, Optional, TypeVar, Union

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from typing_extensions import NotRequired, TypedDict

from paddle_ranker.data.rows.field_paths import BETWEEN, value_at
from paddle_ranker.errors import ParameterError, listed, quoted
from paddle_ranker.lexical.highlights import Highlight, SharedWords
from paddle_ranker.retrieval.snapshots.searchable import Snapshot, StaleSnapshot
from paddle_ranker.retrieval.stages.explanations import FUSED, RANKED, SORTED, Explanation
from paddle_ranker.retrieval.stages.fusion import FUSIONS
from paddle_ranker.retrieval.stages.query import SearchedQuery
from paddle_ranker.retrieval.stages.results import HitDetails
from paddle_ranker.retrieval.stages.search import Search, SearchSettings
from paddle_ranker.retrieval.stored.candidate_indexes import Like
from paddle_ranker.retrieval.stored.content_files import bytes_of
from paddle_ranker.retrieval.stored.manifest import IndexInfo
from paddle_ranker.retrieval.stored.schema import ADDRESS_TYPES, FIELD_TYPES, PLACES, TEXT
from paddle_ranker.retrieval.values.bounds import LEAST_COUNTS, MOST_NAMES, MOST_SORTED, check_names, check_parameters
from paddle_ranker.retrieval.values.facets import DATES, FEW_VALUES, Scale
from paddle_ranker.retrieval.values.filters import Filter
from paddle_ranker.retrieval.values.listing import Listing, Position, SortedPosition, unpack_position
from paddle_ranker.retrieval.values.search_defaults import DEPTH, RANK_TOP, TOP_K
from paddle_ranker.retrieval.values.typed_values import STORED
from paddle_ranker.retrieval.words.query_parsing import parse_query
from paddle_ranker.retrieval.work.turns import Reserve, checked
from paddle_ranker.serving.core.faults import UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import JsonBounds, parse_json
from paddle_ranker.serving.core.search_log import SearchIds, SearchLine, Shown, digest_of, new_search_id
from paddle_ranker.serving.core.validation import Body, refusal, refusing_parameters, validated
from paddle_ranker.serving.http.contents import Content, contents_of
from paddle_ranker.serving.http.exchange import (
    answer,
    deadline_of,
    is_own_page,
    read_request,
    refuse_parameters,
    refuse_repeated,
    reserve_of,
)
from paddle_ranker.serving.http.openapi import DescribedRoute, address_parameters
from paddle_ranker.serving.http.suggest import is_suggesting
from paddle_ranker.serving.slots.index_options import LIMITS
from paddle_ranker.serving.slots.index_slot import ServedIndex
from paddle_ranker.serving.slots.queued_search import FoundSearch, Query, QueuedSearch
from paddle_ranker.unicode.characters import fold, without_accents

W = TypeVar("W")
_BOUNDS = JsonBounds(structures=4000, values=4000)  # of a request
_MOST_BYTES = 1 << 20  # bytes of a request if no field has files
_MOST_FACET_VALUES = 100  # values of a facet
_LOGGED_CHARACTERS = 1000  # characters of a parameter; longer ones are left out of the log
_LOOKED_AT = 400_000  # maximum code points in which the query's words are marked, over all texts of an answer
_MOST_VALUES, _VALUE_BYTES = 24, 1 << 14  # values of a field that are listed; bytes of values that are read for that
# Pages of one list may differ in these parameters.
_SHOWING = {"cursor", "fields", "snippet", "field_size", "total", "facets", "facet_values", "explain", "logged"}
_CHECKED = {"like", "facets", "cursor", "depth", "rank_top", "snippet", "field_size", "fusion"}
_CHECKED |= {"by", "literal", "prefix"}
_DIGEST_BYTES = 12
_DEFAULTED = ("depth", "rank_top", "top_k")
_NAMES = {"keyword": "string", "object": "other", STORED: "mixed", **{n: n for n in ("boolean", "number", "date")}}


def _count(name: str, default: Optional[int], description: str) -> Any:
    """Return a request's field for a count. The field shows its minimum in OpenAPI; `check_parameters` checks it."""
    return Field(default, description=description, json_schema_extra={"minimum": LEAST_COUNTS[name]})


class SearchRequest(Body):
    """Request to search the index. Unknown fields are refused."""

    query: str = Field("", description="what to search for; without it, and without like, documents are listed")
    like: Optional[dict[str, str]] = Field(
        None,
        description='find documents like this one, {"id": "d1"}, or like a file, {"picture": "data:...;base64,..."}, '
        "by the vector fields that have such; a query is searched beside it",
    )
    top_k: Optional[int] = _count("top_k", None, f"documents of the answer (default: {TOP_K})")
    offset: int = _count("offset", 0, "leave out so many of the first documents: the next page")
    cursor: Optional[str] = Field(
        None, description='"": answer with a cursor; repeat the request with it for the next page, until it is null'
    )
    depth: Optional[int] = _count("depth", None, f"documents that each searcher finds (default: {DEPTH})")
    rank_top: Optional[int] = _count(
        "rank_top",
        None,
        f"order so many of the first by the ranker; 0: none (default: {RANK_TOP}, if there is a ranker)",
    )
    by: Optional[list[str]] = Field(
        None,
        description="search by these alone: words, vectors, names of vector fields (default: by all)",
    )
    fusion: Optional[str] = Field(None, description="how lists become one: rrf, weighted (default: the server's)")
    where: Optional[dict[str, Any]] = Field(
        None,
        description='documents whose fields meet it: {"lang": "zh", "year": {"gte": 2020}}',
    )
    fields: Optional[list[str]] = Field(
        None, description="of each document, these alone (default: text and all fields)"
    )
    snippet: Optional[int] = _count(
        "snippet", None, "so many code points of the best passage in place of the text, unless fields has text"
    )
    field_size: Optional[int] = _count(
        "field_size",
        None,
        "cut titles to so many code points, and leave out fields with more, lists and objects as JSON",
    )
    total: bool = Field(False, description="count the documents that share a word with the query and meet the filter")
    facets: Optional[list[str]] = Field(None, description="fields whose values are counted among these documents")
    facet_values: Optional[dict[str, str]] = Field(
        None,
        description='of facets, count the values alone that contain a text, whatever case and accents: {"brand": "bo"}',
    )
    sort: Optional[list[str]] = Field(
        None,
        description="show all documents that match (as total counts them; without words all that meet the filter) by "
        "these fields, -year for the highest first (default: by score; without a query by the first field of dates)",
    )
    group_by: Optional[str] = Field(
        None,
        description="show group_size candidates of each value of this field; content: of nearly the same texts; with "
        "sort, the first depth documents are the candidates",
    )
    group_size: int = _count("group_size", 1, "of group_by")
    literal: bool = Field(
        False,
        description="search words as they are written: no corrections, completions, synonyms, phrases, exclusions",
    )
    prefix: bool = Field(
        False, description="the last word is unfinished: find words that begin with it; by words, unless `by` is given"
    )
    logged: bool = Field(True, description="write the search into the log, if the server keeps one")
    explain: bool = Field(False, description="answer with each hit's signals")
    min_probability: float = Field(
        0.0, description="leave out ranked documents below", json_schema_extra={"minimum": 0.0, "maximum": 1.0}
    )


class SearchRoutes:
    """Handlers of the routes of search.

    Args:
        pipeline: runs the searches.
        ids: signs the ids of searches, so that feedback can name them.
        keep_texts: whether to put the query into the request's state, for the log.
    """

    def __init__(self, pipeline: QueuedSearch, ids: SearchIds, *, keep_texts: bool = False):
        self._ids = ids
        self._pipeline, self._keep_texts = pipeline, keep_texts
        self._request = TypeAdapter(SearchRequest)
        self._fields: tuple[object, dict[str, Any]] = (None, {})  # cache: index version, `_facts`

    async def search(self, request: Request) -> Response:
        """Answer `POST /v1/search`."""
        refuse_parameters(request)
        limit = self._pipeline.index.limits.request_bytes
        if not self._pipeline.index.schema.files:
            limit = min(limit, _MOST_BYTES)
        parse = partial(validated, self._request, bounds=_BOUNDS)
        return await self._search(request, await read_request(request, limit, parse))

    async def by_address(self, request: Request) -> Response:
        """Answer `GET /v1/search?q=...&top_k=...`."""
        try:
            return await self._search(request, _of_address(request.query_params))
        except Fault as fault:
            if fault.field != "query":
                raise
            raise Fault(fault.kind, fault.problem, field="q") from fault.settled()

    async def _search(self, request: Request, search_request: SearchRequest) -> Response:
        deadline = self._pipeline.index.deadline(deadline_of(request))
        may_log, reserve = is_own_page(dict(request.scope["headers"])), reserve_of(request)
        written = await self.run(search_request, deadline, to_json, request.scope["state"], reserve, may_log=may_log)
        return answer(request, written)

    async def run(
        self,
        request: SearchRequest,
        deadline: float,
        write: Callable[[dict[str, Any]], W],
        state: dict[str, Any],
        reserve: Optional[Reserve] = None,
        *,
        may_log: bool = True,
    ) -> W:
        """Search, log the search, and return `write(answer)`, which runs in the search's thread. Raises `Fault`.

        deadline: time on `time.monotonic()`'s clock
        state: gets the entries of the log of requests, see `Middleware`
        reserve: reserves the bytes of the answer, see `StoppableWork.run`
        may_log: whether the search may be written into the search log, if the server keeps one and the request agrees
        """
        index, loop = self._pipeline.index, asyncio.get_running_loop()
        if self._keep_texts:
            state["texts"] = {"query": request.query}
        try:
            work = partial(self._answered, request, loop, deadline, write)
            search, written, line = await index.run(work, deadline=deadline, reserve=reserve)
        except Fault as fault:
            raise fault.settled() from None
        if index.log is not None and line is not None and request.logged and may_log:
            index.log.search(line)
        state["pairs"], state["is_empty"] = len(search.ranking.logits), not search.page.order
        state["stages"], state["spans"] = search.took, search.spans
        return written

    def _answered(
        self,
        request: SearchRequest,
        loop: asyncio.AbstractEventLoop,
        deadline: float,
        write: Callable[[dict[str, Any]], W],
    ) -> tuple[Search, W, Optional[SearchLine]]:
        """Search. Return the finished search, the written answer, and the log's line (None if it is not logged)."""
        self._pipeline.index.latest()  # another process may have added documents with new fields
        now: Optional[Snapshot] = None
        with refusing_parameters():
            query = self._query(request)
            while True:
                result = self._pipeline.search(query, loop, deadline, now)
                try:
                    content, line = self._written(request, result)
                    return result.search, write(content), line
                except StaleSnapshot as error:  # shards have changed since
                    now = error.snapshot

    def _written(self, request: SearchRequest, result: FoundSearch) -> tuple[dict[str, Any], Optional[SearchLine]]:
        hits, dropped = hits_of(request, result.search)
        content, id = self._answer(request, result, hits), new_search_id()
        content["search_id"] = self._ids.given_out(id, content["query"])
        if dropped:
            content["dropped"] = dropped
        if self._pipeline.index.log is None or result.search.query.is_browsing:  # there is nothing to learn
            return content, None
        return content, self._line(id, request, result, content)

    async def index(self, request: Request) -> Response:
        """Answer `GET /v1/index`."""
        refuse_parameters(request)
        return answer(request, to_json(await self.described(self._pipeline.index.deadline(deadline_of(request)))))

    async def described(self, deadline: float) -> dict[str, Any]:
        """Return the description of the index and of how it is searched, JSON-ready, as `GET /v1/index` shows it."""
        index = self._pipeline.index
        served = await index.current(deadline)
        unfamiliar = self._pipeline.drift_check(served).unfamiliar
        return {
            **served.summary,
            "searchers": self._pipeline.searchers(served),
            "like": _likes(served.info),
            "fusions": list(FUSIONS),
            "fusion": served.fusion.method,
            "tower": self._pipeline.tower_name,
            "ranker": self._pipeline.ranker_name,
            **self._pipeline.ranker_facts(),
            **({} if unfamiliar is None else {"unfamiliar": unfamiliar}),
            **self._pipeline.states_facts(served),
            **await self._fields_of(served, deadline),
            "writable": index.options.writable,
            "logging": index.log is not None,
            "examples": list(index.options.examples),
            "limits": {
                **{name: getattr(index.options, name) for name in LIMITS},
                "pairs": index.limits.pairs,
                "facets": MOST_NAMES,
                "facet_values": _MOST_FACET_VALUES,
                "sorted": MOST_SORTED,
            },
            "defaults": self._defaults(),
        }

    async def _fields_of(self, served: ServedIndex, deadline: float) -> dict[str, Any]:
        version = served.folder, served.loaded_at, served.info.generation
        if self._fields[0] != version:
            self._fields = version, await self._pipeline.index.run(self._facts, served.snapshot, deadline=deadline)
        return self._fields[1]

    def _facts(self, now: Snapshot) -> dict[str, Any]:
        while True:
            try:
                return {**_fields(now), "suggest": is_suggesting(now, self._pipeline.index.options)}
            except StaleSnapshot as error:  # a shard failed: use the others
                now = error.snapshot

    def _defaults(self) -> dict[str, int]:
        """Return the counts of a search whose request states none."""
        index = self._pipeline.index
        counts = min(DEPTH, index.options.depth), min(RANK_TOP, index.limits.pairs), min(TOP_K, index.options.hits)
        return dict(zip(_DEFAULTED, counts))

    def _query(self, request: SearchRequest) -> Query:
        """Check a request and convert it to a search. Raises `Fault` and `ParameterError`."""
        limits, options = self._pipeline.index.limits, self._pipeline.index.options
        text = request.query[: limits.characters]  # a query's first 1,000 are read
        limits.check_text(text, "query")
        if request.fusion is not None and request.fusion not in FUSIONS:
            raise Fault(UNPROCESSABLE, f"{quoted(request.fusion)} is no fusion, only {listed(FUSIONS)}", field="fusion")
        asked = {name: value for name in _DEFAULTED if (value := getattr(request, name)) is not None}
        counts = {**self._defaults(), **asked}
        depth, rank_top, top_k = (counts[name] for name in _DEFAULTED)
        listing = Listing(
            top_k,
            request.offset,
            where=Filter.of(request.where) if request.where else None,
            min_probability=request.min_probability,
            sort=tuple(request.sort or ()),
            group_by=request.group_by,
            group_size=request.group_size,
        )
        fields = self._pipeline.index.ready().collection.fields
        objects = {field[: match.start()] for field in fields for match in re.finditer(re.escape(BETWEEN), field)}
        check_names("fields", request.fields or (), [TEXT, *fields, *objects])
        check_names("facets", request.facets or (), fields)
        if others := set(request.facet_values or ()).difference(request.facets or ()):
            raise ParameterError("facet_values", f"{quoted(min(others))} is not among facets: name it there, too")
        check_parameters(
            listing,
            {"top_k": options.hits, "depth": options.depth, "rank_top": limits.pairs},
            query=text,
            can_rank=self._pipeline.ranker_name is not None,
            **request.model_dump(include=_CHECKED),
        )
        parsed, like = parse_query(text, literal=request.literal), self._like(request)
        settings = SearchSettings(
            tuple(request.by or ()), depth=depth, rank_top=rank_top, literal=request.literal, prefix=request.prefix
        )
        if len(text) < len(request.query):
            parsed = replace(parsed, read=parsed.read or len(text))
        return Query(parsed, settings, replace(listing, after=self._after(request)), request.fusion, like)

    def _like(self, request: SearchRequest) -> Optional[Like]:
        """Return the example of the request, an id or a file, from its field `like`.

        Raises `Fault` if the field has neither.
        """
        if request.like is None:
            return None
        kinds = self._pipeline.index.schema.examples
        ((kind, value), *others) = [*(request.like or {"": ""}).items()]
        if others or kind not in ("id", *kinds):
            expected = listed(f'{{"{name}": ...}}' for name in ("id", *sorted(kinds)))
            raise Fault(UNPROCESSABLE, f"has {quoted([*request.like])}, expected {expected}", field="like")
        if kind == "id":
            return Like(value)
        try:
            data = bytes_of(value)
            FIELD_TYPES[kind].suffix_of(data)
        except ValueError as error:
            raise Fault(UNPROCESSABLE, f"expected {FIELD_TYPES[kind].what} ({error})", field=f"like.{kind}") from error
        return Like(kind=kind, data=data)

    def _after(self, request: SearchRequest) -> Union[Position, SortedPosition, None]:
        """Return the position after which the request's page begins, from its cursor, or None without a cursor.

        Raises `Fault` for a cursor that does not come from an answer to this search.
        """
        if not request.cursor:
            return None
        try:
            cursor = base64.urlsafe_b64decode(request.cursor.encode())
            if cursor[:_DIGEST_BYTES] != self._digest(request, cursor[_DIGEST_BYTES:]):
                raise ValueError("the digest differs")
            return unpack_position(cursor[_DIGEST_BYTES:])
        except ValueError as error:
            problem = "is not of an answer to this search: repeat that request, or begin anew with an empty one"
            raise Fault(UNPROCESSABLE, problem, field="cursor") from error

    def _cursor(self, request: SearchRequest, search: Search) -> Optional[str]:
        position = search.page.position()
        if position is None:
            return None
        written = position.packed()
        return base64.urlsafe_b64encode(self._digest(request, written) + written).decode()

    def _digest(self, request: SearchRequest, position: bytes) -> bytes:
        """Return a digest of the index's name, the parameters that determine the list, and a packed position."""
        fields = request.model_dump(exclude=_SHOWING, exclude_defaults=True)
        what = [self._pipeline.index.ready().name, json.dumps(fields, sort_keys=True)]
        return hashlib.blake2b(to_json(what) + position, digest_size=_DIGEST_BYTES).digest()

    def _line(self, id: str, request: SearchRequest, result: FoundSearch, content: dict[str, Any]) -> SearchLine:
        search, asked = result.search, request.model_dump(exclude={"query", "logged"}, exclude_none=True)
        fields = {**asked, "offset": search.page.offset}
        # A long filter would fill the log, as a long query would.
        parameters = {name: value for name, value in fields.items() if len(str(value)) <= _LOGGED_CHARACTERS}
        shown = [_shown(hit, search.details, row) for hit, row in zip(content["hits"], search.page.shown)]
        versions, query = self._pipeline.versions(result.index), content["query"]
        model_text = None if search.query.model_text == query else search.query.model_text
        nothing_close = content.get("nothing_close")
        lead = None if search.is_sorted else _lead([*map(float, search.fused.scores[search.page.shown[:2]])])
        return SearchLine(
            id, query, versions, shown, parameters, model_text=model_text, nothing_close=nothing_close, lead=lead
        )

    def _answer(self, request: SearchRequest, result: FoundSearch, hits: list[dict[str, Any]]) -> dict[str, Any]:
        query, search = request.query[: result.query_read], result.search
        content: dict[str, Any] = {
            "query": query,
            "model": self._pipeline.ranker_name,
            "index": result.index.summary,
            "hits": hits,
            "cut": search.page.cut,
            "exact": search.is_exact,
            "ranked": bool(search.ranking.logits),
            **self._pipeline.ranker_facts(),
            "took_ms": search.took,
        }
        if request.cursor is not None:
            content["cursor"] = self._cursor(request, search)
        if request.total:
            content["total"] = search.total()
        if search.is_sorted:
            content["sort"] = [*search.sort]
        if request.facets:
            content["facets"] = _facets(search, request.facets, request.facet_values or {})
        if search.nothing_close:
            content["nothing_close"] = True
        content.update(_read_as(request, search.query))
        if search.shards is not None:
            content["shards"] = dict(search.shards)
        if result.query_read is not None:
            content["query_read"] = result.query_read
        if search.read_by:
            content["query_read_by"] = search.read_by
        if search.degraded:
            content["degraded"] = search.degraded
        return content


def _facets(search: Search, names: list[str], parts: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """Return the most frequent values of each field in `names` among the found documents, with their counts.

    For numbers and dates, a value is a range.

    parts: by name of a field, a text that its values must contain
    """
    facets = dict[str, list[dict[str, Any]]]()
    for name, counts in search.facets(names).items():
        values: Iterable[tuple[Any, int]] = ((json.loads(value), count) for value, count in checked(counts.items()))
        if name in parts:
            values = _containing(name, without_accents(fold(parts[name])), values)
        facets[name] = [{"value": value, "count": count} for value, count in islice(values, _MOST_FACET_VALUES)]
    return facets


def _containing(name: str, part: str, values: Iterable[tuple[Any, int]]) -> Iterator[tuple[Any, int]]:
    for value, count in values:
        if isinstance(value, dict):
            raise ParameterError("facet_values", f"{quoted(name)} is counted by ranges: leave it out")
        if part in without_accents(fold(value if isinstance(value, str) else json.dumps(value))):
            yield value, count


def _read_as(request: SearchRequest, query: SearchedQuery) -> dict[str, Any]:
    """Return the parts of an answer that say how the query was read, if that differs from the query as written.

    The parts are corrections, synonyms, phrases, excluded words and `did_you_mean`.
    """
    words, content = query.words, dict[str, Any]()
    if words.corrected:
        content["corrected"] = [{"from": change.given, "to": change.to, "by": change.by} for change in words.corrected]
    if words.synonyms:
        content["synonyms"] = [{"from": synonym.given, "to": synonym.to} for synonym in words.synonyms]
    read = {"phrases": query.phrases, "unfound": query.unfound, "excluded": query.parsed.excluded}
    content.update({name: terms for name, terms in read.items() if terms})
    is_plain = not (request.literal or request.prefix or query.parsed.phrases or query.parsed.excluded)
    if (
        is_plain
        and not query.is_browsing
        and not request.offset
        and not request.cursor
        and (better := query.collection.did_you_mean(words))
    ):
        content["did_you_mean"] = better
    return content


def _lead(scores: Sequence[float]) -> Optional[float]:
    """Return by which share the first of two scores is above the second; 1 of a single score, None of none."""
    if not scores:
        return None
    first, second = (*scores, 0.0)[:2]
    return round(min(1.0, max(0.0, 1.0 - second / first)), 3) if first > 0 else 0.0


def _shown(hit: dict[str, Any], details: HitDetails, row: int) -> Shown:
    ranks = {name: stage["rank"] for name, stage in hit["stages"].items()}
    text, span = details.document(row).text, details.span_of(row)
    read = None if span == (0, len(text)) else span
    return Shown(hit["id"], ranks, hit.get("probability"), digest_of(text), read)


def hits_of(request: SearchRequest, search: Search) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the hits of an answer, and the documents that ranking dropped ([] without `explain`), both JSON-ready."""
    dropped = search.dropped() if request.explain else {}
    shown = {row: rank for rank, row in enumerate(search.page.shown, start=search.page.offset + 1)}
    hits = _hits(request, search, {**shown, **dropped})
    for hit, row in zip(hits[len(shown) :], dropped):
        hit["reason"] = "cut" if search.page.is_cut(row) else "moved"
    return hits[: len(shown)], hits[len(shown) :]


def _hits(request: SearchRequest, search: Search, ranks: dict[int, int]) -> list[dict[str, Any]]:
    """Convert documents to hits, JSON-ready.

    ranks: rank of each document to convert, by its index among the search's candidates
    """
    shared, ranking, details = search.query.shared_words, search.ranking, search.details
    ids = [search.fused.candidates.ids[row] for row in ranks]
    explanation = Explanation(search, [*ranks]) if request.explain else None
    hits, names, schema = (
        [],
        None if request.fields is None else dict.fromkeys(request.fields),
        search.collection.info.schema,
    )
    has_text = TEXT in names if names is not None else request.snippet is None
    is_looked_at = request.explain or has_text or request.snippet is not None
    most = _LOOKED_AT // max(1, len(ids)) if is_looked_at else 0  # code points of each text
    for (row, rank), id in zip(ranks.items(), checked(ids)):
        document = details.document(row)
        looked_at = document.text[:most]
        hit: dict[str, Any] = {"id": id, "rank": rank}
        if (title := schema.name_of(document)) is not None:
            hit["title"] = title[: request.field_size]
        highlights = shared.highlights(looked_at)
        if (in_file := details.place_in_file(row, highlights or None)) is not None:
            hit["place"] = in_file
        if has_text:
            start, end = shared.passage(document.text, highlights)
            hit[TEXT], hit["passage"] = document.text, {"start": start, "end": end}
            hit["highlights"] = [highlight._asdict() for highlight in highlights]
        if request.snippet is not None:
            hit["snippet"] = _snippet(document.text, highlights, shared, request.snippet)
        hidden = PLACES if in_file is not None else None
        chosen = document.fields if names is None else {name: value_at(document.fields, name) for name in names}
        hit["fields"] = {
            name: value
            for name, value in chosen.items()
            if name != hidden
            and (value is not None or name in document.fields)
            and (request.field_size is None or _is_within(value, request.field_size))
        }
        if contents := contents_of(document, schema, names):
            hit["contents"] = contents
        if row in ranking.logits:
            hit["logit"], hit["probability"] = ranking.logits[row], ranking.probabilities[row]
            start, end = ranking.passages[row]
            hit["read"] = {"start": start, "end": end}
        if (answer := ranking.answer(row)) is not None:
            hit["answer"] = answer.as_json()
        if row in search.page.similar:
            hit["similar"] = search.page.similar[row]
        hit["stages"] = _stages(search, row, rank)
        signals = None if explanation is None else explanation.signals(row, looked_at, highlights)
        if signals is not None:
            hit["signals"] = signals
        hits.append(hit)
    return hits


def _is_within(value: object, size: int) -> bool:
    """Return whether a field's value has at most `size` code points: a text as it is, other values as JSON."""
    return len(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) <= size


def _snippet(text: str, highlights: Sequence[Highlight], shared: SharedWords, size: int) -> dict[str, Any]:
    """Return the best passage of a text with its highlights, JSON-ready. Highlights count from the passage's start.

    shared: finds the passage with most words of the query
    size: maximum code points of the passage
    """
    start, end = shared.passage(text, highlights, size)
    inside = [highlight for highlight in highlights if start <= highlight.start and highlight.end <= end]
    marked = [
        {"start": highlight.start - start, "end": highlight.end - start, "level": highlight.level}
        for highlight in inside
    ]
    return {"text": text[start:end], "start": start, "end": end, "of": len(text), "highlights": marked}


def _stages(search: Search, row: int, rank: int) -> dict[str, Any]:
    if search.is_sorted:
        return {SORTED: {"rank": rank}}
    candidates = search.fused.candidates
    by_searcher = zip(candidates.searchers, candidates.ranks[row].tolist(), candidates.scores[row].tolist())
    stages: dict[str, Any] = {
        name: {"rank": searcher_rank, "score": score} for name, searcher_rank, score in by_searcher if searcher_rank
    }
    stages[FUSED] = {"rank": search.fused.rank[row], "score": float(search.fused.scores[row])}
    if row in search.ranking.logits:
        stages[RANKED] = {"rank": rank}
    return stages


def _of_address(parameters: QueryParams) -> SearchRequest:
    """Convert the query parameters of a URL to a search request.

    Lists are comma-separated or repeated. The filter, `like` and `facet_values` are JSON.
    """
    texts_of: dict[str, list[str]] = {}
    for name, value in parameters.multi_items():  # one loop, since an address may have thousands of names
        texts_of.setdefault("query" if name == "q" else name, []).append(value)
    values: dict[str, Any] = {}
    for name, texts in texts_of.items():
        if name in ("by", "fields", "facets", "sort"):
            values[name] = [part for value in texts for part in value.split(",") if part]
        else:
            refuse_repeated("q" if name == "query" else name, len(texts))
            values[name] = texts[0]
    for name in {"where", "like", "facet_values"} & values.keys():
        try:
            values[name] = parse_json(values[name].encode("utf-8", "replace"), _BOUNDS)
        except Fault as fault:
            raise Fault(UNPROCESSABLE, fault.problem, field=name) from fault.settled()
    try:
        request = SearchRequest.model_validate(values, strict=False)
    except ValidationError as error:
        raise refusal(error) from error
    request.check()
    return request


def _likes(info: IndexInfo) -> list[str]:
    """Return the keys that `like` may have: `id`, and types of files of fields with vectors. [] without any vectors."""
    kinds = {kind for field in info.schema.files if field.name in info.vector_fields for kind in field.examples}
    return ["id", *sorted(kinds)] if info.vector_fields else []


def _fields(now: Snapshot) -> dict[str, Any]:
    """Describe the fields of an index, JSON-ready, as `fields`, `facets` and `more_facets`.

    `fields` has, by name, the types and values of fields that filters can use. `facets` has the names of fields whose
    values are worth counting: those with few values, or with numbers or dates; not texts, ids and numbers of parts of
    files, such as a page's, and no addresses. `more_facets` has those that one search cannot ask for beside them.
    """
    fields, facets = dict[str, dict[str, Any]](), list[str]()
    schema = now.info.schema
    files, chosen = {field.name for field in schema.files}, {field.name for field in schema.fields if field.facet}
    texts = {field.name for field in schema.words if field.is_text} - chosen
    shown = {
        field.name: {k: v for k, v in (("label", field.label), ("unit", field.unit)) if v} for field in schema.fields
    }
    addresses = {field.name: field.type for field in schema.fields if field.type in ADDRESS_TYPES}
    for name, sample in checked(now.field_values(_VALUE_BYTES).items()):
        if name in files or (sample.are_all and not sample.values):
            continue  # values are names of files, or no document has one any more
        fields[name] = {"type": _NAMES[sample.type]}
        if sample.has_lists:
            fields[name]["list"] = True
        fields[name].update(shown.get(name, {}))
        if name in addresses:  # to be shown, not to be chosen
            fields[name]["type"] = addresses[name]
            continue
        if sample.type == "keyword" and sample.are_all and 1 < len(sample.values) <= _MOST_VALUES:
            fields[name]["values"] = [value.of for value in sorted(sample.values, key=lambda value: value.order)]
        scale = None if name in texts else now.scale(name).scale
        if scale is not None:
            fields[name]["min"], fields[name]["max"] = scale.ends
        if sample.type == "number":
            are_whole = sample.are_all and all(isinstance(value.json(), int) for value in sample.values)
            are_whole = are_whole if scale is None else bool((scale.positions % 1 == 0).all())
            fields[name]["type"] = "integer" if are_whole else "number"
        values = len(sample.values) if sample.are_all else None
        if name in chosen or (name not in texts | schema.part_fields and _is_facet(values, scale, len(now))):
            facets.append(name)
    facets.sort(key=lambda name: name not in chosen)
    return {"fields": fields, "facets": facets[:MOST_NAMES], "more_facets": facets[MOST_NAMES:]}


def _is_facet(values: Optional[int], scale: Optional[Scale], documents: int) -> bool:
    """Return whether the values of a field are worth counting.

    values: number of distinct values; None if it is unknown, since the stored values are too large to read them all
    scale: distribution of the field's numbers or dates, if it has any
    documents: number of documents
    """
    if scale is not None and len(scale.positions) > FEW_VALUES:
        is_whole = scale.kind != DATES and bool((scale.positions % 1 == 0).all())
        return not is_whole or scale.counts.max() > 1  # whole numbers that all differ are ids
    return values is not None and 1 < values <= min(_MOST_FACET_VALUES, max(2, documents // 2))


class Passage(TypedDict):
    """Part of a text, in code points."""

    start: int
    end: int


class HighlightedPart(Passage):
    """Words of a text that are also in the query. `level` is their number, at most 3."""

    level: int


class Stage(TypedDict):
    """Rank and score of a document in the list of one stage, such as `words` or `ranked`."""

    rank: int
    score: NotRequired[float]


class Snippet(Passage):
    """A passage in place of the text. The positions in `highlights` count from the passage's start."""

    text: str
    of: Annotated[int, Field(description="code points of the whole text")]
    highlights: list[HighlightedPart]


class Hit(TypedDict):
    """A document of an answer."""

    id: str
    rank: Annotated[int, Field(description="from 1, over all pages")]
    title: NotRequired[Annotated[str, Field(description="of an index whose schema names a title")]]
    text: NotRequired[str]
    snippet: NotRequired[Snippet]
    read: NotRequired[Annotated[Passage, Field(description="part of the text that the ranker read")]]
    fields: dict[str, Any]
    place: NotRequired[
        Annotated[
            dict[str, Any],
            Field(
                description="in the file that it was read from: page and boxes (shares of its width and height, from "
                "the top left), seconds, or cells (row, column); of the highlighted words, else of the passage"
            ),
        ]
    ]
    contents: NotRequired[Annotated[dict[str, list[Content]], Field(description="files of fields")]]
    answer: NotRequired[
        Annotated[
            dict[str, Any],
            Field(
                description="cells of a table that answer the query (row and column from 0, text, probability), "
                "and the operation, such as SUM; by a ranker that names cells"
            ),
        ]
    ]
    similar: NotRequired[Annotated[list[str], Field(description="candidates with nearly the same text, not shown")]]
    logit: NotRequired[float]
    probability: NotRequired[Annotated[float, Field(description="of relevance; of documents that were ranked")]]
    passage: NotRequired[Annotated[Passage, Field(description="the best part of a long text")]]
    highlights: NotRequired[list[HighlightedPart]]
    stages: Annotated[dict[str, Stage], Field(description="of those that had the document")]
    signals: NotRequired[
        Annotated[dict[str, Any], Field(description="with explain: what each added, and to which stage's score")]
    ]


class Dropped(Hit):
    """A document that ranking removed from the hits. `rank` and `stages.ranked.rank` are its rank after ranking."""

    reason: Annotated[str, Field(description="moved: behind the hits; cut: below min_probability")]


class FacetValue(TypedDict):
    """A value of a field, or a range of values, and how many documents have it."""

    value: Annotated[Any, Field(description='a range is a condition for where: {"gte": 1990, "lt": 2000}')]
    count: int


class SearchAnswer(TypedDict):
    """An answer to a `SearchRequest`."""

    query: Annotated[str, Field(description="as much of it as was used")]
    query_read: NotRequired[
        Annotated[int, Field(description="code points of a query that is too long, which were used")]
    ]
    query_read_by: NotRequired[
        Annotated[
            dict[str, int], Field(description="code points of the query that a searcher's tower reads, if not all")
        ]
    ]
    corrected: NotRequired[
        Annotated[list[dict[str, Any]], Field(description="from, to, and by: typing, sound or prefix")]
    ]
    synonyms: NotRequired[Annotated[list[dict[str, Any]], Field(description="from, and what was searched, too, to")]]
    phrases: NotRequired[
        Annotated[list[str], Field(description="documents have each: +word by its stem, others word for word")]
    ]
    unfound: NotRequired[
        Annotated[list[str], Field(description="phrases that no document has: searched without this demand")]
    ]
    excluded: NotRequired[Annotated[list[str], Field(description="documents have none of these")]]
    did_you_mean: NotRequired[
        Annotated[str, Field(description="the query with frequent words for those that hardly any document has")]
    ]
    nothing_close: NotRequired[
        Annotated[bool, Field(description="true: no document is closer than what random queries find")]
    ]
    model: Annotated[Optional[str], Field(description="the ranker")]
    index: dict[str, Any]
    hits: list[Hit]
    cursor: NotRequired[Annotated[Optional[str], Field(description="of the next page; null: this is the last one")]]
    total: NotRequired[
        Annotated[Optional[int], Field(description="documents that match by words, null if words are not searched")]
    ]
    sort: NotRequired[
        Annotated[list[str], Field(description="of a sorted list: its order; [] is that of GET /v1/documents")]
    ]
    facets: NotRequired[
        Annotated[dict[str, list[FacetValue]], Field(description="the most frequent values first; ranges in order")]
    ]
    cut: Annotated[int, Field(description="ranked documents that min_probability left out")]
    exact: Annotated[bool, Field(description="whether every vector was compared")]
    ranked: Annotated[bool, Field(description="whether the ranker ordered the first ones")]
    calibrated: NotRequired[Annotated[bool, Field(description="whether probabilities come from a calibrated ranker")]]
    dropped: NotRequired[
        Annotated[list[Dropped], Field(description="with explain: of the first top_k fused, those no longer shown")]
    ]
    degraded: NotRequired[Annotated[list[str], Field(description="stages that would be late or fail")]]
    shards: NotRequired[
        Annotated[dict[str, int], Field(description="of an index in shards: total, and failed, which were left out")]
    ]
    took_ms: dict[str, float]
    search_id: str


class IndexDescription(TypedDict):
    """Name, version and size of the index."""

    name: str
    version: int
    documents: int
    searchers: list[str]
    like: Annotated[list[str], Field(description="what like of a search may name: id, types of files")]
    fusions: list[str]
    fusion: Annotated[str, Field(description="unless a request says how")]
    tower: Optional[str]
    ranker: Optional[str]
    calibrated: NotRequired[Annotated[bool, Field(description="whether probabilities come from a calibrated ranker")]]
    unfamiliar: NotRequired[
        Annotated[
            dict[str, Any],
            Field(description="measure of the lists' logits, its median expected and seen, if these differ"),
        ]
    ]
    states: NotRequired[
        Annotated[
            dict[str, Any],
            Field(description="of an index with stored states: whether the ranker uses them, and the reason if not"),
        ]
    ]
    fields: Annotated[
        dict[str, Any],
        Field(description="what filters can ask for: the type of each, its values if few, its min and max"),
    ]
    facets: Annotated[
        list[str], Field(description="fields whose values are worth counting, as many as a search may ask for")
    ]
    more_facets: Annotated[list[str], Field(description="further ones, for other searches")]
    writable: bool
    logging: Annotated[bool, Field(description="whether feedback is taken")]
    suggest: Annotated[bool, Field(description="whether GET /v1/suggest has titles or queries")]
    examples: list[str]
    limits: dict[str, int]
    defaults: Annotated[dict[str, int], Field(description="depth, rank_top and top_k of a search that states none")]


def routes(pipeline: QueuedSearch, ids: SearchIds, *, keep_texts: bool = False) -> list[BaseRoute]:
    handlers = SearchRoutes(pipeline, ids, keep_texts=keep_texts)
    parameters = address_parameters(SearchRequest, {"query": "q"})
    summary, gives, what = "Search the index", [SearchAnswer], "Documents, best first"
    return [
        DescribedRoute("POST", "/v1/search", handlers.search, summary, [SearchRequest], gives, what),
        DescribedRoute("GET", "/v1/search", handlers.by_address, summary, [], gives, what, parameters=parameters),
        DescribedRoute(
            "GET",
            "/v1/index",
            handlers.index,
            "Describe the index",
            [],
            [IndexDescription],
            "Name, version, fields, limits",
        ),
    ]
