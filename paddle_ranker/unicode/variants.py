"""Spellings of one word: the form that naïve and naive, œuvre and oeuvre, हिंदी and हिन्दी, ヒラガナ and ひらがな share.

common_form("cœur")                   # coeur
common_form("schön")                  # schon
common_form("schön", LETTERS["german"])  # schön

The folds are a second chance behind the exact spelling. Their sources:

| fold | source |
| --- | --- |
| é e, ø o, ł l, æ ae, œ oe, ā a, ό ο, ё е, ي with hamza, marks, points | UCA (DUCET): letters of equal primary weight |
| þ th | CLDR, collation of Danish, Norwegian and Swedish |
| ð d, ŋ n | CLDR, collation of Danish, Finnish |
| other letters with hooks, strokes and tails (ƙ k, ɗ d) | names of characters: LATIN SMALL LETTER K WITH HOOK |
| ك ک, ي ى ی, ه ة ہ ھ ە, ا أ إ آ ٱ | CLDR, collation of Persian |
| न् before त, म् before प ... and ँ are the anusvara ं | the spelling of nasals before consonants of their class |
| chillu ൻ and ന്, ৎ and ত্ | Unicode Standard, chapter 12: characters and the sequences used before them |
| katakana and hiragana | UCA: letters of equal primary weight |

The apostrophes ʻ ʼ ʾ ' (UTS 39, confusables) and the gershayim of צה״ל and צה"ל (UAX 29, WB7b) are no other spelling:
`fold` makes them one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import name, normalize

from paddle_ranker.unicode.characters import accents

# Letters of languages that are no variants of others there (CLDR: a primary difference; German: main exemplars).
LETTERS = {
    "basque": "ñ",
    "danish": "æøå",
    "finnish": "åäö",
    "german": "äöü",
    "hungarian": "öőüű",
    "icelandic": "áéíóúýðþæö",
    "lithuanian": "čšž",
    "norwegian": "æøå",
    "romanian": "ăâîșț",
    "spanish": "ñ",
    "swedish": "åäö",
    "turkish": "çğıöşü",
}
_LATIN = ((0xDF, 0x2B0), (0x1D79, 0x1D9B), (0x1E00, 0x1F00), (0x2C60, 0x2C80), (0xA720, 0xA7B8), (0xAB30, 0xAB65))
_ARABIC = {"ک": "ڪكګڬڭڮ", "ه": "ةەہۃۀۂھ", "ی": "ىيےۓېۑۍێئ", "ا": "آأإٱٲٳ", "و": "ؤ"}
# Scripts of one layout: Devanagari, Bengali, Gurmukhi, Gujarati, Odia, Telugu, Kannada, Malayalam.
_INDIC = (0x900, 0x980, 0xA00, 0xA80, 0xB00, 0xC00, 0xC80, 0xD00)
_CLASSES = ((0x15, 0x19), (0x1A, 0x1E), (0x1F, 0x23), (0x24, 0x28), (0x2A, 0x2E))  # first consonant, and the nasal
_ANUSVARA, _CANDRABINDU, _NUKTA, _VIRAMA = 0x02, 0x01, 0x3C, 0x4D
_OLDER = {"ൺ": "ണ്", "ൻ": "ന്", "ർ": "ര്", "ൽ": "ല്", "ൾ": "ള്", "ൿ": "ക്", "ৎ": "ত্", "ੰ": "ਂ"}
KATAKANA, HIRAGANA = "\u30a1-\u30f6\u30fd\u30fe", "\u3041-\u3096\u309d\u309e"
_KANA = 0x60  # between a hiragana and its katakana


def common_form(folded: str, letters: str = "") -> str:
    """Return the form that a folded text shares with its other spellings.

    letters: letters that stay as they are, see `LETTERS`
    """
    if folded.isascii():
        return folded
    return _nasals().sub(_anusvara, folded).translate(_table(letters))


def other_kana(text: str) -> str:
    """Return a text with katakana in place of hiragana, and the reverse."""
    return text.translate(_other_kana())


@lru_cache(maxsize=1)
def changing() -> frozenset[str]:
    """Return the characters of texts that `common_form` may change."""
    nasals = {chr(block + nasal) for block in _INDIC for _, nasal in _CLASSES}
    return frozenset({*map(chr, _table("")), *nasals})


@lru_cache(maxsize=32)
def _table(letters: str) -> dict[int, str]:
    kept = {*map(ord, letters)}
    return {code: other for code, other in _full_table().items() if code not in kept}


@lru_cache(maxsize=1)
def _full_table() -> dict[int, str]:
    table = {**accents(), **{ord(a): b for a, b in zip("æœþðŋ", ("ae", "oe", "th", "d", "n"))}}
    for first, end in _LATIN:
        for code in range(first, end):
            found = re.match("LATIN SMALL LETTER ([A-Z]|AE|OE) WITH ", name(chr(code), ""))
            if found:
                table[code] = found[1].lower()
    table.update({ord(other): letter for letter, others in _ARABIC.items() for other in others})
    for block in _INDIC:
        table[block + _NUKTA], table[block + _CANDRABINDU] = "", chr(block + _ANUSVARA)
        for code in range(block, block + 0x80):  # letters with a nukta
            decomposed = normalize("NFD", chr(code))
            if decomposed[1:] == chr(block + _NUKTA):
                table[code] = decomposed[0]
    table.update({ord(char): other for char, other in _OLDER.items()})
    table.update({code: chr(code - _KANA) for code in [*range(0x30A1, 0x30F7), 0x30FD, 0x30FE]})
    while True:  # ǽ is æ with an accent
        joined = {code: "".join(table.get(ord(char), char) for char in other) for code, other in table.items()}
        if joined == table:
            return table
        table = joined


@lru_cache(maxsize=1)
def _nasals() -> re.Pattern[str]:
    """Return the pattern of a nasal with a virama before a consonant of its class."""
    return re.compile(
        "|".join(
            f"{chr(block + nasal)}{chr(block + _VIRAMA)}(?=[{chr(block + first)}-{chr(block + nasal)}])"
            for block in _INDIC
            for first, nasal in _CLASSES
        )
    )


def _anusvara(match: re.Match[str]) -> str:
    return chr((ord(match[0][0]) & ~0x7F) + _ANUSVARA)


@lru_cache(maxsize=1)
def _other_kana() -> dict[int, int]:
    pairs = [(code, code - _KANA) for code in [*range(0x30A1, 0x30F7), 0x30FD, 0x30FE]]
    return {**dict(pairs), **{hiragana: katakana for katakana, hiragana in pairs}}
