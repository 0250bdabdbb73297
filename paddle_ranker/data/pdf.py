"""Read PDFs: the words of each page, and the box of each word; pages without words, such as scans, by OCR."""

from __future__ import annotations

import ctypes
import re
import tempfile
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from paddle_ranker.data.file_readers import READERS, Part, Unread
from paddle_ranker.data.page_text import Box, PageLine, page_text
from paddle_ranker.data.pictures import ImageLimits
from paddle_ranker.errors import DataError, DependencyError, package_for

if TYPE_CHECKING:
    from PIL import Image

_VERSION = 1  # raised when the same page would give other parts
_PDFIUM = threading.Lock()  # PDFium runs in one thread at a time
_START = 1024  # the header of a PDF is within its first bytes
_UNITS = 1 << 20  # PDFium states positions on a page as integers, in units of 1 / `_UNITS` of a side
_MOST_CHARACTERS = 1 << 18  # maximum of a page
_WIDE = 3  # minimum space between two columns, in widths of a letter
_FEW, _MOST_OF_IT = 20, 0.5  # a scan has fewer words as text, and a picture on at least this share of the page
_UNKNOWN = 0.3  # maximum share of letters whose characters the font does not state
_HYPHENS = (0x2, 0x2D, 0xAD, 0x2010)
_LIGATURES = range(0xFB00, 0xFB07)
_POINTS, SCAN_DPI = 72, 150  # points and dots per inch
_NO_TITLE = re.compile(r"untitled.*|[^ ]*\.\w+|", re.I)
_BY_PROGRAM = re.compile("^Microsoft (Word|PowerPoint|Excel) - ")


def read(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield the pages of a PDF as parts, and an `Unread` for each problem of a page; see `Reader.read`.

    Fields of a page are `page`, its number from 1; the document's `title`; and `heading`, the headings of the outline
    that begin on the page, or on the last page before it that has headings.
    """
    reasons, is_read = list[str](), False
    with _opened(path) as document:
        with _PDFIUM:
            count, headings = len(document), _headings(document)
            title = _BY_PROGRAM.sub("", " ".join((document.get_metadata_value("Title") or "").split()))
        fields = {} if _NO_TITLE.fullmatch(title) else {"title": title}
        for number in range(1, count + 1):
            fields.update({"heading": headings[number]} if number in headings else {})
            for part in _read_page(document, number):
                if isinstance(part, Part):
                    is_read = True
                    yield part._replace(fields={**fields, "page": number})
                else:
                    reasons.append(part.reason)
                    yield part
    if not is_read:
        raise DataError(f"{path}: none of its {count:,} pages can be read: {'; '.join(dict.fromkeys(reasons))}")


def version() -> str:
    """Return a text that changes whenever the parts of a PDF may change (`Reader.version`)."""
    return f"{_VERSION}, {_library().PDFIUM_INFO}, {READERS['ocr'].version()}"


def page_picture(path: Path, page: int, dpi: int = SCAN_DPI, most: int = ImageLimits().max_pixels) -> Image.Image:
    """Return a page, rendered as an RGB picture.

    page: the page's number, from 1
    dpi: dots per inch; reduced if the picture would have more than `most` pixels

    Raises `DataError` if there is no such page, or it is damaged.
    """
    with _opened(path) as document:
        if not 1 <= page <= len(document):
            raise DataError(f"{path}: has {len(document):,} pages, and no page {page:,}")
        try:
            return _picture(document, page, dpi, most)
        except _library().PdfiumError as error:
            raise DataError(f"{path}: page {page:,} is damaged ({error})") from error


def _library() -> Any:
    with package_for("reading PDFs", "'paddle-ranker[pdf]'"):
        import pypdfium2
    return pypdfium2


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield an open document of pypdfium2; raises `DataError` if the file is encrypted, damaged or no PDF."""
    pdfium = _library()
    with open(path, "rb") as stream:
        if b"%PDF-" not in stream.read(_START):
            raise DataError(f"{path}: not a PDF; give it the suffix of what it is")
    with _PDFIUM:
        try:
            document = pdfium.PdfDocument(path)
        except pdfium.PdfiumError as error:
            if error.err_code in (pdfium.raw.FPDF_ERR_PASSWORD, pdfium.raw.FPDF_ERR_SECURITY):
                raise DataError(
                    f"{path}: encrypted; qpdf --password=... --decrypt IN.pdf OUT.pdf writes a copy that is not"
                ) from error
            raise DataError(f"{path}: damaged or cut short ({error}); get it again") from error
        document.init_forms()
    try:
        yield document
    finally:
        with _PDFIUM:
            document.close()


@contextmanager
def _page(document: Any, number: int) -> Iterator[Any]:
    """Open page `number`, from 1, for the block. Texts that were filled into form fields are part of its text."""
    raw = _library().raw
    with _PDFIUM:
        page = document.get_page(number - 1)
        if raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY) == raw.FLATTEN_SUCCESS:
            page.close()
            page = document.get_page(number - 1)
        try:
            yield page
        finally:
            page.close()


