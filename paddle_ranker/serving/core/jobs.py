"""The pairs of one request on their way through the engine, and batches of several requests' pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.encoding.batching import scoring_batches
from paddle_ranker.encoding.columns import Columns
from paddle_ranker.serving.core.faults import INTERNAL, Fault

Encode = Callable[[Sequence[str], Sequence[str]], Columns]


class Job:
    """The pairs of one request.

    Args:
        size: how many.
        done: called once, from any thread, when `logits` or `fault` is there; not called for a job that was dropped.
        texts: queries and titles; or
        pairs: already encoded.
        deadline: on `time.monotonic()`'s clock.

    Attributes: `logits`, `size` floats, or lists of them where there are several classes; complete when `left` is 0.
    `tokens`, of all its pairs, known once they are encoded.
    """

    def __init__(
        self,
        size: int,
        done: Callable[[Job], None],
        *,
        texts: Optional[tuple[Sequence[str], Sequence[str]]] = None,
        pairs: Optional[Columns] = None,
        deadline: Optional[float] = None,
    ):
        self.size, self.left, self.queued = size, size, size
        self.done = done
        self.texts, self.pairs = texts, pairs
        self.deadline = deadline
        self.arrived = time.monotonic()
        self.logits: list[Any] = [0.0] * size
        self.tokens = 0
        self.fault: Optional[Fault] = None
        self.dropped = False  # nobody waits for it any more


@dataclass
class Piece:
    """Rows of encoded pairs that belong to one job.

    pairs: rows `first` to `first + count` are the job's rows `at` to `at + count`
    lengths: of all of `pairs`
    """

    job: Job
    pairs: Columns
    lengths: list[int]
    first: int
    at: int
    count: int

    def rows_within(self, tokens: int) -> tuple[int, int]:
        """Return how many of its rows, one at least, reach or stay within so many tokens, and what they have."""
        total = 0
        for count, length in enumerate(self.lengths[self.first : self.first + self.count], 1):
            total += length
            if total >= tokens:
                return count, total
        return self.count, total

    def split(self, count: int) -> Piece:
        """Take the first `count` rows away, and return them."""
        taken = Piece(self.job, self.pairs, self.lengths, self.first, self.at, count)
        self.first, self.at, self.count = self.first + count, self.at + count, self.count - count
        return taken


@dataclass
class Batch:
    """Rows that the engine computes at once.

    owners, places: `[batch]` int64, of each row the piece of `pieces` and the row of its job
    """

    pairs: Columns
    rows: NDArray[np.int64]
    pieces: list[Piece]
    owners: NDArray[np.int64]
    places: NDArray[np.int64]

    def alone(self) -> Iterator[Batch]:
        """Yield every row as a batch of its own."""
        for number in range(len(self.rows)):
            row = slice(number, number + 1)
            yield Batch(self.pairs, self.rows[row], self.pieces, self.owners[row], self.places[row])

    def jobs(self) -> list[Job]:
        """Return the job of every row."""
        return [self.pieces[owner].job for owner in self.owners.tolist()]


def encoded_pieces(encode: Encode, jobs: Sequence[Job], fail: Callable[[Job, Fault], None]) -> list[Piece]:
    """Return the pieces of jobs, whose texts are encoded in one call; what cannot be encoded fails alone.

    Args:
        fail: called with a job that failed, and its fault.
    """
    queries = [text for job in jobs if job.texts for text in job.texts[0]]
    titles = [text for job in jobs if job.texts for text in job.texts[1]]
    try:
        encoded = encode(queries, titles) if queries else None
    except Exception as error:
        if len(jobs) > 1:
            return [piece for job in jobs for piece in encoded_pieces(encode, [job], fail)]
        fail(jobs[0], Fault(INTERNAL, f"the texts could not be encoded ({type(error).__name__})"))
        return []
    lengths = encoded.lengths.tolist() if encoded is not None else []
    pieces, first = [], 0
    for job in jobs:
        if job.pairs is not None:
            given = job.pairs.lengths.tolist()
            job.tokens = sum(given)
            pieces.append(Piece(job, job.pairs, given, 0, 0, job.size))
            continue
        assert encoded is not None
        job.tokens = sum(lengths[first : first + job.size])
        pieces.append(Piece(job, encoded, lengths, first, 0, job.size))
        first += job.size
        job.texts = None
    return pieces


def batches_of(pieces: list[Piece], max_tokens: int, max_rows: int) -> list[Batch]:
    """Return batches of the rows of `pieces`, whose pairs are of one kind, by falling length."""
    parts: list[Columns] = []
    start = 0
    while start < len(pieces):  # pieces that were encoded together stand together
        end = start + 1
        while end < len(pieces) and pieces[end].pairs is pieces[start].pairs:
            end += 1
        source = pieces[start].pairs
        rows = _ranges([piece.first for piece in pieces[start:end]], [piece.count for piece in pieces[start:end]])
        whole = len(rows) == len(source) and bool((rows == np.arange(len(rows))).all())
        parts.append(source if whole else source.take(rows))
        start = end
    pairs: Any = parts[0] if len(parts) == 1 else type(parts[0]).concat(parts)
    counts = [piece.count for piece in pieces]
    owners = np.repeat(np.arange(len(pieces)), counts)
    places = _ranges([piece.at for piece in pieces], counts)
    return [
        Batch(pairs, rows, pieces, owners[rows], places[rows])
        for rows in scoring_batches(pairs.lengths, max_tokens, max_rows)
    ]


def _ranges(starts: Sequence[int], counts: Sequence[int]) -> NDArray[np.int64]:
    if len(starts) == 1:
        return np.arange(starts[0], starts[0] + counts[0], dtype=np.int64)
    return np.concatenate([np.arange(start, start + count) for start, count in zip(starts, counts)]).astype(np.int64)
