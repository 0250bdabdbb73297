"""Split a text in any script into words, by a table of character classes and patterns over them.

standard("维生素A与C++")     # 维 生 素 维生 生素 a 素a 与 a与 c++ c 与c++
standard("COVID-19 的 trained models")     # covid 19 covid19 的 19的 train model

No word is dropped: a word's rarity determines its weight.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import add
from typing import NamedTuple, Union
from unicodedata import category, decimal, normalize

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding.unicode.table import LETTER, MARK, OTHER, SPACE, SYMBOL, normalise, unicode_table
from paddle_ranker.errors import DependencyError

# Characters without a meaning of their own: soft hyphens, zero-width characters, variation selectors, the frames of
# keycaps, trademark signs (which NFKC makes letters), and points and strokes that Arabic and Hebrew may do without.
_IS_NOTHING = re.compile(
    "[\u00ad\u034f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u061c\u0640\u064b-\u0652\u0656-\u065f"
    "\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u20dd-\u20e0\u20e2-\u20e4\u2120\u2122\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff]"
)
# Characters that are written for others, which NFKC and case folding leave apart.
_ALIKE = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    **dict.fromkeys("\u2018\u2019\u201b\u02b9\u02bc\u2032", "'"),
    "\u0131": "i",  # the dotless i, which is I in upper case
    "\u2044": "/",
}
# Scripts without spaces between words. Of the first ones a character is a unit, as a symbol is. Hangul is among them,
# since its words have endings. Of the others a letter with its marks is a unit.
_IDEOGRAPHS = (
    *((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3031, 0x3035), (0x3038, 0x30FF), (0x3105, 0x312F)),
    *((0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA48C), (0xAC00, 0xD7AF)),
    *((0xF900, 0xFAFF), (0x16FE0, 0x18D7F), (0x1B000, 0x1B2FF), (0x20000, 0x3FFFF)),
)
_UNSPACED = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF)),
    *((0xA9E0, 0xA9FF), (0xAA60, 0xAADF)),
)
_SIGNS = "-._'/&@+#%*$,"  # which can be part of a word
_LONGEST = 64  # characters of a word that has a stem, or parts beside itself
_DIGEST = 6  # a word of more parts, of less than three characters each in the mean, is none: it has no parts
_SHORT = 3  # characters of a word that makes a pair with an ideograph beside it
SINGLE, STOP = 0.8, 0.1  # how much ideographs and stop words count among others
# Lucene's stop words (EnglishAnalyzer.ENGLISH_STOP_WORDS_SET).
STOP_WORDS = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not"),
        *("of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was"),
        *("will", "with"),
    )
)
# English stop words that other languages lack, and words of others: which of them a text has more of says what it is.
_ENGLISH = frozenset(
    ("the", "of", "and", "to", "that", "this", "with", "are", "their", "there", "these", "they", "into", "it")
)
_FOREIGN = frozenset(
    (
        *(
            "der",
            "die",
            "das",
            "und",
            "ist",
            "ein",
            "eine",
            "nicht",
            "mit",
            "den",
            "dem",
            "auf",
            "von",
            "zu",
            "le",
            "la",
        ),
        *(
            "le",
            "la",
            "les",
            "des",
            "et",
            "est",
            "un",
            "une",
            "du",
            "que",
            "qui",
            "dans",
            "pour",
            "sur",
            "el",
            "los",
            "las",
            "y",
        ),
        *("por", "con", "una", "para", "del", "il", "lo", "di", "che", "non", "per", "sono", "het", "een", "van", "en"),
        *("niet", "dat", "och", "att", "det", "som", "og", "ikke", "ve", "bir", "bu", "dan", "yang"),
    )
)
_CAPITALS = re.compile(
    r"(?<!\w)(?<!\w[-.&/_@+'])(?:(?<=\w )A|{})(?![-.&/_@+'\u2019]?\w)".format("|".join(STOP_WORDS - {"a"}).upper())
)
_CONTRACTED = frozenset(("t", "s", "m", "d", "re", "ll", "ve"))


class _Folded(dict[int, str]):
    """A dict from a code point of a normalised text to what it is compared by; filled on first use."""

    def __missing__(self, code_point: int) -> str:
        char = chr(code_point)
        folded = "" if _IS_NOTHING.match(char) else _ALIKE.get(char) or char.casefold()
        if code_point < 1 << 16 and char.isdecimal():
            folded = str(decimal(char))
        return self.setdefault(code_point, folded)


@lru_cache(maxsize=1)
def _classes() -> NDArray[np.uint8]:
    """Return the class of each code point of a folded text in the patterns below, an ASCII character.

    i: ideograph or symbol; t: letter of another script without spaces; w: another letter; 0: digit; m: mark; a sign is
    itself, all else a space or a semicolon.
    """
    classes = np.full(sys.maxunicode + 1, ord(";"), np.uint8)
    for kind, first, last in unicode_table().runs():
        if kind in _OF_KIND:
            classes[first : last + 1] = ord(_OF_KIND[kind])
        elif kind == SYMBOL:
            symbols = [code for code in range(max(first, 128), last + 1) if category(chr(code))[0] != "P"]
            classes[symbols] = ord("i")
    for shown, ranges in (("i", _IDEOGRAPHS), ("t", _UNSPACED)):
        for first, last in ranges:
            part = classes[first : last + 1]
            part[part == ord("w")] = ord(shown)
    for shown, given in (("0", "0123456789"), (" ", "\t\n\v\f\r"), *((sign, sign) for sign in _SIGNS)):
        classes[[ord(char) for char in given]] = ord(shown)
    return classes


_OF_KIND = {LETTER: "w", MARK: "m", OTHER: "m", SPACE: " "}
_FOLDED = _Folded()
# Characters that a normalised text has and that stay as they are.
_IS_FOLDED = re.compile(
    "[\x00-\x7f\u3001-\u303f\u3041-\u3096\u30a1-\u30fe\u4e00-\u9fff\uac00-\ud7a3\u201c\u201d]*"
).fullmatch
_BODY = r"w[wm]*(?:'w[wm]*)*|0{1,3}(?:,000)+(?![0,])(?:\.0+)*|0+(?:\.0+)*"
_ENDING = r"\+\+|[+#%*](?![w0+#%*])"  # C++ C# 50%
_PART = f"(?:{_BODY})(?:{_ENDING})?"
_PARTS, _GROUPS = re.compile(f"({_BODY})({_ENDING})?"), re.compile("[^.]+")
# .NET #tag COVID-19 node.js snake_case R&D
_RUNS = re.compile(f"i[im]*|t[tm]*|(?:(?<![w0m.#@$])[.#@$](?=[w0]))?{_PART}(?:[-._/&@+]?{_PART})*")
_UNITS = re.compile("[it]m*")


class Token(NamedTuple):
    """A word, and where it stands."""

    text: str
    start: int
    end: int


class Word(NamedTuple):
    """The tokens of a word, and what of it stands beside an ideograph before and after it."""

    tokens: tuple[Token, ...]
    texts: tuple[str, ...]
    first: str
    last: str


class Run(NamedTuple):
    """Characters of a folded text that stand together.

    kind: i, t, or that of a word
    text, start: the characters, and where they begin
    shape: their classes
    pair: the token of its beginning and the end of the run before, "" if there is none
    """

    kind: str
    text: str
    start: int
    shape: str
    pair: str

    @property
    def is_word(self) -> bool:
        return self.kind not in "it"

    def units(self) -> Union[str, list[str]]:
        """Return the ideographs, or letters with their marks, of a run that is no word."""
        return _units(self.text, self.shape)

    def words(self) -> list[Token]:
        """Return the units, or the tokens of a word, in places of the folded text."""
        if self.is_word:
            found: Sequence[Token] = word_of(self.text, self.shape).tokens
        else:
            found = [Token(self.text[slice(*one.span())], *one.span()) for one in _UNITS.finditer(self.shape)]
        return [Token(text, self.start + start, self.start + end) for text, start, end in found]


def fold(text: str) -> str:
    """Fold a text: widths, cases and invisible characters make no difference."""
    if text.isascii():
        return text.lower()
    text = normalise(_IS_NOTHING.sub("", text))
    return text if _IS_FOLDED(text) else normalize("NFC", text.translate(_FOLDED).replace("i\u0307", "i"))


def pieces(folded: str) -> Iterator[tuple[int, str, str]]:
    """Yield where each run of a folded text begins, its characters, and their classes."""
    codes = np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), "<u4")
    shape = _classes().take(codes).tobytes().decode("ascii")
    for match in _RUNS.finditer(shape):
        start, end = match.span()
        yield start, folded[start:end], shape[start:end]


def runs(folded: str) -> Iterator[Run]:
    """Yield the runs of a folded text."""
    before, beside, end = "", "", 0
    for start, text, shape in pieces(folded):
        kind, pair = shape[0], ""
        if kind not in "it":
            _, _, first, last = word_of(text, shape)
            if before == "i" and folded[end:start] in ("", " ") and len(first) <= _SHORT:
                pair = beside + first
            kind = "w"
        else:
            units = _units(text, shape)
            first, last = units[0], units[-1]
            if before == "w" and kind == "i" and folded[end:start] in ("", " ") and len(beside) <= _SHORT:
                pair = beside + first
        yield Run(kind, text, start, shape, pair)
        before, beside, end = kind, last, start + len(text)


def standard(text: str) -> list[str]:
    """Return the tokens of a text: of ideographs each and each pair; other words' stems, as they are written, parts.

    In English texts stop words are left out, but not beside ideographs, in capitals, or where there is nothing else.
    """
    found: list[str] = []
    there = list(runs(fold(text)))
    is_english = not _ENGLISH.isdisjoint([run.text for run in there]) and _is_english(there)
    for place, (kind, run, _, shape, pair) in enumerate(there):
        if kind in "it":
            units = _units(run, shape)
            if kind == "i" or len(units) == 1:
                found += units
            found += map(add, units, units[1:])
        elif not is_english or run not in STOP_WORDS or not _among_words(there, place):
            found += word_of(run, shape).texts
        if pair:
            found.append(pair)
    if is_english and not text.isupper():
        found += (capitals.lower() for capitals in _CAPITALS.findall(text))
    return found or [run.text for run in there]


def _is_english(there: Sequence[Run]) -> bool:
    return sum((run.text in _ENGLISH) - (run.text in _FOREIGN or not run.text.isascii()) for run in there) > 0


def _among_words(there: Sequence[Run], place: int) -> bool:
    return all(run.is_word for run in there[max(0, place - 1) : place + 2])


def weighed(query: str) -> Iterator[tuple[str, float]]:
    """Yield the tokens of a query with their weights: 1, or less for tokens that say little by themselves.

    These are ideographs with others beside them, and English stop words in small letters among other words in ASCII.
    """
    asks = query.isascii() and any(token not in STOP_WORDS for token in standard(query))
    for run in runs(fold(query)):
        if run.pair:
            yield run.pair, 1.0
        if run.is_word:
            is_small = asks and query[run.start : run.start + len(run.text)].islower()
            for token in word_of(run.text, run.shape).texts:
                yield token, STOP if is_small and token in STOP_WORDS else 1.0
            continue
        units = run.units()
        if run.kind == "i" or len(units) == 1:
            yield from ((unit, SINGLE if len(units) > 1 else 1.0) for unit in units)
        yield from ((pair, 1.0) for pair in map(add, units, units[1:]))


def _units(text: str, shape: str) -> Union[str, list[str]]:
    return text if "m" not in shape else [text[slice(*match.span())] for match in _UNITS.finditer(shape)]


def word_of(text: str, shape: str) -> Word:
    """Return the tokens of a word of a folded text; `shape` are its characters' classes."""
    # A long word is hardly seen again, and the cache would hold it.
    return _word(text, shape) if len(text) <= _LONGEST else _word.__wrapped__(text, shape)


