"""Text documents as people write them, each by another program's writer, and what is no document."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from paddle_ranker.data.files import office
from paddle_ranker.data.files.file_readers import Part
from paddle_ranker.errors import DataError
from paddle_ranker.retrieval.stored.schema import FIELD_TYPES

pytestmark = pytest.mark.unit
docx = pytest.importorskip("docx", reason="needs: pip install python-docx, which writes what the tests read")
pptx = pytest.importorskip("pptx", reason="needs: pip install 'paddle-ranker[files]'")
odfdo = pytest.importorskip("odfdo", reason="needs: pip install 'paddle-ranker[files]'")
CONTAINER = """<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/c.opf"/></rootfiles></container>"""
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>
<dc:title>Moby Dick</dc:title></metadata><manifest><item id="a" href="a%20b.xhtml"/><item id="b" href="b.xhtml"/>
</manifest><spine><itemref idref="b"/><itemref idref="a"/></spine></package>"""


def write_docx(path: Path) -> None:
    document = docx.Document()
    document.core_properties.title = "Manual"
    document.add_paragraph("Before all.")
    document.add_heading("Warranty", 1)
    document.add_paragraph("Two years.")
    table = document.add_table(2, 2)
    table.cell(0, 0).text, table.cell(0, 1).text, table.cell(1, 0).text = "Price", "206,80 €", "Weight"
    document.add_heading("Care", 2)
    for number in range(3):
        document.add_paragraph(f"{number} " + "Wipe it with a cloth. " * 100)
    document.save(path)


def write_pptx(path: Path) -> None:
    slides = pptx.Presentation()
    for number in (1, 2):
        slide = slides.slides.add_slide(slides.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = f"Quarter {number}", "Sales rise"
    slide.notes_slide.notes_text_frame.text = "Say it slowly"
    table = slide.shapes.add_table(1, 2, 0, 0, 9, 9).table
    table.cell(0, 0).text, table.cell(0, 1).text = "Tea", "2.50"
    slides.save(path)


def write_odt(path: Path) -> None:
    document = odfdo.Document("text")
    document.body.clear()
    document.body.append(odfdo.Paragraph("Before all."))
    document.body.append(odfdo.Header(1, "Warranty"))
    document.body.append(odfdo.Paragraph("Two years."))
    table = odfdo.Table("T", width=2, height=2)
    table.set_value("A1", "Price")
    table.set_value("B1", "206,80 €")
    document.body.append(table)
    document.save(str(path))


def write_epub(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("OEBPS/c.opf", PACKAGE)
        archive.writestr("OEBPS/a b.xhtml", "<html><body><h1>Two</h1><p>The harpoon</p></body></html>")
        archive.writestr(
            "OEBPS/b.xhtml", "<html><body><div><h1>One</h1><p>Call me<br/>Ishmael.</p></div></body></html>"
        )


WRITERS = {
    "docx": (write_docx, "Manual", [("", "Before all."), ("Warranty", "Two years.\nPrice | 206,80 €\nWeight |")]),
    "odt": (write_odt, None, [("", "Before all."), ("Warranty", "Two years.\nPrice | 206,80 €")]),
    "epub": (write_epub, "Moby Dick", [("One", "Call me\nIshmael."), ("Two", "The harpoon")]),
    "pptx": (write_pptx, None, [("Quarter 1", "Sales rise"), ("Quarter 2", "Sales rise\nTea | 2.50\nSay it slowly")]),
}


def parts_of(path: Path) -> list[Part]:
    return [part for part in office.read(path) if isinstance(part, Part)]


@pytest.mark.parametrize("kind", WRITERS)
def test_the_words_of_a_document_are_read_by_headings_or_slides(kind: str, tmp_path: Path) -> None:
    write, title, sections = WRITERS[kind]
    write(tmp_path / f"a.{kind}")
    parts = parts_of(tmp_path / f"a.{kind}")
    for number, (part, (heading, text)) in enumerate(zip(parts, sections), start=1):
        assert part.name == str(number) and part.text == "\n".join(filter(None, [heading, text]))
        assert part.fields == {
            "slide" if kind == "pptx" else "section": number,
            **({"title": title} if title else {}),
            **({"heading": heading} if heading else {}),
        }
    longer = [len(part.text) for part in parts[2:]]  # the long section of the first, in stretches between lines
    assert longer == ([2206, 2201, 2201] if kind == "docx" else [])
    assert FIELD_TYPES["document"].suffix_of((tmp_path / f"a.{kind}").read_bytes()[: 1 << 16]) == kind


@pytest.mark.parametrize("kind", WRITERS)
def test_a_damaged_or_far_larger_document_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    WRITERS[kind][0](path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        parts_of(path)
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(70 << 20))
    with pytest.raises(DataError, match="bytes unpacked, more than the limit"):
        parts_of(path)
