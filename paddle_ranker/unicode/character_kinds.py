"""Kinds of characters by a fixed version of Unicode, so that every Python gives the same tokens.

`unicodedata` and `str` follow the Unicode version of their Python: 13.0 in Python 3.9, 15.0 in 3.12. An emoji of one
version may be unassigned in another. `table.json`, which `build_table.py` writes, has the kind of every code point.
Unicode never changes the decomposition, the combining class and the lower case of an assigned character, so Python
provides these three. For young characters, which the oldest supported Python does not know, the table has them.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).resolve().parent / "table.json"
# Kinds of characters, by general category.
UNASSIGNED = "u"  # Cn
INVISIBLE = "i"  # Cc, Cf, Co, Cs: control, format and private-use characters, surrogates
SPACE = "s"  # Z
MARK = "m"  # Mn: marks without width, mainly accents
SYMBOL = "p"  # P and S: punctuation and symbols
LETTER = "l"  # L and N: letters, ideographs, digits
OTHER = "o"  # Mc, Me


def kind_of_category(category: str) -> str:
    """Return the kind of characters (`MARK`, `SYMBOL`, ...) that belong to a general category, such as `Lu`."""
    if category in ("Cn", "Mn"):
        return UNASSIGNED if category == "Cn" else MARK
    kinds = {"C": INVISIBLE, "Z": SPACE, "P": SYMBOL, "S": SYMBOL, "L": LETTER, "N": LETTER, "M": OTHER}
    return kinds[category[0]]


class UnicodeTable:
    """Table of kinds, lower case and decompositions of characters.

    Attributes:
        version: Unicode version of the table.
        oldest: Unicode version of the oldest supported Python.
    """

    def __init__(self, content: dict[str, object]) -> None:
        """Take the content of `table.json`, see `make_table` in `build_table.py`."""
        self.version, self.oldest = str(content["unicode"]), str(content["oldest"])
        runs = str(content["kinds"]).split()
        self._kinds = [run[0] for run in runs]
        self._starts = [int(run[1:], 16) for run in runs]
        young: dict[str, dict[str, str]] = content["young"]  # type: ignore[assignment]
        self._lower = {chr(int(code, 16)): facts["lower"] for code, facts in young.items() if "lower" in facts}
        self._compatible = {chr(int(code, 16)): facts["nfkc"] for code, facts in young.items() if "nfkc" in facts}
        self._combining = {chr(int(code, 16)): int(facts["ccc"]) for code, facts in young.items() if "ccc" in facts}

    def runs(self) -> Iterator[tuple[str, int, int]]:
        """Yield (kind, first, last) for each run of code points of equal kind."""
        ends = [start - 1 for start in self._starts[1:]] + [sys.maxunicode]
        yield from zip(self._kinds, self._starts, ends)

    def kind(self, char: str) -> str:
        """Return the kind of a character, such as `SYMBOL`."""
        return self._kinds[bisect_right(self._starts, ord(char)) - 1]

    def lower(self, char: str) -> str:
        """Return a character in lower case; an unassigned character is returned unchanged."""
        if char.isascii():
            return char.lower()
        return char if self.kind(char) == UNASSIGNED else self._lower.get(char) or char.lower()

    def combining(self, char: str) -> int:
        """Return the combining class of an assigned character; 0 unless it is a mark that sorting may move."""
        return self._combining.get(char) or unicodedata.combining(char)

    def decompose(self, text: str) -> str:
        """Return a text of assigned characters in canonical decomposition (NFD)."""
        # No young character decomposes, so the table matters only for the order of marks.
        decomposed = "".join(unicodedata.normalize("NFD", char) for char in text)
        result: list[str] = []
        marks: list[str] = []
        for char in decomposed:
            if self.combining(char):
                marks.append(char)
                continue
            result += [*sorted(marks, key=self.combining), char]
            marks = []
        return "".join(result + sorted(marks, key=self.combining))

    def settle(self, char: str) -> str:
        """Return a replacement of a character that NFKC and lower case convert alike on every Python.

        Most characters are returned unchanged, young characters in their normalised, lower-case form. U+FFFD replaces
        unassigned characters, and young marks, which older Pythons cannot order among other marks.
        """
        if self.kind(char) == UNASSIGNED or char in self._combining:
            return "\ufffd"
        char = self._compatible.get(char, char)
        return self._lower.get(char, char)


@lru_cache(maxsize=1)
def unicode_table() -> UnicodeTable:
    """Return the table that all tokenizers use."""
    return UnicodeTable(json.loads(FILE.read_text(encoding="ascii")))


MOST_MARKS = 30  # maximum marks per character, more than any language needs (UAX 15, stream-safe texts)
# Characters that all Pythons treat alike, which cover most texts; only other characters need the table.
_COMMON = "\x00-\u0377\u0400-\u0527\u2010-\u2064\u2190-\u23f3\u2460-\u26ff\u3000-\u303f\u4e00-\u9ffc\uff01-\uff5e"
UNCOMMON = re.compile(f"[^{_COMMON}]")


class _Settled(dict[int, str]):
    """Cache of `UnicodeTable.settle`: its result by code point."""

    def __missing__(self, code_point: int) -> str:
        return self.setdefault(code_point, unicode_table().settle(chr(code_point)))


_SETTLED = _Settled()
# A long run of characters that may be marks, which few texts have.
_LONG_RUN = re.compile(f"[^\x00-\u02ff\u0370-\u0482\u3400-\u9fff\uac00-\ud7a3]{{{2 * MOST_MARKS}}}")


def normalise(text: str) -> str:
    """Normalise full-width forms and letter case (NFKC, then lower case), so that `Ｎote10` matches `note10`.

    Only the first 30 marks of a character are kept, since Python sorts marks in quadratic time.
    """
    if UNCOMMON.search(text):
        text = text.translate(_SETTLED)
    if _LONG_RUN.search(text):
        text = "".join(_with_few_marks(text))
    return unicodedata.normalize("NFKC", text).lower()


def _with_few_marks(text: str) -> Iterator[str]:
    marks = 0
    for char in text:
        for part in unicodedata.normalize("NFKD", char):  # may be several marks
            marks = marks + 1 if unicodedata.combining(part) else 0
            if marks <= MOST_MARKS:
                yield part
