"""Labelled pairs of posts, encoded, for training and evaluation; the network's logits for them, and its losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Optional, Union

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor
from scipy.special import softmax

from multimodal_entailment.info import LABELS
from multimodal_entailment.measures import quick_measures
from multimodal_entailment.model import EntailmentNetwork
from multimodal_entailment.options import WEIGHTS_HELP
from multimodal_entailment.posts import Posts
from paddle_ranker.array_types import Arrays
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.batching import Groups, scoring_batches
from paddle_ranker.errors import DataError, UsageError

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


TOKEN_INPUTS = ("input_ids", "token_type_ids")


def logits_of(network: EntailmentNetwork, batch: Arrays) -> Tensor:
    """Return the logits of a batch of `Posts.pad`, `[batch, classes]` float32."""
    ids, types = (None if name not in batch else paddle.to_tensor(batch[name]) for name in TOKEN_INPUTS)
    if "present" not in batch:
        return network(ids, types, None, None)
    present = batch["present"]
    regions = regions_of(network, np.concatenate([batch["image_1"], batch["image_2"]]), present.T.reshape(-1) > 0)
    half = len(present)
    return network(ids, types, (regions[:half], regions[half:]), paddle.to_tensor(present))


def regions_of(network: EntailmentNetwork, images: np.ndarray, is_there: np.ndarray) -> Tensor:
    """Return the features of images, `[m, regions, width]`; zeros for missing images (`is_there` `[m]` is False).

    Only images that exist go through the vision encoder, so that missing ones do not affect its batch statistics.
    """
    assert network.vision is not None
    if not is_there.any():
        return paddle.zeros([len(images), 1, network.vision.width])
    existing = paddle.to_tensor(images[is_there])
    regions = network.regions(existing) if images.dtype == np.uint8 else existing
    nothing = paddle.zeros_like(regions[:1])
    places = np.where(is_there, np.cumsum(is_there) - 1, is_there.sum())
    return paddle.gather(paddle.concat([regions, nothing]), paddle.to_tensor(places))


class PostExamples:
    """Labelled pairs of posts to train on; the loss is a mean weighted by the pairs' classes."""

    rows_each = 1
    groups: Optional[Groups] = None

    def __init__(self, posts: Posts, labels: np.ndarray, loss: ClassLoss):
        self.posts, self.labels, self._loss = posts, labels, loss

    def __len__(self) -> int:
        return len(self.posts)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        return self.posts.lengths_of(indices)

    def weight(self, indices: np.ndarray) -> float:
        """Return the sum of the class weights of the pairs `indices`, the denominator of their mean loss."""
        return self._loss.weight(self.labels[indices])

    def loss(self, network: EntailmentNetwork, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        return self._loss(logits_of(network, self.posts.pad(indices)), self.labels[indices]), {}


class HeldOutPosts:
    """Labelled pairs of posts for evaluation."""

    def __init__(self, posts: Posts, labels: np.ndarray, batch_size: int):
        self.labels, self._posts = labels, posts
        longest = int(posts.lengths.max(initial=1))
        self._batches = list(scoring_batches(posts.lengths, batch_size * longest, batch_size))

    def measure(self, network: EntailmentNetwork, processes: ProcessGroup) -> dict[str, float]:
        """Return `loss` (cross-entropy, nats), `accuracy` and `macro_f1`.

        Each process computes its share of the batches; all get the same metrics.
        """
        logits = network_logits(network, self._posts, self._batches[processes.rank :: processes.size])
        processes.wait()  # a process may be far behind
        return quick_measures(self.labels, softmax(processes.sum(logits), axis=1))


@paddle.no_grad()
def network_logits(network: EntailmentNetwork, posts: Posts, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Return the logits of the pairs in `batches`, `[count, classes]` float64, without dropout; 0 for the others."""
    was_training = network.training
    network.eval()
    logits = np.zeros((len(posts), len(LABELS)))
    for indices in batches:
        logits[indices] = logits_of(network, posts.pad(indices)).numpy()
    if was_training:
        network.train()
    return logits
