"""A teacher's scores of training pairs: logits in the columns teacher_score and, of triples, neg_teacher_score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np

from paddle_ranker.errors import DataError


def teacher_column(
    name: str, losses: Sequence[str], scores: Sequence[Optional[float]], first: int = 0, column: str = "teacher_score"
) -> np.ndarray:
    """Return scores [m] as float32.

    Raises `DataError` where one is missing, naming the file, the record (the first of these is `first`, from 0) and
    the losses that need it.
    """
    for number, score in enumerate(scores, first + 1):
        if score is None:
            raise DataError(
                f"{name}: record {number:,} has no {column}, which --loss {'+'.join(losses)} learns from: add a column "
                f"{column} with the teacher's logits"
            )
    return np.array(scores, dtype=np.float32)
