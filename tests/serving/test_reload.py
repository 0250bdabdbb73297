"""Reloads: one that hangs ends, one that is asked for during another comes after it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from paddle_ranker.errors import CheckpointError
from paddle_ranker.serving.core.faults import Fault
from paddle_ranker.serving.slots.reload import Reloader
from paddle_ranker.serving.slots.slots import Slots
from tests.serving_cases import SECONDS
from tests.started import until, until_in_loop

pytestmark = pytest.mark.unit


def test_a_reload_that_hangs_ends_and_the_next_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddle_ranker.serving.slots.reload._LOADING_SECONDS", 0.5)
    released, loads = threading.Event(), list[int]()

    def load(observer: object) -> object:
        loads.append(1)
        if len(loads) == 1:
            released.wait()
        return SimpleNamespace(name="new", digest="", close=lambda: None)

    slot = MagicMock(folder="index", has_queue=False, load=load, switch=lambda model: None, model=None)
    slot.limits.deadline_seconds = 1.0
    metrics, log = MagicMock(), SimpleNamespace(write=lambda *given, **named: None)

    async def twice() -> Any:
        reloader = Reloader(Slots({"index": cast(Any, slot)}), cast(Any, metrics), cast(Any, log), lambda models: None)
        with pytest.raises(Fault, match=r"not loaded within 0.5 s"):
            await reloader.reload()
        assert reloader.is_busy
        monkeypatch.setattr("paddle_ranker.serving.slots.reload._LOADING_SECONDS", 60.0)
        return await reloader.reload()

    try:
        assert asyncio.run(twice())["status"] == "switched"
    finally:
        released.set()


class _Stuck:
    """A slot whose model is loaded once the test lets it."""

    folder, has_queue = Path("a folder"), False

    def __init__(self) -> None:
        self.begun, self.gate, self.loads = threading.Event(), threading.Event(), 0

    def load(self, observer: object) -> object:
        self.loads += 1
        self.begun.set()
        assert self.gate.wait(SECONDS)
        raise CheckpointError("damaged")


def test_a_load_that_does_not_end_is_known_though_nobody_waits_for_it() -> None:
    slot: Any = _Stuck()
    anything: Any = MagicMock()

    async def stopped(reloader: Reloader) -> None:
        asking = asyncio.ensure_future(reloader.reload())
        await until_in_loop(slot.begun.is_set)
        asking.cancel()  # its caller leaves, and then the server stops

    reloader = Reloader(Slots({"index": slot}), anything, anything, anything)
    asyncio.run(stopped(reloader))
    assert reloader.is_busy  # so the process ends without a wait for the thread
    slot.gate.set()
    until(lambda: not reloader.is_busy)


def test_who_signals_during_a_load_gets_another_one() -> None:
    """What is being loaded may have been read before the files were replaced."""
    slot: Any = _Stuck()
    anything: Any = MagicMock()

    async def asked(reloader: Reloader) -> None:
        reloader.reload_soon()
        await until_in_loop(slot.begun.is_set)
        reloader.reload_soon()
        reloader.reload_soon()
        slot.gate.set()
        await until_in_loop(lambda: not reloader._reloads)

    asyncio.run(asked(Reloader(Slots({"index": slot}), anything, anything, anything)))
    assert slot.loads == 2
