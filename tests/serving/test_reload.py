"""A reload that hangs ends, and the next one works."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from paddle_ranker.serving.core.faults import Fault
from paddle_ranker.serving.core.reload import Reloadable, Reloader

pytestmark = pytest.mark.unit


def test_a_reload_that_hangs_ends_and_the_next_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddle_ranker.serving.core.reload._LOADING_SECONDS", 3.0)
    released, loads = threading.Event(), list[int]()

    def load(observer: object) -> object:
        loads.append(1)
        if len(loads) == 1:
            released.wait()
        return SimpleNamespace(name="new", close=lambda: None)

    slot = SimpleNamespace(folder="index", load=load, switch=lambda model: None, check_beside=lambda *given: None)
    metrics, log = SimpleNamespace(reload=lambda ok: None), SimpleNamespace(write=lambda *given, **named: None)

    async def twice() -> Any:
        reloader = Reloader([Reloadable(cast(Any, slot), None)], cast(Any, metrics), cast(Any, log))
        with pytest.raises(Fault, match=r"not loaded within 3 s"):
            await reloader.reload()
        assert reloader.is_busy
        return await reloader.reload()

    try:
        assert asyncio.run(twice())["status"] == "switched"
    finally:
        released.set()
