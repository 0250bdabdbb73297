"""PDFs: text and boxes of every page, reading order, and what happens to files that cannot be read."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Union

import numpy as np
import pytest
from PIL import Image

from paddle_ranker.data.files.file_readers import READERS, Part, Reader, Unread
from paddle_ranker.data.files.pictures import ImageLimits
from paddle_ranker.errors import DataError
from paddle_ranker.pages.pdf import page_picture

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


def _seen(line: str) -> str:
    """Return a line as it looks from left to right, if it is of a script that is read leftwards."""
    if not re.search("[\u0590-\u06ff]", line):
        return line
    return re.sub("[A-Za-z0-9.]+", lambda part: part.group()[::-1], line[::-1])


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


def made_font(text: str) -> tuple[str, tuple[str, str], dict[str, int]]:
    """Return a font, its objects 4 and 5, and the code of each character of `text`; all look like boxes."""
    codes = {character: code for code, character in enumerate(dict.fromkeys(text), 1)}
    glyph = "600 0 0 0 600 700 d1 50 0 500 700 re f"
    pairs = "\n".join(f"<{code:02x}> <{character.encode('utf-16-be').hex()}>" for character, code in codes.items())
    mapping = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def "
        f"1 begincodespacerange <00> <ff> endcodespacerange {len(codes)} beginbfchar {pairs} endbfchar endcmap end end"
    )
    objects = tuple(f"<< /Length {len(body)} >>\nstream\n{body}\nendstream" for body in (mapping, glyph))
    names = " ".join(f"/g{code}" for code in codes.values())
    shapes = " ".join(f"/g{code} 5 0 R" for code in codes.values())
    font = (
        f"/Subtype /Type3 /FontBBox [0 0 600 700] /FontMatrix [.001 0 0 .001 0 0] /ToUnicode 4 0 R "
        f"/CharProcs << {shapes} >> /Encoding << /Differences [1 {names}] >> "
        f"/FirstChar 1 /LastChar {len(codes)} /Widths [{' 600' * len(codes)}] /Resources << >>"
    )
    return font, (objects[0], objects[1]), codes


# Lines as they are read, and for scripts that are read leftwards, as they look from left to right
SCRIPTS: dict[str, tuple[list[str], list[str]]] = {
    name: (lines, [_seen(line) for line in lines])
    for name, lines in {
        "English": ["the warranty of this", "device is two years", "from a purchase day"],
        "Hebrew": ["האחריות למכשיר הזה", "שנתיים מיום הרכישה", "שמרו את הקבלה שלכם"],
        "mixed": ["נבדק 2019 אצל IBM כאן", "מחיר 12.50 שקלים חדשים", "עמוד 7 מתוך 21 דפים"],
        "Arabic": ["ضمان هذا الجهاز سنتان", "من يوم الشراء احتفظ", "بالايصال دائما معك"],
        "beyond the BMP": ["Let 𝑥 and 𝑦 be 𝑧", "𠮷 is 😀 a shop", "𝔘𝔫𝔦 code letters"],
        "Korean": ["보증 기간은 구입일로부터", "이년입니다 영수증을", "보관하세요 감사합니다"],
        "Vietnamese": ["Tiếng Việt có dấu", "đường phố Hà Nội", "nước non ngàn dặm"],
        "Greek": ["Η εγγύηση της συσκευής", "είναι δύο έτη από", "την ημέρα αγοράς"],
    }.items()
}  # fmt: skip
WAYS = ("a string a line", "a string a letter", "letters as they are read", "bottom up")


@pytest.mark.parametrize("script", SCRIPTS)
def test_words_are_whole_and_in_order_however_they_are_turned_and_drawn(tmp_path: Path, script: str) -> None:
    read, seen = SCRIPTS[script]
    font, objects, codes = made_font("".join(read))
    wrong = list[object]()
    turns = [(angle, mirrors, 0) for angle in (0, 90, 180, 270, 1.5, 30, 135) for mirrors in ((1, 1), (-1, 1), (1, -1))]
    turns += [(angle, (1, 1), rotate) for angle in (0, 90) for rotate in (90, 180, 270)]
    for (angle, (across, up), rotate), way in product(turns, WAYS):
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        matrix = (cosine * across, sine * across, -sine * up, cosine * up)

        def at(column: float, row: float, matrix: tuple[float, ...] = matrix) -> tuple[float, float]:
            x, y = 8.4 * column - 80, -20 * row
            return 300 + x * matrix[0] + y * matrix[2], 400 + x * matrix[1] + y * matrix[3]

        content, middles = "", dict[str, tuple[float, float]]()
        for row in range(len(seen))[:: -1 if way == "bottom up" else 1]:
            columns = [(column, letter) for column, letter in enumerate(seen[row])]
            if way in ("a string a line", "bottom up"):
                drawn = [(0, seen[row])]
            else:
                drawn = columns[:: -1 if way == "letters as they are read" and seen[row] != read[row] else 1]
            for column, text in drawn:
                x, y = at(column, row)
                place = " ".join(f"{number:.4f}" for number in (*matrix, x, y))
                code = "".join(f"{codes[letter]:02x}" for letter in text)
                content += f"BT /F 14 Tf {place} Tm <{code}> Tj ET\n"
            for word in re.finditer(r"\S+", seen[row]):
                text = word.group() if word.group() in read[row].split() else word.group()[::-1]
                x, y = at((word.start() + word.end()) / 2, row - 0.245)
                middles[text] = {
                    0: (x / 600, 1 - y / 800), 90: (y / 800, x / 600),
                    180: (1 - x / 600, y / 800), 270: (1 - y / 800, 1 - x / 600),
                }[rotate]  # fmt: skip
        path = pdf_of(tmp_path / "a.pdf", content, objects=objects, font=font, extra=f"/Rotate {rotate}")
        parts = parts_of(path)
        if [part.text.split() for part in parts] != [" ".join(read).split()]:
            wrong.append((angle, across, up, rotate, way, [part.text for part in parts]))
            continue
        for shown, (left, top, right, bottom) in boxes_of(parts[0]):
            x, y = middles[shown]
            if abs((left + right) / 2 - x) > 0.01 or abs((top + bottom) / 2 - y) > 0.01:
                wrong.append((angle, across, up, rotate, way, shown, (x, y), (left, top, right, bottom)))
    assert not wrong, wrong[:3]


def test_columns_of_japanese_go_from_right_to_left(tmp_path: Path) -> None:
    columns = ["吾輩は猫である", "名前はまだ無い", "どこで生れたか"]
    font, objects, codes = made_font("".join(columns) + "page 3")
    content = "".join(
        f"BT /F 20 Tf {400 - 30 * number} {700 - 22 * row} Td <{codes[letter]:02x}> Tj ET\n"
        for number, column in enumerate(columns)
        for row, letter in enumerate(column)
    )
    number = "".join(f"{codes[letter]:02x}" for letter in "page 3")
    path = pdf_of(tmp_path / "a.pdf", f"{content}BT /F 9 Tf 300 40 Td <{number}> Tj ET", objects=objects, font=font)
    (part,) = parts_of(path)
    assert part.text.split() == [*columns, "page", "3"]
    boxes = dict(boxes_of(part))
    assert boxes["輩"][0] > boxes["前"][0] > boxes["こ"][0] and boxes["吾"][1] < boxes["輩"][1]


@pytest.fixture
def ocr() -> Iterator[list[np.ndarray]]:
    """Have OCR read "as scanned" in the upper part of every picture; yield the pictures that it is given."""
    pictures = list[np.ndarray]()

    def read(path: Path) -> Iterator[Union[Part, Unread]]:
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture))
        yield Part("", "as scanned", places=[(0, 2, 0.1, 0.14, 0.2, 0.16), (3, 10, 0.3, 0.14, 0.5, 0.16)])

    real = READERS["ocr"]
    READERS.remove("ocr")
    READERS.add("ocr", Reader(read, lambda: "1", "boxes"))
    yield pictures
    READERS.remove("ocr")
    READERS.add("ocr", real)


@pytest.mark.usefixtures("ocr")
def test_pages_that_are_pictures_are_read_by_ocr(tmp_path: Path) -> None:
    text = shown(*[(60, y, "Pages of text on a picture are read as text") for y in range(760, 40, -20)], size=25)
    stamp = shown((60, 20, "received"))
    path = pdf_of(tmp_path / "a.pdf", text, SHOW_SCAN, SHOW_SCAN + stamp, "", SHOW_SCAN + text, objects=(SCAN,))
    *parts, last = READERS["pdf"].read(path)
    texts = {part.name: part.text for part in [*parts, last] if isinstance(part, Part)}
    assert {name: text[:19] for name, text in texts.items()} == {
        "1": "Pages of text on a ", "2": "as scanned", "3": "as scanned\nreceived", "5": "Pages of text on a ",
    }  # fmt: skip
    assert [part for part in parts if isinstance(part, Unread)] == [Unread("4", "the page is blank")]


STRIPS = "".join(f"q 600 0 0 100 0 {y} cm /P Do Q\n" for y in range(0, 800, 100))
HALVES = "q 300 0 0 800 0 0 cm /P Do Q q 300 0 0 800 300 0 cm /P Do Q\n"
_INNER = "q 0.5 0 0 0.5 0 0 cm /P Do Q"
FORM = (
    "<< /Subtype /Form /BBox [0 0 1 1] /Matrix [2 0 0 2 0 0] /Resources << /XObject << /P 4 0 R >> >> "
    f"/Length {len(_INNER)} >>\nstream\n{_INNER}\nendstream"
)


@pytest.mark.parametrize(
    "content",
    [SHOW_SCAN, STRIPS, HALVES, "q 600 0 0 800 0 0 cm /Form Do Q\n", "q 600 0 0 300 0 500 cm /P Do Q\n"],
    ids=["whole", "strips", "halves", "within a form", "a part of the page"],
)
def test_a_page_with_a_scan_and_text_has_both_texts(tmp_path: Path, content: str, ocr: list[np.ndarray]) -> None:
    stamp = shown((60, 100, "Case 3 Document 45 Filed 03/05/24 Page 7 of 21 PageID 1432 in the District Court of the"),
                  (60, 80, "Northern District of Texas, Dallas Division, by the clerk of the court"))  # fmt: skip
    path = pdf_of(
        tmp_path / "a.pdf", content + stamp, objects=(SCAN, FORM),
        extra="/Resources << /Font << /F 3 0 R >> /XObject << /P 4 0 R /Form 5 0 R >> >>",
    )  # fmt: skip
    path.write_bytes(
        path.read_bytes().replace(b"/Resources << /Font << /F 3 0 R >> /XObject << /P 4 0 R >> >> /Res", b"/Res")
    )
    (part,) = parts_of(path)
    assert part.text == "as scanned\n" + part.text.partition("\n")[2]
    assert part.text.endswith("by the clerk of the court") and "Filed 03/05/24 Page 7 of 21" in part.text
    assert np.ptp(ocr[0][-250:].astype(int)) == 0  # OCR does not see what the page states


def test_ocr_does_not_replace_what_the_page_states(tmp_path: Path, ocr: list[np.ndarray]) -> None:
    lines = ["보증 기간은 구입일로부터", "이년입니다 영수증을"]
    font, objects, codes = made_font("".join(lines))
    content = "".join(
        f"BT /F 30 Tf 60 {670 - 40 * row} Td <{''.join(f'{codes[letter]:02x}' for letter in line)}> Tj ET\n"
        for row, line in enumerate(lines)
    )
    path = pdf_of(tmp_path / "a.pdf", "q 600 0 0 800 0 0 cm /Scan Do Q " + content, objects=(*objects, SCAN), font=font)
    path.write_bytes(path.read_bytes().replace(b"/P 4 0 R", b"/Scan 6 0 R"))
    (part,) = parts_of(path)
    assert len(ocr) == 1 and part.text.split() == " ".join(lines).split()  # OCR's words are where the page states words


def unmapped(*words: str) -> str:
    """Return the content of a page with words in the font /U, which does not say which letters it shows."""
    return "".join(
        f"BT /U 20 Tf 60 {700 - 150 * row} Td <{word.encode().hex()}> Tj ET\n" for row, word in enumerate(words)
    )


def test_letters_without_meaning_are_read_by_ocr_or_named(
    tmp_path: Path, ocr: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = shown((60, 400, "Ordinary words of the body text, in a font that says which letters these are"))
    extra = "/Resources << /Font << /F 3 0 R /U 4 0 R >> >>"
    path = pdf_of(
        tmp_path / "a.pdf", known + unmapped("heading!"), objects=(f"<< /Type /Font {UNKNOWN} >>",), extra=extra
    )
    path.write_bytes(path.read_bytes().replace(b"/Resources << /Font << /F 3 0 R >> /XObject << /P 4 0 R >> >>", b""))
    (part,) = parts_of(path)
    assert part.text == "as scanned\nOrdinary words of the body text, in a font that says which letters these are"
    assert np.ptp(ocr[0][-700:].astype(int)) == 0
    READERS.remove("ocr")
    READERS.add("ocr", Reader(lambda path: iter([Unread("", "no words")]), lambda: "2", "boxes"))
    unread, page = READERS["pdf"].read(path)
    assert unread == Unread("1", "letters in fonts that do not say which they are: 4")
    assert isinstance(page, Part) and page.text.startswith("Ordinary words")


def test_an_outline_of_many_entries_is_read_in_time(tmp_path: Path) -> None:
    count = 20_000
    entries = [
        f"<< /Title (Entry {number}) /Parent 4 0 R /Dest [{5 + count} 0 R /Fit] /Next {6 + number} 0 R >>"
        for number in range(count)
    ]
    outlines = "<< /Type /Outlines /First 5 0 R /Last 5 0 R >>"
    path = pdf_of(tmp_path / "a.pdf", shown((60, 700, "text")), objects=(outlines, *entries), catalog="/Outlines 4 0 R")
    began = time.process_time()
    unread, part = READERS["pdf"].read(path)
    assert time.process_time() - began < 5
    assert unread == Unread("", "its headings after the first 8,192 are left out")
    assert isinstance(part, Part) and str(part.fields["heading"]).startswith("Entry 0; Entry 1; ")
    assert len(str(part.fields["heading"])) <= 1000


def _without_ocr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rapidocr", None)
    from paddle_ranker.pages import ocr

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
        (lambda path: pdf_of(path, "", ""), "none of its 2 pages can be read: the page is blank"),
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
