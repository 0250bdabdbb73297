"""Training data of the pairwise ranker: triples, encoded once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from paddle_ranker.pair_encoder import EncodedPairs, PairEncoder
from paddle_ranker.records import Triple
from paddle_ranker.scorer import chunks


@dataclass(frozen=True)
class EncodedTriples:
    """The pairs (query, title) and (query, neg_title) of n triples."""

    positives: EncodedPairs
    negatives: EncodedPairs

    def __len__(self) -> int:
        return len(self.positives)

    @property
    def lengths(self) -> np.ndarray:
        """`[n]` tokens of the longer pair of each triple: what the triple costs in a batch."""
        return np.maximum(self.positives.lengths, self.negatives.lengths)


def encode_triples(source: Iterable[Triple], pair_encoder: PairEncoder) -> EncodedTriples:
    """Encode all triples, of a list or of a file that is read as it goes (which raises `DataError` for a bad row)."""
    positives, negatives = [], []
    for part in chunks(source):
        queries = [triple.query for triple in part]
        positives.append(pair_encoder.encode(queries, [triple.title for triple in part]))
        negatives.append(pair_encoder.encode(queries, [triple.neg_title for triple in part]))
    return EncodedTriples(EncodedPairs.concat(positives), EncodedPairs.concat(negatives))
