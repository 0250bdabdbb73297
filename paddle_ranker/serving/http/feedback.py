"""`POST /v1/feedback`: write clicks and judgments to the log; `GET /v1/judge`: pairs of the log without a judgment."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Annotated, Any, Literal, Optional

from pydantic import Field, TypeAdapter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from typing_extensions import NotRequired, TypedDict

from paddle_ranker.data.rows.labels import LARGEST
from paddle_ranker.errors import listed, quoted
from paddle_ranker.lexical.highlights import SharedWords
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.schema import Schema
from paddle_ranker.retrieval.work.turns import check
from paddle_ranker.serving.core.faults import NOT_FOUND, READ_ONLY, TIMED_OUT, UNAVAILABLE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import json_bounds
from paddle_ranker.serving.core.search_log import (
    FeedbackLine,
    LogError,
    LogLine,
    LogReader,
    SearchIds,
    SearchLog,
    digest_of,
)
from paddle_ranker.serving.core.threads import StoppableWork
from paddle_ranker.serving.core.validation import Body, validated
from paddle_ranker.serving.http.exchange import (
    answer,
    deadline_of,
    read_request,
    refuse_parameters,
    reserve_of,
)
from paddle_ranker.serving.http.openapi import DescribedRoute
from paddle_ranker.serving.slots.index_slot import IndexSlot

_PAGE, _MOST_LOOKED_AT = 20, 1000  # pairs of an answer; pairs whose documents are looked up at a time
_LARGEST_OFFSET = 10_000
_MOST_HELD = 16 << 20  # characters of all pairs in the table; half of it is for those that are judged
_PER_PAIR = 200  # estimated characters of a pair beside its texts
_CHECKED_EVERY = 1000  # lines of the log between calls of `check`
_OFF = "this server keeps no log of searches: start it with --search_log FOLDER"


class FeedbackRequest(Body):
    """A click on a result, or a judgment of it."""

    search_id: str = Field(pattern=r"^[A-Za-z0-9_-]{8,64}$", description="that of the answer with the result")
    query: str = Field(description="that of the answer")
    id: str = Field(min_length=1, description="the document")
    event: Literal["click", "relevant", "irrelevant", "judged", "unjudged"] = Field(
        description="judged has a label; unjudged takes a judgment back"
    )
    position: Optional[int] = Field(None, ge=1, le=1_000_000, description="the result's rank when it was shown")
    label: Optional[int] = Field(None, ge=0, le=LARGEST, description="with judged: 0 is not relevant")
    dwell_ms: Optional[int] = Field(None, ge=0, le=1_000_000_000, description="how long the reader stayed with it")

    def check(self, path: str = "") -> None:
        super().check(path)
        if (self.event == "judged") != (self.label is not None):
            raise Fault(UNPROCESSABLE, "goes with the event judged, which needs it", field="label")


class Logged(TypedDict):
    """The answer to feedback."""

    logged: Literal[True]


class PairToJudge(TypedDict):
    """A query and a document that was shown for it."""

    search_id: str
    query: str
    id: str
    title: NotRequired[str]
    position: int
    text: str
    fields: dict[str, Any]
    highlights: Annotated[list[dict[str, int]], Field(description="as those of a search")]
    stages: Annotated[dict[str, dict[str, int]], Field(description="the document's rank in each stage that had it")]


class ToJudge(TypedDict):
    """Pairs that nobody has judged."""

    labels: list[int]
    pairs: Annotated[
        list[PairToJudge],
        Field(
            description="query by query, the least sure answer first; of a query by disagreement of recall and ranker"
        ),
    ]
    judged: int
    left: Annotated[int, Field(description="pairs of the log that are not judged")]
    changed: Annotated[int, Field(description="pairs left out: the text that was shown has changed")]


@dataclass
class _Pair:
    """State of a query and a document that was shown for it. The pair's key has the query and the document's id.

    search_id: id of the latest search that showed the document for the query; "" until a search is read
    position: the document's rank in that search
    digest: digest of the document's text when that search showed it; None if the log has none
    has_changed: whether searches showed different texts under the document's id
    judged_in: id of the search in which the pair was judged
    ranks: the document's rank in each stage of the latest search, by name of the stage
    shown_at: time of the latest search
    sureness: how sure the latest search's first answer is, see `SearchLine`
    label: the latest judgment; None without one
    judged_at: time of the judgment
    """

    search_id: str = ""
    position: int = 0
    digest: Optional[str] = None
    has_changed: bool = False
    judged_in: str = ""
    ranks: Mapping[str, int] = field(default_factory=dict)
    shown_at: str = ""
    sureness: float = 1.0
    label: Optional[int] = None
    judged_at: str = ""

    def is_of(self, document: Optional[Document]) -> bool:
        """Return whether the text of `document` has the pair's digest. If `digest` is None, any document is taken."""
        return document is not None and self.digest in (None, digest_of(document.text))

    @property
    def disagreement(self) -> int:
        """Difference of the document's fused rank and its rank by the ranker, or 0 if one of them is missing."""
        ranked = self.ranks.get("ranked")
        return 0 if ranked is None else abs(self.ranks.get("fused", ranked) - ranked)


