"""Prefetch: compute the next items in a second thread while this one works on the last."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()
_WAIT = 2.0  # seconds for the thread to end: it may be waiting for a pipe


@contextmanager
def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[Iterator[T]]:
    """Yield an iterator over `items` that a second thread computes, at most `depth` of them ahead.

        with prefetch(tokenized(chunks)) as items:
            for chunk in items:
                compute(chunk)

    The order stays, and an error comes where the item would have come. Leaving the block, by an error or an
    interruption as well, ends the thread after the item that it is at; a thread that waits for input is left behind and
    does not keep the process.
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
        except BaseException as error:  # whatever it is, it belongs to who waits for the item
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
