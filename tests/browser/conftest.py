"""A real browser: Chromium, driven by Playwright. Tests are skipped, with a reason, where one of them is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.conftest import REPOSITORY

SCREENSHOTS = REPOSITORY / "build" / "screenshots"  # ignored by git
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = "`bash scripts/setup.sh browser` installs it"

OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium. It ends with the module: until then an event loop of Playwright's counts as running in this thread."""
    api = pytest.importorskip("playwright.sync_api", reason=f"needs Playwright: {INSTALL}")
    found = os.environ.get("PADDLE_RANKER_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip(f"needs Chromium: {INSTALL}, or name it by PADDLE_RANKER_CHROMIUM")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """What opens an address in a context of its own; a script's error or a breach of the policy fails the test."""
    contexts, complaints = [], []

    def open(address: str, *, width: int = 1440, height: int = 900, offline: bool = False, **settings: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": width, "height": height}, "locale": "zh-CN", **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if message.type == "error" and "Failed to load resource" not in message.text
                else None
            ),
        )
        page.goto(address)
        return page

    yield open
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def screenshot() -> Callable[..., Path]:
    """What keeps a picture of a page as build output."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    def keep(page: Any, name: str, *, full_page: bool = False) -> Path:
        path = SCREENSHOTS / f"{name}.png"
        page.screenshot(path=path, full_page=full_page)
        return path

    return keep


@pytest.fixture(scope="session")
def axe() -> Optional[str]:
    """The script of axe-core, where PADDLE_RANKER_AXE names its file (`npm pack axe-core`; axe.min.js in there)."""
    path = os.environ.get("PADDLE_RANKER_AXE")
    return Path(path).read_text(encoding="utf-8") if path else None
