"""Words, stems and character bigrams of a text, and how rare they are in a collection of titles."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable

from paddle_ranker.encoding.unicode.table import LETTER, UNCOMMON, normalise, unicode_table
from paddle_ranker.errors import UsageError, quoted, refuse_text
from paddle_ranker.lexical.analyser import LONGEST, STOP_WORDS, Analyser, jieba_segmenter, standard, stem_of

Tokenizer = Callable[[str], list[str]]


class _Letters(dict[int, str]):
    """A dict from a code point to its character if it is a letter, digit or ideograph, else ""; filled on first use."""

    def __missing__(self, code_point: int) -> str:
        char = chr(code_point)
        return self.setdefault(code_point, char if unicode_table().kind(char) == LETTER else "")


class _Spaced(dict[int, str]):
    """A dict from a code point to its character if it can be part of a word, else a space; filled on first use."""

    def __missing__(self, code_point: int) -> str:
        return self.setdefault(code_point, _LETTERS[code_point] or ("'" if chr(code_point) in "'\u2019" else " "))


_LETTERS, _SPACED = _Letters(), _Spaced()
# Scripts without spaces between words: ideographs, kana and hangul. Lucene's CJK analyzer makes bigrams of the same.
UNSPACED = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_RUNS = re.compile(f"[{UNSPACED}]+|[^\\s{UNSPACED}]+")
_IS_UNSPACED = re.compile(f"[{UNSPACED}]")
_ENGLISH_SHARE = 0.05  # of a collection in English


def letters(text: str) -> str:
    """Return the normalised text's letters, digits and ideographs, without spaces, punctuation and symbols."""
    return _only_letters(normalise(text))


def _only_letters(text: str) -> str:
    if UNCOMMON.search(text):
        return text.translate(_LETTERS)
    return "".join(filter(str.isalnum, text))


def bigrams(text: str) -> list[str]:
    """Return all pairs of neighbouring characters of `letters(text)`; a single character is returned as it is."""
    run = letters(text)
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run] * bool(run)


def grams(text: str) -> list[str]:
    """Return all characters of `letters(text)` and all pairs of neighbouring ones, which finds abbreviations, too."""
    run = letters(text)
    return [*run, *(run[i : i + 2] for i in range(len(run) - 1))]


def words(text: str) -> list[str]:
    """Return jieba's words of a text that hold a letter, digit or ideograph."""
    return [word for word in jieba_segmenter().lcut(normalise(text)) if _only_letters(word)]


def words_and_bigrams(text: str) -> list[str]:
    """Return bigrams of a text's Chinese, and words and numbers of other scripts whole.

    A character without another one beside it is returned as it is.
    """
    found = []
    for run in _RUNS.findall(normalise(text).translate(_SPACED)):
        if _IS_UNSPACED.match(run):
            found += [run[i : i + 2] for i in range(len(run) - 1)] or [run]
        elif word := run.strip("'"):
            found.append(word)
    return found


def stems(text: str) -> list[str]:
    """Return the stems of a text's words without English stop words, and bigrams of its Chinese.

    The stemmer is Snowball's for English. A text of stop words alone keeps them.
    """
    found = words_and_bigrams(text)
    wanted = [word for word in found if word not in STOP_WORDS] or found
    return [stem_of(word) if len(word) <= LONGEST else word for word in wanted]


STANDARD = "standard"
TOKENIZERS: dict[str, Tokenizer] = {
    STANDARD: standard,
    "jieba": words,
    "bigram": bigrams,
    "gram": grams,
    "mixed": words_and_bigrams,
    "stem": stems,
}
LANGUAGES = ("zh", "en")
OLDER = ("gram", "mixed", "stem")  # which `standard` took the place of: indexes that have them are searched by them


def detect_language(texts: Iterable[str]) -> tuple[str, float]:
    """Return which of `LANGUAGES` texts are in, and the share of texts that are English.

    A text is English if it has more words in spaced scripts than characters in others, which have no spaces.
    """
    refuse_text(texts, "texts")
    english = total = 0
    for text in texts:
        runs = [run for run in _RUNS.findall(text.translate(_SPACED)) if not run.isdigit()]
        unspaced = sum(len(run) for run in runs if _IS_UNSPACED.match(run))
        total += bool(runs)
        english += sum(not _IS_UNSPACED.match(run) for run in runs) > unspaced
    share = english / total if total else 0.0
    return ("en" if share >= _ENGLISH_SHARE else "zh"), share


def tokenizer_named(name: str) -> Tokenizer:
    """Return the tokenizer of a name in `TOKENIZERS`; raises `UsageError` for another name."""
    if name not in TOKENIZERS:
        raise UsageError(f"tokenizer {quoted(name)}: choose from {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]


def weighed(tokenize: Tokenizer, query: str) -> Iterable[tuple[str, float]]:
    """Return the tokens of a query with their weights, 1 unless the tokenizer sets others."""
    return tokenize.weighed(query) if isinstance(tokenize, Analyser) else [(token, 1.0) for token in tokenize(query)]


def query_weights(tokenize: Tokenizer, query: str) -> dict[str, float]:
    """Return the weight of each token of a query: its frequency, unless the tokenizer sets weights."""
    weights: dict[str, float] = {}
    for token, weight in weighed(tokenize, query):
        weights[token] = weights.get(token, 0.0) + weight
    return weights


def rarity_of(count: int, size: int) -> float:
    """Return the inverse document frequency of a token that occurs in `count` of `size` titles.

    The formula is that of Lucene's BM25, log(1 + (size - count + 0.5) / (count + 0.5)).
    """
    return math.log(1.0 + (size - count + 0.5) / (count + 0.5))


class WordStatistics:
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
