"""Put the lines of a page in reading order, and join the lines to text with one line for each paragraph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import compress
from operator import not_
from statistics import median
from typing import NamedTuple, Optional

from paddle_ranker.data.placed_text import SpanPlace
from paddle_ranker.unicode.characters import HAN, SYLLABLES, UNSPACED_SCRIPTS, in_brackets

Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the page, from its top left corner
Word = tuple[int, int, float, float, float, float]  # start, end and box

_ALONE = in_brackets((*HAN, *SYLLABLES))
_PIECE = re.compile(f"[{_ALONE}]|[^\\s{_ALONE}]+")
# Characters between which a line end is no space: those of scripts without spaces, and their punctuation.
_NO_SPACE = re.compile(f"[{_ALONE}{in_brackets(UNSPACED_SCRIPTS)}\u3001-\u301f\uff00-\uffef]")
_HYPHEN = re.compile(f"[^\\W\\d{_ALONE}][-\u2010\u00ad]$")
_FEWEST, _NARROWEST = 3, 0.15  # minimum rows of a page in two columns; minimum share of the page's width of each
_SPACING, _SIZES = 0.8, 1.3  # between lines of a paragraph: maximum space in line heights, maximum ratio of heights
_DOTS = 3  # a word of more dots is a leader, as in a table of contents; an ellipsis has three
_DIGITS = 4  # decimal places of a box
_NEAR = 3  # lines before and after a line that show how far its column reaches


class PageLine(NamedTuple):
    """A line of a page: its words, with spaces between them.

    places: `(start, end, left, top, right, bottom)` of each word: code points of `text`, and the word's box on the page
    box: (left, top, right, bottom) around the line
    """

    text: str
    places: Sequence[Word]
    box: Box

    @classmethod
    def of(cls, words: Iterable[tuple[str, Sequence[Box]]]) -> PageLine:
        """Join words, at least one, to a line; each is (text, box of each character).

        Each run of letters gets a place, and so does each single Chinese or Japanese character. Leader dots, which lead
        to another word as in a table of contents, are removed.
        """
        text, places, words = "", list[Word](), [*words]
        are_dots = [False, *(not word.strip(".") for word, _ in words), False]
        leads = [dots and (len(word) > _DOTS or before or after)
                 for (word, _), before, dots, after in zip(words, are_dots, are_dots[1:], are_dots[2:])]  # fmt: skip
        for word, boxes in words if all(leads) else compress(words, map(not_, leads)):
            text += " " * bool(text)
            for piece in _PIECE.finditer(word):
                left, top, right, bottom = (round(edge, _DIGITS) for edge in around(boxes[piece.start() : piece.end()]))
                places.append((len(text) + piece.start(), len(text) + piece.end(), left, top, right, bottom))
            text += word
        return cls(text, places, around([(left, top, right, bottom) for _, _, left, top, right, bottom in places]))


def around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around some boxes."""
    left, top, right, bottom = zip(*boxes)
    return min(left), min(top), max(right), max(bottom)


def page_text(lines: Sequence[PageLine]) -> tuple[str, list[SpanPlace]]:
    """Return the text of a page, one line for each paragraph, and the places of its words.

    lines: in the order of the file; columns are read one after the other even if their lines alternate
    """
    lines = _in_reading_order(lines)
    text, places = "", list[SpanPlace]()
    for number, line in enumerate(lines):
        if number:
            before = lines[number - 1]
            between = _between(before, line, lines[max(0, number - 1 - _NEAR) : number + _NEAR])
            if between is None:  # the hyphen goes, and the word has a place in each line
                text, (start, end, *box) = text[:-1], places[-1]
                places[-1] = (start, end - 1, *box)
            text += between or ""
        places.extend((start + len(text), end + len(text), *box) for start, end, *box in line.places)
        text += line.text
    return text, places


def _between(before: PageLine, line: PageLine, near: Sequence[PageLine]) -> Optional[str]:
    """Return the text to put between two lines: a line end, a space or "". None means that `before` loses its hyphen.

    before, line: the two lines
    near: lines around them, which show the right edge of the column
    """
    if not _are_beside(before, line):
        left, top, right, bottom = before.box
        height, line_height = bottom - top, line.box[3] - line.box[1]
        space = line.box[1] - bottom
        is_below = -height / 2 < space < _SPACING * height and left < line.box[2] and line.box[0] < right
        if not is_below or max(height, line_height) > _SIZES * min(height, line_height):
            return "\n"
        if _HYPHEN.search(before.text):
            return None if line.text[0].islower() or before.text.endswith("\u00ad") else ""
        # A paragraph ends where the next word would have had room.
        end = max(other.box[2] for other in near if other.box[0] < right and left < other.box[2])
        first = line.places[0]
        if right + (first[4] - first[2]) + height / 2 < end:
            return "\n"
    return "" if _NO_SPACE.match(before.text[-1]) and _NO_SPACE.match(line.text[0]) else " "


def _are_beside(line: PageLine, other: PageLine) -> bool:
    """Return whether `other` is to the right of `line` in the same row."""
    (_, top, right, bottom), (left, other_top, _, other_bottom) = line.box, other.box
    shared = min(bottom, other_bottom) - max(top, other_top)
    return left >= right and 2 * shared > min(bottom - top, other_bottom - other_top)


def _in_reading_order(lines: Sequence[PageLine]) -> Sequence[PageLine]:
    """Return the lines in reading order. If lines of two columns alternate, the left column comes first.

    Rows of a table, whose columns are narrow, keep their order.
    """
    pairs = [(line, other) for line, other in zip(lines, lines[1:]) if _are_beside(line, other)]
    widths = [min(line.box[2] - line.box[0] for line in pair) for pair in pairs]
    if len(pairs) < _FEWEST or median(widths) < _NARROWEST:
        return lines
    gaps = [(line.box[2], other.box[0]) for line, other in pairs]
    middle = max(((left + right) / 2 for left, right in gaps), key=lambda x: sum(a < x < b for a, b in gaps))
    ordered, left, right = list[PageLine](), list[PageLine](), list[PageLine]()
    for line in [*lines, None]:
        if line is None or line.box[0] < middle < line.box[2]:
            ordered += [*_in_reading_order(left), *_in_reading_order(right)]
            left, right = [], []
        if line is not None:
            (ordered if line.box[0] < middle < line.box[2] else left if line.box[2] <= middle else right).append(line)
    return ordered
