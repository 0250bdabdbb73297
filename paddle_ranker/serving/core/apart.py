"""Work on the bytes of requests, beside the event loop if they are many, the smallest first.

Unpacking and parsing go through `apart`, so that no request keeps others waiting for long:

- The event loop itself reads only small requests.
- Two threads read requests of up to `_LARGE_BYTES`. A third one reads larger requests, one at a time, so a smaller
  request never waits for a larger one.
- After a large request the third thread rests for as long as it worked. Parsers written in C hold the interpreter, and
  everybody else waits; so at least half of the time is left to everybody else.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Callable, Optional, TypeVar

from paddle_ranker.serving.core.faults import TIMED_OUT, Fault

R = TypeVar("R")
MUCH_BYTES = 16 * 1024  # above which reading a request takes longer than handing it to a thread
_LARGE_BYTES = 1024 * 1024


class WorkQueue:
    """A pool of threads that does the smallest work first, and work of equal size in order of arrival.

    Args:
        threads: number of threads.
        name: name of the threads.
        rests: whether a thread rests after each piece of work for as long as that took.
    """

    def __init__(self, threads: int, name: str, *, rests: bool = False):
        self._threads, self._rests = ThreadPoolExecutor(threads, thread_name_prefix=name), rests
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []  # a heap

    def submit(self, size: int, work: Callable[[], R]) -> Future[R]:
        """Call `work()` in a thread. A future that is cancelled before it begins frees its arguments at once."""
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
            del future  # an error refers to this frame: it would be kept until the next garbage collection

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


_READERS, _LARGE_READERS = WorkQueue(2, "reader"), WorkQueue(1, "reader-large", rests=True)


async def apart(  # type: ignore[explicit-any]  # any function
    size: int, work: Callable[..., R], *arguments: object, deadline: Optional[float] = None
) -> R:
    """Return `work(*arguments)`, called in a thread if `size` is above `MUCH_BYTES`.

    Args:
        size: bytes or characters that `work` goes through; its time must be proportional to them.
        deadline: time on `time.monotonic()`'s clock until which the caller waits for a thread; None: no deadline.

    Raises what `work` raises, and `Fault(TIMED_OUT)` at the deadline.
    """
    if size <= MUCH_BYTES:
        return work(*arguments)
    readers = _READERS if size <= _LARGE_BYTES else _LARGE_READERS
    reading = asyncio.wrap_future(readers.submit(size, partial(work, *arguments)))
    try:
        return await asyncio.wait_for(reading, None if deadline is None else max(0.0, deadline - time.monotonic()))
    except asyncio.TimeoutError as error:
        raise Fault(TIMED_OUT, "the deadline passed before the request was read") from error
