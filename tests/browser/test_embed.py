"""The search box of `embed.js` in a page of another site, on the real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.serving.http import page as page_files
from tests.browser.conftest import OpenPage
from tests.browser.test_real_server import RealSite
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.browser
SCHEMA = Schema((Field("title", "text", 5.0, title=True), Field("shop", "url"), Field("url", "keyword")))
EVIL = "<img src=x onerror=document.title='broken'> saw"
DOCUMENTS = [
    Document("a", "A saw for wood 👨‍👩‍👧, quiet and quick", {"title": "Hand saw", "shop": "https://shop.example/a"}),
    Document("b", "A saw for metal", {"title": EVIL, "shop": "https://shop.example/b", "url": "javascript:alert(1)"}),
    Document("c", "A saw without an address", {"title": "Band saw"}),
    Document("d", "Glue", {"title": "Glue"}),
]
BOX = ".paddle-ranker-search"
OPTION = f"{BOX} [role=option]"


class OtherSite(BaseHTTPRequestHandler):
    """A site whose page has the box, under a policy that allows the search server and nothing in the page itself."""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        server, more = query["server"][0], query.get("more", [""])[0]
        body = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Shop</title><body><h1>Shop</h1>'
            f'<script src="{server}/embed.js" {more}></script><a href="/">after</a></body></html>'
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        policy = f"default-src 'none'; script-src {server}; connect-src {server}; form-action {server}"
        self.send_header("Content-Security-Policy", policy)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *about: Any) -> None:
        pass


@pytest.fixture(scope="module")
def other(browser: Any) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), OtherSite) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def made(folder: Path, origin: str) -> RealSite:
    with Collection.create(folder / "index", IndexInfo(WordsInfo("bigram"), None, schema=SCHEMA)) as collection:
        collection.writer.add(DOCUMENTS)
    keys = {"api_key": "secret", "search_key": "public"}
    return RealSite(index=folder / "index", search_log=folder / "log", cors_origin=(origin,), **keys)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, other: str) -> Iterator[RealSite]:
    with ThreadPoolExecutor(1) as elsewhere:  # in this thread Playwright's event loop runs
        site = elsewhere.submit(made, tmp_path_factory.mktemp("shop"), other).result()
    with site:
        yield site


def address(site: RealSite, other: str, more: str = 'data-key="public"') -> str:
    return f"{other}/?server={quote(site.address)}&more={quote(more)}"


def search(page: Any, query: str) -> None:
    page.locator(f"{BOX} input").fill(query)
    page.locator(f"{BOX} #pop").wait_for()


def test_a_page_of_another_site_searches_by_keyboard_and_shows_texts_alone(
    open_page: OpenPage, shop: RealSite, other: str
) -> None:
    page = open_page("about:blank", own_context=True, locale="en-GB")
    page.route("https://shop.example/**", lambda route: route.fulfill(body="here"))
    page.goto(address(shop, other))
    box = page.get_by_role("combobox", name="Search")
    assert box.get_attribute("aria-expanded") == "false" and page.locator(OPTION).count() == 0
    search(page, "saw")
    options = page.get_by_role("listbox", name="Search").get_by_role("option")
    assert options.count() == 3 == page.locator(f"{BOX} mark").count()
    assert EVIL in page.locator(f"{BOX} b").all_inner_texts() and page.title() == "Shop"
    assert page.locator(f"{BOX} img").count() == 0
    assert "A saw for wood 👨‍👩‍👧, quiet and quick" in page.locator(f"{BOX} span").all_inner_texts()
    assert page.locator(f"{BOX} [role=status]").inner_text() == "3 results"
    assert box.get_attribute("aria-expanded") == "true" and page.evaluate("document.querySelectorAll('*').length") < 12
    links = page.eval_on_selector_all(f"{OPTION} a", "all => all.map(one => one.href)")
    assert {*links} == {"https://shop.example/a", "https://shop.example/b", f"{shop.address}/?q=saw&open=c"}
    for key, chosen in (("ArrowDown", 0), ("ArrowDown", 1), ("ArrowUp", 0), ("ArrowUp", None), ("ArrowUp", 2)):
        box.press(key)
        assert box.get_attribute("aria-activedescendant") == (None if chosen is None else f"option-{chosen}")
        shown = [one.get_attribute("aria-selected") for one in options.all()]
        assert shown == [str(place == chosen).lower() for place in range(3)]
    box.press("Escape")
    assert page.locator(f"{BOX} #pop").is_hidden() and box.input_value() == "saw"
    box.press("Shift+Tab")
    box.focus()
    page.locator(f"{BOX} #pop").wait_for()
    for _ in range(links.index("https://shop.example/a") + 1):
        box.press("ArrowDown")
    with page.expect_request("https://shop.example/a") as asked:
        box.press("Enter")
    assert "referer" not in asked.value.headers


def test_enter_without_a_choice_goes_to_the_server_s_own_page(open_page: OpenPage, shop: RealSite, other: str) -> None:
    page = open_page(address(shop, other), locale="en-GB")
    search(page, "saw")
    page.locator(f"{BOX} input").press("Enter")
    page.wait_for_url(f"{shop.address}/?q=saw")


@pytest.mark.parametrize(
    ("more", "query", "told"),
    [
        ("", "saw", "This site may not search here."),
        ('data-key="wrong" data-language="de"', "saw", "Diese Seite darf hier nicht suchen."),
        ('data-key="public" data-language="fr"', "qqqqqq", "Rien trouvé."),
        ('data-key="public" data-index="http://127.0.0.1:9/"', "saw", "The search does not answer."),
    ],
)
def test_what_goes_wrong_is_told_in_the_site_s_language(
    browser: Any, shop: RealSite, other: str, more: str, query: str, told: str
) -> None:
    page = browser.new_page(locale="zh-CN")
    page.goto(address(shop, other, more))
    search(page, query)
    assert page.locator(f"{BOX} #pop p").inner_text() == told == page.locator(f"{BOX} [role=status]").inner_text()
    assert page.locator(f"{BOX} input").get_attribute("aria-expanded") == "false"
    page.close()


def test_a_site_that_is_not_allowed_reads_nothing(browser: Any, shop: RealSite, other: str) -> None:
    page = browser.new_page(locale="en-GB")
    page.goto(address(shop, other.replace("127.0.0.1", "localhost")))
    search(page, "saw")
    assert (
        page.locator(OPTION).count() == 0
        and page.locator(f"{BOX} #pop p").inner_text() == "The search does not answer."
    )
    page.close()


def test_it_is_small_and_takes_the_site_s_colours(open_page: OpenPage, shop: RealSite, other: str) -> None:
    path = REPOSITORY / "paddle_ranker" / "serving" / "page" / "embed.js"
    code = path.read_text("utf-8")
    assert len(page_files.sent("embed.js", code.encode())) < 15_000
    assert not {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"} & {
        *code.replace("(", " ").replace(".", " ").split()
    }
    page = open_page(
        address(shop, other, 'data-key="public" data-results="2" data-placeholder="Tools"'), locale="en-GB"
    )
    page.evaluate("document.documentElement.style.setProperty('--search-accent', 'rgb(1, 2, 3)')")
    search(page, "saw")
    assert page.locator(OPTION).count() == 2 and page.get_by_placeholder("Tools").count() == 1
    assert page.locator(f"{BOX} button").evaluate("one => getComputedStyle(one).color") == "rgb(1, 2, 3)"
    page.set_viewport_size({"width": 320, "height": 600})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
