"""Jobs, the rows of one request (for a ranker, its pairs) on their way through the engine; and batches of several jobs.

    Job -> Span, rows of a job to encode -> Piece, the same rows encoded -> Batch, rows of several pieces -> Job.outputs

A job of 100 pairs with long texts is encoded as two spans, its rows 0 to 59 and 60 to 99. Spans of several jobs are
encoded in one call, so rows 60 to 99 of the job may be rows 7 to 46 of the columns that the call returns; a piece
records both. Batches take rows of similar length from all waiting pieces, and `Job.store` writes the model's outputs to
the rows that they belong to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding.batching import batches_of_columns
from paddle_ranker.encoding.columns import Columns, offsets_of
from paddle_ranker.serving.core.faults import INTERNAL, Fault

Texts = tuple[Sequence[str], ...]  # one sequence for each field of the rows: (queries, titles), or (texts,)
Encode = Callable[..., Columns]  # type: ignore[explicit-any]  # called with one sequence of texts per field
Check = Callable[[int, NDArray[np.int64], int], None]  # see `Job`

LOG = logging.getLogger("paddle_ranker.serving")


def no_texts() -> Columns:
    """Placeholder for the encoder of a queue whose jobs are already encoded. Always raises `ValueError`."""
    raise ValueError("the rows of this queue come encoded")


class Job:
    """The rows of one request.

    Args:
        size: number of rows.
        done: called from any thread with a list of finished jobs, those that have all their outputs or a fault. Each
            job is passed once, a dropped job never. Jobs with an equal `done` that finish together are in one list.
        texts: the rows' texts, one sequence for each field; None if the rows are encoded.
        columns: the encoded rows; None if `texts` is given.
        deadline: time on `time.monotonic()`'s clock; None: no deadline.
        check: called when rows are encoded: with the index of the first row, the rows' token counts before truncation
            `[n]`, see `LengthCheck`, and the length to which they are truncated; may raise a `Fault` to refuse the job.

    Attributes:
        outputs: the model's outputs by name, `[size, ...]` each, complete when `left` is 0.
        left: number of rows without outputs.
        arrived, begun: when the job came, and when its first batch was begun, on `time.monotonic()`'s clock.
    """

    def __init__(
        self,
        size: int,
        done: Callable[[Sequence[Job]], None],
        *,
        texts: Optional[Texts] = None,
        columns: Optional[Columns] = None,
        deadline: Optional[float] = None,
        check: Optional[Check] = None,
    ):
        self.size, self.done, self.deadline, self.check = size, done, deadline, check
        self.texts, self.columns = texts, columns
        self.characters = sum(sum(map(len, field)) for field in texts or ())  # a text that repeats counts each time
        self.arrived = self.begun = time.monotonic()
        self.outputs: Arrays = {}
        self.taken = 0  # rows that `next_span` returned
        self.tokens = 0  # tokens of the encoded rows
        self.queued = size  # rows in no batch that was begun
        self.left = size  # rows without outputs
        self.fault: Optional[Fault] = None
        self.dropped = False  # nobody waits for it any more

    def next_span(self, characters: int, rows: int) -> Span:
        """Return the next rows to encode: at most `rows` of about `characters` characters, or all of an encoded job."""
        start = self.taken
        fitting = self.size if self.characters <= characters else self._fitting(characters)
        self.taken = self.size if self.columns is not None else min(self.size, start + min(fitting, rows))
        return Span(self, start, self.taken - start)

    def _fitting(self, most: int) -> int:
        """Return how many of the next rows to encode at a time: those of about `most` characters in all, at least one.

        A repeated text counts once, since the encoder tokenizes it once. `most` is raised to the length of the first
        row, since the query in it is tokenized again in each span. This at most doubles the work.
        """
        assert self.texts is not None
        seen: set[str] = set()
        characters = end = 0
        for row in range(self.taken, self.size):
            for field in self.texts:
                if field[row] not in seen:
                    seen.add(field[row])
                    characters += len(field[row])
            if row == self.taken:
                end = characters + max(most, characters)
            elif characters > end:
                return row - self.taken
        return self.size - self.taken

    def store(self, outputs: Arrays, places: NDArray[np.int64]) -> None:
        """Store the outputs, `[m, ...]` each by name, of the rows with the indices `places`, `[m]`, ascending.

        If the outputs are of all rows of the job, the arrays are not copied.
        """
        if len(places) == self.size:
            self.outputs = outputs
        else:
            for name, array in outputs.items():
                if name not in self.outputs:
                    self.outputs[name] = np.empty((self.size, *array.shape[1:]), array.dtype)
                self.outputs[name][places] = array
        self.left -= len(places)


@dataclass
class Span:
    """The rows `start` to `start + count` (exclusive) of a job, whose texts are encoded at once."""

    job: Job
    start: int
    count: int

    def texts(self) -> Texts:
        """Return the rows' texts, one sequence for each field."""
        assert self.job.texts is not None
        if self.count == self.job.size:
            return self.job.texts
        return tuple(field[self.start : self.start + self.count] for field in self.job.texts)


@dataclass
class Piece:
    """Encoded rows of one job: `start` to `start + count` (exclusive).

    columns: columns that contain the rows
    offset: index in `columns` of the first row
    lengths: token counts of all rows of `columns`, `[n]`
    tokens: number of tokens of the piece's rows together
    """

    job: Job
    start: int
    count: int
    columns: Columns
    offset: int
    lengths: NDArray[np.int64]
    tokens: int

    def split(self, tokens: int) -> Piece:
        """Remove the first rows and return them as a piece: just enough rows for `tokens` tokens, or all."""
        count, total = self.count, self.tokens
        if total > tokens:
            most = min(count, max(1, tokens))  # a row has a token at the least
            totals = np.cumsum(self.lengths[self.offset : self.offset + most])
            count = min(int(np.searchsorted(totals, tokens)) + 1, most)
            total = int(totals[count - 1])
        leading = Piece(self.job, self.start, count, self.columns, self.offset, self.lengths, total)
        self.start, self.offset = self.start + count, self.offset + count
        self.count, self.tokens = self.count - count, self.tokens - total
        return leading


