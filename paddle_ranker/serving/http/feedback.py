"""`POST /v1/feedback`: clicks and judgments to the log; `GET /v1/judge`: its pairs that nobody has judged yet."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Optional, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from paddle_ranker.data.labels import LARGEST
from paddle_ranker.errors import quoted
from paddle_ranker.lexical.highlights import SharedWords
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.serving.core.apart import apart
from paddle_ranker.serving.core.faults import NOT_FOUND, READ_ONLY, TIMED_OUT, UNAVAILABLE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.json_text import check_json, json_bounds
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.search_log import FeedbackLine, LogError, LogLine, LogReader, SearchLog
from paddle_ranker.serving.core.stoppable import Caller, StoppableWork
from paddle_ranker.serving.core.validation import refusal
from paddle_ranker.serving.http.exchange import answer, deadline_of, json_bytes, read_body, refuse_other_sites
from paddle_ranker.serving.http.openapi import operation, schemas_of

RELEVANT_OR_NOT = (0, 1)
_PAGE, _MOST_LOOKED_AT = 20, 1000  # pairs of an answer; whose documents are looked for at once
_LARGEST_OFFSET = 10_000
_MOST_HELD = 16 << 20  # characters of all pairs in the table
_PER_PAIR = 200  # about what a pair takes beside its texts
_CHECKED_EVERY = 1000  # lines of the log
_OFF = "this server keeps no log of searches: start it with --search_log FOLDER"


class FeedbackRequest(BaseModel):
    """What somebody said about a result; keys that are not here are ignored, and not logged."""

    model_config = ConfigDict(strict=True)

    search_id: str = Field(pattern=r"^[A-Za-z0-9_-]{8,64}$", description="that of the answer with the result")
    query: str
    id: str = Field(min_length=1, description="the document")
    event: Literal["click", "relevant", "irrelevant", "judged", "unjudged"] = Field(
        description="judged has a label; unjudged takes a judgment back"
    )
    position: Optional[int] = Field(None, ge=1, le=1_000_000, description="the result's rank when it was shown")
    label: Optional[int] = Field(None, ge=0, le=LARGEST, description="with judged: 0 is not relevant")
    dwell_ms: Optional[int] = Field(None, ge=0, le=1_000_000_000, description="how long the reader stayed with it")

    @model_validator(mode="after")
    def _label_is_of_a_judgment(self) -> FeedbackRequest:
        if (self.event == "judged") != (self.label is not None):
            raise ValueError("goes with the event judged, which needs it")
        return self


class IndexSlot(Protocol):
    """What these routes need of the index."""

    @property
    def limits(self) -> Limits: ...

    def deadline(self, stated: Optional[float]) -> float:
        """Return a request's deadline: `stated`, or the default."""
        ...

    def documents_of(self, ids: Sequence[str]) -> Mapping[str, Document]:
        """Return the documents with these ids, by id; ids of no document are left out."""
        ...


@dataclass
class _Pair:
    """A query and a document that was shown for it; the last time that it was shown, and what was said of it."""

    search_id: str = ""  # until a search is read that showed it
    position: int = 0
    ranks: Mapping[str, int] = field(default_factory=dict)
    shown_at: str = ""
    label: Optional[int] = None
    judged_at: str = ""

    @property
    def disagreement(self) -> int:
        """How far apart the ranks of recall and of the ranker are; 0 where one of them is missing."""
        ranked = self.ranks.get("ranked")
        return 0 if ranked is None else abs(self.ranks.get("fused", ranked) - ranked)


