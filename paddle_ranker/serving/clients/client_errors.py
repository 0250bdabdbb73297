"""Errors of clients, and which of them a client retries."""

from __future__ import annotations

from typing import Callable, Optional, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from paddle_ranker.errors import RankerError

T = TypeVar("T")
LONGEST_WAIT = 30.0  # seconds; if a server asks for more, there is no retry


class ServerError(RankerError):
    """A server refused a request, failed, or could not be reached.

    code: error number or name in the server's protocol; None without an answer
    """

    def __init__(self, message: str, code: Optional[object] = None) -> None:
        super().__init__(message)
        self.code = code


class UnreachableError(ServerError):
    """The connection failed, or broke before the answer was complete.

    Requests for scores change nothing, so they are retried.
    """


class OverloadedError(ServerError):
    """The server is overloaded and has not begun the request.

    retry_after: seconds to wait, as the server demands; None if it does not say
    """

    def __init__(self, message: str, code: Optional[object] = None, retry_after: Optional[float] = None) -> None:
        super().__init__(message, code)
        self.retry_after = retry_after


class LateError(ServerError):
    """No answer came in time. `with_retries` does not retry, since a retry would make a busy server busier."""


class RefusedError(ServerError):
    """The server answered that the request is wrong, or that it failed itself."""


def with_retries(ask: Callable[[], T], retries: int, longest_wait: float = LONGEST_WAIT) -> T:
    """Call `ask` and return its result. After an error that may pass, call it again, at most `retries` times.

    Such errors are `UnreachableError`, and `OverloadedError` unless the server asks to wait longer than `longest_wait`.
    The wait between calls is the one that the server asks for, plus a random backoff. Raises the last call's error.
    """

    def is_retried(error: BaseException) -> bool:
        if isinstance(error, OverloadedError):
            return (error.retry_after or 0.0) <= longest_wait
        return isinstance(error, UnreachableError)

    retrying = Retrying(
        stop=stop_after_attempt(retries + 1),
        wait=retry_wait(0.1, 5.0),
        retry=retry_if_exception(is_retried),
        reraise=True,
    )
    return retrying(ask)


def retry_wait(shortest: float, longest: float) -> Callable[[RetryCallState], float]:
    """Return a wait function for `tenacity`: the seconds that the server asks for, plus a random backoff.

    shortest: maximum backoff in seconds before the first retry; the maximum doubles with each further retry
    longest: maximum backoff in seconds before any retry
    """
    backoff = wait_random_exponential(multiplier=shortest, max=longest)

    def seconds(state: RetryCallState) -> float:
        error: Optional[BaseException] = state.outcome.exception() if state.outcome else None
        retry_after = error.retry_after if isinstance(error, OverloadedError) else None
        return float(backoff(state)) + (retry_after or 0.0)

    return seconds
