"""Sequences with some tokens masked, for the trainer, and the loss of held-out sequences.

Masking is dynamic (Devlin et al., 2019; whole words: Cui et al., 2019): each epoch masks different tokens. The
choice depends on the seed, the epoch and the sequence's number alone, so that a resumed run masks as an uninterrupted
run does, and several processes as one process does.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from paddle_ranker.distributed import ProcessGroup
from paddle_ranker.encoding.batching import Groups, scoring_batches
from pretraining.model import MaskedLanguageModel
from pretraining.packing import Sequences

TO_MASK, TO_RANDOM = 0.8, 0.1  # shares of the chosen tokens; the others stay unchanged
_STREAM = 7919  # keeps these draws apart from others with the same seed and epoch
_KEPT = 256  # number of cached masked batches: the trainer asks for the weights of all batches before any loss
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class MaskedBatch:
    """A batch with some tokens masked.

    ids: `[batch, length]` int64
    indices: `[m]` int64, ascending indices of the chosen tokens in the flattened batch
    labels: `[m]` int64, the original ids of these tokens
    """

    ids: np.ndarray
    indices: np.ndarray
    labels: np.ndarray


class Masking:
    """Masking of tokens, or of whole words if `whole_words`, each chosen with `probability`.

    Special tokens and [UNK] are never chosen. If the draw chooses nothing in a sequence, one random word is masked.

    Args:
        special_ids: ids that are neither masked nor used as random replacements.
        vocab_size: the number of ids.
    """

    def __init__(
        self,
        probability: float,
        *,
        mask_id: int,
        special_ids: Sequence[int],
        vocab_size: int,
        whole_words: bool,
        seed: int,
    ):
        self.probability, self.whole_words, self.seed = probability, whole_words, seed
        self._mask_id = mask_id
        self._is_special = np.zeros(vocab_size, bool)
        self._is_special[list(special_ids)] = True
        self._ordinary = np.flatnonzero(~self._is_special)

    def mask(self, ids: np.ndarray, starts: np.ndarray, numbers: np.ndarray, epoch: int) -> MaskedBatch:
        """Mask tokens of a batch.

        Args:
            ids, starts: `[batch, length]`, the ids, and whether a word begins there.
            numbers: `[batch]`, the sequences' numbers.
            epoch: 0 for evaluations, so that all of them mask the same tokens.
        """
        special = self._is_special[ids]
        units = starts | special  # [UNK] inside a word splits it
        units[:, 1:] |= special[:, :-1]
        if not self.whole_words:
            units[:] = True
        unit = np.cumsum(units.reshape(-1)).reshape(ids.shape) - 1
        lengths = [int(np.flatnonzero(~row)[-1]) + 1 if not row.all() else 0 for row in special]
        draws = np.ones((3, *ids.shape))
        for row, number in enumerate(numbers.tolist()):
            # Nothing is drawn after the last ordinary token, so that the draws do not depend on the batch's width.
            generator = np.random.default_rng([_STREAM, self.seed, epoch, number])
            draws[:, row, : lengths[row]] = generator.random((3, lengths[row]))
        # The draw of the first token of its unit.
        of_unit = draws[0].reshape(-1)[np.flatnonzero(units.reshape(-1))][unit]
        of_unit = np.where(special, 2.0, of_unit)
        lowest = of_unit.min(axis=1, initial=2.0)
        limit = np.where(lowest < self.probability, self.probability, np.nextafter(lowest, 3.0))
        chosen = (of_unit < limit[:, None]) & ~special
        masked_ids = ids.copy()
        masked = chosen & (draws[1] < TO_MASK)
        random = chosen & (draws[1] >= TO_MASK) & (draws[1] < TO_MASK + TO_RANDOM)
        masked_ids[masked] = self._mask_id
        masked_ids[random] = self._ordinary[(draws[2][random] * len(self._ordinary)).astype(np.int64)]
        of_chosen = np.flatnonzero(chosen.reshape(-1))
        return MaskedBatch(masked_ids, of_chosen, ids.reshape(-1)[of_chosen])


def perplexity(loss: float) -> float:
    """Return e to the power of a mean loss in nats."""
    return math.exp(min(loss, _LARGEST_EXPONENT)) if math.isfinite(loss) else math.inf


class MaskedExamples:
    """Training sequences; the loss is the mean of -log p over the masked tokens of a whole batch, in nats."""

    rows_each = 1
    groups: Optional[Groups] = None

    def __init__(self, sequences: Sequences, masking: Masking):
        self._sequences, self._masking, self._epoch = sequences, masking, 1
        self._masked: OrderedDict[bytes, MaskedBatch] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sequences)

    def begin_epoch(self, epoch: int) -> None:
        """Mask the tokens of this epoch from now on."""
        self._epoch = epoch
        self._masked.clear()

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        chosen: np.ndarray = self._sequences.all_lengths[indices]
        return chosen

    def weight(self, indices: np.ndarray) -> float:
        """Return the number of masked tokens in the sequences `indices`, over which their loss is a mean."""
        return float(max(1, len(self.masked(indices).labels)))

    def masked(self, indices: np.ndarray) -> MaskedBatch:
        """Return the batch of the sequences `indices`, masked for the current epoch."""
        key = indices.tobytes()
        if key not in self._masked:
            ids, starts = self._sequences.batch(indices)
            self._masked[key] = self._masking.mask(ids, starts, indices, self._epoch)
            if len(self._masked) > _KEPT:
                self._masked.popitem(last=False)
        return self._masked[key]

    def loss(self, network: MaskedLanguageModel, indices: np.ndarray) -> tuple[Tensor, dict[str, float]]:
        batch = self.masked(indices)
        if not len(batch.labels):  # the sequences hold only special tokens and [UNK]
            return network.cls.predictions.decoder_bias.sum() * 0.0, {}
        logits = network(batch.ids, batch.indices)
        return token_losses(logits, paddle.to_tensor(batch.labels)).mean(), {}


_MOST_BY_PADDLE = 64.0  # maximum value of Paddle's cross-entropy; the gradient is right beyond it as well


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return -log softmax(logits)[label] of each token, `[n]`, from logits `[n, vocabulary]` and labels `[n]`."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    is_right = losses.detach() < _MOST_BY_PADDLE
    # The fused kernel nearly always suffices, and takes a quarter of the time. On a GPU, asking takes longer.
    if paddle.device.get_device() == "cpu" and bool(is_right.all()):
        return losses
    with paddle.no_grad():
        label_logits = paddle.take_along_axis(logits, labels.unsqueeze(1), axis=1).squeeze(1)
        missing = paddle.logsumexp(logits, axis=1) - label_logits - losses
    return losses + paddle.where(is_right, paddle.zeros_like(missing), missing)


class HeldOut:
    """Evaluation sequences; every evaluation masks the same tokens.

    Args:
        batch_size: number of the longest sequences per batch.
    """

    def __init__(self, sequences: Sequences, masking: Masking, batch_size: int):
        self._sequences, self._masking = sequences, masking
        lengths = sequences.all_lengths
        self._batches = list(scoring_batches(lengths, batch_size * int(lengths.max()), 8 * batch_size))

    @paddle.no_grad()
    def measure(self, network: MaskedLanguageModel, processes: ProcessGroup) -> dict[str, float]:
        """Return `loss` (nats per masked token), `perplexity`, and `accuracy`, the share of correctly predicted tokens.

        Each process computes its share of the batches; all get the same metrics.
        """
        was_training = network.training
        network.eval()
        sums = np.zeros(3)
        for indices in self._batches[processes.rank :: processes.size]:
            batch = self._masking.mask(*self._sequences.batch(indices), indices, epoch=0)
            if len(batch.labels):
                logits = network(batch.ids, batch.indices)
                losses = token_losses(logits, paddle.to_tensor(batch.labels)).sum()
                right = int((logits.argmax(axis=-1).numpy() == batch.labels).sum())
                sums += [float(losses), right, len(batch.labels)]
        if was_training:
            network.train()
        processes.wait()  # a process may be far behind
        total, right, count = processes.sum(sums).tolist()
        loss = total / max(1.0, count)
        return {"loss": loss, "perplexity": perplexity(loss), "accuracy": right / max(1.0, count)}