class JudgeTable:
    """The pairs of a log, as many as fit, those that were shown or judged last.

    Args:
        most: characters that all pairs may have.
    """

    def __init__(self, most: int = _MOST_HELD):
        self._pairs: dict[tuple[str, str], _Pair] = {}  # the one that was touched last comes last
        self._most, self._held = most, 0

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, line: LogLine) -> None:
        """Take up a line; lines may come in any order, later times count."""
        if isinstance(line, FeedbackLine):
            self._judge(line)
            return
        for position, shown in enumerate(line.shown, start=line.first_position):
            pair = self._touch(line.query, shown.id)
            if line.time >= pair.shown_at:
                pair.search_id, pair.position, pair.shown_at = line.search_id, position, line.time
                pair.ranks = shown.ranks

    def _judge(self, line: FeedbackLine) -> None:
        label = line.judgment
        if label is None and line.event != "unjudged":
            return
        pair = self._touch(line.query, line.id)
        if line.time >= pair.judged_at:
            pair.label, pair.judged_at = label, line.time

    def _touch(self, query: str, id: str) -> _Pair:
        key = (query, id)
        pair = self._pairs.pop(key, None)
        if pair is None:
            pair = _Pair()
            self._held += _PER_PAIR + len(query) + len(id)
        self._pairs[key] = pair
        while self._held > self._most and len(self._pairs) > 1:
            self.forget([next(iter(self._pairs))])
        return pair

    def forget(self, keys: Iterable[tuple[str, str]]) -> None:
        """Remove pairs, (query, id) each."""
        for key in keys:
            del self._pairs[key]
            self._held -= _PER_PAIR + sum(map(len, key))

    def counts(self) -> tuple[int, int]:
        """Return how many pairs are judged, and how many are not."""
        judged = sum(pair.label is not None for pair in self._pairs.values())
        return judged, sum(pair.label is None and bool(pair.search_id) for pair in self._pairs.values())

    def unjudged(self, count: int) -> list[tuple[str, str, _Pair]]:
        """Return up to `count` (query, id, pair) that are not judged, the worst disagreement first."""
        open_ones = (
            (-pair.disagreement, pair.position, *key)
            for key, pair in self._pairs.items()
            if pair.label is None and pair.search_id
        )
        first = heapq.nsmallest(count, open_ones)
        return [(query, id, self._pairs[query, id]) for *_, query, id in first]


class FeedbackRoutes:
    """The handlers of the routes.

    Args:
        log: takes the lines; None: the routes say that there is none.
        index: has the documents' texts.
        labels: that `/judge` offers.
    """

    def __init__(self, log: Optional[SearchLog], index: IndexSlot, labels: Sequence[int] = RELEVANT_OR_NOT):
        self._log, self._index, self._labels = log, index, list(labels)
        self._request = TypeAdapter(FeedbackRequest)
        self._table = JudgeTable()
        self._reader: Optional[LogReader] = None
        self._work = StoppableWork(1, name="judge", what="the log was read; ask again, it goes on from there")

    def _logging(self) -> SearchLog:
        if self._log is None:
            raise Fault(NOT_FOUND, _OFF)
        return self._log

    async def feedback(self, request: Request) -> Response:
        """Answer `POST /v1/feedback` when the line is on the disk."""
        log, deadline, limits = self._logging(), self._index.deadline(deadline_of(request)), self._index.limits
        refuse_other_sites(request)
        body = await read_body(request, limits.request_bytes)
        asked: FeedbackRequest = await apart(len(body), _validated, self._request, body, deadline=deadline)
        limits.check_text(asked.query, "query")
        limits.check_text(asked.id, "id")
        writing = log.feedback(FeedbackLine(**asked.model_dump()))
        try:
            await asyncio.wait_for(asyncio.wrap_future(writing), max(0.0, deadline - time.monotonic()))
        except LogError as error:
            raise Fault(UNAVAILABLE, str(error), retry_after=5.0) from error
        except asyncio.TimeoutError as error:
            raise Fault(TIMED_OUT, "the deadline passed before the line was written; it may be yet") from error
        return answer(request, b'{"logged":true}', "application/json")

    async def judge(self, request: Request) -> Response:
        """Answer `GET /v1/judge`: pairs to judge, the worst disagreement between recall and ranker first."""
        self._logging()
        offset = _offset(request.query_params.get("offset", "0"))
        deadline = self._index.deadline(deadline_of(request))
        content = await self._work.run(0, deadline, lambda caller: self._pairs(caller, offset))
        return answer(request, content, "application/json")

    def _pairs(self, caller: Caller, offset: int) -> bytes:
        """Read what was added to the log, by all workers, and return the answer; called in one thread only."""
        assert self._log is not None
        self._reader = self._reader or LogReader(self._log.folder)
        for number, line in enumerate(self._reader):
            self._table.add(line)
            if number % _CHECKED_EVERY == 0:
                caller.check()
        looked_at = _PAGE
        while True:
            caller.check()
            found = self._table.unjudged(offset + looked_at)[offset:]
            documents = self._index.documents_of(list(dict.fromkeys(id for _, id, _ in found)))
            removed = [(query, id) for query, id, _ in found if id not in documents]
            if not removed:
                break
            self._table.forget(removed)
            looked_at = min(2 * looked_at, _MOST_LOOKED_AT)  # all may be gone, where the index is another one by now
        judged, left = self._table.counts()
        pairs = [_shown(query, documents[id], pair) for query, id, pair in found[:_PAGE]]
        content = {"labels": self._labels, "pairs": pairs, "judged": judged, "left": left}
        return json_bytes(content)


