"""What a reader is shown of a text that was found: the words that the query has, too, and the passage with most.

shared = SharedWords("苹果手机价格")
shared.highlights("二手苹果手机")    # [Highlight(start=2, end=6, level=3)]
shared.passage(text)               # (320, 520), of a long text
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, Optional

from paddle_ranker.encoding.unicode.table import MOST_MARKS, normalise
from paddle_ranker.lexical.tokens import STOP_WORDS, UNSPACED

LEVELS = 3  # as of the rankers' match embeddings: a shared word, pair of words, or three words in a row
PASSAGE = 200  # code points of the passage of a long text
_MOST_WORDS, _QUERY = 128, 1000  # words, code points of a query
_MOST_HIGHLIGHTS, _LOOKED_AT = 100, 20_000  # of a text; code points of it
_LETTER = f"(?:[^\\W_{UNSPACED}]|[\u0300-\u036f])"  # or a mark that combines with one
_WORDS = re.compile(f"[{UNSPACED}]|{_LETTER}+")
# A letter with what may be one with it: marks, and the parts of a syllable of hangul.
_CLUSTERS = re.compile(
    f"[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?|.[\u0300-\u036f\u3099\u309a]{{0,{MOST_MARKS}}}", re.S
)
_IS_LETTER, _IS_UNSPACED = re.compile(_LETTER).match, re.compile(f"[{UNSPACED}]").match


class _Folded(dict[int, str]):
    """A dict from a code point to its normalised character; itself where that is none or several. Filled on first use.

    So every place of a folded text is the same place of the text.
    """

    def __missing__(self, code_point: int) -> str:
        char = normalise(chr(code_point))
        return self.setdefault(code_point, char if len(char) == 1 else chr(code_point))


_FOLDED = _Folded()


class Highlight(NamedTuple):
    """A part of a text, in code points, whose words stand in the query in this order, too, `level` of them or more."""

    start: int
    end: int
    level: int


class _Word(NamedTuple):
    text: str
    start: int
    end: int


class FoldedText:
    """A text in which letters of other widths and cases are alike, and letters and their marks are one, as in words.

    Of a very long text it is the first 20,000 code points.

    Attributes: `text`. It has the text's own places, unless that has letters apart from their marks, as file names of
    some systems have: `span` says where a part stands.
    """

    def __init__(self, text: str):
        text = text[:_LOOKED_AT]
        self._starts: Optional[list[int]] = None
        if not unicodedata.is_normalized("NFC", text):
            clusters = [match.span() for match in _CLUSTERS.finditer(text)]
            parts = [unicodedata.normalize("NFC", text[start:end]) for start, end in clusters]
            self._starts = [
                min(start + place, end)  # some characters become several
                for (start, end), part in zip(clusters, parts)
                for place in range(len(part))
            ] + [len(text)]
            text = "".join(parts)
        self.text = text.translate(_FOLDED)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return where a part of `text` begins and ends in the text that was given."""
        return (start, end) if self._starts is None else (self._starts[start], self._starts[end])


class SharedWords:
    """Finds in texts what a query has, too. Words of Chinese are single characters; their level tells how many follow.

    Args:
        query: its first 128 words count, of its first 1,000 code points.
    """

    def __init__(self, query: str):
        words = [match.group() for match in _WORDS.finditer(FoldedText(query[:_QUERY]).text)][:_MOST_WORDS]
        self._grams = [{tuple(words[i : i + n]) for i in range(len(words) - n + 1)} for n in range(1, LEVELS + 1)]
        # A single character, or a word such as "the", says little by itself, unless nothing else was asked for.
        self._weak = set() if len(words) < 2 else {one for one in words if one in STOP_WORDS or _is_unspaced(one)}
        characters = "".join(sorted({one for one in words if _is_unspaced(one)}))
        others = sorted({one for one in words if not _is_unspaced(one)}, key=len, reverse=True)
        parts = [f"[{characters}]"] * bool(characters)
        parts += map(re.escape, others)
        self._pattern = re.compile("|".join(parts)) if parts else None

    def highlights(self, text: str) -> list[Highlight]:
        """Return the shared parts of a text, in their order; of a very long one, of its first 20,000 code points."""
        if self._pattern is None:
            return []
        given = FoldedText(text)
        text = given.text
        words = [_Word(match.group(), *match.span()) for match in self._pattern.finditer(text)]
        words = [word for word in words if _is_whole(word, text)]
        found: list[Highlight] = []
        for word, level in zip(words, self._levels(text, words)):
            if level == 1 and word.text in self._weak:
                continue
            last = found[-1] if found else None
            if last is not None and last.level == level > 1 and not text[last.end : word.start].strip():
                found[-1] = Highlight(last.start, word.end, level)
            elif len(found) < _MOST_HIGHLIGHTS:
                found.append(Highlight(word.start, word.end, level))
            else:
                break
        return [Highlight(*given.span(one.start, one.end), one.level) for one in found]

    def _levels(self, text: str, words: Sequence[_Word]) -> list[int]:
        """Return how long a shared n-gram each word is in; only spaces may stand between the words of one."""
        texts, (_, pairs, triples) = [word.text for word in words], self._grams
        gaps = [text[one.end : other.start] for one, other in zip(words, words[1:])]
        two = [not gap.strip() and pair in pairs for gap, pair in zip(gaps, zip(texts, texts[1:]))]
        three = [one and other and triple in triples
                 for one, other, triple in zip(two, two[1:], zip(texts, texts[1:], texts[2:]))]  # fmt: skip
        levels = [1] * len(words)
        for n, shared in ((2, two), (3, three)):
            for i, is_shared in enumerate(shared):
                if is_shared:
                    levels[i : i + n] = [n] * n
        return levels

    def passage(self, text: str, highlights: Sequence[Highlight]) -> tuple[int, int]:
        """Return where the passage with most of what is shared begins and ends; all of a short text."""
        if len(text) <= PASSAGE:
            return 0, len(text)
        best, start, weight, first = 0, 0, 0, 0
        for one in highlights:
            weight += _weight(one)
            while one.end - highlights[first].start > PASSAGE and highlights[first] is not one:
                weight -= _weight(highlights[first])
                first += 1
            if weight > best:
                best, start = weight, highlights[first].start
        start = min(start, len(text) - PASSAGE)
        return start, start + PASSAGE


def places_of(term: str, text: FoldedText) -> list[tuple[int, int]]:
    """Return where a token of a tokenizer's begins and ends in a text, at most 20 times; a stem is found in words."""
    beginning = "" if _is_unspaced(term[:1]) else f"(?<!{_LETTER})"
    found = re.compile(beginning + re.escape(term)).finditer(text.text)
    return [text.span(*match.span()) for match, _ in zip(found, range(20))]


def level_of(term: str) -> int:
    """Return the match level that a token of a query stands for by itself: characters of Chinese, else a word."""
    return min(LEVELS, max(1, len(_WORDS.findall(term))))


def _is_whole(word: _Word, text: str) -> bool:
    """Return whether a match is no part of a longer word. Asked here: in the pattern, it would take long to compile."""
    if _is_unspaced(word.text):
        return True
    return not (_IS_LETTER(text, word.end) or (word.start > 0 and _IS_LETTER(text, word.start - 1)))


def _weight(one: Highlight) -> int:
    return (one.end - one.start) * one.level * one.level


def _is_unspaced(word: str) -> bool:
    return _IS_UNSPACED(word) is not None
