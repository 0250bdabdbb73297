"""A trained ranker in a few lines of Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from paddle_ranker.encoding.windows import make_windows
from paddle_ranker.errors import UsageError
from paddle_ranker.model.info import RankerInfo
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.scoring.loading import LoadedModel, open_ranker
from paddle_ranker.scoring.scorer import Scorer


@dataclass(frozen=True)
class RankedTitle:
    """A title in a ranked list: its place in what was given, its text, its probability, and its recall score if any."""

    index: int
    title: str
    probability: float
    recall_score: Optional[float] = None


class Ranker:
    """Score and rank titles for a query.

        ranker = Ranker.load("checkpoint/best")
        ranker.rank("query", titles, top_k=10)

    The probability of a pair depends on that pair alone. It is calibrated where the ranker is (`info.calibration`);
    where not, it orders titles and need not be the share of relevant ones.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        batch_size: int = 32,
        *,
        windows: str = "none",
        window_overlap: Optional[int] = None,
        window_top_k: Optional[int] = None,
    ):
        self.info: RankerInfo = loaded.info
        self.pair_encoder = loaded.pair_encoder
        self.windows = make_windows(loaded.pair_encoder.max_seq_length, windows, window_overlap, window_top_k)
        self.scorer = Scorer(
            loaded.engine,
            loaded.pair_encoder,
            batch_size,
            calibration=loaded.info.calibration,
            windows=self.windows,
        )

    @classmethod
    def load(
        cls,
        source: Union[str, Path],
        *,
        batch_size: int = 32,
        windows: str = "none",
        window_overlap: Optional[int] = None,
        window_top_k: Optional[int] = None,
        **how: Any,
    ) -> Ranker:
        """Load a model folder (or the parameter file in it), or the folder of an exported ranker.

        Args:
            batch_size: pairs of full length that are scored at once.
            windows: what becomes of pairs that are too long: none, they are cut; max or mean_top_k, see
                `paddle_ranker.encoding.windows`, as for `window_overlap` and `window_top_k`.
            how: the fields of `LoadOptions`: engine (onnx and openvino need no Paddle, and start in less time),
                precision, threads, device, model_name, max_seq_length, tokenizer.

        Raises `CheckpointError` where anything the score depends on is missing, `UsageError` for impossible windows and
        for a precision that is not there, `DependencyError` where the engine's package is missing.
        """
        loaded = open_ranker(source, LoadOptions(**how))
        return cls(loaded, batch_size, windows=windows, window_overlap=window_overlap, window_top_k=window_top_k)

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
        """Return the probability of every (queries[i], titles[i]), `[n]` float64."""
        return self.scorer.score(queries, titles)

    def rank(
        self,
        query: str,
        titles: Sequence[str],
        top_k: Optional[int] = None,
        *,
        min_probability: Optional[float] = None,
    ) -> list[RankedTitle]:
        """Return the titles by falling probability, ties in the order given.

        Args:
            top_k: only so many.
            min_probability: only those with at least this probability.
        """
        require_probability(min_probability)
        probabilities = self.score([query] * len(titles), titles)
        order = np.argsort(-probabilities, kind="stable")
        return best_titles(titles, order, probabilities[order], top_k, min_probability)


def best_titles(
    titles: Sequence[str],
    order: np.ndarray,
    probabilities: np.ndarray,
    top_k: Optional[int],
    min_probability: Optional[float],
) -> list[RankedTitle]:
    """Return the beginning of a ranked list: `top_k` titles at most, with at least `min_probability`.

    Args:
        order: places in `titles`, `[n]`, the best first.
        probabilities: of the titles in that order, `[n]`.
    """
    return [
        RankedTitle(int(place), titles[place], float(probability))
        for place, probability in zip(order[:top_k], probabilities)
        if min_probability is None or probability >= min_probability
    ]


def require_probability(min_probability: Optional[float]) -> None:
    """Raise `UsageError` for a cut-off that is no probability; None is no cut-off."""
    if min_probability is not None and not 0 <= min_probability <= 1:
        raise UsageError(f"min_probability {min_probability}: must be from 0 to 1")
