"""Match levels: for every token of a pair, how much of its surroundings stands in the other text too.

| level | the token ... |
| --- | --- |
| 0 | is not in the other text (special tokens, padding and [UNK] always) |
| 1 | is in the other text |
| 2 | is part of a bigram that is in the other text |
| 3 | is part of a trigram that is in the other text |

A cross-encoder that has read little has no way to see such equality: comparing two positions' ids through learned
embeddings takes many examples. Given as an embedding it is there from the first step. The levels are a function of
the ids alone, so they are computed inside the model, and an exported graph keeps its two inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor

LEVELS = 4


def match_levels(input_ids: Tensor, token_type_ids: Tensor, never_match: Sequence[int]) -> Tensor:
    """Return the match level of every token.

    Args:
        input_ids: `[batch, length]` int64.
        token_type_ids: `[batch, length]` int64, 0 in the first text and 1 in the second.
        never_match: ids of the special tokens, padding and [UNK]; they also end a bigram or trigram.

    Returns:
        `[batch, length]` int64 in 0..3.
    """
    ids = input_ids
    for special in never_match:
        # Every special becomes -1 in the first text and -2 in the second, so that it equals nothing over there.
        ids = paddle.where(input_ids == special, -1 - token_type_ids, ids)
    across = token_type_ids.unsqueeze(2) != token_type_ids.unsqueeze(1)
    unigram = paddle.logical_and(ids.unsqueeze(2) == ids.unsqueeze(1), across).astype("float32")
    bigram = unigram * _next(unigram)
    trigram = bigram * _next(unigram, 2)
    # max over the other text: does a shared n-gram start here; the n-gram covers this position and the n - 1 after it.
    one = unigram.max(axis=2)
    two = _covered(bigram.max(axis=2), 2)
    three = _covered(trigram.max(axis=2), 3)
    return (one + two + three).astype("int64")  # nested by construction: a trigram's tokens are in bigrams, and so on


def _next(equal: Tensor, steps: int = 1) -> Tensor:
    """Shift `[batch, length, length]` so that entry (i, j) holds what (i + steps, j + steps) held; zeros come in."""
    return F.pad(equal[:, steps:, steps:], [0, 0, 0, steps, 0, steps], mode="constant", value=0.0)


def _covered(starts: Tensor, size: int) -> Tensor:
    """Mark, in `[batch, length]`, every position within `size` positions after (and at) a start."""
    covered = starts
    for shift in range(1, size):
        covered = paddle.maximum(covered, F.pad(starts[:, :-shift], [0, 0, shift, 0], mode="constant", value=0.0))
    return covered
