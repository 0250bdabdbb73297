"""Pairs for a blend of rankers: every member encodes them for itself. The network is in `paddle_ranker.model.blend`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding.columns import Arrays, Columns, EncodedPairs, GivenArrays, Indices
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import InputError, UsageError

TYPES = 2  # token types of one member


@dataclass(frozen=True)
class BlendedPairs(Columns):
    """Pairs that every member has encoded for itself; `members` are theirs, of n pairs each."""

    members: tuple[EncodedPairs, ...]

    def __len__(self) -> int:
        return len(self.members[0])

    def lengths_of(self, indices: Indices) -> NDArray[np.int64]:
        """Return the tokens of the pairs at `indices` [m] over all members, [m] int64: what they cost in a batch."""
        return np.sum([member.lengths_of(indices) for member in self.members], axis=0, dtype=np.int64)

    def take(self, indices: Indices) -> BlendedPairs:
        """Return the pairs at `indices` [m], in that order."""
        return BlendedPairs(tuple(member.take(indices) for member in self.members))

    @classmethod
    def concat(cls, parts: Sequence[BlendedPairs]) -> BlendedPairs:
        """Join pairs of one blend, in order."""
        return cls(tuple(EncodedPairs.concat(encoded) for encoded in zip(*(part.members for part in parts))))

    def pad(self, indices: Indices) -> Arrays:
        """Return the members' `input_ids` side by side and, in the token types, whose they are."""
        padded = [member.pad(indices) for member in self.members]
        types = [TYPES * number + arrays["token_type_ids"] for number, arrays in enumerate(padded)]
        return {
            "input_ids": np.concatenate([arrays["input_ids"] for arrays in padded], axis=1),
            "token_type_ids": np.concatenate(types, axis=1),
        }


class BlendedPairEncoder:
    """Encode every pair once for each member: a `PairRowEncoder`."""

    def __init__(self, members: Sequence[PairEncoder]):
        self.members = tuple(members)
        self.max_seq_length = sum(member.max_seq_length for member in members)  # tokens of a pair in a batch
        self.backend = ", ".join(member.backend for member in members)
        self.vocab_size = max(member.vocab_size for member in members)

    @property
    def truncated(self) -> int:
        """Pairs that a member has cut, of the member that cut most."""
        return max(member.truncated for member in self.members)

    @truncated.setter
    def truncated(self, count: int) -> None:
        for member in self.members:
            member.truncated = count

    def encode(self, queries: Sequence[str], titles: Sequence[str], *, truncate: bool = True) -> BlendedPairs:
        """Encode the pairs for every member; raises `UsageError` for whole ones, which windows ask for."""
        if not truncate:
            raise UsageError("a blend of two rankers cannot score windows: use --windows none, or one of its members")
        return BlendedPairs(tuple(member.encode(queries, titles) for member in self.members))

    def given(self, input_ids: NDArray[np.int64], token_type_ids: NDArray[np.int64]) -> Columns:
        """Return arrays that hold every member's columns side by side, as `BlendedPairs.pad` does, `[n, length]` each.

        Raises `InputError` where they are not every member's own, one after another, alike in all rows.
        """
        owners = token_type_ids // TYPES
        first = owners[0]
        sound = (owners == first).all() and (np.diff(first) >= 0).all()
        if not (sound and np.array_equal(np.unique(first), np.arange(len(self.members)))):
            raise InputError(
                "token_type_ids",
                "of a blend, token types 0 and 1 are the first ranker's, 2 and 3 the second's, in columns of their "
                f"own: all {len(self.members)} must be there, in this order, alike in every row",
            )
        return GivenArrays({"input_ids": input_ids, "token_type_ids": token_type_ids})

    def save(self, folder: Union[str, os.PathLike[str]]) -> None:
        """Do nothing: the tokenizers are the members', and lie in their folders."""
