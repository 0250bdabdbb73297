"""A budget for the bytes of requests that a worker holds at a time, over all its connections and protocols."""

from __future__ import annotations

import math
import threading
from types import TracebackType
from typing import Optional

from paddle_ranker.serving.core.faults import UNAVAILABLE, Fault

_RETRY_SECONDS = 1.0
_SMALL = 64 * 1024  # bytes of a request that may use all of the budget
_LARGE_SHARE = 0.75  # of the budget, which larger requests may use: small ones then find room


class ByteBudget:
    """A limit on the bytes that are held at once; safe to use from any thread.

    Args:
        most: the limit; None: no limit.

    Attributes: `held`, the bytes that are held now.
    """

    def __init__(self, most: Optional[int] = None):
        self.most = most
        self.held = 0
        self._lock = threading.Lock()

    def room(self, size: int) -> float:
        """Return how many bytes may be held in all if a request of `size` bytes is included."""
        if self.most is None:
            return math.inf
        return self.most if size <= _SMALL else _LARGE_SHARE * self.most

    def share(self) -> Share:
        """Return a new share for one request or connection; it holds nothing yet."""
        return Share(self, self._lock)


class Share:
    """The bytes of a budget that one request or connection holds. Leaving it as a context ends it, see `end`.

    Attributes: `held`, the bytes that it holds now.
    """

    def __init__(self, budget: ByteBudget, lock: threading.Lock):
        self._budget, self._lock = budget, lock
        self._is_over = False
        self.held = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.end()

    def end(self) -> None:
        """Release all bytes for good, even if a thread still reads the request and tries to hold more."""
        with self._lock:
            self._budget.held -= self.held
            self.held, self._is_over = 0, True

    def set(self, size: int) -> bool:
        """Hold `size` bytes from now on; if the budget has no room or the share has ended, only return False."""
        with self._lock:
            after = self._budget.held + size - self.held
            if self._is_over or (size > self.held and after > self._budget.room(size)):
                return False
            self._budget.held, self.held = after, size
            return True

    def hold(self, size: int) -> None:
        """Hold `size` bytes from now on; raises `Fault(UNAVAILABLE)` where `set` returns False."""
        if not self.set(size):
            raise self.refusal()

    def refusal(self) -> Fault:
        """Return the fault of a request for which the budget has no room."""
        problem = f"the requests that are being read have the {self._budget.most:,} bytes that they may have together"
        return Fault(UNAVAILABLE, f"{problem}; try again", retry_after=_RETRY_SECONDS)
