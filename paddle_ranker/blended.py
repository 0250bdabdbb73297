"""Several rankers as one: logit = weights[0] * logit[0] + weights[1] * logit[1] + ... + bias.

The folder holds each member's own folder (`member_1`, `member_2`, ...), and a `ranker.json` of the kind `blend` with
the weights. Each member tokenizes by itself. To everything that scores, a blend looks like a ranker: its batches hold
the members' ids side by side, and the token types say whose they are, 0 and 1 of the first, 2 and 3 of the second.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import Tensor, nn

from paddle_ranker.blending import LinearModel
from paddle_ranker.encoded_pairs import EncodedPairs, Indices
from paddle_ranker.errors import CheckpointError, UsageError
from paddle_ranker.model import RankerNetwork
from paddle_ranker.model_folder import BLEND, INFO_FILE, RankerInfo, RankerParts, load_ranker, save_ranker
from paddle_ranker.pair_encoder import PairEncoder

_TYPES = 2  # token types of one member


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

    def pad(self, indices: Indices, pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the members' `input_ids` side by side and, in the token types, whose they are; `pad_id` is unused."""
        padded = [member.pad(indices, own) for member, own in zip(self.members, self.pad_ids)]
        types = [_TYPES * number + token_types for number, (_, token_types) in enumerate(padded)]
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


class BlendedNetwork(RankerNetwork):
    """Average the members' logits; takes what `BlendedPairs.pad` returns."""

    def __init__(self, members: Sequence[RankerNetwork], weights: Sequence[float], bias: float):
        nn.Layer.__init__(self)  # it has no encoder of its own
        self.config = members[0].config
        self.members = nn.LayerList(list(members))
        self.weights, self.bias = list(weights), bias

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the logits, `[batch]` float32, of the members' ids side by side, `[batch, all lengths]` int64."""
        owner = token_type_ids[0] // _TYPES  # of a column; the same in all rows
        logits, start = self.bias, 0
        for number, (member, weight) in enumerate(zip(self.members, self.weights)):
            end = start + int((owner == number).astype("int64").sum())
            own_types = token_type_ids[:, start:end] - _TYPES * number
            logits = logits + weight * member(input_ids[:, start:end], own_types)
            start = end
        return paddle.cast(logits, "float32")


def save_blend(
    folder: Path,
    members: Sequence[RankerParts],
    weights: LinearModel,
    facts: dict[str, Any],
    results: dict[str, Any],
) -> None:
    """Write a blend and its members into an existing folder; wrap it in `atomic.new_folder`."""
    names = [f"member_{number}" for number in range(1, len(members) + 1)]
    for name, member in zip(names, members):
        (folder / name).mkdir()
        save_ranker(folder / name, member.network, member.pair_encoder, member.info)
    info = RankerInfo(
        kind=BLEND,
        max_seq_length=max(member.info.max_seq_length for member in members),
        match_embeddings=any(member.info.match_embeddings for member in members),
        lexical_features=any(member.info.lexical_features for member in members),
        training=facts,
        results=results,
        blend={"members": names, "weights": weights.weights.tolist(), "bias": weights.bias},
    )
    info.write(folder, members[0].network.config)


def load_blend(folder: Path, info: RankerInfo, max_seq_length: Optional[int], tokenizer: str) -> RankerParts:
    """Load a blend and its members for scoring; raises `CheckpointError` where it is damaged or a member is missing."""
    weights, bias = _checked_weights(folder, info)
    assert info.blend is not None
    members = [
        load_ranker(folder / name, max_seq_length=max_seq_length, tokenizer=tokenizer) for name in info.blend["members"]
    ]
    network = BlendedNetwork([member.network for member in members], weights, bias)
    encoder = BlendedPairEncoder([member.pair_encoder for member in members])
    return RankerParts(network, encoder, info, [])


def _checked_weights(folder: Path, info: RankerInfo) -> tuple[list[float], float]:
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