_Key = tuple[str, str]  # a query and a document's id


class _Room(dict[_Key, _Pair]):
    """Pairs by query and document id, in the order of the calls of `put`.

    Attributes:
        held: number of characters of all pairs.
    """

    held = 0

    def put(self, key: _Key, pair: _Pair) -> None:
        self[key] = pair
        self.held += _size_of(key)

    def take(self, key: _Key) -> Optional[_Pair]:
        pair = self.pop(key, None)
        self.held -= 0 if pair is None else _size_of(key)
        return pair


def _size_of(key: _Key) -> int:
    return _PER_PAIR + sum(map(len, key))


class JudgeTable:
    """The pairs of a log, as many as fit into memory.

    Half of the memory is for pairs without feedback: once it is full, searches add no more pairs. The other half is for
    pairs with feedback: once it is full, new pairs replace the oldest.

    Args:
        most: maximum number of characters of all pairs.
    """

    def __init__(self, most: int = _MOST_HELD):
        self._shown, self._judged, self._most = _Room(), _Room(), most // 2

    def __len__(self) -> int:
        return len(self._shown) + len(self._judged)

    def add(self, line: LogLine) -> None:
        """Add a line of the log. Lines may come in any order, since their times are compared."""
        if isinstance(line, FeedbackLine):
            self._judge(line)
            return
        if line.parameters.get("prefix"):  # nobody can judge what answers an unfinished query
            return
        sureness = line.sureness
        for position, shown in enumerate(line.shown, start=line.first_position):
            key = line.query, shown.id
            pair = self._judged.get(key) or self._shown.get(key)
            if pair is None:
                if self._shown.held + _size_of(key) > self._most:
                    continue
                pair = _Pair()
                self._shown.put(key, pair)
            is_latest = line.time >= pair.shown_at
            if pair.digest is not None and shown.digest not in (None, pair.digest):
                pair.has_changed = True
                if (pair.judged_in == line.search_id) != is_latest:  # the label was given to the other text
                    pair.label = None
            if is_latest:
                pair.search_id, pair.position, pair.shown_at = line.search_id, position, line.time
                pair.ranks, pair.digest, pair.sureness = shown.ranks, shown.digest, sureness

    def _judge(self, line: FeedbackLine) -> None:
        label, key = line.judgment, (line.query, line.id)
        if label is None and line.event != "unjudged":
            return
        pair = self._judged.take(key) or self._shown.take(key) or _Pair()
        self._judged.put(key, pair)
        while self._judged.held > self._most and len(self._judged) > 1:
            self._judged.take(next(iter(self._judged)))
        if line.time >= pair.judged_at and (not pair.has_changed or line.search_id == pair.search_id):
            pair.label, pair.judged_at, pair.judged_in = label, line.time, line.search_id

    def forget(self, keys: Iterable[_Key]) -> None:
        for key in keys:
            self._shown.take(key)
            self._judged.take(key)

    def counts(self) -> tuple[int, int]:
        """Return how many pairs have a judgment, and how many have none."""
        pairs = [*self._shown.values(), *self._judged.values()]
        judged = sum(pair.label is not None for pair in pairs)
        return judged, sum(pair.label is None and bool(pair.search_id) for pair in pairs)

    def unjudged(self, count: int) -> list[tuple[str, str, _Pair]]:
        """Return (query, document id, pair) for `count` unjudged pairs.

        They come query by query, the query with the least sure first answer first, and in a query by disagreement.
        """
        open_ones = (
            (pair.sureness, key[0], -pair.disagreement, pair.position, key[1])
            for key, pair in chain(self._shown.items(), self._judged.items())
            if pair.label is None and pair.search_id
        )
        first = heapq.nsmallest(count, open_ones)
        return [(query, id, self._shown.get((query, id)) or self._judged[query, id]) for _, query, *_, id in first]


