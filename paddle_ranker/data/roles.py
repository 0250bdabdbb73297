"""Open a file whose contents decide which of several roles its records have.

source = open_as_one_of("dev.tsv", (LabeledPair, Pair))
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Optional

from paddle_ranker.data.labels import looks_numeric
from paddle_ranker.data.records import FIRST_ROWS, Record, RecordFile, Triple
from paddle_ranker.errors import DataError
from paddle_ranker.options import RowOptions


def open_as_one_of(path: str, kinds: Sequence[type[Record]], rules: Optional[RowOptions] = None) -> RecordFile[Record]:
    """Open a file as the first of `kinds` that its first row fits; raises `DataError` if it fits none.

    If bad rows are skipped, at least half of the first rows must fit, so that one bad row does not decide.
    """
    problem: Optional[DataError] = None
    some_fit: Optional[RecordFile[Record]] = None
    for kind in kinds:
        source: RecordFile[Record] = RecordFile(path, kind, rules)
        rows = iter(source)
        try:
            first = next(rows)
            # A number that is not a valid label (a fraction, nan) is not a title either: raise the first kind's error.
            if problem is not None and not source.has_header and _ends_in_number(first):
                break
            for _ in islice(rows, FIRST_ROWS - 1 if source.skip_bad_rows else 0):
                pass  # to count good and bad rows
        except DataError as error:
            if source.is_named:  # the names of columns decide the role, so the row is bad
                raise
            problem = error
            continue
        if source.kept >= source.skipped:
            return source
        some_fit = some_fit or source
    if some_fit is None:
        assert problem is not None
        raise problem
    return some_fit


def _ends_in_number(record: Record) -> bool:
    found = record.neg_title if isinstance(record, Triple) else getattr(record, "recall_score", None)
    return found is not None and looks_numeric(found)
