"""Connections take turns at the event loop: by work, so that no number of senders of small pieces holds others up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any, Callable

import pytest

from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.connections import Connections
from paddle_ranker.serving.core.turns import PIECES, REQUEST, SHARED_PIECES, TURN, Pace, Turns
from paddle_ranker.serving.http.connection import HttpConnection
from tests.started import until_in_loop

pytestmark = pytest.mark.unit
SECONDS = 60
_SLICE = 100  # pieces


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Sender:
    """A connection with many small pieces; `read` counts the slices that were read, `order` says whose."""

    def __init__(self, turns: Turns, order: list[int], number: int, slices: int):
        self.pace, self._order, self._number, self.waiting = Pace(turns, self.go_on), order, number, slices

    def go_on(self) -> None:
        while self.waiting and self.pace.may_read():
            self.waiting -= 1
            self._order.append(self._number)
            self.pace.took(_SLICE, 0, answers=_SLICE)  # all are paid for


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), SECONDS))


def test_of_many_senders_each_is_read_a_slice_at_a_time() -> None:
    """A newcomer is behind one slice of each, whatever they have sent; no turn is longer than its units."""
    order: list[int] = []

    async def run() -> None:
        turns = Turns()
        senders = [Sender(turns, order, number, 50) for number in range(100)]
        for sender in senders:
            sender.go_on()
        most = -(-TURN // _SLICE)
        assert len(order) == most  # the first one took the turn; the others are in the line
        newcomer = Sender(turns, order, 100, 1)
        newcomer.go_on()
        while newcomer.waiting:
            before = len(order)
            await asyncio.sleep(0)
            assert len(order) - before <= most
        since = order[most : order.index(100)]
        assert Counter(since).most_common(1)[0][1] <= 2 and len(since) <= 100
        await until_in_loop(lambda: not any(sender.waiting for sender in senders))
        assert set(Counter(order).values()) == {50, 1}
        await asyncio.sleep(0)
        assert turns.is_free() and not turns._is_set  # nothing runs in an idle server

    in_loop(run)


def test_small_pieces_are_paid_for_by_bytes_answers_and_what_all_share() -> None:
    clock = Clock()

    async def run() -> None:
        turns = Turns(clock)
        one, two = (Pace(turns, lambda: None) for _ in range(2))
        one.took(PIECES, 0)
        assert one.owes == 0 and one.may_read()
        one.took(100, 256 * 100)
        one.took(160, 0, answers=10)
        assert one.owes == 0
        one.took(SHARED_PIECES - 100, 0)
        two.took(PIECES + 150, 0)
        assert (one.owes, two.owes) == (SHARED_PIECES - 100, 150)
        assert not one.may_read() and one.owes == 0  # all that is shared but 100
        assert not two.may_read() and two.owes == 150
        clock.now += 49 / SHARED_PIECES
        turns._pay()
        assert two.owes == 150
        clock.now += 1.1 / SHARED_PIECES
        turns._pay()
        assert two.owes == 0
        await until_in_loop(lambda: two.may_read())
        two.took(1, 16_000)
        assert two.slice(16_000) == 16_000 and two.may_read()  # large pieces wait for nobody
        clock.now += 1000
        one.took(SHARED_PIECES, 0)
        two.took(two._allowance + 1, 0)
        assert not one.may_read() and one.owes == 0
        assert not two.may_read() and two.owes == 1  # never more than at first, however long nobody sent anything
        one.took(SHARED_PIECES, 0)
        three = Pace(turns, lambda: None)
        three.took(PIECES + 1, 0)
        assert not one.may_read() and not three.may_read()
        one.end()
        clock.now += 2.1 / SHARED_PIECES
        turns._pay()
        assert (two.owes, three.owes) == (0, 0)  # who has gone keeps nobody

    in_loop(run)


def test_of_many_requests_at_once_so_many_begin_in_a_turn() -> None:
    """However many connections ask; the rest follows in the order in which they asked."""
    begun: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> None:
        connections = Connections(1000)
        counts = []
        open_ = [HttpConnection(app, ServeConfig(), connections) for _ in range(3 * TURN // REQUEST)]
        for number, connection in enumerate(open_):
            connection.connection_made(Silent())
            connection.data_received(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        open_[-1].connection_lost(None)
        while len(begun) < len(open_) - 1:
            before = len(begun)
            await asyncio.sleep(0)
            counts.append(len(begun) - before)
        assert max(counts) == TURN // REQUEST
        assert begun == [f"/{number}" for number in range(len(open_) - 1)]
        for connection in open_:
            connection.connection_lost(None)

    in_loop(run)


class Silent(asyncio.Transport):
    """A transport whose client takes all."""

    def write(self, data: Any) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...
