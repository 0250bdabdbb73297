"""Interfaces by which protocols get scores and vectors from models, and the record of a request for metrics and log.

The record is for requests that do not come over HTTP, where the middleware counts and logs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Callable, NamedTuple, Optional, Protocol

from paddle_ranker.array_types import Array
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.tower import TowerInfo
from paddle_ranker.serving.core.faults import INTERNAL, Fault
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.logs import JsonLog
from paddle_ranker.serving.core.metrics import Metrics
from paddle_ranker.serving.slots.slots import Slots


class Scores(NamedTuple):
    """Scores of pairs. Both kinds are calibrated if the ranker is.

    probabilities, logits: of each pair, `[n]` float64
    tokens: number of tokens of all pairs together, including special tokens
    outputs: all outputs of the ranker, `[n, ...]` by name
    spans: the stages of the scoring, as (name, begin, end) on `time.monotonic()`'s clock
    """

    probabilities: Array
    logits: Array
    tokens: int = 0
    outputs: Mapping[str, Array] = {}
    spans: Sequence[tuple[str, float, float]] = ()


class ScoringService(Protocol):
    """Service that scores pairs. Await its methods in the server's event loop, any number of calls at once.

    Attributes:
        info: the ranker's description.
        limits: limits of requests.
    """

    @property
    def info(self) -> RankerInfo: ...

    @property
    def limits(self) -> Limits: ...

    async def score_pairs(
        self, queries: Sequence[str], titles: Sequence[str], *, deadline: Optional[float] = None
    ) -> Scores:
        """Return the scores of the pairs (queries[i], titles[i]).

        deadline: time on `time.monotonic()`'s clock after which the scores are useless; None: the limits' default

        Raises `Fault` if the request is invalid or above a limit, the queue is full, the deadline passes or no ranker
        is loaded. If cancelled, removes its pairs from the queue.
        """
        ...

    async def score_tokens(
        self, input_ids: Array, token_type_ids: Array, *, deadline: Optional[float] = None
    ) -> Scores:
        """Return the scores of encoded pairs: int64 `[n, length]` ids and token types, padded with the ranker's pad id.

        Raises the faults of `score_pairs`, and `Fault(INVALID)` for an id or a token type that the ranker does not have
        or for pairs longer than its positions.
        """
        ...


class TextVectors(NamedTuple):
    """Vectors of texts.

    vectors: `[n, size]` float32
    tokens: number of tokens of all texts together, including special tokens
    """

    vectors: Array
    tokens: int = 0


class VectorService(Protocol):
    """Service that computes vectors of texts. Await its methods in the server's event loop, any number at once.

    Attributes:
        info: the tower's description.
        limits: limits of requests.
    """

    @property
    def info(self) -> TowerInfo: ...

    @property
    def limits(self) -> Limits: ...

    async def vectors(
        self, texts: Sequence[str], *, is_query: bool = False, deadline: Optional[float] = None, field: str = "text"
    ) -> TextVectors:
        """Return the vectors of texts, as queries or as searched texts. Raises the faults of `score_pairs`.

        field: name of the request's field with the texts, for faults
        """
        ...

    async def token_vectors(
        self, input_ids: Array, token_type_ids: Array, *, deadline: Optional[float] = None
    ) -> TextVectors:
        """Return the vectors of encoded texts, int64 `[n, length]` each. Raises the faults of `score_tokens`."""
        ...


class CountedRequest:
    """Record of one request. When its block ends, the request is counted under `protocol` and logged.

    Args:
        slots: the server's slots, of whose lineup the request has a lease within the block; None: it takes no lease.
        log: log for the line; None: no line is written.
        log_texts: whether the line has the request's texts.
    """

    def __init__(
        self,
        *,
        protocol: str,
        metrics: Metrics,
        slots: Optional[Slots] = None,
        log: Optional[JsonLog] = None,
        log_texts: bool = False,
    ):
        self._protocol, self._metrics, self._slots = protocol, metrics, slots
        self._log, self._log_texts = log, log_texts
        self._lease = ExitStack()
        self._rows: Optional[int] = None
        self._texts: Optional[dict[str, list[str]]] = None
        self._fields: dict[str, object] = {}

    def __enter__(self) -> CountedRequest:
        self._began = time.perf_counter()
        if self._slots is not None:
            self._lease.enter_context(self._slots.lease())
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: object) -> None:
        self._lease.close()
        seconds, outcome = time.perf_counter() - self._began, _outcome(error)
        self._metrics.request(self._protocol, outcome, seconds)
        if self._log is not None:
            self._log.write(
                "request",
                protocol=self._protocol,
                outcome=outcome,
                milliseconds=round(1000 * seconds, 3),
                pairs=self._rows,
                texts=self._texts,
                **self._fields,
            )

    def note(self, rows: int, **texts: Sequence[str]) -> None:
        """Record the number of rows, and the texts by their name in the log."""
        self._rows = rows
        if self._log_texts and texts:
            self._texts = {name: list(column) for name, column in texts.items()}

    def describe(self, **fields: object) -> None:
        """Add fields to the line of the log, such as `request_bytes` and `answer_bytes`. The last value counts."""
        self._fields.update(fields)


# Returns a context manager for one request. It is entered when the request arrives, and left when it is answered, with
# the fault as exception if it is refused. `contextlib.nullcontext` counts nothing.
Counting = Callable[[], AbstractContextManager[Optional[CountedRequest]]]


def _outcome(error: Optional[BaseException]) -> str:
    if error is None:
        return "ok"
    if isinstance(error, Fault):
        return error.kind.name
    return "cancelled" if isinstance(error, asyncio.CancelledError) else INTERNAL.name
