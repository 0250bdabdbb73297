"""Split a text into words as BERT and ERNIE tokenizers do: clean, lowercase, strip accents, isolate characters.

A model needs the rules that it was trained with. PaddleNLP's rules are `PretrainedTokenizer.tokenize` followed by
`BasicTokenizer`. They differ from BERT's in two ways that change ids: symbols (`＋`, `℃`, emoji) are isolated like
punctuation, and text is lowercased character by character, so that Σ at the end of a word becomes σ. The toolkit's
table of characters gives equal words on every Python.

BERT's rules (`of_bert`) are those of Hugging Face's `tokenizers`, whose result for each character is cached.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from functools import cache
from typing import Optional

import numpy as np

from paddle_ranker.errors import package_for
from paddle_ranker.unicode.character_kinds import INVISIBLE, MARK, SPACE, SYMBOL, UNASSIGNED, unicode_table

_SPACES = " \t\n\r"
# BERT's and PaddleNLP's ideographs, which decide ids: a model's rule, apart from the table of scripts.
CJK_RANGES = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
# Letters, numbers and format characters in Unicode that PaddleNLP isolates.
SYMBOLS_BY_NAME = frozenset("\u00ad\u00b2\u00ba\u3007\u00b5\u00d8\u014b\u01b1")
# Non-characters, which the rules remove from every text. They mark replacements that depend on other characters.
_OPEN = "\uffff"
_UNSEEN = _OPEN + "\ufdd0"  # in the table: a character that has not occurred yet
_BREAK = _OPEN + "\ufdd1"  # the place of a stripped accent that no mark is moved across
_MARKS = re.compile(f"{_OPEN}[^{_BREAK[1]}]{_OPEN}[^{_BREAK[1]}]")  # two adjacent marks that are kept


@dataclass(frozen=True)
class TextRules:
    """Rules for splitting texts, from `tokenizer_config.json`; the defaults are ERNIE's."""

    do_lower_case: bool = True
    strip_accents: Optional[bool] = None  # None: as do_lower_case
    tokenize_chinese_chars: bool = True
    of_bert: bool = False  # BERT's rules, as in `tokenizers`; otherwise PaddleNLP's

    @property
    def strips_accents(self) -> bool:
        return self.do_lower_case if self.strip_accents is None else self.strip_accents

    def split_like(self, other: TextRules) -> bool:
        """Return whether both rules split every text into the same words."""
        return replace(self, strip_accents=self.strips_accents) == replace(other, strip_accents=other.strips_accents)


