"""Match levels: for every token of a pair, how long an n-gram with this token is also in the other text.

| level | the token ... |
| --- | --- |
| 0 | is not in the other text (special tokens, padding and [UNK] always) |
| 1 | is in the other text |
| 2 | is part of a bigram that is in the other text |
| 3 | is part of a trigram that is in the other text |

A cross-encoder trained on little data cannot see that two tokens are equal: comparing two positions' ids through
learned embeddings takes many examples. As an input embedding, the match is visible from the first step. The levels
depend on the ids alone, so they are computed inside the model, and an exported graph keeps its two inputs. Which tokens
are equal is in `paddle_ranker.lexical.comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import paddle
from paddle import Tensor

from paddle_ranker.lexical.comparison import Speller, compared, whole_characters

LEVELS = 4


def levels_of_pair(
    speller: Optional[Speller], input_ids: Tensor, token_type_ids: Tensor, never_match: Sequence[int]
) -> Tensor:
    """Return the match level of every token, `[batch, length]` int64, compared by what it spells."""
    tokens = compared(speller, input_ids, token_type_ids)
    return tokens.at_inputs(match_levels(tokens.ids, tokens.types, never_match, tokens.inside))


def match_levels(
    input_ids: Tensor, token_type_ids: Tensor, never_match: Sequence[int], inside: Optional[Tensor] = None
) -> Tensor:
    """Return the match level of every token.

    Args:
        input_ids: `[batch, length]` int64.
        token_type_ids: `[batch, length]` int64, 0 in the first text and 1 in the second.
        never_match: ids of the special tokens, padding and [UNK]; they also end a bigram or trigram.
        inside: `[batch, length]` float32, 1 for tokens that begin inside a character; None: there are none.

    Returns:
        `[batch, length]` int64 in 0..3.
    """
    ids = input_ids
    for special in never_match:
        # Every special becomes -1 in the first text and -2 in the second, so that it equals nothing in the other text.
        ids = paddle.where(input_ids == special, -1 - token_type_ids, ids)
    # Add two columns on either side that match nothing: an n-gram may then start or end beyond the pair, and the
    # n-grams that start at a token's neighbours are a slice. (Padding the matrices instead would crash Paddle
    # Inference, whose oneDNN kernel for padding writes beyond its memory.)
    ids, types = _widened(ids, -1), _widened(token_type_ids, 0)
    across = types.unsqueeze(2) != types.unsqueeze(1)
    unigram = paddle.logical_and(ids.unsqueeze(2) == ids.unsqueeze(1), across).astype("float32")
    if inside is not None:
        unigram = whole_characters(unigram, _widened(inside, 0.0))
    bigram = unigram[:, :-1, :-1] * unigram[:, 1:, 1:]
    trigram = bigram[:, :-1, :-1] * unigram[:, 2:, 2:]
    # max over the other text: does a shared n-gram start here; the n-gram covers this position and the n - 1 after it.
    one, two, three = (equal.max(axis=2) for equal in (unigram, bigram, trigram))
    covered_by_two = paddle.maximum(two[:, 2:-1], two[:, 1:-2])
    covered_by_three = paddle.maximum(paddle.maximum(three[:, 2:], three[:, 1:-1]), three[:, :-2])
    # Nested by construction: a trigram's tokens are in bigrams, and so on.
    return (one[:, 2:-2] + covered_by_two + covered_by_three).astype("int64")


def _widened(values: Tensor, edge: float) -> Tensor:
    """Return `[batch, length]` with two more columns of `edge` on either side."""
    column = paddle.full_like(values[:, :1], edge)
    return paddle.concat([column, column, values, column, column], axis=1)
