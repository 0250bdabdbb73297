"""A service that counts and logs what is asked of it: for protocols whose requests pass no gate of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Optional

import numpy as np

from paddle_ranker.ranker_info import RankerInfo
from paddle_ranker.serving.faults import INTERNAL, Fault
from paddle_ranker.serving.limits import Limits
from paddle_ranker.serving.logs import JsonLog
from paddle_ranker.serving.metrics import Metrics
from paddle_ranker.serving.scores import Scores, ScoringService


class CountedService:
    """Ask `service`, and note each request under `protocol`.

    Args:
        log: None: requests are not logged.
        log_texts: with their texts.
    """

    def __init__(
        self,
        service: ScoringService,
        protocol: str,
        metrics: Metrics,
        *,
        log: Optional[JsonLog] = None,
        log_texts: bool = False,
    ):
        self._service, self._protocol, self._metrics = service, protocol, metrics
        self._log, self._log_texts = log, log_texts

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
        texts = {"queries": list(queries), "titles": list(titles)} if self._log_texts else None
        return await self._counted(self._service.score_pairs(queries, titles, deadline=deadline), len(titles), texts)

    async def score_tokens(
        self, input_ids: np.ndarray, token_type_ids: np.ndarray, *, deadline: Optional[float] = None
    ) -> Scores:
        """See `ScoringService`."""
        scoring = self._service.score_tokens(input_ids, token_type_ids, deadline=deadline)
        return await self._counted(scoring, len(input_ids), None)

    async def _counted(self, scoring: Coroutine[Any, Any, Scores], pairs: int, texts: Optional[object]) -> Scores:
        began = time.perf_counter()
        outcome = "ok"
        try:
            return await scoring
        except Fault as fault:
            outcome = fault.kind.name
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception:
            outcome = INTERNAL.name
            raise
        finally:
            seconds = time.perf_counter() - began
            self._metrics.request(self._protocol, outcome, seconds)
            if self._log is not None:
                milliseconds = round(1000 * seconds, 3)
                self._log.write(
                    "request",
                    protocol=self._protocol,
                    outcome=outcome,
                    milliseconds=milliseconds,
                    pairs=pairs,
                    texts=texts,
                )
