"""Match levels: for each token of a pair, the length of the longest n-gram around it that also occurs in the other
text.

| level | the token ... |
| --- | --- |
| 0 | is not in the other text (special tokens, padding and [UNK] always) |
| 1 | is in the other text |
| 2 | is part of a bigram that is in the other text |
| 3 | is part of a trigram that is in the other text |

A cross-encoder that is trained on little data does not learn to see that two tokens are equal, since it compares them
by learned embeddings. An input embedding of the level shows this from the first step. The levels depend only on the
ids, so the model computes them, and an exported graph keeps its two inputs. `paddle_ranker.lexical.token_comparison`
defines which tokens are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import paddle
from paddle import Tensor

from paddle_ranker.lexical.token_comparison import Speller, compared, whole_characters

LEVELS = 4


def levels_of_pair(
    speller: Optional[Speller], input_ids: Tensor, token_type_ids: Tensor, never_match: Sequence[int]
) -> Tensor:
    """Return the match level of every token, `[batch, length]` int64.

    speller: two tokens match if it spells them alike; None: tokens match if their ids are equal
    input_ids, token_type_ids, never_match: as in `match_levels`
    """
    tokens = compared(speller, input_ids, token_type_ids)
    return tokens.at_inputs(match_levels(tokens.ids, tokens.types, never_match, tokens.inside))


def match_levels(
    input_ids: Tensor, token_type_ids: Tensor, never_match: Sequence[int], inside: Optional[Tensor] = None
) -> Tensor:
    """Return the match level of every token, `[batch, length]` int64 in 0..3.

    input_ids: `[batch, length]` int64
    token_type_ids: `[batch, length]` int64, 0 in the first text and 1 in the second
    never_match: ids of the special tokens, padding and [UNK]; they also end a bigram or trigram
    inside: `[batch, length]` float32, 1 for tokens that begin inside a character; None: no such tokens
    """
    ids = input_ids
    for special in never_match:
        # Every special becomes -1 in the first text and -2 in the second, so that it equals nothing in the other text.
        ids = paddle.where(input_ids == special, -1 - token_type_ids, ids)
    # Two columns on either side match nothing. N-grams may then start or end beyond the pair, and those that start at a
    # token's neighbours are a slice. (Padding the matrices instead crashes Paddle Inference: its oneDNN kernel for
    # padding writes beyond its memory.)
    ids, types = _widened(ids, -1), _widened(token_type_ids, 0)
    across = types.unsqueeze(2) != types.unsqueeze(1)
    unigram = paddle.logical_and(ids.unsqueeze(2) == ids.unsqueeze(1), across).astype("float32")
    if inside is not None:
        unigram = whole_characters(unigram, _widened(inside, 0.0))
    bigram = unigram[:, :-1, :-1] * unigram[:, 1:, 1:]
    trigram = bigram[:, :-1, :-1] * unigram[:, 2:, 2:]
    # The maximum over the other text tells whether a shared n-gram starts here; it covers n tokens from here on.
    one, two, three = (equal.max(axis=2) for equal in (unigram, bigram, trigram))
    covered_by_two = paddle.maximum(two[:, 2:-1], two[:, 1:-2])
    covered_by_three = paddle.maximum(paddle.maximum(three[:, 2:], three[:, 1:-1]), three[:, :-2])
    # The sum is the level, since the tokens of a trigram are also in bigrams.
    return (one[:, 2:-2] + covered_by_two + covered_by_three).astype("int64")


def _widened(values: Tensor, edge: float) -> Tensor:
    """Return `values`, `[batch, length]`, with two columns of the value `edge` added on either side."""
    column = paddle.full_like(values[:, :1], edge)
    return paddle.concat([column, column, values, column, column], axis=1)
