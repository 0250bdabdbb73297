"""Read the words of scans and other pictures, and the box of each word, by rapidocr: PP-OCR in the ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Union

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.data.file_readers import Part, Unread
from paddle_ranker.data.page_text import Box, PageLine, page_text
from paddle_ranker.data.pictures import ImageError, ImageLimits, decoded, rgb, upright
from paddle_ranker.errors import DataError, package_for

_VERSION = 2  # raised when the same picture would give other parts
_LEAST_SURE = 0.5  # minimum confidence of OCR in a line
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
    lines, unsure, size = list[PageLine](), 0, pixels.shape[1::-1]
    ends = _ends(pixels) if max(size) <= _LONGEST * min(size) else []
    for top, bottom in zip([0, *ends], ends):
        output = _engine()(np.ascontiguousarray(pixels[top:bottom, :, ::-1]))  # blue, green, red
        if output.txts is None:
            continue
        for text, box, score, words in zip(output.txts, output.boxes, output.scores, output.word_results):
            if text.strip() and score >= _LEAST_SURE:
                placed = [(word, _box(word_box, top, size)) for word, _, word_box in words]
                lines.append(_line(text, _box(box, top, size), placed))
            unsure += score < _LEAST_SURE
    if lines:
        text, places = page_text(lines)
        yield Part(name, text, fields, places)
    if unsure or not lines:
        yield Unread(name, f"{unsure:,} lines of which OCR is not sure" if unsure else "no words")


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


def _box(corners: Sequence[Sequence[float]], above: int, size: tuple[int, ...]) -> Box:
    """Return the upright box (left, top, right, bottom) around four corners, as fractions of the picture's size.

    corners: (x, y) in pixels of a stretch of the picture
    above: rows of pixels above the stretch
    size: (width, height) of the picture
    """
    fractions = np.clip((np.asarray(corners, dtype=float) + np.array([0, above])) / size, 0, 1)
    (left, top), (right, bottom) = fractions.min(0).tolist(), fractions.max(0).tolist()
    return left, top, right, bottom
