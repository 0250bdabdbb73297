"""Our rules of splitting as regular expressions of the tokenizers library, for every code point there is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paddle_ranker.encoding.tokenizers.text_rules import CJK_RANGES, SYMBOLS_BY_NAME, TextRules
from paddle_ranker.encoding.unicode.table import INVISIBLE, MARK, SYMBOL, UNASSIGNED, unicode_table

# Canonical decompositions of Unicode 13 and later; the library knows those of 12.
YOUNG_DECOMPOSITIONS = {"\U00011938": "\U00011935\U00011930"}
_SPACES = (0x09, 0x0A, 0x0D)  # control characters that are not dropped
_SURROGATES = (0xD800, 0xDFFF)  # no text of the library holds any, and no pattern may
_REPLACEMENT = (0xFFFD, 0xFFFD)  # dropped as well

Range = tuple[int, int]  # of code points, with the last


@dataclass(frozen=True)
class Patterns:
    """Classes of characters: `dropped`, `accents`, which are dropped where accents are, and `isolated` ones."""

    dropped: str
    accents: str
    isolated: str

    @classmethod
    def of(cls, rules: TextRules) -> Patterns:
        """Return the classes that `rules` make of every character."""
        ranges: dict[str, list[Range]] = {}
        for kind, first, last in unicode_table().runs():
            ranges.setdefault(kind, []).append((first, last))
        gone = [*_without_spaces(ranges[INVISIBLE]), *ranges[UNASSIGNED], _REPLACEMENT]
        alone = [*ranges[SYMBOL], *((ord(char), ord(char)) for char in SYMBOLS_BY_NAME)]
        if rules.tokenize_chinese_chars:
            alone += CJK_RANGES
        return cls(_class(gone), _class(ranges[MARK]), _class(alone))


def _without_spaces(ranges: Iterable[Range]) -> list[Range]:
    """Return the ranges without spaces and surrogates."""
    found: list[Range] = []
    for first, last in ranges:
        kept_before = first
        for hole_first, hole_last in (*((code, code) for code in _SPACES), _SURROGATES):
            if kept_before <= hole_first <= last:
                found += [(kept_before, hole_first - 1)] if kept_before < hole_first else []
                kept_before = hole_last + 1
        found += [(kept_before, last)] if kept_before <= last else []
    return found


def _class(ranges: Iterable[Range]) -> str:
    """Return a character class of Oniguruma's, which the library reads."""
    return "[" + "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in sorted(ranges)) + "]"
