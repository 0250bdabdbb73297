"""A ranker that is loaded, warmed up and seen to score as it should."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from paddle_ranker.encoding.columns import Columns
from paddle_ranker.errors import CheckpointError, DataError, InputError
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.scoring.loading import LoadedModel, open_ranker
from paddle_ranker.scoring.scorer import Scorer
from paddle_ranker.serving.core.batcher import Batcher, BatchObserver
from paddle_ranker.serving.core.config import ServeConfig
from paddle_ranker.serving.core.faults import INVALID, Fault

# In probability: of a pair alone and in a batch, and, in fp32, of what was noted at the export. The other precisions
# round in sums that a batch's shape puts in another order.
TOLERANCES = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 2e-3, "int8": 5e-2}
_QUERIES = ("a", "search engine", "深度学习", "文化差异研究")
_TITLES = ("b", "how search engines rank documents", "深度学习在水稻病害诊断中的研究", "语言与文化差异的比较研究" * 8)


@dataclass(frozen=True)
class ServedModel:
    """A ranker that answers.

    name: as `/info` and the answers show it
    tokens: checks what comes as token arrays
    """

    name: str
    folder: Path
    loaded: LoadedModel
    tokens: TokenInputs
    batcher: Batcher[Scorer]
    loaded_at: float  # seconds since 1970


def load_served_model(config: ServeConfig, observer: Optional[BatchObserver] = None) -> ServedModel:
    """Load the ranker of `config.model`, which it has, run some shapes through it, and check its scores.

    Raises `CheckpointError` where it gives scores that are not numbers, that depend on a pair's neighbours, or that are
    not those that the export noted, and what `load_model` raises.
    """
    assert config.model is not None
    loaded = open_ranker(config.model, config.load_options())
    scorer = Scorer(loaded.engine, loaded.pair_encoder, config.batch_size, calibration=loaded.info.calibration)
    check(scorer, loaded, config.model)
    batcher = Batcher(
        scorer,
        queue_pairs=config.limits.queue_pairs,
        streams=config.streams,
        max_wait_us=config.max_wait_us,
        observer=observer,
    )
    tokens = TokenInputs(loaded)
    return ServedModel(config.model.resolve().name, config.model, loaded, tokens, batcher, time.time())


def check(scorer: Scorer, loaded: LoadedModel, folder: Path) -> None:
    """Score pairs of several lengths, alone and together; raises `CheckpointError` where a score is not right."""
    truncated = scorer.pair_encoder.truncated
    pairs = scorer.encode(_QUERIES, _TITLES)
    together = scorer.logits(pairs)
    alone = np.concatenate([scorer.logits(pairs.take([row])) for row in range(len(pairs))])
    _warm_up(scorer)
    scorer.pair_encoder.truncated = truncated  # no pair of a user's was cut
    if not (np.isfinite(together).all() and np.isfinite(alone).all()):
        raise CheckpointError(f"{folder}: the ranker gives scores that are not numbers; export it again")
    tolerance = TOLERANCES[loaded.engine.precision]
    gap = float(np.abs(sigmoid(together) - sigmoid(alone)).max())
    if gap > tolerance:
        raise CheckpointError(
            f"{folder}: a pair's probability differs by {gap:.2g} between the pair alone and in a batch (allowed: "
            f"{tolerance:g}); run python -m paddle_ranker doctor"
        )
    noted_in_fp32 = (loaded.info.export or {}).get("checks", [])
    checks = noted_in_fp32 if loaded.engine.precision == "fp32" else []
    for number, noted in enumerate(checks):
        try:
            ids, types = (np.array([noted[name]], np.int64) for name in ("input_ids", "token_type_ids"))
            expected = float(noted["probability"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder}: ranker.json is damaged (export.checks[{number}])") from error
        gap = abs(float(sigmoid(scorer.batch_logits({"input_ids": ids, "token_type_ids": types}))[0]) - expected)
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

    def __init__(self, loaded: LoadedModel):
        self._limits, self._encoder = loaded.engine.limits, loaded.pair_encoder

    def pairs(self, input_ids: np.ndarray, token_type_ids: np.ndarray) -> Columns:
        """Return `[n, length]` arrays as pairs; raises `Fault(INVALID)`, which names the place, where they are none."""
        try:
            arrays = self._limits.check({"input_ids": input_ids, "token_type_ids": token_type_ids})
            pairs: Columns = self._encoder.given(**arrays)
        except InputError as error:
            raise Fault(INVALID, error.problem, field=error.field) from error
        except DataError as error:
            raise Fault(INVALID, str(error)) from error
        return pairs
