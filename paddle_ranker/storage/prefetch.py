"""Do the next piece of work in a second thread while this one is busy with the last."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_END = object()


class Ahead(Generic[T]):
    """Iterate over `items` in a second thread, at most `depth` of them ahead of who takes them.

        with Ahead(tokenized(chunks)) as items:
            for chunk in items:
                compute(chunk)

    The order stays, and an error comes where the item would have come. Leaving the block, by an error or an
    interruption as well, ends the thread after the item that it is at; a thread that waits for input is left behind and
    does not keep the process.
    """

    _WAIT = 2.0  # seconds for the thread to end: it may be waiting for a pipe

    def __init__(self, items: Iterable[T], depth: int = 2):
        self._items = items
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._taken()

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join(self._WAIT)

    def _taken(self) -> Iterator[T]:
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item

    def _work(self) -> None:
        iterator = iter(self._items)
        try:
            for item in iterator:
                if not self._put(item, None):
                    break
            self._put(_END, None)
        except BaseException as error:  # whatever it is, it belongs to who waits for the item
            self._put(None, error)
        finally:
            close = getattr(iterator, "close", None)  # of a generator: it may hold a file open
            if close is not None:
                close()

    def _put(self, item: Any, error: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
