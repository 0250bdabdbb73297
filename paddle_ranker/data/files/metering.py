"""Meter of decoders: memory that all of them may hold together, and a check between their steps.

with limits.decoded.reserve(12 * width * height):  # waits for room, or until the caller leaves
    for block in blocks:
        step()  # raises `CallerLeft` if the caller has left; lets other work go first
        ...

Every decoder of pictures, sounds and films reserves memory before it takes it, and calls `step` between its steps. What
a step does is up to the caller: a server sets `CALLER` for work that waits for its turn and ends early; without a
caller, as in commands, a step does nothing.
"""

from __future__ import annotations

import io
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Callable, NamedTuple, Optional

_POLL_SECONDS = 0.1  # after which a wait for memory looks whether its caller still waits


class CallerLeft(Exception):
    """Error: the caller has left, so decoding ends."""


class DecodingCaller(NamedTuple):
    """Caller that waits for what is decoded.

    check: raises `CallerLeft` if the caller has left; may wait while other work goes first
    pause: context in which other work goes on, while this work waits or calls code that cannot be stopped
    """

    check: Callable[[], None]
    pause: Callable[[], AbstractContextManager[None]]


CALLER: ContextVar[Optional[DecodingCaller]] = ContextVar("decoding_caller", default=None)


def step() -> None:
    """Raise `CallerLeft` if the caller of this decoding has left; let other work go first. Without a caller, return."""
    caller = CALLER.get()
    if caller is not None:
        caller.check()


def pause() -> AbstractContextManager[None]:
    """Return a context in which other work goes on, around code that computes long without a step."""
    caller = CALLER.get()
    return nullcontext() if caller is None else caller.pause()


class SteppingFile(io.BytesIO):
    """File in memory whose reading is a step, so that libraries that read block by block can be stopped."""

    def read(self, size: Optional[int] = -1, /) -> bytes:
        """Call `step`, then read."""
        step()
        return super().read(size)


class DecodedBytes:
    """Limit on the memory of files that are being decoded; shared by all threads.

    most: the limit in bytes
    """

    def __init__(self, most: int = 512 * 1024 * 1024):
        self.most = most
        self._held = 0
        self._waiting, self._freed = deque[object](), threading.Condition()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Reserve `size` bytes during the block; wait until there is room, in the order of calls.

        The block must free its arrays before it ends. A wait ends with the caller's error if the caller leaves.

        size: at most `most`; more would never have room
        """
        self._take(size)
        try:
            yield
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # the traceback's frames hold the arrays
            raise
        finally:
            with self._freed:
                self._held -= size
                self._freed.notify_all()

    def _take(self, size: int) -> None:
        ticket = object()  # in the order of calls, so that small files do not overtake a large one
        with self._freed:
            self._waiting.append(ticket)
        try:
            if not self._taken(ticket, size, 0.0):
                with pause():
                    while not self._taken(ticket, size, _POLL_SECONDS):
                        step()
        except BaseException:
            with self._freed:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                else:  # taken, and then the caller left
                    self._held -= size
                self._freed.notify_all()
            raise

    def _taken(self, ticket: object, size: int, seconds: float) -> bool:
        """Take `size` bytes if it is the ticket's turn and there is room within `seconds`; return whether it did."""

        def fits() -> bool:
            return self._waiting[0] is ticket and self._held + size <= self.most

        with self._freed:
            if not self._freed.wait_for(fits, seconds):
                return False
            self._waiting.popleft()
            self._held += size
            self._freed.notify_all()  # the next may fit, too
            return True


DECODED = DecodedBytes()  # of everything that has no limit of its own
