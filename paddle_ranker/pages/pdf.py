"""Read PDFs: the words of each page, and the box of each word; what pages show without stating its words, by OCR."""

from __future__ import annotations

import base64
import ctypes
import io
import math
import re
import tempfile
import threading
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.data.files.file_readers import READERS, Part, Unread
from paddle_ranker.data.files.pictures import ImageLimits
from paddle_ranker.data.files.placed_text import SpanPlace
from paddle_ranker.data.files.reader_pool import limited
from paddle_ranker.errors import DataError, DependencyError, package_for
from paddle_ranker.pages.page_text import Box, Letter, Line, PageLine, around, is_leftwards, lines_of, page_text

if TYPE_CHECKING:
    from PIL import Image

_VERSION = 2  # raised when the same page would give other parts
_PDFIUM = threading.Lock()  # PDFium runs in one thread at a time
_START = 1024  # the header of a PDF is within its first bytes
_UNITS = 1 << 20  # PDFium states positions on a page as integers, in units of 1 / `_UNITS` of a side
_MOST_CHARACTERS = 1 << 18  # maximum of a page
_MOST_OBJECTS, _DEEPEST = 1 << 14, 8  # objects of a page, and forms in forms, that are looked at for pictures
_MOST_HEADINGS, _LONGEST = 1 << 13, 1000  # entries of an outline; characters of a page's headings
# OCR reads pages with pictures on this share of the page, outside of its text; or few words, and many drawn shapes,
# which may be letters.
_PICTURED, _FEW, _SHAPES = 0.3, 20, 100
_FEW_LETTERS = 3  # letters without meaning that may be signs, such as bullets, for which a page is not read by OCR
_CELLS = 100  # along each side of a page, in which pictures outside of text are measured
_TURNED, _STEP = 10, 5  # degrees: letters turned by less are upright; others are turned in steps
_UNKNOWN = "\ufffd"
_HYPHENS = (0x2, 0x2D, 0xAD, 0x2010)
_FORMS = ((0xFB00, 0xFB4F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC))  # ligatures and forms of letters
_DIRECTIONS = {0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF}  # no letters
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
            count, (headings, is_cut) = len(document), _headings(document)
            title = _BY_PROGRAM.sub("", " ".join((document.get_metadata_value("Title") or "").split()))
        fields = {} if _NO_TITLE.fullmatch(title) else {"title": title}
        if is_cut:
            yield Unread("", f"its headings after the first {_MOST_HEADINGS:,} are left out")
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
            with _page(document, page) as opened:
                return _picture(opened, dpi, most)
        except _library().PdfiumError as error:
            raise DataError(f"{path}: page {page:,} is damaged ({error})") from error


def draw(path: Path, page: int, dpi: int, most: int) -> str:
    """Return a page as a JPEG in base64, within the reader's limits; see `Reader.draw` and `page_picture`."""
    stream, reader = io.BytesIO(), READERS["pdf"]
    with limited(reader.memory, reader.seconds, reader.seconds):
        page_picture(path, page, dpi, most).save(stream, "JPEG", quality=80)
    return base64.b64encode(stream.getvalue()).decode()


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


def _headings(document: Any) -> tuple[Mapping[int, str], bool]:
    """Return for each page, by its number from 1, the headings of the outline that begin on it, joined by "; ".

    The first heading of a page comes with the headings above it: `Chapter › Section`. The second value is whether the
    outline has more headings than `_MOST_HEADINGS`, which are left out.
    """
    headings, above, lengths = defaultdict[int, list[str]](list), list[str](), Counter[int]()
    entries = document.get_toc()
    for entry in islice(entries, _MOST_HEADINGS):
        above[entry.level :] = [" ".join(entry.get_title()[:_LONGEST].split())]
        target = entry.get_dest()
        page = target.get_index() if target is not None else None
        if page is not None and lengths[page + 1] < _LONGEST:
            heading = above[-1] if page + 1 in headings else " › ".join(above)
            headings[page + 1].append(heading)
            lengths[page + 1] += len(heading)
    return {page: "; ".join(each)[:_LONGEST] for page, each in headings.items()}, next(entries, None) is not None


