"""Lexical features as a part of a ranker's head: logit = head(pooled) + linear(standardised features).

The table of inverse document frequencies, the mean length of a title, and the features' means and deviations are
learned from the training pairs before training; they are saved with the parameters, and stay as they are from then on.
Under a head that is new as well, the weights start as those of a logistic regression on the training pairs: from zero
they come to less in the time that an encoder takes (`python -m benchmarks.qbqtc --systems ranker_with_lexical`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Optional

import numpy as np
import paddle
from paddle import Tensor, nn

from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.errors import DataError
from paddle_ranker.lexical.graph import GRAPH_FEATURES, lexical_features
from paddle_ranker.metrics.logistic import fit_logistic
from paddle_ranker.metrics.ranking import RELEVANT

SAMPLE = 20_000  # training pairs that means and deviations are measured on
_CHUNK = 4096
_BATCH_SQUARES = 1 << 20  # values of a square matrix over a batch's tokens
_CONSTANT = 1e-6  # a feature that deviates less is the same in all pairs


class LexicalHead(nn.Layer):
    """Turn the lexical features of pairs into a share of their logits.

    New, it adds nothing: its weights are zero. `learn` gives it its tables, and weights to start from.

    Args:
        vocab_size: tokens of the model.
        never_match: ids of the special tokens, padding and [UNK].
    """

    def __init__(self, vocab_size: int, never_match: Sequence[int]):
        super().__init__()
        self.never_match = sorted(never_match)
        count = len(GRAPH_FEATURES)
        self.register_buffer("idf", paddle.zeros([vocab_size]))
        self.register_buffer("average_length", paddle.ones([1]))
        self.register_buffer("mean", paddle.zeros([count]))
        self.register_buffer("deviation", paddle.ones([count]))
        self.weight = self.create_parameter([count], default_initializer=nn.initializer.Constant(0.0))

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return what the features add to the logits, `[batch]` float32, of `[batch, length]` int64 ids and types."""
        # A product and a sum rather than a matrix product, which mixed precision would compute in half precision.
        return (self.standardised(input_ids, token_type_ids) * self.weight).sum(axis=1)

    def standardised(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the features with mean 0 and deviation 1 over the training pairs, `[batch, 18]` float32."""
        return (self.features(input_ids, token_type_ids) - self.mean) / self.deviation

    def features(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the features as they are, `[batch, 18]` float32."""
        return lexical_features(input_ids, token_type_ids, self.idf, self.average_length, self.never_match)

    def learn(self, pairs: EncodedPairs, labels_of: Optional[Callable[[np.ndarray], np.ndarray]] = None) -> None:
        """Learn tables, means and deviations from the training pairs, each title counting once.

        Titles are counted as they stand in the pairs: cut to the ranker's length. With `labels_of`, which returns the
        labels `[n]` of the pairs at indices `[n]`, the weights become those of a logistic regression; they stay zero
        where the labels are all of one kind. Raises `DataError` without pairs.
        """
        idf, average_length = count_titles(pairs, self.idf.shape[0], self.never_match)
        self.idf.set_value(idf)
        self.average_length.set_value(np.array([average_length], dtype=np.float32))
        # Of a seed of its own, so that every process draws the same.
        draw = np.random.default_rng(0).choice(len(pairs), min(SAMPLE, len(pairs)), replace=False)
        sample = np.sort(draw).astype(np.int64)
        features = self.of_pairs(pairs, sample).astype(np.float64)
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        deviation = np.where(deviation > _CONSTANT, deviation, 1.0)
        self.mean.set_value(mean.astype(np.float32))
        self.deviation.set_value(deviation.astype(np.float32))
        labels = np.zeros(0) if labels_of is None else labels_of(sample)
        if len(np.unique(labels >= RELEVANT)) == 2:
            self.weight.set_value(fit_logistic((features - mean) / deviation, labels).weights.astype(np.float32))

    @property
    def has_learned(self) -> bool:
        """Whether it has its tables."""
        return bool((self.idf > 0).any())

    def of_pairs(self, pairs: EncodedPairs, indices: np.ndarray, *, standardise: bool = False) -> np.ndarray:
        """Return the features of the pairs `indices` [n], `[n, 18]` float32, in their order."""
        features = np.empty((len(indices), len(GRAPH_FEATURES)), dtype=np.float32)
        lengths = pairs.lengths_of(indices)
        order = np.argsort(lengths, kind="stable")
        compute = self.standardised if standardise else self.features
        start = 0
        with paddle.no_grad():
            while start < len(order):
                # The longest of a batch is its last; a batch twice as long would hold a quarter of the pairs.
                longest = lengths[order[start : start + _CHUNK]]
                fits = np.arange(1, len(longest) + 1) * longest.astype(np.int64) ** 2 <= _BATCH_SQUARES
                rows = order[start : start + max(1, int(fits.sum()))]
                batch = pairs.pad(indices[rows]).values()
                features[rows] = compute(*(paddle.to_tensor(array) for array in batch)).numpy()
                start += len(rows)
        return features


def count_titles(pairs: EncodedPairs, vocab_size: int, never_match: Sequence[int]) -> tuple[np.ndarray, float]:
    """Return the inverse document frequency of each token, `[vocab_size]` float32, and the mean length of a title.

    Over the distinct titles of `pairs`, read a part at a time; idf = log(1 + (N - n + 0.5) / (n + 0.5)) for a token
    that stands in n of N titles, as Lucene's BM25. The ids of `never_match` are 0 and have no length.
    Raises `DataError` where there is no title.
    """
    frequency, total, seen = np.zeros(vocab_size, dtype=np.int64), 0, set()
    excluded = np.zeros(vocab_size, dtype=bool)
    excluded[list(never_match)] = True
    for start in range(0, len(pairs), _CHUNK):
        part = pairs.take(np.arange(start, min(start + _CHUNK, len(pairs))))
        for number, second in enumerate(part.second_starts.tolist()):
            title = part[number][second:]
            # 8 bytes keep a hundred million titles apart, at a fraction of their memory.
            digest = blake2b(title.tobytes(), digest_size=8).digest()
            if digest not in seen:
                seen.add(digest)
                title = title[~excluded[title]]
                frequency[np.unique(title)] += 1
                total += len(title)
    if not seen:
        raise DataError("no titles to learn token frequencies from: give at least one training pair")
    idf = np.log1p((len(seen) - frequency + 0.5) / (frequency + 0.5))
    return np.where(excluded, 0.0, idf).astype(np.float32), max(total / len(seen), 1.0)
