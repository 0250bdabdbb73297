"""Long work in separate threads, which ends early if its caller leaves.

A thread cannot be ended from outside, so the work asks between its steps whether someone still waits. It counts as
under way until it has ended, even if its caller left earlier.
"""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Callable, TypeVar

from paddle_ranker.serving.core.apart import WorkQueue
from paddle_ranker.serving.core.faults import TIMED_OUT, Fault

R = TypeVar("R")


class Abandoned(Exception):
    """The caller of some work has left."""


class Caller:
    """The caller who waits for some work; safe to use from any thread.

    Args:
        deadline: time on `time.monotonic()`'s clock until which the caller waits.
    """

    def __init__(self, deadline: float):
        self._deadline, self._left = deadline, False

    def leave(self) -> None:
        """Note that the caller waits no more."""
        self._left = True

    def check(self) -> None:
        """Raise `Abandoned` if the caller has left or the deadline has passed."""
        if self._left or time.monotonic() >= self._deadline:
            raise Abandoned


class StoppableWork:
    """A pool of threads for one kind of long work.

    Args:
        threads: number of threads.
        name: name of the threads.
        what: end of the message "the deadline passed before ...": "the images were decoded".
    """

    def __init__(self, threads: int, *, name: str, what: str):
        self._threads = WorkQueue(threads, name)
        self._what = what
        self._lock = threading.Lock()
        self._under_way = 0

    @property
    def under_way(self) -> int:
        """Total size of all work that has not ended, including work whose caller has left."""
        return self._under_way

    async def run(self, size: int, deadline: float, work: Callable[[Caller], R]) -> R:
        """Return `work(caller)`, called in a thread; `work` must call `caller.check` between its steps.

        Raises what the work raises, and `Fault(TIMED_OUT)` at the deadline. If cancelled, the work ends at its next
        check, or never begins.
        """
        caller, too_late = Caller(deadline), f"the deadline passed before {self._what}"
        with self._lock:
            self._under_way += size
        running = self._threads.submit(0, partial(self._checked, work, caller))
        running.add_done_callback(lambda _: self._ended(size))  # before the caller hears of it
        try:
            return await asyncio.wait_for(asyncio.wrap_future(running), max(0.0, deadline - time.monotonic()))
        except (asyncio.TimeoutError, Abandoned) as error:
            raise Fault(TIMED_OUT, too_late) from error
        finally:
            caller.leave()

    @staticmethod
    def _checked(work: Callable[[Caller], R], caller: Caller) -> R:
        caller.check()
        return work(caller)

    def _ended(self, size: int) -> None:
        with self._lock:
            self._under_way -= size
