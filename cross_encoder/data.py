"""Training data of the cross-encoder: labelled pairs, encoded once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Optional

import numpy as np

from paddle_ranker.evaluation import require_both_classes
from paddle_ranker.pair_encoder import EncodedPairs, PairEncoder
from paddle_ranker.records import LabeledPair, RecordFile
from paddle_ranker.scorer import chunks


@dataclass(frozen=True)
class EncodedLabels:
    """n labelled pairs: `labels` `[n]` float32, 1 and above is relevant; `queries` `[n]` int64, or None.

    Rows of one query have the same number in `queries`, wherever they stand.
    """

    pairs: EncodedPairs
    labels: np.ndarray
    queries: Optional[np.ndarray]

    def __len__(self) -> int:
        return len(self.labels)


def encode_labels(source: Iterable[LabeledPair], pair_encoder: PairEncoder, *, with_queries: bool) -> EncodedLabels:
    """Encode all labelled pairs, of a list or of a file that is read as it goes (which raises `DataError`s of its own).

    Raises `DataError` where all pairs are relevant, or none is: there is nothing to learn.
    """
    pairs: list[EncodedPairs] = []
    columns: dict[str, list[np.ndarray]] = {"labels": [], "queries": []}
    for part in chunks(source):
        queries = [pair.query for pair in part]
        pairs.append(pair_encoder.encode(queries, [pair.title for pair in part]))
        columns["labels"].append(np.array([pair.label for pair in part], dtype=np.float32))
        if with_queries:
            columns["queries"].append(np.array([_query_number(query) for query in queries]))
    labels = np.concatenate(columns["labels"])
    name = source.path if isinstance(source, RecordFile) else "the training pairs"
    require_both_classes(name, labels, "training")
    numbers = np.concatenate(columns["queries"]) if with_queries else None
    return EncodedLabels(EncodedPairs.concat(pairs), labels, numbers)


def _query_number(query: str) -> int:
    # Not hash(), which differs from process to process; 64 bits keep ten million queries apart.
    return int.from_bytes(blake2b(query.encode("utf-8"), digest_size=8).digest(), "little", signed=True)