class _Frame(NamedTuple):
    """A page turned so that some of its letters are upright.

    along, down: directions in which their lines, and lines after lines, are read on the page as it is shown, whose x
        goes right and whose y goes down
    size: width and height of the page as it is shown, in points
    is_vertical: whether the letters of a line are one below the other
    """

    along: tuple[float, float]
    down: tuple[float, float]
    size: tuple[float, float]
    is_vertical: bool = False

    def turned(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point of the page in this frame, from its top left, in points."""
        (right, down), (left_edge, top_edge), _ = self._axes()
        return x * right[0] + y * right[1] - left_edge, x * down[0] + y * down[1] - top_edge

    def shares(self, box: Box) -> Box:
        """Return a box in points of this frame as fractions of the frame."""
        width, height = self._axes()[2]
        return box[0] / width, box[1] / height, box[2] / width, box[3] / height

    def shown(self, box: Box) -> Box:
        """Return the box on the page as it is shown, in fractions, around a box in fractions of this frame."""
        (along, down), (left, top), (width, height) = self._axes()
        xs, ys = (left + box[0] * width, left + box[2] * width), (top + box[1] * height, top + box[3] * height)
        points = [(x * along[0] + y * down[0], x * along[1] + y * down[1]) for x in xs for y in ys]
        edges = around([(x / self.size[0], y / self.size[1]) * 2 for x, y in points])
        return tuple(round(min(1.0, max(0.0, edge)), 4) for edge in edges)  # type: ignore[return-value]

    def _axes(self) -> tuple[tuple[tuple[float, float], ...], tuple[float, float], tuple[float, float]]:
        """Return the directions, the place of the top left corner along them, and the size of the frame."""
        axes = (self.along, self.down)
        first = [sum(min(0.0, edge * part) for edge, part in zip(self.size, axis)) for axis in axes]
        sizes = [sum(edge * abs(part) for edge, part in zip(self.size, axis)) for axis in axes]
        return axes, (first[0], first[1]), (sizes[0], sizes[1])


class _Glyph(NamedTuple):
    """A letter on a page as it is shown, in points from its top left corner; `text` and more as in `Letter`.

    frame: in which the letter is upright
    origin: begin of its baseline
    width: in the direction of its line, if the letter is neither upright nor turned by 90, 180 or 270 degrees
    """

    text: str
    frame: _Frame
    box: Box
    origin: tuple[float, float]
    size: float
    follows_space: bool
    width: Optional[float]

    def letter(self) -> Letter:
        """Return the letter in its frame."""
        x, baseline = self.frame.turned(*self.origin)
        if self.width is not None:
            box = (x, baseline - 0.9 * self.size, x + self.width, baseline + 0.25 * self.size)
        else:
            ends = self.frame.turned(*self.box[:2]), self.frame.turned(*self.box[2:])
            box = around([(*min(ends), *max(ends)), *((*end, *end) for end in ends)])
        if self.frame.is_vertical:
            baseline = (box[1] + box[3]) / 2 + 0.3 * self.size
        elif 0 < box[0] - x < 0.3 * self.size:  # the font does not state the letter's width; the box is around its ink
            box = (x, box[1], box[2] + box[0] - x, box[3])
        return Letter(self.text, box, baseline, self.size, self.follows_space)


def _read_page(document: Any, number: int) -> Iterator[Union[Part, Unread]]:
    """Yield the text of a page as a part, if it has text, and an `Unread` for each problem, such as a damaged page.

    number: the page's number, from 1
    """
    pdfium, name = _library(), str(number)
    scan, why = None, ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _page(document, number) as page:
                stated, problems = _stated(page)
                is_blank = not stated and not problems and next(page.get_objects(max_depth=1), None) is None
                why = "" if is_blank else _why_ocr(page, stated)
                if why:
                    scan = Path(folder) / "page.png"
                    _hide_known(page)
                    picture = _picture(page, SCAN_DPI, ImageLimits().max_pixels)
        except pdfium.PdfiumError as error:
            yield Unread(name, f"damaged ({error})")
            return
        scanned = list[Part]()
        if scan is not None:
            picture.save(scan, compress_level=1)
            try:
                scanned = [part for part in READERS["ocr"].read(scan) if isinstance(part, Part)]
            except DependencyError as error:
                problems.append(f"{why}, and {error}")
                why = ""
    text, places, unknown = _together(stated, scanned)
    if unknown and (why or not scan):
        problems.append(f"letters in fonts that do not say which they are: {unknown:,}")
    if is_blank:
        problems.append("the page is blank")
    elif not text and not problems:
        problems.append("no words are found, by OCR either")
    yield from (Unread(name, problem) for problem in problems)
    if text:
        yield Part(name, text, places=places)


def _why_ocr(page: Any, stated: Mapping[_Frame, Sequence[Line]]) -> str:
    """Return what OCR has to read on a page beside what the page states; "" if nothing."""
    words = [(frame, word, boxes) for frame, lines in stated.items() for line in lines for word, boxes in line]
    unknown = sum(word.count(_UNKNOWN) for _, word, _ in words)
    if unknown >= _FEW_LETTERS:
        return f"{unknown:,} letters in fonts that do not say which they are"
    pictures, shapes = _pictures(page)
    free = np.zeros((_CELLS, _CELLS), bool)
    for box in pictures:
        free[_cells(box)] = True
    for frame, lines in stated.items():
        for line in lines:
            left, top, right, bottom = around([around(boxes) for _, boxes in line])
            space = (bottom - top) / 2  # to the next lines of the text
            free[_cells(frame.shown(frame.shares((left, top - space, right, bottom + space))))] = False
    share = float(free.mean())
    if share >= _PICTURED:
        return "a picture without text" if share > 0.9 else f"pictures without text on {share:.0%} of it"
    if not words or (len(words) < _FEW and shapes >= _SHAPES):
        return "drawings without text"
    return ""


def _cells(box: Box) -> tuple[slice, slice]:
    left, top, right, bottom = (min(_CELLS, max(0, round(edge * _CELLS))) for edge in box)
    return slice(top, bottom), slice(left, right)


def _pictures(page: Any) -> tuple[list[Box], int]:
    """Return the boxes of a page's pictures on the page as it is shown, in fractions, and the number of its shapes."""
    raw, place = _library().raw, _shown_on(page)
    boxes, shapes, left = list[Box](), 0, _MOST_OBJECTS
    edges, matrix = [ctypes.c_float() for _ in range(4)], raw.FS_MATRIX()
    # Forms, each with the matrix of its contents
    waiting: list[tuple[Any, tuple[float, ...], int]] = [(None, (1, 0, 0, 1, 0, 0), 0)]
    while waiting:
        form, (a, b, c, d, e, f), depth = waiting.pop()
        count = raw.FPDFPage_CountObjects(page) if form is None else raw.FPDFFormObj_CountObjects(form)
        for index in range(min(count, left)):
            item = raw.FPDFPage_GetObject(page, index) if form is None else raw.FPDFFormObj_GetObject(form, index)
            kind = raw.FPDFPageObj_GetType(item)
            shapes += kind == raw.FPDF_PAGEOBJ_PATH
            if kind == raw.FPDF_PAGEOBJ_FORM and depth < _DEEPEST and raw.FPDFPageObj_GetMatrix(item, matrix):
                i, j, k, m, n, o = (getattr(matrix, part) for part in "abcdef")
                product = (i * a + j * c, i * b + j * d, k * a + m * c, k * b + m * d,
                           n * a + o * c + e, n * b + o * d + f)  # fmt: skip
                waiting.append((item, product, depth + 1))
            elif kind == raw.FPDF_PAGEOBJ_IMAGE and raw.FPDFPageObj_GetBounds(item, *edges):
                x0, y0, x1, y1 = (edge.value for edge in edges)
                corners = [place(x * a + y * c + e, x * b + y * d + f) for x in (x0, x1) for y in (y0, y1)]
                left_edge, top, right, bottom = around([point * 2 for point in corners])
                width, height = page.get_size()
                boxes.append((left_edge / width, top / height, right / width, bottom / height))
        left -= min(count, left)
    return boxes, shapes


def _hide_known(page: Any) -> None:
    """Make the text of a page invisible, except texts with letters of which the font does not say what they are."""
    raw, text_page = _library().raw, page.get_textpage()
    try:
        known, unknown = dict[int, Any](), set[int]()
        for index in range(text_page.count_chars()):
            item = raw.FPDFText_GetTextObject(text_page, index)
            if address := _address(item):
                known[address] = item
                if raw.FPDFText_HasUnicodeMapError(text_page, index) == 1:
                    unknown.add(address)
        for address, item in known.items():
            if address not in unknown:
                raw.FPDFTextObj_SetTextRenderMode(item, raw.FPDF_TEXTRENDERMODE_INVISIBLE)
    finally:
        text_page.close()


def _picture(page: Any, dpi: int, most: int) -> Image.Image:
    width, height = page.get_size()
    scale = min(dpi / _POINTS, (most / (width * height)) ** 0.5 * 0.99)
    picture: Image.Image = page.render(scale=scale).to_pil().convert("RGB")
    return picture


def _together(stated: Mapping[_Frame, Sequence[Line]], scanned: Sequence[Part]) -> tuple[str, list[SpanPlace], int]:
    """Return the text of a page, the places of its words, and the number of its letters that nothing reads.

    stated: lines that the page states, in their frames
    scanned: what OCR reads. Its words are left out where the page states words, and stand for words that have unknown
        letters
    """
    boxes = {
        (frame, id(boxes)): frame.shown(frame.shares(around(boxes)))
        for frame, lines in stated.items()
        for line in lines
        for _, boxes in line
    }
    known = [boxes[frame, id(at)] for frame, lines in stated.items() for line in lines for word, at in line
             if _UNKNOWN not in word]  # fmt: skip
    found = [line for part in scanned for line in _uncovered(part, np.array(known).reshape(-1, 4))]
    middles = [
        ((left + right) / 2, (top + bottom) / 2) for line in found for *_, left, top, right, bottom in line.places
    ]
    texts, unread = list[tuple[str, Sequence[SpanPlace]]](), 0
    frames = dict[_Frame, list[PageLine]]()
    for frame, lines in stated.items():
        if is_leftwards(lines) and not frame.is_vertical:
            mirrored = frame._replace(along=(-frame.along[0], -frame.along[1]))
        else:
            mirrored = frame
        for line in lines:
            words = list[tuple[str, list[Box]]]()
            for word, at in line:
                if _UNKNOWN in word:
                    left, top, right, bottom = boxes[frame, id(at)]
                    if any(left <= x <= right and top <= y <= bottom for x, y in middles):
                        continue
                    unread += word.count(_UNKNOWN)
                    kept = [(letter, box) for letter, box in zip(word, at) if letter != _UNKNOWN]
                    word, at = "".join(letter for letter, _ in kept), [box for _, box in kept]
                shares = [frame.shares(box) for box in at]
                if mirrored is not frame:
                    shares = [(1 - right, top, 1 - left, bottom) for left, top, right, bottom in shares]
                words += [(word, shares)] if word else []
            if words:
                frames.setdefault(mirrored, []).append(PageLine.of(words))
    if found:
        size = next(iter(stated)).size if stated else (1.0, 1.0)
        frames.setdefault(_Frame((1.0, 0.0), (0.0, 1.0), size), []).extend(found)
    for frame in sorted(frames, key=lambda frame: -sum(len(line.text) for line in frames[frame])):
        text, places = page_text(frames[frame])
        texts.append((text, [(start, end, *frame.shown(tuple(box))) for start, end, *box in places]))  # type: ignore[arg-type]
    whole, all_places = "", list[SpanPlace]()
    for text, placed in texts:
        whole += "\n" * bool(whole)
        all_places += [(start + len(whole), end + len(whole), *box) for start, end, *box in placed]
        whole += text
    return whole, all_places, unread


def _uncovered(part: Part, known: Array) -> Iterator[PageLine]:
    """Yield the paragraphs of a scanned page, without words that `known` boxes cover, `[boxes, 4]`."""
    start, places = 0, [*part.places]
    for text in part.text.split("\n"):
        end = start + len(text)
        within = [place for place in places if start <= place[0] and place[1] <= end]
        if text and not any(_is_covered(box, known) for _, _, *box in within):
            boxes = [tuple(box) for _, _, *box in within] or [(0.0, 0.0, 1.0, 1.0)]
            words: list[Any] = [(begin - start, stop - start, *box) for begin, stop, *box in within]
            yield PageLine(text, words or [(0, len(text), *boxes[0])], around(boxes))  # type: ignore[arg-type]
            start = end + 1
            continue
        kept, last, words = "", -1, []
        for number, (begin, stop, *box) in enumerate(within):
            if _is_covered(box, known):
                continue
            between = part.text[int(within[number - 1][1]) : int(begin)] if last == number - 1 and number else " "
            kept += between if kept else ""
            word = part.text[int(begin) : int(stop)]
            words.append((len(kept), len(kept) + len(word), *box))
            kept, last = kept + word, number
        if words:
            yield PageLine(kept, words, around([tuple(box) for _, _, *box in words]))
        start = end + 1


def _is_covered(box: Sequence[float], known: Array) -> bool:
    """Return whether one of the `known` boxes, `[boxes, 4]`, covers half of a box or more."""
    width = np.minimum(known[:, 2], box[2]) - np.maximum(known[:, 0], box[0])
    height = np.minimum(known[:, 3], box[3]) - np.maximum(known[:, 1], box[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    return bool((2 * shared > (box[2] - box[0]) * (box[3] - box[1])).any())


def _stated(page: Any) -> tuple[dict[_Frame, list[Line]], list[str]]:
    """Return the lines that a page states, by frame, and the reasons why some of its letters are missing from them.

    Boxes are in points of the frame. A letter of which the font does not say what it is, is `_UNKNOWN`.
    """
    raw, text_page = _library().raw, page.get_textpage()
    try:
        count = text_page.count_chars()
        if count > _MOST_CHARACTERS:
            return {}, [f"{count:,} characters, more than the limit of {_MOST_CHARACTERS:,}"]
        glyphs = [*_glyphs(raw, page, text_page, count)]
    finally:
        text_page.close()
    width, height = page.get_size()
    by_frame, outside = defaultdict[_Frame, list[Letter]](list), 0
    for glyph in _with_columns(glyphs):
        left, top, right, bottom = glyph.box
        if left < width and top < height and right > 0 and bottom > 0:
            by_frame[glyph.frame].append(glyph.letter())
        else:
            outside += not glyph.text.isspace()
    problems = [f"{outside:,} characters beyond its edges"] if outside else []
    lines = {frame: lines_of(letters) for frame, letters in by_frame.items()}
    return {frame: each for frame, each in lines.items() if each}, problems


def _with_columns(glyphs: Sequence[_Glyph]) -> Iterator[_Glyph]:
    """Yield the letters; those of columns of Chinese and Japanese are in frames in which the columns are lines."""
    joins = [_is_below(glyph, after) for glyph, after in zip(glyphs, glyphs[1:])]
    for glyph, before, after in zip(glyphs, [False, *joins], [*joins, False]):
        if before or after:
            along, down = glyph.frame.down, (-glyph.frame.along[0], -glyph.frame.along[1])
            glyph = glyph._replace(frame=_Frame(along, down, glyph.frame.size, True))
        yield glyph


def _is_below(glyph: _Glyph, after: _Glyph) -> bool:
    """Return whether two letters, one after the other in the file, are Chinese or Japanese, and in one column."""
    if glyph.frame != after.frame or glyph.width is not None:
        return False
    if not all(unicodedata.east_asian_width(each.text[0]) in "WF" for each in (glyph, after)):
        return False
    (left, top, right, bottom), (other_left, other_top, other_right, other_bottom) = glyph.box, after.box
    x, y = (other_left + other_right - left - right) / 2, (other_top + other_bottom - top - bottom) / 2
    along, down = glyph.frame.along, glyph.frame.down
    size = max(glyph.size, after.size)
    return abs(x * along[0] + y * along[1]) < 0.3 * size < 0.6 * size < x * down[0] + y * down[1] < 1.7 * size


def _shown_on(page: Any) -> Any:
    """Return a function from a point of a page to the point of the page as it is shown, from its top left corner."""
    raw, x, y = _library().raw, ctypes.c_int(), ctypes.c_int()
    width, height = page.get_size()

    def shown(left: float, top: float) -> tuple[float, float]:
        raw.FPDF_PageToDevice(page, 0, 0, _UNITS, _UNITS, 0, left, top, x, y)
        return x.value / _UNITS * width, y.value / _UNITS * height

    (x0, y0), (x1, y1), (x2, y2) = shown(0, 0), shown(1000, 0), shown(0, 1000)
    a, b, c, d = (x1 - x0) / 1000, (y1 - y0) / 1000, (x2 - x0) / 1000, (y2 - y0) / 1000
    return lambda x, y: (x0 + x * a + y * c, y0 + x * b + y * d)


def _glyphs(raw: Any, page: Any, text_page: Any, count: int) -> Iterator[_Glyph]:
    """Yield the letters and spaces among the `count` characters of a page. `raw` is pypdfium2's C interface."""
    place, size = _shown_on(page), page.get_size()
    zero = place(0, 0)
    rectangle, matrix, x, y = raw.FS_RECTF(), raw.FS_MATRIX(), ctypes.c_double(), ctypes.c_double()
    frames = dict[tuple[float, ...], tuple[_Frame, float, Optional[tuple[float, float]]]]()
    high, follows_space, last, address = 0, False, None, 0

    def frame_of(key: tuple[float, ...]) -> tuple[_Frame, float, Optional[tuple[float, float]]]:
        """Return the frame of a matrix, the size of its letters, and the direction of their line if it is slanted."""
        a, b, c, d, font_size = key
        along, up = ((end[0] - zero[0], end[1] - zero[1]) for end in (place(a, b), place(c, d)))
        if font_size < 0:
            along, up = (-along[0], -along[1]), (-up[0], -up[1])
        angle = math.degrees(math.atan2(along[1], along[0]))
        upright = 90.0 * round(angle / 90)
        is_slanted = abs(angle - upright) > _TURNED
        angle = math.radians(_STEP * round(angle / _STEP) if is_slanted else upright)
        axis = (round(math.cos(angle), 9) + 0.0, round(math.sin(angle), 9) + 0.0)
        down = (-axis[1] + 0.0, axis[0])
        if down[0] * up[0] + down[1] * up[1] > 0:
            down = (-down[0] + 0.0, -down[1] + 0.0)
        length, height = math.hypot(*along) or 1.0, math.hypot(*up)
        unit = (along[0] / length, along[1] / length)
        return _Frame(axis, down, size), height * abs(font_size), unit if is_slanted else None

    for index in range(count):
        code = raw.FPDFText_GetUnicode(text_page, index)
        if raw.FPDFText_IsGenerated(text_page, index) == 1:
            continue  # a space or a line's end that PDFium supposes
        if 0xD800 <= code < 0xDC00:
            high = code
            continue
        if 0xDC00 <= code < 0xE000 and high:
            code = 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00)
        high = 0
        is_unknown = (
            raw.FPDFText_HasUnicodeMapError(text_page, index) == 1 or 0xD800 <= code < 0xE000 or code > 0x10FFFF
        )
        text = _UNKNOWN if is_unknown else _text_of(code)
        if not text:
            continue
        raw.FPDFText_GetLooseCharBox(text_page, index, rectangle)
        raw.FPDFText_GetMatrix(text_page, index, matrix)
        raw.FPDFText_GetCharOrigin(text_page, index, x, y)
        key = (matrix.a, matrix.b, matrix.c, matrix.d, raw.FPDFText_GetFontSize(text_page, index))
        if key not in frames:
            frames[key] = frame_of(key)
        frame, letter_size, along = frames[key]
        ends = place(rectangle.left, rectangle.bottom), place(rectangle.right, rectangle.top)
        box = around([(*min(ends), *max(ends)), *((*end, *end) for end in ends)])
        if text.isspace():
            follows_space = True
            continue
        item = raw.FPDFText_GetTextObject(text_page, index)
        origin = place(x.value, y.value)
        width = None if along is None else _width(box, origin, along, frame.down)
        glyph = _Glyph(text, frame, box, origin, letter_size, follows_space, width)
        # PDFium states each letter of a ligature with a piece of its box.
        if last is not None and (last.origin, address) == (glyph.origin, _address(item)) and last.text.isalpha():
            last = last._replace(text=last.text + text, box=around([last.box, box]))
            continue
        if last is not None:
            yield last
        last, address, follows_space = glyph, _address(item), False
    if last is not None:
        yield last


def _width(box: Box, origin: tuple[float, float], along: tuple[float, float], down: tuple[float, float]) -> float:
    """Return the width of a letter in a slanted line.

    box: upright box around the letter, from its descent to its ascent
    along: direction of the line
    """
    # Of the side of the box from which the line comes, a part of the letter's height is known: along one axis its
    # height above the origin, along the other its depth below. The opposite side has the other part, and the width.
    parts, far = dict[bool, float](), list[tuple[float, float, float, bool]]()
    for axis, (first, last) in enumerate(((box[0], box[2]), (box[1], box[3]))):
        step, side = along[axis], abs(along[1 - axis])
        sides = (origin[axis] - first, last - origin[axis])
        before, after = sides if step > 0 else sides[::-1]
        is_depth = step * down[axis] > 0
        parts[not is_depth] = max(0.0, before)
        far.append((abs(step), after, side, is_depth))
    step, after, side, is_depth = max(far)
    return max(0.0, (after - parts.get(is_depth, 0.0) * side / step) / step)


def _address(item: Any) -> int:
    return ctypes.addressof(item.contents) if item else 0


def _text_of(code: int) -> str:
    """Return the text of a character of a page; "" for one that is no letter."""
    character = chr(code)
    if code in _HYPHENS:
        return "-" if code == 0x2 else character
    if any(first <= code <= last for first, last in _FORMS):
        return unicodedata.normalize("NFKC", character).strip()
    if code in _DIRECTIONS or code in (0xFFFE, 0xFFFF) or unicodedata.category(character) in ("Cc", "Co", "Cn"):
        return " " if character.isspace() else ""
    return _UNKNOWN if character == "\ufffd" else character
