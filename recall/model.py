"""The tower in training: every other title of the batch is a negative of a query, unless it is known to answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.encoding.batching import Groups
from paddle_ranker.metrics.ranking import Integers
from recall.data import TextPairs

_NEVER = -1e9  # the logit of a title that is no negative


class InBatchExamples:
    """Training examples: pairs, whose loss compares all texts of a batch.

    Args:
        pairs: the encoded pairs.
        scale: cosines are multiplied by it.
        margin: taken off the cosine of a query and its own title.
    """

    groups: Optional[Groups] = None

    def __init__(self, pairs: TextPairs, scale: float, margin: float):
        self.pairs, self.scale, self.margin = pairs, scale, margin
        self.rows_each = 2 if pairs.negative_of is None else 3

    def __len__(self) -> int:
        return len(self.pairs)

    def lengths(self, indices: Integers) -> Integers:
        """Return the token count of the longest text of each example in `indices`, `[m]`."""
        pairs = self.pairs
        columns = [pairs.queries.lengths_of(pairs.query_of[indices]), pairs.titles.lengths_of(pairs.title_of[indices])]
        if pairs.negative_of is not None:
            columns.append(pairs.titles.lengths_of(pairs.negative_of[indices]))
        longest: Integers = np.max(columns, axis=0)
        return longest

    def weight(self, indices: Integers) -> float:
        """Return the number of examples."""
        return float(len(indices))

    def outputs(self, network: nn.Layer, indices: Integers) -> Tensor:
        """Return the vectors of the examples' queries, then of their titles, then of their negatives."""
        pairs = self.pairs
        batches = [pairs.queries.pad(pairs.query_of[indices]), pairs.titles.pad(self._titles(indices))]
        return paddle.concat([network(*map(paddle.to_tensor, batch.values())) for batch in batches])

    def whole_loss(
        self, network: nn.Layer, outputs: Tensor, parts: Sequence[Integers]
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the mean cross-entropy of each query's own title among all titles of the batch.

        logit = scale * (cosine - margin), the margin for the own title only (Wang et al., 2018, "CosFace"). A title
        that is known to answer a query is no negative of it, nor is a repeated title.
        """
        counts = [len(part) for part in parts]
        blocks = paddle.split(outputs, [rows for count in counts for rows in (count, (self.rows_each - 1) * count)])
        queries, titles = paddle.concat(blocks[::2]), paddle.concat(blocks[1::2])
        numbers = np.concatenate([self._titles(part) for part in parts])
        own = np.concatenate([np.arange(count) + start for count, start in zip(counts, self._starts(counts))])
        asked = self.pairs.query_of[np.concatenate(parts)]

        is_own = np.zeros((len(asked), len(numbers)), bool)
        is_own[np.arange(len(asked)), own] = True
        repeated = np.ones(len(numbers), bool)
        repeated[np.unique(numbers, return_index=True)[1]] = False
        is_out = (self.pairs.is_answer(asked, numbers) | repeated) & ~is_own
        shift = np.where(is_out, _NEVER, -self.scale * self.margin * is_own).astype(np.float32)
        logits = self.scale * paddle.matmul(queries, titles, transpose_y=True) + paddle.to_tensor(shift)
        loss = F.cross_entropy(logits, paddle.to_tensor(own))
        best = logits.detach().numpy().argmax(axis=1)
        return loss, {"accuracy": float((best == own).mean())}

    def _titles(self, indices: Integers) -> Integers:
        """Return the indices of the examples' titles and then of their negatives."""
        pairs = self.pairs
        columns = [pairs.title_of] if pairs.negative_of is None else [pairs.title_of, pairs.negative_of]
        return np.concatenate([column[indices] for column in columns])

    def _starts(self, counts: Sequence[int]) -> list[int]:
        """Return where each part's titles start among those of all parts."""
        return [0, *np.cumsum([(self.rows_each - 1) * count for count in counts])[:-1].tolist()]

    def loss(self, network: nn.Layer, indices: Integers) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch of one part."""
        return self.whole_loss(network, self.outputs(network, indices), [indices])
