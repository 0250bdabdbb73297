"""A ranker's training examples: pairs of texts, encoded once, with the labels, queries and scores that losses need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Integers, Numbers
from paddle_ranker.encoding.batching import Groups
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.errors import DataError
from paddle_ranker.metrics.calibration import AUTO, LOGITS, are_probabilities, logits_of
from paddle_ranker.options import note_once
from paddle_ranker.storage.arrays import gather
from paddle_ranker.training.losses.expression import RankingLoss
from paddle_ranker.training.task import Means

if TYPE_CHECKING:
    from paddle import Tensor, nn


@dataclass(frozen=True)
class EncodedExamples:
    """The encoded pairs of a training file, `[n]`; each `rows_each` adjacent pairs are one example.

    labels: `[n]` float32; 1 and above is relevant. None: only the first pair of each example is relevant
    queries: `[n]` int64, index of each pair's query (or picture); None: queries are not distinguished
    teacher: `[n]` float32, a teacher's logits; None: no loss needs a teacher
    positions: `[n]` int64, positions at which titles were shown, from 1; None: there is no position tower
    highest_label: the highest label of all pairs
    """

    pairs: EncodedPairs
    labels: Optional[NDArray[np.float32]] = None
    queries: Optional[Integers] = None
    teacher: Optional[NDArray[np.float32]] = None
    highest_label: float = 1.0
    rows_each: int = 1
    positions: Optional[Integers] = None

    def __len__(self) -> int:
        return len(self.pairs) // self.rows_each

    def lengths(self, indices: Integers) -> Integers:
        """Return, for each example in `indices`, the token count of its longest pair, `[m]`."""
        rows = self.rows_each * indices[:, None] + np.arange(self.rows_each)
        longest: Integers = self.pairs.lengths_of(rows).max(axis=1)
        return longest


class RankingExamples(ABC):
    """Encoded examples for the trainer; subclasses define `loss`.

    Attributes:
        pairs: all encoded pairs.

    Args:
        data: if it has `queries`, all pairs of a query are in the same batch.
        loss: the loss; None: binary cross-entropy of one logit, which equals the published two-class head's loss.
        rdrop_coef: factor of R-Drop; 0: each pair is computed once.

    Raises `ValueError` if the loss needs a teacher's scores that `data` lacks, or if it compares titles of a query, but
    `data` has no queries and an example has only one pair.
    """

    def __init__(self, data: EncodedExamples, loss: Optional[RankingLoss] = None, rdrop_coef: float = 0.0):
        loss = loss or RankingLoss("bce")
        if loss.expression.of_teacher and data.teacher is None:
            raise ValueError(f"{loss.expression.text} needs a teacher's scores: encode the file with loss=...")
        if loss.expression.compares_titles and data.queries is None and data.rows_each == 1:
            raise ValueError(f"{loss.expression.text} needs the queries: encode the file with the queries")
        self.pairs, self.rows_each = data.pairs, data.rows_each * (2 if rdrop_coef else 1)
        self.groups: Optional[Groups] = None if data.queries is None else Groups.of(data.queries)
        self._data, self._loss, self._rdrop_coef = data, loss, rdrop_coef

    def __len__(self) -> int:
        return len(self._data)

    def lengths(self, indices: Integers) -> Integers:
        return self._data.lengths(indices)

    def weight(self, indices: Integers) -> float:
        return float(len(indices))

    def pair_labels(self, rows: Integers) -> Numbers:
        """Return the labels of the pairs `rows`, `[m]`.

        If the data has no labels, the label is 1 for the first pair of an example, and 0 for all other pairs.
        """
        if self._data.labels is None:
            is_first: Numbers = rows % self._data.rows_each == 0
            return is_first.astype(np.float64)
        labels: Numbers = gather(self._data.labels, rows)
        return labels

    def loss(self, network: nn.Layer, indices: Integers) -> tuple[Tensor, Means]:
        """Return the mean loss of the examples `indices`, and further means by name for the progress line."""
        rows = self.rows_of(indices)
        if not self._rdrop_coef:
            return self.loss_of_logits(network, self.logits(network, rows), rows)
        # Both passes are one batch, whose rows have dropout of their own.
        both = self.logits(network, np.tile(rows, 2)).reshape([2, len(rows)])
        (first, means), (second, _) = (self.loss_of_logits(network, logits, rows) for logits in (both[0], both[1]))
        divergence = r_drop(both[0], both[1])
        return (first + second) / 2 + self._rdrop_coef * divergence, {**means, "rdrop": divergence.detach()}

    def rows_of(self, indices: Integers) -> Integers:
        """Return the pairs of the examples `indices`, in the order in which they are computed."""
        return indices

    @abstractmethod
    def loss_of_logits(self, network: nn.Layer, logits: Tensor, rows: Integers) -> tuple[Tensor, Means]:
        """Return the mean loss of the pairs `rows`, `[m]`, from their `logits`, `[m]`, and further means by name."""

    def logits(self, network: nn.Layer, rows: Integers) -> Tensor:
        """Return the network's logits for the pairs `rows`, `[m]` float32."""
        import paddle

        return network(*map(paddle.to_tensor, self.pairs.pad(rows).values())).astype("float32")

    def loss_of(self, logits: Tensor, rows: Integers, queries: Optional[Integers] = None) -> Tensor:
        """Return the mean loss of the pairs `rows`, `[m]`, from their `logits`, `[m]`.

        queries: index of each pair's query, `[m]`; used if the data has no queries
        """
        data = self._data
        queries = gather(data.queries, rows) if data.queries is not None else queries
        teacher = None if data.teacher is None else gather(data.teacher, rows)
        return self._loss(logits, self.pair_labels(rows), queries, teacher)


