"""Ask again where that is safe and helps."""

from __future__ import annotations

from typing import Callable, Optional, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from paddle_ranker.serving.clients.errors import OverloadedError, UnreachableError

T = TypeVar("T")
LONGEST_WAIT = 30.0  # seconds; a server that asks for more is not waited for
_backoff = wait_random_exponential(multiplier=0.1, max=5.0)


def asking_again(ask: Callable[[], T], retries: int) -> T:
    """Return what `ask` returns, calling it up to `retries` times more.

    Again after a connection that failed, and after "too much to do", as long as the server asks to wait; not after
    anything else. Raises what the last call raised.
    """
    retrying = Retrying(
        stop=stop_after_attempt(retries + 1), wait=_seconds, retry=retry_if_exception(_is_worth_it), reraise=True
    )
    return retrying(ask)


def _is_worth_it(error: BaseException) -> bool:
    if isinstance(error, OverloadedError):
        return (error.retry_after or 0.0) <= LONGEST_WAIT
    return isinstance(error, UnreachableError)


def _seconds(state: RetryCallState) -> float:
    error: Optional[BaseException] = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, OverloadedError) else None
    return float(_backoff(state)) + (asked or 0.0)
