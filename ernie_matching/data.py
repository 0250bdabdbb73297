"""Training data of the pairwise ranker: triples, encoded once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.data.records import RecordFile, Triple
from paddle_ranker.data.teacher_scores import teacher_column
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.encoding.store import MAX_BYTES, PairCollector
from paddle_ranker.scoring.scorer import chunks
from paddle_ranker.training.losses.expression import LossExpression


@dataclass(frozen=True)
class EncodedTriples:
    """n triples as 2n `pairs`: (query, title) of triple i at 2i, (query, neg_title) at 2i + 1, neighbours on a disk.

    `teacher` [2n] float32 are a teacher's logits of the pairs, or None.
    """

    pairs: EncodedPairs
    teacher: Optional[np.ndarray] = None

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
    source: Iterable[Triple],
    pair_encoder: PairEncoder,
    folder: Optional[Path] = None,
    max_bytes: int = MAX_BYTES,
    *,
    loss: Optional[LossExpression] = None,
) -> EncodedTriples:
    """Encode all triples, of a list or of a file that is read as it goes (which raises `DataError` for a bad row).

    Beyond `max_bytes` in memory they lie in unnamed temporary files in `folder` (None: the system's for such files).
    Raises `DataError` where the `loss` needs a teacher's scores and one is missing.
    """
    name = source.path if isinstance(source, RecordFile) else "the triples"
    by_teacher = loss.of_teacher if loss else ()
    collector, rows = PairCollector(folder, max_bytes), 0
    for part in chunks(source):
        queries = [triple.query for triple in part for _ in range(2)]
        titles = [title for triple in part for title in (triple.title, triple.neg_title)]
        columns = {}
        if by_teacher:
            teacher = [
                teacher_column(name, by_teacher, [getattr(triple, column) for triple in part], rows, column)
                for column in ("teacher_score", "neg_teacher_score")
            ]
            columns["teacher"] = np.stack(teacher, axis=1).ravel()
        rows += len(part)
        collector.append(pair_encoder.encode(queries, titles), **columns)
    pairs, columns = collector.finish()
    return EncodedTriples(pairs, columns.get("teacher"))
