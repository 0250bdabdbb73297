"""`GET /v1/suggest`: queries with clicks, and titles, that continue the text that a user has typed."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Literal, Optional, TypeVar

from pydantic import Field, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from typing_extensions import TypedDict

from paddle_ranker.lexical.analyser import Analyser
from paddle_ranker.retrieval.snapshots.searchable import Snapshot
from paddle_ranker.retrieval.snapshots.snapshot import LocalSnapshot
from paddle_ranker.retrieval.stages.suggestions import LONGEST, Completions, TitleSuggestions, suggested_field
from paddle_ranker.retrieval.values.bounds import check_parameters
from paddle_ranker.retrieval.values.listing import Listing
from paddle_ranker.serving.core.faults import UNPROCESSABLE, Fault
from paddle_ranker.serving.core.search_log import LogReader, SearchLine
from paddle_ranker.serving.core.validation import Body, refusal, refusing_parameters
from paddle_ranker.serving.http.exchange import answer, deadline_of, refuse_parameters, refuse_repeated
from paddle_ranker.serving.http.openapi import DescribedRoute, address_parameters
from paddle_ranker.serving.slots.index_options import IndexSlotOptions
from paddle_ranker.serving.slots.index_slot import IndexSlot, ServedIndex

K = TypeVar("K")
V = TypeVar("V")
_LOG = logging.getLogger(__name__)
_WAIT_SECONDS = 1.0  # a request waits at most this long for the titles of a changed index
_LOG_SECONDS = 5.0  # between two reads of the log, and after a failure
_MOST_SEARCHES = 100_000  # latest searches with a click, and latest searches while typing, that are kept
_MOST_PREFERRED = 1000  # documents whose titles rank first because of their clicks
_AT_ONCE, _REST = 500, 0.0005  # lines of the log that are read at a time, and seconds for other threads after them


class SuggestRequest(Body):
    """The query parameters of `GET /v1/suggest`."""

    q: str = Field(description="what is typed so far")
    top_k: int = Field(8, description="suggestions of the answer, at most", json_schema_extra={"minimum": 1})


Suggested = TypedDict("Suggested", {"text": str, "from": Literal["query", "title"]})


class Suggestions(TypedDict):
    """An answer to a `SuggestRequest`."""

    suggestions: Annotated[list[Suggested], Field(description="queries, then titles, each most clicked first")]


class Clicks:
    """The latest clicks of a log: the queries of the searches that led to a click, and the documents that were clicked.

    `queries` does not count searches that the page sends while the user is typing. `documents` counts clicks after
    all searches.

    folder: the log's folder
    """

    def __init__(self, folder: Path):
        self._reader, self._seen = LogReader(folder, self._is_wanted), 0
        self._clicked: dict[str, str] = {}  # the query by the id of each search with a click, the oldest first
        self._typing: dict[str, None] = {}  # ids of searches while typing, the oldest first
        self._opened: dict[tuple[str, str], None] = {}  # search and document of each click, the oldest first

    def read(self) -> bool:
        """Read the lines added to the log since the last call. Return whether these lines change the clicks."""
        has_changed = False
        for line in self._reader:
            id = line.search_id
            if isinstance(line, SearchLine):
                if line.parameters.get("prefix") is True:
                    self._typing[id] = None
                    has_changed |= self._clicked.pop(id, None) is not None
            elif line.event == "click":
                has_changed |= (id, line.id) not in self._opened
                self._opened[id, line.id] = None
                if id not in self._typing and len(line.query) <= LONGEST:
                    self._clicked.setdefault(id, line.query)
            _forget_oldest(self._clicked)
            _forget_oldest(self._typing)
            _forget_oldest(self._opened)
        return has_changed

    def documents(self) -> dict[str, int]:
        """Return the most clicked documents: the number of clicks by document id."""
        return dict(Counter(document for _, document in self._opened).most_common(_MOST_PREFERRED))

    def queries(self, analyser: Analyser, least: int) -> Completions:
        """Return the queries for which at least `least` searches led to a click, most searched queries first."""
        spellings: dict[str, Counter[str]] = {}
        for query, count in Counter(self._clicked.values()).items():
            shown = " ".join(query.split())
            spellings.setdefault(analyser.fold(shown), Counter())[shown] += count
        counts = (
            (counts_of_query.most_common(1)[0][0], sum(counts_of_query.values()))
            for counts_of_query in spellings.values()
        )
        kept = {query: -count for query, count in counts if count >= least}
        return Completions([*kept], analyser.fold, [*kept.values()], starts_first=False, letters=analyser.letters)

    def _is_wanted(self, line: bytes) -> bool:
        self._seen += 1
        if self._seen % _AT_ONCE == 0:
            time.sleep(_REST)
        return b'"event":"click"' in line or b'"prefix":true' in line


def _forget_oldest(held: dict[K, V]) -> None:
    if len(held) > _MOST_SEARCHES:
        del held[next(iter(held))]


class Suggester:
    """Suggestions of a server. A thread updates them from the index and the log.

    A request waits at most a second if the index has changed, then gets the suggestions that are ready.

    Args:
        index: slot of the index, which also has the log.
    """

    def __init__(self, index: IndexSlot):
        self._index, self._titles = index, TitleSuggestions()
        self._clicks = Clicks(index.log.folder) if index.log is not None else None
        self._queries: Optional[Completions] = None
        self._following: Optional[Future[None]] = None
        self._version: Optional[tuple[float, int]] = None  # of the index that was followed
        self._next_look, self._problem = 0.0, ""

    async def follow(self) -> None:
        """Update the suggestions in a thread if necessary.

        If the index has changed, wait for the thread, but at most a second.
        """
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            served = self._index.ready()
            is_behind = self._version != _version_of(served) or not served.collection.is_current
            is_time = time.monotonic() >= self._next_look
            is_wanted = (is_behind and (is_time or not self._problem)) or (is_time and self._clicks is not None)
            if is_wanted and (self._following is None or self._following.done()):
                self._following = Future()
                threading.Thread(
                    target=self._follow, args=(self._following, served), name="suggest", daemon=True
                ).start()
            left = until - time.monotonic()
            if not is_behind or self._following is None or self._following.done() or left <= 0:
                break
            await asyncio.wait([asyncio.wrap_future(self._following)], timeout=left)
            if not isinstance(served.snapshot, LocalSnapshot):
                break  # the titles of shards elsewhere are not known

    def _follow(self, done: Future[None], served: ServedIndex) -> None:
        problem = ""
        try:
            served = self._index.newest(served)
            now, version = served.snapshot, _version_of(served)
            is_new, least = version != self._version, self._index.options.suggest_after
            if is_new and isinstance(now, LocalSnapshot):
                self._titles.follow(now)
            self._version = version
            if self._clicks is not None:
                are_new = self._clicks.read()
                if are_new and least:
                    self._queries = self._clicks.queries(now.info.schema.analyser, least)
                if (are_new or is_new) and isinstance(now, LocalSnapshot):
                    self._titles.prefer(now, self._clicks.documents())
        except Exception as error:  # such as a damaged segment; the next call tries again
            problem = f"{type(error).__name__}: {error}"
        if problem and problem != self._problem:
            _LOG.warning("suggestions stay as they were: %s", problem)
        self._problem, self._next_look = problem, time.monotonic() + _LOG_SECONDS
        done.set_result(None)

    def find(self, typed: str, count: int) -> bytes:
        """Return the JSON body of `/v1/suggest`: up to `count` suggestions for `typed`, queries before titles."""
        queries = [] if self._queries is None else self._queries.find(typed, count)
        titles, folded_queries = self._titles.find(typed, count), {query.folded for query in queries}
        suggestions = [{"text": query.text, "from": "query"} for query in queries]
        suggestions += [{"text": title.text, "from": "title"} for title in titles if title.folded not in folded_queries]
        return to_json({"suggestions": suggestions[:count]})


def _version_of(served: ServedIndex) -> tuple[float, int]:
    return served.loaded_at, served.info.generation


def is_suggesting(now: Snapshot, options: IndexSlotOptions) -> bool:
    """Return whether a server can suggest anything: titles of the index, or queries of its log."""
    has_titles = isinstance(now, LocalSnapshot) and suggested_field(now) is not None
    return has_titles or bool(options.search_log and options.suggest_after)


class SuggestRoutes:
    """Handler of the route of suggestions. See `routes` for the arguments."""

    def __init__(self, index: IndexSlot, keep_texts: bool):
        self._index, self._keep_texts, self._suggester = index, keep_texts, Suggester(index)

    async def suggest(self, request: Request) -> Response:
        """Answer `GET /v1/suggest?q=...&top_k=...`."""
        index, suggest_request = self._index, self._read(request)
        if self._keep_texts:
            request.scope["state"]["texts"] = {"query": suggest_request.q}
        deadline = index.deadline(deadline_of(request))
        await self._suggester.follow()
        content = await index.run(self._suggester.find, suggest_request.q, suggest_request.top_k, deadline=deadline)
        return answer(request, content)

    def _read(self, request: Request) -> SuggestRequest:
        refuse_parameters(request, *SuggestRequest.model_fields)
        parameters = request.query_params
        for name in {*parameters}:
            refuse_repeated(name, len(parameters.getlist(name)))
        try:
            suggest_request = SuggestRequest.model_validate(dict(parameters), strict=False)
        except ValidationError as error:
            raise refusal(error) from error
        self._index.limits.check_text(suggest_request.q, "q")
        if not suggest_request.q.strip():
            raise Fault(UNPROCESSABLE, "is empty: give the first letters of a word", field="q")
        with refusing_parameters():
            check_parameters(Listing(suggest_request.top_k), {"top_k": self._index.options.hits})
        return suggest_request


def routes(index: IndexSlot, *, keep_texts: bool = False) -> list[BaseRoute]:
    """Return the route of suggestions.

    keep_texts: whether to put the typed text into the request's state, for the log of requests
    """
    return [
        DescribedRoute(
            "GET",
            "/v1/suggest",
            SuggestRoutes(index, keep_texts).suggest,
            "Suggest while typing",
            gives=[Suggestions],
            what="Queries that had clicks, then titles",
            parameters=address_parameters(SuggestRequest),
        )
    ]
