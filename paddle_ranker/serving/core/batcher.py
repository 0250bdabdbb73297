"""One queue before the engine: the rows of all requests, of every protocol, share its batches.

    waiting jobs -> encoded pieces -> batches -> outputs, back to their jobs

Batches are formed as late as possible, when the engine is free, so that they hold all rows that have arrived by then.
While the engine computes, a separate thread encodes new rows. While the engine is idle, the engine's thread encodes
them, so that a lone request does not wait for another thread. Texts are encoded in spans: some rows of a job, up to a
number of characters; each job gets a span in turn. Before each span, jobs whose caller has left or whose deadline has
passed are dropped. The queue does not need to know what rows and outputs mean.

Spans and batches go alternately to the job with the fewest rows and to the oldest job. So a search with one query waits
for a batch or two, however much is in the queue, and large jobs make progress, too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import Optional, Protocol

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Arrays
from paddle_ranker.encoding.columns import Columns
from paddle_ranker.errors import DataError
from paddle_ranker.serving.core.faults import INTERNAL, OVERLOADED, TIMED_OUT, UNAVAILABLE, Fault
from paddle_ranker.serving.core.jobs import LOG, Batch, Encode, Job, Piece, Span, batches_of, encoded_pieces

_ROUND = 4  # batches that are formed together, from rows sorted by length
_ENCODED_AHEAD = 2 * _ROUND  # batches whose rows are encoded while the engine is busy
_SPAN_CHARACTERS = 128 * 1024  # Encode at most this many characters at a time (about 10 ms), but at least one row.
_GATHER_SECONDS = 0.002  # Rows wait this long for others before they are encoded, while the engine is busy.
_RATE_MEMORY = 0.9  # share of the older rate that a new measurement keeps
_LONGEST_RETRY = 60.0


class BatchObserver(Protocol):
    """Observer that records every batch."""

    def batch(self, rows: int, tokens: int, padded_tokens: int, seconds: float, /) -> None: ...


class RowRunner(Protocol):
    """Interface of `BatchRunner`, which computes batches. The attribute `by_query` of `BatchRunner` is optional.

    Attributes:
        max_tokens: maximum number of padded tokens in a batch.
        max_rows: maximum number of rows in a batch.
    """

    max_tokens: int
    max_rows: int

    def compute(self, columns: Columns, rows: NDArray[np.int64], /) -> Arrays:
        """Compute the rows of `columns` with the indices `rows`, `[batch]`. Return outputs `[batch, ...]` by name.

        Raises `DataError` if a single row may be the cause: each row is then computed alone. Any other error fails the
        whole batch.
        """
        ...


class Batcher:
    """Queue that computes jobs in shared batches. Thread-safe.

    Args:
        runner: computes batches; its attributes limit their size.
        encode: called with the texts of many jobs, one list for each field; returns encoded columns.
        queue_rows: maximum number of rows that wait; further jobs are refused.
        streams: how many batches are computed at once.
        max_wait_us: microseconds that a job may wait for further jobs while the engine is idle.
        observer: records every batch.
        what: name of the model in messages.
    """

    def __init__(
        self,
        runner: RowRunner,
        encode: Encode,
        *,
        queue_rows: int = 8192,
        streams: int = 1,
        max_wait_us: int = 0,
        observer: Optional[BatchObserver] = None,
        what: str = "ranker",
    ):
        self.runner, self._encode_texts = runner, encode
        self.rows_per_second = 0.0  # measured rate of one stream; 0: not measured yet
        self._queue_rows, self._streams, self._max_wait = queue_rows, streams, max_wait_us / 1e6
        self._observer, self._what = observer, what
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)  # for the engine's threads
        self._ahead = threading.Condition(self._lock)  # for the thread that encodes ahead
        self._ahead_sleeps = False
        self._waiting: deque[Job] = deque()
        self._waiting_rows = 0
        self._pieces: deque[Piece] = deque()  # encoded
        self._encoded_rows = 0
        self._batches: deque[Batch] = deque()
        self._queued = 0  # accepted rows whose batch has not begun
        self._small_first = False  # whether the last choice preferred the smallest job, not the oldest
        self._owed = 0  # batches that are computed before a smaller job may overtake again
        self._encoding = False  # one thread at a time, so that jobs stay in their order
        self._computing = 0
        self._stopping = False
        names = [f"engine-{number}" for number in range(1, streams + 1)]
        self._threads = [threading.Thread(target=self._compute_batches, name=name, daemon=True) for name in names]
        self._threads.append(threading.Thread(target=self._encode_ahead, name="encode-ahead", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def queued_rows(self) -> int:
        """Number of rows that wait for the engine."""
        return self._queued

    def submit(self, job: Job) -> None:
        """Put a job into the queue.

        Raises `Fault(OVERLOADED)` if the queue is full, `Fault(UNAVAILABLE)` once it is closed.
        """
        with self._lock:
            if self._stopping:
                raise Fault(UNAVAILABLE, f"the {self._what} is being unloaded", retry_after=1.0)
            if self._queued + job.size > self._queue_rows:
                raise Fault(
                    OVERLOADED,
                    f"{self._queued} pairs wait for the engine, {job.size} more would be above {self._queue_rows}",
                    retry_after=self._retry_after(),
                )
            self._queued += job.size
            self._waiting_rows += job.size
            self._waiting.append(job)
            if self._computing < self._streams:
                self._work.notify()
            elif self._ahead_sleeps or self._waiting_rows >= self.runner.max_rows:
                self._ahead.notify()

    def drop(self, job: Job) -> None:
        """Drop a job whose caller has left: no further work begins for it, and its `done` is not called."""
        with self._lock:
            if not job.dropped:
                job.dropped = True
                self._queued -= job.queued
                job.queued = 0

    def close(self, seconds: Optional[float] = None) -> bool:
        """Accept no more jobs, finish the accepted jobs, and end the threads. Return whether that was done in time.

        seconds: maximum time to wait; None: no limit
        """
        with self._lock:
            self._stopping = True
            self._work.notify_all()
            self._ahead.notify_all()
        end = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _retry_after(self) -> float:
        if not self.rows_per_second:
            return 1.0
        return min(_LONGEST_RETRY, max(0.1, self._queued / (self.rows_per_second * self._streams)))

    def _fail(self, job: Job, fault: Fault) -> None:
        with self._lock:
            if job.dropped or not job.left:
                return
            self.drop(job)
            job.fault = fault
        job.done([job])

    def _is_wanted(self, job: Job, now: float) -> bool:
        """Return whether a job's result is still wanted. If the job's deadline has passed, fail the job first."""
        if job.deadline is not None and job.deadline <= now:
            self._fail(job, Fault(TIMED_OUT, "the deadline passed before the pairs were scored"))
        return not job.dropped

    # Encoding

    def _encode_ahead(self) -> None:
        most = _ENCODED_AHEAD * self.runner.max_rows
        while True:
            with self._lock:
                while True:
                    if self._stopping and not self._waiting:
                        return
                    busy = self._computing == self._streams
                    has_room = self._encoded_rows < most or self._has_smaller()
                    if self._waiting and busy and not self._encoding and has_room:
                        patience = _GATHER_SECONDS - (time.monotonic() - self._waiting[0].arrived)
                        if patience <= 0 or self._waiting_rows >= self.runner.max_rows:
                            break
                        self._ahead.wait(patience)
                    else:
                        self._ahead_sleeps = True
                        self._ahead.wait()
                        self._ahead_sleeps = False
                spans = self._take_waiting()
            self._encode(spans)

    def _has_smaller(self) -> bool:
        """Return whether a job whose texts are not encoded is smaller than all jobs with encoded pieces."""
        least = min((piece.job.size for piece in self._pieces), default=0)
        return any(job.size < least for job in self._waiting)

    def _take_waiting(self) -> list[Span]:
        """Take the spans to encode next: every other call begins with the smallest job, the others with the oldest.

        The caller holds the lock, and calls `_encode` next.
        """
        self._encoding = True
        most, count, characters = _ROUND * self.runner.max_rows, 0, 0
        taken: list[Span] = []
        self._small_first = not self._small_first
        if self._small_first and self._waiting:
            smallest = min(self._waiting, key=lambda job: job.size)
            if smallest.size < self._waiting[0].size:
                self._waiting.remove(smallest)
                self._waiting.appendleft(smallest)
        while self._waiting:
            job = self._waiting[0]
            characters += job.characters
            if taken and (count + job.size > most or characters > _SPAN_CHARACTERS):
                break
            taken.append(job.next_span(_SPAN_CHARACTERS, most))
            count += taken[-1].count
            self._waiting.popleft()
            if job.taken < job.size:
                self._waiting.append(job)  # others come before its next span
                break
        self._waiting_rows -= count
        if self._stopping and not self._waiting:
            self._ahead.notify()  # wakes the thread that encodes ahead, so that it ends
        return taken

    def _encode(self, spans: Sequence[Span]) -> None:
        """Encode spans, and add the pieces to the waiting pieces. A job that cannot be encoded fails alone."""
        pieces: list[Piece] = []
        try:
            now = time.monotonic()
            wanted = [span for span in spans if self._is_wanted(span.job, now)]
            pieces = encoded_pieces(self._encode_texts, wanted, self._fail)
        finally:
            with self._lock:
                self._encoding = False
                self._pieces.extend(pieces)
                self._encoded_rows += sum(piece.count for piece in pieces)
                if self._computing < self._streams:
                    self._work.notify_all()

    # Computing

    def _compute_batches(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            try:
                self._compute(batch)
            finally:
                with self._lock:
                    self._computing -= 1

    def _next_batch(self) -> Optional[Batch]:
        """Wait for the next batch and return it, or None once the queue is closed and empty."""
        while True:
            with self._lock:
                spans: list[Span] = []
                while not spans:
                    smaller = self._smaller()
                    if self._batches and not smaller:
                        self._owed = max(0, self._owed - 1)
                        batch = self._batches.popleft()
                        if self._begin(batch):
                            return batch
                    elif self._pieces:
                        formed = self._form_round(smaller)
                        self._owed = len(formed) + 1 if smaller else 0
                        self._batches.extendleft(reversed(formed))
                        self._work.notify(len(self._batches) - 1)  # streams that are idle
                    elif self._waiting and not self._encoding:
                        patience = self._max_wait - (time.monotonic() - self._waiting[0].arrived)
                        if patience <= 0 or self._waiting_rows >= self.runner.max_rows or self._stopping:
                            spans = self._take_waiting()
                        else:
                            self._work.wait(patience)
                    elif self._stopping and not self._encoding:
                        return None
                    else:
                        self._work.wait()
            self._encode(spans)

    def _smaller(self) -> int:
        """Return the size of the smallest job in the next batch if a piece of a smaller job waits, else 0.

        The caller holds the lock.
        """
        if not self._batches or self._owed:
            return 0
        least = min((job.size for job, _ in self._batches[0].jobs()), default=0)
        return least if any(piece.job.size < least for piece in self._pieces) else 0

    def _form_round(self, smaller: int) -> list[Batch]:
        """Form the next batches from the waiting pieces, alternately oldest jobs first and smallest jobs first.

        smaller: if not 0, form one batch, only of jobs with fewer rows than this

        The caller holds the lock.
        """
        now = time.monotonic()
        left = (1 if smaller else _ROUND) * self.runner.max_tokens
        self._small_first = bool(smaller) or not self._small_first
        small_first, taken = self._small_first, list[Piece]()
        pieces = sorted(self._pieces, key=lambda piece: piece.job.size if small_first else piece.job.arrived)
        for piece in pieces:
            if left <= 0 or (smaller and piece.job.size >= smaller):
                break
            if not self._is_wanted(piece.job, now):
                count, piece.count = piece.count, 0
            elif taken and not taken[0].columns.can_join(piece.columns):
                continue  # left for a later round
            else:
                taken.append(piece.split(left))
                left -= taken[-1].tokens
                count = taken[-1].count
            self._encoded_rows -= count
        self._pieces = deque(piece for piece in pieces if piece.count)
        by_query = getattr(self.runner, "by_query", False)
        return batches_of(taken, self.runner.max_tokens, self.runner.max_rows, by_query) if taken else []

    def _begin(self, batch: Batch) -> bool:
        """Remove the rows of dropped jobs from a batch, and its other rows from the queue. Return whether any are left.

        The caller holds the lock.
        """
        now = time.monotonic()
        wanted = batch.keep([self._is_wanted(piece.job, now) for piece in batch.pieces])
        batch.rows, batch.owners, batch.places = wanted.rows, wanted.owners, wanted.places
        if not len(batch.rows):
            return False
        for job, count in batch.jobs():
            if job.queued == job.size:
                job.begun = now
            job.queued -= count
        self._queued -= len(batch.rows)
        self._computing += 1
        if self._waiting and self._computing == self._streams:
            self._ahead.notify()
        return True

    def _compute(self, batch: Batch) -> None:
        start = time.perf_counter()
        try:
            outputs = self.runner.compute(batch.columns, batch.rows)
        except DataError as error:
            if len(batch.rows) > 1:  # One row may be at fault; the others succeed when computed alone.
                for row in batch.alone():
                    self._compute(row)
                return
            self._fail_all(batch, error)
            return
        except Exception as error:
            self._fail_all(batch, error)
            return
        seconds = time.perf_counter() - start
        rate, average = len(batch.rows) / max(seconds, 1e-9), self.rows_per_second
        self.rows_per_second = _RATE_MEMORY * average + (1 - _RATE_MEMORY) * rate if average else rate
        self._observe(batch, seconds)
        self._deliver(batch, outputs)

    def _fail_all(self, batch: Batch, error: Exception) -> None:
        LOG.error("the engine failed on a batch of %d rows", len(batch.rows), exc_info=error)
        for job, _ in batch.jobs():
            self._fail(job, Fault(INTERNAL, f"the engine failed ({type(error).__name__})"))

    def _observe(self, batch: Batch, seconds: float) -> None:
        """Report a batch to the observer. An observer's error is logged and does not fail the batch's requests.

        seconds: how long the engine took
        """
        if self._observer is None:
            return
        try:
            lengths = batch.columns.lengths_of(batch.rows)
            self._observer.batch(len(lengths), int(lengths.sum()), len(lengths) * int(lengths.max()), seconds)
        except Exception:
            LOG.exception("a batch was computed, but not counted")

    def _deliver(self, batch: Batch, outputs: Arrays) -> None:
        """Give a batch's outputs to its jobs. Finish the jobs that have all their outputs."""
        finished: list[Job] = []
        order, start = batch.order(), 0
        outputs = {name: array[order] for name, array in outputs.items()}
        places, are_sound = batch.places[order], all(np.isfinite(array).all() for array in outputs.values())
        with self._lock:  # two streams may hold rows of one job
            for job, count in batch.jobs():
                end = start + count
                part = {name: array[start:end] for name, array in outputs.items()}
                if not (are_sound or all(np.isfinite(array).all() for array in part.values())):
                    self._fail(job, Fault(INTERNAL, f"the {self._what} gave a score that is not a number"))
                job.store(part, places[start:end])
                if not job.left and not job.dropped:
                    finished.append(job)
                start = end
        for done, jobs in groupby(finished, key=lambda job: job.done):
            done(list(jobs))
