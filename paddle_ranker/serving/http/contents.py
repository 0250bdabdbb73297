"""`GET /v1/contents/NAME`: files in documents' fields, such as pictures; and their addresses in answers."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Optional

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from paddle_ranker.errors import quoted
from paddle_ranker.retrieval.candidate_indexes import Document
from paddle_ranker.retrieval.schema import FIELD_TYPES, Schema
from paddle_ranker.retrieval.snapshot import LocalSnapshot
from paddle_ranker.serving.core.faults import NO_DOCUMENT, Fault
from paddle_ranker.serving.core.index_slot import IndexSlot
from paddle_ranker.serving.http.exchange import deadline_of, refuse_parameters
from paddle_ranker.serving.http.openapi import DescribedRoute

_PATH = "/v1/contents/"
_HEADERS = {
    # A file is shown, never run, whatever its type; its name states its bytes, so they never change.
    "content-security-policy": "default-src 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "cache-control": "private, max-age=31536000, immutable",
}


class Content(TypedDict):
    """A file of a document."""

    url: str
    media_type: str


def contents_of(document: Document, schema: Schema, names: Optional[Container[str]]) -> dict[str, list[Content]]:
    """Return the files of a document by field.

    names: only of these fields; None: of all
    """
    found = {}
    for field in schema.files:
        value = document.fields.get(field.name) if names is None or field.name in names else None
        if value is not None:
            found[field.name] = [
                Content(url=_PATH + name, media_type=FIELD_TYPES[field.type].media_types[name.partition(".")[2]])
                for name in (value if isinstance(value, list) else [value])
            ]
    return found


def routes(index: IndexSlot) -> list[BaseRoute]:
    """Return the route."""

    async def content(request: Request) -> Response:
        refuse_parameters(request)
        deadline, name = index.deadline(deadline_of(request)), request.path_params["name"]
        request.scope["state"]["protocol"] = "contents"
        await index.current(deadline)
        found = await index.run(_file_of, index.own.snapshot(), name, deadline=deadline)
        if found is None:
            raise _no_content(name)
        return _File(found[0], media_type=found[1], headers=_HEADERS)

    return [
        DescribedRoute(
            "GET",
            f"{_PATH}{{name}}",
            content,
            "A file of a document",
            what="The bytes of a file that a document's field names",
            also=[NO_DOCUMENT],
            parameters=[{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}],
        )
    ]


class _File(FileResponse):
    """Response with a file or one range of it, sent in small parts."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Several ranges, which need more work and bytes than the file, may be ignored (RFC 9110, 14.2).
        ranges = [value for name, value in scope["headers"] if name == b"range"]
        if b"," in b",".join(ranges):
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]
        try:
            await super().__call__(scope, receive, send)
        except (FileNotFoundError, RuntimeError):  # its document was removed meanwhile
            raise _no_content(Path(self.path).name) from None


def _no_content(name: str) -> Fault:
    return Fault(NO_DOCUMENT, f"there is no content {quoted(name)}", field="name")


def _file_of(now: LocalSnapshot, name: str) -> Optional[tuple[Path, str]]:
    """Return the path and the media type of a file, or None if no document has one of this name."""
    types = {
        suffix: kind for one in now.info.schema.files for suffix, kind in FIELD_TYPES[one.type].media_types.items()
    }
    kind, path = types.get(name.partition(".")[2]), now.files.find(name)
    return None if kind is None or path is None or not now.has_file(name) else (path, kind)
