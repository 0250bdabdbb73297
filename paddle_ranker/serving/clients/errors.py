"""What can go wrong between a client and a server."""

from __future__ import annotations

from typing import Optional

from paddle_ranker.errors import RankerError


class ServerError(RankerError):
    """A server did not answer with scores; `code` is the protocol's own number or name, None where there is none."""

    def __init__(self, message: str, code: Optional[object] = None) -> None:
        super().__init__(message)
        self.code = code


class UnreachableError(ServerError):
    """No connection, or one that broke before the answer was complete. Scoring changes nothing, so asking again is
    safe."""


class OverloadedError(ServerError):
    """The server has too much to do, and did not begin; `retry_after` seconds later it may have less."""

    def __init__(self, message: str, code: Optional[object] = None, retry_after: Optional[float] = None) -> None:
        super().__init__(message, code)
        self.retry_after = retry_after


class LateError(ServerError):
    """There was no answer in time. Asking again would make a busy server busier."""


class RefusedError(ServerError):
    """The server says that the request is wrong, or that it failed."""
