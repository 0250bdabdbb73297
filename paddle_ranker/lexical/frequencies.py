"""How rare each token is: inverse document frequencies, counted over the distinct ones of some encoded texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.errors import DataError


def count_texts(
    texts: Iterable[NDArray[np.int32]],
    vocab_size: int,
    never_match: Sequence[int],
    text_ids: Optional[NDArray[np.int64]] = None,
) -> tuple[NDArray[np.float32], float]:
    """Return the inverse document frequency of each token, `[vocab_size]` float32, and the mean length of a text.

    Both are computed over the distinct texts. As in Lucene's BM25, the idf is log(1 + (N - n + 0.5) / (n + 0.5)) for a
    token that occurs in n of N texts. Ids of `never_match` have idf 0 and do not count in the length, which is in
    tokens and at least 1. Raises `DataError` if there are no texts.

    Args:
        texts: ids of each text, `[tokens]`.
        text_ids: `[vocab_size]`, the ids by which tokens are compared; None: their own.
    """
    frequency, total, seen = np.zeros(vocab_size, dtype=np.int64), 0, set()
    excluded = np.zeros(vocab_size, dtype=bool)
    excluded[list(never_match)] = True
    for ids in texts:
        # A digest of 8 bytes distinguishes a hundred million texts, at a fraction of their memory.
        digest = blake2b(ids.tobytes(), digest_size=8).digest()
        if digest not in seen:
            seen.add(digest)
            known = ids if text_ids is None else text_ids[ids]
            known = known[~excluded[known]]
            frequency[np.unique(known)] += 1
            total += len(known)
    if not seen:
        raise DataError("no titles to learn token frequencies from: give at least one training pair")
    idf = np.log1p((len(seen) - frequency + 0.5) / (frequency + 0.5))
    return np.where(excluded, 0.0, idf).astype(np.float32), max(total / len(seen), 1.0)
