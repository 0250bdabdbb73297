"""Work in threads: it ends at its next step where nobody waits, and what it takes comes back when it has ended."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from paddle_ranker.retrieval.work.turns import check
from paddle_ranker.serving.core.faults import TIMED_OUT, Fault
from paddle_ranker.serving.core.threads import StoppableWork
from tests.serving_cases import SECONDS
from tests.started import until, until_in_loop

pytestmark = pytest.mark.unit


class Steps:
    """Ten steps of work, each of which waits for `gate`. Attributes: `begun`, `gate`, `started`."""

    def __init__(self) -> None:
        self.begun, self.gate, self.started = 0, threading.Event(), threading.Event()

    def __call__(self) -> str:
        for _ in range(10):
            check()
            self.begun += 1
            self.started.set()
            assert self.gate.wait(SECONDS)
        return "done"


def later(seconds: float = SECONDS) -> float:
    return time.monotonic() + seconds


def test_work_that_is_waited_for_is_done_and_its_errors_are_raised() -> None:
    work, steps = StoppableWork(1, name="test", what="it was done"), Steps()
    steps.gate.set()
    assert asyncio.run(work.run(3, later(), steps)) == "done" and work.under_way == 0

    def fails() -> None:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        asyncio.run(work.run(3, later(), fails))
    assert work.under_way == 0


@pytest.mark.parametrize("how", ["cancelled", "too late"])
def test_work_that_nobody_waits_for_ends_at_its_next_step_and_gives_its_share_back_then(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, steps, waits = StoppableWork(1, name="test", what="it was done"), Steps(), Steps()

    async def leave() -> None:
        loop, passed = asyncio.get_running_loop(), [0.0]
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + passed[0])
        asked = asyncio.ensure_future(work.run(3, later(), steps))
        behind = asyncio.ensure_future(work.run(4, later(3 * SECONDS), waits))
        await until_in_loop(steps.started.is_set)
        assert work.under_way == 7
        behind.cancel()  # it has not begun, and never will
        if how == "cancelled":
            asked.cancel()
        else:
            passed[0] = 2 * SECONDS
        found: Any = await asyncio.gather(asked, behind, return_exceptions=True)
        assert isinstance(found[1], asyncio.CancelledError)
        if how == "cancelled":
            assert isinstance(found[0], asyncio.CancelledError)
        else:
            assert isinstance(found[0], Fault) and found[0].kind is TIMED_OUT
            assert str(found[0]) == "the deadline passed before it was done"
        assert (work.under_way, steps.begun) == (3, 1)  # the step goes on, and with it its share
        steps.gate.set()

    asyncio.run(leave())
    until(lambda: work.under_way == 0)
    assert (steps.begun, waits.begun) == (1, 0)


def test_work_whose_time_is_up_before_it_begins_is_not_begun() -> None:
    work, steps = StoppableWork(1, name="test", what="it was done"), Steps()
    with pytest.raises(Fault, match="the deadline passed"):
        asyncio.run(work.run(1, time.monotonic() - 1, steps))
    until(lambda: work.under_way == 0)
    assert steps.begun == 0
