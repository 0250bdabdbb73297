"""Base classes of the clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

from paddle_ranker.storage.closing import Closable

LARGEST_ANSWER = 256 * 1024 * 1024  # bytes; larger than any valid answer, small enough for the memory


class Client(Closable):
    """A client of one server. Use it in a `with` statement, or close it.

    Args:
        timeout: maximum seconds of one attempt, including connecting; over HTTP, of connecting and of each read.
            Requests state it as their deadline, but at most an hour.
        retries: further attempts if the connection fails or the server is overloaded.
        api_key: key to send; None: no key.

    Methods raise `ServerError`, a `RankerError`, if the server refuses, fails or cannot be reached.
    """

    _calls: Any  # an open connection, which `close` closes

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8600,
        *,
        timeout: float = 10.0,
        retries: int = 2,
        api_key: Optional[str] = None,
    ) -> None:
        self.host, self.port = host, port
        self.timeout, self.retries, self.api_key = timeout, retries, api_key

    @property
    def address(self) -> str:
        """The server's `host:port`, as errors show it."""
        return f"{self.host}:{self.port}"

    def close(self) -> None:
        """Close the connection."""
        self._calls.close()


class BatchClient(Client):
    """A client that splits long lists of pairs or texts into several requests.

    Args:
        batch_size: pairs or texts per request.
        options: keyword arguments of `Client`.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8600, *, batch_size: int = 32, **options: Any) -> None:
        super().__init__(host, port, **options)
        self.batch_size = batch_size

    def parts(self, count: int) -> Iterator[slice]:
        """Yield slices that divide `count` pairs or texts, one slice for each request."""
        return (slice(start, start + self.batch_size) for start in range(0, count, self.batch_size))
