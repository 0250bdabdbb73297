"""Meter the work of searches, so that a large one never keeps small ones waiting.

spend(postings)  # says how much work comes next, before it is begun
for part in checked(parts):  # ends if nobody waits for the work any more

A stage of a search begins as small work. Once it has said more than `LARGE` steps, it is stopped and begins anew as
large work, of which only a few run at a time: `metered` does so for Python, `StoppableWork` for a server.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Generic, Optional, TypeVar

from paddle_ranker.runtime import usable_cores

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
Hold = Callable[[int], None]  # counts bytes of memory, or raises where there is no room for them
LARGE = 500_000  # steps of a stage that is small: about 5 milliseconds
LARGE_AT_ONCE = max(1, usable_cores() // 2)
_TURNS = threading.BoundedSemaphore(LARGE_AT_ONCE)


class once(Generic[S, T]):  # reads as a decorator
    """Property that is computed when it is first asked for.

    Before Python 3.12 `functools.cached_property` has one lock for all objects: a search would wait for another's.
    """

    def __init__(self, compute: Callable[[S], T]):
        self._compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: S, owner: Optional[type] = None) -> T:
        value = self._compute(instance)
        instance.__dict__[self._name] = value  # is found before this object from now on
        return value


class Abandoned(Exception):
    """The caller of some work has left."""


class Moved(Exception):
    """Some work is large; attribute: `size`, its steps."""

    def __init__(self, size: int):
        super().__init__(size)
        self.size = size


class Caller:
    """The caller who waits for some work; safe to use from any thread.

    Args:
        deadline: time on `time.monotonic()`'s clock until which the caller waits.
        hold: called with the bytes that the work holds until the caller has its answer.
    """

    def __init__(self, deadline: float = math.inf, hold: Optional[Hold] = None):
        self._deadline, self._hold, self._left = deadline, hold, False
        self._most: float = LARGE
        self._spent = self._held = self._counted = 0

    @property
    def has_left(self) -> bool:
        """Whether the caller waits no more."""
        return self._left or time.monotonic() >= self._deadline

    def leave(self) -> None:
        """Note that the caller waits no more."""
        self._left = True

    def check(self) -> None:
        """Raise `Abandoned` if the caller has left or the deadline has passed."""
        if self.has_left:
            raise Abandoned

    def run(self, work: Callable[[Caller], R], *, large: bool = False) -> R:
        """Return `work(caller)`, within which `spend`, `hold` and `check` are about this caller.

        large: any number of steps may be spent. Else raises `Moved` above `LARGE`.
        """
        self.check()
        self._spent, self._held, self._most = 0, 0, math.inf if large else LARGE
        before = _CALLER.set(self)
        try:
            return work(self)
        finally:
            _CALLER.reset(before)

    def spend(self, steps: int) -> None:
        """Note steps of work that comes next; see `spend`."""
        self.check()
        self._spent += steps
        if self._spent > self._most:
            raise Moved(self._spent)

    def hold(self, size: int) -> None:
        """Count bytes of memory; see `hold`."""
        self._held += size
        if self._hold is not None and self._held > self._counted:  # work that begins anew holds the same again
            self._hold(self._held - self._counted)
            self._counted = self._held


_CALLER: ContextVar[Optional[Caller]] = ContextVar("caller", default=None)


def spend(steps: int) -> None:
    """Note work that comes next, a step for about 10 nanoseconds; raises `Abandoned`, and `Moved` if it is too much."""
    caller = _CALLER.get()
    if caller is not None:
        caller.spend(steps)


def check() -> None:
    """Raise `Abandoned` if nobody waits for the work that calls this."""
    caller = _CALLER.get()
    if caller is not None:
        caller.check()


def checked(items: Iterable[T]) -> Iterator[T]:
    """Yield items, with a `check` before each."""
    for item in items:
        check()
        yield item


def hold(size: int) -> None:
    """Note `size` more bytes that are held until the caller has its answer; one that has no room refuses them."""
    caller = _CALLER.get()
    if caller is not None:
        caller.hold(size)


def metered(work: Callable[[], R]) -> R:
    """Return `work()`; if it is large, begin it anew when its turn comes."""
    if _CALLER.get() is not None:
        return work()
    caller = Caller()
    try:
        return caller.run(lambda _: work())
    except Moved:
        pass
    with _TURNS:
        return caller.run(lambda _: work(), large=True)
