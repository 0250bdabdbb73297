"""Ranking losses: plain functions of logits (`[batch]` float32) that return a scalar mean.

Those of triples take the logits of positives and negatives, those of labelled pairs the logits and the labels.
"""

from __future__ import annotations

from typing import Callable, Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

PairwiseLoss = Callable[[Tensor, Tensor, float], Tensor]


def _hinge(x: Tensor) -> Tensor:
    # Not relu: it turns NaN into 0, and a training gone wrong would look like one that has nothing left to learn.
    return paddle.clip(x, min=0.0)


def margin_on_logits(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Return mean(max(0, margin - (positive - negative))) of logits, `[batch]` each.

    Unlike on probabilities, the gradient of a violated pair does not vanish where the scores are far from 0.
    """
    return _hinge(margin - (positive - negative)).mean()


def margin_on_probabilities(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Return mean(max(0, margin - (p+ - p-))), p = sigmoid(logit): the published pairwise ranker's loss."""
    return _hinge(margin - (F.sigmoid(positive) - F.sigmoid(negative))).mean()


def rank_net(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Return mean(log(1 + exp(margin - (positive - negative)))): RankNet (Burges et al., 2005) for margin 0."""
    return F.softplus(margin - (positive - negative)).mean()


def rank_net_and_cross_entropy(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Return RankNet plus the binary cross-entropy of positives as 1 and negatives as 0.

    The first term orders a query's titles; the second gives all queries one scale, so that scores compare across them.
    """
    cross_entropy = 0.5 * (F.softplus(-positive) + F.softplus(negative)).mean()
    return rank_net(positive, negative, margin) + cross_entropy


PAIRWISE_LOSSES: dict[str, PairwiseLoss] = {
    "margin_logit": margin_on_logits,
    "margin_probability": margin_on_probabilities,
    "ranknet": rank_net,
    "ranknet_bce": rank_net_and_cross_entropy,
}
DEFAULT_MARGINS = {"margin_logit": 1.0, "margin_probability": 0.2, "ranknet": 0.0, "ranknet_bce": 0.0}
# Of these the gradient to the head's bias is zero but for rounding, which AdamW would turn into steps of full size.
SHIFT_INVARIANT = {"margin_logit", "ranknet"}


def margin_for(loss: str, margin: Optional[float]) -> float:
    """Return the margin a user gave, else the loss's own default: a margin on logits is another quantity."""
    return DEFAULT_MARGINS[loss] if margin is None else margin


def binary_cross_entropy(logits: Tensor, relevant: np.ndarray) -> Tensor:
    """Return mean(log(1 + exp(l)) - y l) of logits l and `relevant` y (`[batch]`, 0 or 1).

    The cross-entropy of two classes whose logits differ by l.
    """
    # Not Paddle's own: it is written with a relu, see above.
    return (F.softplus(logits) - paddle.to_tensor(relevant, dtype="float32") * logits).mean()


def rank_net_by_query(logits: Tensor, labels: np.ndarray, queries: np.ndarray) -> Tensor:
    """Return RankNet over the pairs of one query's titles with different labels, as a mean over the titles.

    Every title counts with the mean of log(1 + exp(-(higher - lower))) over its query's pairs, 0 where there is none.
    So the loss of several whole queries is the mean of theirs, weighted by their titles, however they are split into
    batches; and on queries with one positive and one negative each it is `rank_net` of those triples.

    Args:
        logits, labels, queries: `[batch]` each; `queries` holds a number that the titles of one query share.
    """
    same_query = queries[:, None] == queries[None, :]
    higher, lower = np.nonzero(same_query & (labels[:, None] > labels[None, :]))
    if not len(higher):
        return logits.sum() * 0.0  # a part of the graph still, for backward
    _, query = np.unique(queries, return_inverse=True)
    titles, pairs = np.bincount(query), np.bincount(query[higher], minlength=query.max() + 1)
    weights = titles[query[higher]] / pairs[query[higher]] / len(queries)
    ahead = paddle.gather(logits, paddle.to_tensor(higher)) - paddle.gather(logits, paddle.to_tensor(lower))
    return (F.softplus(-ahead) * paddle.to_tensor(weights, dtype="float32")).sum()
