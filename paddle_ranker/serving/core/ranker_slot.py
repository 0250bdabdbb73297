"""The ranker of a server: loaded, warmed up and seen to score as it should; its scores go through the shared queue."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker import __version__
from paddle_ranker.encoding.columns import Array, Columns
from paddle_ranker.errors import CheckpointError, DataError, InputError
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.scoring.loading import ScoringRanker, open_ranker
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.serving.core.batcher import Batcher, BatchObserver
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.faults import INVALID, NOT_FOUND, Fault
from paddle_ranker.serving.core.jobs import Texts
from paddle_ranker.serving.core.scores import Scores
from paddle_ranker.serving.core.slots import TOLERANCES, ServedModel, Slot, computed

_QUERIES = ("a", "search engine", "深度学习", "文化差异研究")
_TITLES = ("b", "how search engines rank documents", "深度学习在水稻病害诊断中的研究", "语言与文化差异的比较研究" * 8)


@dataclass(frozen=True)
class ServedRanker(ServedModel):
    """A ranker that answers.

    tokens: checks what comes as token arrays
    """

    model: ScoringRanker
    scorer: Scorer
    tokens: TokenInputs


class RankerSlot(Slot[ServedRanker]):
    """The `ScoringService` of a ranker: limits and texts are checked here, then the queue has them.

    Args:
        config: whose `model` is the ranker; None: requests are refused, this server has none.
    """

    def __init__(self, config: ServeConfig):
        super().__init__(config.limits, "ranker", config.model)
        self._config = config

    def load(self, observer: Optional[BatchObserver] = None) -> ServedRanker:
        """Load the ranker, run some shapes through it, and check its scores.

        Raises `CheckpointError` where it gives scores that are not numbers, that depend on a pair's neighbours, or that
        are not those that the export noted, and what `open_model` raises.
        """
        config = self._config
        assert config.model is not None
        model = open_ranker(config.model, config.load_options())
        scorer = Scorer(model.engine, model.row_encoder, config.batch_size, calibration=model.info.calibration)
        check(scorer, model, config.model)
        batcher = Batcher(
            scorer,
            scorer.encode,
            queue_rows=config.limits.queue_pairs,
            streams=config.streams,
            max_wait_us=config.max_wait_us,
            observer=observer,
        )
        name, tokens = config.model.resolve().name, TokenInputs(model)
        return ServedRanker(name, config.model, batcher, time.time(), model, scorer, tokens)

    def ready(self) -> ServedRanker:
        """Return the ranker. Raises `Fault` where there is none, or not yet."""
        if self.folder is None:
            raise Fault(NOT_FOUND, "this server has no ranker: start it with --model")
        return super().ready()

    @property
    def info(self) -> RankerInfo:
        """What the ranker is. Raises `Fault(UNAVAILABLE)` until it is loaded."""
        return self.ready().model.info

    def describe(self) -> dict[str, object]:
        """Return what `/info` shows of a ranker; the first names are those of Text Embeddings Inference."""
        served = self.ready()
        model, scorer = served.model, served.scorer
        calibration = model.info.calibration
        return {
            "model_id": served.name,
            "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
            "max_input_length": model.row_encoder.max_seq_length,
            "max_client_batch_size": self.limits.pairs,
            "auto_truncate": self.limits.auto_truncate,
            "version": __version__,
            "kind": model.info.kind,
            "calibrated": None if calibration is None else calibration.method,
            "loaded_at": served.loaded_at,
            "engine": model.engine.name,
            "precision": model.engine.precision,
            "tokenizer": model.row_encoder.backend,
            "batch_tokens": scorer.max_tokens,
            "batch_pairs": scorer.max_rows,
        }

    def pair_lengths(self, queries: Sequence[str], titles: Sequence[str]) -> tuple[Array, int]:
        """Return how many tokens each pair has before it is cut, `[n]` int64, and to how many it is cut.

        Of a blend, those of the member that cuts most.
        """
        encoder = self.ready().model.row_encoder
        lengths = [(member.whole_lengths(queries, titles), member.max_seq_length) for member in encoder.members]
        return max(lengths, key=lambda pair: int((pair[0] - pair[1]).max()))

    async def score_pairs(
        self, queries: Sequence[str], titles: Sequence[str], *, deadline: Optional[float] = None
    ) -> Scores:
        """Score (queries[i], titles[i]); see `ScoringService`."""
        served = self.ready()
        if len(queries) != len(titles):
            raise Fault(INVALID, f"{len(queries)} queries and {len(titles)} titles: there must be one for each")
        self.limits.check_pairs(len(titles), "title")
        texts = self.limits.scored_texts(queries, "query"), self.limits.scored_texts(titles, "title")
        return await self._score(served, len(titles), deadline, texts=texts)

    async def score_tokens(
        self, input_ids: Array, token_type_ids: Array, *, deadline: Optional[float] = None
    ) -> Scores:
        """Score `[n, length]` arrays; see `ScoringService`."""
        served = self.ready()
        for name, values in (("input_ids", input_ids), ("token_type_ids", token_type_ids)):
            if values.ndim != 2 or values.dtype.kind not in "iu":
                problem = f"is {values.dtype} {list(values.shape)}, expected integers of [pairs, tokens]"
                raise Fault(INVALID, problem, field=name)
        self.limits.check_pairs(len(input_ids), "input_ids")
        pairs = served.tokens.pairs(input_ids, token_type_ids)
        return await self._score(served, len(pairs), deadline, columns=pairs)

    async def _score(
        self,
        served: ServedRanker,
        size: int,
        deadline: Optional[float],
        *,
        texts: Optional[Texts] = None,
        columns: Optional[Columns] = None,
    ) -> Scores:
        job = await computed(served.batcher, size, self.deadline(deadline), texts=texts, columns=columns)
        logits = served.scorer.logits_in(job.outputs)
        return Scores(sigmoid(logits), logits, job.tokens)


def check(scorer: Scorer, model: ScoringRanker, folder: Path) -> None:
    """Score pairs of several lengths, alone and together; raises `CheckpointError` where a score is not right."""
    truncated = scorer.row_encoder.truncated
    pairs = scorer.encode(_QUERIES, _TITLES)
    together = scorer.logits(pairs)
    alone = np.concatenate([scorer.logits(pairs.take([row])) for row in range(len(pairs))])
    _warm_up(scorer)
    scorer.row_encoder.truncated = truncated  # no pair of a user's was cut
    if not (np.isfinite(together).all() and np.isfinite(alone).all()):
        raise CheckpointError(f"{folder}: the ranker gives scores that are not numbers; export it again")
    tolerance = TOLERANCES[model.engine.precision]
    gap = float(np.abs(sigmoid(together) - sigmoid(alone)).max())
    if gap > tolerance:
        raise CheckpointError(
            f"{folder}: a pair's probability differs by {gap:.2g} between the pair alone and in a batch (allowed: "
            f"{tolerance:g}); run python -m paddle_ranker doctor"
        )
    noted_in_fp32 = (model.info.export or {}).get("checks", [])
    checks = noted_in_fp32 if model.engine.precision == "fp32" else []
    for number, noted in enumerate(checks):
        try:
            ids, types = np.array([noted["input_ids"]], np.int64), np.array([noted["token_type_ids"]], np.int64)
            expected = float(noted["probability"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder}: ranker.json is damaged (export.checks[{number}])") from error
        outputs = model.engine.run({"input_ids": ids, "token_type_ids": types})
        gap = abs(float(sigmoid(scorer.logits_in(outputs))[0]) - expected)
        if not gap <= tolerance:
            raise CheckpointError(
                f"{folder}: a pair's probability is {gap:.2g} from the {expected:.6f} that was noted at its export "
                f"(allowed: {tolerance:g}): the files are not of one export; copy the folder again"
            )


def _warm_up(scorer: Scorer) -> None:
    """Compute a full batch of the longest pairs, and one of short ones: memory is taken and kernels are made now."""
    longest = scorer.encode([_TITLES[-1] * 40], [_TITLES[-1] * 40])
    rows = max(1, min(scorer.max_rows, scorer.max_tokens // int(longest.lengths[0])))
    scorer.logits(longest.take([0] * rows))
    short = scorer.encode(_QUERIES[:1], _TITLES[:1])
    scorer.logits(short.take([0] * min(scorer.max_rows, scorer.max_tokens // int(short.lengths[0]))))


class TokenInputs:
    """Check token arrays and turn them into pairs."""

    def __init__(self, model: ScoringRanker):
        self._limits, self._encoder = model.engine.limits, model.row_encoder

    def pairs(self, input_ids: Array, token_type_ids: Array) -> Columns:
        """Return `[n, length]` arrays as pairs; raises `Fault(INVALID)`, which names the place, where they are none."""
        try:
            arrays = self._limits.check({"input_ids": input_ids, "token_type_ids": token_type_ids})
            return self._encoder.given(**arrays)
        except InputError as error:
            raise Fault(INVALID, error.problem, field=error.field) from error
        except DataError as error:
            raise Fault(INVALID, str(error)) from error
