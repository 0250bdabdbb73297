"""Things of which a thread needs one for itself while it computes, and which are dear to make."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Lend things out to threads: at most as many are made as are in use at once.

    Args:
        make: makes one more; never called by two threads at once.
        first: those that are there already.
    """

    def __init__(self, make: Callable[[], T], *first: T):
        self._make = make
        self._idle = list(first)
        self._making = threading.Lock()

    @contextmanager
    def lend(self) -> Iterator[T]:
        """Yield one that no other thread has. The last that came back goes out first: its memory is warm."""
        try:
            one = self._idle.pop()
        except IndexError:
            with self._making:
                one = self._make()
        try:
            yield one
        finally:
            self._idle.append(one)
