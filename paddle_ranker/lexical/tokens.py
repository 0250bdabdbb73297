"""Words and character bigrams of a text, and what a collection of titles says about them."""

from __future__ import annotations

import math
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from paddle_ranker.errors import DependencyError, UsageError

Tokenizer = Callable[[str], list[str]]


def normalise(text: str) -> str:
    """Fold full-width forms and letter case, so that `Ｎote10` meets `note10` (Unicode NFKC)."""
    return unicodedata.normalize("NFKC", text).lower()


def letters(text: str) -> str:
    """Return the normalised text without spaces, punctuation and symbols."""
    return "".join(character for character in normalise(text) if character.isalnum())


def bigrams(text: str) -> list[str]:
    """Return the pairs of neighbouring letters, digits and ideographs; a lone one stands for itself."""
    run = letters(text)
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run] * bool(run)


def words(text: str) -> list[str]:
    """Return jieba's words of a text that hold a letter, a digit or an ideograph."""
    return [word for word in jieba_segmenter().lcut(normalise(text)) if any(character.isalnum() for character in word)]


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
    # jieba keeps its dictionary in a marshal file of the shared temporary folder, where anyone could put one.
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.tmp_dir = folder
        tokenizer.initialize()
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
