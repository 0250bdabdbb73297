"""Training data of the pairwise ranker: triples, which are encoded once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.data.rows.records import RecordFile, Triple
from paddle_ranker.encoding.column_store import MAX_BYTES, PairCollector
from paddle_ranker.encoding.columns import EncodedPairs
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.metrics.calibration import AUTO
from paddle_ranker.options.input_files import folder_of
from paddle_ranker.storage.arrays import gather
from paddle_ranker.storage.prefetch import chunks
from paddle_ranker.training.examples import EncodedExamples, teacher_column, teacher_logits
from paddle_ranker.training.losses.expression import LossExpression


def join_triples(positives: EncodedPairs, negatives: EncodedPairs) -> EncodedExamples:
    """Return triples made of the encoded pairs (query, title) [n] and (query, neg_title) [n]."""
    both = np.arange(2 * len(positives)).reshape(2, -1)
    return EncodedExamples(EncodedPairs.concat([positives, negatives]).take(both.T.ravel()), rows_each=2)


def encode_triples(
    source: Iterable[Triple],
    pair_encoder: PairEncoder,
    folder: Optional[Path] = None,
    max_bytes: int = MAX_BYTES,
    *,
    loss: Optional[LossExpression] = None,
    teacher_scores: str = AUTO,
) -> EncodedExamples:
    """Encode all triples of `source`, a list or a file that is read in chunks.

    Of triple i, (query, title) becomes pair 2i, and (query, neg_title) pair 2i + 1. `teacher_scores` is the kind of the
    teacher's scores, see `teacher_logits`.

    Pairs beyond `max_bytes` of memory go to unnamed temporary files in `folder` (None: the system's temporary folder).
    Raises `DataError` for a bad row of a file, and if a teacher's score that the `loss` needs is missing.
    """
    name = source.path if isinstance(source, RecordFile) else "the triples"
    by_teacher = loss.of_teacher if loss else ()
    if isinstance(source, RecordFile):
        pair_encoder.set_title_folder(folder_of(source.path))
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
    scores = columns.get("teacher")
    logits = None if scores is None else teacher_logits(name, gather(scores, np.arange(2 * rows)), teacher_scores)
    return EncodedExamples(pairs, teacher=logits, rows_each=2)
