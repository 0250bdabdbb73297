"""A budget of the bytes of memory that a worker holds for its callers, over all connections and protocols.

A request counts from its first byte until its answer is sent; its texts count, too, once they are parsed. An answer
counts until the client has received it.
"""

from __future__ import annotations

import math
import sys
import threading
from typing import Optional

from paddle_ranker.serving.core.faults import TOO_LARGE, UNAVAILABLE, Fault

_RETRY_SECONDS = 1.0
_SMALL = 64 * 1024  # bytes of a request that may use all of the budget
_LARGE_SHARE = 0.75  # share of the budget for larger requests: small ones then find room
_SHORT = 4 * 1024  # bytes of a body whose characters are not counted
_WIDEST = 4  # most bytes of a character in a Python string
_SLICE = 1024 * 1024  # bytes that are decoded at a time, since no other thread runs while Python decodes
_WIDE_ESCAPES = (b"\\ud", b"\\uD", b"\\U")  # escapes of characters beyond U+FFFF


class ByteBudget:
    """A limit on the bytes that are held at the same time. Thread-safe.

    Args:
        most: the limit; None: no limit.

    Attributes:
        held: number of bytes that are held now.
    """

    def __init__(self, most: Optional[int] = None):
        self.most = most
        self.held = 0
        self._lock = threading.Lock()

    def room(self, size: int) -> float:
        """Return the most bytes that may be held in all once a request of `size` bytes is added.

        This maximum is lower for large requests, so that small ones find room.
        """
        if self.most is None:
            return math.inf
        return self.most if size <= _SMALL else _LARGE_SHARE * self.most

    def share(self) -> Share:
        """Return a new, empty share for one request or connection."""
        return Share(self, self._lock)


class Share:
    """Bytes of a budget that a request or connection holds. A `with` block releases all of them at its end.

    Attributes:
        held: number of bytes that are held now.
    """

    def __init__(self, budget: ByteBudget, lock: threading.Lock):
        self._budget, self._lock = budget, lock
        self._is_over = False
        self.held = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *raised: object) -> None:
        self.end()

    def end(self) -> None:
        """Release all bytes for good. Later reservations, by a thread that still reads the request, fail."""
        if not self._is_over:
            with self._lock:
                self._budget.held -= self.held
                self.held, self._is_over = 0, True

    def set(self, size: int) -> bool:
        """Change the reservation to `size` bytes. Return False if the budget has no room, or if the share has ended."""
        with self._lock:
            after = self._budget.held + size - self.held
            if self._is_over or (size > self.held and after > self._budget.room(size)):
                return False
            self._budget.held, self.held = after, size
            return True

    def reserve(self, size: int) -> None:
        """Change the reservation to `size` bytes. Raises `Fault(UNAVAILABLE)` where `set` returns False."""
        if not self.set(size):
            raise self.refusal()

    def reserve_answer(self, size: int) -> None:
        """Reserve `size` bytes more for a large answer. Call it before computing the answer.

        Raises `Fault`: `TOO_LARGE` if the answer would not fit even into an empty budget; otherwise as `reserve` does.
        """
        room = self._budget.room(size)
        if size > room:
            problem = f"takes {size:,} bytes until it is answered, above the {int(room):,} of one; ask for fewer rows"
            raise Fault(TOO_LARGE, problem, field="body")
        self.reserve(self.held + size)

    def reserve_read(self, body: bytes) -> None:
        """Reserve a request's body and the memory of its texts as Python strings.

        Raises `Fault`: `TOO_LARGE` if the request would not fit even into an empty budget; otherwise as `reserve` does.
        """
        if len(body) <= _SHORT:
            self.reserve(len(body) * (1 + _WIDEST))
            return
        size = len(body) + texts_size(body)
        room = self._budget.room(size)
        if size > room:
            problem = f"takes {size:,} bytes of memory once its texts are read, above the {int(room):,} of a request"
            raise Fault(TOO_LARGE, problem, field="body")
        self.reserve(size)

    def refusal(self) -> Fault:
        """Return the fault of a request for which the budget has no room."""
        problem = f"requests and answers have the {self._budget.most:,} bytes that they may have together"
        return Fault(UNAVAILABLE, f"{problem}; try again", retry_after=_RETRY_SECONDS)


def texts_size(body: bytes) -> int:
    """Return an upper bound of the memory that a body's texts take as Python strings, in bytes.

    A string has 1, 2 or 4 bytes for each of its characters: as many as its widest character needs. The time is linear
    in the body's size.
    """
    characters, width = 0, 1
    for start in range(0, len(body), _SLICE):
        text = body[start : start + _SLICE].decode("utf-8", "replace")
        characters += len(text)
        if not text.isascii():
            width = max(width, _WIDEST if sys.getsizeof(text) >= _WIDEST * len(text) else 2)
    if b"\\u" in body or b"\\U" in body:
        width = _WIDEST if any(escape in body for escape in _WIDE_ESCAPES) else max(width, 2)
        if b"\\\\" not in body:  # after an escaped backslash, \u is no escape
            characters -= 5 * body.count(b"\\u")
    return width * characters
