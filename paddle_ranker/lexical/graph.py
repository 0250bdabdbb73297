"""Lexical features of a pair, such as BM25, computed from token ids inside the model.

The features depend only on `input_ids`, `token_type_ids`, and the stored inverse document frequencies and mean title
length. So an exported graph keeps its two inputs, and no client has to tokenize a second time. Every step is a tensor
operation of fixed depth, so the graph exports with dynamic batch size and length.

The model's tokens are used. In Chinese most of them are characters, so bigrams of tokens stand for words. Frequencies
are stored for tokens only. The idf of a bigram is the sum of its tokens' idf, which is exact if tokens occur
independently. Special tokens, padding and [UNK] belong to neither text: they match nothing, do not count, and interrupt
bigrams and runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from paddle_ranker.lexical.bm25 import K1, B, length_norm, saturated
from paddle_ranker.lexical.token_comparison import Compared, diagonal, whole_characters

LONGEST_RUN = 64  # tokens, a power of two; a longer shared run counts as this long
_TINY = 1e-6

GRAPH_FEATURES = (
    "bm25_tokens",
    "bm25_tokens_normalised",  # divided by the score of a title that is the query itself
    "bm25_bigrams",
    "bm25_bigrams_normalised",
    "coverage_tokens",  # share of the query's idf (distinct tokens) that the title holds
    "coverage_bigrams",
    "longest_run",  # longest shared run of tokens over the query's length
    "whole_query",  # 1 if that run is the whole query
    "query_length",  # log(1 + tokens)
    "title_length",
    "jaccard_tokens",
    "jaccard_bigrams",
    "first_match",  # position in the title of the first and the last shared bigram, 0 to 1; 1 without one
    "last_match",
    "match_span",  # tokens from the first to the last shared bigram over the query's length, at most 5
    "rarest_missing_token",  # idf of the query's rarest token that the title lacks
    "rarest_missing_bigram",
    "title_matched",  # share of the title's idf that the query holds
)


def lexical_features(pair: Compared, idf: Tensor, average_length: Tensor, never_match: Sequence[int]) -> Tensor:
    """Return the features of every pair.

    A query of one token has no bigram; its token then replaces bigrams in the features of bigrams.

    Args:
        pair: tokens of queries and titles, `[batch, length]` each.
        idf: `[vocab_size]` float32, the tokens' inverse document frequencies.
        average_length: `[1]` float32, mean number of tokens of a title.
        never_match: ids of the special tokens, padding and [UNK].

    Returns:
        `[batch, 18]` float32 in the order of `GRAPH_FEATURES`; finite, and independent of the batch's other pairs.
    """
    tokens, bigrams, shared = _grams_of(pair, idf, never_match)
    query_length, title_length = _sum(tokens.query), _sum(tokens.title)
    lone = (query_length < 1.5).astype("float32")
    title_norm, query_norm = (length_norm(n, average_length, B) for n in (title_length, query_length))

    bm25_tokens, bm25_bigrams = tokens.bm25(title_norm), bigrams.bm25(title_norm)
    relative_tokens = bm25_tokens / tokens.own_bm25(query_norm).clip(min=_TINY)
    relative_bigrams = bm25_bigrams / bigrams.own_bm25(query_norm).clip(min=_TINY)
    run = _longest_run(shared)
    length = query_length.clip(min=1.0)
    count = _sum(bigrams.title).clip(min=1.0)
    any_match, first, last = bigrams.matches(count)

    def or_token(bigram: Tensor, token: Tensor) -> Tensor:
        return lone * token + (1.0 - lone) * bigram

    return paddle.stack(
        [
            bm25_tokens,
            relative_tokens,
            or_token(bm25_bigrams, bm25_tokens),
            or_token(relative_bigrams, relative_tokens),
            tokens.coverage(),
            or_token(bigrams.coverage(), tokens.coverage()),
            run / length,
            (run > query_length - 0.5).astype("float32") * (query_length > 0.5).astype("float32"),
            paddle.log(1.0 + query_length),
            paddle.log(1.0 + title_length),
            tokens.jaccard(),
            or_token(bigrams.jaccard(), tokens.jaccard()),
            first / count,
            last / count,
            any_match * ((last - first + 2.0) / length).clip(max=5.0),
            tokens.rarest_missing(),
            or_token(bigrams.rarest_missing(), tokens.rarest_missing()),
            tokens.title_matched(),
        ],
        axis=1,
    )


def _grams_of(pair: Compared, idf: Tensor, never_match: Sequence[int]) -> tuple[_Grams, _Grams, Tensor]:
    """Return the tokens and the bigrams of a pair as n-grams, and a mask of equal tokens.

    The mask, `[batch, length, length]` float32, is 1 if token i of the query equals token j of the title.
    """
    input_ids, token_type_ids = pair.ids, pair.types
    special = paddle.zeros_like(input_ids).astype("bool")
    for token in never_match:
        special = paddle.logical_or(special, input_ids == token)
    text = 1.0 - special.astype("float32")
    title = text * token_type_ids.astype("float32")
    query = text - title
    weight = F.embedding(input_ids, idf.unsqueeze(1)).squeeze(-1) * text
    pair_starts = text * _later(text)  # a special token separates query and title, so no bigram spans both
    query_pairs, title_pairs = query * pair_starts, title * pair_starts
    pair_weight = (weight + _later(weight)) * pair_starts

    # Comparing ids is most of the work. To compare query and title, tokens of other texts become -1 or -2: these equal
    # no token. To compare tokens within each text, the title's ids are shifted beyond the query's.
    ids, is_title = input_ids.astype("int32"), token_type_ids.astype("int32")
    in_query, in_title = query > 0.5, title > 0.5
    of_query = paddle.where(in_query, ids, paddle.full_like(ids, -1))
    of_title = paddle.where(in_title, ids, paddle.full_like(ids, -2))
    of_either = paddle.where(special, paddle.full_like(ids, -1), ids + is_title * idf.shape[0])
    shared = _equal(of_query, of_title)  # [batch, query position, title position]
    within = _equal(of_either, of_either)  # also 1 between special tokens, which no sum counts
    if pair.inside is not None:
        shared, within = (whole_characters(same, pair.inside) for same in (shared, within))
    shared_pairs, within_pairs = shared * diagonal(shared, 1), within * diagonal(within, 1)
    tokens = _Grams(query, title, weight, shared, within)
    return tokens, _Grams(query_pairs, title_pairs, pair_weight, shared_pairs, within_pairs), shared


class _Grams:
    """N-grams of query and title, by the position of their first token; methods return `[batch]` float32.

    query, title: `[batch, length]` float32, 1 at positions where an n-gram of the query, or of the title, starts
    weight: `[batch, length]`, the n-gram's idf
    shared: `[batch, length, length]`, 1 if n-gram i of the query equals n-gram j of the title
    within: `[batch, length, length]`, 1 if n-grams i and j are in the same text and equal
    """

    def __init__(self, query: Tensor, title: Tensor, weight: Tensor, shared: Tensor, within: Tensor):
        self.weight = weight
        self.frequency = shared.sum(axis=2)  # how often the title contains the query's n-gram
        self.in_title, self.in_query = (
            (count > 0.5).astype("float32") for count in (self.frequency, shared.sum(axis=1))
        )
        self.own_frequency = within.sum(axis=2)
        # Each of n occurrences of an n-gram in a text counts 1/n, so that sums are over distinct n-grams.
        once = paddle.reciprocal(self.own_frequency.clip(min=1.0))  # 1.0 / x is an operator that ONNX lacks
        self.query, self.title = query, title
        self.distinct_query, self.distinct_title = query * once, title * once

    def bm25(self, norm: Tensor) -> Tensor:
        return _sum(self.weight * saturated(self.frequency, norm.unsqueeze(1), K1))

    def own_bm25(self, norm: Tensor) -> Tensor:
        frequency = self.own_frequency * self.query
        return _sum(self.weight * saturated(frequency, norm.unsqueeze(1), K1))

    def coverage(self) -> Tensor:
        weights = self.distinct_query * self.weight
        return _sum(weights * self.in_title) / _sum(weights).clip(min=_TINY)

    def title_matched(self) -> Tensor:
        weights = self.distinct_title * self.weight
        return _sum(weights * self.in_query) / _sum(weights).clip(min=_TINY)

    def jaccard(self) -> Tensor:
        common = _sum(self.distinct_query * self.in_title)
        return common / (_sum(self.distinct_query) + _sum(self.distinct_title) - common).clip(min=1.0)

    def matches(self, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return whether the title has an n-gram of the query, and the positions of the first and last, `[batch]` each.

        Positions count the title's n-grams from 0. If the title has no n-gram of the query, both positions are `count`.

        count: number of the title's n-grams, `[batch]`
        """
        positions = paddle.cumsum(self.title, axis=1) - 1.0
        any_match = self.in_query.max(axis=1)
        first = any_match * (count - (self.in_query * (count.unsqueeze(1) - positions)).max(axis=1))
        last = (self.in_query * positions).max(axis=1)
        return any_match, first + (1.0 - any_match) * count, last + (1.0 - any_match) * count

    def rarest_missing(self) -> Tensor:
        return (self.weight * self.query * (1.0 - self.in_title)).max(axis=1)


def _equal(rows: Tensor, columns: Tensor) -> Tensor:
    """Return 1 where rows[i] equals columns[j], else 0, `[batch, length, length]` float32."""
    return (rows.unsqueeze(2) == columns.unsqueeze(1)).astype("float32")


def _sum(values: Tensor) -> Tensor:
    return values.sum(axis=1)


def _later(values: Tensor) -> Tensor:
    """Shift `[batch, length]` to the left by one: position i gets the value of i + 1, the last position zero."""
    return paddle.concat([values[:, 1:], paddle.zeros_like(values[:, :1])], axis=1)


def _longest_run(shared: Tensor) -> Tensor:
    """Return the length of the longest diagonal run of ones, `[batch]`, at most `LONGEST_RUN`.

    Uses doubling. With r_n(i, j) the length of the run that starts at (i, j), counted up to n: r_2n(i, j) is
    r_n(i, j), plus r_n(i + n, j + n) if r_n(i, j) = n.
    """
    run, size = shared, 1
    while size < LONGEST_RUN:
        run = run + (run > size - 0.5).astype("float32") * diagonal(run, size)
        size *= 2
    return run.max(axis=[1, 2])
