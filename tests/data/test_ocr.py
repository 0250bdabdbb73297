"""OCR of pictures: words and their boxes, and pictures without words."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from paddle_ranker.data.file_readers import READERS, Part, Unread
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