def _headings(document: Any) -> Mapping[int, str]:
    """Return for each page, by its number from 1, the headings of the outline that begin on it, joined by "; ".

    The first heading of a page comes with the headings above it: `Chapter › Section`.
    """
    headings, above = dict[int, str](), list[str]()
    for entry in document.get_toc():
        above[entry.level :] = [" ".join(entry.get_title().split())]
        target = entry.get_dest()
        page = target.get_index() if target is not None else None
        if page is not None:
            before = headings.get(page + 1)
            headings[page + 1] = " › ".join(above) if before is None else f"{before}; {above[-1]}"
    return headings


def _read_page(document: Any, number: int) -> Iterator[Union[Part, Unread]]:
    """Yield the text of a page as a part, if it has text, and an `Unread` for each problem, such as a damaged page.

    number: the page's number, from 1
    """
    pdfium, name = _library(), str(number)
    try:
        with _page(document, number) as page:
            lines, problems = _lines(page)
            is_blank = not lines and not problems and next(page.get_objects(max_depth=1), None) is None
            is_scan = sum(len(line.places) for line in lines) < _FEW and _pictured(page) >= _MOST_OF_IT
    except pdfium.PdfiumError as error:
        yield Unread(name, f"damaged ({error})")
        return
    text, places = page_text(lines)
    if is_blank:
        problems.append("blank")
    elif is_scan or not lines:
        try:
            text, places = _scanned(document, number) or (text, places)
        except DependencyError as error:
            problems.append(f"a picture without text, and {error}")
        else:
            problems += [] if text else ["no words, by OCR either"]
    yield from (Unread(name, problem) for problem in problems)
    if text:
        yield Part(name, text, places=places)


def _scanned(document: Any, number: int) -> Optional[tuple[str, Any]]:
    """Read a page by OCR; return its text and the places of its words, or None if OCR finds no words."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        _picture(document, number, SCAN_DPI, ImageLimits().max_pixels).save(picture, compress_level=1)
        parts = [part for part in READERS["ocr"].read(picture) if isinstance(part, Part)]
    return (parts[0].text, parts[0].places) if parts else None


def _picture(document: Any, number: int, dpi: int, most: int) -> Image.Image:
    with _page(document, number) as page:
        width, height = page.get_size()
        scale = min(dpi / _POINTS, (most / (width * height)) ** 0.5 * 0.99)
        picture: Image.Image = page.render(scale=scale).to_pil().convert("RGB")
    return picture


def _pictured(page: Any) -> float:
    """Return the share of a page's area that its largest picture covers."""
    raw, (width, height) = _library().raw, page.get_size()
    areas = [0.0]
    for picture in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = picture.get_bounds()
        areas.append((right - left) * (top - bottom))
    return max(areas) / (width * height)


