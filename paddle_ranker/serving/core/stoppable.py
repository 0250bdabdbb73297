"""Long work in threads of its own that ends early where nobody waits for it any more.

A thread cannot be ended from outside. So the work asks between its steps whether someone still waits; its share of what
may be under way comes back when it has ended, not when the caller has left.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Callable, TypeVar

from paddle_ranker.serving.core.apart import submit
from paddle_ranker.serving.core.faults import TIMED_OUT, Fault

R = TypeVar("R")


class Abandoned(Exception):
    """Nobody waits for this work any more."""


class Caller:
    """Whoever waits for some work; safe to ask from any thread.

    Args:
        deadline: when, on `time.monotonic()`'s clock, they wait no more.
    """

    def __init__(self, deadline: float):
        self._deadline, self._left = deadline, False

    def leave(self) -> None:
        """Wait no more."""
        self._left = True

    def check(self) -> None:
        """Raise `Abandoned` where they have left, or the deadline has passed."""
        if self._left or time.monotonic() >= self._deadline:
            raise Abandoned


class StoppableWork:
    """Threads for one kind of work.

    Args:
        threads: how many.
        name: of the threads.
        what: the work is called in messages: "the images were decoded".
    """

    def __init__(self, threads: int, *, name: str, what: str):
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._what = what
        self._lock = threading.Lock()
        self._under_way = 0

    @property
    def under_way(self) -> int:
        """The sizes of all work that has not ended, in sum; that of callers who have left is among it."""
        return self._under_way

    async def run(self, size: int, deadline: float, work: Callable[[Caller], R]) -> R:
        """Return `work(caller)`, called in a thread; it asks `caller.check` between its steps.

        Raises what the work raises, and `Fault(TIMED_OUT)` at the deadline. Cancelled, it lets the work end at its next
        step, or never begin.
        """
        caller, too_late = Caller(deadline), f"the deadline passed before {self._what}"
        with self._lock:
            self._under_way += size
        running = submit(self._threads, partial(self._checked, work, caller))
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
