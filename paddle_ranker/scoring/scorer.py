"""Turn pairs into probabilities, in the given order; all scoring goes through this module."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Optional, cast

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Arrays, Floats
from paddle_ranker.encoding.batching import batches_of_columns, most_tokens
from paddle_ranker.encoding.columns import Columns, EncodedPairs
from paddle_ranker.encoding.pair_encoder import LengthCheck, PairRowEncoder
from paddle_ranker.errors import require_pairs
from paddle_ranker.metrics.calibration import Calibration, sigmoid
from paddle_ranker.model.model_kind import LOGIT, TOKEN_LOGITS
from paddle_ranker.scoring.engines.engine import Engine
from paddle_ranker.storage.prefetch import CHUNK

if TYPE_CHECKING:
    from paddle_ranker.encoding.windows import Windows

_SHORT = 4  # rows with fewer tokens than this do not make batches of more rows


class BatchRunner:
    """Runner of an engine over columns, in batches of rows of similar length.

    Args:
        engine: computes the outputs.
        max_seq_length: token count of the longest row.
        batch_size: number of rows in a batch if each row has `max_seq_length` or 512 tokens, whichever is fewer. Other
            batches have as many padded tokens, or the engine's `batch_tokens`, whichever is fewer.

    Attributes:
        max_tokens: maximum number of padded tokens in a batch.
        max_rows: maximum number of rows in a batch.
        by_query: whether batches are formed query by query, since the engine computes a query only once per batch.
    """

    def __init__(self, engine: Engine, max_seq_length: int, batch_size: int = 256):
        self.engine = engine
        most = most_tokens(batch_size, max_seq_length)
        self.max_tokens = min(most, getattr(engine, "batch_tokens", most))
        self.max_rows = max(1, min(4 * batch_size, self.max_tokens // _SHORT))
        self.by_query = engine.limits.shares_queries

    def run(self, columns: Columns, share: int = 0, shares: int = 1) -> Arrays:
        """Return a dict from output name to the engine's outputs for all rows, `[n, ...]`, in the rows' order.

        With several `shares`, only the batches number `share`, `share + shares`, ... are computed; the outputs for the
        rows of other batches are 0.
        """
        results: Arrays = {}
        batches = batches_of_columns(columns, self.max_tokens, self.max_rows, self.by_query)
        for rows in islice(batches, share, None, shares):
            outputs = self.compute(columns, rows)
            results = results or _zeros(outputs, len(columns))
            for name, array in outputs.items():
                results[name][rows] = array
        # Without rows, or with fewer batches than shares.
        return results or _zeros(self.engine.limits.empty(), len(columns))

    def compute(self, columns: Columns, rows: NDArray[np.int64]) -> Arrays:
        """Return a dict from output name to the outputs for the rows at `rows` `[batch]`, computed as one batch."""
        return self.engine.run(columns.pad(rows))


def _zeros(outputs: Arrays, rows: int) -> Arrays:
    """Return arrays of zeros with the names, types and shapes of `outputs`, but `rows` rows."""
    return {name: np.zeros((rows, *array.shape[1:]), array.dtype) for name, array in outputs.items()}


class Scorer(BatchRunner):
    """Scorer of pairs, in batches of similar length: probability = sigmoid(logit).

    engine, batch_size: as for `BatchRunner`
    row_encoder: the ranker's encoder
    calibration: the ranker's calibration, applied to the logits; if it is None, the engine's logits stay unchanged
    windows: splits pairs that are too long; if it is None, such pairs are truncated
    """

    def __init__(
        self,
        engine: Engine,
        row_encoder: PairRowEncoder,
        batch_size: int = 256,
        *,
        calibration: Optional[Calibration] = None,
        windows: Optional[Windows] = None,
    ):
        super().__init__(engine, row_encoder.max_seq_length, batch_size)
        self.row_encoder = row_encoder
        self.calibration = calibration
        self.windows = windows

    def encode(self, queries: Sequence[str], titles: Sequence[str], check: Optional[LengthCheck] = None) -> Columns:
        """Encode pairs for `logits`: truncated, or at full length if windows split them later.

        check: may refuse the pairs, see `PairEncoder.encode`
        """
        require_pairs(queries, titles)
        return self.row_encoder.encode(queries, titles, truncate=self.windows is None, check=check)

    def compute(self, columns: Columns, rows: NDArray[np.int64]) -> Arrays:
        """Compute a batch as `BatchRunner.compute` does, with `TOKEN_LOGITS` padded to the maximum length of a pair."""
        outputs = super().compute(columns, rows)
        if TOKEN_LOGITS in outputs:
            logits, most = outputs[TOKEN_LOGITS], self.row_encoder.max_seq_length
            outputs[TOKEN_LOGITS] = np.pad(logits, ((0, 0), (0, max(0, most - logits.shape[1]))))[:, :most]
        return outputs

    def logits(self, pairs: Columns, share: int = 0, shares: int = 1) -> Floats:
        """Return the logits of encoded pairs, `[n]` float64, in their order.

        `share` and `shares` are as in `run`; with windows, several shares raise `ValueError`.
        """
        if self.windows is None:
            return self.logits_in(self.run(pairs, share, shares))
        if shares > 1:
            raise ValueError("the logits of windows are pooled before they are shared out: score in one process")
        logits = np.zeros(len(pairs), dtype=np.float64)
        # There are many windows: only those of one chunk are in memory at a time.
        for rows, part in pairs.chunks(CHUNK):
            split = self.windows.split(cast(EncodedPairs, part))  # windows exclude blends
            logits[rows] = self.windows.pool(self.logits_in(self.run(split.pairs)), split.offsets)
        return logits

    def logits_in(self, outputs: Arrays) -> Floats:
        """Return the logits in a ranker engine's outputs, `[n]` float64, calibrated if there is a calibration."""
        logits = outputs[LOGIT].reshape(-1).astype(np.float64)
        return logits if self.calibration is None else self.calibration.apply(logits)

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> Floats:
        """Return the probability of each pair (queries[i], titles[i]), `[n]` float64; it depends on that pair alone."""
        return sigmoid(self.logits(self.encode(queries, titles)))
