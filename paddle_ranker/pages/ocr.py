"""Read the words of scans and other pictures, and the box of each word, by rapidocr: PP-OCR in the ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Union
from unicodedata import east_asian_width

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.data.files.file_readers import Part, Unread
from paddle_ranker.data.files.pictures import ImageError, ImageLimits, decoded, rgb, upright
from paddle_ranker.errors import DataError, package_for
from paddle_ranker.pages.page_text import Box, PageLine, page_text

_VERSION = 3  # raised when the same picture would give other parts
_LEAST_SURE = 0.5  # minimum confidence of OCR in a line
_SURE_FLIPPED = 0.9  # confidence above which OCR turns a line
_COLUMNS = 3  # tall lines that are looked at for upright letters
_LONGEST = 100  # maximum longer side of a picture divided by its shorter side; longer pictures have no words
_SIDE = 2000  # pixels; OCR shrinks pictures with a longer side
_TALL = 2  # minimum height of a picture that is read in stretches, divided by its width
_GAP = 15  # rows of pixels around the end of a stretch, which are as empty as possible


def read(path: Path) -> Iterator[Union[Part, Unread]]:
    """Yield the words of a picture as one part, and an `Unread` for words that were not read; see `Reader.read`.

    A TIFF of several pages gives a part for each page; the page's number, from 1, is the name and the field `page`.
    """
    _engine()  # its absence is said before the picture is decoded
    number, count = 0, 1
    while number < count:
        number += 1
        try:
            with decoded(path) as (picture, name):
                count = getattr(picture, "n_frames", 1)
                picture.seek(number - 1)
                if picture.width * picture.height > ImageLimits().max_pixels:
                    raise ImageError(f"page {number}: {picture.width:,} x {picture.height:,} pixels; make it smaller")
                is_tiff, pixels = picture.format == "TIFF", np.asarray(upright(rgb(picture, name), picture))
        except (ImageError, EOFError, OSError) as error:
            if number == 1:
                raise DataError(str(error)) from error
            yield Unread(str(number), str(error))
            continue
        if count == 1:
            yield from _parts(pixels, "", {})
        elif is_tiff:
            yield from _parts(pixels, str(number), {"page": number})
        else:
            yield from _parts(pixels, "", {})
            yield Unread("", f"an animation: all but the first of its {count:,} pictures")
            return


def version() -> str:
    """Return a text that changes whenever OCR may read other words (`Reader.version`); "no OCR" without RapidOCR."""
    try:
        return f"{_VERSION}, rapidocr {metadata.version('rapidocr')}"
    except metadata.PackageNotFoundError:
        return "no OCR"


@lru_cache(maxsize=1)
def _engine() -> Any:
    with package_for("OCR", "'paddle-ranker[ocr]'"):
        from rapidocr import RapidOCR
    threads = int(os.environ.get("OMP_NUM_THREADS") or -1)  # -1: one for each core
    settings = {"log_level": "error", "text_score": 0.0, "return_word_box": True}
    return RapidOCR(
        params={
            **{f"Global.{name}": value for name, value in settings.items()},
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        }
    )


def _parts(pixels: Array, name: str, fields: Mapping[str, object]) -> Iterator[Union[Part, Unread]]:
    """Yield the words in `pixels`, `[height, width, 3] uint8`, as a part; `Unread` if some were not read.

    name, fields: name and fields of the part
    """
    whole = max(pixels.shape[:2]) <= _LONGEST * min(pixels.shape[:2])
    lines, unsure, turns = _read_turned(pixels) if whole else ([], 0, 0)
    if lines:
        text, places = page_text(lines)
        yield Part(name, text, fields, [(start, end, *_turned(box, -turns)) for start, end, *box in places])
    if unsure or not lines:
        yield Unread(name, f"{unsure:,} lines of which OCR is not sure" if unsure else "no words")


class _Line(NamedTuple):
    """A line that OCR finds; corners are `[4, 2] float64`, from its top left on, in pixels."""

    text: str
    score: float
    corners: Array
    words: list[tuple[str, Array]]

    @property
    def is_tall(self) -> bool:
        """Whether OCR turns the line left to read it."""
        width, height = np.ptp(self.corners, axis=0)
        return bool(height >= 1.5 * width)

    def cut_from(self, pixels: Array) -> Array:
        """Return the pixels of the line."""
        left, top = np.maximum(self.corners.min(0), 0).astype(int)
        right, bottom = np.ceil(self.corners.max(0)).astype(int)
        return pixels[top : bottom + 1, left : right + 1]


def _read_turned(pixels: Array) -> tuple[list[PageLine], int, int]:
    """Read the words of a picture; return its lines, the number of unsure lines, and the picture's quarter turns.

    Boxes are those in the picture after it was turned to the left so often, so that most lines are upright. Columns of
    Chinese and Japanese are lines of the picture that was turned once.
    """
    found = _found(pixels)
    are_flipped = [_is_flipped(line, pixels) for line in found]
    of_tall = sum(len(line.text) for line in found if line.is_tall)
    is_sideways = 2 * of_tall > sum(len(line.text) for line in found)
    # Positive if most letters of the lines in the picture's direction are upside down.
    down = sum(len(line.text) * (1 if is_flipped else -1)
               for line, is_flipped in zip(found, are_flipped) if line.is_tall == is_sideways)  # fmt: skip
    are_columns = is_sideways and down < 0 and _are_columns([line for line in found if line.is_tall], pixels)
    turns = (3 if down > 0 else 1) if is_sideways else 2 * (down > 0)
    if turns and not are_columns:
        pixels = np.rot90(pixels, turns)
        found = _found(pixels)
        are_flipped = [_is_flipped(line, pixels) for line in found]
    size, lines = pixels.shape[1::-1], list[PageLine]()
    for line, is_flipped in zip(found, are_flipped):
        if line.text.strip() and line.score >= _LEAST_SURE:
            # OCR reads a line that is upside down from its end, and gives the words' places from its begin.
            ends = line.corners.min(0) + line.corners.max(0)
            places = [(word, _box(ends - corners if is_flipped else corners, size)) for word, corners in line.words]
            box = _box(line.corners, size)
            if are_columns:
                box, places = _turned(box, 1), [(word, _turned(at, 1)) for word, at in places]
            lines.append(_line(line.text, box, places))
    return lines, sum(line.score < _LEAST_SURE for line in found), turns


def _found(pixels: Array) -> list[_Line]:
    """Return the lines that OCR finds in a picture."""
    lines, ends = list[_Line](), _ends(pixels)
    for top, bottom in zip([0, *ends], ends):
        stretch = np.ascontiguousarray(pixels[top:bottom, :, ::-1])  # blue, green, red
        output = _engine()(stretch, use_det=True, use_cls=True, use_rec=True, return_word_box=True, text_score=0.0)
        above = np.array([0, top])
        if output.txts is not None:
            for text, corners, score, words in zip(output.txts, output.boxes, output.scores, output.word_results):
                placed = [(word, np.asarray(each, float) + above) for word, _, each in words]
                lines.append(_Line(text, score, np.asarray(corners, float) + above, placed))
    return lines


def _is_flipped(line: _Line, pixels: Array) -> bool:
    """Return whether OCR turned a line upside down to read it."""
    cut = line.cut_from(pixels)
    cut = np.ascontiguousarray((np.rot90(cut) if line.is_tall else cut)[:, :, ::-1])
    ((label, score),) = _engine()(cut, use_det=False, use_cls=True, use_rec=False).cls_res
    return "180" in label and score > _SURE_FLIPPED


def _are_columns(lines: Sequence[_Line], pixels: Array) -> bool:
    """Return whether tall lines are columns of upright letters, which OCR reads side by side, too."""
    votes = list[bool]()
    for line in sorted(lines, key=lambda line: -len(line.text))[:_COLUMNS]:
        cut, count = line.cut_from(pixels), len(line.text)
        height = len(cut) // count
        if height < 1 or sum(east_asian_width(letter) in "WF" for letter in line.text) < count / 2:
            votes.append(False)
            continue
        row = np.concatenate([cut[number * height : (number + 1) * height] for number in range(count)], axis=1)
        read = _engine()(np.ascontiguousarray(row[:, :, ::-1]), use_det=False, use_cls=False, use_rec=True).txts or (
            "",
        )
        votes.append(SequenceMatcher(None, line.text, read[0], autojunk=False).ratio() > 0.5)
    return 2 * sum(votes) > len(votes)


def _turned(box: Sequence[float], turns: int) -> Box:
    """Return a box of a picture, in fractions, in the picture turned left by quarter turns."""
    left, top, right, bottom = box
    for _ in range(turns % 4):
        left, top, right, bottom = top, 1 - right, bottom, 1 - left
    return left, top, right, bottom


def _ends(pixels: Array) -> list[int]:
    """Return the end of each stretch of a picture, as a row of pixels; OCR reads the stretches one by one.

    Only a tall picture, such as a long screenshot, has several stretches. They end between lines of text.
    """
    height, width = pixels.shape[:2]
    longest, ends = max(_SIDE, width), list[int]()
    while height > _TALL * width and height - sum(ends[-1:]) > longest:
        last = sum(ends[-1:]) + longest
        first = last - longest // 4
        contrast = np.ptp(pixels[first:last], axis=1).max(axis=1).astype(np.float64)
        ends.append(first + int(np.convolve(contrast, np.ones(_GAP), "valid").argmin()) + _GAP // 2)
    return [*ends, height]


def _line(text: str, box: Box, words: list[tuple[str, Box]]) -> PageLine:
    """Return a line in which each character has the box of its word; `box` if the words do not spell `text`.

    words: (word, box) as OCR gives them
    """
    boxes = [word_box for word, word_box in words for character in word if not character.isspace()]
    words_of_text = text.split()
    if len(boxes) != sum(map(len, words_of_text)):
        boxes = [box] * sum(map(len, words_of_text))
    starts = np.cumsum([0, *map(len, words_of_text)]).tolist()
    return PageLine.of((word, boxes[start : start + len(word)]) for word, start in zip(words_of_text, starts))


def _box(corners: Array, size: tuple[int, ...]) -> Box:
    """Return the upright box (left, top, right, bottom) around four corners, as fractions of the picture's size.

    corners: (x, y) in pixels
    size: (width, height) of the picture
    """
    fractions = np.clip(corners / np.array(size), 0, 1)
    (left, top), (right, bottom) = fractions.min(0).tolist(), fractions.max(0).tolist()
    return left, top, right, bottom
