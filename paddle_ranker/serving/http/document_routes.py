"""`POST`, `DELETE` and `GET /v1/documents`: add, replace, remove and read documents while the index is searched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Optional, TypeVar, Union

from pydantic import BaseModel, ConfigDict, FailFast, Field, TypeAdapter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from typing_extensions import TypedDict

from paddle_ranker.data.rows.field_paths import unwrapped
from paddle_ranker.errors import listed, quoted
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.serving.core.faults import ALREADY_THERE, NO_DOCUMENT, READ_ONLY, TOO_LARGE, UNPROCESSABLE, Fault
from paddle_ranker.serving.core.limits import check_count, require_words
from paddle_ranker.serving.core.threads import MUCH_BYTES, run_in_thread
from paddle_ranker.serving.core.validation import Body, validated
from paddle_ranker.serving.http.exchange import (
    answer,
    deadline_of,
    read_request,
    refuse_parameters,
    refuse_repeated,
    reserve_of,
)
from paddle_ranker.serving.http.openapi import DescribedRoute
from paddle_ranker.serving.slots.index_slot import IndexSlot
from paddle_ranker.serving.slots.index_writing import IndexWriter

NewFields = Annotated[
    list[str],
    FailFast(),
    Field(default_factory=list, description="fields that are new, although the index has others of similar names"),
]
A = TypeVar("A", "DocumentsRequest", "ChangesRequest", "RemovalRequest")
_OWN = ("id", "text")  # keys of a document that are no fields
_LISTED = 100  # default number of listed documents
_LONGEST_ID = 512  # characters


class GivenDocument(BaseModel):
    """A document of a request. All keys but id, text and fields are names of fields, as in files of documents."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: str = Field(min_length=1, max_length=_LONGEST_ID)
    text: Optional[str] = Field(None, min_length=1, description="default: the title, else the values of the fields")
    fields: dict[str, Any] = Field(default_factory=dict, description="values by name, which filters can ask for")


class DocumentsRequest(Body):
    """Request to add documents, or to replace stored documents with the same ids."""

    documents: Annotated[list[GivenDocument], FailFast()]
    mode: Literal["add", "replace"] = Field(
        "replace", description="whether a document of an id that is there takes its place, or the request is refused"
    )
    new_fields: NewFields


