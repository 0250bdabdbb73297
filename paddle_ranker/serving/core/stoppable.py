"""Long work in separate threads, which ends early if its caller leaves.

A thread cannot be ended from outside, so the work asks between its steps whether someone still waits. It counts as
under way until it has ended, even if its caller left earlier.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Optional, TypeVar

from paddle_ranker.retrieval.work import Abandoned, Caller, Hold
from paddle_ranker.serving.core.faults import OVERLOADED, TIMED_OUT, Fault

R = TypeVar("R")


class StoppableWork:
    """A pool of threads for one kind of work, which share the processor as `retrieval.work` says.

    Args:
        threads: number of threads. A large piece of work keeps its thread while small ones go first.
        name: name of the threads.
        what: end of the message "the deadline passed before ...": "the images were decoded".
        refuses: whether work is refused while all threads are busy; else it waits for one.
    """

    def __init__(self, threads: int, *, name: str, what: str, refuses: bool = False):
        self._threads, self._what = ThreadPoolExecutor(threads, thread_name_prefix=name), what
        self._most = threads if refuses else None
        self._lock = threading.Lock()
        self._under_way = self._pieces = 0

    @property
    def under_way(self) -> int:
        """Total size of all work that has not ended, including work whose caller has left."""
        return self._under_way

    async def run(
        self,
        size: int,
        deadline: float,
        work: Callable[[], R],
        hold: Optional[Hold] = None,
    ) -> R:
        """Return `work()`, called in a thread; `work` must call `work.check` between its steps.

        Args:
            hold: counts the memory that the work holds until the caller has its answer.

        Raises what the work raises, `Fault(TIMED_OUT)` at the deadline, and `Fault(OVERLOADED)` if too much work is
        under way. If cancelled, the work ends at its next check, or never begins.
        """
        caller = Caller(deadline, hold)
        with self._lock:
            if self._most is not None and self._pieces >= self._most:
                raise Fault(OVERLOADED, f"{self._most} searches are under way, no more are begun", retry_after=1.0)
            self._under_way += size
            self._pieces += 1
        running = self._threads.submit(caller.run, work)
        running.add_done_callback(lambda _: self._ended(size))  # before the caller hears of it
        try:
            return await asyncio.wait_for(asyncio.wrap_future(running), max(0.0, deadline - time.monotonic()))
        except (asyncio.TimeoutError, Abandoned) as error:
            raise Fault(TIMED_OUT, f"the deadline passed before {self._what}") from error
        finally:
            caller.leave()

    def _ended(self, size: int) -> None:
        with self._lock:
            self._under_way -= size
            self._pieces -= 1
