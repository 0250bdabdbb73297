"""The registry of observers, which are told of each HTTP request once it is answered, with the times of its stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Optional, Protocol

from paddle_ranker.registry import Registry


class AnsweredRequest(NamedTuple):
    """An HTTP request that was answered, or refused.

    method, path: of the request; the path is None if it may have texts of users
    protocol, outcome: as in the log of requests
    status: the answer's status
    seconds: time from the request's arrival until now
    headers: the request's header fields, in lower case
    request_id, pairs: as in the log of requests
    spans: the stages of a search or of a scoring, each a name, its begin and its end on `time.monotonic()`'s clock
    """

    method: str
    path: Optional[str]
    protocol: str
    outcome: str
    status: int
    seconds: float
    headers: Mapping[bytes, bytes]
    request_id: str
    pairs: Optional[int]
    spans: Sequence[tuple[str, float, float]]


class Observer(Protocol):
    """Observer of answered requests. It is called in the server's event loop, so its methods must not wait."""

    def answered(self, request: AnsweredRequest) -> None: ...

    def close(self) -> None:
        """Send what is left; called once, in a thread, when the process ends."""
        ...


# Called in each process that serves; returns None if the process is not to be observed.
OBSERVERS: Registry[Callable[[], Optional[Observer]]] = Registry("observer of requests", recipes="plugin")


def open_observers() -> list[Observer]:
    OBSERVERS.load_plugins()
    return [observer for make in OBSERVERS.values() if (observer := make()) is not None]