@lru_cache(maxsize=1 << 16)
def _word(text: str, shape: str) -> Word:
    parts = list(_PARTS.finditer(shape))
    tokens = tuple(_tokens_of(text, parts))
    return Word(tokens, tuple(one.text for one in tokens), text[: parts[0].end()], text[parts[-1].start() :])


def _tokens_of(text: str, parts: Sequence[re.Match[str]]) -> Iterator[Token]:
    if len(parts) > _DIGEST and len(text) < 3 * len(parts):
        yield Token(text, 0, len(text))
        return
    for part in parts:
        start, end = part.span(1)
        body = text[start:end]
        if part.group(2):
            yield Token(text[start : part.end()], start, part.end())
        if "'" in body:
            plain = body[:-2] if body.endswith("'s") else body
            yield Token(stem(plain.replace("'", "")), start, end)
            head, _, tail = plain.partition("'")
            if tail and len(head) <= 2:  # l'eau, qu'il
                yield Token(stem(tail.replace("'", "")), start + len(head) + 1, start + len(plain))
            elif tail and tail not in _CONTRACTED:  # İstanbul'da
                yield Token(stem(head), start, start + len(head))
        else:
            yield Token(stem(body.replace(",", "")), start, end)
            for one in _GROUPS.finditer(body) if "." in body else ():
                yield Token(one.group(), start + one.start(), start + one.end())
    begin = parts[0].start()
    if len(text) <= _LONGEST and (len(parts) > 1 or begin):
        written = text[begin : parts[0].end()]
        for one, other in zip(parts, parts[1:]):
            joiner = text[one.end() : other.start()]
            is_number = written[-1].isdigit() and text[other.start()].isdigit()
            written += (joiner if is_number else "") + text[other.start() : other.end()]
        if len(parts) > 1:
            yield Token(stem(written.replace("'", "")), begin, len(text))
        if begin:
            yield Token(text[:begin] + written, 0, len(text))


def stem(word: str) -> str:
    """Return the stem of an English word, which may be longer or shorter than the word."""
    return stem_of(word) if 3 < len(word) <= _LONGEST and word.isascii() and word.isalpha() else word


@lru_cache(maxsize=1 << 16)
def stem_of(word: str) -> str:
    """Return the stem of a word by Snowball's stemmer for English."""
    try:
        from snowballstemmer.english_stemmer import EnglishStemmer
    except ImportError as error:
        raise DependencyError(
            "English words need snowballstemmer: pip install snowballstemmer (or take the tokenizer bigram)"
        ) from error
    # A stemmer holds the word that it works on, so threads cannot share one.
    return str(EnglishStemmer().stemWord(word))
