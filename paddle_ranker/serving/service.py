"""The server's scores: limits and texts are checked here, then the batching queue has them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Optional

import numpy as np

from paddle_ranker.calibration import sigmoid
from paddle_ranker.ranker_info import RankerInfo
from paddle_ranker.serving.faults import INVALID, TIMED_OUT, TOO_LARGE, UNAVAILABLE, Fault
from paddle_ranker.serving.jobs import Job
from paddle_ranker.serving.limits import Limits
from paddle_ranker.serving.models import ServedModel
from paddle_ranker.serving.scores import Scores

_LOAD_SECONDS = 5.0  # after which a caller may ask again while the model is loaded


class EngineService:
    """The `ScoringService` of a loaded ranker; to be used in one event loop.

    Attributes: `limits`; `model`, None until `switch` gives one.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self.model: Optional[ServedModel] = None

    @property
    def info(self) -> RankerInfo:
        """What the ranker is. Raises `Fault(UNAVAILABLE)` until it is loaded."""
        return self._ready().loaded.info

    def switch(self, model: Optional[ServedModel]) -> Optional[ServedModel]:
        """Give every request from now on to `model`, and return the one that was there before.

        That one has requests in its queue still: close its batcher outside the event loop.
        """
        previous, self.model = self.model, model
        return previous

    async def score_pairs(
        self, queries: Sequence[str], titles: Sequence[str], *, deadline: Optional[float] = None
    ) -> Scores:
        """Score (queries[i], titles[i]); see `ScoringService`."""
        model = self._ready()
        if len(queries) != len(titles):
            raise Fault(INVALID, f"{len(queries)} queries and {len(titles)} titles: there must be one for each")
        self._check_size(len(titles), "titles")
        self._check_texts("query", queries)
        self._check_texts("title", titles)
        return await self._score(model, len(titles), deadline, texts=(queries, titles))

    async def score_tokens(
        self, input_ids: np.ndarray, token_type_ids: np.ndarray, *, deadline: Optional[float] = None
    ) -> Scores:
        """Score `[n, length]` arrays; see `ScoringService`."""
        model = self._ready()
        for name, values in (("input_ids", input_ids), ("token_type_ids", token_type_ids)):
            if values.ndim != 2 or values.dtype.kind not in "iu":
                problem = f"is {values.dtype} {list(values.shape)}, expected integers of [pairs, tokens]"
                raise Fault(INVALID, problem, field=name)
        self._check_size(len(input_ids), "input_ids")
        pairs = model.tokens.pairs(input_ids, token_type_ids)
        return await self._score(model, len(pairs), deadline, pairs=pairs)

    def _ready(self) -> ServedModel:
        if self.model is None:
            raise Fault(UNAVAILABLE, "the ranker is not loaded yet", retry_after=_LOAD_SECONDS)
        return self.model

    def _check_size(self, pairs: int, field: str) -> None:
        if not pairs:
            raise Fault(INVALID, "holds nothing to score", field=field)
        if pairs > self.limits.pairs:
            raise Fault(TOO_LARGE, f"holds {pairs:,}, at most {self.limits.pairs:,} are allowed", field=field)

    def _check_texts(self, name: str, texts: Sequence[str]) -> None:
        most = self.limits.characters
        previous: object = None
        for place, text in enumerate(texts):
            if text is previous:  # one query stands beside all of its titles
                continue
            if not isinstance(text, str):
                raise Fault(INVALID, f"is {type(text).__name__}, expected a text", field=f"{name}[{place}]")
            if len(text) > most:
                problem = f"has {len(text):,} characters, at most {most:,} are allowed"
                raise Fault(TOO_LARGE, problem, field=f"{name}[{place}]")
            previous = text

    async def _score(self, model: ServedModel, size: int, deadline: Optional[float], **given: object) -> Scores:
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        if deadline is None:
            deadline = now + self.limits.deadline_seconds
        if deadline <= now:
            raise Fault(TIMED_OUT, "the deadline passed before the request was read")
        answered: asyncio.Future[None] = loop.create_future()

        def finish() -> None:
            if not answered.done():
                answered.set_result(None)

        def done(_: Job) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(finish)

        job = Job(size, done, deadline=deadline, **given)  # type: ignore[arg-type]
        model.batcher.submit(job)
        timer = loop.call_later(deadline - now, finish)
        try:
            await answered
        finally:
            timer.cancel()
            if job.left:
                model.batcher.drop(job)
        if job.fault is not None:
            raise job.fault
        if job.left:
            raise Fault(TIMED_OUT, "the deadline passed before the pairs were scored")
        logits = np.array(job.logits)
        return Scores(sigmoid(logits), logits)
