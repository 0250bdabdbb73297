"""Labelled pairs of posts, encoded, for training and evaluation; and the network's logits for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Optional

import numpy as np
import paddle
from paddle import Tensor
from scipy.special import softmax

from multimodal_entailment.info import LABELS
from multimodal_entailment.losses import ClassLoss
from multimodal_entailment.measures import quick_measures
from multimodal_entailment.model import EntailmentNetwork
from multimodal_entailment.posts import Posts
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.batching import Groups, scoring_batches
from paddle_ranker.encoding.columns import Arrays

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
    """Return the features of images, `[m, regions, width]`; zeros where `is_there` `[m]` is False.

    Only images that exist go through the vision encoder, so that missing ones do not affect its batch statistics.
    """
    assert network.vision is not None
    if not is_there.any():
        return paddle.zeros([len(images), 1, network.vision.width])
    there = paddle.to_tensor(images[is_there])
    regions = network.regions(there) if images.dtype == np.uint8 else there
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
        """Return the token count of each pair in `indices`, `[m]`."""
        return self.posts.lengths_of(indices)

    def weight(self, indices: np.ndarray) -> float:
        """Return the sum of the class weights of the pairs `indices`, the denominator of their mean loss."""
        return self._loss.weight(self.labels[indices])

    def loss(self, network: EntailmentNetwork, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the pairs `indices`, and an empty dict of further means."""
        return self._loss(logits_of(network, self.posts.pad(indices)), self.labels[indices]), {}


def batches_of(posts: Posts, batch_size: int) -> Iterator[np.ndarray]:
    """Yield every pair's index once, in batches of similar length."""
    lengths = posts.lengths
    yield from scoring_batches(lengths, batch_size * int(lengths.max(initial=1)), batch_size)


class HeldOut:
    """Labelled pairs of posts for evaluation."""

    def __init__(self, posts: Posts, labels: np.ndarray, batch_size: int):
        self.labels, self._posts = labels, posts
        self._batches = list(batches_of(posts, batch_size))

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
