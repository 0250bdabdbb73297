"""A trained ranker in a few lines of Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import numpy as np

from paddle_ranker.model_folder import RankerInfo, RankerParts, load_ranker
from paddle_ranker.runtime import select_device
from paddle_ranker.scorer import DygraphEngine, Scorer


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

    The probability of a pair depends on that pair alone.
    """

    def __init__(self, parts: RankerParts, batch_size: int = 32):
        self.info: RankerInfo = parts.info
        self.pair_encoder = parts.pair_encoder
        self.scorer = Scorer(DygraphEngine(parts.network), parts.pair_encoder, batch_size)

    @classmethod
    def load(
        cls,
        source: Union[str, Path],
        *,
        device: str = "cpu",
        model_name: Optional[str] = None,
        max_seq_length: Optional[int] = None,
        batch_size: int = 32,
        tokenizer: str = "auto",
    ) -> Ranker:
        """Load a model folder (or the parameter file in it).

        Args:
            device: cpu, gpu, xpu or npu.
            model_name: the model whose configuration a bare parameter file takes.
            max_seq_length: tokens; default: what the ranker was trained with.
            batch_size: pairs of full length that are scored at once.
            tokenizer: a `PairEncoder` backend.

        Raises `CheckpointError` where anything the score depends on is missing.
        """
        select_device(device)
        parts = load_ranker(source, model_name=model_name, max_seq_length=max_seq_length, tokenizer=tokenizer)
        return cls(parts, batch_size)

    def score(self, queries: Sequence[str], titles: Sequence[str]) -> np.ndarray:
        """Return the probability of every (queries[i], titles[i]), `[n]` float64."""
        return self.scorer.score(queries, titles)

    def rank(self, query: str, titles: Sequence[str], top_k: Optional[int] = None) -> list[RankedTitle]:
        """Return the titles by falling probability, ties in the order given; `top_k`: only so many."""
        probabilities = self.score([query] * len(titles), titles)
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        return [RankedTitle(int(i), titles[i], float(probabilities[i])) for i in best]
