"""Characters of all scripts: fold texts for comparison, and look up the classes of characters.

fold("Ｃafé — Ⅳ")           # café - iv
shape_of("中文 abc42 ไทย")  # ii www00 ttt

The classes tell how a script separates words, which decides what a word, a phrase and a passage are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from unicodedata import category, decimal, normalize

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans
from paddle_ranker.unicode.character_kinds import LETTER, MARK, OTHER, SPACE, SYMBOL, normalise, unicode_table

# Classes of characters, which are ASCII characters, so that regular expressions can match classes. A sign is a class by
# itself; the class of any other character is a space or a semicolon.
UNIT = "i"  # ideograph, kana, hangul, symbol: a unit by itself
UNSPACED = "t"  # letter of another script without spaces between words: a unit with its marks
WORD = "w"  # letter of a script with spaces between words
DIGIT = "0"
MARK_CLASS = "m"
SIGNS = "-._'/&@+#%*$,"  # which can be part of a word

# The table of scripts without spaces between words: first and last code point of each range.
HAN = (
    *((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3038, 0x303B), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),
    *((0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)
# Kana, bopomofo, Yi, Tangut and their like.
SYLLABLES = (
    *((0x3031, 0x3035), (0x303C, 0x303C), (0x3041, 0x30FF), (0x3105, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF)),
    *((0xA000, 0xA48C), (0x16FE0, 0x18D7F), (0x1B000, 0x1B2FF)),
)
_HANGUL = ((0xAC00, 0xD7AF),)  # written with spaces, but its words have endings, so each syllable is a unit
# Scripts whose lines break between syllables or by a dictionary (UAX 14, classes SA and AK) and that are in use today:
# Thai, Lao, Burmese, Khmer, Tai Le, Tai Lue, Tai Tham, Balinese, Javanese, Tai Viet, Ahom.
UNSPACED_SCRIPTS = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF), (0x1B00, 0x1B7F)),
    *((0xA980, 0xA9DF), (0xA9E0, 0xA9FF), (0xAA60, 0xAADF), (0x11700, 0x1174F)),
)
is_han = re.compile("[\u4e00-\u9fff]+").fullmatch  # whether all characters are in Unicode's basic block of Chinese

# Characters that folding removes: soft hyphens, zero-width characters, variation selectors, frames of keycaps,
# trademark signs (which NFKC converts to letters), and optional points and strokes of Arabic and Hebrew.
_IS_NOTHING = re.compile(
    "[\u00ad\u034f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u061c\u0640\u064b-\u0652\u0656-\u065f"
    "\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u20dd-\u20e0\u20e2-\u20e4\u2120\u2122\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff]"
)
# Variants of a character that NFKC and case folding do not unite with it.
_ALIKE = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    # Apostrophes that are letters (Hawaiian ʻ, Nenets ʼ, transliterated Arabic) or signs: UTS 39, confusables.
    **dict.fromkeys("\u2018\u2019\u201b\u02b9\u02bb\u02bc\u02bd\u02be\u02bf\u055a\u05f3\u2032\u2035\ua78c", "'"),
    "\u0131": "i",  # the dotless i, which is I in upper case
    "\u2044": "/",
}
# Gershayim in a Hebrew abbreviation, which are typed as quotes (UAX 29, rule WB7b).
GERSHAYIM = re.compile('(?<=[\u05d0-\u05ea])["\u05f4\u201c\u201d\u201e](?=[\u05d0-\u05ea])')
# Characters of a normalised text that folding does not change.
_IS_FOLDED = re.compile(
    "[\x00-\x7f\u3001-\u303f\u3041-\u3096\u30a1-\u30fe\u4e00-\u9fff\uac00-\ud7a3\u201c\u201d]*"
).fullmatch


class _Folded(dict[int, str]):
    """Dict from a code point of a normalised text to its folded form; filled on first use."""

    def __missing__(self, code_point: int) -> str:
        char = chr(code_point)
        folded = "" if _IS_NOTHING.match(char) else _ALIKE.get(char) or char.casefold()
        if code_point < 1 << 16 and char.isdecimal():
            folded = str(decimal(char))
        return self.setdefault(code_point, folded)


_FOLDED = _Folded()


def fold(text: str) -> str:
    """Fold a text: remove differences of width and case, and invisible characters."""
    if text.isascii():
        return text.lower()
    text = normalise(_IS_NOTHING.sub("", text))
    if _IS_FOLDED(text):
        return text
    return fold_signs(normalize("NFC", text.translate(_FOLDED).replace("i\u0307", "i")))


def fold_signs(text: str) -> str:
    """Return a text whose characters are folded one by one with the signs that depend on their neighbours folded."""
    return GERSHAYIM.sub("'", text)


def without_accents(folded: str) -> str:
    """Return a folded text without accents: é becomes e, ё becomes е, أ becomes ا."""
    return folded if folded.isascii() else folded.translate(_unaccented())


@lru_cache(maxsize=1)
def accents() -> dict[int, str]:
    """Return the replacement of each Latin and Greek letter with an accent, and of ё; combining marks are deleted."""
    table = {ord("ё"): "е", **dict.fromkeys(range(0x300, 0x370), ""), **{ord(a): b for a, b in zip("đħłøŧ", "dhlot")}}
    for code in chain(range(0xC0, 0x250), range(0x370, 0x400), range(0x1E00, 0x2000)):
        base = normalize("NFD", chr(code))[0]
        if base != chr(code) and base.isalpha():
            table[code] = base
    return table


@lru_cache(maxsize=1)
def _unaccented() -> dict[int, str]:
    return {**accents(), **{code: normalize("NFD", chr(code))[0] for code in range(0x622, 0x627)}}


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the code points of a text, `[characters]`."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def in_brackets(ranges: Iterable[tuple[int, int]]) -> str:
    """Return ranges (first, last) of code points as the content of a regular expression's brackets."""
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


