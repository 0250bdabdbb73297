"""Losses for classification: cross-entropy and focal loss, both with class weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from paddle_ranker.errors import DataError, UsageError

WEIGHTS_HELP = "none, balanced (equal sums of all classes), or a number per class: 2,2,0.5"
_APART = -1e4  # exp(-1e4) is exactly 0 in float32


def focal_losses(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Return -(1 - p)^gamma log p of each example, `[n]`, with p the probability of its class (Lin et al., 2017).

    With `gamma` 0, it is cross-entropy. 1 - p is computed from the other classes' logits, so that its logarithm keeps
    its digits and its gradient stays finite even if p rounds to 1.

    Args:
        logits: `[n, classes]` float32.
        labels: `[n]` int64.
    """
    one_hot = F.one_hot(labels, logits.shape[-1])
    everything = paddle.logsumexp(logits, axis=-1)
    losses = everything - (logits * one_hot).sum(axis=-1)
    if gamma == 0:
        return losses
    others = paddle.logsumexp(logits + one_hot * _APART, axis=-1)
    return paddle.exp(gamma * (others - everything)) * losses


def class_weights(text: str, counts: Sequence[int]) -> np.ndarray:
    """Return the weight of each class, `[classes]` float64, from the text of `--class_weights`.

    Args:
        text: see `WEIGHTS_HELP`. "balanced" is examples / (classes x examples of the class), as in scikit-learn.
        counts: the number of examples of each class.

    Raises `UsageError` if the text is none of these, `DataError` if a class to balance has no examples.
    """
    if text == "none":
        return np.ones(len(counts))
    if text == "balanced":
        if not all(counts):
            raise DataError(f"a class has no training examples ({list(counts)}): --class_weights balanced needs some")
        return sum(counts) / (len(counts) * np.asarray(counts, np.float64))
    try:
        weights = np.array([float(part) for part in text.split(",")])
    except ValueError:
        weights = np.empty(0)
    if len(weights) != len(counts) or not (np.isfinite(weights).all() and (weights > 0).all()):
        raise UsageError(f"--class_weights {text}: give {WEIGHTS_HELP}; numbers above 0")
    return weights


class ClassLoss:
    """The mean loss over examples, weighted by their classes.

    Args:
        weights: `[classes]`, all above 0.
        gamma: the focal loss's gamma; 0 is cross-entropy.
    """

    def __init__(self, weights: Union[Sequence[float], np.ndarray], gamma: float = 0.0):
        self.weights, self.gamma = np.asarray(weights, np.float64), gamma

    def weight(self, labels: np.ndarray) -> float:
        """Return the sum of the weights of examples with `labels` `[n]`, the denominator of their mean."""
        return float(self.weights[labels].sum())

    def __call__(self, logits: Tensor, labels: np.ndarray) -> Tensor:
        """Return the mean loss of `logits` `[n, classes]` and `labels` `[n]`."""
        shares = self.weights[labels] / self.weight(labels)
        losses = focal_losses(logits, paddle.to_tensor(labels), self.gamma)
        return (losses * paddle.to_tensor(shares.astype("float32"))).sum()
