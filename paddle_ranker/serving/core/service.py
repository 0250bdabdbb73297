"""The server's scores: limits and texts are checked here, then the batching queue has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.serving.core.faults import INVALID, NOT_FOUND, Fault
from paddle_ranker.serving.core.limits import Limits
from paddle_ranker.serving.core.model_slot import ModelSlot, computed_job
from paddle_ranker.serving.core.models import ServedModel
from paddle_ranker.serving.core.scores import Scores


class EngineService(ModelSlot[ServedModel]):
    """The `ScoringService` of a loaded ranker; to be used in one event loop.

    Args:
        limits: of requests.
        is_served: False: this server has no ranker, and requests are refused.

    Attributes: `limits`, `is_served`; `model`, None until `switch` gives one.
    """

    def __init__(self, limits: Limits, *, is_served: bool = True):
        super().__init__(limits, "ranker")
        self.is_served = is_served

    @property
    def info(self) -> RankerInfo:
        """What the ranker is. Raises `Fault(UNAVAILABLE)` until it is loaded."""
        return self.ready().loaded.info

    def pair_lengths(self, queries: Sequence[str], titles: Sequence[str]) -> tuple[np.ndarray, int]:
        """Return how many tokens each pair has before it is cut, `[n]` int64, and to how many it is cut.

        Of a blend, those of the member that cuts most.
        """
        encoder = self.ready().loaded.pair_encoder
        lengths = [(member.whole_lengths(queries, titles), member.max_seq_length) for member in encoder.members]
        return max(lengths, key=lambda pair: int((pair[0] - pair[1]).max()))

    async def score_pairs(
        self, queries: Sequence[str], titles: Sequence[str], *, deadline: Optional[float] = None
    ) -> Scores:
        """Score (queries[i], titles[i]); see `ScoringService`."""
        model = self.ready()
        if len(queries) != len(titles):
            raise Fault(INVALID, f"{len(queries)} queries and {len(titles)} titles: there must be one for each")
        self.limits.check_pairs(len(titles), "title")
        texts = self.limits.scored_texts(queries, "query"), self.limits.scored_texts(titles, "title")
        return await self._score(model, len(titles), deadline, texts=texts)

    async def score_tokens(
        self, input_ids: np.ndarray, token_type_ids: np.ndarray, *, deadline: Optional[float] = None
    ) -> Scores:
        """Score `[n, length]` arrays; see `ScoringService`."""
        model = self.ready()
        for name, values in (("input_ids", input_ids), ("token_type_ids", token_type_ids)):
            if values.ndim != 2 or values.dtype.kind not in "iu":
                problem = f"is {values.dtype} {list(values.shape)}, expected integers of [pairs, tokens]"
                raise Fault(INVALID, problem, field=name)
        self.limits.check_pairs(len(input_ids), "input_ids")
        pairs = model.tokens.pairs(input_ids, token_type_ids)
        return await self._score(model, len(pairs), deadline, pairs=pairs)

    def ready(self) -> ServedModel:
        if not self.is_served:
            raise Fault(NOT_FOUND, "this server has no ranker: start it with --model")
        return super().ready()

    async def _score(self, model: ServedModel, size: int, deadline: Optional[float], **given: Any) -> Scores:
        job = await computed_job(model.batcher, size, self.deadline(deadline), **given)
        logits = np.array(job.logits)
        return Scores(sigmoid(logits), logits, job.tokens)
