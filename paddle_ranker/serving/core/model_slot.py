"""Where a service keeps the model that answers, and what all such services share."""

from __future__ import annotations

import time
from typing import Any, Generic, Optional, Protocol, TypeVar

from paddle_ranker.serving.core.batcher import Batcher
from paddle_ranker.serving.core.faults import UNAVAILABLE, Fault
from paddle_ranker.serving.core.limits import Limits

_LOAD_SECONDS = 5.0  # after which a caller may ask again while the model is loaded


class Served(Protocol):
    """A model that answers; `name` is how answers and `/info` call it."""

    @property
    def name(self) -> str: ...

    @property
    def batcher(self) -> Batcher[Any]: ...


M = TypeVar("M", bound=Served)


class ModelSlot(Generic[M]):
    """A service and its model; to be used in one event loop.

    Args:
        limits: of requests.
        what: the model is called in messages.

    Attributes: `limits`; `model`, None until `switch` gives one.
    """

    def __init__(self, limits: Limits, what: str):
        self.limits, self._what = limits, what
        self.model: Optional[M] = None

    @property
    def name(self) -> str:
        """What the model is called. Raises `Fault(UNAVAILABLE)` until it is loaded."""
        return self.ready().name

    @property
    def queued_pairs(self) -> int:
        """Pairs that wait for the model's engine; 0 without a model."""
        return 0 if self.model is None else self.model.batcher.queued_pairs

    def switch(self, model: Optional[M]) -> Optional[M]:
        """Give every request from now on to `model`, and return the one that was there before.

        That one has requests in its queue still: close its batcher outside the event loop.
        """
        previous, self.model = self.model, model
        return previous

    def ready(self) -> M:
        if self.model is None:
            raise Fault(UNAVAILABLE, f"the {self._what} is not loaded yet", retry_after=_LOAD_SECONDS)
        return self.model

    def deadline(self, stated: Optional[float]) -> float:
        """Return when nobody waits for an answer any more, on `time.monotonic()`'s clock: as stated, or the limit."""
        return time.monotonic() + self.limits.deadline_seconds if stated is None else stated
