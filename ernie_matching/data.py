"""Training data of the pairwise ranker: triples, encoded once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.pair_encoder import EncodedPairs, PairEncoder
from paddle_ranker.pair_store import MAX_BYTES, PairCollector
from paddle_ranker.records import Triple
from paddle_ranker.scorer import chunks


@dataclass(frozen=True)
class EncodedTriples:
    """n triples as 2n `pairs`: (query, title) of triple i at 2i, (query, neg_title) at 2i + 1, neighbours on a disk."""

    pairs: EncodedPairs

    def __len__(self) -> int:
        return len(self.pairs) // 2

    @classmethod
    def of(cls, positives: EncodedPairs, negatives: EncodedPairs) -> EncodedTriples:
        """Join the pairs with the titles [n] and those with the neg_titles [n]."""
        both = np.arange(2 * len(positives)).reshape(2, -1)
        return cls(EncodedPairs.concat([positives, negatives]).take(both.T.ravel()))

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of the longer pair of each triple of `indices` [m], `[m]`: what it costs in a batch."""
        longer: np.ndarray = self.pairs.lengths_of(2 * indices[:, None] + [0, 1]).max(axis=1)
        return longer


def encode_triples(
    source: Iterable[Triple], pair_encoder: PairEncoder, folder: Optional[Path] = None, max_bytes: int = MAX_BYTES
) -> EncodedTriples:
    """Encode all triples, of a list or of a file that is read as it goes (which raises `DataError` for a bad row).

    Beyond `max_bytes` in memory they lie in unnamed temporary files in `folder` (None: the system's for such files).
    """
    collector = PairCollector(folder, max_bytes)
    for part in chunks(source):
        queries = [triple.query for triple in part for _ in range(2)]
        titles = [title for triple in part for title in (triple.title, triple.neg_title)]
        collector.append(pair_encoder.encode(queries, titles))
    return EncodedTriples(collector.finish()[0])
