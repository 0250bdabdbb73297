"""PDFs: text and boxes of every page, reading order, and what happens to files that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Union

import pytest

from paddle_ranker.data.file_readers import READERS, Part, Reader, Unread
from paddle_ranker.data.pdf import page_picture
from paddle_ranker.data.pictures import ImageLimits
from paddle_ranker.errors import DataError

pytest.importorskip("pypdfium2", reason="pip install 'paddle-ranker[pdf]'")
pytestmark = pytest.mark.unit

HELVETICA = "/Subtype /Type1 /BaseFont /Helvetica /Encoding << /BaseEncoding /WinAnsiEncoding /Differences [1 /fi] >>"
# A font of which the file does not say which letters it shows
UNKNOWN = (
    "/Subtype /Type0 /BaseFont /ABCDEF+Own /Encoding /Identity-H /DescendantFonts [<< /Type /Font "
    "/Subtype /CIDFontType2 /BaseFont /ABCDEF+Own /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) "
    "/Supplement 0 >> >>]"
)
CHINESE = (
    "/Subtype /Type0 /BaseFont /STSong-Light /Encoding /UniGB-UCS2-H /DescendantFonts [<< /Type /Font "
    "/Subtype /CIDFontType0 /BaseFont /STSong-Light /DW 1000 "
    "/CIDSystemInfo << /Registry (Adobe) /Ordering (GB1) /Supplement 4 >> >>]"
)
SCAN = (
    "<< /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8 /Length 1 >>\n"
    "stream\nA\nendstream"
)
SHOW_SCAN = "q 600 0 0 800 0 0 cm /P Do Q\n"


def pdf_of(
    path: Path,
    *pages: str,
    extra: str = "",
    objects: tuple[str, ...] = (),
    trailer: str = "",
    catalog: str = "",
    font: str = HELVETICA,
    size: tuple[int, int] = (600, 800),
) -> Path:
    """Write a PDF whose pages have these contents, in the font /F; return its path.

    extra, trailer, catalog: further entries of each page, of the trailer and of the catalog
    objects: further objects; the first has number 4, and is /P in contents
    """
    first = 4 + len(objects)
    kids = " ".join(f"{first + 2 * number} 0 R" for number in range(len(pages)))
    bodies = [
        f"<< /Type /Catalog /Pages 2 0 R {catalog} >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        f"<< /Type /Font {font} >>",
        *objects,
    ]
    for number, content in enumerate(pages):
        bodies.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] /Contents {first + 2 * number + 1} 0 R "
            f"/Resources << /Font << /F 3 0 R >> /XObject << /P 4 0 R >> >> {extra} >>"
        )
        bodies.append(f"<< /Length {len(content.encode('latin-1'))} >>\nstream\n{content}\nendstream")
    data, places = b"%PDF-1.7\n", []
    for number, body in enumerate(bodies, start=1):
        places.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(bodies) + 1} /Root 1 0 R"
    path.write_bytes(data + f"{end} {trailer} >>\nstartxref\n{len(data)}\n%%EOF\n".encode("latin-1"))
    return path


def shown(*lines: tuple[float, float, str], size: int = 12) -> str:
    """Return the content of a page with texts at points from its lower left corner."""
    return "".join(f"BT /F {size} Tf {x} {y} Td ({text}) Tj ET\n" for x, y, text in lines)


def parts_of(path: Path) -> list[Part]:
    return [part for part in READERS["pdf"].read(path) if isinstance(part, Part)]


def boxes_of(part: Part) -> list[tuple[str, tuple[float, ...]]]:
    return [(part.text[int(start) : int(end)], tuple(box)) for start, end, *box in part.places]


def test_every_word_of_every_page_has_its_box(tmp_path: Path) -> None:
    path = pdf_of(tmp_path / "a.pdf", shown((60, 700, "Two years")), shown((60, 100, "of warranty")))
    parts = parts_of(path)
    assert [(part.name, part.text, part.fields) for part in parts] == [
        ("1", "Two years", {"page": 1}),
        ("2", "of warranty", {"page": 2}),
    ]
    (two, box), (years, after) = boxes_of(parts[0])
    assert (two, years) == ("Two", "years")
    assert box[0] == pytest.approx(60 / 600, abs=0.01)
    assert box[1] < 1 - 700 / 800 < box[3]
    assert after[0] > box[2]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_boxes_are_where_a_turned_page_shows_them(tmp_path: Path, turn: int) -> None:
    # The word begins 60 points from the left and 100 from the top of 600 x 800, before the page is turned.
    path = pdf_of(tmp_path / "a.pdf", shown((60, 700, "Two")), extra=f"/Rotate {turn}")
    ((_, (left, top, right, bottom)),) = boxes_of(parts_of(path)[0])
    corner = {90: (left, top), 180: (right, top), 270: (right, bottom)}[turn]
    x, y = 60 / 600, 100 / 800
    wanted = {90: (1 - y, x), 180: (1 - x, 1 - y), 270: (y, 1 - x)}[turn]
    assert corner == pytest.approx(wanted, abs=0.03)


LEFT = ["The warranty of this device is", "two years from the day of its", "purchase. Keep the receipt in a"]
RIGHT = ["place where you find it, for we", "ask you to show it to us before", "anything is repaired."]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(60, 700, "Hyphens are for inter-"), (60, 686, "national names")], "Hyphens are for international names"),
        ([(60, 700, "A book by Jean-"), (60, 686, "Paul is not here")], "A book by Jean-Paul is not here"),
        ([(60, 700, "Contents . . . . ... 7 ... and so on")], "Contents 7 ... and so on"),
        ([(60, 700, "Heading"), (60, 660, "Its text follows")], "Heading\nIts text follows"),
        ([(60, 700, "Short end."), (60, 686, "The next paragraph is")], "Short end.\nThe next paragraph is"),
        (
            [(x, 700 - 14 * row, text) for row in range(3) for x, text in ((60, LEFT[row]), (330, RIGHT[row]))],
            " ".join(LEFT) + "\n" + " ".join(RIGHT),
        ),
        (
            [(x, 700 - 14 * row, text) for x, side in ((60, LEFT), (330, RIGHT)) for row, text in enumerate(side)],
            " ".join(LEFT) + "\n" + " ".join(RIGHT),
        ),
        (
            [(x, 700 - 14 * row, text) for row in range(4) for x, text in ((60, f"item {row}"), (400, f"{row} lb"))],
            "\n".join(f"item {row} {row} lb" for row in range(4)),
        ),
    ],
    ids=["hyphen", "a hyphen that stays", "dots", "heading", "paragraphs", "columns by rows", "columns", "a table"],
)  # fmt: skip
def test_text_is_in_reading_order(tmp_path: Path, lines: list[tuple[float, float, str]], expected: str) -> None:
    (part,) = parts_of(pdf_of(tmp_path / "a.pdf", shown(*lines)))
    assert part.text == expected
    words = [word for word, _ in boxes_of(part)]
    assert "".join(words) == "".join(expected.split())


def test_a_ligature_is_its_letters(tmp_path: Path) -> None:
    (part,) = parts_of(pdf_of(tmp_path / "a.pdf", shown((60, 700, "a \x01ne day"))))
    assert part.text == "a fine day"


def test_chinese_lines_are_joined_without_spaces_and_each_character_has_a_box(tmp_path: Path) -> None:
    lines = "质量保证期为两年自购买", "之日起计算"
    hexadecimal = [line.encode("utf-16-be").hex() for line in lines]
    content = "".join(f"BT /F 20 Tf 60 {700 - 24 * row} Td <{line}> Tj ET\n" for row, line in enumerate(hexadecimal))
    (part,) = parts_of(pdf_of(tmp_path / "a.pdf", content, font=CHINESE))
    assert part.text == "".join(lines)
    assert [word for word, _ in boxes_of(part)] == [*"".join(lines)]


def test_what_is_filled_into_a_form_is_text(tmp_path: Path) -> None:
    value = shown((2, 2, "Ada Lovelace"))
    appearance = (
        f"<< /Subtype /Form /BBox [0 0 200 20] /Resources << /Font << /F 3 0 R >> >> /Length {len(value)} >>\n"
        f"stream\n{value}\nendstream"
    )
    field = "<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /Rect [160 695 360 715] /F 4 /AP << /N 4 0 R >> >>"
    path = pdf_of(tmp_path / "a.pdf", shown((60, 700, "Name:")), extra="/Annots [5 0 R]", objects=(appearance, field))
    assert parts_of(path)[0].text == "Name: Ada Lovelace"


def test_title_and_outline_are_fields(tmp_path: Path) -> None:
    outline = (
        "<< /Type /Outlines /First 5 0 R /Last 5 0 R >>",
        "<< /Title (Warranty) /Parent 4 0 R /Dest [10 0 R /Fit] /First 6 0 R /Last 6 0 R >>",
        "<< /Title (Claims) /Parent 5 0 R /Dest [10 0 R /Fit] >>",
        "<< /Title (Microsoft Word - The  Manual) >>",
    )
    path = pdf_of(
        tmp_path / "a.pdf", *[shown((60, 700, f"page {n}")) for n in (1, 2, 3)], objects=outline,
        trailer="/Info 7 0 R", catalog="/Outlines 4 0 R",
    )  # fmt: skip
    manual = {"title": "The Manual"}
    assert [part.fields for part in parts_of(path)] == [
        {**manual, "page": 1},
        {**manual, "page": 2, "heading": "Warranty; Claims"},
        {**manual, "page": 3, "heading": "Warranty; Claims"},
    ]


@pytest.fixture
def ocr() -> Iterator[None]:
    """Have OCR read "as scanned" on every picture."""

    def read(path: Path) -> Iterator[Union[Part, Unread]]:
        yield Part("", "as scanned", places=[(0, 2, 0.1, 0.1, 0.2, 0.2)])

    real = READERS["ocr"]
    READERS.remove("ocr")
    READERS.add("ocr", Reader(read, lambda: "1", "boxes"))
    yield
    READERS.remove("ocr")
    READERS.add("ocr", real)


@pytest.mark.usefixtures("ocr")
def test_pages_that_are_pictures_are_read_by_ocr(tmp_path: Path) -> None:
    text = shown(*[(60, y, "Pages of text above a picture are read as text") for y in (700, 600, 500)])
    stamp = shown((60, 20, "received"))
    path = pdf_of(tmp_path / "a.pdf", text, SHOW_SCAN, SHOW_SCAN + stamp, "", SHOW_SCAN + text, objects=(SCAN,))
    *parts, last = READERS["pdf"].read(path)
    texts = {part.name: part.text for part in [*parts, last] if isinstance(part, Part)}
    assert {name: text[:10] for name, text in texts.items()} == {
        "1": "Pages of t", "2": "as scanned", "3": "as scanned", "5": "Pages of t",
    }  # fmt: skip
    assert [part for part in parts if isinstance(part, Unread)] == [Unread("4", "blank")]


def _without_ocr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rapidocr", None)
    from paddle_ranker.data import ocr

    ocr._engine.cache_clear()


def test_a_scan_without_ocr_is_named_or_refused_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_ocr(monkeypatch)
    install = re.escape("pip install 'paddle-ranker[ocr]'")
    part, unread = READERS["pdf"].read(pdf_of(tmp_path / "a.pdf", shown((60, 700, "text")), SHOW_SCAN, objects=(SCAN,)))
    assert isinstance(part, Part) and isinstance(unread, Unread)
    assert unread.name == "2" and re.search(install, unread.reason)
    with pytest.raises(DataError, match=f"none of its 2 pages can be read: .*{install}"):
        parts_of(pdf_of(tmp_path / "b.pdf", SHOW_SCAN, SHOW_SCAN, objects=(SCAN,)))


WHOLE = shown((60, 700, "whole"))
CRYPT = (
    f"/ID [<{'00' * 16}> <{'00' * 16}>] /Encrypt << /Filter /{{}} /V 1 /R 2 /O <{'11' * 32}> /U <{'22' * 32}> /P -1 >>"
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "not a PDF"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2000)), "not a PDF"),
        (lambda path: path.write_bytes(b"%PDF-1.7\n" + bytes(2000)), "damaged or cut short"),
        (lambda path: path.write_bytes(pdf_of(path, WHOLE).read_bytes()[:150]), "damaged or cut short"),
        (lambda path: pdf_of(path, WHOLE, trailer=CRYPT.format("Standard")), "encrypted; qpdf"),
        (lambda path: pdf_of(path, WHOLE, trailer=CRYPT.format("Another")), "encrypted; qpdf"),
        (lambda path: pdf_of(path, "", ""), "none of its 2 pages can be read: blank"),
        (lambda path: pdf_of(path, "BT /F 9 Tf 60 700 Td <00410042> Tj ET", font=UNKNOWN), "fonts that do not say"),
    ],
    ids=["empty", "a picture", "no objects", "cut short", "encrypted", "encrypted in another way", "blank", "letters"],
)  # fmt: skip
def test_files_that_cannot_be_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], message: str
) -> None:
    _without_ocr(monkeypatch)
    path = tmp_path / "a.pdf"
    make(path)
    with pytest.raises(DataError, match=message):
        parts_of(path)


def test_letters_beyond_the_edges_are_counted(tmp_path: Path) -> None:
    path = pdf_of(tmp_path / "a.pdf", shown((60, 700, "here"), (60, 900, "beyond"), (595, 600, "edge")))
    unread, part = READERS["pdf"].read(path)
    assert unread == Unread("1", "9 characters beyond its edges")
    assert isinstance(part, Part) and part.text == "here\ne"
    assert all(0 <= edge <= 1 for _, box in boxes_of(part) for edge in box)


def test_a_page_of_200_inches_is_a_smaller_picture(tmp_path: Path) -> None:
    path = pdf_of(tmp_path / "a.pdf", shown((60, 700, "large")), size=(14_400, 14_400))
    width, height = page_picture(path, 1).size
    assert 0.9 * ImageLimits().max_pixels < width * height <= ImageLimits().max_pixels
    assert page_picture(pdf_of(path, shown((60, 700, "small"))), 1, dpi=72).size == (600, 800)


def test_pages_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pypdfium2

    opened, real = list[int](), pypdfium2.PdfDocument.get_page

    def get_page(document: pypdfium2.PdfDocument, number: int) -> object:
        opened.append(number)
        return real(document, number)

    monkeypatch.setattr(pypdfium2.PdfDocument, "get_page", get_page)
    parts = READERS["pdf"].read(pdf_of(tmp_path / "a.pdf", *[WHOLE] * 1000))
    assert next(parts)[:2] == ("1", "whole")
    assert {*opened} == {0}
    assert sum(isinstance(part, Part) for part in parts) == 999
