"""Values of fields in the search page: as the reader's language and the column write them; pictures and links."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import ROW, OpenPage, drawn
from tests.browser.site import Site
from tests.browser.test_search_page import at

pytestmark = pytest.mark.browser
FIELDS: dict[str, dict[str, Any]] = {
    "price": {"type": "number", "unit": "€", "label": "Preis"},
    "dollars": {"type": "number", "unit": "USD"},
    "share": {"type": "number", "unit": "%"},
    "mass": {"type": "integer", "unit": "kg"},
    "stock": {"type": "boolean"},
    "since": {"type": "date"},
    "at": {"type": "date"},
    "month": {"type": "date"},
    "year": {"type": "date"},
    "odd": {"type": "date"},
    "tiny": {"type": "number", "unit": "€"},
    "count": {"type": "integer"},
    "text": {"type": "number", "unit": "kr"},
}
VALUES: dict[str, Any] = {
    "price": 206.8, "dollars": 1299, "share": 12.5, "mass": 12345, "stock": False, "since": "2024-03-01",
    "at": "2024-03-01T09:05:00+01:00", "month": "2024-03", "year": "2024", "odd": "soon", "tiny": 0.0012,
    "count": 2024, "text": "10.5",
}  # fmt: skip
# By locale, what "Why" says of these values; spaces that do not break are spaces here.
WRITTEN = {
    "de-DE": ["206,80 €", "1.299 USD", "12,5 %", "12.345 kg", "nein", "01.03.2024", "01.03.2024, 09:05 +01:00",
              "März 2024", "2024", "soon", "0,0012 €", "2024", "10,50 kr"],
    "en-GB": ["€206.80", "USD 1,299", "12.5%", "12,345 kg", "no", "1 Mar 2024", "1 Mar 2024, 09:05 +01:00",
              "March 2024", "2024", "soon", "€0.0012", "2024", "kr 10.50"],
    "fr-FR": ["206,80 €", "1 299 USD", "12,5 %", "12 345 kg", "non", "1 mars 2024", "1 mars 2024, 09:05 +01:00",
              "mars 2024", "2024", "soon", "0,0012 €", "2024", "10,50 kr"],
    "es-ES": ["206,80 €", "1299 USD", "12,5 %", "12.345 kg", "no", "1 mar 2024", "1 mar 2024, 9:05 +01:00",
              "marzo de 2024", "2024", "soon", "0,0012 €", "2024", "10,50 kr"],
    "en-US": ["€206.80", "USD 1,299", "12.5%", "12,345 kg", "no", "Mar 1, 2024", "Mar 1, 2024, 9:05 AM +01:00",
              "March 2024", "2024", "soon", "€0.0012", "2024", "kr 10.50"],
    "zh-CN": ["€206.80", "USD 1,299", "12.5%", "12,345 kg", "否", "2024年3月1日", "2024年3月1日 09:05 +01:00",
              "2024年3月", "2024", "soon", "€0.0012", "2024", "kr 10.50"],
}  # fmt: skip


def with_fields(site: Site, fields: dict[str, Any], values: dict[str, Any]) -> None:
    site.index = {**site.index, "fields": fields, "facets": []}

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        for hit in answer["hits"]:
            hit["fields"] = dict(values)
        return answer

    site.change = change


@pytest.mark.parametrize("locale", WRITTEN)
def test_values_are_written_as_the_reader_s_language_does(open_page: OpenPage, site: Site, locale: str) -> None:
    with_fields(site, FIELDS, VALUES)
    page = open_page(at(site), locale=locale)
    drawn(page)
    page.locator(f"{ROW} .ask-why").first.click()
    page.wait_for_selector("#why dl")
    said = dict(zip(*(page.locator(f"#why {part}").all_inner_texts() for part in ("dt", "dd"))))
    assert [" ".join(said[FIELDS[name].get("label", name)].split()) for name in VALUES] == WRITTEN[locale]
    assert WRITTEN[locale][0] in " ".join(page.locator(f"{ROW} .fields").first.inner_text().split())


PICTURE = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"


def test_pictures_of_allowed_hosts_are_shown_and_a_title_leads_to_the_field_of_addresses(
    open_page: OpenPage, site: Site
) -> None:
    from paddle_ranker.serving.http.page_look import PageLook

    fields = {"image": {"type": "picture-url"}, "shop": {"type": "url"}, "kind": {"type": "string"}}
    with_fields(site, fields, {"image": "https://cdn.example.org/1.svg", "shop": "https://shop.example.org/1?a=b"})
    asked: list[Any] = []

    def send(route: Any) -> None:
        asked.append(route.request)
        route.fulfill(body=PICTURE, content_type="image/svg+xml")

    page = open_page("about:blank", own_context=True)
    page.route("https://*.example.org/**", send)
    page.goto(at(site))
    drawn(page)
    assert page.locator(f"{ROW} img").count() == 0 and not asked  # no host is allowed
    title = page.locator(f"{ROW} .title a").first
    assert title.get_attribute("href") == "https://shop.example.org/1?a=b"
    assert title.get_attribute("rel") == "noreferrer" and "example.org" not in page.inner_text("#results")
    site.look = PageLook(pictures=("https://*.example.org",))
    site.leave()
    site.start_again()
    page.goto(at(site))
    drawn(page)
    page.wait_for_function("(row) => document.querySelector(`${row} .thumb`)?.naturalWidth === 9", arg=ROW)
    assert {one.url for one in asked} == {"https://cdn.example.org/1.svg"}
    assert all("referer" not in one.headers for one in asked)
    image = page.locator(f"{ROW} .thumb").first
    assert (image.get_attribute("loading"), image.get_attribute("alt")) == ("lazy", "")
    page.locator(f"{ROW} .ask-why").first.click()
    page.wait_for_selector("#why dl")
    assert page.locator("#why dd a").all_inner_texts() == [
        "https://cdn.example.org/1.svg",
        "https://shop.example.org/1?a=b",
    ]


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "data:image/png;base64,AA",
        "//example.org/a.png",
        "ftp://example.org/a",
        "https://",
        "",
        7,
        None,
    ],
)
def test_other_addresses_are_neither_links_nor_pictures(open_page: OpenPage, site: Site, address: object) -> None:
    fields = {"image": {"type": "picture-url"}, "shop": {"type": "url"}}
    with_fields(site, fields, {"image": address, "shop": address, "url": address})
    page = open_page(at(site))
    drawn(page)
    page.locator(f"{ROW} .ask-why").first.click()
    page.wait_for_selector("#why dl")
    assert page.locator(f"{ROW} a, {ROW} img, #why a").count() == 0


ENGLISH = "A saw for wood, metal and plastic, with a guide, extraction, a case and everything that belongs to it. " * 9
GERMAN = "Handkreissäge mit Führungsschiene, Staubabsaugung und Geschwindigkeitsregelung für Hartholzplatten. " * 9


@pytest.mark.parametrize("width", [360, 768, 1024, 1440])
@pytest.mark.parametrize("more", ["", "&how=1"])
@pytest.mark.parametrize("has_picture", [False, True])
def test_texts_end_at_a_word_and_no_style_cuts_them(
    open_page: OpenPage, site: Site, width: int, more: str, has_picture: bool
) -> None:
    with_fields(
        site, {"image": {"type": "picture-url"}}, {"image": f"{site.address}/page/icon.svg"} if has_picture else {}
    )
    before = site.change

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        for place, hit in enumerate(answer["hits"]):
            text = (ENGLISH, GERMAN)[place % 2]
            hit.update(title=f"Saw {place}", text=text, highlights=[], passage={"start": 0, "end": len(text)})
        return before(answer)

    site.change = change
    page = open_page(f"{at(site).replace('how=1&', '')}{more}", width=width, locale="en-GB")
    drawn(page)
    shown = page.eval_on_selector_all(
        f"{ROW} p.text", "all => all.map(one => [one.textContent, one.scrollHeight - one.clientHeight])"
    )
    assert len(shown) == 10 and page.locator(f"{ROW} .thumb").count() == 10 * has_picture
    for text, hidden in shown:
        assert hidden <= 1 and text.endswith("…")
        whole = text.removesuffix("…")
        assert any(one.startswith(whole) and one[len(whole.rstrip())] == " " for one in (ENGLISH, GERMAN))