class ChangedDocument(BaseModel):
    """New values of a stored document: null removes a field, and fields that are not named stay."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: str = Field(min_length=1, max_length=_LONGEST_ID)
    text: Optional[str] = Field(None, min_length=1)
    fields: dict[str, Any] = Field(default_factory=dict)


class ChangesRequest(Body):
    """Request to change stored documents."""

    documents: Annotated[list[ChangedDocument], FailFast()]
    new_fields: NewFields


class RemovalRequest(Body):
    """Request to remove documents."""

    ids: Annotated[list[str], FailFast()]


class DocumentRoutes:
    """Handlers of the routes of documents.

    Args:
        index: the slot of the index.
        writer: changes the index.
    """

    def __init__(self, index: IndexSlot, writer: IndexWriter):
        self._index, self._writer = index, writer
        self._documents, self._removal = TypeAdapter(DocumentsRequest), TypeAdapter(RemovalRequest)
        self._changes = TypeAdapter(ChangesRequest)

    async def add(self, request: Request) -> Response:
        """Answer `POST /v1/documents`."""
        body, fields = await self._read(request, self._documents)
        schema = self._index.info.schema
        documents = [
            Document(document.id, document.text or schema.text_of(values) or document.id, values)
            for document, values in zip(body.documents, fields)
        ]
        request.scope["state"]["pairs"] = len(documents)
        deadline, replace = self._deadline(request), body.mode == "replace"
        added = await self._writer.add(
            documents, deadline, reserve_of(request), replace=replace, new_fields=body.new_fields
        )
        return await self._answer(request, added=added.new, replaced=added.replaced, unchanged=added.unchanged)

    async def change(self, request: Request) -> Response:
        """Answer `PATCH /v1/documents`."""
        body, fields = await self._read(request, self._changes)
        changes = [(document.id, document.text, values) for document, values in zip(body.documents, fields)]
        request.scope["state"]["pairs"] = len(changes)
        reserve = reserve_of(request)
        added = await self._writer.change(changes, self._deadline(request), reserve, new_fields=body.new_fields)
        return await self._answer(request, replaced=added.replaced, unchanged=added.unchanged)

    def _checked(self, body: Union[DocumentsRequest, ChangesRequest, RemovalRequest]) -> list[dict[str, Any]]:
        """Check the documents or ids of a parsed request. Return the fields of each document, or [] for a removal.

        Raises `Fault` for a document that cannot be stored, and for invalid ids.
        """
        if isinstance(body, RemovalRequest):
            check_count(len(body.ids), self._index.options.documents, "ids")
            self._index.limits.check_texts(body.ids, "ids")
            return []
        documents: Sequence[Union[GivenDocument, ChangedDocument]] = body.documents
        check_count(len(documents), self._index.options.documents, "documents")
        fields, files = [], {field.name for field in self._index.info.schema.files}
        for place, document in enumerate(documents):
            more = document.model_extra or {}
            if document.text is not None:
                self._index.limits.check_text(document.text, f"documents[{place}].text")
                require_words(document.text, f"documents[{place}].text")
            if inside := sorted(set(_OWN) & document.fields.keys()):
                problem = f"holds {quoted(inside[0])}, which stands beside the fields, not among them"
                raise Fault(UNPROCESSABLE, problem, field=f"documents[{place}].fields")
            if both := sorted(document.fields.keys() & more.keys()):
                problem = f"gives {listed(both)} twice, in fields and beside them; give each once"
                raise Fault(UNPROCESSABLE, problem, field=f"documents[{place}]")
            fields.append(unwrapped({**document.fields, **more}))
            values = {name: value for name, value in fields[-1].items() if name not in files}
            if (size := len(to_json(values))) > 4 * self._index.limits.characters:
                problem = f"are {size:,} bytes as JSON, at most {4 * self._index.limits.characters:,} are allowed"
                raise Fault(TOO_LARGE, problem, field=f"documents[{place}].fields")
        return fields

    async def list(self, request: Request) -> Response:
        """Answer `GET /v1/documents?after=ID&limit=100`."""
        refuse_parameters(request, "after", "limit")
        for name in ("after", "limit"):
            refuse_repeated(name, len(request.query_params.getlist(name)))
        after, limit = request.query_params.get("after"), request.query_params.get("limit", str(_LISTED))
        if not limit.isdecimal() or not 1 <= int(limit[:9]) <= self._index.options.documents:
            problem = f"is {quoted(limit)}, expected a number from 1 to {self._index.options.documents:,}"
            raise Fault(UNPROCESSABLE, problem, field="limit")
        deadline = self._deadline(request)
        served = await self._index.current(deadline)
        documents = await self._index.run(
            self._index.local.snapshot().after, after, int(limit), deadline=deadline, reserve=reserve_of(request)
        )
        content = {"documents": [_content(document) for document in documents], "index": served.summary}
        return answer(request, await run_in_thread(MUCH_BYTES + 1, to_json, content))

    async def remove(self, request: Request) -> Response:
        """Answer `DELETE /v1/documents`."""
        body, _ = await self._read(request, self._removal)
        request.scope["state"]["pairs"] = len(body.ids)
        removed = await self._writer.remove(body.ids, self._deadline(request))
        return await self._answer(request, removed=removed, missing=len(set(body.ids)) - removed)

    async def one(self, request: Request) -> Response:
        """Answer `GET /v1/documents/{id}`."""
        refuse_parameters(request)
        id, deadline = request.path_params["id"], self._deadline(request)
        request.scope["state"]["protocol"] = "documents"
        served = await self._index.current(deadline)
        documents = await self._index.run(
            served.snapshot.documents_of, [id], deadline=deadline, reserve=reserve_of(request)
        )
        document = documents.get(id)
        if document is None:
            raise Fault(NO_DOCUMENT, f"there is no document {quoted(id)}", field="id")
        much = MUCH_BYTES + 1  # the size of the fields is not known
        return answer(request, await run_in_thread(much, to_json, _content(document)))

    async def _read(self, request: Request, adapter: TypeAdapter[A]) -> tuple[A, Sequence[dict[str, Any]]]:
        """Read and check a request that changes documents. Return the parsed request, and the fields of each document.

        Raises `Fault` if the request is invalid or comes from another site's page, or if the index is only read.

        adapter: parses the body
        """
        if not self._index.options.writable:
            raise Fault(READ_ONLY, "this server only reads its index: start it with --writable true")
        refuse_parameters(request)
        limits = self._index.limits

        def parse(body: bytes) -> tuple[A, Sequence[dict[str, Any]]]:
            parsed: A = validated(adapter, body, limits.json_bounds)
            return parsed, self._checked(parsed)

        return await read_request(request, limits.request_bytes, parse)

    def _deadline(self, request: Request) -> float:
        return self._index.deadline(deadline_of(request))

    async def _answer(self, request: Request, **counts: int) -> Response:
        return answer(request, to_json({**counts, "index": self._index.ready().summary}))


def _content(document: Document) -> dict[str, Any]:
    return {"id": document.id, "text": document.text, "fields": document.fields, "version": document.version}


class IndexState(TypedDict):
    """The index after a change."""

    name: str
    version: int
    documents: int


class AddedAnswer(TypedDict):
    """An answer to a `DocumentsRequest`."""

    added: int
    replaced: int
    unchanged: int
    index: IndexState


class Changed(TypedDict):
    """An answer to a `ChangesRequest`."""

    replaced: int
    unchanged: int
    index: IndexState


class Removed(TypedDict):
    """An answer to a `RemovalRequest`."""

    removed: int
    missing: int
    index: IndexState


class StoredDocument(TypedDict):
    """A document of the index."""

    id: str
    text: str
    fields: dict[str, Any]
    version: int


class Listed(TypedDict):
    """A page of the index's documents."""

    documents: list[StoredDocument]
    index: IndexState


