"""Streams of items: divided into lists, or computed ahead in a second thread while the calling thread works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")
CHUNK = 8192  # pairs of a streamed file in memory at once; enough for batches of similar lengths
_END = object()
_WAIT = 2.0  # seconds that `prefetch` waits for the thread to end: the thread may be waiting for a pipe


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yield lists of up to `size` items, so that a stream larger than memory can be worked on."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def chunks_by_length(items: Iterable[T], length: Callable[[T], int], most: int, longest: int) -> Iterator[list[T]]:
    """Yield lists of at most `most` items, each of which ends once the lengths of its items add up to `longest`."""
    part, total = list[T](), 0
    for item in items:
        part.append(item)
        total += length(item)
        if len(part) == most or total >= longest:
            yield part
            part, total = [], 0
    if part:
        yield part


@contextmanager
def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[Iterator[T]]:
    """Yield an iterator over `items`, which a second thread computes at most `depth` items ahead.

        with prefetch(tokenized(chunks)) as items:
            for chunk in items:
                compute(chunk)

    The order is kept, and an error of `items` is raised in place of the item. Leaving the block, also by an error or an
    interruption, ends the thread after its current item. A thread that waits for input for more than 2 seconds is
    abandoned; it does not keep the process alive.
    """
    made: queue.Queue[tuple[Any, Any]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Any, error: Any) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                made.put((item, error), timeout=0.1)
                return

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                put(item, None)
                if stopped.is_set():
                    break
            put(_END, None)
        except BaseException as error:  # any error is raised in the thread that waits for the item
            put(None, error)
        finally:
            close = getattr(iterator, "close", None)  # of a generator: it may hold a file open
            if close is not None:
                close()

    def taken() -> Iterator[T]:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stopped.set()
        thread.join(_WAIT)
