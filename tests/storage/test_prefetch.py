"""Prefetching in a second thread: order, bounds, errors, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from paddle_ranker.storage.prefetch import prefetch
from tests.started import until

pytestmark = pytest.mark.unit


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_items_come_in_their_order_from_another_thread() -> None:
    def items() -> Iterator[tuple[int, int]]:
        for number in range(50):
            yield number, threading.get_ident()

    with prefetch(items()) as taken:
        got = list(taken)
    assert [number for number, _ in got] == list(range(50))
    assert {thread for _, thread in got}.isdisjoint({threading.get_ident()})
    assert not _threads()


def test_no_more_is_done_ahead_than_asked_for() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    with prefetch(items(), depth=2) as taken:
        assert next(taken) == 0
        until(lambda: len(made) == 4)
        time.sleep(0.1)
        assert len(made) == 4  # one taken, two waiting, one to be put


def test_an_error_comes_where_the_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    got: list[int] = []
    with pytest.raises(ValueError, match="the second"), prefetch(items()) as taken:
        got.extend(taken)
    assert got == [1] and not _threads()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_leaving_early_ends_the_thread(error: type[BaseException]) -> None:
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.append(True)

    def take_one() -> None:
        with prefetch(items()) as taken:
            assert next(taken) == 0
            raise error

    with pytest.raises(error):
        take_one()
    assert not _threads() and closed == [True]
