"""Work on what a caller sent: in a thread if that is large, so that the event loop does not wait for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Callable, TypeVar

R = TypeVar("R")
MUCH_BYTES = 64 * 1024  # above which reading a request takes longer than handing it to a thread
_READERS = ThreadPoolExecutor(2, thread_name_prefix="reader")  # what is read at once is bounded, too


async def apart(size: int, work: Callable[..., R], *arguments: object) -> R:  # type: ignore[explicit-any]  # of any
    """Return `work(*arguments)`, called in a thread if `size` is above `MUCH_BYTES`.

    Args:
        size: bytes or characters that `work` goes through; its time must be proportional to them.
    """
    if size <= MUCH_BYTES:
        return work(*arguments)
    return await asyncio.wrap_future(submit(_READERS, partial(work, *arguments)))


def submit(threads: ThreadPoolExecutor, work: Callable[[], R]) -> Future[R]:
    """Call `work()` in a thread. If it is cancelled before it begins, what it holds is freed at once.

    The executor's own queue would keep cancelled work until its turn, with request bodies that no budget counts.
    """
    held = [work]
    running = threads.submit(lambda: held.pop()())
    running.add_done_callback(lambda _: held.clear())
    return running