def routes(index: IndexSlot, writer: IndexWriter) -> list[BaseRoute]:
    handlers = DocumentRoutes(index, writer)
    by_id = DescribedRoute(
        "GET",
        "/v1/documents/{id:path}",
        handlers.one,
        "Get a document",
        gives=[StoredDocument],
        what="As it was added, with its version",
        also=[NO_DOCUMENT],
        parameters=[{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
    )
    by_id.path_regex = re.compile(by_id.path_regex.pattern, re.S)  # an id may have lines
    return [
        DescribedRoute(
            "POST",
            "/v1/documents",
            handlers.add,
            "Add or replace documents",
            [DocumentsRequest],
            [AddedAnswer],
            "Durable, and found from now on",
            also=[READ_ONLY, ALREADY_THERE],
        ),
        DescribedRoute(
            "PATCH",
            "/v1/documents",
            handlers.change,
            "Change fields of documents",
            [ChangesRequest],
            [Changed],
            "Durable, and found from now on",
            also=[READ_ONLY, NO_DOCUMENT],
        ),
        DescribedRoute(
            "GET",
            "/v1/documents",
            handlers.list,
            "List documents",
            gives=[Listed],
            what="In an order that changes between pages do not move: each document that stays comes once",
            parameters=[
                {"name": "after", "in": "query", "schema": {"type": "string"}},
                {"name": "limit", "in": "query", "schema": {"type": "integer"}},
            ],
        ),
        DescribedRoute(
            "DELETE",
            "/v1/documents",
            handlers.remove,
            "Remove documents",
            [RemovalRequest],
            [Removed],
            "Durable, and not found any more",
            also=[READ_ONLY],
        ),
        by_id,
    ]
