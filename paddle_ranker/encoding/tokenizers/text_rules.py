"""Split a text into words as BERT and ERNIE tokenizers do: clean, lowercase, strip accents, isolate characters.

The rules are those of PaddleNLP's `PretrainedTokenizer.tokenize` followed by its `BasicTokenizer`: models were trained
with them. They differ from the original BERT rules in two ways that change ids: symbols (`＋`, `℃`, emoji) are isolated
like punctuation, and text is lowercased one character at a time, so that Σ at a word's end becomes σ. The kind of a
character comes from the toolkit's own table, not from Python's, so a text has the same words on every Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from paddle_ranker.encoding.unicode.table import INVISIBLE, MARK, SPACE, SYMBOL, UNASSIGNED, unicode_table

_SPACES = " \t\n\r"
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
# Isolated by PaddleNLP although Unicode calls them letters, numbers or format characters.
SYMBOLS_BY_NAME = frozenset("\u00ad\u00b2\u00ba\u3007\u00b5\u00d8\u014b\u01b1")
# A character that no split text can hold: the rules remove every non-character.
_DEPENDS_ON_CONTEXT = "\uffff"


@dataclass(frozen=True)
class TextRules:
    """What `tokenizer_config.json` decides about splitting; the defaults are ERNIE's."""

    do_lower_case: bool = True
    strip_accents: Optional[bool] = None  # None: as do_lower_case
    tokenize_chinese_chars: bool = True

    @property
    def strips_accents(self) -> bool:
        return self.do_lower_case if self.strip_accents is None else self.strip_accents


class WordSplitter:
    """Split texts into words by `rules`; safe to share between threads."""

    def __init__(self, rules: TextRules = TextRules()) -> None:
        self.rules = rules
        self._unicode = unicode_table()
        self._table = _CharacterTable(self)

    def split(self, text: str) -> list[str]:
        """Return the words of `text`, in order; none is empty and none holds whitespace.

        Control, private-use, unassigned characters and lone surrogates are dropped.
        """
        return self.normalize(text).split()

    def normalize(self, text: str) -> str:
        """Return `text` as its words with whitespace (one or more characters) between them."""
        # Every rule but one looks at one character, so a table of characters does the work inside the interpreter.
        normalized = text.translate(self._table)
        if _DEPENDS_ON_CONTEXT in normalized:
            return " ".join(self.split_by_rules(text))
        return normalized

    def split_by_rules(self, text: str) -> list[str]:
        """Return what `split` returns, by applying each rule to the whole text: slow, but it defines the result."""
        return [word for token in self._clean(text).split() for word in self._fold(token).split()]

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
        """Whether `char` is a word of its own: punctuation (all of ASCII's non-alphanumerics) or a symbol."""
        if "!" <= char <= "~":
            return not char.isalnum()
        return self._unicode.kind(char) == SYMBOL or char in SYMBOLS_BY_NAME

    def replacement(self, char: str) -> str:
        """Return the replacement of `char` in every normalized text, or `_DEPENDS_ON_CONTEXT`."""
        cleaned = self._clean(char)
        # Decomposing puts combining marks in canonical order, which matters only for marks that are not stripped.
        if self.rules.strips_accents and any(
            self._unicode.combining(mark) and self._unicode.kind(mark) != MARK
            for mark in self._unicode.decompose(cleaned)
        ):
            return _DEPENDS_ON_CONTEXT
        return "".join(" " if char == " " else self._fold(char) for char in cleaned)


class _CharacterTable(dict[int, str]):
    """Code point -> its replacement, filled when a character is first seen."""

    def __init__(self, splitter: WordSplitter) -> None:
        super().__init__()
        self._splitter = splitter

    def __missing__(self, code_point: int) -> str:
        replacement = self._splitter.replacement(chr(code_point))
        if replacement:  # the million code points that are dropped need no entry
            self[code_point] = replacement
        return replacement


def is_chinese(code_point: int) -> bool:
    """Return whether a character is an ideograph, which the rules make a word of its own."""
    return any(first <= code_point <= last for first, last in CJK_RANGES)
