"""The routes of the search page, without a browser; and that the page's files fit together."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, Optional

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.page_options import LANGUAGES
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.http import page
from paddle_ranker.serving.http.middleware import Middleware, files_cookie, opens_files
from tests.conftest import REPOSITORY
from tests.serving_cases import ask_app

pytestmark = pytest.mark.unit
FOLDER = REPOSITORY / "paddle_ranker" / "serving" / "page"
PATHS = page.PAGE_PATHS.keys()


def get(path: str, method: str = "GET", app: Optional[Any] = None, **headers: str) -> httpx.Response:
    return asyncio.run(ask_app(app or Router([*page.routes(), *page.docs_routes()]), method, path, **headers))


@pytest.mark.parametrize(
    ("path", "name", "kind"),
    [
        ("/", "search.html", "text/html"),
        ("/judge", "judge.html", "text/html"),
        ("/page/page.css", "page.css", "text/css"),
        ("/page/search.js", "search.js", "text/javascript"),
        ("/page/judge.js", "judge.js", "text/javascript"),
        ("/page/icon.svg", "icon.svg", "image/svg+xml"),
        ("/docs", "docs.html", "text/html"),
        ("/docs/openapi-explorer.js", "openapi-explorer.js", "text/javascript"),
    ],
)
def test_a_file_is_sent_once_to_each_browser(path: str, name: str, kind: str) -> None:
    answer = get(path)
    assert answer.status_code == 200 and answer.content == page.sent(name, (FOLDER / name).read_bytes())
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-cache"
    packed, plain = get(path, "HEAD"), get(path, **{"Accept-Encoding": "identity"})
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "accept-encoding")
    assert int(packed.headers["content-length"]) < len(plain.content) == int(plain.headers["content-length"])
    assert plain.content == answer.content and "content-encoding" not in plain.headers
    etag = answer.headers["etag"]
    for known in (etag, f'"other", {etag}', etag[2:], "*"):
        again = get(path, **{"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert get(path, **{"If-None-Match": '"other"'}).status_code == 200


def test_every_file_has_a_path_and_no_other_has() -> None:
    pages = {"/": "search.html", "/judge": "judge.html", "/docs": "docs.html"}
    sent = {pages.get(path, Path(path).name) for path in PATHS - page.MADE_PATHS}
    assert sent == {path.name for path in FOLDER.iterdir() if path.suffix not in (".py", "")}
    for path in ("/page/", "/page/../page.py", "/page/search.html", "/judge/x"):
        assert get(path).status_code == 404
    assert get("/", "POST").status_code == 405


def test_files_need_no_key_and_other_requests_at_their_paths_do() -> None:
    def embed(request: Request) -> Response:
        return Response(b"[]")

    app = Middleware(
        Router([*page.routes(), *page.docs_routes(), Route("/", embed, methods=["POST"])]),
        Metrics(),
        ServeConfig(api_key="secret"),
    )
    assert {get(path, app=app).status_code for path in PATHS - page.MADE_PATHS} == {200}
    assert (get("/", "POST", app=app).status_code, get("/v1/search", app=app).status_code) == (401, 401)
    assert get("/", "POST", app=app, **{"X-API-Key": "secret"}).status_code == 200


def words(language: str) -> dict[str, set[str]]:
    """Return the names of the texts of a language, each with the names of its placeholders."""
    texts = re.findall(r'(\w+): "([^"]*)"', (FOLDER / f"words_{language}.js").read_text("utf-8"))
    assert len(texts) == len({name for name, _ in texts})
    return {name: {*re.findall(r"\{(\w+)\}", text)} for name, text in texts}


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_says_the_same_and_every_word_that_is_used_is_there(language: str) -> None:
    english, own = words("en"), words(language)
    english["why_title"] = english["why_text"] = {"terms"}  # English alone has an ending for several
    own = {name: places - {"s"} for name, places in own.items()}
    assert own == english and len(own) > 100
    code = "".join(path.read_text(encoding="utf-8") for path in FOLDER.iterdir() if path.suffix in (".html", ".js"))
    assert set(re.findall(r'(?:\bsay\(|data-(?:say|label)=)"(\w+)"', code)) <= own.keys()
    page_words = (FOLDER / "words.js").read_text("utf-8")
    assert re.search(rf'\b{language}: "\w+"', page_words[page_words.index("const LANGUAGES") :].partition("\n")[0])


def test_a_page_that_has_shown_the_key_gets_files_by_a_cookie_that_opens_nothing_else() -> None:
    def say(request: Request) -> Response:
        return Response(b"{}")

    routes = [Route(path, say, methods=["GET", "POST"]) for path in ("/v1/index", "/v1/contents/{name}", "/v1/search")]
    app = Middleware(Router(routes), Metrics(), ServeConfig(api_key="a key"))
    file, key = "/v1/contents/a.pdf", "a key"
    assert get(file, app=app).status_code == get("/v1/index", app=app, **{"X-API-Key": "wrong"}).status_code == 401
    shown = get("/v1/index", app=app, **{"X-API-Key": key}).headers["set-cookie"]
    cookie, *attributes = shown.split("; ")
    assert attributes == ["HttpOnly", "SameSite=Strict", "Max-Age=86400"]  # no Path: that of the answer's folder, /v1
    with_cookie = {"Cookie": f"other=1; {cookie}"}
    assert get(file, app=app, **with_cookie).status_code == get(file, "HEAD", app=app, **with_cookie).status_code == 200
    for path, method in (("/v1/index", "GET"), ("/v1/search", "POST"), (file, "POST")):
        assert get(path, method, app=app, **with_cookie).status_code == 401
    for wrong in (cookie[:-1], cookie.replace("=", "=1"), files_cookie("another", 0), "", "=", "files_=-"):
        assert get(file, app=app, Cookie=wrong).status_code == 401
    name, _, value = files_cookie("k", 1000).partition("=")
    for now, holds in ((1000, True), (1000 + 86400, True), (1001 + 86400, False)):
        assert opens_files("k", f"{name}={value}", now) is holds
    open_app = Middleware(Router(routes), Metrics(), ServeConfig())
    assert "set-cookie" not in get("/v1/index", app=open_app, **{"X-API-Key": "any"}).headers
