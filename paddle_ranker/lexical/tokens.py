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
from paddle_ranker.errors import DependencyError, UsageError

Tokenizer = Callable[[str], list[str]]


# Scripts that all Pythons agree on, with what nearly every text is written in: whatever is outside is looked up.
_COMMON = "\x00-\u0377\u0400-\u0527\u2010-\u2064\u2190-\u23f3\u2460-\u26ff\u3000-\u303f\u4e00-\u9ffc\uff01-\uff5e"
_UNCOMMON = re.compile(f"[^{_COMMON}]")


class _Settled(dict[int, str]):
    """Code point -> what every Python normalises alike; filled when a character is first seen."""

    def __missing__(self, code_point: int) -> str:
        return self.setdefault(code_point, unicode_table().settle(chr(code_point)))


class _Letters(dict[int, str]):
    """Code point -> the character where it is a letter, a digit or an ideograph, else nothing; filled likewise."""

    def __missing__(self, code_point: int) -> str:
        char = chr(code_point)
        return self.setdefault(code_point, char if unicode_table().kind(char) == LETTER else "")


_SETTLED, _LETTERS = _Settled(), _Letters()


def normalise(text: str) -> str:
    """Fold full-width forms and letter case, so that `Ｎote10` meets `note10` (Unicode NFKC)."""
    if _UNCOMMON.search(text):
        text = text.translate(_SETTLED)
    return unicodedata.normalize("NFKC", text).lower()


def letters(text: str) -> str:
    """Return the normalised text without spaces, punctuation and symbols."""
    return _only_letters(normalise(text))


def _only_letters(text: str) -> str:
    if _UNCOMMON.search(text):
        return text.translate(_LETTERS)
    return "".join(filter(str.isalnum, text))


def bigrams(text: str) -> list[str]:
    """Return the pairs of neighbouring letters, digits and ideographs; a lone one stands for itself."""
    run = letters(text)
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run] * bool(run)


def words(text: str) -> list[str]:
    """Return jieba's words of a text that hold a letter, a digit or an ideograph."""
    return [word for word in jieba_segmenter().lcut(normalise(text)) if _only_letters(word)]


TOKENIZERS: dict[str, Tokenizer] = {"jieba": words, "bigram": bigrams}


def tokenizer_named(name: str) -> Tokenizer:
    """Return the tokenizer `jieba` or `bigram`; raises `UsageError` for another name."""
    if name not in TOKENIZERS:
        raise UsageError(f"tokenizer {name!r}: choose from {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]


@lru_cache(maxsize=1)
def jieba_segmenter() -> Any:
    """Return jieba's word segmenter, ready; raises `DependencyError` where it is not installed."""
    try:
        import jieba
    except ImportError as error:
        raise DependencyError("words need jieba: pip install jieba (or take the tokenizer bigram)") from error
    jieba.setLogLevel("ERROR")
    tokenizer = jieba.Tokenizer()
    # As its `initialize` does, but for the cache: a marshal file in the shared temporary folder, where anyone could put
    # one, and whose writing ends in a traceback where that folder is full.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer


def rarity_of(count: int, size: int) -> float:
    """Return the inverse document frequency of a token that `count` of `size` titles hold.

    log(1 + (N - n + 0.5) / (n + 0.5)), as Lucene's BM25 has it.
    """
    return math.log(1.0 + (size - count + 0.5) / (count + 0.5))


class Collection:
    """How many titles hold each token, and how long titles are: what BM25 and the features learn from a collection."""

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
        """Return the token's inverse document frequency in these titles."""
        return self._rarity.get(token, self._unseen)
