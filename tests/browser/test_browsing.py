"""Looking through a collection on the page, on the real server: no query, but facets, filters, orders and pages."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.stored.schema import Field, Schema
from paddle_ranker.retrieval.values.bounds import MOST_NAMES
from tests.browser.conftest import ROW, OpenPage, drawn
from tests.browser.test_real_server import RealSite, rows

pytestmark = pytest.mark.browser
COUNT, NAMES = 260, [f"f{number:02}" for number in range(40)]
SCHEMA = Schema((Field("maker", "keyword", facet=True), Field("day", "date"), Field("title", "text", title=True)))
DOCUMENTS = [
    Document(
        f"d{number:03}",
        f"saw {number} " + "of long words " * 2000 * (number < 100),
        {
            "title": f"Saw {number:03}",
            "maker": "Säge & Söhne" if number == 7 else f"Maker {number % 150:03}",
            "day": f"20{10 + number % 10}-{1 + number // 10 % 12:02}-{1 + number // 130:02}",
            "note": "n" * 5000,
            **dict.fromkeys(NAMES, "ab"[number % 2]),
        },
    )
    for number in range(COUNT)
]
NEWEST = sorted(DOCUMENTS, key=lambda one: str(one.fields["day"]), reverse=True)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[RealSite]:
    folder = tmp_path_factory.mktemp("shop") / "index"

    def made() -> RealSite:
        with Collection.create(folder, IndexInfo(WordsInfo("standard"), None, schema=SCHEMA)) as collection:
            collection.writer.add(DOCUMENTS)
        return RealSite(index=folder, search_log=folder.parent / "log")

    with ThreadPoolExecutor(1) as elsewhere:
        real = elsewhere.submit(made).result()
    with real:
        yield real


def days(page: Any) -> list[str]:
    """Return the days of the documents that are shown."""
    by_id = {one.id: str(one.fields["day"]) for one in DOCUMENTS}
    return [by_id[id] for id in rows(page)]


def test_documents_are_listed_page_by_page_the_newest_first(open_page: OpenPage, shop: RealSite) -> None:
    page = open_page(f"{shop.address}/", locale="en-GB")
    drawn(page)
    assert page.inner_text("#status").startswith(f"{COUNT} documents")
    assert days(page) == [str(one.fields["day"]) for one in NEWEST[:10]]
    assert page.locator("[name=sort] option:checked").inner_text() == "day: newest first"
    shown = []
    page.goto(f"{shop.address}/?top_k=100&lang=en")
    drawn(page)
    while True:
        shown += rows(page)
        if not page.locator("#more .page_next").count():
            break
        with page.expect_response("**/v1/search"):
            page.click("#more .page_next")
        page.wait_for_function("(id) => document.querySelector('#results > li')?.dataset.id !== id", arg=shown[-100])
        drawn(page)
    assert len(shown) == len({*shown}) == COUNT and "from=200" in page.url
    with page.expect_response("**/v1/search"):
        page.click("#facets [aria-label=f00] button >> nth=0")  # another list begins with its first page
    page.wait_for_selector("#facets [aria-label=f00] [aria-pressed=true]")
    assert "from=" not in page.url
    page.goto(f"{shop.address}/?from=99999&lang=en")
    drawn(page)
    assert days(page) == [str(one.fields["day"]) for one in NEWEST[:10]]


def test_facets_beyond_those_of_one_search_are_counted_when_asked_for(open_page: OpenPage, shop: RealSite) -> None:
    for address in ("/?lang=en", f"/?q={quote('saw')}&lang=en"):
        page = open_page(shop.address + address)
        drawn(page)
        assert page.inner_text("#failure") == ""
        groups = page.locator("#facets [role=group]")
        assert groups.count() <= MOST_NAMES
        asked: list[Any] = []
        page.on("request", lambda one, asked=asked: "/v1/search" in one.url and asked.append(one.post_data_json))
        page.click("#more-facets")
        page.wait_for_selector(f"#facets [aria-label={NAMES[-1]}]")
        labels = page.locator("#facets [role=group]").evaluate_all("all => all.map(one => one.ariaLabel)")
        assert {*labels} >= {*NAMES}
        assert asked and all(len(one["facets"]) <= MOST_NAMES and one["logged"] is False for one in asked)
        assert page.evaluate("document.activeElement.id") == "more-facets"
        with page.expect_response("**/v1/search"):
            page.click(f"#facets [aria-label={NAMES[-1]}] button >> nth=0")
        page.wait_for_selector(f"#facets [aria-label={NAMES[-1]}] [aria-pressed=true]")
        assert page.locator("#chips li").all_inner_texts() == [f"{NAMES[-1]} = a ×"]
        page.keyboard.press("Escape")
        page.click("#more-facets")
        assert groups.count() <= MOST_NAMES


def test_values_of_a_facet_are_looked_for_also_where_the_list_is_cut(open_page: OpenPage, shop: RealSite) -> None:
    page = open_page(f"{shop.address}/?lang=en")
    drawn(page)
    group = page.locator("#facets [aria-label=maker]")
    group.locator(".unfold").click()
    assert group.locator("button:not(.unfold)").count() == 100
    box = page.get_by_role("searchbox", name="Find in maker")
    box.focus()
    page.keyboard.type("sage")  # none of the hundred most frequent
    group.locator("button", has_text="Säge & Söhne").wait_for()
    assert group.locator("button:not(.unfold)").count() == 1
    assert page.evaluate("document.activeElement.name") == "find.maker"
    assert page.inner_text("#saved") == "1 values"
    with page.expect_response("**/v1/search"):
        group.locator("button", has_text="Säge & Söhne").click()
    page.wait_for_function("() => document.querySelectorAll('#results > li').length === 1")
    assert rows(page) == ["d007"]
    page.locator("#chips button").focus()
    with page.expect_response("**/v1/search"):
        page.keyboard.press("Backspace")
    page.wait_for_function("() => document.querySelectorAll('#results > li').length === 10")
    assert "filter=" not in page.url


def test_a_range_is_two_boxes_and_values_are_offered_while_one_types(open_page: OpenPage, shop: RealSite) -> None:
    page = open_page(f"{shop.address}/?lang=en")
    drawn(page)
    page.click("#filters summary")
    for end, day in (("gte", "2013-01-01"), ("lte", "2014-12-31")):
        with page.expect_response("**/v1/search"):
            page.fill(f"[name='day.{end}']", day)
            page.keyboard.press("Tab")
        drawn(page)
    wanted = sum("2013-01-01" <= str(one.fields["day"]) <= "2014-12-31" for one in DOCUMENTS)
    page.locator("#status", has_text=f"{wanted} documents").wait_for()
    page.focus("#filters [name=title]")
    page.keyboard.type("saw 01")
    page.wait_for_selector("#values-title option", state="attached")
    offered = page.eval_on_selector_all("#values-title option", "all => all.map(one => one.value)")
    assert {*offered} == {f"Saw {n:03}" for n in range(10, 20) if "2013" <= str(DOCUMENTS[n].fields["day"]) < "2015"}


def test_an_answer_has_what_is_shown_and_why_has_all(open_page: OpenPage, shop: RealSite) -> None:
    page = open_page("about:blank")
    answers: list[Any] = []
    page.on("response", lambda one: answers.extend([one] if "/v1/search" in one.url else []))
    page.goto(f"{shop.address}/?q={quote('saw long words')}&top_k=100&lang=en")
    drawn(page)
    assert page.locator(ROW).count() == 100
    assert len(answers[-1].body()) < 300_000 < sum(len(one.text) for one in DOCUMENTS) / 8
    page.locator(".ask-why").first.click()
    page.wait_for_function("() => document.querySelector('#why .whole')?.textContent.length > 25_000")
    assert page.locator("#why dd", has_text="n" * 5000).count() == 1
    assert page.locator("#why .whole mark").count() > 1000
    assert page.evaluate("document.activeElement.id") == "why"