def r_drop(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean divergence of pairs' probabilities in two passes, from their logits, `[m]` each.

    For a pair of probabilities p and q, sigmoids of logits a and b, it is half of KL(p, q) + KL(q, p), which equals
    (p - q) (a - b) / 2 (Liang et al., "R-Drop: regularized dropout for neural networks", NeurIPS 2021).
    """
    import paddle.nn.functional as F

    return ((F.sigmoid(first) - F.sigmoid(second)) * (first - second)).mean() / 2


def teacher_logits(name: str, scores: Numbers, kind: str = AUTO) -> NDArray[np.float32]:
    """Return a teacher's scores, `[n]`, as logits; a note says if they are probabilities.

    name: name of the file, for the note
    kind: one of `SCORE_KINDS`; auto: scores that are all within 0 and 1 are probabilities, as `distill` takes them

    Raises `DataError` if scores that are said to be probabilities are none.
    """
    numbers = np.asarray(scores, np.float64)
    fits = are_probabilities(numbers)
    if kind == LOGITS or not len(numbers) or (kind == AUTO and not fits):
        return np.asarray(scores, np.float32)
    if not fits:
        raise DataError(f"{name}: the teacher's scores are not all within 0 and 1, as probabilities are")
    if kind == AUTO:
        note_once(f"{name}: the teacher's scores are within 0 and 1: probabilities (--teacher_scores says otherwise)")
    return logits_of(numbers).astype(np.float32)


def teacher_column(
    name: str, losses: Sequence[str], scores: Sequence[Optional[float]], first: int = 0, column: str = "teacher_score"
) -> NDArray[np.float32]:
    """Convert a teacher's scores, a column of training data, to `[m]` float32.

    name: name of the file, for errors
    losses: names of the losses that need the logits, for errors
    scores: the cells of the column; None where a score is missing
    first: index, in the file, of the record to which `scores[0]` belongs
    column: name of the column

    Raises `DataError`, which names the file, the record and the losses, if a score is missing.
    """
    for number, score in enumerate(scores, first + 1):
        if score is None:
            raise DataError(
                f"{name}: record {number:,} has no {column}, which --loss {'+'.join(losses)} learns from: add a column "
                f"{column} with the teacher's logits"
            )
    return np.array(scores, dtype=np.float32)
