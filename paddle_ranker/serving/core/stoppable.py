"""Long work in separate threads, which ends early if its caller leaves.

A thread cannot be ended from outside, so the work asks between its steps whether someone still waits. It counts as
under way until it has ended, even if its caller left earlier.
"""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Callable, Optional, TypeVar

from paddle_ranker.retrieval.work import LARGE_AT_ONCE, Abandoned, Caller, Hold, Moved
from paddle_ranker.serving.core.apart import WorkQueue
from paddle_ranker.serving.core.faults import TIMED_OUT, Fault

R = TypeVar("R")


class StoppableWork:
    """Pools of threads for one kind of work: one for small work, and one for what says in `spend` that it is large.

    Args:
        threads: number of threads for small work.
        name: name of the threads.
        what: end of the message "the deadline passed before ...": "the images were decoded".
    """

    def __init__(self, threads: int, *, name: str, what: str):
        self._small, self._large = WorkQueue(threads, name), WorkQueue(LARGE_AT_ONCE, f"{name}-large")
        self._what = what
        self._lock = threading.Lock()
        self._under_way = 0

    @property
    def under_way(self) -> int:
        """Total size of all work that has not ended, including work whose caller has left."""
        return self._under_way

    async def run(self, size: int, deadline: float, work: Callable[[Caller], R], hold: Optional[Hold] = None) -> R:
        """Return `work(caller)`, called in a thread; `work` must call `check` between its steps.

        Args:
            hold: counts the memory that the work holds until the caller has its answer.

        Raises what the work raises, and `Fault(TIMED_OUT)` at the deadline. If cancelled, the work ends at its next
        check, or never begins. Large work is begun anew among other large work, the smallest first.
        """
        caller = Caller(deadline, hold)
        try:
            try:
                return await self._run(self._small, size, 0, partial(caller.run, work), deadline)
            except Moved as moved:
                again = partial(caller.run, work, large=True)
                return await self._run(self._large, size, moved.size, again, deadline)
        except (asyncio.TimeoutError, Abandoned) as error:
            raise Fault(TIMED_OUT, f"the deadline passed before {self._what}") from error
        finally:
            caller.leave()

    async def _run(self, queue: WorkQueue, size: int, steps: int, work: Callable[[], R], deadline: float) -> R:
        with self._lock:
            self._under_way += size
        running = queue.submit(steps, work)
        running.add_done_callback(lambda _: self._ended(size))  # before the caller hears of it
        return await asyncio.wait_for(asyncio.wrap_future(running), max(0.0, deadline - time.monotonic()))

    def _ended(self, size: int) -> None:
        with self._lock:
            self._under_way -= size
