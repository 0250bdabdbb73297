"""The event loop's work on what callers send, shared out over all connections: by what it costs, not by seconds.

A connection costs little where it sends large pieces (HTTP/2 frames, chunks, frames of baidu_std), and much a byte
where it sends small ones or many requests. So these take turns, counted in units of work:

- In one go of the event loop, `TURN` units are done, whoever asks for them. The rest waits in a line, in which every
  connection stands once: who asks for little is behind at most one small slice of each of the others.
- Each small piece uses up an allowance, which grows with the bytes that a connection brings and the requests of it that
  are answered. Beyond it, all connections together may send `SHARED_PIECES`; one that needs more is not read from until
  there are some again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Callable

TURN = 4096  # units of work in one go of the event loop; reading a small piece is one of them
REQUEST = 64  # units that a request takes
PIECES = 256  # small pieces that a connection may send before it needs others' share
SHARED_PIECES = 4096  # that all connections together may send beyond that: at once, and again every second
_PIECE_BYTES = 256  # of which a piece is not small
_PIECES_AN_ANSWER = 16  # that a request takes at most
_SMALL_SLICE = 1024  # bytes of small pieces that are read at a time


class Turns:
    """The line in which connections wait for the event loop, and what they share.

    Args:
        clock: returns seconds; it refills `SHARED_PIECES`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._left, self._line = TURN, deque[Callable[[], None]]()
        self._is_set = False  # whether another turn begins soon
        self._clock, self._since = clock, clock()
        self._shared = float(SHARED_PIECES)
        self._owing: deque[Pace] = deque()
        self._paying = False  # whether `_pay` is called later

    def is_free(self) -> bool:
        """Return whether work may be done now: nobody waits, and not all of the turn is used up."""
        return self._left > 0 and not self._line

    def spend(self, units: int) -> None:
        """Note work that is done now."""
        self._left -= units
        if self._left <= 0:  # not before: another go of the event loop costs some microseconds itself
            self._set()

    def line_up(self, go: Callable[[], None]) -> None:
        """Call `go` when it is its turn; it says by `spend` what it does."""
        self._line.append(go)
        self._set()

    def wait_for_pieces(self, pace: Pace) -> None:
        """Let a connection go on when the pieces that it owes are paid for by what all share."""
        self._owing.append(pace)
        if not self._paying:
            self._pay()

    def _set(self) -> None:
        if not self._is_set:
            self._is_set = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Begin a turn. What the last one took too much is taken from it."""
        self._is_set = False
        self._left = min(TURN, self._left + TURN)
        while self._line and self._left > 0:
            self._line.popleft()()
        if self._line or self._left <= 0:
            self._set()

    def _pay(self) -> None:
        self._paying = False
        now = self._clock()
        self._shared = min(SHARED_PIECES, self._shared + SHARED_PIECES * (now - self._since))
        self._since = now
        while self._owing:
            price = min(self._owing[0].owes, SHARED_PIECES)
            if price > self._shared:
                self._paying = True
                asyncio.get_running_loop().call_later((price - self._shared) / SHARED_PIECES, self._pay)
                return
            self._shared -= price
            self._owing.popleft().pay()


class Pace:
    """How a connection is read from, which may send small pieces.

    Args:
        go_on: reads on what has come; called when it is the connection's turn again.
    """

    def __init__(self, turns: Turns, go_on: Callable[[], None]):
        self._turns, self._go_on = turns, go_on
        self._allowance = PIECES  # small pieces that it may send; below 0 it owes them
        self._is_small = True  # what came last; nothing is known of the first bytes
        self._has_turn = False
        self.waits = False  # nothing is to be read

    @property
    def owes(self) -> int:
        """Return the small pieces that were read and not paid for."""
        return max(0, -self._allowance)

    def may_read(self) -> bool:
        """Return whether to read a slice now; if not, `go_on` is called when it is time."""
        if self.waits:
            return False
        if self._allowance >= 0 and (self._has_turn or not self._is_small):
            self._has_turn = False
            return True
        self.waits = self._allowance < 0 or not self._turns.is_free()
        if self._allowance < 0:
            self._turns.wait_for_pieces(self)
        elif self.waits:
            self._turns.line_up(self._take_turn)
        return not self.waits

    def slice(self, most: int) -> int:
        """Return how many bytes to read at a time, `most` if they do not come in small pieces."""
        return _SMALL_SLICE if self._is_small else most

    def took(self, pieces: int, size: int, *, answers: int = 0, units: int = 0) -> None:
        """Note what was read: `size` bytes in so many pieces.

        Args:
            answers: requests that were answered since the last call.
            units: of work that the bytes make beside the pieces.
        """
        self._is_small = size < _PIECE_BYTES * pieces or units > 0
        self._allowance = min(self._allowance + size // _PIECE_BYTES + _PIECES_AN_ANSWER * answers, PIECES) - pieces
        if self._is_small:
            self._turns.spend(pieces + units)

    def pay(self) -> None:
        """Owe nothing more, and wait for a turn."""
        self._allowance = max(self._allowance, 0)
        self._turns.line_up(self._take_turn)

    def end(self) -> None:
        """Read nothing more: the connection is gone."""
        self.waits, self._allowance, self._go_on = True, 0, _nothing

    def _take_turn(self) -> None:
        self.waits, self._has_turn = self._go_on is _nothing, True
        self._go_on()


def _nothing() -> None:
    """Do nothing: for a connection that is gone."""
