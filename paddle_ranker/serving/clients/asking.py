"""POST to one URL, again where that may help: bounded answers, a deadline for each, waits as the answers ask."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Callable, NamedTuple, Optional

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_random_exponential

from paddle_ranker import __version__
from paddle_ranker.errors import UsageError, brief
from paddle_ranker.serving.clients.errors import (
    FailedError,
    LateError,
    OverloadedError,
    RefusedError,
    ServerError,
    UnreachableError,
)

_SAID = 300  # characters of what a server says of an error
_OVERLOADED = (429, 503)
_MAY_BE_OVER = {408, 425, 429, *range(500, 600)} - {501, 505}  # not implemented, no such version of HTTP
_backoff = wait_random_exponential(multiplier=0.5, max=30.0)


class Answer(NamedTuple):
    """The body and the headers of an answer with status 200."""

    content: bytes
    headers: Mapping[str, str]


class StoppedError(Exception):
    """Another request has failed, so that this one is not made (again)."""


@dataclass(frozen=True)
class Patience:
    """How long an answer is waited for, and how often it is asked for.

    timeout: seconds for an answer, from connecting to its last byte
    retries: further attempts
    deadline: seconds for all attempts, and the waits between them
    """

    timeout: float
    retries: int
    deadline: float


class Caller:
    """Posts JSON to one URL, several requests at a time, in an `async with`, of which there may be one after another.

    Proxies and certificates are those of the environment (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`). Redirects are
    not followed: the key is for this host alone.

    Args:
        key: sent as a bearer token; errors do not show it.
        clock, sleep: seconds that pass, and what waits for some; others in tests.

    Raises `UsageError` for a URL, a proxy or certificates that cannot be used.

    Attributes: `requests`, attempts so far; `retries`, how many of them were further ones; `stopping`, whether `stop`
    was called.
    """

    def __init__(
        self,
        url: str,
        patience: Patience,
        key: Optional[str] = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise UsageError(f"{brief(url.partition('?')[0])}: is no address ({error})") from error
        self._patience, self._key = patience, key
        self._clock, self._sleep = clock, sleep
        self._where = url.partition("?")[0]
        self.requests = self.retries = 0
        self.stopping = False
        self._answered = False
        self._quiet_until = clock()  # a server that asks one request to wait means the others, too

    async def __aenter__(self) -> Caller:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # else it logs every request where others log
        headers = {"Accept-Encoding": "identity", "User-Agent": f"paddle-ranker/{__version__}"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        self._stopped, self.stopping = asyncio.Event(), False  # an event belongs to its loop
        unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)  # the caller limits them
        try:
            # `_once` has one timeout, for all of a request.
            self._client = httpx.AsyncClient(headers=headers, verify=_certificates(), timeout=None, limits=unlimited)
        except (ImportError, ValueError, OSError) as error:
            problem = f"the environment's proxy or certificates cannot be used ({brief(str(error))})"
            raise UsageError(f"{problem}: correct HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, SSL_CERT_FILE") from error
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._client.aclose()

    def stop(self) -> None:
        """Make no further attempts: who waits to make one raises `StoppedError`; what is under way goes on."""
        self.stopping = True
        self._stopped.set()

    async def post(self, body: bytes, most: int) -> Answer:
        """Return the answer with status 200.

        Args:
            most: bytes that an answer may have.

        Raises `ServerError` for any other outcome, after further attempts where these may help: when the connection
        broke, the answer was late, or the server was overloaded or failed; `StoppedError` after `stop`.
        """
        end = self._clock() + self._patience.deadline
        retrying = AsyncRetrying(
            stop=lambda state: self._is_enough(state, end),
            wait=_seconds,
            retry=retry_if_exception(self._is_worth_it),
            before_sleep=self._count,
            sleep=self._rest,
            reraise=True,
        )
        try:
            return await retrying(self._once, body, most)
        except ServerError as error:
            attempts = retrying.statistics["attempt_number"]
            raise ServerError(f"{error} (attempt {attempts})" if attempts > 1 else str(error), error.code) from error

    def _is_enough(self, state: RetryCallState, end: float) -> bool:
        spent = state.attempt_number > self._patience.retries
        return spent or self.stopping or self._clock() + state.upcoming_sleep > end

    def _is_worth_it(self, error: BaseException) -> bool:
        if isinstance(error, UnreachableError):
            return self._answered or not error.refused
        return isinstance(error, (OverloadedError, LateError, FailedError))

    def _count(self, state: RetryCallState) -> None:
        self.retries += 1

    async def _rest(self, seconds: float) -> None:
        """Wait, at most until `stop` is called."""
        ends = [asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._stopped.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def _once(self, body: bytes, most: int) -> Answer:
        pause = self._quiet_until - self._clock()
        if pause > 0:
            await self._rest(pause)
        if self.stopping:
            raise StoppedError
        self.requests += 1
        try:
            return await asyncio.wait_for(self._exchange(body, most), self._patience.timeout)
        except asyncio.TimeoutError as error:
            message = f"{self._where}: no whole answer within {self._patience.timeout:g} seconds"
            raise LateError(message) from error
        except httpx.ConnectError as error:
            problem = f"{self._where}: nothing answers there ({shown(str(error), self._key)})"
            raise UnreachableError(f"{problem}: start the server, or correct the URL", refused=True) from error
        except httpx.TransportError as error:
            message = f"{self._where}: the connection broke ({shown(str(error) or type(error).__name__, self._key)})"
            raise UnreachableError(message) from error

    async def _exchange(self, body: bytes, most: int) -> Answer:
        headers = {"Content-Type": "application/json"}
        async with self._client.stream("POST", self._url, content=body, headers=headers) as answered:
            self._answered = True
            content = bytearray()
            async for part in answered.aiter_raw():
                content += part
                if len(content) > most:
                    break
        if answered.status_code != 200:
            raise self._error(answered, bytes(content[:most]))
        if len(content) > most:
            raise RefusedError(f"{self._where}: answers more than {most:,} bytes, which no scores of these titles need")
        if answered.headers.get("content-encoding", "identity") not in ("", "identity"):
            raise RefusedError(f"{self._where}: answers in an encoding that was not asked for")
        return Answer(bytes(content), answered.headers)

    def _error(self, answered: httpx.Response, content: bytes) -> ServerError:
        status = answered.status_code
        said = shown(content.decode("utf-8", "replace"), self._key)
        message = f"{self._where}: status {status}: {said or 'nothing was said'}"
        if status in _MAY_BE_OVER:
            after = _retry_after(answered.headers.get("retry-after", ""))
            if after is None and status not in _OVERLOADED:
                return FailedError(message, status)
            if after is not None:
                self._quiet_until = max(self._quiet_until, self._clock() + min(after, self._patience.deadline))
                message += f" (to be asked again after {after:g} seconds)"
            return OverloadedError(message, status, after)
        if 300 <= status < 400:
            to = shown(answered.headers.get("location", ""), self._key)
            return RefusedError(
                f"{self._where}: status {status}, it moved to {to or 'another address'}: give that", status
            )
        smaller = "; a smaller --teacher_batch sends less" if status == 413 else ""
        return RefusedError(f"{message}{smaller}", status)


def shown(text: str, key: Optional[str]) -> str:
    """Return what a server said, for a message: in one line, without what a terminal obeys, without the key."""
    text = " ".join(text.split())
    if key is not None:
        text = text.replace(key, "[key]")
    return brief("".join(sign if sign.isprintable() else "?" for sign in text), _SAID)


@cache
def _certificates() -> ssl.SSLContext:
    """Return what servers' certificates are checked by; reading it takes a while."""
    return httpx.create_ssl_context()


def _retry_after(value: str) -> Optional[float]:
    """Return the seconds of a header `Retry-After`, which holds them or a date; None if it holds neither."""
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())


def _seconds(state: RetryCallState) -> float:
    error: Optional[BaseException] = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, OverloadedError) else None
    return float(_backoff(state)) + (asked or 0.0)
