"""Pairs of texts that a ranker learns from: encoded once, with what losses look at, as the trainer takes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding.batching import Groups
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.ranking import Integers, Numbers
from paddle_ranker.storage.arrays import gather
from paddle_ranker.training.losses.expression import RankingLoss

if TYPE_CHECKING:
    from paddle import Tensor, nn


@dataclass(frozen=True)
class EncodedExamples:
    """n encoded pairs. Every `rows_each` adjacent ones are an example.

    labels: `[n]` float32, 1 and above is relevant; None: of each example's pairs the first one alone is
    queries: `[n]` int64, the same number for all pairs of a query, wherever they stand; None: not distinguished
    teacher: `[n]` float32, a teacher's logits; None: no loss asks for them
    highest_label: of all pairs
    """

    pairs: EncodedPairs
    labels: Optional[NDArray[np.float32]] = None
    queries: Optional[Integers] = None
    teacher: Optional[NDArray[np.float32]] = None
    highest_label: float = 1.0
    rows_each: int = 1

    def __len__(self) -> int:
        return len(self.pairs) // self.rows_each

    def lengths(self, indices: Integers) -> Integers:
        """Return the tokens of the longest pair of each of the examples `indices`, both `[m]`: its cost in a batch."""
        rows = self.rows_each * indices[:, None] + np.arange(self.rows_each)
        longest: Integers = self.pairs.lengths_of(rows).max(axis=1)
        return longest


class RankingExamples(ABC):
    """Encoded examples as the trainer takes them; a recipe adds `loss`. Attribute: `pairs`, all of them, encoded.

    Args:
        data: where it tells queries apart, the pairs of a query share a batch.
        loss: by default the binary cross-entropy of one logit, which is the published two-class head's cross-entropy.

    Raises `ValueError` for a loss that looks at what the data do not hold.
    """

    def __init__(self, data: EncodedExamples, loss: Optional[RankingLoss] = None):
        loss = loss or RankingLoss("bce")
        if loss.expression.of_teacher and data.teacher is None:
            raise ValueError(f"{loss.expression.text} needs a teacher's scores: encode the file with loss=...")
        if loss.expression.compares_titles and data.queries is None and data.rows_each == 1:
            raise ValueError(f"{loss.expression.text} needs the queries: encode the file with with_queries=True")
        self.pairs, self.rows_each = data.pairs, data.rows_each
        self.groups: Optional[Groups] = None if data.queries is None else Groups.of(data.queries)
        self._data, self._loss = data, loss

    def __len__(self) -> int:
        return len(self._data)

    def lengths(self, indices: Integers) -> Integers:
        """Return the tokens of the longest pair of each of the examples `indices`, both `[m]`."""
        return self._data.lengths(indices)

    def weight(self, indices: Integers) -> float:
        """Return what the loss of `indices` is a mean over: their number."""
        return float(len(indices))

    def pair_labels(self, rows: Integers) -> Numbers:
        """Return the labels of the pairs `rows`, both `[m]`; without labels an example's first has 1, the others 0."""
        if self._data.labels is None:
            is_first: Numbers = rows % self.rows_each == 0
            return is_first.astype(np.float64)
        labels: Numbers = gather(self._data.labels, rows)
        return labels

    @abstractmethod
    def loss(self, network: nn.Layer, indices: Integers) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the examples `indices`, and further means for the progress line."""

    def logits(self, network: nn.Layer, rows: Integers) -> Tensor:
        """Return the network's logits of the pairs `rows` [m], `[m]` float32."""
        import paddle

        return network(*map(paddle.to_tensor, self.pairs.pad(rows).values())).astype("float32")

    def loss_of(self, logits: Tensor, rows: Integers, queries: Optional[Integers] = None) -> Tensor:
        """Return the mean loss of `logits` of the pairs `rows`, `[m]` each; `queries`: where the data have none."""
        data = self._data
        queries = gather(data.queries, rows) if data.queries is not None else queries
        teacher = None if data.teacher is None else gather(data.teacher, rows)
        return self._loss(logits, self.pair_labels(rows), queries, teacher)


def teacher_column(
    name: str, losses: Sequence[str], scores: Sequence[Optional[float]], first: int = 0, column: str = "teacher_score"
) -> NDArray[np.float32]:
    """Return a teacher's logits [m], from a column of training data, as float32.

    Raises `DataError` where one is missing, naming the file, the record (the first of these is `first`, from 0) and
    the losses that need it.
    """
    for number, score in enumerate(scores, first + 1):
        if score is None:
            raise DataError(
                f"{name}: record {number:,} has no {column}, which --loss {'+'.join(losses)} learns from: add a column "
                f"{column} with the teacher's logits"
            )
    return np.array(scores, dtype=np.float32)
