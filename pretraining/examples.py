"""Masked sequences as the trainer takes them, and the loss of held-out ones."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.batching import Groups, scoring_batches
from pretraining.masking import MaskedBatch, Masking
from pretraining.model import MaskedLanguageModel
from pretraining.packing import Sequences

_KEPT = 256  # masked batches: the trainer asks for each one's weight before it asks for any one's loss
_LARGEST_EXPONENT = 700.0


def perplexity(loss: float) -> float:
    """Return e to the power of a mean loss in nats."""
    return math.exp(min(loss, _LARGEST_EXPONENT)) if math.isfinite(loss) else math.inf


class MaskedExamples:
    """Sequences to train on; the loss is the mean of -log p over the hidden tokens of a whole batch, in nats."""

    rows_each = 1
    groups: Optional[Groups] = None

    def __init__(self, sequences: Sequences, masking: Masking):
        self._sequences, self._masking, self._epoch = sequences, masking, 1
        self._masked: OrderedDict[bytes, MaskedBatch] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sequences)

    def begin_epoch(self, epoch: int) -> None:
        """Hide other tokens from now on."""
        self._epoch = epoch
        self._masked.clear()

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of the sequences `indices` [m], `[m]`."""
        chosen: np.ndarray = self._sequences.all_lengths[indices]
        return chosen

    def weight(self, indices: np.ndarray) -> float:
        """Return what the loss of `indices` is a mean over: their hidden tokens."""
        return float(max(1, len(self.masked(indices).labels)))

    def masked(self, indices: np.ndarray) -> MaskedBatch:
        """Return the batch of the sequences `indices` as this epoch hides its tokens."""
        key = indices.tobytes()
        if key not in self._masked:
            ids, starts = self._sequences.batch(indices)
            self._masked[key] = self._masking.hide(ids, starts, indices, self._epoch)
            if len(self._masked) > _KEPT:
                self._masked.popitem(last=False)
        return self._masked[key]

    def loss(self, network: MaskedLanguageModel, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the hidden tokens of the sequences `indices`."""
        batch = self.masked(indices)
        if not len(batch.labels):  # nothing but special tokens and [UNK]
            return network.cls.predictions.decoder_bias.sum() * 0.0, {}
        logits = network(batch.ids, batch.places)
        return F.cross_entropy(logits, paddle.to_tensor(batch.labels)), {}


class HeldOut:
    """Sequences to evaluate on; the same tokens are hidden every time.

    Args:
        batch_size: sequences of the longest kind that go through the network at once.
    """

    def __init__(self, sequences: Sequences, masking: Masking, batch_size: int):
        self._sequences, self._masking = sequences, masking
        lengths = sequences.all_lengths
        self._batches = list(scoring_batches(lengths, batch_size * int(lengths.max()), 8 * batch_size))

    @paddle.no_grad()
    def measure(self, network: MaskedLanguageModel, processes: ProcessGroup) -> dict[str, float]:
        """Return `loss` (nats a hidden token), `perplexity`, and `accuracy`, the share of tokens guessed right.

        Each process does its share of the batches; all get the same figures.
        """
        was_training = network.training
        network.eval()
        sums = np.zeros(3)
        for indices in self._batches[processes.rank :: processes.size]:
            batch = self._masking.hide(*self._sequences.batch(indices), indices, epoch=0)
            if len(batch.labels):
                logits = network(batch.ids, batch.places)
                losses = F.cross_entropy(logits, paddle.to_tensor(batch.labels), reduction="sum")
                right = int((logits.argmax(axis=-1).numpy() == batch.labels).sum())
                sums += [float(losses), right, len(batch.labels)]
        if was_training:
            network.train()
        processes.wait()  # one may be long behind
        total, right, count = processes.sum(sums).tolist()
        loss = total / max(1.0, count)
        return {"loss": loss, "perplexity": perplexity(loss), "accuracy": right / max(1.0, count)}
