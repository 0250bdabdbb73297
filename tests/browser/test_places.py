"""Places of hits on the search page: a page with boxes, a player that starts at a second, a table with marked cells."""

from __future__ import annotations

import io
import json
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paddle_ranker.commands.index import main as index
from paddle_ranker.data.files.file_readers import READERS
from paddle_ranker.registry import VARIABLE
from tests.browser.conftest import ROW, OpenPage, drawn
from tests.browser.test_real_server import RealSite
from tests.pages.test_pdf import pdf_of, shown
from tests.started import until

pytestmark = pytest.mark.browser
SHEET = "SHEET\ncity | population\nOslo | 700000\nBergen | 290000\nTromsø | 77000\n"


def made(base: Path) -> RealSite:
    folder = base / "corpus"
    folder.mkdir()
    pdf_of(folder / "manual.pdf", shown((60, 700, "Safety first")), shown((60, 60, "Two years of warranty")))
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(2 * 8000 * 6))
    (folder / "tape.wav").write_bytes(stream.getvalue())
    (folder / "cities.csv").write_text(SHEET, encoding="utf-8")
    rows = [
        {"id": "m", "title": "Manual", "lang": "en", "pdf": "manual.pdf"},
        {"id": "t", "title": "Tape", "lang": "de", "tape": "tape.wav"},
        {"id": "c", "title": "Cities", "sheet": "cities.csv"},
    ]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    build = ["build", "--corpus", str(folder / "rows.jsonl"), "--output", str(base / "index")]
    assert index([*build, "--field", "pdf:pdf,tape:tape,sheet:sheet"]) == 0
    return RealSite(index=base / "index")


def test_places_are_drawn(open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "tests.retrieval.made_reader")
    monkeypatch.setenv("PADDLE_RANKER_CACHE", str(tmp_path / "cache"))
    READERS.load_plugins()
    with ThreadPoolExecutor(1) as elsewhere:  # in this thread Playwright's event loop runs, where nothing may tokenize
        real = elsewhere.submit(made, tmp_path).result()
    with real as site:
        page = open_page(f"{site.address}/?q=warranty")
        drawn(page)
        page.wait_for_selector(f"{ROW} .page img")
        until(lambda: page.eval_on_selector(".page img", "one => one.naturalWidth") > 600)
        until(lambda: page.eval_on_selector(".page", "one => one.scrollTop") > 0)
        _check_box(page)
        assert page.inner_text(f"{ROW} a[href^='/v1/contents/']") == "PDF, 第 2 页"
        page.goto(f"{site.address}/?q=tape")
        drawn(page)
        page.wait_for_selector(".moments button")
        assert page.locator(".moments button").all_inner_texts() == ["▶ 0:03"]
        page.locator(".moments button").click()
        until(lambda: page.eval_on_selector("audio", "one => one.currentTime") >= 3)
        page.goto(f"{site.address}/?q=Tromsø")
        drawn(page)
        page.wait_for_selector(".rows table")
        assert page.locator(".rows th").all_inner_texts() == ["city", "population"]
        assert page.locator(".rows td").all_inner_texts() == ["Tromsø", "77000"]
        assert page.locator(".rows mark").all_inner_texts() == ["Tromsø"]
        assert "row" not in page.inner_text(f"{ROW} .fields")  # its rows are in sight
        assert page.inner_text("#status").startswith("1 篇文档，")
        facets = page.evaluate("fetch('/v1/index').then(one => one.json()).then(one => one.facets)")
        assert facets == ["lang"]  # and not the number of the page


def _check_box(page: Any) -> None:
    """Check that the box stands on the word, which is in sight: near the page's lower edge, behind `Two years of`."""
    sheet, box, frame = (page.locator(one).bounding_box() for one in (".sheet", ".box", ".page"))
    assert page.locator(".box").count() == 1
    across, down = (box["x"] - sheet["x"]) / sheet["width"], (box["y"] - sheet["y"]) / sheet["height"]
    assert 0.18 < across < 0.26 and 0.89 < down < 0.94, (across, down)
    assert frame["y"] <= box["y"] and box["y"] + box["height"] <= frame["y"] + frame["height"]
