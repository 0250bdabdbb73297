"""Share the processor among searches, so that small searches never wait long for large ones.

for part in checked(parts):  # raises if the caller has left; lets other work go first
    ...

Each piece of work has a thread; as many of these threads compute at a time as there are cores. Every loop over data
calls `check`, which ends the thread's turn after `TURN_SECONDS` if other work waits. The next turn goes alternately to
the caller that has used the least processor time and to the work that has waited longest: a small search waits for a
turn or two, and a large one never starves. Time is measured, never estimated, and no work is begun twice.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, Optional, Protocol, TypeVar

from paddle_ranker.data.files.metering import CALLER, CallerLeft, DecodingCaller
from paddle_ranker.runtime import usable_cores

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
Reserve = Callable[[int], None]  # counts bytes of memory; raises an error if there is no room for them
TURN_SECONDS = 0.005  # seconds after which a turn ends at the next `check`
# Callers are ranked by the highest of these processor seconds that they have used up, then by arrival. So callers with
# equally large work are served one after the other; if they took turns, all of them would finish last.
_LEVELS = (0.005, 0.05, 0.5)


class once(Generic[S, T]):  # reads as a decorator
    """Property that is computed when it is first read, then cached.

    Before Python 3.12, `functools.cached_property` has one lock for the property of all objects, so that one search
    would wait for another.
    """

    def __init__(self, compute: Callable[[S], T]):
        self._compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: S, owner: Optional[type] = None) -> T:
        value = self._compute(instance)
        instance.__dict__[self._name] = value  # Python finds this value before the property from now on
        return value


class Lock(Protocol):
    """Lock of `threading`."""

    def acquire(self, blocking: bool = ...) -> bool: ...

    def release(self) -> None: ...


class Abandoned(CallerLeft):
    """Error: the caller has left, so work for the caller ends."""


class TooLate(Exception):
    """Error: a block was ended by its deadline, while the caller still waits for the rest of the work."""


class Caller:
    """Caller who waits for some work. Thread-safe.

    Args:
        deadline: time on `time.monotonic()`'s clock until which the caller waits.
        reserve: called with a number of bytes that the work holds until the caller has its answer; raises an error if
            there is no room for them.

    Attributes:
        used: processor seconds of the caller's work so far.
    """

    _numbers = itertools.count()

    def __init__(self, deadline: float = math.inf, reserve: Optional[Reserve] = None):
        self.deadline, self.used, self._number = deadline, 0.0, next(self._numbers)
        self._reserve, self._left = reserve, False
        self.wakes: set[threading.Event] = set()  # set when the caller leaves

    @property
    def rank(self) -> tuple[int, int]:
        """Sort key of callers: every other turn goes to the waiting caller with the lowest key."""
        return bisect(_LEVELS, self.used), self._number

    @property
    def has_left(self) -> bool:
        """Whether the caller has left, or the deadline has passed."""
        return self._left or time.monotonic() >= self.deadline

    @property
    def seconds_left(self) -> Optional[float]:
        """Seconds until the deadline; None if there is no deadline."""
        return None if self.deadline == math.inf else max(0.0, self.deadline - time.monotonic())

    def leave(self) -> None:
        """Record that the caller no longer waits; its work ends at the next `check`."""
        self._left = True
        for event in [*self.wakes]:
            event.set()

    def run(self, work: Callable[[], R], turns: Optional[Turns] = None) -> R:
        """Run `work` for this caller, in turn with other work, and return its result.

        Within `work`, the functions `check` and `reserve` of this module concern this caller.

        turns: used in place of the turns that all work of this process shares

        Raises `Abandoned` at the first `check` after the caller has left.
        """
        turn = _Turn(self, turns or TURNS)
        self.wakes.add(turn.ready)
        before, before_decoding = _current.set(turn), CALLER.set(DecodingCaller(check, idle))
        try:
            turn.take()
            return work()
        finally:
            turn.give()
            CALLER.reset(before_decoding)
            _current.reset(before)
            self.wakes.discard(turn.ready)

    def reserve(self, size: int) -> None:
        """Count bytes of memory for this caller; see the function `reserve`."""
        if self._reserve is not None:
            self._reserve(size)


class _Turn:
    """Turn of a thread that computes for a caller; the thread holds the turn or waits for it."""

    def __init__(self, caller: Caller, turns: Turns):
        self.caller, self.ready, self.since = caller, threading.Event(), 0.0
        self.is_held = False
        self._turns, self._ends, self._used = turns, 0.0, 0.0

    def take(self) -> None:
        """Wait until the thread may compute; raises `Abandoned` if the caller leaves before."""
        if self.caller.has_left or not self._turns.take(self):
            raise Abandoned
        self._ends, self._used = time.monotonic() + TURN_SECONDS, time.thread_time()

    def give(self) -> None:
        """End the turn, so that other work goes on."""
        if self.is_held:
            self._turns.give(self, time.thread_time() - self._used)

    def check(self) -> None:
        """Raise `Abandoned` if the caller has left; wait for the next turn if this one is over and others wait."""
        if self.caller.has_left:
            raise Abandoned
        if self.is_held and self._turns.is_awaited and time.monotonic() >= self._ends:
            self.give()
            self.take()


class Turns:
    """Limiter of the pieces of work that compute at the same time.

    Args:
        most: maximum number of pieces.
    """

    def __init__(self, most: int):
        self._free, self._lock = most, threading.Lock()
        self._waiting: list[_Turn] = []
        self._oldest_next = False

    @property
    def is_awaited(self) -> bool:
        """Whether some work waits for its turn."""
        return bool(self._waiting)

    def take(self, turn: _Turn) -> bool:
        """Wait for a turn; return False if the caller leaves, or the deadline passes, before the turn comes."""
        with self._lock:
            if self._free:
                self._free -= 1
                turn.is_held = True
                return True
            turn.ready.clear()
            if turn.caller.has_left:  # the caller may have set the event before it was cleared
                return False
            turn.since = time.monotonic()
            self._waiting.append(turn)
        turn.ready.wait(turn.caller.seconds_left)
        with self._lock:
            if not turn.is_held:
                self._waiting.remove(turn)
            return turn.is_held

    def give(self, turn: _Turn, used: float) -> None:
        """End a turn, charge the `used` seconds to its caller, and let the next work begin."""
        with self._lock:
            turn.is_held = False
            turn.caller.used += used
            if not self._waiting:
                self._free += 1
                return
            self._oldest_next = not self._oldest_next
            if self._oldest_next:
                following = min(self._waiting, key=lambda waiting: waiting.since)
            else:
                following = min(self._waiting, key=lambda waiting: waiting.caller.rank)
            self._waiting.remove(following)
            following.is_held = True
            following.ready.set()


TURNS = Turns(usable_cores())
_LONG_STEPS = Turns(max(1, usable_cores() - 1))
_current: ContextVar[Optional[_Turn]] = ContextVar("turn", default=None)


def check() -> None:
    """Raise `Abandoned` if the caller of this work has left; if the turn is over, let waiting work go first."""
    turn = _current.get()
    if turn is not None:
        turn.check()


def checked(items: Iterable[T]) -> Iterator[T]:
    """Yield items, and call `check` before each."""
    for item in items:
        check()
        yield item


def reserve(size: int) -> None:
    """Count `size` bytes that the running work holds until its caller has the answer; do nothing outside `Caller.run`.

    Raises the error of the caller's `reserve` if there is no room.
    """
    turn = _current.get()
    if turn is not None:
        turn.caller.reserve(size)


@contextmanager
def idle() -> Iterator[None]:
    """Let other work compute while the block waits, for another machine or for a lock. Blocks may be nested."""
    turn = _current.get()
    if turn is None or not turn.is_held:
        yield
        return
    turn.give()
    try:
        yield
    finally:
        turn.take()


@contextmanager
def long_step() -> Iterator[None]:
    """Run a block that computes long without a `check`, such as a network on half a minute of sound.

    If there are several turns, such blocks leave one of them to other work, however many callers have such a block.

    Raises `Abandoned` if the caller leaves before the block begins.
    """
    turn = _current.get()
    if turn is None:
        yield
        return
    step = _Turn(turn.caller, _LONG_STEPS)
    turn.caller.wakes.add(step.ready)
    try:
        with idle():
            step.take()
        yield
    finally:
        if step.is_held:
            _LONG_STEPS.give(step, 0.0)  # the turn's own end charges the caller
        turn.caller.wakes.discard(step.ready)


@contextmanager
def locking(lock: Lock) -> Iterator[None]:
    """Hold a lock during the block, which may call `check`.

    While a thread waits for the lock, it gives its turn to other work. Otherwise all turns could be held by threads
    that wait for the lock, while the lock's holder waits for a turn.
    """
    is_held = lock.acquire(blocking=False)
    try:
        if not is_held:
            with idle():
                is_held = lock.acquire()
        yield
    finally:
        if is_held:
            lock.release()


def seconds_left() -> Optional[float]:
    """Return the seconds until the deadline of the running work's caller; None if there is no deadline."""
    turn = _current.get()
    return None if turn is None else turn.caller.seconds_left


