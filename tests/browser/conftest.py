"""Real browsers, driven by Playwright. Tests are skipped, with a reason, where one of them is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any, Callable, Optional

import pytest

from benchmarks.search_page import find_chromium
from tests.browser.site import Site

INSTALL = "`bash scripts/setup.sh browser` installs it"

OpenPage = Callable[..., Any]

ROW = "#results > li"
DRAWN = "#board[aria-busy=false]"  # all of the newest answer: what the window shows is drawn before the rest


FIREFOXES = ("firefox-esr", "firefox")
in_both = pytest.mark.parametrize("browser", ("chromium", "firefox"), indirect=True)


def _find_firefox() -> Optional[str]:
    return os.environ.get("PADDLE_RANKER_FIREFOX") or next(filter(None, map(shutil.which, FIREFOXES)), None)


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Chromium, or what `in_both` asks for. It ends with the module: until then an event loop of Playwright's counts as
    running in this thread.

    Firefox is driven by WebDriver BiDi, which has no emulation of colour schemes, of reduced motion and of printing.
    """
    api = pytest.importorskip("playwright.sync_api", reason=f"needs Playwright: {INSTALL}")
    name = getattr(request, "param", "chromium")
    found = find_chromium() if name == "chromium" else _find_firefox()
    if found is None:
        pytest.skip(f"needs {name.title()}: {INSTALL}, or name it by PADDLE_RANKER_{name.upper()}")
    with api.sync_playwright() as playwright:
        if name == "chromium":
            opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        else:
            opened = playwright.firefox.launch(executable_path=found, channel="moz-firefox")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture
def site(served: Site) -> Site:
    """The pages and a made-up service, as if no test had been there."""
    served.reset()
    return served


def stand_still(page: Any) -> None:
    """Stop the page's clock: what comes after a pause (a search, which closes suggestions) waits for `run_for`."""
    page.clock.install()
    page.clock.pause_at(page.evaluate("Date.now() + 60_000"))


def drawn(page: Any) -> None:
    """Wait until there are results, and all of them are drawn."""
    page.wait_for_selector(ROW)
    page.wait_for_selector(DRAWN)


class Pages:
    """Pages of a module's tests by their settings: a new one takes three times as long as another address."""

    def __init__(self, browser: Any) -> None:
        self._browser, self._kept = browser, dict[tuple[Any, ...], Any]()
        self.complaints: list[str] = []

    def new(self, width: int, height: int, **settings: Any) -> Any:
        """Return a page in a context of its own; its scripts' errors and breaches of the policy are complaints."""
        context = self._browser.new_context(
            **{"viewport": {"width": width, "height": height}, "locale": "zh-CN", **settings}
        )
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._hear)
        return page

    def kept(self, width: int, height: int, **settings: Any) -> Any:
        """Return the page of these settings as a new one would be, whatever the tests before have done with it."""
        key = (width, height, *sorted(settings.items()))
        if key not in self._kept:
            self._kept[key] = self.new(width, height, **settings)
        return self._kept[key]

    def tidy(self) -> None:
        """Forget what a test's page keeps until its tab is closed."""
        for page in self._kept.values():
            if page.url != "about:blank":
                page.evaluate("sessionStorage.clear(), localStorage.clear()")
                page.goto("about:blank")

    def _hear(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)


@pytest.fixture(scope="module")
def pages(browser: Any) -> Pages:
    return Pages(browser)


@pytest.fixture
def open_page(pages: Pages) -> Iterator[OpenPage]:
    """What opens an address; a script's error or a breach of the policy fails the test.

    `own_context=True`: in a context that no other test has, for what a page keeps: a clock that stands still, a cache.
    """
    own = []

    def open(address: str, *, width: int = 1440, height: int = 900, own_context: bool = False, **settings: Any) -> Any:
        if own_context:
            page = pages.new(width, height, **settings)
            own.append(page)
        else:
            page = pages.kept(width, height, **settings)
        page.goto(address)
        return page

    pages.complaints.clear()
    yield open
    for page in own:
        page.context.close()
    pages.tidy()
    assert pages.complaints == []