def _lines(page: Any) -> tuple[list[PageLine], list[str]]:
    """Return the lines of a page, and the reasons why some or all of its words are missing from them."""
    raw, text_page = _library().raw, page.get_textpage()
    try:
        count = text_page.count_chars()
        if count > _MOST_CHARACTERS:
            return [], [f"{count:,} characters, more than the limit of {_MOST_CHARACTERS:,}"]
        characters = [*_characters(raw, page, text_page, count)]
    finally:
        text_page.close()
    letters = [(character, box) for character, box in characters if not character.isspace()]
    unknown = sum(not character for character, _ in letters)
    if unknown > _UNKNOWN * len(letters):
        return [], ["fonts that do not say which letters they show"]
    outside = sum(not (box[0] < 1 and box[1] < 1 and box[2] > 0 and box[3] > 0) for _, box in letters)
    problems = [f"{outside:,} characters beyond its edges"] if outside else []
    return [*_joined(characters)], problems


def _characters(raw: Any, page: Any, text_page: Any, count: int) -> Iterator[tuple[str, Box]]:
    r"""Yield (character, box) for each of the `count` characters of a page; "\n" ends a line.

    The character is "" if its font does not map the glyph to Unicode. `raw` is pypdfium2's C interface.
    """
    x, y = ctypes.c_int(), ctypes.c_int()

    def shown(left: float, top: float) -> tuple[float, float]:
        raw.FPDF_PageToDevice(page, 0, 0, _UNITS, _UNITS, 0, left, top, x, y)
        return x.value / _UNITS, y.value / _UNITS

    (x0, y0), (x1, y1), (x2, y2) = shown(0, 0), shown(1000, 0), shown(0, 1000)
    rectangle = raw.FS_RECTF()
    for place in range(count):
        code = raw.FPDFText_GetUnicode(text_page, place)
        raw.FPDFText_GetLooseCharBox(text_page, place, rectangle)
        horizontal, vertical = (rectangle.left, rectangle.right), (rectangle.bottom, rectangle.top)
        xs = sorted(x0 + (a * (x1 - x0) + b * (x2 - x0)) / 1000 for a, b in zip(horizontal, vertical))
        ys = sorted(y0 + (a * (y1 - y0) + b * (y2 - y0)) / 1000 for a, b in zip(horizontal, vertical))
        box = (xs[0], ys[0], xs[1], ys[1])
        if code in _HYPHENS and raw.FPDFText_IsHyphen(text_page, place) == 1:
            yield "-", box
            yield "\n", box
        elif code in _LIGATURES:
            yield from ((letter, box) for letter in unicodedata.normalize("NFKC", chr(code)))
        elif code in (0xD, 0xA):
            yield "\n", box
        else:
            is_unknown = raw.FPDFText_HasUnicodeMapError(text_page, place) == 1 or code == 0xFFFD
            yield "" if is_unknown or unicodedata.category(chr(code))[0] == "C" else chr(code), box


def _joined(characters: list[tuple[str, Box]]) -> Iterator[PageLine]:
    r"""Join characters to lines, without characters beyond the page's edges. A line ends at "\n" or a wide space."""
    words = list[tuple[str, list[Box]]]()
    is_new = True  # whether the next character begins a word
    for character, (left, top, right, bottom) in [*characters, ("\n", (0.0, 0.0, 0.0, 0.0))]:
        if words and not character.isspace():
            word, boxes = words[-1]
            is_wide = left - boxes[-1][2] > _WIDE * (boxes[-1][2] - boxes[0][0]) / len(word)
        if words and (character == "\n" or (not character.isspace() and is_wide)):
            yield PageLine.of(words)
            words, is_new = [], True
        if character.isspace():
            is_new = True
        elif character and left < 1 and top < 1 and right > 0 and bottom > 0:
            word, boxes = ("", []) if is_new else words.pop()
            boxes.append((max(0.0, left), max(0.0, top), min(1.0, right), min(1.0, bottom)))
            words.append((word + character, boxes))
            is_new = False