def watch() -> Callable[[], None]:
    """Return a check for other threads: a function that raises `Abandoned` once the caller of this work has left."""
    turn = _current.get()

    def check_caller() -> None:
        if turn is not None and turn.caller.has_left:
            raise Abandoned

    return check_caller


def wait_for(future: Future[R]) -> R:
    """Return a future's result; other work computes meanwhile. Cancels the future if the caller leaves."""
    turn = _current.get()
    if turn is not None and not future.done():
        caller, ended = turn.caller, threading.Event()
        caller.wakes.add(ended)
        future.add_done_callback(lambda _: ended.set())
        try:
            with idle():
                if not caller.has_left:
                    ended.wait(caller.seconds_left)
        except Abandoned:
            future.cancel()
            raise
        finally:
            caller.wakes.discard(ended)
    return future.result()


@contextmanager
def until(deadline: float) -> Iterator[None]:
    """Run the block with an earlier deadline; raises `TooLate` if `deadline` passes while the caller still waits.

    Outside `Caller.run`, the deadline has no effect.
    """
    turn = _current.get()
    if turn is None:
        yield
        return
    caller, before = turn.caller, turn.caller.deadline
    caller.deadline = min(deadline, before)
    try:
        yield
    except Abandoned as error:
        caller.deadline = before
        if caller.has_left:
            raise
        if not turn.is_held:
            turn.take()
        raise TooLate from error
    finally:
        caller.deadline = before


def in_turn(work: Callable[[], R]) -> R:
    """Return `work()`. If the thread has no turn yet, run the work in turn with other work."""
    return work() if _current.get() is not None else Caller().run(work)
