"""Lexical features as a part of a ranker's head: logit = head(pooled) + linear(standardised features).

Inverse document frequencies, the mean title length, and the features' means and standard deviations are learned from
the training pairs before training; they are saved with the parameters. If the ranker's head is new, a logistic
regression on the training pairs gives the features' initial weights: weights that start at zero gain less in the steps
that an encoder needs (`python -m benchmarks.qbqtc --systems ranker_with_lexical`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Optional

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn

from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.encoding.tokenizers.interface import Spelling
from paddle_ranker.lexical.bm25 import text_statistics
from paddle_ranker.lexical.graph import GRAPH_FEATURES, lexical_features
from paddle_ranker.lexical.token_comparison import Speller, compared
from paddle_ranker.metrics.logistic import fit_logistic
from paddle_ranker.metrics.ranking import RELEVANT, standardise

SAMPLE = 20_000  # number of training pairs on which means and deviations are measured
_CHUNK = 4096
_BATCH_SQUARES = 1 << 20  # most values of a `[batch, length, length]` matrix


class FeatureHead(nn.Layer):
    """Layer that adds a weighted sum of a pair's features to its logit; subclasses define `features`.

    The weights of a new head are zero. `learn_heads` sets its tables and the initial weights.

    Args:
        count: number of features.
        squares: maximum size of a batch in `of_pairs`, as the number of values of a `[batch, length, length]` matrix.
    """

    def __init__(self, count: int, squares: int):
        super().__init__()
        self.count, self._squares = count, squares
        self.register_buffer("mean", paddle.zeros([count]))
        self.register_buffer("deviation", paddle.ones([count]))
        self.weight = self.create_parameter([count], default_initializer=nn.initializer.Constant(0.0))

    def features(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the features without standardisation, `[batch, count]` float32."""
        raise NotImplementedError

    def learn_tables(self, pairs: EncodedPairs) -> None:
        """Learn the tables of `features` from the training pairs; a head without tables learns nothing."""

    @property
    def has_learned(self) -> bool:
        """Whether means and deviations have been learned or loaded."""
        return bool((self.mean != 0).any())

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the contribution of the features to the logits, `[batch]` float32.

        input_ids, token_type_ids: `[batch, length]` int64
        """
        return self.of_features(self.features(input_ids, token_type_ids))

    def of_features(self, features: Tensor) -> Tensor:
        """Return the contribution of features `[batch, count]` to the logits, `[batch]` float32."""
        # A matrix product would be computed in half precision by mixed precision.
        return ((features - self.mean) / self.deviation * self.weight).sum(axis=1)

    def standardised(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the features, standardised by the learned mean and deviation, `[batch, count]` float32."""
        return (self.features(input_ids, token_type_ids) - self.mean) / self.deviation

    def scale(self, features: np.ndarray) -> np.ndarray:
        """Learn `mean` and `deviation` from `features`, `[n, count]`; return the standardised features."""
        scaled = standardise(features, np.float32)
        self.mean.set_value(scaled.mean.astype(np.float32))
        self.deviation.set_value(scaled.deviation.astype(np.float32))
        return scaled.values

    def of_pairs(self, pairs: EncodedPairs, indices: np.ndarray, *, standardise: bool = False) -> np.ndarray:
        """Return the features of the pairs at `indices` [n], in that order, `[n, count]` float32.

        standardise: whether to return the result of `standardised`, not of `features`
        """
        features = np.empty((len(indices), self.count), dtype=np.float32)
        lengths = pairs.lengths_of(indices)
        order = np.argsort(lengths, kind="stable")
        compute = self.standardised if standardise else self.features
        start = 0
        with paddle.no_grad():
            while start < len(order):
                # A batch's last pair is its longest, because pairs are sorted by length.
                longest = lengths[order[start : start + _CHUNK]]
                fits = np.arange(1, len(longest) + 1) * longest.astype(np.int64) ** 2 <= self._squares
                rows = order[start : start + max(1, int(fits.sum()))]
                batch = pairs.pad(indices[rows]).values()
                features[rows] = compute(*(paddle.to_tensor(array) for array in batch)).numpy()
                start += len(rows)
        return features


