"""Scoring: pairs in, probabilities out, in the order they came; everything that scores goes through here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Optional, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding.batching import scoring_batches
from paddle_ranker.encoding.columns import Arrays, Columns, EncodedPairs
from paddle_ranker.encoding.pair_encoder import PairRowEncoder
from paddle_ranker.encoding.windows import Windows
from paddle_ranker.metrics.calibration import Calibration, sigmoid
from paddle_ranker.metrics.ranking import Floats
from paddle_ranker.model.opened import LOGIT
from paddle_ranker.scoring.engines.base import Engine

CHUNK = 8192  # pairs held at once when a file is streamed; enough to sort by length well

T = TypeVar("T")


class BatchRunner:
    """Run columns through an engine in batches of similar length.

    Args:
        engine: what computes.
        max_seq_length: tokens of the longest row.
        batch_size: a batch holds at most `batch_size` rows of full length, or as many shorter ones as cost the same;
            fewer where the engine has `batch_tokens`, the padded tokens at which it is fastest.

    Attributes: `max_tokens`, `max_rows`, the largest batch.
    """

    def __init__(self, engine: Engine, max_seq_length: int, batch_size: int = 32):
        self.engine = engine
        most = batch_size * max_seq_length
        self.max_tokens = min(most, getattr(engine, "batch_tokens", most))
        self.max_rows = 4 * batch_size

    def run(self, columns: Columns, share: int = 0, shares: int = 1) -> Arrays:
        """Return the engine's outputs for every row, by name, `[n, ...]` each, in the rows' order.

        Of several `shares` one is computed, every n-th batch; the other rows are 0.
        """
        found: Arrays = {}
        batches = scoring_batches(columns.lengths, self.max_tokens, self.max_rows)
        for rows in islice(batches, share, None, shares):
            outputs = self.compute(columns, rows)
            found = found or _zeros(outputs, len(columns))
            for name, array in outputs.items():
                found[name][rows] = array
        return found or _zeros(self.engine.limits.empty(), len(columns))  # no rows, or fewer batches than shares

    def compute(self, columns: Columns, rows: NDArray[np.int64]) -> Arrays:
        """Return the outputs, by name, for the rows at `rows` `[batch]`, computed as one batch."""
        return self.engine.run(columns.pad(rows))


def _zeros(outputs: Arrays, rows: int) -> Arrays:
    """Return arrays of zeros, by the names, types and shapes of outputs, for so many rows."""
    return {name: np.zeros((rows, *array.shape[1:]), array.dtype) for name, array in outputs.items()}


class Scorer(BatchRunner):
    """Score pairs in batches of similar length: probability = sigmoid(logit), the logit calibrated where it can be.

    Args:
        engine, batch_size: as of `BatchRunner`.
        row_encoder: the ranker's own.
        calibration: the ranker's own; None: the engine's logits as they are.
        windows: what pairs that are too long become; None: they are cut.
    """

    def __init__(
        self,
        engine: Engine,
        row_encoder: PairRowEncoder,
        batch_size: int = 32,
        *,
        calibration: Optional[Calibration] = None,
        windows: Optional[Windows] = None,
    ):
        super().__init__(engine, row_encoder.max_seq_length, batch_size)
        self.row_encoder = row_encoder
        self.calibration = calibration
        self.windows = windows

    def encode(self, queries: Sequence[str], titles: Sequence[str]) -> Columns:
        """Encode pairs as `logits` takes them: whole where windows cut them later."""
        return self.row_encoder.encode(queries, titles, truncate=self.windows is None)

    def logits(self, pairs: Columns, share: int = 0, shares: int = 1) -> Floats:
        """Return the logits of encoded pairs, `[n]` float64, in their order.

        Shares are those of `run`; windows cannot be shared.
        """
        if self.windows is None:
            return self.logits_in(self.run(pairs, share, shares))
        if shares > 1:
            raise ValueError("the logits of windows are pooled before they are shared out: score in one process")
        logits = np.zeros(len(pairs), dtype=np.float64)
        for rows, part in pairs.chunks(CHUNK):  # windows are many: those of a chunk are in memory, not of all
            split = self.windows.split(cast(EncodedPairs, part))  # a blend refuses whole pairs
            logits[rows] = self.windows.pool(self.logits_in(self.run(split.pairs)), split.offsets)
        return logits

    def logits_in(self, outputs: Arrays) -> Floats:
        """Return the logits in what a ranker's engine has returned, `[n]` float64, calibrated where they can be."""
        logits = outputs[LOGIT].reshape(-1).astype(np.float64)
        return logits if self.calibration is None else self.calibration.apply(logits)

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the probability of every (query, title), `[n]` float64; each depends on its pair alone."""
        return sigmoid(self.logits(self.encode(queries, titles)))


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yield lists of up to `size` items: the way to score a file larger than memory."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part
