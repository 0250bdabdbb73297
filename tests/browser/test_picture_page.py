"""Pictures on the search page, in a grid and with alternative texts; documents like one, or like a visitor's file."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paddle_ranker.commands.index import main as index
from paddle_ranker.recordings.speech import MODEL_VARIABLE
from tests.browser.conftest import ROW, OpenPage, drawn
from tests.browser.test_real_server import RealSite, rows
from tests.pictures.test_picture_fields import COLOURS, corpus, picture
from tests.pictures.test_pictures import published
from tests.started import until

pytestmark = pytest.mark.browser


def site_of(files: Path, base: Path, field: str, tower: Path) -> RealSite:
    """Return a site of files that a field's tower reads; `field` is "name:type"."""

    def made() -> RealSite:
        build = ["build", "--corpus", str(files), "--output", str(base / "index"), "--field", field]
        assert index([*build, "--field_tower", f"{field.partition(':')[0]}={tower}"]) == 0
        return RealSite(index=base / "index")

    with ThreadPoolExecutor(1) as elsewhere:  # in this thread Playwright's event loop runs, where nothing may tokenize
        return elsewhere.submit(made).result()


def is_first(page: Any, name: str) -> bool:
    return rows(page)[:1] == [name]


def test_pictures_are_a_grid_and_found_by_pictures(
    open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = corpus(tmp_path, {name: picture(colour) for name, colour in COLOURS.items()})
    with site_of(files, tmp_path, "photo:picture", published("clip", tmp_path / "clip")) as site:
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
            page.locator("#example input").set_input_files(file)
            until(partial(is_first, page, name))
            assert "like=" not in page.url and page.locator(ROW).count() == len(COLOURS)
        bad = {"name": "bad.png", "mimeType": "image/png", "buffer": b"no picture"}
        page.locator("#example input").set_input_files(bad)
        until(lambda: "bad.png" in page.inner_text("#notice"))


def test_a_dropped_sound_finds_the_second(open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("soundfile", reason="needs: pip install 'paddle-ranker[sound]'")
    pytest.importorskip("soxr", reason="needs: pip install 'paddle-ranker[sound]'")
    from tests.recordings.test_sound_fields import tone
    from tests.recordings.test_sounds import published as published_sounds
    from tests.recordings.test_sounds import wav

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(MODEL_VARIABLE, str(published_sounds("wav2vec2", tmp_path / "model")))
    (tmp_path / "files").mkdir()
    names = ("low", "high", "middle")
    song = np.concatenate([tone(name, 10) for name in names])
    (tmp_path / "files" / "song.wav").write_bytes(wav(song, 16_000))
    with site_of(
        tmp_path / "files", tmp_path, "sound:recording", published_sounds("hubert", tmp_path / "tower")
    ) as site:
        page = open_page(f"{site.address}/")
        page.wait_for_selector("#example:not([hidden])")
        assert page.get_attribute("#example input", "accept") == "audio/*"
        sound = base64.b64encode(wav(tone("high", 3), 16_000)).decode()
        page.evaluate(
            """data => {
              const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
              const dataTransfer = new DataTransfer();
              dataTransfer.items.add(new File([bytes], "high.wav", { type: "audio/wav" }));
              document.dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
            }""",
            sound,
        )
        page.wait_for_selector("#chips li")
        page.wait_for_selector(".moments button:not(:text('0:00'))")  # of the answer, not of the list before
        assert page.locator(".moments button").all_inner_texts() == ["▶ 0:10"]
        page.locator(".moments button").click()
        until(lambda: page.eval_on_selector("audio", "one => one.currentTime") >= 10)
        assert page.locator("#chips li").count() == 1
        file = {"name": "red.png", "mimeType": "image/png", "buffer": picture(COLOURS["red"])}
        page.locator("#example input").set_input_files(file)
        until(lambda: "red.png" in page.inner_text("#notice"))
        file = {"name": "bad.wav", "mimeType": "audio/wav", "buffer": b"no sound"}
        page.locator("#example input").set_input_files(file)
        page.wait_for_selector("#failure:not(:empty)")
        assert "expected a recording" in page.inner_text("#failure")


def test_a_film_shows_and_plays_from_the_second_that_a_dropped_picture_found(
    open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="needs: pip install 'paddle-ranker[film]'")
    from tests.recordings.test_film import BLUE, GREEN, RED, make

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "colours.webm").write_bytes(make((RED, GREEN, BLUE), "webm", seconds=4))
    with site_of(tmp_path / "files", tmp_path, "film:film", published("clip", tmp_path / "clip")) as site:
        page = open_page(f"{site.address}/")
        page.wait_for_selector("#example:not([hidden])")
        assert page.get_attribute("#example input", "accept") == "image/*"
        file = {"name": "blue.png", "mimeType": "image/png", "buffer": picture(BLUE, size=(64, 48))}
        page.locator("#example input").set_input_files(file)
        page.wait_for_selector("#chips li")
        page.wait_for_selector(".moments button:not(:text('0:00'))")  # of the answer, not of the list before
        assert page.locator(".moments button").all_inner_texts() in (["▶ 0:08"], ["▶ 0:10"])
        until(lambda: page.eval_on_selector("video", "one => one.readyState >= 2 && one.currentTime >= 8"))
        shown = page.eval_on_selector(
            "video",
            """one => {
              const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
              canvas.getContext("2d").drawImage(one, 0, 0, 64, 48);
              return [...canvas.getContext("2d").getImageData(48, 24, 1, 1).data].slice(0, 3);
            }""",
        )
        assert np.abs(np.subtract(shown, BLUE)).max() < 40, shown
        page.locator(".moments button").click()
        until(lambda: page.eval_on_selector("video", "one => one.currentTime") > 8.1)
