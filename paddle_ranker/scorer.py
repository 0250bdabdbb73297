"""Scoring: pairs in, probabilities out, in the order they came; everything that scores goes through here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import paddle
from scipy.special import expit

from paddle_ranker.batching import scoring_batches
from paddle_ranker.model import RankerNetwork
from paddle_ranker.pair_encoder import EncodedPairs, PairEncoder

CHUNK = 8192  # pairs held at once when a file is streamed; enough to sort by length well

T = TypeVar("T")


class Engine(Protocol):
    """What computes logits."""

    def logits(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        """Return float32 `[batch]` logits of int64 `[batch, length]` ids and token types."""
        ...


class DygraphEngine:
    """Run the network as it is, without dropout and gradients."""

    def __init__(self, network: RankerNetwork):
        self.network = network

    def logits(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        training = self.network.training
        self.network.eval()
        try:
            with paddle.no_grad():
                return self.network(paddle.to_tensor(input_ids), paddle.to_tensor(token_type_ids)).numpy()
        finally:
            if training:
                self.network.train()


class Scorer:
    """Score pairs in batches of similar length.

    Args:
        engine: what computes logits.
        pair_encoder: the ranker's own.
        batch_size: a batch holds at most `batch_size` pairs of full length, or as many shorter ones as cost the same.
    """

    def __init__(self, engine: Engine, pair_encoder: PairEncoder, batch_size: int = 32):
        self.engine = engine
        self.pair_encoder = pair_encoder
        self.max_tokens = batch_size * pair_encoder.max_seq_length
        self.max_rows = 4 * batch_size

    def logits(self, pairs: EncodedPairs, share: int = 0, shares: int = 1) -> np.ndarray:
        """Return the logits of encoded pairs, `[n]` float64, in their order.

        Of several `shares` one is computed, every so-manieth batch; the other rows are 0.
        """
        logits = np.zeros(len(pairs), dtype=np.float64)
        batches = scoring_batches(pairs.lengths, self.max_tokens, self.max_rows)
        for rows in islice(batches, share, None, shares):
            logits[rows] = self.engine.logits(*pairs.pad(rows, self.pair_encoder.pad_id))
        return logits

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
        """Return the probability of every (query, title), `[n]` float64; each depends on its pair alone."""
        return expit(self.logits(self.pair_encoder.encode(queries, titles)))


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yield lists of up to `size` items: the way to score a file larger than memory."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
