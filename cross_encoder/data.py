"""Training data of the cross-encoder: labelled pairs, encoded once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.evaluation import require_both_classes
from paddle_ranker.pair_encoder import EncodedPairs, PairEncoder
from paddle_ranker.pair_store import MAX_BYTES, PairCollector
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


def encode_labels(
    source: Iterable[LabeledPair],
    pair_encoder: PairEncoder,
    folder: Optional[Path] = None,
    max_bytes: int = MAX_BYTES,
    *,
    with_queries: bool = False,
) -> EncodedLabels:
    """Encode all labelled pairs, of a list or of a file that is read as it goes.

    Beyond `max_bytes` in memory they lie in unnamed temporary files in `folder` (None: the system's for such files).
    Raises `DataError` for a bad row, and where all pairs are relevant, or none is: there is nothing to learn.
    """
    collector = PairCollector(folder, max_bytes)
    for part in chunks(source):
        queries = [pair.query for pair in part]
        columns = {"labels": np.array([pair.label for pair in part], dtype=np.float32)}
        if with_queries:
            columns["queries"] = np.array([_query_number(query) for query in queries], dtype=np.int64)
        collector.append(pair_encoder.encode(queries, [pair.title for pair in part]), **columns)
    pairs, columns = collector.finish()
    name = source.path if isinstance(source, RecordFile) else "the training pairs"
    require_both_classes(name, columns["labels"], "training")
    return EncodedLabels(pairs, columns["labels"], columns.get("queries"))


def _query_number(query: str) -> int:
    # Not hash(), which differs from process to process; 64 bits keep ten million queries apart.
    return int.from_bytes(blake2b(query.encode("utf-8"), digest_size=8).digest(), "little", signed=True)
