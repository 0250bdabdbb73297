"""Routes of the search page, of `/judge` and of `/docs`: files with a content policy, and an ETag for caches."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Awaitable, Mapping
from importlib.resources import files
from typing import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from paddle_ranker.serving.http.exchange import takes_gzip

_SHARED = (
    *("page.css", "judge.css", "why.css", "places.css", "pictures.css", "icon.svg", "search.js", "judge.js", "why.js"),
    *("suggest.js", "filters.js", "stages.js", "places.js", "pictures.js", "address.js", "answer.js", "board.js"),
    *("collection.js", "failure.js", "form.js", "keys.js", "machine.js", "nodes.js", "notices.js", "rows.js"),
    *("server.js", "text.js", "why_panel.js", "words.js"),
)
_FILES = {
    "/": "search.html",
    "/judge": "judge.html",
    **{f"/page/{name}": name for name in _SHARED},
}
# Whole lines of comments, which only readers of the code need: an eighth of what a first visit loads.
_COMMENTS = re.compile(rb"^[ ]*(//[^\n]*|/[*][*](?:[^*]|[*](?!/))*[*]/)\n", re.MULTILINE)
_DOCS = {"/docs": "docs.html", "/docs/openapi-explorer.js": "openapi-explorer.js"}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    # Scripts and styles come from this server alone, never from the HTML file itself; no other site may frame the page.
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # addresses hold queries
    "cache-control": "no-cache",  # revalidate each time, so that an update of the package shows at once
}
# openapi-explorer sets colours and sizes in `style`, and has pictures in its code. /docs is the same for everybody.
_DOCS_HEADERS = {
    **HEADERS,
    "content-security-policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
}
# Name of the requests in the log and the metrics, by path.
PAGE_PATHS: Mapping[str, str] = dict.fromkeys([*_FILES, *_DOCS], "page")


def is_page(scope: Scope) -> bool:
    """Return whether a request is for a file of the page. Such files hold no data, so they need no key.

    The page asks its user for the key and sends it with its requests. `POST /`, which returns vectors, needs the key.
    """
    return scope["path"] in PAGE_PATHS and scope["method"] in ("GET", "HEAD")


def routes() -> list[BaseRoute]:
    """Return the routes of the search page and of `/judge`. Their files are read here, once."""
    return _routes_of(_FILES, HEADERS)


def docs_routes() -> list[BaseRoute]:
    """Return the routes of `/docs`, which shows the server's OpenAPI description and sends requests."""
    return _routes_of(_DOCS, _DOCS_HEADERS)


def _routes_of(names: Mapping[str, str], headers: Mapping[str, str]) -> list[BaseRoute]:
    folder = files("paddle_ranker.serving.page")
    return [
        Route(path, _file_handler(name, sent(name, folder.joinpath(name).read_bytes()), headers))
        for path, name in names.items()
    ]


def sent(name: str, content: bytes) -> bytes:
    """Return what browsers get of a file of the page: the page's own scripts without their comments."""
    return _COMMENTS.sub(b"", content) if name.endswith(".js") and name not in _DOCS.values() else content


def _file_handler(name: str, content: bytes, policy: Mapping[str, str]) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that answers with a file, or with 304 if the caller has it already.

    name: the file's name, which gives its media type
    content: the file's bytes
    policy: header fields of the response, such as the content security policy
    """
    etag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'  # weak: packed or not
    suffix = name[name.rindex(".") :]
    headers = {**policy, "etag": etag, "vary": "accept-encoding"}
    packed = gzip.compress(content, mtime=0)
    with_type = {**headers, "content-type": f"{_TYPES[suffix]}; charset=utf-8"}

    async def answer(request: Request) -> Response:
        request.scope.setdefault("state", {})["protocol"] = "page"
        etags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if etag.removeprefix("W/") in etags or etags == ["*"]:
            return Response(status_code=304, headers=headers)
        if takes_gzip(request):
            return Response(packed, headers={**with_type, "content-encoding": "gzip"})
        return Response(content, headers=with_type)

    return answer
