"""Pairs for a blend of rankers: every member encodes them for itself. Needs no Paddle; the network is in `blended`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding.columns import EncodedPairs, Indices
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model.info import INFO_FILE, RankerInfo

TYPES = 2  # token types of one member


class BlendedPairs(EncodedPairs):
    """Pairs that every member has encoded for itself; `members` are theirs, of n pairs each."""

    members: tuple[EncodedPairs, ...]
    pad_ids: tuple[int, ...]

    @classmethod
    def of(cls, members: Sequence[EncodedPairs], pad_ids: Sequence[int]) -> BlendedPairs:
        """Join what the members encoded, padded with their own ids."""
        first = members[0]
        joined = cls(first.ids, first.offsets, first.second_starts)
        object.__setattr__(joined, "members", tuple(members))
        object.__setattr__(joined, "pad_ids", tuple(pad_ids))
        return joined

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each pair over all members, [n] int64: what it costs in a batch."""
        return np.sum([member.lengths for member in self.members], axis=0, dtype=np.int64)

    def lengths_of(self, indices: Indices) -> NDArray[np.int64]:
        """Return the tokens of the pairs at `indices` [m] over all members, [m] int64."""
        return np.sum([member.lengths_of(indices) for member in self.members], axis=0, dtype=np.int64)

    def take(self, indices: Indices) -> BlendedPairs:
        """Return the pairs at `indices` [m], in that order."""
        return self.of([member.take(indices) for member in self.members], self.pad_ids)

    @classmethod
    def concat(cls, parts: Sequence[EncodedPairs]) -> BlendedPairs:
        """Join pairs of one blend, in order."""
        blended = [part for part in parts if isinstance(part, cls)]
        members = [EncodedPairs.concat(encoded) for encoded in zip(*(part.members for part in blended))]
        return cls.of(members, blended[0].pad_ids)

    def pad(self, indices: Indices, pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the members' `input_ids` side by side and, in the token types, whose they are; `pad_id` is unused."""
        padded = [member.pad(indices, own) for member, own in zip(self.members, self.pad_ids)]
        types = [TYPES * number + token_types for number, (_, token_types) in enumerate(padded)]
        return np.concatenate([ids for ids, _ in padded], axis=1), np.concatenate(types, axis=1)


class BlendedPairEncoder(PairEncoder):
    """Encode every pair once for each member."""

    def __init__(self, members: Sequence[PairEncoder]):
        self.members = tuple(members)
        self.max_seq_length = sum(member.max_seq_length for member in members)  # tokens of a pair in a batch
        self.backend = ", ".join(member.backend for member in members)
        self.vocab_size = max(member.vocab_size for member in members)
        self.pad_id = members[0].pad_id
        self.truncated = 0

    def encode(self, queries: Sequence[str], titles: Sequence[str], *, truncate: bool = True) -> BlendedPairs:
        """Encode the pairs for every member; raises `UsageError` for whole ones, which windows ask for."""
        if not truncate:
            raise UsageError("a blend of two rankers cannot score windows: use --windows none, or one of its members")
        encoded = [member.encode(queries, titles) for member in self.members]
        self.truncated = max(member.truncated for member in self.members)
        return BlendedPairs.of(encoded, [member.pad_id for member in self.members])

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Do nothing: the tokenizers are the members', and lie in their folders."""


def blend_weights(folder: Path, info: RankerInfo) -> tuple[list[float], float]:
    """Return the weights and the bias of a blend; raises `CheckpointError` where its `ranker.json` is damaged."""
    try:
        assert info.blend is not None
        names, weights, bias = info.blend["members"], info.blend["weights"], info.blend["bias"]
        numbers = [float(number) for number in (*weights, bias)]
        # A name, not a path: a folder from elsewhere must not reach outside itself.
        sound = len(names) == len(weights) > 0 and all(Path(name).name == name for name in names)
        if not (sound and all(map(math.isfinite, numbers))):
            raise ValueError("names and weights do not fit")
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / INFO_FILE}: damaged (blend is {str(info.blend)[:80]})") from error
    return numbers[:-1], numbers[-1]
