"""Pairs of posts as the network and the trainer take them: encoded texts, images, labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Optional, Protocol

import numpy as np
import paddle
from paddle import Tensor
from scipy.special import softmax

from multimodal_entailment.data import LABELS
from multimodal_entailment.figures import quick_figures
from multimodal_entailment.losses import ClassLoss
from multimodal_entailment.model import EntailmentNetwork
from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.batching import Groups, scoring_batches
from paddle_ranker.encoding.columns import EncodedPairs


class Images(Protocol):
    """Images by their place in a list; several places may hold one image, or none."""

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what is at `indices` `[m]`, and whether there is an image, `[m]` bool.

        Pixels are uint8 `[m, 3, size, size]`, stored features of a frozen encoder float32 `[m, regions, width]`.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """A batch on its way into the network, as arrays.

    input_ids, token_type_ids: `[batch, length]` int64; None: texts are not looked at
    images: of image one of every pair, then of image two, `[2 x batch, ...]` (`Images.take`); None: not looked at
    present: `[batch, 2]` float32, 1 where there is an image
    """

    input_ids: Optional[np.ndarray]
    token_type_ids: Optional[np.ndarray]
    images: Optional[np.ndarray]
    present: Optional[np.ndarray]


@dataclass(frozen=True)
class Posts:
    """Pairs of posts.

    count: how many
    texts: encoded pairs of texts; None: texts are not looked at
    pad_id: what fills up their batches
    images: 2 x count places: image one of every pair, then image two of every pair; None: images are not looked at
    """

    count: int
    texts: Optional[EncodedPairs]
    pad_id: int
    images: Optional[Images]

    def __len__(self) -> int:
        return self.count

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of the pairs `indices`, `[m]`; without texts they are all of one length."""
        return np.ones(len(indices), np.int64) if self.texts is None else self.texts.lengths_of(indices)

    def batch(self, indices: np.ndarray) -> Batch:
        """Return the pairs `indices` `[m]`, padded to the longest of them."""
        ids = types = images = present = None
        if self.texts is not None:
            ids, types = self.texts.pad(indices, self.pad_id)
        if self.images is not None:
            images, is_there = self.images.take(np.concatenate([indices, indices + self.count]))
            present = is_there.reshape(2, -1).T.astype(np.float32)
        return Batch(ids, types, images, present)

    def scoring_batches(self, batch_size: int) -> Iterator[np.ndarray]:
        """Yield every pair's index once, in batches of similar length."""
        lengths = self.lengths(np.arange(self.count))
        yield from scoring_batches(lengths, batch_size * int(lengths.max(initial=1)), batch_size)


def logits_of(network: EntailmentNetwork, batch: Batch) -> Tensor:
    """Return the logits of a batch, `[batch, classes]` float32."""
    ids, types = (None if a is None else paddle.to_tensor(a) for a in (batch.input_ids, batch.token_type_ids))
    if batch.images is None or batch.present is None:
        return network(ids, types, None, None)
    regions = regions_of(network, batch.images, batch.present.T.reshape(-1) > 0)
    half = len(batch.present)
    return network(ids, types, (regions[:half], regions[half:]), paddle.to_tensor(batch.present))


def regions_of(network: EntailmentNetwork, images: np.ndarray, is_there: np.ndarray) -> Tensor:
    """Return the features of images, `[m, regions, width]`; zeros where `is_there` `[m]` says that there is none.

    Only images that are there go through the vision encoder: in training, its batch statistics are theirs alone.
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
    """Labelled pairs of posts to train on; the loss is a mean in which each counts as much as its class weighs."""

    rows_each = 1
    groups: Optional[Groups] = None

    def __init__(self, posts: Posts, labels: np.ndarray, loss: ClassLoss):
        self.posts, self.labels, self._loss = posts, labels, loss

    def __len__(self) -> int:
        return len(self.posts)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of the pairs `indices`, `[m]`."""
        return self.posts.lengths(indices)

    def weight(self, indices: np.ndarray) -> float:
        """Return what the mean of the loss over `indices` is taken over: the weights of their classes."""
        return self._loss.weight(self.labels[indices])

    def loss(self, network: EntailmentNetwork, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss over the pairs `indices`, and no further figures."""
        return self._loss(logits_of(network, self.posts.batch(indices)), self.labels[indices]), {}


class HeldOut:
    """Labelled pairs of posts to evaluate on."""

    def __init__(self, posts: Posts, labels: np.ndarray, batch_size: int):
        self.labels, self._posts = labels, posts
        self._batches = list(posts.scoring_batches(batch_size))

    def measure(self, network: EntailmentNetwork, processes: ProcessGroup) -> dict[str, float]:
        """Return `loss` (cross-entropy, nats), `accuracy` and `macro_f1`.

        Each process does its share of the batches; all get the same figures.
        """
        logits = network_logits(network, self._posts, self._batches[processes.rank :: processes.size])
        processes.wait()  # one may be long behind
        return quick_figures(self.labels, softmax(processes.sum(logits), axis=1))


@paddle.no_grad()
def network_logits(network: EntailmentNetwork, posts: Posts, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Return the logits of the pairs in `batches`, `[count, classes]` float64, without dropout; 0 for the others."""
    was_training = network.training
    network.eval()
    logits = np.zeros((len(posts), len(LABELS)))
    for indices in batches:
        logits[indices] = logits_of(network, posts.batch(indices)).numpy()
    if was_training:
        network.train()
    return logits