class WordSplitter:
    """Splitter of texts into words by `rules`. Thread-safe.

    Every character costs one look-up in a list of all code points.
    """

    def __init__(self, rules: TextRules = TextRules()) -> None:
        self.rules = rules
        self._unicode = unicode_table()
        self._table = _characters(rules)
        self._bert = _BertRules(rules) if rules.of_bert else None

    def split(self, text: str) -> list[str]:
        """Return the words of `text`, in order, not empty and without whitespace.

        Control, private-use, unassigned characters and lone surrogates are dropped.
        """
        return self.normalize(text).split()

    def normalize(self, text: str) -> str:
        """Return the words of `text`, joined by whitespace."""
        # All rules but the order of marks look at single characters, so `str.translate` does the work in C.
        normalized = text.translate(self._table.replacements)
        return self._settled(text, normalized) if _OPEN in normalized else normalized

    def _settled(self, text: str, normalized: str) -> str:
        """Complete `normalized`: replace the characters that the table lacks, and sort adjacent marks.

        In `normalized`, an `_OPEN` precedes each character that the table lacks, and each mark.
        """
        table = self._table
        if _UNSEEN in normalized:
            for char in set(text):
                if table.replacements[ord(char)] is _UNSEEN:
                    table.replacements[ord(char)] = self.replacement(char)
            normalized = text.translate(table.replacements)
        settled = normalized.replace(_OPEN, "")
        if self._bert is not None:  # BERT's rules keep non-characters
            has_marks = _OPEN in text or _MARKS.search(normalized)
            return " ".join(self._bert.words(text)) if has_marks else settled
        if _MARKS.search(normalized):
            settled = self._in_order(settled)
        return settled.replace(_BREAK[1], "")

    def _in_order(self, text: str) -> str:
        chars = np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4"))
        classes = np.zeros(len(chars), np.int64)
        for mark, combining in list(self._table.classes.items()):  # some dozens
            classes[chars == ord(mark)] = combining
        order = np.lexsort((classes, np.cumsum(classes == 0)))
        return chars[order].tobytes().decode("utf-32-le")

    def _clean(self, text: str) -> str:
        if self.rules.do_lower_case:
            text = "".join(map(self._unicode.lower, text))
        return "".join(map(self._clean_character, text))

    def _clean_character(self, char: str) -> str:
        if char in _SPACES:
            return " "
        kind = self._unicode.kind(char)
        if kind in (INVISIBLE, UNASSIGNED) or char == "\ufffd":
            return ""
        if kind == SPACE:
            return " "
        if self.rules.tokenize_chinese_chars and is_chinese(ord(char)):
            return f" {char} "
        return char

    def _fold(self, token: str) -> str:
        if self.rules.strips_accents:
            decomposed = self._unicode.decompose(token)
            token = "".join(char for char in decomposed if self._unicode.kind(char) != MARK)
        return "".join(f" {char} " if self._is_isolated(char) else char for char in token)

    def _is_isolated(self, char: str) -> bool:
        """Return whether `char` is a word by itself: punctuation (non-alphanumeric ASCII) or a symbol."""
        if "!" <= char <= "~":
            return not char.isalnum()
        return self._unicode.kind(char) == SYMBOL or char in SYMBOLS_BY_NAME

    def replacement(self, char: str) -> str:
        """Return the table's replacement of `char`; `_OPEN` precedes each part that depends on neighbours."""
        if self._bert is not None:
            return "".join(_OPEN + part if self._unicode.combining(part) else part for part in self._bert.alone(char))
        return "".join(" " if cleaned == " " else self._alone(cleaned) for cleaned in self._clean(char))

    def _alone(self, char: str) -> str:
        """Return a cleaned character's replacement; `_OPEN` and `_BREAK` mark where combining marks are sorted."""
        if not self.rules.strips_accents:
            return self._fold(char)
        parts: list[str] = []
        for part in self._unicode.decompose(char):
            # Decomposing sorts combining marks, which matters for marks that are kept only.
            combining = self._unicode.combining(part)
            if self._unicode.kind(part) == MARK:
                parts.append("" if combining else _BREAK)
            elif combining:
                self._table.classes[part] = combining
                parts.append(_OPEN + part)
            else:
                parts.append(self._fold(part))
        return "".join(parts)


class _BertRules:
    """BERT's rules of splitting, from Hugging Face's `tokenizers`."""

    def __init__(self, rules: TextRules) -> None:
        with package_for("splitting words as BERT does", "tokenizers"):
            from tokenizers import normalizers, pre_tokenizers
        self._normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=rules.tokenize_chinese_chars,
            strip_accents=rules.strip_accents,
            lowercase=rules.do_lower_case,
        )
        self._splitter = pre_tokenizers.BertPreTokenizer()

    def words(self, text: str) -> list[str]:
        """Return the words of a text; lone surrogates are dropped."""
        normalized = self._normalizer.normalize_str(text.encode("utf-8", "ignore").decode("utf-8"))
        return [word for word, _ in self._splitter.pre_tokenize_str(normalized)]

    def alone(self, char: str) -> str:
        """Return BERT's replacement of a character, which does not depend on its neighbours."""
        if "\ud800" <= char <= "\udfff":
            return ""
        return "".join(
            f" {part} " if len(self._splitter.pre_tokenize_str(f"a{part}a")) > 2 else part
            for part in self._normalizer.normalize_str(char)
        )


class _Replacements:
    """Table of the replacements of characters, filled when a character first occurs.

    Attributes:
        replacements: replacement by code point; `_UNSEEN` until the character occurs.
        classes: combining classes of the marks that are kept.
    """

    def __init__(self, of_bert: bool) -> None:
        self.replacements = [_UNSEEN] * (sys.maxunicode + 1)
        self.classes: dict[str, int] = {}
        if of_bert:
            return
        for kind, first, last in unicode_table().runs():
            if kind in (INVISIBLE, UNASSIGNED):  # nearly a million code points
                self.replacements[first : last + 1] = [""] * (last + 1 - first)
        for char in _SPACES:
            self.replacements[ord(char)] = " "


@cache
def _characters(rules: TextRules) -> _Replacements:
    """Return the table of `rules`, 9 MB; tokenizers with equal rules share it."""
    return _Replacements(rules.of_bert)


def is_chinese(code_point: int) -> bool:
    """Return whether a code point is an ideograph that the rules isolate."""
    return any(first <= code_point <= last for first, last in CJK_RANGES)
