"""Towers in training: every other title of the batch is a negative of a query, unless it is known to answer it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_ranker.array_types import Booleans, Integers
from paddle_ranker.encoding.batching import Groups
from paddle_ranker.encoding.columns import Columns, EncodedTexts
from paddle_ranker.model.tower_network import TowerNetwork
from paddle_ranker.training.losses.expression import RankingLoss
from paddle_ranker.training.task import Means
from recall.data import TextPairs
from recall.loss import BATCH_LOSSES, IN_BATCH_ALONE, MOST_SCALE, TowerLoss
from recall.repetition import repeat_tokens

_NEVER = -1e9  # logit of a title that is not a negative
_CELLS = 1 << 22  # maximum number of logits of a block of queries whose loss and gradient are computed at once: 16 MB


class LearnedScale(nn.Layer):
    """Layer with a learned scale of cosines; the parameter is the logarithm of the scale."""

    def __init__(self, scale: float):
        super().__init__()
        self.log = self.create_parameter([1], default_initializer=nn.initializer.Constant(float(np.log(scale))))

    def forward(self) -> Tensor:
        """Return the scale, `[1]`."""
        # The parameter itself is clipped: clipped in the graph, it would have no gradient beyond the limit, and stay
        # there.
        with paddle.no_grad():
            paddle.assign(paddle.clip(self.log, max=float(np.log(MOST_SCALE))), self.log)
        return paddle.exp(self.log)


@dataclass(frozen=True)
class LossSettings:
    """Settings of the loss of a batch.

    scale: factor of the cosines, unless the network has a learned scale
    margin: subtracted from the cosine of a query and its title
    terms: the losses, and their factors
    nested: factors of further losses by length: each is the loss of the vectors cut to this length
    negatives: maximum number of an example's negatives in a batch
    """

    scale: float
    margin: float
    terms: TowerLoss = IN_BATCH_ALONE
    nested: Mapping[int, float] = field(default_factory=dict)
    negatives: int = 4


class InBatchExamples:
    """Training examples: pairs, whose loss compares all texts of a batch.

    Args:
        pairs: the encoded pairs.
        settings: the settings of the loss.
        seed: seeds, with the epoch's number, the choice of negatives for an example that has more than the maximum.
        group_by_query: whether the examples of a query share a part of a batch, so that their texts, which are often
            the same, are computed once.
        repeated: rate of `repeat_tokens`, with which queries are changed anew in each epoch; 0: not at all.
        longest: maximum length of a query with its repeated tokens.

    Attributes: `batches`, the number of computed losses; `without_negatives`, the number of batches without negatives.

    Raises `DataError` if a loss learns from a teacher, and a pair has no teacher's score.
    """

    def __init__(
        self,
        pairs: TextPairs,
        settings: LossSettings,
        seed: int = 0,
        group_by_query: bool = False,
        repeated: float = 0.0,
        longest: int = 0,
    ):
        self._repeated, self._longest_repeated = repeated, longest
        self.groups: Optional[Groups] = Groups.of(pairs.query_of) if group_by_query else None
        self.settings, self._seed = settings, seed
        self.batches = self.without_negatives = 0
        self._of_lists = RankingLoss(settings.terms.of_lists) if settings.terms.of_lists else None
        self.learn_from(pairs)
        self._longest = self._longest_texts()
        self.begin_epoch(1)

    def learn_from(self, pairs: TextPairs) -> None:
        """Take the same pairs with other negatives, from the next `begin_epoch` on.

        Batches keep the lengths of the first pairs, so that the number of an epoch's batches does not change.
        """
        if self.settings.terms.of_teacher:
            pairs.teacher_of(*pairs.listed())  # a missing score raises its error before the training
        self.pairs = pairs
        self._drawn = min(self.settings.negatives, pairs.negatives.most) if pairs.negatives is not None else 0
        self.rows_each = 2 + self._drawn

    def begin_epoch(self, epoch: int) -> None:
        """Draw the negatives of each example for an epoch."""
        self._epoch = epoch
        answers = self.pairs.title_of[:, None]
        if self.pairs.negatives is None:
            self._titles, self._is_there = answers, np.ones((len(self), 1), bool)
            return
        drawn = self.pairs.negatives.draw(self._drawn, [self._seed, epoch])
        # An example with fewer negatives repeats its title in the empty places, which does not count as a negative.
        others = np.where(drawn < 0, answers, self.pairs.negatives.titles[drawn]) if drawn.size else drawn
        self._titles = np.concatenate([answers, others], axis=1)
        self._is_there = np.concatenate([np.ones_like(answers, bool), drawn >= 0], axis=1)

    def __len__(self) -> int:
        return len(self.pairs)

    def _longest_texts(self) -> Integers:
        pairs = self.pairs
        longest = np.maximum(pairs.queries.lengths_of(pairs.query_of), pairs.titles.lengths_of(pairs.title_of))
        if pairs.negatives is not None:
            owner = np.repeat(np.arange(len(pairs)), np.diff(pairs.negatives.offsets))
            np.maximum.at(longest, owner, pairs.titles.lengths_of(pairs.negatives.titles))
        return longest

    def lengths(self, indices: Integers) -> Integers:
        lengths: Integers = self._longest[indices]
        return lengths

    def weight(self, indices: Integers) -> float:
        return float(len(indices))

    def outputs(self, network: nn.Layer, indices: Integers) -> Tensor:
        """Return the vectors of the examples' queries, then of their titles, then of their negatives."""
        assert isinstance(network, TowerNetwork)
        titles = self._titles[indices].T.ravel()
        queries, rows = self.pairs.queries, self.pairs.query_of[indices]
        if self._repeated:
            assert isinstance(queries, EncodedTexts)
            random = np.random.default_rng([self._seed, self._epoch, int(indices[0])])  # the same in a resumed run
            queries = repeat_tokens(queries.take(rows), self._repeated, self._longest_repeated, random)
            rows = np.arange(len(rows))
        return paddle.concat(
            [
                _vectors(network.queries, queries, rows),
                _vectors(network, self.pairs.titles, titles),
            ]
        )

    def whole_losses(
        self, network: nn.Layer, outputs: Tensor, parts: Sequence[Integers]
    ) -> Iterator[tuple[Tensor, Means]]:
        """Yield the loss of a batch, block by block of queries: the sum of all terms at all lengths of the vectors.

        Also yields the block's share of the accuracy (how often a query's title is ahead of all negatives) and of a
        learned scale.
        """
        assert isinstance(network, TowerNetwork)
        batch, has_negatives = _Batch(self, parts), False
        for rows in batch.blocks():
            negative = batch.is_negative(rows)
            has_negatives |= bool(negative.any())
            scale = self.settings.scale if network.learned_scale is None else network.learned_scale()
            loss, accuracy = self._loss_of(batch, rows, negative, outputs, scale)
            for size, factor in self.settings.nested.items():
                cut = F.normalize(outputs[:, :size], axis=-1) if network.normalize else outputs[:, :size]
                loss = loss + factor * self._loss_of(batch, rows, negative, cut, scale)[0]
            share = len(batch.title_columns[rows]) / len(batch.title_columns)
            learned = {} if network.learned_scale is None else {"scale": share * network.learned_scale().detach()}
            yield loss, {"accuracy": accuracy, **learned}
        self.batches += 1
        self.without_negatives += not has_negatives

    def _loss_of(
        self, batch: _Batch, rows: slice, negative: Booleans, outputs: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the part that a block of queries adds to the batch's loss, for vectors of one length, and to accuracy.

        A loss over the batch is the mean over queries. Not negatives are: titles that are known to answer the query at
        least as well as its title, titles that read like the query, and repeated titles.
        """
        queries, titles = batch.split(outputs)
        logits = scale * paddle.matmul(queries[rows], titles, transpose_y=True)
        flat, (count, width) = logits.reshape([-1]), logits.shape
        of_titles = paddle.gather(flat, paddle.to_tensor(np.arange(count) * width + batch.title_columns[rows]))
        of_titles = of_titles - scale * self.settings.margin
        others = logits + paddle.to_tensor(np.where(negative, 0.0, _NEVER).astype(np.float32))
        accuracy = (of_titles > others.max(axis=1)).astype("float32").sum() / len(batch.title_columns)
        terms = self.settings.terms
        losses = []
        for name, factor in terms.of_batch.items():
            of_queries = BATCH_LOSSES[name].function(of_titles, others, scale)
            losses.append(factor / len(batch.title_columns) * of_queries.sum())
        if self._of_lists is not None:
            row, column, numbers = batch.lists(rows)
            teacher = self.pairs.teacher_of(batch.query_of[rows][row], numbers) if terms.of_teacher else None
            labels = (column == batch.title_columns[rows][row]).astype(np.float64)
            logits_of_lists = paddle.gather(flat, paddle.to_tensor(row * width + column))
            losses.append(len(row) / batch.listed * self._of_lists(logits_of_lists, labels, row, teacher))
        return paddle.add_n(losses), accuracy

    def loss(self, network: nn.Layer, indices: Integers) -> tuple[Tensor, Means]:
        """Return the loss of a batch of one part."""
        shares = list(self.whole_losses(network, self.outputs(network, indices), [indices]))
        means = {name: sum(means[name] for _, means in shares) for name in shares[0][1]}
        return paddle.add_n([loss for loss, _ in shares]), means


def _vectors(network: Callable[..., Tensor], rows: Columns, indices: Integers) -> Tensor:
    """Return the vectors of the rows `indices`, `[m, size]`; repeated rows are computed once."""
    distinct, places = np.unique(indices, return_inverse=True)
    vectors = network(*map(paddle.to_tensor, rows.pad(distinct).values()))
    return paddle.gather(vectors, paddle.to_tensor(places))


class _Batch:
    """Texts of a batch: b examples with q titles in all.

    Attributes:
        query_of: index of each example's query, `[b]`.
        title_columns: column of each example's title, `[b]`.
        listed: number of titles that the data have for the queries.
    """

    def __init__(self, examples: InBatchExamples, parts: Sequence[Integers]):
        self._counts, self._titles_each = [len(part) for part in parts], examples.rows_each - 1
        starts = np.cumsum([0, *(self._titles_each * count for count in self._counts)])
        # Columns of each example's titles, its answer first: [b, titles each]. A part's answers precede its negatives.
        self._columns = np.concatenate(
            [start + np.arange(self._titles_each * count).reshape(self._titles_each, count).T
             for start, count in zip(starts, self._counts)]
        )  # fmt: skip
        whole = np.concatenate(parts)
        self.query_of, self.title_columns = examples.pairs.query_of[whole], self._columns[:, 0]
        self._is_there = examples._is_there[whole]
        self._titles = np.empty(self._columns.size, np.int64)
        self._titles[self._columns] = examples._titles[whole]
        self.listed = int(self._is_there.sum())
        self._pairs = examples.pairs
        self._is_first = np.zeros(len(self._titles), bool)
        self._is_first[np.unique(self._pairs.title_keys[self._titles], return_index=True)[1]] = True

    def blocks(self) -> Iterator[slice]:
        """Yield blocks of examples, small enough that their logits take little memory."""
        size = max(1, _CELLS // len(self._titles))
        return (slice(start, start + size) for start in range(0, len(self.title_columns), size))

    def is_negative(self, rows: slice) -> Booleans:
        """Return whether each title is a negative of each query of a block, `[examples, q]` bool."""
        queries, columns = self.query_of[rows], self.title_columns[rows]
        grades = self._pairs.grades_of(queries[:, None], self._titles)
        is_worse = grades < grades[np.arange(len(columns)), columns][:, None]
        is_negative: Booleans = is_worse & self._is_first & ~self._pairs.read_alike(queries, self._titles)
        is_negative[np.arange(len(columns)), columns] = False
        return is_negative

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of the queries, `[b, size]`, and of the titles, `[q, size]`."""
        rows = [rows for count in self._counts for rows in (count, self._titles_each * count)]
        blocks = paddle.split(outputs, rows)
        return paddle.concat(blocks[::2]), paddle.concat(blocks[1::2])

    def lists(self, rows: slice) -> tuple[Integers, Integers, Integers]:
        """Return the titles that the data have for the queries of a block.

        For each title, the result has its example's number in the block, its column and its index, `[titles]` each.
        """
        row, place = np.nonzero(self._is_there[rows])
        column = self._columns[rows][row, place]
        return row, column, self._titles[column]
