"""BM25: its formula, its statistics, and a scorer of pairs.

`BM25`, `WordSearcher` and `lexical.graph.lexical_features` share the formula: `idf`, `length_norm` and `saturated`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Optional

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paddle_ranker.errors import DataError, refuse_text
from paddle_ranker.lexical.tokens import tokenizer_named

K1, B = 1.2, 0.75  # Lucene's: saturation of repeated tokens, and weight of a text's length


def idf(frequency: ArrayLike, size: int) -> NDArray[np.float64]:
    """Return the inverse document frequency of tokens that occur in `frequency` of `size` texts, in the same shape.

    The formula is that of Lucene's BM25, log(1 + (size - frequency + 0.5) / (frequency + 0.5)).
    """
    count = np.asarray(frequency, np.float64)
    return np.asarray(np.log1p((size - count + 0.5) / (count + 0.5)))


# Without defaults, because Paddle's conversion to a static graph evaluates them without this module's names.
def length_norm(length: Any, average: Any, b: float) -> Any:
    """Return texts' normalised lengths, 1 for a text of average length; takes numbers, arrays or tensors."""
    return 1.0 - b + b * length / average


def saturated(frequency: Any, norm: Any, k1: float) -> Any:
    """Return the score that a token with idf 1 adds; takes numbers, arrays or tensors.

    frequency: frequency of the token in the text
    norm: the text's normalised length, see `length_norm`
    """
    return frequency * (k1 + 1.0) / (frequency + k1 * norm)


class WordStatistics:
    """Statistics of titles for BM25 and for lexical features.

    Attributes:
        frequency: number of titles with each token.
        size: number of titles.
        average_length: mean length of a title in tokens.
    """

    def __init__(self, titles: Iterable[Sequence[str]]) -> None:
        self.frequency: Counter[str] = Counter()
        self.size = 0
        length = 0
        for tokens in titles:
            self.frequency.update(set(tokens))
            self.size += 1
            length += len(tokens)
        self.average_length = length / self.size if length else 1.0
        self._idf = dict(zip(self.frequency, idf([*self.frequency.values()], self.size).tolist()))
        self._unseen = float(idf(0, self.size))

    def idf(self, token: str) -> float:
        """Return the inverse document frequency of a token; for an unknown token, that of a token in no title."""
        return self._idf.get(token, self._unseen)


class BM25:
    """Scorer of pairs by Okapi BM25 (Robertson and Zaragoza 2009), a baseline that needs no labels.

    tokenizer: "jieba" for words, "bigram" for pairs of neighbouring characters, "standard" for words of any script
    normalised: whether each score is divided by the score of a title equal to the query, to make queries comparable
    """

    def __init__(self, tokenizer: str = "jieba", normalised: bool = True) -> None:
        self.tokenize = tokenizer_named(tokenizer)
        self.normalised = normalised
        self.statistics = WordStatistics([])

    def fit(self, queries: Sequence[str], titles: Sequence[str], labels: Optional[Sequence[float]] = None) -> None:
        """Learn idf and mean title length from the distinct titles; queries and labels are ignored."""
        refuse_text(titles, "titles")
        self.statistics = WordStatistics(self.tokenize(title) for title in dict.fromkeys(titles))

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> NDArray[np.float64]:
        """Return one score per pair, `[pairs] float64`, at least 0.

        If normalised, a title equal to the query gets 1, unless the query has no tokens. Raises `DataError` unless
        `fit` got titles.
        """
        refuse_text(queries, "queries")
        refuse_text(titles, "titles")
        if not self.statistics.size:
            raise DataError("BM25 knows no titles: call fit with some before score")
        tokenize = lru_cache(maxsize=4096)(self.tokenize)  # a query comes with many titles
        scores = (self.score_tokens(tokenize(query), self.tokenize(title)) for query, title in zip(queries, titles))
        return np.fromiter(scores, np.float64, len(queries))

    def score_tokens(self, query: Sequence[str], title: Sequence[str]) -> float:
        """Return the score of one tokenized pair, normalised if `self.normalised`."""
        score = self._score(query, title)
        highest = self._score(query, query) if self.normalised and score else 1.0
        return score / highest

    def _score(self, query: Sequence[str], title: Sequence[str]) -> float:
        counts, norm = Counter(title), length_norm(len(title), self.statistics.average_length, B)
        return sum(
            self.statistics.idf(token) * saturated(counts[token], norm, K1) for token in query if token in counts
        )


def text_statistics(
    texts: Iterable[NDArray[np.int32]],
    vocab_size: int,
    never_match: Sequence[int],
    text_ids: Optional[NDArray[np.int64]] = None,
) -> tuple[NDArray[np.float32], float]:
    """Return the idf of each token of a vocabulary, `[vocab_size]` float32, and the mean length of encoded texts.

    Equal texts count once. Ids of `never_match` have idf 0 and do not count in a text's length. The mean length is at
    least 1. Raises `DataError` without texts.

    texts: ids of each text, `[tokens]`
    text_ids: for each id, the id that replaces it before counting and before the comparison with `never_match`,
        `[vocab_size]`; the idf of an id that replaces no id has no meaning. None: ids are not replaced
    """
    frequency, total, seen = np.zeros(vocab_size, dtype=np.int64), 0, set()
    excluded = np.zeros(vocab_size, dtype=bool)
    excluded[list(never_match)] = True
    for ids in texts:
        # A digest of 8 bytes distinguishes a hundred million texts, at a fraction of their memory.
        digest = blake2b(ids.tobytes(), digest_size=8).digest()
        if digest not in seen:
            seen.add(digest)
            counted = ids if text_ids is None else text_ids[ids]
            counted = counted[~excluded[counted]]
            frequency[np.unique(counted)] += 1
            total += len(counted)
    if not seen:
        raise DataError("no titles to learn token frequencies from: give at least one training pair")
    weights = np.where(excluded, 0.0, idf(frequency, len(seen)))
    return weights.astype(np.float32), max(total / len(seen), 1.0)