def learn_heads(
    heads: Sequence[FeatureHead],
    pairs: EncodedPairs,
    labels_of: Optional[Callable[[np.ndarray], np.ndarray]] = None,
) -> None:
    """Learn the tables of new heads from the training pairs; from a sample of the pairs, learn all other values.

    These values are the features' means and deviations and, with `labels_of`, the features' weights.

    labels_of: called with indices of pairs, `[n]`; returns the pairs' labels, `[n]`. A logistic regression of the
        labels on the features of all heads gives the weights. If all labels are relevant, or none is, the weights stay
        zero. None: the weights stay zero

    Raises `DataError` without pairs.
    """
    for head in heads:
        head.learn_tables(pairs)
    # With a fixed seed, every process draws the same sample.
    draw = np.random.default_rng(0).choice(len(pairs), min(SAMPLE, len(pairs)), replace=False)
    sample = np.sort(draw).astype(np.int64)
    inputs = [head.scale(head.of_pairs(pairs, sample).astype(np.float64)) for head in heads]
    labels = np.zeros(0) if labels_of is None else labels_of(sample)
    if len(np.unique(labels >= RELEVANT)) == 2:
        weights = fit_logistic(np.concatenate(inputs, axis=1), labels).weights.astype(np.float32)
        for head, head_weights in zip(heads, np.split(weights, np.cumsum([head.count for head in heads])[:-1])):
            head.weight.set_value(head_weights)


class LexicalHead(FeatureHead):
    """Layer that computes the lexical features' contribution to a pair's logit.

    Args:
        vocab_size: number of tokens in the model's vocabulary.
        never_match: ids of the special tokens, padding and [UNK].
        spelling: the spelling of each token, used to compare tokens; None compares them by id.
    """

    def __init__(self, vocab_size: int, never_match: Sequence[int], spelling: Optional[Spelling] = None):
        super().__init__(len(GRAPH_FEATURES), _BATCH_SQUARES)
        self.never_match = sorted(never_match)
        self.speller = None if spelling is None else Speller(vocab_size, spelling)
        self.register_buffer("idf", paddle.zeros([vocab_size]))
        self.register_buffer("average_length", paddle.ones([1]))

    def features(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the features without standardisation, `[batch, 18]` float32."""
        tokens = compared(self.speller, input_ids, token_type_ids)
        return lexical_features(tokens, self.idf, self.average_length, self.never_match)

    def learn_tables(self, pairs: EncodedPairs) -> None:
        """Learn idf and mean length from the distinct titles, as truncated in the pairs."""
        text_ids = None if self.speller is None else self.speller.ids
        idf, average_length = title_statistics(pairs, self.idf.shape[0], self.never_match, text_ids)
        self.idf.set_value(idf)
        self.average_length.set_value(np.array([average_length], dtype=np.float32))

    def learn(self, pairs: EncodedPairs, labels_of: Optional[Callable[[np.ndarray], np.ndarray]] = None) -> None:
        """Learn the tables, means, deviations and weights of this head alone, see `learn_heads`."""
        learn_heads([self], pairs, labels_of)

    @property
    def has_learned(self) -> bool:
        """Whether the idf values have been learned or loaded."""
        return bool((self.idf > 0).any())


def title_statistics(
    pairs: EncodedPairs, vocab_size: int, never_match: Sequence[int], text_ids: Optional[np.ndarray] = None
) -> tuple[np.ndarray, float]:
    """Return `text_statistics` of the titles of `pairs`, reading the titles in parts."""

    def titles() -> Iterator[NDArray[np.int32]]:
        for start in range(0, len(pairs), _CHUNK):
            part = pairs.take(np.arange(start, min(start + _CHUNK, len(pairs))))
            for number, second in enumerate(part.second_starts.tolist()):
                yield part[number][second:]

    return text_statistics(titles(), vocab_size, never_match, text_ids)