class FeedbackRoutes:
    """Handlers of the routes of feedback and judging.

    Args:
        index: slot of the index, with its documents and its log; without a log, requests are refused.
        ids: checks the ids of searches that feedback names.
    """

    def __init__(self, index: IndexSlot, ids: SearchIds):
        self._ids = ids
        self._index, self._labels = index, [*range(index.options.highest_label + 1)]
        self._request = TypeAdapter(FeedbackRequest)
        self._table, self._changed = JudgeTable(), 0
        self._reader: Optional[LogReader] = None
        self._work = StoppableWork(1, name="judge", what="the log was read; ask again, it goes on from there")

    def _logging(self) -> SearchLog:
        if self._index.log is None:
            raise Fault(NOT_FOUND, _OFF)
        return self._index.log

    async def feedback(self, request: Request) -> Response:
        """Answer `POST /v1/feedback` when the line is on the disk."""
        log, deadline, limits = self._logging(), self._index.deadline(deadline_of(request)), self._index.limits
        refuse_parameters(request)
        parse = partial(validated, self._request, bounds=json_bounds(1))
        feedback: FeedbackRequest = await read_request(request, limits.request_bytes, parse)
        limits.check_text(feedback.query, "query")
        limits.check_text(feedback.id, "id")
        search_id = self._ids.logged(feedback.search_id, feedback.query)
        if search_id is None:
            problem = "was not given out for this query: send `search_id` and `query` of one answer"
            raise Fault(UNPROCESSABLE, problem, field="search_id")
        if feedback.label is not None and feedback.label not in self._labels:
            raise Fault(UNPROCESSABLE, f"is {feedback.label}, expected one of {listed(self._labels)}", field="label")
        writing = log.feedback(FeedbackLine(**{**feedback.model_dump(), "search_id": search_id}))
        try:
            await asyncio.wait_for(asyncio.wrap_future(writing), max(0.0, deadline - time.monotonic()))
        except LogError as error:
            raise Fault(UNAVAILABLE, str(error), retry_after=5.0) from error
        except asyncio.TimeoutError as error:
            raise Fault(TIMED_OUT, "the deadline passed before the line was written; it may be yet") from error
        return answer(request, b'{"logged":true}')

    async def judge(self, request: Request) -> Response:
        """Answer `GET /v1/judge`: unjudged pairs, those of the query with the least sure answer first."""
        self._logging()
        refuse_parameters(request, "offset")
        offset = _offset(request.query_params.get("offset", "0"))
        deadline = self._index.deadline(deadline_of(request))
        content = await self._work.run(0, deadline, partial(self._pairs, offset), reserve_of(request))
        return answer(request, content)

    def _pairs(self, offset: int) -> bytes:
        """Return the JSON of a page of unjudged pairs, after the first `offset`. Called in the only thread of `_work`.

        First reads the lines that all workers have added to the log.
        """
        self._reader = self._reader or LogReader(self._logging().folder)
        for number, line in enumerate(self._reader):
            self._table.add(line)
            if number % _CHECKED_EVERY == 0:
                check()
        looked_at = _PAGE
        while True:
            check()
            unjudged = self._table.unjudged(offset + looked_at)[offset:]
            documents = self._index.documents_of(list(dict.fromkeys(id for _, id, _ in unjudged)))
            gone = [(query, id) for query, id, pair in unjudged if not pair.is_of(documents.get(id))]
            if not gone:
                break
            self._changed += sum(id in documents for _, id in gone)
            self._table.forget(gone)
            looked_at = min(2 * looked_at, _MOST_LOOKED_AT)  # if the index was replaced, all may be gone
        (judged, left), schema = self._table.counts(), self._index.schema
        shown = ((query, documents[id], pair) for query, id, pair in unjudged[:_PAGE])
        pairs = [{"search_id": self._ids.given_out(one[2].search_id, one[0]), **_shown(*one, schema)} for one in shown]
        counts = {"judged": judged, "left": left, "changed": self._changed}
        return to_json({"labels": self._labels, "pairs": pairs, **counts})


def _shown(query: str, document: Document, pair: _Pair, schema: Schema) -> dict[str, object]:
    title = schema.name_of(document)
    return {
        "query": query,
        "id": document.id,
        **({} if title is None else {"title": title}),
        "position": pair.position,
        "text": document.text,
        "fields": dict(document.fields),
        "highlights": [
            highlight._asdict() for highlight in SharedWords(query, schema.analyser).highlights(document.text)
        ],
        "stages": {name: {"rank": rank} for name, rank in pair.ranks.items()},
    }


def _offset(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= _LARGEST_OFFSET):
        problem = f"is {quoted(text)}, expected a number from 0 to {_LARGEST_OFFSET:,}"
        raise Fault(UNPROCESSABLE, problem, field="offset")
    return int(text)


def routes(index: IndexSlot, ids: SearchIds) -> list[BaseRoute]:
    handlers = FeedbackRoutes(index, ids)
    offset = {"name": "offset", "in": "query", "description": "leave out so many pairs", "schema": {"type": "integer"}}
    return [
        DescribedRoute(
            "POST",
            "/v1/feedback",
            handlers.feedback,
            "Log a click or a judgment",
            [FeedbackRequest],
            [Logged],
            "The line is in the log",
            also=[READ_ONLY, NOT_FOUND],
        ),
        DescribedRoute(
            "GET",
            "/v1/judge",
            handlers.judge,
            "List pairs to judge",
            gives=[ToJudge],
            what="Pairs",
            also=[NOT_FOUND],
            parameters=[offset],
        ),
    ]
