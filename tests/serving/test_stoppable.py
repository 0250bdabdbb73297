"""Work in threads: it ends at its next step where nobody waits, and what it takes comes back when it has ended."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from functools import partial
from typing import Any

import pytest

from paddle_ranker.serving.core import apart
from paddle_ranker.serving.core.faults import TIMED_OUT, Fault
from paddle_ranker.serving.core.stoppable import Caller, StoppableWork
from tests.serving_cases import SECONDS
from tests.started import until, until_in_loop

pytestmark = pytest.mark.unit


class Steps:
    """Ten steps of work, each of which waits for `gate`. Attributes: `begun`, `gate`, `started`."""

    def __init__(self) -> None:
        self.begun, self.gate, self.started = 0, threading.Event(), threading.Event()

    def __call__(self, caller: Caller) -> str:
        for _ in range(10):
            caller.check()
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

    def fails(caller: Caller) -> None:
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


class Body:
    """What a request brings."""


@pytest.mark.parametrize("where", ["a reader", "threads for images"])
def test_what_waits_for_a_thread_is_forgotten_when_its_caller_leaves(where: str) -> None:
    work, gate, begun = StoppableWork(1, name="test", what="it was done"), threading.Event(), threading.Semaphore(0)

    def wait(*_: object) -> None:
        begun.release()
        assert gate.wait(SECONDS)

    async def leave() -> None:
        def ask(body: object) -> asyncio.Future[None]:
            if where == "a reader":
                return asyncio.ensure_future(apart.apart(apart.MUCH_BYTES + 1, wait, body))
            return asyncio.ensure_future(work.run(1, later(), partial(wait, body)))

        busy = [ask(None) for _ in range(2)]  # all threads are
        for _ in range(2 if where == "a reader" else 1):
            await asyncio.get_running_loop().run_in_executor(None, begun.acquire)
        body = Body()
        seen, waits = weakref.ref(body), ask(body)
        del body
        await asyncio.sleep(0)
        waits.cancel()
        while not waits.done():
            await asyncio.sleep(0)
        del waits  # its error's traceback knows the body
        gc.collect()
        held = seen() is not None
        gate.set()
        await asyncio.gather(*busy)
        assert not held

    asyncio.run(leave())
