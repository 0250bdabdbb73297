"""Build random pairs from the words of a ranker's vocabulary, to compare two ways of computing a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding.columns import Columns
from paddle_ranker.encoding.pair_encoder import PairRowEncoder

PAIRS = 48
_LARGEST_BATCH = 8
_LONGEST, _MOST_TOKENS = 1024, 4096  # words of a title; padded tokens of a batch of several pairs


def sample_batches(encoder: PairRowEncoder, alone: bool = False) -> Iterator[Arrays]:
    """Yield padded batches of 1 to 8 pairs of many lengths, made of words from the model's vocabulary.

    Titles share words with their queries, so that match levels and lexical features are not all zero. Titles have up to
    `max_seq_length` words, but at most 1,024, since the memory of attention grows with the square of the length.

    alone: whether titles are encoded without queries, as towers read them
    """
    random = np.random.default_rng(0)
    words = np.array(encoder.members[0].words())
    lengths = np.geomspace(1, min(encoder.max_seq_length, _LONGEST), PAIRS).astype(int)
    queries, titles = [], []
    for length in random.permutation(lengths):
        query = random.choice(words, 1 + min(length, 12) // 2)
        shared = query[: random.integers(0, len(query) + 1)]
        queries.append(" ".join(query))
        titles.append(encoder.members[0].sample(" ".join([*random.choice(words, length), *shared]), random))
    pairs = _encoded(encoder, queries, titles, alone)
    start = 0
    while start < len(pairs):
        rows = np.arange(start, min(len(pairs), start + int(random.integers(1, _LARGEST_BATCH + 1))))
        rows = rows[: max(1, _MOST_TOKENS // int(pairs.lengths[rows].max()))]
        yield pairs.pad(rows)
        start += len(rows)


def timing_batches(encoder: PairRowEncoder, shapes: Sequence[tuple[int, int]]) -> Iterator[Arrays]:
    """Yield a batch of random Chinese texts for each (pairs, tokens per pair) of `shapes`."""
    random = np.random.default_rng(0)
    for rows, length in shapes:
        words = random.integers(0, 20_000, (rows, min(length, encoder.max_seq_length) - 3)) + 0x4E00  # Han characters
        texts = ["".join(map(chr, row)) for row in words.tolist()]
        sample = encoder.members[0].sample
        pairs = _encoded(encoder, [text[:5] for text in texts], [sample(text[5:], random) for text in texts])
        yield pairs.pad(np.arange(rows))


def _encoded(encoder: PairRowEncoder, queries: Sequence[str], titles: Sequence[str], alone: bool = False) -> Columns:
    """Encode random pairs; `encoder.truncated` does not count them, since it is about users' pairs."""
    truncated = encoder.truncated
    if alone:
        pairs: Columns = encoder.members[0].encode_single(titles)
    else:
        pairs = encoder.encode(queries, titles)
    encoder.truncated = truncated
    return pairs
