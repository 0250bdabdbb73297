"""Routes of the search page, of `/judge` and of `/docs`: files with a content policy, and an ETag for caches."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Awaitable, Mapping
from importlib.resources import files
from typing import Callable, Optional

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from paddle_ranker.serving.http.exchange import takes_gzip
from paddle_ranker.serving.http.page_look import PageLook

_SHARED = (
    *("page.css", "judge.css", "pictures.css", "places.css", "stages.css", "why.css", "icon.svg"),
    *("search.js", "judge.js", "why.js", "suggest.js", "filters.js", "filter_form.js", "stages.js", "places.js"),
    *("pictures.js", "address.js", "answer.js", "board.js", "collection.js", "failure.js", "form.js", "keys.js"),
    *("machine.js", "nodes.js", "notices.js", "rows.js", "server.js", "text.js", "words.js"),
    *("words_de.js", "words_en.js", "words_es.js", "words_fr.js", "words_zh.js"),
)
_FILES = {
    "/": "search.html",
    "/judge": "judge.html",
    "/embed.js": "embed.js",
    **{f"/page/{name}": name for name in _SHARED},
}
# What only readers of the code need: indentation and comments, but not one behind code that has a quotation mark.
_NOTES = {
    ".js": re.compile(rb"^ *(//[^\n]*|/[*][*](?:[^*]|[*](?!/))*[*]/)\n| +// [^\"'`\n]*$|^ +", re.MULTILINE),
    ".css": re.compile(rb"/[*](?:[^*]|[*](?!/))*[*]/\n?|^ +|^\n", re.MULTILINE),
}
_LOGO, _THEME = "/page/logo", "/page/theme.css"
MADE_PATHS = frozenset({_LOGO, _THEME})  # no files of the package; only there if options of the server ask for them
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
# A logo in SVG may have scripts: opened by its address, it runs none and loads nothing.
_LOGO_HEADERS = {**HEADERS, "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
# Name of the requests in the log and the metrics, by path.
PAGE_PATHS: Mapping[str, str] = dict.fromkeys([*_FILES, *MADE_PATHS, *_DOCS], "page")


def is_page(scope: Scope) -> bool:
    """Return whether a request is for a file of the page. Such files hold no data, so they need no key.

    The page asks its user for the key and sends it with its requests. `POST /`, which returns vectors, needs the key.
    """
    return scope["path"] in PAGE_PATHS and scope["method"] in ("GET", "HEAD")


def routes(look: Optional[PageLook] = None) -> list[BaseRoute]:
    """Return the routes of the search page and of `/judge`. Their files are read here, once.

    look: title, logo, colours and language; default: the page's own
    """
    look = look or PageLook()
    found = _routes_of(_FILES, look.policy(HEADERS), look.html)
    if look.styles:
        found.append(Route(_THEME, _content_handler(look.styles.encode(), "text/css; charset=utf-8", HEADERS)))
    if look.logo:
        found.append(Route(_LOGO, _content_handler(look.logo, look.logo_type, _LOGO_HEADERS)))
    return found


def docs_routes() -> list[BaseRoute]:
    """Return the routes of `/docs`, which shows the server's OpenAPI description and sends requests."""
    return _routes_of(_DOCS, _DOCS_HEADERS)


def _routes_of(
    names: Mapping[str, str], headers: Mapping[str, str], changed: Callable[[str], str] = lambda html: html
) -> list[BaseRoute]:
    """Return the routes of files.

    names: names of the files, by path
    headers: header fields of the answers
    changed: called with the content of each HTML file; returns what is sent
    """
    folder, found = files("paddle_ranker.serving.page"), list[BaseRoute]()
    for path, name in names.items():
        suffix = name[name.rindex(".") :]
        content = sent(name, folder.joinpath(name).read_bytes())
        content = changed(content.decode("utf-8")).encode("utf-8", "replace") if suffix == ".html" else content
        found.append(Route(path, _content_handler(content, f"{_TYPES[suffix]}; charset=utf-8", headers)))
    return found


def sent(name: str, content: bytes) -> bytes:
    """Return what browsers get of a file of the page: of its own scripts and style sheets, what browsers read."""
    notes = _NOTES.get(name[name.rindex(".") :])
    return notes.sub(b"", content) if notes and name not in _DOCS.values() else content


def _content_handler(
    content: bytes, media_type: str, policy: Mapping[str, str]
) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that answers with a content, or with 304 if the caller has it already.

    policy: header fields of the response, such as the content security policy
    """
    etag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'  # weak: packed or not
    headers = {**policy, "etag": etag, "vary": "accept-encoding"}
    packed = gzip.compress(content, mtime=0)
    with_type = {**headers, "content-type": media_type}

    async def answer(request: Request) -> Response:
        request.scope.setdefault("state", {})["protocol"] = "page"
        etags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if etag.removeprefix("W/") in etags or etags == ["*"]:
            return Response(status_code=304, headers=headers)
        if takes_gzip(request):
            return Response(packed, headers={**with_type, "content-encoding": "gzip"})
        return Response(content, headers=with_type)

    return answer
