"""Load new models while the old ones answer, and switch to the new ones if all pass their checks."""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Callable, Optional, TypeVar

from paddle_ranker.errors import RankerError
from paddle_ranker.options import uncounted
from paddle_ranker.runtime import memory_given_back
from paddle_ranker.serving.core.faults import Fault, FaultKind
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.slots.slots import Lineup, Served, Slots

T = TypeVar("T")

_LETTING_GO_SECONDS = 10.0
_LOADING_SECONDS = 900.0  # a reload that takes longer is given up, since a network disk may hang
NOT_SWITCHED = FaultKind("not_switched", 409, "FAILED_PRECONDITION", 2001)


class Reloader:
    """Loader of all models of a server, one after another in a thread. Use it in one event loop only.

    Args:
        slots: slots of the server.
        fit: called in the thread with the new models of all slots before the switch, see `slot_kinds.fit_models`.
        on_loaded: called without arguments in the event loop after every load, successful or not.
        on_outcome: called in the event loop after every reload, with None, or with the reason why it failed.
    """

    def __init__(
        self,
        slots: Slots,
        metrics: Metrics,
        log: JsonLog,
        fit: Callable[[Sequence[Served]], None],
        on_loaded: Callable[[], None] = lambda: None,
        on_outcome: Callable[[Optional[str]], None] = lambda problem: None,
    ):
        self._all, self._slots, self._metrics, self._log = slots, [*slots.values()], metrics, log
        self._observers = [metrics.batches(name) if slot.has_queue else None for name, slot in slots.items()]
        self._fit, self._on_loaded, self._on_outcome = fit, on_loaded, on_outcome
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._running: list[Callable[[], bool]] = []  # several if a load hangs
        self._loading = self._is_wanted = False
        self._reloads: set[asyncio.Task[dict[str, object]]] = set()
        self._unloading: set[asyncio.Task[None]] = set()

    @property
    def is_busy(self) -> bool:
        """Whether the thread loads or unloads models now. It cannot be stopped, and Python waits for it at exit."""
        return not all(is_done() for is_done in self._running)

    async def load(self) -> None:
        """Load the models for the first time. Raises the errors of `Slot.load` and of `fit`."""
        self._switch(await self._load(self._load_all))
        self._go_on()

    async def reload(self) -> dict[str, object]:
        """Reload all models, switch to them and return the outcome, JSON-ready.

        Requests that are queued already get the old models' scores. If the call is cancelled, the reload still
        finishes.

        Raises `Fault` if another load is in progress, or if a new model cannot be served. The old models then stay.
        """
        if self._loading:
            raise Fault(NOT_SWITCHED, "the model is being loaded already", retry_after=5.0)
        return await asyncio.shield(self._begin())

    def reload_soon(self) -> None:
        """Reload all models once no load is in progress.

        A load in progress may have read files that are replaced by now.
        """
        self._is_wanted = True
        self._go_on()

    async def close(self, seconds: float) -> None:
        """Unload the models when their queues are empty, or after `seconds`."""
        self._is_wanted = False
        for unloading in self._unloading:
            unloading.cancel()
        closing = [
            asyncio.get_running_loop().run_in_executor(None, model.close, seconds)
            for model in self._switch([None] * len(self._slots))
        ]
        await asyncio.gather(*closing)
        self._thread.shutdown(wait=False)

    def _begin(self) -> asyncio.Task[dict[str, object]]:
        # In an empty context, since that of a request has a lease, which the end of the old models waits for.
        reloading = contextvars.Context().run(asyncio.ensure_future, self._reload())
        self._loading, self._is_wanted = True, False  # set now, because the task begins later
        self._reloads.add(reloading)
        reloading.add_done_callback(self._forget)
        return reloading

    def _go_on(self) -> None:
        if self._is_wanted and not self._loading:
            self._begin()

    def _forget(self, reloading: asyncio.Task[dict[str, object]]) -> None:
        self._reloads.discard(reloading)
        if not reloading.cancelled():
            reloading.exception()  # marks the error as retrieved, else asyncio prints it; the log has it
        self._go_on()

    async def _reload(self) -> dict[str, object]:
        began = time.monotonic()
        folders = " and ".join(str(slot.folder) for slot in self._slots)
        try:
            models, reason = await asyncio.wait_for(self._load(self._try_to_load), _LOADING_SECONDS)
        except asyncio.TimeoutError:  # the thread cannot be ended, so the next load gets a new one
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
            models, reason = [], f"it was not loaded within {_LOADING_SECONDS:g} s"
        if reason is not None:
            self._metrics.reload(False)
            self._log.write("reload", status="failed", model=folders, reason=reason)
            self._on_outcome(reason)
            raise Fault(NOT_SWITCHED, f"the old model goes on: {reason}")
        lineup = self._all.lineup
        previous = self._switch(models)
        self._metrics.reload(True)
        seconds = round(time.monotonic() - began, 3)
        self._log.write("reload", status="switched", model=folders, seconds=seconds, digest=self._all.lineup.digest)
        self._on_outcome(None)
        unloading = asyncio.ensure_future(self._unload(lineup, previous))
        self._unloading.add(unloading)
        unloading.add_done_callback(self._unloading.discard)
        return {"status": "switched", "model": " and ".join(model.name for model in models), "seconds": seconds}

    async def _unload(self, lineup: Lineup, models: list[Served]) -> None:
        """Unload the models of a lineup when no request uses them any more."""
        await lineup.dissolve(max(slot.limits.deadline_seconds for slot in self._slots) + _LETTING_GO_SECONDS)
        await self._in_thread(partial(_unload, models))

    def _switch(self, models: Sequence[Optional[Served]]) -> list[Served]:
        previous = [slot.switch(model) for slot, model in zip(self._slots, models)]
        self._metrics.models({name: slot.model.digest for name, slot in self._all.items() if slot.model is not None})
        return [model for model in previous if model is not None]

    async def _load(self, load: Callable[[], T]) -> T:
        self._loading = True
        try:
            return await self._in_thread(load)
        finally:
            self._loading = False
            self._on_loaded()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        running = self._thread.submit(work)
        self._running = [*(is_done for is_done in self._running if not is_done()), running.done]
        return await asyncio.wrap_future(running)

    def _try_to_load(self) -> tuple[list[Served], Optional[str]]:
        """Load the models. Return (models, None), or ([], message) after freeing the memory if one fails."""
        with memory_given_back():
            try:
                return self._load_all(), None
            except (RankerError, OSError) as error:
                return [], str(error)
            except Exception as error:
                return [], f"{type(error).__name__}: {error}"

    def _load_all(self) -> list[Served]:
        loaded: list[Served] = []
        try:
            for slot, observer in zip(self._slots, self._observers):
                with uncounted():
                    loaded.append(slot.load(observer))
                loaded[-1].digest  # noqa: B018  # reads the files now
            self._fit(loaded)
        except BaseException:
            for model in loaded:  # their threads would never end
                model.close()
            raise
        return loaded


def _unload(models: list[Served]) -> None:
    """Answer the requests in the models' queues, then free the models' memory.

    `models` must be the only reference to them.
    """
    with memory_given_back():
        alive = [weakref.ref(model) for model in models]
        while models:
            models.pop().close()
        end = time.monotonic() + _LETTING_GO_SECONDS
        # Answered requests hold references to the models until the event loop has finished them.
        while any(model() is not None for model in alive) and time.monotonic() < end:
            time.sleep(0.01)