@dataclass
class Batch:
    """Rows that the engine computes at once.

    columns: columns that contain the rows
    rows: each row's index in `columns`, `[batch]` int64
    pieces: the pieces that the rows come from
    owners: index in `pieces` of each row's piece, `[batch]` int64
    places: each row's index in its job, `[batch]` int64
    """

    columns: Columns
    rows: NDArray[np.int64]
    pieces: list[Piece]
    owners: NDArray[np.int64]
    places: NDArray[np.int64]

    def alone(self) -> Iterator[Batch]:
        """Yield a batch of one row for each row."""
        for number in range(len(self.rows)):
            yield self._subset(np.array([number]))

    def keep(self, is_wanted: Sequence[bool]) -> Batch:
        """Return a batch of the rows whose piece is wanted. `is_wanted` has a value for each item of `pieces`."""
        return self if all(is_wanted) else self._subset(np.flatnonzero(np.asarray(is_wanted)[self.owners]))

    def jobs(self) -> Iterator[tuple[Job, int]]:
        """Yield (job, row count) for each job that has rows in the batch."""
        counts = np.bincount(self.owners, minlength=len(self.pieces))
        return ((piece.job, count) for piece, count in zip(self.pieces, counts.tolist()) if count)

    def order(self) -> NDArray[np.int64]:
        """Return the batch's rows ordered by job (as in `jobs`) and by index in the job, `[batch]` int64."""
        return np.argsort(self.rows)  # `columns` has the rows of the pieces one after another

    def _subset(self, chosen: NDArray[np.int64]) -> Batch:
        return Batch(self.columns, self.rows[chosen], self.pieces, self.owners[chosen], self.places[chosen])


def encoded_pieces(encode: Encode, spans: Sequence[Span], fail: Callable[[Job, Fault], None]) -> list[Piece]:
    """Encode the texts of spans. Return the pieces, one for each span that could be encoded.

    A job that is refused or cannot be encoded fails, without effect on the other jobs.

    encode: called once with the texts of all spans whose jobs have no check, and once for each span whose job has one,
        with the keyword `check`
    fail: called with a failed job and its fault
    """
    pieces = _pieces_of(encode, [span for span in spans if span.job.check is None], fail)
    for span in spans:
        if span.job.check is not None:
            pieces += _pieces_of(partial(encode, check=partial(span.job.check, span.start)), [span], fail)
    return pieces


def _pieces_of(encode: Encode, spans: Sequence[Span], fail: Callable[[Job, Fault], None]) -> list[Piece]:
    try:
        fields = zip(*(span.texts() for span in spans if span.job.texts))
        texts = [[text for texts_of_span in field for text in texts_of_span] for field in fields]
        encoded = encode(*texts) if texts else None
    except Exception as error:
        if len(spans) > 1:
            return [piece for span in spans for piece in _pieces_of(encode, [span], fail)]
        if not isinstance(error, Fault):
            LOG.exception("the texts of a request could not be encoded")
            error = Fault(INTERNAL, f"the texts could not be encoded ({type(error).__name__})")
        fail(spans[0].job, error)
        return []
    lengths = encoded.lengths if encoded is not None else np.empty(0, np.int64)
    ends = offsets_of(lengths)
    pieces, offset = [], 0
    for span in spans:
        job, start, count = span.job, span.start, span.count
        if job.columns is not None:  # an encoded job is a single span
            row_lengths = job.columns.lengths
            piece = Piece(job, start, count, job.columns, 0, row_lengths, int(row_lengths.sum()))
        else:
            assert encoded is not None
            tokens = int(ends[offset + count] - ends[offset])
            piece = Piece(job, start, count, encoded, offset, lengths, tokens)
            offset += count
            if start + count == job.size:
                job.texts = None
        job.tokens += piece.tokens
        pieces.append(piece)
    return pieces


def batches_of(pieces: list[Piece], max_tokens: int, max_rows: int, by_query: bool = False) -> list[Batch]:
    """Divide the rows of `pieces` into batches, see `batches_of_columns`. All columns must be joinable."""
    parts: list[Columns] = []
    for _, together in groupby(pieces, key=lambda piece: id(piece.columns)):  # pieces that were encoded together
        group = list(together)
        source = group[0].columns
        rows = _ranges([piece.offset for piece in group], [piece.count for piece in group])
        is_whole = len(rows) == len(source) and bool((rows == np.arange(len(rows))).all())
        parts.append(source if is_whole else source.take(rows))
    columns = parts[0] if len(parts) == 1 else type(parts[0]).concat(parts)
    counts = [piece.count for piece in pieces]
    owners = np.repeat(np.arange(len(pieces)), counts)
    places = _ranges([piece.start for piece in pieces], counts)
    return [
        Batch(columns, rows, pieces, owners[rows], places[rows])
        for rows in batches_of_columns(columns, max_tokens, max_rows, by_query)
    ]


def _ranges(starts: Sequence[int], counts: Sequence[int]) -> NDArray[np.int64]:
    if len(starts) == 1:
        return np.arange(starts[0], starts[0] + counts[0], dtype=np.int64)
    ranges = [np.arange(start, start + count, dtype=np.int64) for start, count in zip(starts, counts)]
    return np.concatenate(ranges)
