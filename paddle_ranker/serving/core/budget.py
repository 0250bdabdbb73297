"""How many bytes of requests a worker holds at a time, over all its connections and protocols."""

from __future__ import annotations

import math
import threading
from types import TracebackType
from typing import Optional

from paddle_ranker.serving.core.faults import UNAVAILABLE, Fault

_RETRY_SECONDS = 1.0
_SMALL = 64 * 1024  # bytes of a request that may use all of the budget
_LARGE_SHARE = 0.75  # that larger ones may use: who holds it leaves room for the small ones


class ByteBudget:
    """Bytes that may be held at once; safe to use from any thread.

    Args:
        most: None: any number.

    Attributes: `held`, how many there are.
    """

    def __init__(self, most: Optional[int] = None):
        self.most = most
        self.held = 0
        self._lock = threading.Lock()

    def room(self, size: int) -> float:
        """Return how many bytes may be held in all, that a request of so many is one of them."""
        if self.most is None:
            return math.inf
        return self.most if size <= _SMALL else _LARGE_SHARE * self.most

    def share(self) -> Share:
        """Return the part of one request or connection, which holds nothing yet."""
        return Share(self, self._lock)


class Share:
    """What one request or connection holds of a budget. Left as a context, it holds nothing, and never will again.

    Attributes: `held`, its bytes.
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
        """Hold nothing from now on, whatever a thread that still reads the request finds."""
        with self._lock:
            self._budget.held -= self.held
            self.held, self._is_over = 0, True

    def set(self, size: int) -> bool:
        """Hold `size` bytes from now on; return False, with nothing changed, where the budget has no room."""
        with self._lock:
            after = self._budget.held + size - self.held
            if self._is_over or (size > self.held and after > self._budget.room(size)):
                return False
            self._budget.held, self.held = after, size
            return True

    def hold(self, size: int) -> None:
        """Hold `size` bytes from now on; raises `Fault(UNAVAILABLE)` where the budget has no room."""
        if not self.set(size):
            raise self.refusal()

    def refusal(self) -> Fault:
        """Return the fault of a request for which there is no room."""
        problem = f"the requests that are being read have the {self._budget.most:,} bytes that they may have together"
        return Fault(UNAVAILABLE, f"{problem}; try again", retry_after=_RETRY_SECONDS)
