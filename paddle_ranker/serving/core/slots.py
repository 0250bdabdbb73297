"""Slots of a server: each holds a model or an index with its folder and its queue, and loads another one beside it.

Which slots there are: `paddle_ranker.serving.core.slot_kinds`.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Optional, Protocol, TypeVar, cast

from paddle_ranker.encoding.columns import Columns
from paddle_ranker.serving.core.batcher import Batcher, BatchObserver
from paddle_ranker.serving.core.faults import TIMED_OUT, UNAVAILABLE, Fault
from paddle_ranker.serving.core.jobs import Job, Texts
from paddle_ranker.serving.core.limits import Limits

# In probability: of a pair alone and in a batch, and, in fp32, of what was noted at the export. The other precisions
# round in sums that a batch's shape puts in another order.
TOLERANCES = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 2e-3, "int8": 5e-2}
_LOAD_SECONDS = 5.0  # after which a caller may ask again while the model is loaded


class Served(Protocol):
    """What answers in a slot; `name` is how answers and `/info` call it."""

    @property
    def name(self) -> str: ...

    @property
    def queued_rows(self) -> int: ...

    def close(self, seconds: Optional[float] = None) -> bool:
        """Accept nothing more, and finish what was accepted; return whether that was done within `seconds`."""
        ...


@dataclass(frozen=True)
class ServedModel:
    """A model that answers, and the queue before its engine; further kinds have fields of their own."""

    name: str
    folder: Path
    batcher: Batcher
    loaded_at: float  # seconds since 1970

    @property
    def queued_rows(self) -> int:
        """Rows that wait for the engine."""
        return self.batcher.queued_rows

    def close(self, seconds: Optional[float] = None) -> bool:
        """Close the queue; see `Batcher.close`."""
        return self.batcher.close(seconds)


M = TypeVar("M", bound=Served, covariant=True)


class Slot(ABC, Generic[M]):
    """A slot and what answers in it; to be used in one event loop.

    Args:
        limits: of requests.
        what: it is called in messages: "ranker".
        folder: of the model or the index.

    Attributes: `limits`, `folder`; `model`, None until `switch` gives one.
    """

    def __init__(self, limits: Limits, what: str, folder: Optional[Path]):
        self.limits, self.what, self.folder = limits, what, folder
        self.model: Optional[M] = None

    @abstractmethod
    def load(self, observer: Optional[BatchObserver] = None) -> M:
        """Return what lies in the folder, warmed up and checked; called in a thread, at the start and at each reload.

        Raises `CheckpointError` and the like where it cannot be served.
        """

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """Return what `/info` shows of it; raises `Fault(UNAVAILABLE)` until it is loaded."""

    @property
    def name(self) -> str:
        """What the model is called. Raises `Fault(UNAVAILABLE)` until it is loaded."""
        return self.ready().name

    @property
    def queued_rows(self) -> int:
        """Rows that wait for the model's engine; 0 without a model."""
        return 0 if self.model is None else self.model.queued_rows

    def switch(self, model: Optional[Served]) -> Optional[Served]:
        """Give every request from now on to `model`, which `load` returned, and return the one that was there before.

        That one has requests in its queue still: close it outside the event loop.
        """
        previous, self.model = self.model, cast(Optional[M], model)
        return previous

    def ready(self) -> M:
        """Return what answers. Raises `Fault(UNAVAILABLE)` until it is loaded."""
        if self.model is None:
            raise Fault(UNAVAILABLE, f"the {self.what} is not loaded yet", retry_after=_LOAD_SECONDS)
        return self.model

    def deadline(self, stated: Optional[float]) -> float:
        """Return when nobody waits for an answer any more, on `time.monotonic()`'s clock: as stated, or the limit."""
        return time.monotonic() + self.limits.deadline_seconds if stated is None else stated


SlotT = TypeVar("SlotT")


class Slots(dict[str, Slot[Served]]):
    """The slots of a server by name."""

    def of(self, name: str, kind: type[SlotT]) -> SlotT:
        """Return the slot of that name, which is of a `kind` of its own."""
        found = self[name]
        assert isinstance(found, kind)
        return found


async def computed(
    batcher: Batcher,
    size: int,
    deadline: float,
    *,
    texts: Optional[Texts] = None,
    columns: Optional[Columns] = None,
) -> Job:
    """Return a request's `size` rows when the engine has computed them: `outputs` by name, `[size, ...]` each.

    Args:
        deadline: when, on `time.monotonic()`'s clock, nobody waits for them any more.
        texts: of the rows, field by field; or
        columns: the rows, already encoded.

    Raises `Fault`. Cancelled, it takes the rows off the queue.
    """
    loop = asyncio.get_running_loop()
    now = time.monotonic()
    if deadline <= now:
        raise Fault(TIMED_OUT, "the deadline passed before the request was read")
    answered: asyncio.Future[None] = loop.create_future()

    def finish() -> None:
        if not answered.done():
            answered.set_result(None)

    def done(_: Job) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(finish)

    job = Job(size, done, texts=texts, columns=columns, deadline=deadline)
    batcher.submit(job)
    timer = loop.call_later(deadline - now, finish)
    try:
        await answered
    finally:
        timer.cancel()
        if job.left:
            batcher.drop(job)
    if job.fault is not None:
        raise job.fault
    if job.left:
        raise Fault(TIMED_OUT, "the deadline passed before the pairs were scored")
    return job
