"""Work on what a caller sent, beside the event loop where it is much: nobody else waits for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Callable, TypeVar

R = TypeVar("R")
MUCH_BYTES = 64 * 1024  # above which reading a request takes longer than handing it to a thread
_READERS = ThreadPoolExecutor(2, thread_name_prefix="reader")  # what is read at once is bounded, too


async def apart(size: int, work: Callable[..., R], *arguments: object) -> R:  # type: ignore[explicit-any]  # of any
    """Return `work(*arguments)`, called in a thread where there is much to do.

    Args:
        size: bytes or characters that it goes through; its time must be in proportion to them.
    """
    if size <= MUCH_BYTES:
        return work(*arguments)
    return await asyncio.wrap_future(submit(_READERS, partial(work, *arguments)))


def submit(threads: ThreadPoolExecutor, work: Callable[[], R]) -> Future[R]:
    """Call `work()` in a thread; cancelled before it began, what it holds is free at once.

    The threads' own queue keeps what was cancelled until its turn comes: bodies that no budget counts any more.
    """
    held = [work]
    running = threads.submit(lambda: held.pop()())
    running.add_done_callback(lambda _: held.clear())
    return running
