"""Work for requests in threads, so that the event loop never waits for it. There are three kinds:

- `run_in_thread` parses and writes requests' bytes. Parsers written in C hold the interpreter's lock and cannot be
    stopped, so the smallest work goes first. The event loop itself parses only small requests. Two threads parse
    requests of up to `_LARGE_BYTES`. A third thread parses larger ones, one at a time, so a smaller request never waits
    for a larger one; after each it sleeps for as long as it worked, so at least half of the time is left for other
    work.
- `StoppableWork` runs searches and other long work, which takes turns, see `retrieval.work.turns`, and ends early if
    its caller leaves.
- Rows of models wait in their `Batcher`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Callable, Optional, TypeVar

from paddle_ranker.retrieval.work.turns import Abandoned, Caller, Reserve
from paddle_ranker.serving.core.faults import OVERLOADED, TIMED_OUT, Fault

R = TypeVar("R")
MUCH_BYTES = 16 * 1024  # parsing more bytes takes longer than handing them to a thread
_LARGE_BYTES = 1024 * 1024


class SmallestFirst:
    """A pool of threads that does the smallest work first, and work of equal size in order of arrival.

    Args:
        threads: number of threads.
        name: name of the threads.
        rests: whether a thread, after each piece of work, rests for as long as the work took.
    """

    def __init__(self, threads: int, name: str, *, rests: bool = False):
        self._threads, self._rests = ThreadPoolExecutor(threads, thread_name_prefix=name), rests
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []  # a heap

    def submit(self, size: int, work: Callable[[], R]) -> Future[R]:
        """Queue `work`, of `size` bytes, for a thread. Return its future.

        If the future is cancelled before `work` begins, `work` is freed at once.
        """
        running, held = Future[R](), [work]
        running.add_done_callback(lambda _: held.clear())
        begins = [running]

        def do() -> None:
            future = begins.pop()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(held.pop()())
                except BaseException as error:
                    future.set_exception(error)
            del future  # An error refers to this frame; the cycle would live until the next garbage collection.

        with self._lock:
            heapq.heappush(self._waiting, (size, next(self._numbers), do))
        self._threads.submit(self._do_next)
        return running

    def _do_next(self) -> None:
        with self._lock:
            *_, do = heapq.heappop(self._waiting)
        began = time.thread_time()
        do()
        del do  # frees its arguments, which may be large
        if self._rests:
            time.sleep(time.thread_time() - began)


def in_context(work: Callable[[], R]) -> Callable[[], R]:
    """Return a function that runs `work` in the caller's context, so that a thread has the request's lease, too."""
    return partial(copy_context().run, work)


_READERS, _LARGE_READERS = SmallestFirst(2, "reader"), SmallestFirst(1, "reader-large", rests=True)


async def run_in_thread(  # type: ignore[explicit-any]  # any function
    size: int, work: Callable[..., R], *arguments: object, deadline: Optional[float] = None
) -> R:
    """Run `work(*arguments)`, in a thread if `size` is above `MUCH_BYTES`, and return its result.

    size: bytes or characters that `work` processes, in time proportional to them
    deadline: time on `time.monotonic()`'s clock until which the caller waits for a thread; None: no deadline

    Raises the errors of `work`, and `Fault(TIMED_OUT)` at the deadline.
    """
    if size <= MUCH_BYTES:
        return work(*arguments)
    readers = _READERS if size <= _LARGE_BYTES else _LARGE_READERS
    reading = asyncio.wrap_future(readers.submit(size, in_context(partial(work, *arguments))))
    try:
        return await asyncio.wait_for(reading, None if deadline is None else max(0.0, deadline - time.monotonic()))
    except asyncio.TimeoutError as error:
        raise Fault(TIMED_OUT, "the deadline passed before the request was read") from error


class StoppableWork:
    """A pool of threads for one kind of work. The work shares the processor as `retrieval.work.turns` describes.

    A thread cannot be ended from outside, so the work checks between its steps whether its caller still waits. Work
    counts as in progress until it has ended, even if its caller left earlier.

    Args:
        threads: number of threads. Large work keeps its thread while small work runs first.
        name: name of the threads.
        what: end of the message "the deadline passed before ...": "the images were decoded".
        refuses: whether work is refused while all threads are busy; if not, it waits for a thread.
    """

    def __init__(self, threads: int, *, name: str, what: str, refuses: bool = False):
        self._threads, self._what = ThreadPoolExecutor(threads, thread_name_prefix=name), what
        self._most = threads if refuses else None
        self._lock = threading.Lock()
        self._under_way = self._pieces = 0

    @property
    def under_way(self) -> int:
        """Total size of all work in progress, including work whose caller has left."""
        return self._under_way

    async def run(
        self,
        size: int,
        deadline: float,
        work: Callable[[], R],
        reserve: Optional[Reserve] = None,
    ) -> R:
        """Run `work()` in a thread and return its result. `work` must call `turns.check` between its steps.

        size: size of the work, counted in `under_way`
        deadline: time on `time.monotonic()`'s clock
        reserve: called, in the thread, with the bytes that the work is about to hold until the caller has its answer

        Raises the errors of `work`, `Fault(TIMED_OUT)` at the deadline, and `Fault(OVERLOADED)` if all threads are busy
        and the pool `refuses`. If cancelled, the work ends at its next check, or never begins.
        """
        caller = Caller(deadline, reserve)
        with self._lock:
            if self._most is not None and self._pieces >= self._most:
                raise Fault(OVERLOADED, f"{self._most} searches are under way, no more are begun", retry_after=1.0)
            self._under_way += size
            self._pieces += 1
        running = self._threads.submit(in_context(partial(caller.run, work)))
        running.add_done_callback(lambda _: self._ended(size))  # runs before the caller is woken
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
