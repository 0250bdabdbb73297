"""OCR of pictures: words and their boxes, and pictures without words."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from paddle_ranker.data.files.file_readers import READERS, Part, Unread
from paddle_ranker.errors import DataError

pytest.importorskip("rapidocr", reason="pip install 'paddle-ranker[ocr]'")
pytestmark = pytest.mark.unit


def picture(*lines: str) -> Image.Image:
    image = Image.new("RGB", (600, 200), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((40, 30 + 50 * number), line, fill="black", font=ImageFont.load_default(28))
    return image


def test_words_of_a_scan_have_boxes(tmp_path: Path) -> None:
    picture("Two years of", "warranty").save(tmp_path / "a.png")
    (part,) = READERS["ocr"].read(tmp_path / "a.png")
    assert isinstance(part, Part) and part[:2] == ("", "Two years of warranty")
    words = {part.text[int(start) : int(end)]: box for start, end, *box in part.places}
    left, top, right, bottom = words["warranty"]
    assert left == pytest.approx(40 / 600, abs=0.02) and top < 100 / 200 < bottom and right < words["of"][2]


def test_the_pages_of_a_tiff_are_parts(tmp_path: Path) -> None:
    picture("first page").save(tmp_path / "a.tif", save_all=True, append_images=[picture("second page")])
    assert [part[:3] for part in READERS["ocr"].read(tmp_path / "a.tif")] == [
        ("1", "first page", {"page": 1}),
        ("2", "second page", {"page": 2}),
    ]


@pytest.mark.parametrize("turns", range(4))
def test_a_turned_page_is_read_in_order_and_boxes_are_on_their_words(tmp_path: Path, turns: int) -> None:
    lines = ["The boiler must be", "serviced once a year", "by an engineer"]
    picture(*lines).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        Image.fromarray(np.rot90(np.asarray(image), turns)).save(tmp_path / "b.png")
    for name, quarter_turns in (("a.png", 0), ("b.png", turns)):
        (part,) = READERS["ocr"].read(tmp_path / name)
        assert isinstance(part, Part) and part.text.split() == " ".join(lines).split()
        boxes = list[tuple[float, ...]]()
        for _, _, left, top, right, bottom in part.places:
            for _ in range(-quarter_turns % 4):  # turned back to the left
                left, top, right, bottom = top, 1 - right, bottom, 1 - left
            boxes.append((left, top, right, bottom))
        if name == "a.png":
            expected = boxes
        assert np.abs(np.array(boxes) - np.array(expected)).max() < 0.04


def _japanese() -> Optional[str]:
    found = (
        shutil.which("fc-match")
        and subprocess.run(
            ["fc-match", "-f", "%{file}", ":lang=ja"], capture_output=True, text=True, check=False
        ).stdout
    )
    return found if found and "CJK" in found else None


@pytest.mark.skipif(_japanese() is None, reason="a font of Japanese")
@pytest.mark.parametrize("turns", range(4))
def test_columns_of_japanese_go_from_right_to_left(tmp_path: Path, turns: int) -> None:
    columns = ["吾輩は猫である名前はまだ無い", "どこで生れたか頓と見当がつかぬ", "何でも薄暗いじめじめした所で"]
    image, font = Image.new("RGB", (600, 800), "white"), ImageFont.truetype(str(_japanese()), 40)
    for number, column in enumerate(columns):
        for row, letter in enumerate(column):
            ImageDraw.Draw(image).text((460 - 80 * number, 60 + 46 * row), letter, "black", font)
    Image.fromarray(np.rot90(np.asarray(image), turns)).save(tmp_path / "a.png")
    (part,) = READERS["ocr"].read(tmp_path / "a.png")
    assert isinstance(part, Part) and "".join(part.text.split()) == "".join(columns)
    left, top, right, bottom = part.places[0][2:]
    for _ in range(-turns % 4):
        left, top, right, bottom = top, 1 - right, bottom, 1 - left
    assert left < 480 / 600 < right and top < 85 / 800 < bottom


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3000, 10), (300, 300)], ids=str)
def test_pictures_without_words_are_unread(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "white").save(tmp_path / "a.png")
    assert [*READERS["ocr"].read(tmp_path / "a.png")] == [Unread("", "no words")]


def test_damaged_pictures_are_refused(tmp_path: Path) -> None:
    picture("words").save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    with pytest.raises(DataError, match="damaged or cut short"):
        [*READERS["ocr"].read(tmp_path / "a.png")]


def test_every_line_of_a_long_screenshot_is_read_where_it_stands(tmp_path: Path) -> None:
    image, count = Image.new("RGB", (600, 9000), "white"), 60
    for number in range(count):
        ImageDraw.Draw(image).text((40, 150 * number + 40), f"entry {number}", "black", ImageFont.load_default(20))
    image.save(tmp_path / "a.png")
    (part,) = READERS["ocr"].read(tmp_path / "a.png")
    assert isinstance(part, Part) and part.text.split() == [f for n in range(count) for f in ("entry", str(n))]
    for number, (_, _, left, top, _, bottom) in enumerate(part.places[::2]):
        assert left == pytest.approx(40 / 600, abs=0.02) and top < (150 * number + 52) / 9000 < bottom
