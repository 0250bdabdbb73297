"""Dynamic masking (Devlin et al., 2019; whole words: Cui et al., 2019), other tokens in every epoch.

Which tokens are masked, and by what, follows from the seed, the epoch and the sequence's number alone: a resumed run
masks as an unbroken one, and several processes as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TO_MASK, TO_RANDOM = 0.8, 0.1  # of the chosen tokens; the others stay as they are
_STREAM = 7919  # tells these draws from others of the same seed and epoch


@dataclass(frozen=True)
class MaskedBatch:
    """A batch with some tokens hidden.

    `ids` [batch, length] int64; `places` [m] int64, where in the flattened batch the chosen tokens are, ascending;
    `labels` [m] int64, what stood there.
    """

    ids: np.ndarray
    places: np.ndarray
    labels: np.ndarray


class Masking:
    """Choose tokens with `probability`, whole words of them with `whole_words`, and hide them.

    Never a special token, [UNK] among them. A sequence of which nothing is chosen gets one word chosen at random.

    Args:
        special_ids: ids that are neither hidden nor put in a token's place.
        vocab_size: ids there are.
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

    def hide(self, ids: np.ndarray, starts: np.ndarray, numbers: np.ndarray, epoch: int) -> MaskedBatch:
        """Hide tokens of a batch.

        Args:
            ids, starts: `[batch, length]`, the ids and whether a word begins there.
            numbers: `[batch]`, the sequences' numbers.
            epoch: 0 for an evaluation, the same every time.
        """
        special = self._is_special[ids]
        units = starts | special  # [UNK] inside a word parts it
        units[:, 1:] |= special[:, :-1]
        if not self.whole_words:
            units[:] = True
        unit = np.cumsum(units.reshape(-1)).reshape(ids.shape) - 1
        lengths = [int(np.flatnonzero(~row)[-1]) + 1 if not row.all() else 0 for row in special]
        draws = np.ones((3, *ids.shape))
        for row, number in enumerate(numbers.tolist()):
            # Past the last ordinary token nothing is drawn: the width of the batch changes nothing.
            generator = np.random.default_rng([_STREAM, self.seed, epoch, number])
            draws[:, row, : lengths[row]] = generator.random((3, lengths[row]))
        of_unit = draws[0].reshape(-1)[np.flatnonzero(units.reshape(-1))][unit]  # the draw of its first token
        of_unit = np.where(special, 2.0, of_unit)
        lowest = of_unit.min(axis=1, initial=2.0)
        limit = np.where(lowest < self.probability, self.probability, np.nextafter(lowest, 3.0))
        chosen = (of_unit < limit[:, None]) & ~special
        hidden = ids.copy()
        masked = chosen & (draws[1] < TO_MASK)
        random = chosen & (draws[1] >= TO_MASK) & (draws[1] < TO_MASK + TO_RANDOM)
        hidden[masked] = self._mask_id
        hidden[random] = self._ordinary[(draws[2][random] * len(self._ordinary)).astype(np.int64)]
        places = np.flatnonzero(chosen.reshape(-1))
        return MaskedBatch(hidden, places, ids.reshape(-1)[places])
