"""Slots of a server: each has one model or index, its folder and its queue, and can load a replacement while it serves.

`paddle_ranker.serving.slots.slot_kinds` says which slots a server may have.

The models and the index that the slots hold at one time are a `Lineup`. A request takes a lease of the lineup when it
begins (`Slots.lease`), and every slot answers it from this lineup until it ends, in all coroutines and threads that
work for it: the lease is a context variable. So a request never meets two lineups, and a switch closes the old models
when their last lease is returned.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, Optional, Protocol, TypeVar, cast

from paddle_ranker.encoding.columns import Columns
from paddle_ranker.serving.core.batcher import Batcher, BatchObserver
from paddle_ranker.serving.core.faults import TIMED_OUT, UNAVAILABLE, Fault
from paddle_ranker.serving.core.jobs import Check, Job, Texts
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.storage.digest import content_digest, json_digest

_LOAD_SECONDS = 5.0  # after which a caller may ask again while the model is loaded


class Served(Protocol):
    """A loaded model or index in a slot. `name` is its name in answers and in `/info`.

    `digest` tells whether two processes serve the same: it depends on the files of a model, and on the folder of an
    index, whose documents change.
    """

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def queued_rows(self) -> int: ...

    def close(self, seconds: Optional[float] = None) -> bool:
        """Accept no more requests and finish the accepted ones. Return whether that was done within `seconds`."""
        ...


@dataclass(frozen=True)
class ServedModel:
    """A loaded model and its queue. Subclasses add fields.

    name: name in answers; the same for all trainings into one folder
    folder: the folder with links resolved, which shows from which training the model is
    batcher: the queue
    loaded_at: time at which the model was loaded, in seconds since 1970
    """

    name: str
    folder: Path
    batcher: Batcher
    loaded_at: float

    @cached_property
    def digest(self) -> str:
        """Digest of the folder's files, read when the model was loaded."""
        return content_digest(self.folder)

    @property
    def queued_rows(self) -> int:
        """Number of rows that wait for the engine."""
        return self.batcher.queued_rows

    def close(self, seconds: Optional[float] = None) -> bool:
        """Close the queue. See `Batcher.close`."""
        return self.batcher.close(seconds)


M = TypeVar("M", bound=Served, covariant=True)


class Lineup:
    """Models and index that the slots of a server hold at one time. It never changes until it is dissolved.

    Args:
        served: the model or index of each slot that holds one.
    """

    def __init__(self, served: Mapping[Slot[Served], Served]):
        self.served = served
        self._leases = 0
        self._returned: Optional[asyncio.Event] = None  # set when the last lease is returned

    @property
    def digest(self) -> str:
        """Digest of the digests of all models and of the index."""
        return json_digest([served.digest for served in self.served.values()])

    def change_leases(self, by: int) -> None:
        """Add a lease (1), or return a lease (-1)."""
        self._leases += by
        if self._returned is not None and not self._leases:
            self._returned.set()

    async def dissolve(self, seconds: float) -> None:
        """Wait until the last lease is returned, at most `seconds`; then let go of the models.

        Call it once, after the slots have got other models. Contexts of finished work may refer to the lineup for long.
        """
        if self._leases:
            self._returned = asyncio.Event()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._returned.wait(), seconds)
        self.served = {}


_LEASED: ContextVar[Optional[Lineup]] = ContextVar("lineup", default=None)


