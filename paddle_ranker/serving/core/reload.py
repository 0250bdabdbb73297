"""Reload models beside those that answer, and switch where the new ones pass their checks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from paddle_ranker.errors import RankerError
from paddle_ranker.serving.core.faults import Fault, FaultKind
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.core.model_slot import Served

NOT_SWITCHED = FaultKind("not_switched", 409, "FAILED_PRECONDITION", 2001)


@dataclass(frozen=True)
class Part:
    """A model of the server.

    folder: for messages
    load: returns it, warmed up and checked; called in a thread
    switch: gives requests to it, and returns the one before
    """

    folder: Path
    load: Callable[[], Served]
    switch: Callable[[Any], Optional[Served]]


class Reloader:
    """Load all models of a server in a thread, one at a time; to be used in one event loop."""

    def __init__(self, parts: Sequence[Part], metrics: Metrics, log: JsonLog):
        self._parts, self._metrics, self._log = parts, metrics, log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._loading = False

    async def load(self) -> None:
        """Load the first models. Raises what their `load` raises."""
        self._switch(await self._load())

    async def reload(self) -> dict[str, Any]:
        """Reload and switch; return what happened. Requests that wait in an old model's queue get its scores.

        Raises `Fault` where another load is under way, or a new model is not taken: the old ones go on then.
        """
        if self._loading:
            raise Fault(NOT_SWITCHED, "the model is being loaded already", retry_after=5.0)
        began = time.monotonic()
        folders = " and ".join(str(part.folder) for part in self._parts)
        try:
            models = await self._load()
        except Exception as error:
            reason = str(error) if isinstance(error, (RankerError, OSError)) else f"{type(error).__name__}: {error}"
            self._metrics.reload(False)
            self._log.write("reload", status="failed", model=folders, reason=reason)
            raise Fault(NOT_SWITCHED, f"the old model goes on: {reason}") from error
        previous = self._switch(models)
        self._metrics.reload(True)
        seconds = round(time.monotonic() - began, 3)
        self._log.write("reload", status="switched", model=folders, seconds=seconds)
        for model in previous:
            await asyncio.get_running_loop().run_in_executor(self._thread, model.batcher.close)
        return {"status": "switched", "model": " and ".join(model.name for model in models), "seconds": seconds}

    async def close(self, seconds: float) -> None:
        """Unload the models when their queues are empty, or after so many seconds."""
        closing = [
            asyncio.get_running_loop().run_in_executor(None, model.batcher.close, seconds)
            for model in self._switch([None] * len(self._parts))
        ]
        await asyncio.gather(*closing)
        self._thread.shutdown(wait=False)

    def _switch(self, models: Sequence[Optional[Served]]) -> list[Served]:
        previous = [part.switch(model) for part, model in zip(self._parts, models)]
        return [model for model in previous if model is not None]

    async def _load(self) -> list[Served]:
        self._loading = True
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._load_all)
        finally:
            self._loading = False

    def _load_all(self) -> list[Served]:
        loaded: list[Served] = []
        try:
            for part in self._parts:
                loaded.append(part.load())
        except BaseException:
            for model in loaded:  # their threads would never end
                model.batcher.close()
            raise
        return loaded
