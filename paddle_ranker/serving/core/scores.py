"""What every protocol asks for scores, and the count and log line of a request where no middleware makes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Callable, NamedTuple, Optional, Protocol

from paddle_ranker.encoding.columns import Array
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.serving.core.faults import INTERNAL, Fault
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics


class Scores(NamedTuple):
    """Of every pair its probability and its logit (calibrated where the ranker is), `[n]` float64 each.

    tokens: that were computed for all of them, special tokens too
    """

    probabilities: Array
    logits: Array
    tokens: int = 0


class ScoringService(Protocol):
    """Score pairs; to be awaited in the server's event loop, whatever the number of callers.

    Attributes: `info`, what the ranker is; `limits`, what a request may ask for.
    """

    @property
    def info(self) -> RankerInfo: ...

    @property
    def limits(self) -> Limits: ...

    async def score_pairs(
        self, queries: Sequence[str], titles: Sequence[str], *, deadline: Optional[float] = None
    ) -> Scores:
        """Score (queries[i], titles[i]).

        Args:
            deadline: when, on `time.monotonic()`'s clock, nobody waits for the answer any more.

        Raises `Fault`: over a limit, overloaded, too late, or not ready. Cancelled, it takes its pairs off the queue.
        """
        ...

    async def score_tokens(
        self, input_ids: Array, token_type_ids: Array, *, deadline: Optional[float] = None
    ) -> Scores:
        """Score pairs given as int64 `[n, length]` ids and token types, padded with the ranker's own padding id.

        Raises as `score_pairs` does; `Fault(INVALID)` for an id or a token type that the ranker does not have, and
        for pairs longer than its positions.
        """
        ...


# Makes of a service what one request asks for scores: entered when the request is there, left when it is answered, with
# the fault where that is the answer. `contextlib.nullcontext` counts nothing.
Counting = Callable[[ScoringService], AbstractContextManager[ScoringService]]


class CountedRequest:
    """What one request asks for scores. Left, it counts the request under `protocol` and writes its line in the log.

    Args:
        log: None: requests are not logged.
        log_texts: with their texts.
    """

    def __init__(
        self,
        service: ScoringService,
        *,
        protocol: str,
        metrics: Metrics,
        log: Optional[JsonLog] = None,
        log_texts: bool = False,
    ):
        self._service, self._protocol, self._metrics = service, protocol, metrics
        self._log, self._log_texts = log, log_texts
        self._pairs: Optional[int] = None
        self._texts: Optional[dict[str, list[str]]] = None
        self._began = 0.0

    def __enter__(self) -> ScoringService:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        seconds, outcome = time.perf_counter() - self._began, _outcome(error)
        self._metrics.request(self._protocol, outcome, seconds)
        if self._log is not None:
            self._log.write(
                "request",
                protocol=self._protocol,
                outcome=outcome,
                milliseconds=round(1000 * seconds, 3),
                pairs=self._pairs,
                texts=self._texts,
            )

    @property
    def info(self) -> RankerInfo:
        """See `ScoringService`."""
        return self._service.info

    @property
    def limits(self) -> Limits:
        """See `ScoringService`."""
        return self._service.limits

    async def score_pairs(
        self, queries: Sequence[str], titles: Sequence[str], *, deadline: Optional[float] = None
    ) -> Scores:
        """See `ScoringService`."""
        self._pairs = len(titles)
        if self._log_texts:
            self._texts = {"queries": list(queries), "titles": list(titles)}
        return await self._service.score_pairs(queries, titles, deadline=deadline)

    async def score_tokens(
        self, input_ids: Array, token_type_ids: Array, *, deadline: Optional[float] = None
    ) -> Scores:
        """See `ScoringService`."""
        self._pairs = len(input_ids)
        return await self._service.score_tokens(input_ids, token_type_ids, deadline=deadline)


def _outcome(error: Optional[BaseException]) -> str:
    if error is None:
        return "ok"
    if isinstance(error, Fault):
        return error.kind.name
    return "cancelled" if isinstance(error, asyncio.CancelledError) else INTERNAL.name
