"""Words and character bigrams of a text, and how rare they are in a collection of titles."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from paddle_ranker.encoding.unicode.table import LETTER, unicode_table
from paddle_ranker.errors import DependencyError, UsageError, quoted

Tokenizer = Callable[[str], list[str]]


# Characters that every Python version treats alike, which cover nearly every text. Others are looked up in a table.
_COMMON = "\x00-\u0377\u0400-\u0527\u2010-\u2064\u2190-\u23f3\u2460-\u26ff\u3000-\u303f\u4e00-\u9ffc\uff01-\uff5e"
_UNCOMMON = re.compile(f"[^{_COMMON}]")


class _Settled(dict[int, str]):
    """A dict from a code point to a text that every Python version normalises alike; filled on first use."""

    def __missing__(self, code_point: int) -> str:
        return self.setdefault(code_point, unicode_table().settle(chr(code_point)))


class _Letters(dict[int, str]):
    """A dict from a code point to its character if it is a letter, digit or ideograph, else ""; filled on first use."""

    def __missing__(self, code_point: int) -> str:
        char = chr(code_point)
        return self.setdefault(code_point, char if unicode_table().kind(char) == LETTER else "")


_SETTLED, _LETTERS = _Settled(), _Letters()


def normalise(text: str) -> str:
    """Normalise full-width forms and letter case (NFKC, then lower case), so that `Ｎote10` matches `note10`."""
    if _UNCOMMON.search(text):
        text = text.translate(_SETTLED)
    return unicodedata.normalize("NFKC", text).lower()


def letters(text: str) -> str:
    """Return the normalised text's letters, digits and ideographs, without spaces, punctuation and symbols."""
    return _only_letters(normalise(text))


def _only_letters(text: str) -> str:
    if _UNCOMMON.search(text):
        return text.translate(_LETTERS)
    return "".join(filter(str.isalnum, text))


def bigrams(text: str) -> list[str]:
    """Return all pairs of neighbouring characters of `letters(text)`; a single character is returned as it is."""
    run = letters(text)
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run] * bool(run)


def words(text: str) -> list[str]:
    """Return jieba's words of a text, without those that hold no letter, digit or ideograph."""
    return [word for word in jieba_segmenter().lcut(normalise(text)) if _only_letters(word)]


TOKENIZERS: dict[str, Tokenizer] = {"jieba": words, "bigram": bigrams}


def tokenizer_named(name: str) -> Tokenizer:
    """Return the tokenizer `jieba` or `bigram`; raises `UsageError` for another name."""
    if name not in TOKENIZERS:
        raise UsageError(f"tokenizer {quoted(name)}: choose from {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]


@lru_cache(maxsize=1)
def jieba_segmenter() -> Any:
    """Return jieba's word segmenter, initialised; raises `DependencyError` if jieba is not installed."""
    try:
        import jieba
    except ImportError as error:
        raise DependencyError("words need jieba: pip install jieba (or take the tokenizer bigram)") from error
    jieba.setLogLevel("ERROR")
    tokenizer = jieba.Tokenizer()
    # As jieba's `initialize`, but without its cache: a marshal file in the shared temporary folder, where anyone could
    # put a malicious one, and where writing it ends in a traceback if the folder is full.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer


def rarity_of(count: int, size: int) -> float:
    """Return the inverse document frequency of a token that occurs in `count` of `size` titles.

    The formula is that of Lucene's BM25, log(1 + (size - count + 0.5) / (count + 0.5)).
    """
    return math.log(1.0 + (size - count + 0.5) / (count + 0.5))


class Collection:
    """Statistics of a collection for BM25 and the features: how many titles hold each token, and mean title length."""

    def __init__(self, titles: Iterable[list[str]]) -> None:
        self.frequency: Counter[str] = Counter()
        self.size = 0
        length = 0
        for tokens in titles:
            self.frequency.update(set(tokens))
            self.size += 1
            length += len(tokens)
        self.average_length = length / self.size if length else 1.0
        self._rarity = {token: rarity_of(count, self.size) for token, count in self.frequency.items()}
        self._unseen = rarity_of(0, self.size)

    def rarity(self, token: str) -> float:
        """Return the token's inverse document frequency in the collection; an unknown token counts as in no title."""
        return self._rarity.get(token, self._unseen)
