"""Searches from pages of other sites, and the key that such a page may show."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from paddle_ranker.errors import UsageError
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.page_options import PageOptions
from paddle_ranker.serving.core.server_config import ServeConfig
from paddle_ranker.serving.http.middleware import SEARCH_PATHS, Middleware
from paddle_ranker.serving.process.worker import with_origins
from tests.serving.test_page import get

pytestmark = pytest.mark.unit
SHOP = "https://www.shop.example"
ALLOW, METHODS = "access-control-allow-origin", "access-control-allow-methods"
OTHERS = ("/v1/documents", "/v1/documents/a", "/v1/feedback", "/v1/judge", "/v1/contents/a.pdf", "/info", "/metrics")


def app(*origins: str, api_key: Any = "secret", search_key: Any = "public") -> Any:
    def say(request: Request) -> Response:
        return Response(b"{}")

    routes = [Route(path, say, methods=["GET", "POST", "DELETE"]) for path in (*SEARCH_PATHS, *OTHERS)]
    config = ServeConfig(api_key=api_key, search_key=search_key)
    return with_origins(Middleware(Router(routes), Metrics(), config), origins)


def from_page(path: str, method: str = "GET", origin: str = SHOP, key: str = "public", **more: Any) -> httpx.Response:
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site", **({"X-API-Key": key} if key else {})}
    return get(path, method, **{"app": app(SHOP), **headers, **more})


def preflight(path: str, origin: str = SHOP, method: str = "POST") -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "content-type,x-api-key"}
    return from_page(path, "OPTIONS", origin, key="", **asked)


@pytest.mark.parametrize("path", sorted(SEARCH_PATHS))
def test_a_page_of_an_allowed_site_searches_and_no_other_page_reads_the_answer(path: str) -> None:
    for method in ("GET", "POST") if path == "/v1/search" else ("GET",):
        answer = from_page(path, method)
        assert (answer.status_code, answer.headers[ALLOW], answer.headers["vary"]) == (200, SHOP, "Origin")
    for origin in ("https://shop.example", "https://www.shop.example.evil.example", "http://www.shop.example", "null"):
        assert ALLOW not in from_page(path, origin=origin).headers
        assert (preflight(path, origin).status_code, ALLOW in preflight(path, origin).headers) == (400, False)
    asked = preflight(path)
    assert (asked.status_code, asked.headers[ALLOW]) == (200, SHOP)
    assert "DELETE" not in asked.headers[METHODS] and preflight(path, method="DELETE").status_code == 400
    refused = from_page(path, key="wrong")  # a refusal can be read
    assert (refused.status_code, refused.headers[ALLOW]) == (401, SHOP)
    assert "access-control-allow-credentials" not in answer.headers
    assert ALLOW not in get(path, app=app(), Origin=SHOP, **{"X-API-Key": "public"}).headers
    assert get(path, app=app("*"), Origin="https://any.example", **{"X-API-Key": "public"}).headers[ALLOW] == "*"


@pytest.mark.parametrize("path", OTHERS)
def test_nothing_but_searches_is_open_to_other_sites_or_to_the_search_key(path: str) -> None:
    assert ALLOW not in from_page(path, key="secret").headers and ALLOW not in preflight(path).headers
    expected = 200 if path == "/metrics" else 401  # which needs no key
    assert from_page(path).status_code == expected
    assert get(path, app=app(), **{"X-API-Key": "secret"}).status_code == 200


def test_the_search_key_opens_searches_and_gets_no_cookie_for_files() -> None:
    for shown in ({"X-API-Key": "public"}, {"Authorization": "Bearer public"}, {"X-API-Key": "secret"}):
        answer = get("/v1/index", app=app(), **shown)
        assert answer.status_code == 200 and ("set-cookie" in answer.headers) == (shown.get("X-API-Key") == "secret")
    for wrong in ("", "publi", "public ", "PUBLIC"):
        assert get("/v1/search", app=app(), **({"X-API-Key": wrong} if wrong else {})).status_code == 401
    assert get("/v1/search", app=app(search_key=None), **{"X-API-Key": "public"}).status_code == 401


def test_keys_and_origins_that_cannot_be_meant_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_keys: list[tuple[dict[str, Any], str]] = [
        ({"search_key": "a"}, "PADDLE_RANKER_SEARCH_KEY is set, but everybody may search: set PADDLE_RANKER_API_KEY"),
        ({"api_key": "a", "search_key": "a"}, "is the same as PADDLE_RANKER_API_KEY, which opens all"),
        ({"api_key": "a", "search_key": " "}, "PADDLE_RANKER_SEARCH_KEY is set and empty"),
    ]
    for keys, message in wrong_keys:
        with pytest.raises(UsageError, match=message):
            ServeConfig(api_key=keys.get("api_key"), search_key=keys["search_key"])
    monkeypatch.setenv("PADDLE_RANKER_API_KEY", "a")
    monkeypatch.setenv("PADDLE_RANKER_SEARCH_KEY", "b")
    config = ServeConfig()
    assert config.search_key == "b" and "'b'" not in repr(config)
    for wrong in ("www.shop.example", f"{SHOP}/", f"{SHOP}/shop", "https://*.shop.example", "https://Shop.example", ""):
        with pytest.raises(UsageError, match=r"--cors_origin .*expected what browsers send"):
            PageOptions(cors_origin=(wrong,))
    assert PageOptions(cors_origin=(SHOP, "http://localhost:3000", "*", "http://[::1]:80")).cors_origin[0] == SHOP
