"""Read text documents as parts: DOCX, ODT, EPUB and notebooks by headings, PPTX by slides, XML by length.

mammoth reads DOCX as HTML, python-pptx and odfdo read the others; chapters of EPUB are web pages.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Union
from urllib.parse import unquote

from paddle_ranker.data.files.archives import TooLargeError, open_archive
from paddle_ranker.data.files.file_readers import Part, Unread
from paddle_ranker.data.files.html_text import decoded, page_of
from paddle_ranker.errors import DataError, brief, package_for
from paddle_ranker.storage.untrusted import Unchecked

_VERSION = 2  # raised when the same file would give other parts
_MOST = 4000  # characters of a part; a longer section is cut between its lines
_HEADING = re.compile(r"(?=<h[1-6][\s>])", re.IGNORECASE)
_FIRST_HEADING = re.compile(r"<h[1-6](?:\s[^>]*)?>.*?</h[1-6]>", re.IGNORECASE | re.DOTALL)
_MARKDOWN_HEADING = re.compile(r"\s*#{1,6}\s+([^\n]+)")
_BETWEEN = " | "
_EXTRA = "'paddle-ranker[files]'"
_OPF, _CONTAINER = "{http://www.idpf.org/2007/opf}", "{urn:oasis:names:tc:opendocument:xmlns:container}"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_CORE = "docProps/core.xml"  # of DOCX, with its title
_OF_ODT = "[not(ancestor::text:p) and not(ancestor::table:table-row) and not(ancestor::text:tracked-changes)]"


class _Section(NamedTuple):
    heading: str
    lines: list[str]


def version() -> str:
    """Return the version of this reader; see `Reader.version`."""
    with package_for("reading documents", _EXTRA):
        import mammoth  # noqa: F401
        import odfdo  # noqa: F401
        import pptx  # noqa: F401
    return " ".join([str(_VERSION), *map(metadata.version, ("mammoth", "odfdo", "python-pptx"))])


def read(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield the parts of a document; see `Reader.read`."""
    if path.suffix in (".xml", ".ipynb"):
        yield from _parts_of_xml(path) if path.suffix == ".xml" else _parts_of_notebook(path)
        return
    try:
        with open(path, "rb") as stream, open_archive(stream, path.stat().st_size) as archive:
            if path.suffix == ".epub":
                yield from _parts_of_book(archive)
                return
        yield from {".docx": _parts_of_docx, ".pptx": _parts_of_slides, ".odt": _parts_of_odt}[path.suffix](path)
    except TooLargeError as error:
        raise DataError(f"{path}: {error}") from error
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError) as error:
        raise DataError(f"{path}: a damaged document ({brief(str(error))}); save it again") from error


def _parts_of_docx(path: Path) -> Iterator[Part]:
    import mammoth

    with open(path, "rb") as stream, zipfile.ZipFile(path) as archive:
        html = mammoth.convert_to_html(stream, convert_image=lambda image: []).value
        title = _docx_title(archive.read(_CORE)) if _CORE in archive.namelist() else ""
    yield from _parts(_sections_of_html(html), title)


def _docx_title(properties: bytes) -> str:
    from lxml import etree

    root = etree.fromstring(properties, etree.XMLParser(resolve_entities=False, no_network=True, recover=True))
    return _first_title(root) if root is not None else ""


def _first_title(root: Any) -> str:
    return next((" ".join((element.text or "").split()) for element in root.iter(_TITLE)), "")


def _parts(sections: Iterable[_Section], title: str) -> Iterator[Part]:
    """Yield a part for each section with words, and for each stretch of a long one."""
    number = 0
    for heading, lines in sections:
        fields = {"title": title, "heading": heading}
        for text in _stretches(filter(None, [heading, *(" ".join(line.split()) for line in lines)])):
            number += 1
            known = {name: value for name, value in fields.items() if value}
            yield Part(str(number), text, {**known, "section": number})


