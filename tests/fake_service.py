"""A ScoringService without a ranker: what it answers is worked out from the request, so tests know it beforehand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.paddle_serving.messages import messages
from paddle_ranker.paddle_serving.served_models import Models
from paddle_ranker.serving.core.faults import INVALID, TIMED_OUT, Fault
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.slots.services import Scores

VOCABULARY = 100


def logit_of(query: str, title: str) -> float:
    """Return what the fake gives a pair: 0 for texts of the same length."""
    return (len(title) - len(query)) / 8


def logits_of_tokens(input_ids: np.ndarray, token_type_ids: np.ndarray) -> np.ndarray:
    """Return what the fake gives rows of tokens, `[n]`."""
    return np.asarray((input_ids - 10 * token_type_ids).mean(axis=1) / 8)


def text_request(query: str, titles: Sequence[str], **fields: Any) -> bytes:
    """Return a Request of texts."""
    request = messages().Request(**fields)
    request.tensor.add(name="query", elem_type=20, data=[query])
    request.tensor.add(name="title", elem_type=20, data=titles)
    return bytes(request.SerializeToString())


class FakeService(Models):
    """The models of a server, and its ranker. Score at once, or after `gate` is set; raise `failure` if it is set.

    Attributes: `calls`, pairs of each call; `cancelled`, calls that were cancelled; `deadlines`, as given.
    """

    def __init__(self, limits: Optional[Limits] = None) -> None:
        self.info = RankerInfo(kind="pairwise", max_seq_length=32, match_embeddings=False)
        self.limits = limits or Limits()
        self.calls: list[int] = []
        self.cancelled = 0
        self.waiting = 0
        self.deadlines: list[Optional[float]] = []
        self.gate: Optional[asyncio.Event] = None
        self.failure: Optional[Exception] = None
        super().__init__(self)

    async def score_pairs(
        self, queries: Sequence[str], titles: Sequence[str], *, deadline: Optional[float] = None
    ) -> Scores:
        logits = np.array([logit_of(query, title) for query, title in zip(queries, titles)], np.float64)
        return await self._answer(logits, deadline)

    async def score_tokens(
        self, input_ids: np.ndarray, token_type_ids: np.ndarray, *, deadline: Optional[float] = None
    ) -> Scores:
        assert input_ids.dtype == token_type_ids.dtype == np.int64
        if input_ids.min() < 0 or input_ids.max() >= VOCABULARY:
            raise Fault(INVALID, f"{int(input_ids.max())} is no id of the vocabulary", field="input_ids")
        return await self._answer(logits_of_tokens(input_ids, token_type_ids), deadline)

    async def _answer(self, logits: np.ndarray, deadline: Optional[float]) -> Scores:
        self.calls.append(len(logits))
        self.deadlines.append(deadline)
        if self.failure is not None:
            raise self.failure
        if self.gate is not None:
            self.waiting += 1
            try:
                timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
                await asyncio.wait_for(self.gate.wait(), timeout)
            except asyncio.TimeoutError:
                raise Fault(TIMED_OUT, "too late") from None
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.waiting -= 1
        return Scores(sigmoid(logits), logits)
