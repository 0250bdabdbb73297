"""Work takes turns: small work goes first, large work goes on, and what nobody waits for ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from paddle_ranker.retrieval.work import turns
from paddle_ranker.retrieval.work.turns import Abandoned, Caller, Turns, check, idle, in_turn, locking, reserve, watch
from tests.serving_cases import SECONDS
from tests.started import until

pytestmark = pytest.mark.unit


class Shop:
    """Work of callers in threads that share one turn, each step of which takes a millisecond of processor time.

    Attributes: `steps`, the name of each step's caller in their order; `ended`, names as they ended.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.turns, self.steps, self.ended = Turns(1), list[str](), list[str]()
        self._own, self._threads = threading.local(), list[threading.Thread]()
        clock = SimpleNamespace(monotonic=time.monotonic, thread_time=lambda: getattr(self._own, "used", 0.0))
        monkeypatch.setattr(turns, "time", clock)
        monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)  # it ends at each check

    def begin(self, name: str, steps: int, at: Callable[[int], None] = lambda step: None) -> Caller:
        """Start work in a thread; `at` is called in each step."""
        caller = Caller(time.monotonic() + SECONDS)

        def do() -> None:
            for step in range(steps):
                check()
                self._own.used = getattr(self._own, "used", 0.0) + 0.001
                self.steps.append(name)
                at(step)
            self.ended.append(name)

        def run() -> None:
            try:
                caller.run(do, self.turns)
            except Abandoned:
                self.ended.append(f"{name} left")

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        return caller

    def wait_for(self, waiting: int) -> None:
        """Wait until so much work waits for the turn."""
        until(lambda: len(self.turns._waiting) == waiting)

    def close(self) -> None:
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive()


def test_small_work_waits_for_a_turn_or_two_of_large_work_whatever_that_says(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(monkeypatch)

    def at(step: int) -> None:
        if step == 600:  # its last level
            for number in range(20):
                shop.begin(f"small {number}", 3)
                shop.wait_for(number + 1)

    shop.begin("large", 2000, at)
    shop.close()
    first, last = shop.steps.index("small 0"), max(n for n, name in enumerate(shop.steps) if name != "large")
    assert first <= 602 and shop.steps[first : last + 1].count("large") <= 22  # 20 are older than it, by turns
    assert shop.ended[-1] == "large" and shop.ended[:-1] == [f"small {number}" for number in range(20)]


def test_large_work_goes_on_beside_any_number_of_small_work(monkeypatch: pytest.MonkeyPatch) -> None:
    shop, begun = Shop(monkeypatch), iter(range(300))

    def another(_: int) -> None:  # whoever ends is followed by another one
        if (number := next(begun, None)) is not None:
            waiting = len(shop.turns._waiting)
            shop.begin(f"small {number}", 1, another)
            shop.wait_for(waiting + 1)

    shop.begin("large", 60, lambda step: another(step) if step in (50, 51) else None)
    until(lambda: "large" in shop.ended)
    rest = len([*begun])
    shop.close()
    assert rest > 200  # it has not waited for the last of them


def test_of_large_work_the_first_ends_first(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(monkeypatch)
    gate = threading.Event()
    shop.begin("a", 700, lambda step: None if step else assert_set(gate))
    for number, name in enumerate("bc", start=1):
        shop.begin(name, 700)
        shop.wait_for(number)
    gate.set()
    shop.close()
    assert shop.ended == ["a", "b", "c"]


def assert_set(gate: threading.Event) -> None:
    assert gate.wait(SECONDS)


def test_work_that_nobody_waits_for_gives_its_turn_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    shop, gate = Shop(monkeypatch), threading.Event()
    large = shop.begin("large", 100, lambda step: None if step else assert_set(gate))
    until(lambda: bool(shop.steps))
    waits = shop.begin("waits", 3)
    shop.wait_for(1)
    waits.leave()  # it waits for its turn
    until(lambda: shop.ended == ["waits left"])
    large.leave()
    gate.set()
    shop.begin("other", 2)
    shop.close()
    assert shop.ended == ["waits left", "large left", "other"] and shop.steps == ["large", "other", "other"]
    with pytest.raises(Abandoned):
        Caller(time.monotonic() - 1).run(lambda: None, shop.turns)
    assert Caller().run(lambda: "free", shop.turns) == "free"


def test_who_waits_for_a_lock_or_another_machine_keeps_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    shop, lock, order = Shop(monkeypatch), threading.Lock(), list[str]()

    def holds(step: int) -> None:
        if step == 0:
            with locking(lock):
                shop.begin("second", 2, waits)
                shop.wait_for(1)
                check()  # the second one has the turn now, and comes to the lock
                order.append("first")

    def waits(step: int) -> None:
        with locking(lock):
            order.append("second")

    shop.begin("first", 1, holds)
    until(lambda: len(shop.ended) == 2)
    assert order == ["first", "second", "second"]
    away = threading.Event()

    def rests(step: int) -> None:
        with idle():
            assert away.wait(SECONDS)

    shop.begin("away", 1, rests)
    shop.begin("here", 1, lambda step: away.set())
    shop.close()
    assert sorted(shop.ended) == ["away", "first", "here", "second"]


def test_what_work_takes_is_counted_for_its_caller() -> None:
    held = list[int]()
    caller = Caller(reserve=held.append)

    def do() -> str:
        reserve(100)
        in_turn(lambda: reserve(50))  # it has its turn already
        end = time.thread_time() + 0.006
        while time.thread_time() < end:
            check()
        return "done"

    before = caller.rank
    assert caller.run(do) == "done" and held == [100, 50] and caller.used >= 0.006
    assert caller.rank > before and Caller().rank < caller.rank
    others = list[Callable[[], None]]()
    caller.run(lambda: others.append(watch()))
    others[0]()
    caller.leave()
    with pytest.raises(Abandoned):
        others[0]()
    with pytest.raises(Abandoned):
        caller.run(do)
    check()  # nobody has called
    reserve(10**12)
    assert in_turn(lambda: "done") == "done"


def test_work_that_waits_within_a_wait_has_its_one_turn_again() -> None:
    turns = Turns(1)

    def waits() -> str:
        with idle(), idle():
            check()
            assert Caller(time.monotonic() + SECONDS).run(lambda: "the other's turn", turns) == "the other's turn"
        return "done"

    for _ in range(2):
        assert Caller(time.monotonic() + SECONDS).run(waits, turns) == "done"


def test_steps_that_cannot_be_stopped_leave_a_turn_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_LONG_STEPS", Turns(1))
    shared, ends, begun, ended = Turns(2), threading.Event(), list[int](), list[int]()
    callers = [Caller(time.monotonic() + SECONDS) for _ in range(4)]

    def long(number: int) -> None:
        with turns.long_step():
            begun.append(number)
            assert ends.wait(SECONDS)

    def run(number: int) -> None:
        try:
            callers[number].run(lambda: long(number), shared)
            ended.append(number)
        except Abandoned:
            ended.append(-number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(turns._LONG_STEPS._waiting) == 3)
    assert Caller(time.monotonic() + SECONDS).run(lambda: "small", shared) == "small"
    left = next(number for number in range(1, 4) if number not in begun)
    callers[left].leave()
    until(lambda: ended == [-left])
    ends.set()
    for thread in threads:
        thread.join(SECONDS)
    assert len(begun) == 3 and len(ended) == 4 and turns._LONG_STEPS._free == 1 and shared._free == 2