def _stretches(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a section joined, in texts of at most `_MOST` characters if no line is longer."""
    kept, size = list[str](), 0
    for line in lines:
        if kept and size + len(line) > _MOST:
            yield "\n".join(kept)
            kept, size = [], 0
        kept.append(line)
        size += len(line) + 1
    if kept:
        yield "\n".join(kept)


def _sections_of_html(html: str) -> Iterator[_Section]:
    """Yield the sections of a web page, each from a heading to the next."""
    for piece in _HEADING.split(html):
        first = _FIRST_HEADING.match(piece)
        heading = " ".join(page_of(first[0].encode()).lines) if first is not None else ""
        page = page_of((piece if first is None else piece[first.end() :]).encode())
        rows = [_BETWEEN.join(row) for table in page.tables for row in table.rows]
        yield _Section(heading, [*page.lines, *rows])


def _parts_of_slides(path: Path) -> Iterator[Part]:
    from pptx import Presentation

    slides = Presentation(str(path))
    title = (slides.core_properties.title or "").strip()
    for number, slide in enumerate(slides.slides, start=1):
        lines = [*_lines_of_shapes(slide.shapes)]
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            lines += slide.notes_slide.notes_text_frame.text.splitlines()
        shape = slide.shapes.title
        known = {"title": title, "heading": shape.text_frame.text.strip() if shape is not None else ""}
        fields = {name: value for name, value in known.items() if value}
        yield Part(str(number), "\n".join(filter(None, map(str.strip, lines))), {**fields, "slide": number})


def _lines_of_shapes(shapes: Iterable[Any]) -> Iterator[str]:
    for shape in shapes:
        if hasattr(shape, "shapes"):  # a group
            yield from _lines_of_shapes(shape.shapes)
        elif getattr(shape, "has_table", False):
            yield from (_BETWEEN.join(cell.text for cell in row.cells) for row in shape.table.rows)
        elif getattr(shape, "has_text_frame", False):
            yield from re.split(r"[\n\v]", shape.text_frame.text)


def _parts_of_odt(path: Path) -> Iterator[Part]:
    from odfdo import Document

    document = Document(str(path))

    def sections() -> Iterator[_Section]:
        section = _Section("", [])
        query = "|".join(f"//{name}{_OF_ODT}" for name in ("text:h", "text:p", "table:table-row"))
        for element in document.body.get_elements(query):
            if element.tag == "text:h":
                yield section
                section = _Section(" ".join(element.inner_text.split()), [])
            elif element.tag == "table:table-row":
                cells = [cell.inner_text.strip() for cell in element.children]
                section.lines.append(_BETWEEN.join(cells) if any(cells) else "")
            else:
                section.lines.append(element.inner_text)
        yield section

    yield from _parts(sections(), (document.meta.title or "").strip())


def _parts_of_xml(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield the text of an XML file; damage, and entities, which are not expanded, are reported."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    try:
        root = etree.parse(str(path), parser).getroot()
    except etree.XMLSyntaxError as error:
        raise DataError(f"{path}: no XML ({brief(str(error))}); save it again") from error
    if root is None:
        raise DataError(f"{path}: no XML; save it again")
    yield from _parts([_Section("", _text_of_element(root).splitlines())], "")
    if parser.error_log:
        first = parser.error_log[0]
        yield Unread("", f"damaged, and read in part: line {first.line}: {brief(first.message)}")
    if (entity := next(root.iter(etree.Entity), None)) is not None:
        yield Unread("", f"its entities, such as {brief(entity.text)}, are left out")


def _text_of_element(element: Any) -> str:
    """Return an element's text: lines of its children, or if it has text beside them, one text with theirs."""
    if not isinstance(element.tag, str):  # a comment, an instruction, an entity
        return ""
    texts = [element.text or "", *(f"{_text_of_element(child)}{child.tail or ''}" for child in element)]
    own = [element.text, *(child.tail for child in element)]
    if len(texts) == 1 or any(text and not text.isspace() for text in own):
        return "".join(texts)
    return "\n".join(["", *texts, ""])


def _parts_of_notebook(path: Path) -> Iterator[Part]:
    """Yield the sources of a notebook's cells; a heading that begins a cell of Markdown begins a section."""
    try:
        values: Unchecked = json.loads(path.read_bytes())
        sources = [
            (cell["cell_type"] == "markdown", "".join(cell["source"])) for cell in values["cells"]
        ]  # a source is a text, or its lines
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no notebook of Jupyter ({brief(str(error))}); one of before 2015 is converted by: "
            "jupyter nbconvert --to notebook FILE"
        ) from error

    def sections() -> Iterator[_Section]:
        section = _Section("", [])
        for is_markdown, source in sources:
            heading = _MARKDOWN_HEADING.match(source) if is_markdown else None
            if heading is not None:
                yield section
                section = _Section(heading[1].strip(), [])
            section.lines.extend(source[heading.end() if heading is not None else 0 :].splitlines())
        yield section

    yield from _parts(sections(), "")


def _parts_of_book(archive: zipfile.ZipFile) -> Iterator[Union[Part, Unread]]:
    """Yield the parts of an EPUB, in the order in which it is read."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)

    def xml(name: str) -> Any:
        root = etree.fromstring(archive.read(name), parser)
        if root is None:
            raise zipfile.BadZipFile(f"{name} is no XML")
        return root

    found = next(xml("META-INF/container.xml").iter(f"{_CONTAINER}rootfile"), None)
    opf = PurePosixPath(str(found.get("full-path")) if found is not None else "")
    package = xml(str(opf))
    hrefs = {item.get("id"): unquote(item.get("href", "")) for item in package.iter(f"{_OPF}item")}

    def sections() -> Iterator[_Section]:
        for item in package.iter(f"{_OPF}itemref"):
            name = str(opf.parent / hrefs.get(item.get("idref"), ""))
            yield from _sections_of_html(decoded(archive.read(name)))

    yield from _parts(sections(), _first_title(package))
