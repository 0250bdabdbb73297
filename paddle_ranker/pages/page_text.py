"""Join the letters of a page to lines, put these in reading order, and join them to text, a line for each paragraph.

lines = lines_of(letters)    # of letters that are drawn in one direction, on the page turned so that they are upright
text, places = page_text([PageLine.of(words) for words in lines])
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import compress
from operator import not_
from statistics import median
from typing import NamedTuple, Optional

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.data.files.placed_text import SpanPlace
from paddle_ranker.unicode.characters import HAN, SYLLABLES, UNSPACED_SCRIPTS, in_brackets

Box = tuple[float, float, float, float]  # left, top, right, bottom as fractions of the page, from its top left corner
Word = tuple[int, int, float, float, float, float]  # start, end and box
Line = list[tuple[str, list[Box]]]  # the words of a line: (text, box of each character)

_ALONE = in_brackets((*HAN, *SYLLABLES))
_PIECE = re.compile(f"[{_ALONE}]|[^\\s{_ALONE}]+")
# Characters between which a line end is no space: those of scripts without spaces, and their punctuation.
_NO_SPACE = re.compile(f"[{_ALONE}{in_brackets(UNSPACED_SCRIPTS)}\u3001-\u301f\uff00-\uffef]")
_HYPHEN = re.compile(f"[^\\W\\d{_ALONE}][-\u2010\u00ad]$")
_FEWEST, _NARROWEST = 3, 0.15  # minimum rows of a page in two columns; minimum share of the page's width of each
_SPACING, _SIZES = 0.8, 1.3  # between lines of a paragraph: maximum space in line heights, maximum ratio of heights
_GAPS = 64  # gaps between columns whose middle may be that of the page's columns
_DOTS = 3  # a word of more dots is a leader, as in a table of contents; an ellipsis has three
_LEADER = re.compile(rf"(\.{{{_DOTS + 1},}})")
_DIGITS = 4  # decimal places of a box
_NEAR = 3  # lines before and after a line that show how far its column reaches
_WIDE = 3  # minimum space between two columns, in widths of a letter
# Spaces in sizes of a letter: between words; between words where the file has a space, too; between words of scripts
# without spaces; by which a letter may overlap the letters before; between runs of a line that the file states apart;
# between two drawings of one letter.
_SPACE, _SEEN_SPACE, _WIDE_SPACE, _FAR, _CLOSE, _SAME = 0.15, 0.1, 0.5, 0.5, 0.8, 0.12
_ABOVE, _BELOW = 0.75, 0.2  # height of a letter above and below its baseline, in sizes
_MIXED = 3  # a line in which letters of neither direction are more by this factor is mixed
_SHUFFLED = 0.25  # minimum share of lines before which the file states a lower line, in a file without order
_MOST_LINES = 4096  # lines of a page whose order is repaired; more are sorted from top to bottom
_RIGHT_TO_LEFT, _NUMBERS = {"R", "AL"}, {"EN", "AN"}
_WITHIN_NUMBERS = {"CS", "ES", "ET"}
_MIRRORED = str.maketrans("()[]{}<>«»", ")(][}{><»«")


class Letter(NamedTuple):
    """A letter on a page, in points of the page that is turned so that the letter is upright; (0, 0) is its top left.

    text: one character, or several, as of a ligature
    box: (left, top, right, bottom)
    baseline: distance of the baseline from the top
    size: size of the font
    follows_space: whether the file has a space before the letter
    """

    text: str
    box: Box
    baseline: float
    size: float
    follows_space: bool = False


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


def lines_of(letters: Sequence[Letter]) -> list[Line]:
    """Return the lines of letters, in the order of the file; texts are in the order in which they are read.

    letters: of one direction, in the order of the file. The letters of a line may be drawn in any order, those of words
        that are read leftwards, such as Hebrew, leftwards or rightwards. A wide space ends a line

    The boxes are those of the letters.
    """
    runs = list[list[Letter]]()
    left = right = 0.0  # of the last run
    taken = defaultdict[int, list[Box]](list)  # boxes of its letters, by their left edges
    drawn = dict[tuple[str, int, int], tuple[float, float]]()
    for letter in _with_marks(letters):
        (x, *_), y, most = letter.box, letter.baseline, _SAME * letter.size or 1.0
        column, row = round(x / most), round(y / most)
        near = [(letter.text, column + across, row + down) for across in (-1, 0, 1) for down in (-1, 0, 1)]
        if any(abs(x - drawn[at][0]) < most and abs(y - drawn[at][1]) < most for at in near if at in drawn):
            continue  # drawn twice, as a shadow or as bold letters
        drawn[letter.text, column, row] = x, y
        middle, column = (x + letter.box[2]) / 2, int(x // (letter.size or 1.0))
        beside = [box for at in range(column - 2, column + 3) for box in taken[at]]
        is_free = not any(abs(2 * middle - box[0] - box[2]) < (box[2] - box[0]) / 2 for box in beside)
        if not runs or not is_free or not _continues(runs[-1], left, right, letter):
            runs.append([])
            taken.clear()
            left, right = x, letter.box[2]
        runs[-1].append(letter)
        taken[column].append(letter.box)
        left, right = min(left, x), max(right, letter.box[2])
    joined = [sorted(run, key=lambda letter: letter.box[0]) for run in _joined(runs)]
    kinds = [_kind(letter.text) for letter in letters]
    return [words for run in joined if (words := _words(run, kinds.count("R") > kinds.count("L")))]


def _with_marks(letters: Iterable[Letter]) -> list[Letter]:
    """Return the letters, each with the marks that are drawn above or below it, such as vowels of Hebrew."""
    joined, marks = list[Letter](), list[Letter]()
    for letter in letters:
        if unicodedata.category(letter.text[0]) not in ("Mn", "Me", "Cf") or letter.text == "\u00ad":
            above = [mark for mark in marks if _is_above(mark, letter)]
            joined += [mark for mark in marks if mark not in above]
            joined.append(letter._replace(text=letter.text + "".join(mark.text for mark in above)) if above else letter)
            marks = []
        elif joined and not marks and _is_above(letter, joined[-1]):
            joined[-1] = joined[-1]._replace(text=joined[-1].text + letter.text)
        else:
            marks.append(letter)
    return joined + marks


def _is_above(mark: Letter, letter: Letter) -> bool:
    """Return whether a mark is drawn above or below a letter, or without width beside it."""
    (left, _, right, _), middle = letter.box, (mark.box[0] + mark.box[2]) / 2
    return left - _SPACE * mark.size <= middle <= right + _SPACE * mark.size


def _share_line(letter: Letter, other: Letter) -> bool:
    """Return whether two letters stand in one line, if they are near each other."""
    heights = (_ABOVE + _BELOW) * min(letter.size, other.size)
    top = max(letter.baseline - _ABOVE * letter.size, other.baseline - _ABOVE * other.size)
    bottom = min(letter.baseline + _BELOW * letter.size, other.baseline + _BELOW * other.size)
    return 2 * (bottom - top) > heights


def _continues(run: Sequence[Letter], left: float, right: float, letter: Letter) -> bool:
    """Return whether a letter that follows a run in the file stands beside it in its line.

    left, right: edges of the run
    """
    wide = _WIDE * sum(each.box[2] - each.box[0] for each in run[-8:]) / len(run[-8:])
    gaps = [max(letter.box[0] - end, begin - letter.box[2]) for begin, end in ((left, right), run[-1].box[::2])]
    least = -_FAR * min(run[-1].size, letter.size)
    return _share_line(run[-1], letter) and any(least < gap <= wide for gap in gaps)


def _joined(runs: list[list[Letter]]) -> list[list[Letter]]:
    """Join runs that stand close beside each other in one line, though the file states them apart."""
    ends = defaultdict[int, list[tuple[Letter, int]]](list)  # by rows of 8 points: last letter and number of a line
    firsts = [min(run, key=lambda letter: letter.box[0]) for run in runs]
    lines, places = dict[int, list[Letter]](), dict[int, int]()
    for number in sorted(range(len(runs)), key=lambda number: firsts[number].box[0]):
        first, target = firsts[number], number
        closest = _CLOSE * first.size
        for row in range(int((first.baseline - first.size) // 8), int((first.baseline + first.size) // 8) + 1):
            # Further runs begin further to the right.
            ends[row] = [end for end in ends[row] if first.box[0] - end[0].box[2] <= _CLOSE * end[0].size]
            for end, line in ends[row]:
                gap = first.box[0] - end.box[2]
                if -_SPACE * first.size <= gap <= closest and _share_line(end, first):
                    target, closest = line, gap
        lines.setdefault(target, []).extend(runs[number])
        places[target] = min(number, places.get(target, number))  # where the file states the line's first run
        last = max(runs[number], key=lambda letter: letter.box[2])
        ends[int(last.baseline // 8)].append((last, target))
    return [lines[target] for target in sorted(lines, key=places.__getitem__)]


def _words(letters: Sequence[Letter], is_leftwards: bool) -> Line:
    """Return the words of a line in the order in which they are read.

    letters: from left to right
    is_leftwards: whether most letters of the page are of scripts that are read leftwards
    """
    gaps = [after.box[0] - letter.box[2] for letter, after in zip(letters, letters[1:])]
    pairs = zip(gaps, letters, letters[1:])
    between = sorted(gap for gap, letter, after in pairs if letter.text.isalpha() and after.text.isalpha())
    tracking = max(0.0, between[len(between) // 4]) if len(between) > 3 else 0.0  # of letters that are spaced out
    pieces = list[tuple[str, Optional[Box]]]()
    for number, letter in enumerate(letters):
        if number and letter.text != " ":
            before = letters[number - 1]
            is_seen = letter.follows_space or before.follows_space
            are_wide = _NO_SPACE.match(before.text[-1]) and _NO_SPACE.match(letter.text)
            least = (_SEEN_SPACE if is_seen else _WIDE_SPACE if are_wide else _SPACE) * min(before.size, letter.size)
            if gaps[number - 1] - tracking > least:
                pieces.append((" ", None))
        pieces.append((letter.text, letter.box))
    words, is_new = list[tuple[list[str], list[Box]]](), True
    for text, box in _logical(pieces, is_leftwards):
        if box is None or text.isspace():
            is_new = True
            continue
        if is_new:
            words.append(([], []))
            is_new = False
        words[-1][0].append(text)
        words[-1][1].extend([box] * len(text))
    line = Line()
    for texts, boxes in words:
        word, start = re.sub("\u00ad(?!$)", "-", "".join(texts)), 0
        for piece in _LEADER.split(word):
            line += [(piece, boxes[start : start + len(piece)])] if piece else []
            start += len(piece)
    return line


def _logical(pieces: list[tuple[str, Optional[Box]]], is_leftwards: bool) -> list[tuple[str, Optional[Box]]]:
    """Return the pieces of a line, given from left to right, in the order in which they are read.

    The rules are those of the Unicode Bidirectional Algorithm. The direction of a line is that of most of its letters;
    of a mixed line, that of the page, `is_leftwards`.
    """
    kinds = [_kind(text) for text, _ in pieces]
    if "R" not in kinds:
        return pieces
    right, left = kinds.count("L"), kinds.count("R")
    is_leftwards = left > _MIXED * right or (is_leftwards and right <= _MIXED * left)
    for number in range(1, len(kinds) - 1):  # 1,000 and 10:30 are numbers
        if kinds[number] == "S" and kinds[number - 1] == "D" == kinds[number + 1]:
            kinds[number] = "D"
    for order in (range(len(kinds)), range(len(kinds) - 1, -1, -1)):  # so are 5% and $5
        for number in order:
            beside = number - 1 if order.step > 0 else number + 1
            if kinds[number] == "T" and 0 <= beside < len(kinds) and kinds[beside] == "D":
                kinds[number] = "D"
    strong = [kind if kind in "LRD" else "" for kind in kinds]
    before, after = _nearest(strong), _nearest(strong[::-1])[::-1]
    levels = list[int]()
    for kind, previous, next_ in zip(strong, before, after):
        sides = (previous, next_)
        if is_leftwards:
            levels.append(2 if kind in ("L", "D") or (not kind and sides == ("L", "L")) else 1)
        elif kind == "D":
            levels.append(2 if sides == ("R", "R") else 0)
        else:
            is_between = not kind and all(sides) and "R" in sides and "L" not in sides
            levels.append(1 if kind == "R" or is_between else 0)
    ordered = [(text.translate(_MIRRORED) if level == 1 else text, box) for (text, box), level in zip(pieces, levels)]
    for level in (2, 1):
        start = 0
        while start < len(levels):
            end = start
            while end < len(levels) and levels[end] >= level:
                end += 1
            ordered[start:end] = ordered[start:end][::-1]
            levels[start:end] = levels[start:end][::-1]
            start = end + 1
    return ordered


def _nearest(kinds: Sequence[str]) -> list[str]:
    """Return for each place the nearest of the kinds before it that is not ""."""
    nearest, last = list[str](), ""
    for kind in kinds:
        nearest.append(last)
        last = kind or last
    return nearest


def _kind(text: str) -> str:
    """Return the direction of a piece: "L", "R", "D" of digits, "S" and "T" of signs in and beside numbers, or "N"."""
    kind = unicodedata.bidirectional(text[0])
    if kind in _NUMBERS:
        return "D"
    if kind in _WITHIN_NUMBERS:
        return "T" if kind == "ET" else "S"
    return "R" if kind in _RIGHT_TO_LEFT else "L" if kind == "L" else "N"


def is_leftwards(lines: Iterable[Line]) -> bool:
    """Return whether most letters of lines are of scripts that are read leftwards."""
    kinds = [_kind(character) for line in lines for word, _ in line for character in word]
    return kinds.count("R") > kinds.count("L")


def page_text(lines: Sequence[PageLine]) -> tuple[str, list[SpanPlace]]:
    """Return the text of a page, one line for each paragraph, and the places of its words.

    lines: in the order of the file; columns are read one after the other even if their lines alternate
    """
    lines = _in_reading_order(_downwards(lines))
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
    return other.box[0] >= line.box[2] and _share_row(line, other)


def _share_row(line: PageLine, other: PageLine) -> bool:
    (_, top, _, bottom), (_, other_top, _, other_bottom) = line.box, other.box
    return 2 * (min(bottom, other_bottom) - max(top, other_top)) > min(bottom - top, other_bottom - other_top)


def _downwards(lines: Sequence[PageLine]) -> Sequence[PageLine]:
    """Return the lines so that none follows a line that stands below it.

    Lines side by side keep the order of the file, unless it often goes upwards.
    """
    rows = list[
        list[PageLine]
    ]()  # PDFium gives the parts of a row from left to right, in whatever direction it is read
    for line in lines:
        if not rows or not _share_row(rows[-1][-1], line):
            rows.append([])
        rows[-1].append(line)
    lines = [line for row in rows for line in sorted(row, key=lambda line: line.box[0])]
    boxes = np.array([line.box for line in lines]).reshape(-1, 4)
    middles, heights = boxes[:, [1, 3]].mean(1), boxes[:, 3] - boxes[:, 1]
    widths = boxes[:, 2] - boxes[:, 0]

    def below(number: int) -> Array:
        overlaps = _shared(boxes, boxes[number]) > 0.1 * np.minimum(widths, widths[number])
        return overlaps & (middles - middles[number] > 0.4 * np.minimum(heights, heights[number]))

    steps = middles[:-1] - middles[1:] > 0.4 * np.minimum(heights[:-1], heights[1:])
    steps &= _shared(boxes[:-1], boxes[1:]) > 0.1 * np.minimum(widths[:-1], widths[1:])
    if len(lines) > _MOST_LINES or steps.sum() > _SHUFFLED * len(steps):
        return _by_rows(lines)
    waits = sum((below(number) for number in range(len(lines))), np.zeros(len(lines), np.int64))
    ready = [number for number in range(len(lines)) if not waits[number]]
    ordered = list[PageLine]()
    while ready:
        number = heapq.heappop(ready)
        ordered.append(lines[number])
        then = np.flatnonzero(below(number))
        waits[then] -= 1
        for other in then[waits[then] == 0].tolist():
            heapq.heappush(ready, other)
    return ordered


def _shared(boxes: Array, others: Array) -> Array:
    """Return the widths that boxes share with other boxes."""
    return np.minimum(boxes[..., 2], others[..., 2]) - np.maximum(boxes[..., 0], others[..., 0])


def _by_rows(lines: Sequence[PageLine]) -> list[PageLine]:
    """Return the lines from top to bottom, and those of a row from left to right."""
    rows = list[list[PageLine]]()
    for line in sorted(lines, key=lambda line: line.box[1] + line.box[3]):
        top, bottom = rows[-1][0].box[1::2] if rows else (0.0, -1.0)
        if not top < (line.box[1] + line.box[3]) / 2 < bottom:
            rows.append([])
        rows[-1].append(line)
    return [line for row in rows for line in sorted(row, key=lambda line: line.box[0])]


def _in_reading_order(lines: Sequence[PageLine]) -> Sequence[PageLine]:
    """Return the lines in reading order. If lines of two columns alternate, the left column comes first.

    Rows of a table, whose columns are narrow, keep their order.
    """
    pairs = [(line, other) for line, other in zip(lines, lines[1:]) if _are_beside(line, other)]
    widths = [min(line.box[2] - line.box[0] for line in pair) for pair in pairs]
    if len(pairs) < _FEWEST or median(widths) < _NARROWEST:
        return lines
    gaps = [(line.box[2], other.box[0]) for line, other in pairs]
    some = gaps[:: 1 + len(gaps) // _GAPS]
    middle = max(((left + right) / 2 for left, right in some), key=lambda x: sum(a < x < b for a, b in gaps))
    ordered, left, right = list[PageLine](), list[PageLine](), list[PageLine]()
    for line in [*lines, None]:
        if line is None or line.box[0] < middle < line.box[2]:
            ordered += [*_in_reading_order(left), *_in_reading_order(right)]
            left, right = [], []
        if line is not None:
            (ordered if line.box[0] < middle < line.box[2] else left if line.box[2] <= middle else right).append(line)
    return ordered