class Slot(ABC, Generic[M]):
    """A slot and the model or index in it. Use it in one event loop only.

    Args:
        limits: limits of requests.
        what: name of the model in messages: "ranker".
        folder: folder of the model or index.

    Attributes:
        model: the newest model; None until `switch` sets it. Requests use that of their lineup, see `ready`.
        has_queue: whether rows wait for an engine.
    """

    has_queue = True

    def __init__(self, limits: Limits, what: str, folder: Optional[Path]):
        self.limits, self.what, self.folder = limits, what, folder
        self.model: Optional[M] = None

    @abstractmethod
    def load(self, observer: Optional[BatchObserver] = None) -> M:
        """Load the folder's model, warm it up and check it. Called in a thread, at the start and at each reload.

        Raises `CheckpointError` or another error if the model cannot be served.

        observer: records the batches of the model's queue
        """

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """Return the model's description for `/info`. Raises `Fault(UNAVAILABLE)` until it is loaded."""

    @property
    def name(self) -> str:
        """The model's name. Raises `Fault(UNAVAILABLE)` until the model is loaded."""
        return self.ready().name

    @property
    def queued_rows(self) -> int:
        """Number of rows that wait for the model's engine, or 0 without a model."""
        return 0 if self.model is None else self.model.queued_rows

    def switch(self, model: Optional[Served]) -> Optional[Served]:
        """Send all further requests to `model`. If `model` is None, refuse them. Return the previous model.

        The previous model may still have requests in its queue: close it outside the event loop.

        model: a result of `load`, or None
        """
        previous, self.model = self.model, cast(Optional[M], model)
        return previous

    def ready(self) -> M:
        """Return the model: within a lease, that of the leased lineup, else the newest.

        Raises `Fault(UNAVAILABLE)` until it is loaded.
        """
        lineup = _LEASED.get()
        model = self.model if lineup is None else cast(Optional[M], lineup.served.get(self))
        if model is None:
            raise Fault(UNAVAILABLE, f"the {self.what} is not loaded yet", retry_after=_LOAD_SECONDS)
        return model

    def gauges(self) -> dict[str, float]:
        """Return current gauges of the model or index, by their names in `metrics.GAUGES`, by default {}."""
        return {}

    def deadline(self, request_deadline: Optional[float]) -> float:
        """Return a request's deadline on `time.monotonic()`'s clock. If it states none, use the limits' default."""
        return time.monotonic() + self.limits.deadline_seconds if request_deadline is None else request_deadline


SlotT = TypeVar("SlotT")


class Slots(dict[str, Slot[Served]]):
    """A server's slots by name. Use it in one event loop only."""

    def __init__(self, slots: Mapping[str, Slot[Served]]):
        super().__init__(slots)
        self._lineup = Lineup({})

    @property
    def lineup(self) -> Lineup:
        """The models and the index that the slots hold now."""
        served = {slot: slot.model for slot in self.values() if slot.model is not None}
        known = self._lineup.served
        if len(served) != len(known) or any(model is not known.get(slot) for slot, model in served.items()):
            self._lineup = Lineup(served)
        return self._lineup

    @contextmanager
    def lease(self) -> Iterator[Lineup]:
        """Take a lease: within the block, and in what it starts, all slots answer from the present lineup."""
        lineup = self.lineup
        lineup.change_leases(1)
        token = _LEASED.set(lineup)
        try:
            yield lineup
        finally:
            _LEASED.reset(token)
            lineup.change_leases(-1)

    def of(self, name: str, kind: type[SlotT]) -> SlotT:
        """Return the slot with this name, which must be of the class `kind`."""
        slot = self[name]
        assert isinstance(slot, kind)
        return slot


class _AwaitedJob(Job):
    """A job that a coroutine waits for.

    answered: set when the job is done, or at its deadline
    """

    answered: asyncio.Future[None]


@dataclass(frozen=True)
class _Waker:
    """Callback for `Job.done` that wakes the coroutine that waits for the job.

    Wakers of one event loop compare equal, so the jobs of a batch that finish together wake the loop only once.
    """

    loop: asyncio.AbstractEventLoop

    def __call__(self, jobs: Sequence[Job]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self.loop.call_soon_threadsafe(_wake, jobs)


def _wake(jobs: Sequence[Job]) -> None:
    for job in jobs:
        assert isinstance(job, _AwaitedJob)
        if not job.answered.done():
            job.answered.set_result(None)


async def computed(
    batcher: Batcher,
    size: int,
    deadline: float,
    *,
    texts: Optional[Texts] = None,
    columns: Optional[Columns] = None,
    check: Optional[Check] = None,
) -> Job:
    """Queue a request's `size` rows, wait for the engine, and return their finished job.

    deadline: time on `time.monotonic()`'s clock after which the caller no longer waits
    texts: the rows' texts, one sequence for each field; None if the rows are encoded
    columns: the encoded rows; None if `texts` is given
    check: see `Job`

    Raises `Fault`. If cancelled, removes the rows from the queue.
    """
    loop = asyncio.get_running_loop()
    now = time.monotonic()
    if deadline <= now:
        raise Fault(TIMED_OUT, "the deadline passed before the request was read")
    job = _AwaitedJob(size, _Waker(loop), texts=texts, columns=columns, deadline=deadline, check=check)
    job.answered = loop.create_future()
    batcher.submit(job)
    timer = loop.call_later(deadline - now, _wake, [job])
    try:
        await job.answered
    finally:
        timer.cancel()
        if job.left:
            batcher.drop(job)
    if job.fault is not None:
        raise job.fault
    if job.left:
        raise Fault(TIMED_OUT, "the deadline passed before the pairs were scored")
    return job
