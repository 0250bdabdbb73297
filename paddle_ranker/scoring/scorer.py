"""Scoring: pairs in, probabilities out, in the order they came; everything that scores goes through here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Optional, TypeVar

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding.batching import scoring_batches
from paddle_ranker.encoding.pair_encoder import EncodedPairs, PairEncoder
from paddle_ranker.encoding.windows import Windows
from paddle_ranker.metrics.calibration import Calibration, sigmoid
from paddle_ranker.scoring.engines.base import Engine

CHUNK = 8192  # pairs held at once when a file is streamed; enough to sort by length well

T = TypeVar("T")


class Scorer:
    """Score pairs in batches of similar length: probability = sigmoid(logit), the logit calibrated where it can be.

    Args:
        engine: what computes logits.
        pair_encoder: the ranker's own.
        batch_size: a batch holds at most `batch_size` pairs of full length, or as many shorter ones as cost the same;
            fewer where the engine has `batch_tokens`, the padded tokens at which it is fastest.
        calibration: the ranker's own; None: the engine's logits as they are.
        windows: what pairs that are too long become; None: they are cut.
    """

    def __init__(
        self,
        engine: Engine,
        pair_encoder: PairEncoder,
        batch_size: int = 32,
        *,
        calibration: Optional[Calibration] = None,
        windows: Optional[Windows] = None,
    ):
        self.engine = engine
        self.pair_encoder = pair_encoder
        most = batch_size * pair_encoder.max_seq_length
        self.max_tokens = min(most, getattr(engine, "batch_tokens", most))
        self.max_rows = 4 * batch_size
        self.calibration = calibration
        self.windows = windows

    def encode(self, queries: Sequence[str], titles: Sequence[str]) -> EncodedPairs:
        """Encode pairs as `logits` takes them: whole where windows cut them later."""
        return self.pair_encoder.encode(queries, titles, truncate=self.windows is None)

    def logits(self, pairs: EncodedPairs, share: int = 0, shares: int = 1) -> np.ndarray:
        """Return the logits of encoded pairs, `[n]` float64, in their order.

        Of several `shares` one is computed, every so-manieth batch; the other rows are 0. Windows cannot be shared.
        """
        if self.windows is None:
            return self._batched(pairs, share, shares)
        if shares > 1:
            raise ValueError("the logits of windows are pooled before they are shared out: score in one process")
        logits = np.zeros(len(pairs), dtype=np.float64)
        for start in range(0, len(pairs), CHUNK):  # windows are many: those of a chunk are in memory, not of all
            rows = np.arange(start, min(len(pairs), start + CHUNK))
            split = self.windows.split(pairs.take(rows))
            logits[rows] = self.windows.pool(self._batched(split.pairs), split.offsets)
        return logits

    def _batched(self, pairs: EncodedPairs, share: int = 0, shares: int = 1) -> np.ndarray:
        logits = np.zeros(len(pairs), dtype=np.float64)
        batches = scoring_batches(pairs.lengths, self.max_tokens, self.max_rows)
        for rows in islice(batches, share, None, shares):
            logits[rows] = self.logits_of(pairs, rows)
        return logits

    def logits_of(self, pairs: EncodedPairs, rows: NDArray[np.int64]) -> np.ndarray:
        """Return the logits of the pairs `rows` `[batch]`, `[batch]`, computed as one batch."""
        return self.batch_logits(*pairs.pad(rows, self.pair_encoder.pad_id))

    def batch_logits(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
        """Return the logits, `[batch]`, of one padded batch as the engine takes it: int64 `[batch, length]` each."""
        computed = self.engine.logits(input_ids, token_type_ids)
        return computed if self.calibration is None else self.calibration.apply(computed)

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
        """Return the probability of every (query, title), `[n]` float64; each depends on its pair alone."""
        return sigmoid(self.logits(self.encode(queries, titles)))


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yield lists of up to `size` items: the way to score a file larger than memory."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
