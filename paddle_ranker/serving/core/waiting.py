"""Wait in the event loop for what a batcher computes in threads of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Optional

import numpy as np

from paddle_ranker.encoding.columns import Columns
from paddle_ranker.serving.core.batcher import Batcher
from paddle_ranker.serving.core.faults import TIMED_OUT, Fault
from paddle_ranker.serving.core.jobs import Job


async def computed(
    batcher: Batcher[Any],
    size: int,
    deadline: float,
    *,
    texts: Optional[tuple[Sequence[str], Sequence[str]]] = None,
    pairs: Optional[Columns] = None,
) -> np.ndarray:
    """Return the logits of a request's `size` pairs, `[size]` or `[size, classes]` float64.

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
    return np.array(job.logits)
