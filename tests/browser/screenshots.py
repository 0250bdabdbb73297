"""Write pictures of the search page's states, to look at them: `python -m tests.browser.screenshots FOLDER`.

A made-up server answers, as in the tests; `bash scripts/setup.sh browser` installs Chromium and Playwright.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from benchmarks.search_page import find_chromium
from paddle_ranker.serving.core.faults import OVERLOADED, Fault
from paddle_ranker.serving.http.page_look import PageLook, accent_styles
from tests.browser.conftest import DRAWN
from tests.browser.site import Site

QUERY = "苹果手机价格"
LOGO = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 90 32"><rect width="90" height="32" rx="6" fill="#b3261e"/>'
    b'<circle cx="20" cy="16" r="8" fill="#fff"/><rect x="38" y="12" width="40" height="8" rx="4" fill="#fff"/></svg>'
)
PICTURE = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 9'><rect width='9' height='9' fill='#ddd'/>"
    "<circle cx='4.5' cy='4.5' r='3' fill='#888'/></svg>"
)
FIELDS: dict[str, dict[str, Any]] = {
    "kind": {"type": "string", "label": "Marke", "values": ["Bosch", "Makita"]},
    "price": {"type": "number", "unit": "€", "label": "Preis", "min": 20, "max": 900},
    "stock": {"type": "boolean", "label": "Auf Lager"},
    "since": {"type": "date", "label": "Seit"},
    "image": {"type": "picture-url"},
    "link": {"type": "url"},
}
TOOLS = ["Akku-Bohrschrauber GSR 18", "Handkreissäge PKS 55", "Stichsäge PST 700", "Oberfräse POF 1200", "Bandsäge"]
ABOUT = "Für Holz, Metall und Kunststoff, mit Führungsschiene und Absaugung, im Koffer. " * 4


class State(NamedTuple):
    """A state of the page: its name, address, window, and what is done before the picture is taken."""

    name: str
    address: str
    act: Callable[[Any], None] = lambda page: None
    width: int = 1440
    height: int = 900
    settings: dict[str, Any] = {}

    @property
    def is_own(self) -> bool:
        """Return whether it is not one of the other states in other colours, or on paper."""
        return not {"color_scheme", "forced_colors"} & self.settings.keys() and self.name != "print"


def _why(page: Any) -> None:
    page.locator("#results .ask-why").first.click()
    page.wait_for_selector("#why .reasons")


def _type(page: Any) -> None:
    page.press("#query", "End")
    for _ in range(10):  # where the machine is busy, a search may be asked before suggestions are there
        page.keyboard.insert_text("手")
        page.wait_for_timeout(1000)
        if page.is_visible("#suggestions"):
            return
        page.keyboard.press("Backspace")


def _settings(page: Any) -> None:
    page.click("#settings summary")


def _print(page: Any) -> None:
    page.emulate_media(media="print")


READY = f"{DRAWN}, #nothing:not([hidden]), #pair:not([hidden]), #failure p"
FAULT = Fault(OVERLOADED, "64 searches wait, which is the limit", retry_after=2)
FOUND, HOW = f"/?q={quote(QUERY)}", f"/?how=1&q={quote(QUERY)}"
PHONE: dict[str, Any] = {"width": 360, "height": 740}
STATES = [
    State("welcome", "/"),
    State("found", FOUND),
    State("found-dark", FOUND, settings={"color_scheme": "dark", "locale": "en-GB"}),
    State("found-forced-colours", FOUND, settings={"forced_colors": "active", "locale": "en-GB"}),
    State("found-phone", FOUND, **PHONE, settings={"locale": "en-GB"}),
    State("why", FOUND, _why, settings={"locale": "fr-FR"}),
    State("why-phone-dark", FOUND, _why, **PHONE, settings={"color_scheme": "dark", "locale": "de-DE"}),
    State("how", HOW, _settings, settings={"locale": "es-ES"}),
    State("how-phone", HOW, **PHONE, settings={"locale": "de-DE"}),
    State("suggestions", "/?q=" + quote("苹果"), _type, settings={"locale": "en-GB"}),
    State("nothing", "/?q=xyzzy&filter=" + quote('{"kind":"新闻"}'), settings={"locale": "de-DE"}),
    State("print", FOUND, _print, settings={"locale": "fr-FR"}),
    State("judge", "/judge", settings={"locale": "de-DE"}),
    State("failure", FOUND, settings={"locale": "fr-FR"}),
]
SHOP = [
    State("shop", FOUND, settings={"locale": "de-DE"}),
    State("shop-dark", FOUND, settings={"locale": "de-DE", "color_scheme": "dark"}),
    State("shop-phone", FOUND, **PHONE, settings={"locale": "de-DE"}),
    State("shop-why", FOUND, _why, settings={"locale": "de-DE"}),
]


def make_shop(site: Site) -> None:
    """Make of the server a shop's: title, logo, colour, pictures, prices."""
    site.look = PageLook(
        "Werkzeugladen", "de", accent_styles("#b3261e"), LOGO, "image/svg+xml", ("https://cdn.example.org",)
    )
    site.index = {**site.index, "fields": FIELDS, "facets": ["kind"], "name": "Werkzeug"}

    def change(answer: dict[str, Any]) -> dict[str, Any]:
        for place, hit in enumerate(answer["hits"]):
            hit.update(
                title=TOOLS[place % len(TOOLS)], text=f"{ABOUT}{place}", highlights=[], passage={"start": 0, "end": 60}
            )
            hit["fields"] = {
                "kind": "Bosch", "price": 206.8 + 31.5 * place, "stock": place % 3 > 0, "since": "2024-03-01",
                "image": f"https://cdn.example.org/{place}.svg", "link": f"https://shop.example.org/{place}",
            }  # fmt: skip
        answer["facets"] = {"kind": [{"value": "Bosch", "count": 12}, {"value": "Makita", "count": 6}]}
        return answer

    site.change = change


@contextmanager
def chromium() -> Iterator[Any]:
    """Open Chromium."""
    from playwright.sync_api import sync_playwright

    found = find_chromium()
    if found is None:
        raise SystemExit("needs Chromium: `bash scripts/setup.sh browser` installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def take(browser: Any, site: Site, state: State, folder: Path) -> Path:
    """Take the picture of a state; return its file."""
    size = {"width": state.width, "height": state.height}
    context = browser.new_context(**{"viewport": size, "locale": "zh-CN", "reduced_motion": "reduce", **state.settings})
    page = context.new_page()
    page.route("https://cdn.example.org/**", lambda route: route.fulfill(body=PICTURE, content_type="image/svg+xml"))
    page.goto(site.address + state.address)
    page.wait_for_selector(READY, state="attached")
    state.act(page)
    page.wait_for_timeout(300)  # pictures, and what is further down
    path = folder / f"{state.name}.png"
    page.screenshot(path=path)
    context.close()
    return path


def main(folder: Path) -> int:
    """Write the pictures into a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    with Site() as site, chromium() as browser:
        for state in STATES:
            site.fault = FAULT if state.name == "failure" else None
            print(take(browser, site, state, folder))
        site.reset()
        make_shop(site)
        site.leave()
        site.start_again()
        for state in SHOP:
            print(take(browser, site, state, folder))
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    raise SystemExit(main(Path(sys.argv[1])))
