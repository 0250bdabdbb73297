"""PDFs: text and boxes of every page, reading order, and what happens to files that cannot be read."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any, Optional

import pytest

from paddle_ranker.data.page_text import Line, page_text
from paddle_ranker.data.readers import READERS, Part, Reader, Unread
from paddle_ranker.errors import DataError, DependencyError

pytest.importorskip("pypdfium2", reason="pip install 'paddle-ranker[pdf]'")
pytestmark = pytest.mark.unit


def pdf_of(path: Path, *pages: str, extra: str = "", objects: tuple[str, ...] = (), trailer: str = "") -> Path:
    """Write a PDF of 600 x 800 points whose pages have these contents, in the font /F; return its path.

    extra: entries of each page
    objects: further objects, the first has number 4
    trailer: entries of the trailer
    """
    first = 4 + len(objects)
    kids = " ".join(f"{first + 2 * number} 0 R" for number in range(len(pages)))
    bodies = [
        "<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [] >> >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        *objects,
    ]
    for number, content in enumerate(pages):
        bodies.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {first + 2 * number + 1} 0 R "
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


@pytest.mark.parametrize(
    ("turn", "expected"), [(90, (0.125, 0.9)), (180, (0.9, 0.875)), (270, (0.875, 0.1))], ids=str
)
def test_boxes_are_where_a_turned_page_shows_them(tmp_path: Path, turn: int, expected: tuple[float, float]) -> None:
    # The word begins 60 points from the left and 100 from the top of 600 x 800, before the page is turned.
    path = pdf_of(tmp_path / "a.pdf", shown((60, 700, "Two")), extra=f"/Rotate {turn}")
    ((_, (left, top, right, bottom)),) = boxes_of(parts_of(path)[0])
    corner = {90: (left, top), 180: (right, top), 270: (right, bottom)}[turn]
    # Clockwise by 90 degrees, (x, y) is at (1 - y, x).
    x, y = 60 / 600, 100 / 800
    wanted = {90: (1 - y, x), 180: (1 - x, 1 - y), 270: (y, 1 - x)}[turn]
    assert corner == pytest.approx(wanted, abs=0.03)


LEFT = ["The warranty of this device is", "two years from the day of its", "purchase. Keep the receipt in a"]
RIGHT = ["place where you find it, for we", "ask you to show it to us before", "anything is repaired."]
COLUMNS = "The warranty of this device is two years from the day of its purchase. Keep the receipt in a"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(60, 700, "Hyphens are for inter-"), (60, 686, "national names")], "Hyphens are for international names"),
        ([(60, 700, "A book by Jean-"), (60, 686, "Paul is not here")], "A book by Jean-Paul is not here"),
        ([(60, 700, "Heading"), (60, 660, "Its text follows")], "Heading\nIts text follows"),
        ([(60, 700, "Short end."), (60, 686, "The next paragraph begins here")], "Short end.\nThe next paragraph begins here"),
        (
            [(x, 700 - 14 * row, text) for row in range(3) for x, text in ((60, LEFT[row]), (330, RIGHT[row]))],
            " ".join(LEFT) + "\n" + " ".join(RIGHT),
        ),
        (
            [(x, 700 - 14 * row, text) for x, side in ((60, LEFT), (330, RIGHT)) for row, text in enumerate(side)],
            " ".join(LEFT) + "\n" + " ".join(RIGHT),
        ),
        (
            [(x, 700 - 14 * row, text) for row in range(4) for x, text in ((60, f"item {row}"), (400, f"{row} pounds"))],
            "\n".join(f"item {row} {row} pounds" for row in range(4)),
        ),
    ],
    ids=["hyphen", "a hyphen that stays", "heading", "paragraphs", "columns by rows", "columns", "a table"],
)  # fmt: skip
def test_text_is_in_reading_order(tmp_path: Path, lines: list[tuple[float, float, str]], expected: str) -> None:
    (part,) = parts_of(pdf_of(tmp_path / "a.pdf", shown(*lines)))
    assert part.text == expected
    words = [word for word, _ in boxes_of(part)]
    assert "".join(words) == "".join(expected.split())