def _shown(query: str, document: Document, pair: _Pair) -> dict[str, object]:
    return {
        "search_id": pair.search_id,
        "query": query,
        "id": document.id,
        "position": pair.position,
        "text": document.text,
        "fields": dict(document.fields),
        "highlights": [one._asdict() for one in SharedWords(query).highlights(document.text)],
        "stages": {name: {"rank": rank} for name, rank in pair.ranks.items()},
    }


def _validated(adapter: TypeAdapter[FeedbackRequest], body: bytes) -> FeedbackRequest:
    check_json(body, json_bounds(1))
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        fault = refusal(error)
        raise Fault(fault.kind, fault.problem, field="label" if fault.field == "body" else fault.field) from error


def _offset(given: str) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) <= 5 and int(given) <= _LARGEST_OFFSET):
        problem = f"is {quoted(given)}, expected a number from 0 to {_LARGEST_OFFSET:,}"
        raise Fault(UNPROCESSABLE, problem, field="offset")
    return int(given)


def routes(log: Optional[SearchLog], index: IndexSlot, labels: Sequence[int] = RELEVANT_OR_NOT) -> list[BaseRoute]:
    """Return the routes; see `FeedbackRoutes`."""
    handlers = FeedbackRoutes(log, index, labels)
    return [
        Route("/v1/feedback", handlers.feedback, methods=["POST"]),
        Route("/v1/judge", handlers.judge, methods=["GET"]),
    ]


_PAIR = {
    "type": "object",
    "required": ["search_id", "query", "id", "position", "text"],
    "properties": {
        "search_id": {"type": "string"},
        "query": {"type": "string"},
        "id": {"type": "string"},
        "position": {"type": "integer"},
        "text": {"type": "string"},
        "fields": {"type": "object"},
        "highlights": {"type": "array", "items": {"type": "object"}, "description": "as those of a search"},
        "stages": {"type": "object", "description": "the document's rank in each stage that had it"},
    },
}
_SCHEMAS = {
    "Logged": {"type": "object", "required": ["logged"], "properties": {"logged": {"const": True}}},
    "ToJudge": {
        "type": "object",
        "required": ["labels", "pairs", "judged", "left"],
        "properties": {
            "labels": {"type": "array", "items": {"type": "integer"}},
            "pairs": {
                "type": "array",
                "description": "worst disagreement between recall and ranker first",
                "items": _PAIR,
            },
            "judged": {"type": "integer"},
            "left": {"type": "integer", "description": "pairs of the log that are not judged"},
        },
    },
}


def describe() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the routes' OpenAPI descriptions, and their schemas."""
    feedback = operation(
        "Log a click or a judgment", ["FeedbackRequest"], ["Logged"], "The line is in the log", [READ_ONLY, NOT_FOUND]
    )
    judge = operation("Pairs that nobody has judged", [], ["ToJudge"], "Pairs", [NOT_FOUND])
    judge["parameters"].append(
        {"name": "offset", "in": "query", "description": "leave out so many pairs", "schema": {"type": "integer"}}
    )
    paths = {"/v1/feedback": {"post": feedback}, "/v1/judge": {"get": judge}}
    return paths, {**_SCHEMAS, **schemas_of(FeedbackRequest)}
