"""Where a service keeps the model that answers, and what all such services share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Generic, Optional, Protocol, TypeVar

import numpy as np

from paddle_ranker.encoding.columns import Columns
from paddle_ranker.serving.core.batcher import Batcher
from paddle_ranker.serving.core.faults import TIMED_OUT, UNAVAILABLE, Fault
from paddle_ranker.serving.core.jobs import Job
from paddle_ranker.serving.core.limits import Limits

_LOAD_SECONDS = 5.0  # after which a caller may ask again while the model is loaded


class Served(Protocol):
    """A model that answers; `name` is how answers and `/info` call it."""

    @property
    def name(self) -> str: ...

    @property
    def batcher(self) -> Batcher[Any]: ...


M = TypeVar("M", bound=Served)


class ModelSlot(Generic[M]):
    """A service and its model; to be used in one event loop.

    Args:
        limits: of requests.
        what: the model is called in messages.

    Attributes: `limits`; `model`, None until `switch` gives one.
    """

    def __init__(self, limits: Limits, what: str):
        self.limits, self._what = limits, what
        self.model: Optional[M] = None

    @property
    def name(self) -> str:
        """What the model is called. Raises `Fault(UNAVAILABLE)` until it is loaded."""
        return self.ready().name

    @property
    def queued_pairs(self) -> int:
        """Pairs that wait for the model's engine; 0 without a model."""
        return 0 if self.model is None else self.model.batcher.queued_pairs

    def switch(self, model: Optional[M]) -> Optional[M]:
        """Give every request from now on to `model`, and return the one that was there before.

        That one has requests in its queue still: close its batcher outside the event loop.
        """
        previous, self.model = self.model, model
        return previous

    def ready(self) -> M:
        if self.model is None:
            raise Fault(UNAVAILABLE, f"the {self._what} is not loaded yet", retry_after=_LOAD_SECONDS)
        return self.model

    def deadline(self, stated: Optional[float]) -> float:
        """Return when nobody waits for an answer any more, on `time.monotonic()`'s clock: as stated, or the limit."""
        return time.monotonic() + self.limits.deadline_seconds if stated is None else stated


async def computed(
    batcher: Batcher[Any],
    size: int,
    deadline: float,
    *,
    texts: Optional[tuple[Sequence[str], Sequence[str]]] = None,
    pairs: Optional[Columns] = None,
) -> np.ndarray:
    """Return the logits of a request's `size` pairs, `[size]` or `[size, classes]` float64; see `computed_job`."""
    return np.array((await computed_job(batcher, size, deadline, texts=texts, pairs=pairs)).logits)


async def computed_job(
    batcher: Batcher[Any],
    size: int,
    deadline: float,
    *,
    texts: Optional[tuple[Sequence[str], Sequence[str]]] = None,
    pairs: Optional[Columns] = None,
) -> Job:
    """Return a request's `size` pairs when the engine has computed them.

    Args:
        deadline: when, on `time.monotonic()`'s clock, nobody waits for them any more.
        texts: of the pairs; or
        pairs: already encoded.

    Raises `Fault`. Cancelled, it takes the pairs off the queue.
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

    job = Job(size, done, texts=texts, pairs=pairs, deadline=deadline)
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
