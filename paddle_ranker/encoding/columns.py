"""Encoded pairs in columns: millions of pairs cost little more than their ids, or nothing where they lie on a disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.storage.arrays import gather

Indices = Union[Sequence[int], NDArray[np.int64], NDArray[np.int32]]


@dataclass(frozen=True)
class EncodedPairs:
    """Ragged ids of n pairs `[CLS] query [SEP] title [SEP]`.

    `ids` [total] int32; `offsets` [n + 1] int64: pair i is `ids[offsets[i]:offsets[i + 1]]`;
    `second_starts` [n] int32: the place within the pair where the title (token type 1) starts.

    The arrays may be memory-mapped files (`paddle_ranker.encoding.store`): `take`, `pad` and `lengths_of` read what
    they are asked for and leave nothing of it in memory. The other ways in read all, or keep what they have read.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    second_starts: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.second_starts)

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        """Return the ids of one pair, [length] int32."""
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each pair, [n] int64."""
        return np.diff(self.offsets)

    def lengths_of(self, indices: Indices) -> NDArray[np.int64]:
        """Return the tokens of the pairs at `indices` [m], [m] int64."""
        return self._spans(np.asarray(indices, dtype=np.int64))[1]

    def take(self, indices: Indices) -> EncodedPairs:
        """Return the pairs at `indices` [m] (repeats allowed), in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        starts, lengths = self._spans(chosen)
        return EncodedPairs(
            ids=gather(self.ids, ragged_positions(starts, lengths)),
            offsets=offsets_of(lengths),
            second_starts=gather(self.second_starts, chosen),
        )

    @classmethod
    def concat(cls, parts: Sequence[EncodedPairs]) -> EncodedPairs:
        """Join `parts`, in order."""
        lengths = [part.lengths for part in parts]
        return cls(
            ids=np.concatenate([np.empty(0, np.int32), *(part.ids for part in parts)]),
            offsets=offsets_of(np.concatenate([np.empty(0, np.int64), *lengths])),
            second_starts=np.concatenate([np.empty(0, np.int32), *(part.second_starts for part in parts)]),
        )

    def pad(self, indices: Indices, pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return `input_ids` and `token_type_ids`, [batch, length] int64, as long as the longest chosen pair.

        Padding has the id `pad_id` and token type 0.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        starts, lengths = self._spans(chosen)
        columns = np.arange(lengths.max(initial=0))
        is_token = columns < lengths[:, None]
        input_ids = np.full(is_token.shape, pad_id, dtype=np.int64)
        input_ids[is_token] = gather(self.ids, ragged_positions(starts, lengths))
        token_type_ids = (is_token & (columns >= gather(self.second_starts, chosen)[:, None])).astype(np.int64)
        return input_ids, token_type_ids

    def _spans(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the pairs `chosen` [m] start in `ids`, and their lengths, [m] int64 each."""
        bounds = gather(self.offsets, chosen[..., None] + [0, 1])
        return bounds[..., 0], bounds[..., 1] - bounds[..., 0]


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each of the ragged rows of `lengths` [n] starts, and the total: [n + 1] int64."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ragged_positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions `starts[i], ..., starts[i] + lengths[i] - 1` of all i, one after another."""
    offsets = offsets_of(lengths)
    positions: NDArray[np.int64] = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return positions