def shape_of(folded: str) -> str:
    """Return a string with the class of each character of a folded text; see `class_of`."""
    return _classes().take(code_points(folded)).tobytes().decode("ascii")


def class_of(char: str) -> str:
    """Return the class of a character of a folded text: `UNIT`, `WORD` and so on."""
    return _class_names()[ord(char)]


@lru_cache(maxsize=1)
def _classes() -> NDArray[np.uint8]:
    """Return the class of each code point."""
    classes = np.full(sys.maxunicode + 1, ord(";"), np.uint8)
    for kind, first, last in unicode_table().runs():
        if kind in _OF_KIND:
            classes[first : last + 1] = ord(_OF_KIND[kind])
        elif kind == SYMBOL:
            symbols = [code for code in range(max(first, 128), last + 1) if category(chr(code))[0] != "P"]
            classes[symbols] = ord(UNIT)
    for name, ranges in ((UNIT, (*HAN, *SYLLABLES, *_HANGUL)), (UNSPACED, UNSPACED_SCRIPTS)):
        for first, last in ranges:
            part = classes[first : last + 1]
            part[part == ord(WORD)] = ord(name)
    for name, characters in ((DIGIT, "0123456789"), (" ", "\t\n\v\f\r"), *((sign, sign) for sign in SIGNS)):
        classes[[ord(char) for char in characters]] = ord(name)
    return classes


_OF_KIND = {LETTER: WORD, MARK: MARK_CLASS, OTHER: MARK_CLASS, SPACE: " "}


@lru_cache(maxsize=1)
def _class_names() -> str:
    return _classes().tobytes().decode("ascii")


def base_class(text: str, position: int) -> str:
    """Return the class of the last character up to `position` that is not a mark, or " " if the text has none."""
    while position >= 0 and class_of(text[position]) == MARK_CLASS:
        position -= 1
    return class_of(text[position]) if position >= 0 else " "


def is_whole(text: str, start: int, end: int) -> bool:
    """Return whether a non-empty part of a folded text begins and ends with whole words.

    In scripts without spaces between words, a character with its marks is a word.
    """
    first, after = class_of(text[start]), class_of(text[end]) if end < len(text) else " "
    return not (
        (first in "w0" and base_class(text, start - 1) in "w0")
        or (after == MARK_CLASS and class_of(text[end - 1]) in "w0mit")
        or (after in "w0" and base_class(text, end - 1) in "w0")
    )


def word_starts(folded: str) -> Booleans:
    """Return which characters of a folded text begin a word or a part of a word, `[characters] bool`.

    In scripts without spaces between words, a character with its marks is a word.
    """
    is_unit, is_letter, goes_on = _begins().take(code_points(folded), axis=1)
    is_letter[1:] &= ~goes_on[:-1]
    return is_unit | is_letter


@lru_cache(maxsize=1)
def _begins() -> Booleans:
    """Return masks of code points, `[3, code points] bool`: units; letters and digits; letters, digits and marks."""
    classes = _classes()
    letters = np.isin(classes, [*b"w0"])
    return np.stack([np.isin(classes, [*b"it"]), letters, letters | (classes == ord(MARK_CLASS))])


def is_name(codes: NDArray[np.uint32]) -> Booleans:
    """Return which code points are digits, or signs as in c++ (`SIGNS`), `[n] bool`."""
    found: Booleans = _name_codes().take(codes)
    return found


@lru_cache(maxsize=1)
def _name_codes() -> Booleans:
    return np.isin(_classes(), [*b"0", *SIGNS.encode()])


def is_letter(codes: NDArray[np.uint32]) -> Booleans:
    """Return which code points are letters, digits or ideographs, `[n] bool`."""
    found: Booleans = _letter_codes().take(codes)
    return found


@lru_cache(maxsize=1)
def _letter_codes() -> Booleans:
    found = np.zeros(sys.maxunicode + 1, bool)
    for kind, first, last in unicode_table().runs():
        found[first : last + 1] = kind == LETTER
    return found
