"""Ranking losses: plain functions of logits (`[n]`, one a title) that return a scalar, a mean over the titles.

A loss that judges each title by itself is a mean over titles. A loss that compares the titles of a query has one value
per query, 0 if there is nothing to compare; the mean counts this value once for each of the query's titles. So the loss
of several complete queries is the mean of their losses, weighted by their numbers of titles, and does not depend on how
queries are distributed over batches. A triple is a query of two titles, labelled 1 and 0.

Arguments that several functions have, `[n]` each: `labels`, graded, 0 is not relevant; `relevant`, 0 or 1; `queries`, a
number that the titles of one query share; `teacher`, a teacher's logits.

`Queries` and `Grid` group the titles of a batch by query, as pairs, rows or a ranking. Every loss over groups ends in
`Queries.mean_over_titles`, so that the losses of a batch's parts add up to the loss of the batch if no query is split.

In the formulas, l is a logit, p = sigmoid(l), y a label, t a teacher's logit; of a pair, + has the higher label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Callable

import numpy as np

from paddle_ranker.array_types import Booleans, Floats, Integers, Numbers
from paddle_ranker.training.losses.loss_registry import LABELS, LOSSES, RELEVANCE, TITLES, Loss

if TYPE_CHECKING:
    from paddle import Tensor


def constant(values: Numbers, like: Tensor) -> Tensor:
    import paddle

    return paddle.to_tensor(np.asarray(values), dtype=like.dtype)


def differences(values: Tensor, first: Integers, second: Integers) -> Tensor:
    """Return values[first] - values[second], `[pairs]`; there must be at least one pair."""
    import paddle

    return paddle.gather(values, paddle.to_tensor(first)) - paddle.gather(values, paddle.to_tensor(second))


def zero(logits: Tensor) -> Tensor:
    """Return a zero that depends on all `logits`, so that a backward pass works; NaN if a logit is NaN or infinite."""
    return logits.sum() * 0.0


class Queries:
    """Assignment of n titles to queries.

    Attributes:
        codes: index of each title's query, from 0, `[n] int64`.
        titles: number of titles of each query, `[queries]`.
    """

    def __init__(self, queries: Numbers):
        _, self.codes = np.unique(queries, return_inverse=True)
        self.titles = np.bincount(self.codes)

    def pairs(self, labels: Numbers) -> tuple[Integers, Integers]:
        """Return all pairs of titles of one query with different labels, as indices (higher, lower), `[pairs]` each."""
        higher, lower = np.nonzero(self._together() & (labels[:, None] > labels[None, :]))
        return higher, lower

    def all_pairs(self) -> tuple[Integers, Integers]:
        """Return all pairs of titles of one query, each pair once, as indices (first, second), `[pairs]` each."""
        first, second = np.nonzero(np.triu(self._together(), 1))
        return first, second

    def _together(self) -> Booleans:
        same: Booleans = self.codes[:, None] == self.codes[None, :]
        return same

    def share_of_pairs(self, first: Integers) -> Floats:
        """Return, for each pair, 1 / (number of pairs of the pair's query), `[pairs]`.

        first: index of the first title of each pair, `[pairs]`
        """
        of_query = self.codes[first]
        share: Floats = 1.0 / np.bincount(of_query)[of_query]
        return share

    def mean_over_titles(self, values: Tensor, codes: Integers, share: Floats) -> Tensor:
        """Return the mean over all titles of the loss of the title's query.

        A query's loss is the sum of share * value over the query's values.

        values: `[m]`
        codes: index of each value's query, `[m]`
        share: factor of each value, `[m]`
        """
        weights = share * self.titles[codes] / len(self.codes)
        return (values * constant(weights, values)).sum()

    def ranks(self, order: Integers) -> Integers:
        """Return each title's rank within its query, from 0, `[n]`.

        order: indices that sort all titles by query, then by rank, `[n]`
        """
        starts = np.cumsum(self.titles) - self.titles
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order)) - starts[self.codes[order]]
        return places

    def gains(self, labels: Numbers) -> Floats:
        """Return each title's gain, 2^label - 1, divided by its query's ideal DCG, `[n]`."""
        grades = np.maximum(labels, 0.0).astype(np.float64)
        highest = np.zeros(len(self.titles))
        np.maximum.at(highest, self.codes, grades)
        # Both are divided by 2^highest, which cancels: 2 to the power of a label of thousands would be infinite.
        gains = np.exp2(grades - highest[self.codes]) - np.exp2(-highest[self.codes])
        ideal = gains / np.log2(2.0 + self.ranks(np.lexsort((-gains, self.codes))))
        best = np.bincount(self.codes, weights=ideal)[self.codes]
        return np.divide(gains, best, out=np.zeros_like(gains), where=best > 0)


@dataclass(frozen=True)
class Grid:
    """Titles in rows, one row per query, padded to the length of the longest row.

    indices: `[queries, longest]`, the titles' indices in the batch; 0 for padding
    is_title: `[queries, longest]`, True for titles, False for padding
    codes: `[queries]`, index of each row's query
    """

    indices: Integers
    is_title: Booleans
    codes: Integers

    @classmethod
    def of(cls, queries: Queries) -> Grid:
        """Arrange all titles in rows, one for each query, in the order of the batch."""
        order = np.argsort(queries.codes, kind="stable")
        is_title = np.arange(queries.titles.max(initial=0)) < queries.titles[:, None]
        indices = np.zeros(is_title.shape, np.int64)
        indices[is_title] = order
        return cls(indices, is_title, np.arange(len(queries.titles)))

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, chosen: Booleans) -> Grid:
        """Return a grid with only the rows for which `chosen`, `[queries]`, is True."""
        return replace(self, indices=self.indices[chosen], is_title=self.is_title[chosen], codes=self.codes[chosen])

    def values(self, values: Numbers, padding: float) -> Floats:
        """Arrange values, `[n]`, in rows, `[queries, longest]`; empty places get `padding`."""
        rows: Floats = np.where(self.is_title, values[self.indices], padding)
        return rows

    def logits(self, logits: Tensor, kept: Booleans) -> Tensor:
        """Arrange logits, `[n]`, in rows, `[queries, longest]`; where `kept` is False, exp(logit) becomes 0."""
        import paddle

        rows = paddle.gather(logits, paddle.to_tensor(self.indices.ravel())).reshape(self.indices.shape)
        # Minus infinity is no alternative: its gradient would be 0 times infinity.
        return paddle.where(paddle.to_tensor(kept), rows, paddle.full_like(rows, -1e30))


def binary_cross_entropy(logits: Tensor, labels: Numbers) -> Tensor:
    """Return mean(log(1 + exp(l)) - y l) of logits l and labels y; a label above 1 counts as 1.

    This is the cross-entropy of two classes whose logits differ by l, the published cross-encoder's loss. A label y
    between 0 and 1 has the effect of a share y of copies of the title with label 1, and a share 1 - y with label 0.
    """
    import paddle.nn.functional as F

    # Paddle's own function uses relu, which turns NaN into 0.
    return (F.softplus(logits) - constant(np.clip(labels, 0.0, 1.0), logits) * logits).mean()


def mean_squared_error(logits: Tensor, labels: Numbers, highest: float) -> Tensor:
    """Return mean((sigmoid(l) - y / highest)^2) of logits l and labels y, which are first clipped to [0, `highest`].

    With labels 0 and 1, this is the Brier score (Brier, 1950).
    """
    import paddle.nn.functional as F

    return ((F.sigmoid(logits) - constant(np.clip(labels / highest, 0.0, 1.0), logits)) ** 2).mean()


def margin_on_logits(logits: Tensor, labels: Numbers, queries: Numbers, margin: float) -> Tensor:
    """Return the mean over all titles of the loss of the title's query.

    A query's loss is the mean of max(0, margin - (l+ - l-)) over the query's pairs of titles with different labels,
    where l+ is the logit of the title with the higher label. A query without such a pair has the loss 0. Unlike in
    `margin_on_probabilities`, the gradient of a wrongly ordered pair does not vanish for logits far from 0.
    """
    return _over_pairs(logits, labels, queries, lambda ahead: _hinge(margin - ahead))


def margin_on_probabilities(logits: Tensor, labels: Numbers, queries: Numbers, margin: float) -> Tensor:
    """Return the loss of `margin_on_logits` with probabilities p = sigmoid(l) in place of logits.

    On triples, this is the published pairwise ranker's loss.
    """
    import paddle.nn.functional as F

    return _over_pairs(F.sigmoid(logits), labels, queries, lambda ahead: _hinge(margin - ahead))


def rank_net(logits: Tensor, labels: Numbers, queries: Numbers, margin: float = 0.0) -> Tensor:
    """Return the loss of `margin_on_logits`, in which the value of a pair is log(1 + exp(margin - (l+ - l-))).

    With margin 0, this is RankNet (Burges et al., "Learning to Rank using Gradient Descent", ICML 2005).
    """
    import paddle.nn.functional as F

    return _over_pairs(logits, labels, queries, lambda ahead: F.softplus(margin - ahead))


def _over_pairs(scores: Tensor, labels: Numbers, queries: Numbers, loss_of_lead: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the loss of `margin_on_logits`, in which the value of a pair is `loss_of_lead`(score+ - score-)."""
    groups = Queries(queries)
    higher, lower = groups.pairs(labels)
    if not len(higher):
        return zero(scores)
    values = loss_of_lead(differences(scores, higher, lower))
    return groups.mean_over_titles(values, groups.codes[higher], groups.share_of_pairs(higher))


def _hinge(x: Tensor) -> Tensor:
    import paddle

    return paddle.clip(x, min=0.0)  # not relu, which turns NaN into 0


def list_net(logits: Tensor, labels: Numbers, queries: Numbers) -> Tensor:
    """Return the mean cross-entropy of queries, -sum(softmax(y) log softmax(l)) over a query's logits l and labels y.

    This is ListNet with top-one probabilities (Cao et al., "Learning to Rank: From Pairwise Approach to Listwise
    Approach", ICML 2007). Its lowest value is the entropy of softmax(y), not 0. A query whose titles all have the same
    label contributes 0.
    """

    def target(grid: Grid) -> Floats:
        rows = grid.values(labels, -np.inf)
        grown: Floats = np.exp(rows - rows.max(axis=1, keepdims=True))
        return grown

    return _list_cross_entropy(logits, labels, queries, target)


def click_softmax(logits: Tensor, labels: Numbers, queries: Numbers) -> Tensor:
    """Return the mean cross-entropy of queries, -sum(y log softmax(l)) / sum(y) over a query's logits l and labels y.

    The labels are click counts or click rates. The loss is that of Ai et al., "Unbiased Learning to Rank with Unbiased
    Propensity Estimation", SIGIR 2018. A query whose titles all have the same label contributes 0.
    """
    return _list_cross_entropy(logits, labels, queries, lambda grid: grid.values(np.maximum(labels, 0.0), 0.0))


def _list_cross_entropy(
    logits: Tensor, labels: Numbers, queries: Numbers, target_of: Callable[[Grid], Floats]
) -> Tensor:
    """Return the mean over queries of the cross-entropy between softmax(l) and a target distribution.

    target_of: called with the grid of the titles; returns the targets, `[queries, longest]`. Each row is then scaled so
        that its sum is 1
    """
    import paddle

    groups = Queries(queries)
    grid = Grid.of(groups)
    grid = grid.rows(grid.values(labels, np.inf).min(axis=1) < grid.values(labels, -np.inf).max(axis=1))
    if not len(grid):
        return zero(logits)
    target = target_of(grid)
    target = target / target.sum(axis=1, keepdims=True)
    rows = grid.logits(logits, grid.is_title)
    # Paddle's log_softmax returns at least -64, so it is not used.
    surprise = paddle.logsumexp(rows, axis=1, keepdim=True) - rows
    values = (constant(target, logits) * surprise).sum(axis=1)
    return groups.mean_over_titles(values, grid.codes, np.ones(len(grid)))


def softmax_cross_entropy(logits: Tensor, relevant: Numbers, queries: Numbers) -> Tensor:
    """Return the mean over a query's relevant titles of -log(exp(l) / (exp(l) + sum of exp of the irrelevant logits)).

    This is localized contrastive estimation (Gao, Dai and Callan, "Rethink Training of BERT Rerankers in Multi-Stage
    Retrieval Pipeline", ECIR 2021). A query without a relevant title, or without an irrelevant title, contributes 0.
    """
    import paddle
    import paddle.nn.functional as F

    groups = Queries(queries)
    grid = Grid.of(groups)
    chosen = grid.values(relevant, 0.0) > 0
    both = chosen.any(axis=1) & (grid.is_title & ~chosen).any(axis=1)
    grid, chosen = grid.rows(both), chosen[both]
    if not len(grid):
        return zero(logits)
    others = paddle.logsumexp(grid.logits(logits, grid.is_title & ~chosen), axis=1)
    row, column = np.nonzero(chosen)
    of_chosen = paddle.gather(logits, paddle.to_tensor(grid.indices[row, column]))
    surprise = F.softplus(paddle.gather(others, paddle.to_tensor(row)) - of_chosen)
    return groups.mean_over_titles(surprise, grid.codes[row], 1.0 / chosen.sum(axis=1)[row])


def lambda_rank(logits: Tensor, labels: Numbers, queries: Numbers) -> Tensor:
    """Return the mean over queries of the sum of |G+ - G-| |1/D+ - 1/D-| log2(1 + exp(-(l+ - l-))) over pairs.

    A pair is two titles of a query with different labels. This is LambdaLoss with LambdaRank's weights: a pair's weight
    is the change of nDCG when its titles change places (Wang et al., "The LambdaLoss Framework for Ranking Metric
    Optimization", CIKM 2018, section 4.1). The gain G is 2^label - 1, divided by the query's ideal DCG. D is
    log2(1 + rank) for the rank by logit; of equal logits, the less relevant title ranks first. No gradient flows
    through the weights.
    """
    import paddle.nn.functional as F

    groups = Queries(queries)
    higher, lower = groups.pairs(labels)
    if not len(higher):
        return zero(logits)
    gains = groups.gains(labels)
    values = logits.numpy().astype(np.float64)
    discounts = 1.0 / np.log2(2.0 + groups.ranks(np.lexsort((labels, -values, groups.codes))))
    weights = np.abs(gains[higher] - gains[lower]) * np.abs(discounts[higher] - discounts[lower])
    ahead = differences(logits, higher, lower)
    return groups.mean_over_titles(F.softplus(-ahead), groups.codes[higher], weights / math.log(2.0))


def teacher_mse(logits: Tensor, teacher: Numbers) -> Tensor:
    """Return mean((l - t)^2) of logits l and a teacher's logits t (Ba and Caruana, NIPS 2014)."""
    return ((logits - constant(teacher, logits)) ** 2).mean()


def margin_mse(logits: Tensor, queries: Numbers, teacher: Numbers) -> Tensor:
    """Return the mean of ((l1 - l2) - (t1 - t2))^2 over all pairs of a query's titles, t a teacher's logits.

    This is MarginMSE (Hofstätter et al., "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
    Distillation", 2020). The paper pairs relevant titles with irrelevant titles; here labels are not used. A query with
    a single title contributes 0.
    """
    groups = Queries(queries)
    first, second = groups.all_pairs()
    if not len(first):
        return zero(logits)
    apart = differences(logits - constant(teacher, logits), first, second)
    return groups.mean_over_titles(apart**2, groups.codes[first], groups.share_of_pairs(first))


def kl_divergence(logits: Tensor, queries: Numbers, teacher: Numbers) -> Tensor:
    """Return the mean over queries of the sum of softmax(t) (log softmax(t) - log softmax(l)), t a teacher's logits.

    The source is Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. A query with a single
    title contributes 0.
    """
    import paddle

    groups = Queries(queries)
    grid = Grid.of(groups)
    grid = grid.rows(grid.is_title.sum(axis=1) > 1)
    if not len(grid):
        return zero(logits)
    wanted = grid.values(teacher, -np.inf)
    wanted = wanted - wanted.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        wanted = wanted - np.log(np.exp(wanted).sum(axis=1, keepdims=True))
    target = np.exp(wanted)
    entropy = (target * np.where(target > 0, wanted, 0.0)).sum(axis=1)
    rows = grid.logits(logits, grid.is_title)
    surprise = paddle.logsumexp(rows, axis=1, keepdim=True) - rows
    values = (constant(target, logits) * surprise).sum(axis=1) + constant(entropy, logits)
    return groups.mean_over_titles(values, grid.codes, np.ones(len(grid)))


for _name, _loss in {
    "bce": Loss(
        binary_cross_entropy,
        "log(1 + exp(l)) - min(y, 1) l",
        "scores that compare across queries; the tutorial's cross-encoder",
    ),
    "mse": Loss(mean_squared_error, "(p - y / highest label of the file)²", "probabilities that follow grades"),
    "margin_logit": Loss(
        margin_on_logits, "max(0, margin - (l+ - l-))", "order; pairs far enough apart no longer count", LABELS,
        margin=1.0,
    ),
    "margin_probability": Loss(
        margin_on_probabilities, "max(0, margin - (p+ - p-))", "order; the tutorial's pairwise ranker", LABELS,
        margin=0.2, on_probabilities=True,
    ),
    "ranknet": Loss(rank_net, "log(1 + exp(margin - (l+ - l-)))", "order; every pair counts", LABELS, margin=0.0),
    "listnet": Loss(
        list_net, "-Σ softmax(y) log softmax(l)", "order of a whole list, the best titles first of all", LABELS,
        listwise=True,
    ),
    "click_softmax": Loss(
        click_softmax, "-Σ y log softmax(l) / Σ y", "order by clicks, or by shares of them", LABELS, listwise=True
    ),
    "softmax": Loss(
        softmax_cross_entropy, "for each relevant title, -log(exp(l) / (exp(l) + Σ exp(l of the irrelevant ones)))",
        "one or a few relevant titles among many (mined) negatives", RELEVANCE, listwise=True,
    ),
    "lambda": Loss(lambda_rank, "|ΔnDCG| log2(1 + exp(-(l+ - l-)))", "the top of the list", LABELS, listwise=True),
    "teacher_mse": Loss(teacher_mse, "(l - t)²", "a student whose scores are the teacher's"),
    "margin_mse": Loss(
        margin_mse, "((l1 - l2) - (t1 - t2))², all pairs of titles",
        "a student that ranks like the teacher, on a scale of its own", TITLES,
    ),
    "kl": Loss(
        kl_divergence, "Σ softmax(t) (log softmax(t) - log softmax(l))", "a student of the teacher's lists", TITLES,
        listwise=True,
    ),
}.items():  # fmt: skip
    LOSSES.add(_name, _loss)
