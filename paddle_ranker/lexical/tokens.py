"""Tokenizers by name: the analyser `standard`; for baselines, jieba's words and character bigrams."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from paddle_ranker.errors import UsageError, quoted, refuse_text
from paddle_ranker.lexical.analyser import Analyser, jieba_segmenter, pieces, standard
from paddle_ranker.unicode.character_kinds import normalise
from paddle_ranker.unicode.characters import UNIT, UNSPACED, WORD, code_points, fold, is_letter

Tokenizer = Callable[[str], list[str]]


_SPACED_SHARE = 0.05  # least share of texts with spaces, see `have_spaces`


def letters(text: str) -> str:
    """Return the normalised text's letters, digits and ideographs, without spaces, punctuation and symbols."""
    return _only_letters(normalise(text))


def _only_letters(text: str) -> str:
    codes = code_points(text)
    return codes[is_letter(codes)].tobytes().decode("utf-32-le")


def bigrams(text: str) -> list[str]:
    """Return all pairs of neighbouring characters of `letters(text)`; a single character is returned as it is."""
    run = letters(text)
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run] * bool(run)


def words(text: str) -> list[str]:
    """Return jieba's words of a text, without words of punctuation and symbols."""
    text = normalise(text)
    kept = {*_only_letters(text)}
    return [word for word in jieba_segmenter().lcut(text) if not kept.isdisjoint(word)]


STANDARD = "standard"
# Published baselines use jieba's words and character bigrams.
TOKENIZERS: dict[str, Tokenizer] = {STANDARD: standard, "jieba": words, "bigram": bigrams}


def have_spaces(texts: Iterable[str]) -> bool:
    """Return whether at least 5% of texts have more words in scripts with spaces than characters in scripts without."""
    refuse_text(texts, "texts")
    spaced = total = 0
    for text in texts:
        words = units = 0
        for _, run, shape in pieces(fold(text)):
            words += WORD in shape
            units += sum(map(str.isalnum, run)) if shape[0] in (UNIT, UNSPACED) else 0
        total += bool(words or units)
        spaced += words > units
    return spaced >= max(1.0, _SPACED_SHARE * total)


def tokenizer_named(name: str) -> Tokenizer:
    """Return the tokenizer of a name in `TOKENIZERS`; raises `UsageError` for another name."""
    if name not in TOKENIZERS:
        raise UsageError(f"tokenizer {quoted(name)}: choose from {', '.join(TOKENIZERS)}")
    return TOKENIZERS[name]


def weighed(tokenize: Tokenizer, query: str) -> Iterable[tuple[str, float]]:
    """Return the tokens of a query with their weights; a weight is 1 unless the tokenizer sets it."""
    return tokenize.weighed(query) if isinstance(tokenize, Analyser) else [(token, 1.0) for token in tokenize(query)]


def query_weights(tokenize: Tokenizer, query: str) -> dict[str, float]:
    """Return the weight of each token of a query: its frequency, unless the tokenizer sets weights."""
    weights: dict[str, float] = {}
    for token, weight in weighed(tokenize, query):
        weights[token] = weights.get(token, 0.0) + weight
    return weights
