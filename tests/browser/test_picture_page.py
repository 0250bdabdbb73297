"""Pictures on the search page: a grid with alternative texts, documents like one, and a picture of the visitor's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.commands.index import main as index
from tests.browser.conftest import ROW, OpenPage, drawn
from tests.browser.test_real_server import RealSite, rows
from tests.model.test_pictures import published
from tests.retrieval.test_picture_fields import COLOURS, corpus, picture
from tests.started import until

pytestmark = pytest.mark.browser


def made(base: Path) -> RealSite:
    path = corpus(base, {name: picture(colour) for name, colour in COLOURS.items()})
    build = ["build", "--corpus", str(path), "--output", str(base / "index"), "--field", "photo:picture"]
    assert index([*build, "--field_tower", f"photo={published('clip', base / 'clip')}"]) == 0
    return RealSite(index=base / "index")


def is_first(page: Any, name: str) -> bool:
    return rows(page)[:1] == [name]


def test_pictures_are_a_grid_and_found_by_pictures(
    open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ThreadPoolExecutor(1) as elsewhere:  # in this thread Playwright's event loop runs, where nothing may tokenize
        real = elsewhere.submit(made, tmp_path).result()
    with real as site:
        page = open_page(f"{site.address}/?q=picture")
        drawn(page)
        assert page.locator(".has-pictures").count() == 1 and page.locator(ROW).count() == len(COLOURS)
        seen = page.eval_on_selector_all(f"{ROW} img.content", "all => all.map((one) => [one.alt, one.loading])")
        assert sorted(seen) == sorted([f"picture {name}", "lazy"] for name in COLOURS)
        tops = page.eval_on_selector_all(ROW, "all => all.map((one) => one.getBoundingClientRect().top)")
        assert len({*tops}) == 1  # one row of four
        widths = "all => all.map((one) => one.naturalWidth)"
        until(lambda: page.eval_on_selector_all("img.content", widths) == [40] * len(COLOURS))
        first = rows(page)[0]
        page.locator(f"{ROW} .ask-like").first.click()
        until(lambda: first not in rows(page))
        assert f"like={first}" in page.url and page.locator("#chips li").count() == 1
        page.goto(f"{site.address}/")
        page.wait_for_selector("link[href$='pictures.css']", state="attached")
        for name in ("blue", "green"):
            file = {"name": f"{name}.png", "mimeType": "image/png", "buffer": picture(COLOURS[name])}
            page.locator("#picture input").set_input_files(file)
            until(partial(is_first, page, name))
            assert "like=" not in page.url and page.locator(ROW).count() == len(COLOURS)
        bad = {"name": "bad.png", "mimeType": "image/png", "buffer": b"no picture"}
        page.locator("#picture input").set_input_files(bad)
        until(lambda: "bad.png" in page.inner_text("#notice"))
