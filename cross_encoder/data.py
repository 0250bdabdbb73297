"""Training data of the cross-encoder: labelled pairs, which are encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Integers
from paddle_ranker.data.rows.records import LabeledPair, RecordFile
from paddle_ranker.encoding.batching import Groups
from paddle_ranker.encoding.column_store import MAX_BYTES, PairCollector
from paddle_ranker.encoding.pair_encoder import PairEncoder
from paddle_ranker.errors import DataError
from paddle_ranker.evaluation.evaluation_set import require_both_classes
from paddle_ranker.metrics.calibration import AUTO
from paddle_ranker.metrics.ranking import RELEVANT
from paddle_ranker.options.input_files import folder_of
from paddle_ranker.storage.arrays import gather
from paddle_ranker.storage.prefetch import chunks
from paddle_ranker.training.examples import EncodedExamples, teacher_column, teacher_logits
from paddle_ranker.training.losses.expression import LossExpression


def encode_labels(
    source: Iterable[LabeledPair],
    pair_encoder: PairEncoder,
    folder: Optional[Path] = None,
    max_bytes: int = MAX_BYTES,
    *,
    group_by: Optional[str] = None,
    with_positions: bool = False,
    loss: Optional[LossExpression] = None,
    teacher_scores: str = AUTO,
) -> EncodedExamples:
    """Encode all labelled pairs of `source`, a list or a file that is read in chunks.

    With `group_by`, "query" or "title", the pairs with the same query or title share a batch. `teacher_scores` is the
    kind of the teacher's scores, see `teacher_logits`.
    Pairs beyond `max_bytes` of memory go to unnamed temporary files in `folder` (None: the system's temporary folder).
    Raises `DataError` for a bad row of a file; for a missing teacher's score that the `loss` needs; with
    `with_positions`, for a missing position; and, if the loss needs labels, if all pairs are relevant or none is
    (unless some labels are shares).
    """
    name = source.path if isinstance(source, RecordFile) else "the training pairs"
    by_teacher = loss.of_teacher if loss else ()
    highest = 0.0
    if isinstance(source, RecordFile):
        pair_encoder.set_title_folder(folder_of(source.path))
    collector, rows = PairCollector(folder, max_bytes), 0
    for part in chunks(source):
        queries = [pair.query for pair in part]
        columns: dict[str, np.ndarray] = {"labels": np.array([pair.label for pair in part], dtype=np.float32)}
        if group_by is not None:
            columns["queries"] = np.array([_number_of(getattr(pair, group_by)) for pair in part], dtype=np.int64)
        if by_teacher:
            columns["teacher"] = teacher_column(name, by_teacher, [pair.teacher_score for pair in part], rows)
        if with_positions:
            columns["positions"] = _positions(name, part, rows)
        highest = max(highest, float(columns["labels"].max()))
        rows += len(part)
        collector.append(pair_encoder.encode(queries, [pair.title for pair in part]), **columns)
    pairs, kept = collector.finish()
    teacher = teacher_logits(name, gather(kept["teacher"], np.arange(rows)), teacher_scores) if by_teacher else None
    if (loss is None or loss.needs_labels) and not _are_shares(kept["labels"]):
        require_both_classes(name, kept["labels"], "training")
    return EncodedExamples(
        pairs, kept["labels"], kept.get("queries"), teacher, highest, positions=kept.get("positions")
    )


def left_out(name: str, data: EncodedExamples, loss: LossExpression) -> list[str]:
    """Return notes on queries that a loss ignores because their titles cannot be compared, one line per reason.

    Raises `DataError` if every loss of the sum ignores all queries.
    """
    if data.queries is None or data.labels is None:
        return []
    groups = Groups.of(data.queries)
    labels = gather(data.labels, np.arange(len(data)))[groups.members]
    lowest, highest = (extreme.reduceat(labels, groups.offsets[:-1]) for extreme in (np.minimum, np.maximum))
    titles = np.diff(groups.offsets)
    lines, idle = [], []
    for need, names in loss.comparisons.items():
        count = int(need.lacks(lowest, highest, titles).sum())
        if count:
            have, them = ("has", "it") if count == 1 else ("have", "them")
            leave = "leave" if len(names) > 1 else "leaves"
            lines.append(
                f"{count:,} of {len(groups):,} queries {have} {need.lacking}: {' and '.join(names)} {leave} {them} out"
            )
            idle += names if count == len(groups) else []
    if len(idle) == len(loss.terms):
        raise DataError(
            f"{name}: {'; '.join(lines)}, so there is nothing to learn; train with --loss bce, which judges each pair "
            "alone, or on a file with more titles of each query"
        )
    return lines


def _are_shares(labels: NDArray[np.float32]) -> bool:
    """Return whether some labels lie between 0 and 1, as shares of clicks do; shares need not reach 1."""
    return bool(((labels > 0) & (labels < RELEVANT)).any())


def _positions(name: str, part: Sequence[LabeledPair], first: int) -> Integers:
    for number, pair in enumerate(part, first + 1):
        if pair.position is None:
            raise DataError(
                f"{name}: record {number:,} has no position, which --position_tower learns from: add a column position "
                "as paddle-ranker judgments does, or leave the option out"
            )
    return np.array([pair.position for pair in part], np.int64)


def _number_of(text: str) -> int:
    # hash() differs between processes. 64 bits distinguish ten million texts.
    return int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8).digest(), "little", signed=True)
