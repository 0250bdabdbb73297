"""Which candidates become the negatives of a positive: a window of ranks, and guards against false negatives."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Protocol

import numpy as np

from paddle_ranker.metrics.ranking import Floats, Integers
from paddle_ranker.training.judgments import JudgedQuery, text_key

KNOWN, ITSELF, NEAR = "known answers", "the query itself", "scores too near the positive's"


class Index(Protocol):
    """What finds candidates."""

    def search(self, queries: Sequence[str], top: int) -> list[tuple[Integers, Floats]]:
        """Return, for each query, the numbers and scores of up to `top` titles, best first."""
        ...


class RandomTitles:
    """Draw titles without looking at the query but to seed the draw: what mined negatives must be better than."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed

    def search(self, queries: Sequence[str], top: int) -> list[tuple[Integers, Floats]]:
        """Return `top` different titles of each query, all with score 0."""
        count = min(top, self.size)
        draws = (random.Random(f"{self.seed}\t{query}").sample(range(self.size), count) for query in queries)
        return [(np.array(drawn, np.int64), np.zeros(count)) for drawn in draws]


@dataclass(frozen=True)
class Candidate:
    """A title that may become a negative; its probability where a ranker has scored it."""

    title: str
    probability: Optional[float] = None


@dataclass(frozen=True)
class Choice:
    """How negatives are chosen of a query's ranked candidates.

    negatives: most of one positive
    rank_from, rank_to: only candidates of these ranks, 1 is the best
    sample: `top`, the best of them, or `random`
    max_score_ratio, margin: leave out candidates whose probability is above that share of the positive's, or not that
        far below it: NV-Retriever's TopK-PercPos and TopK-MarginPos (de Souza P. Moreira et al., 2024)
    """

    negatives: int
    rank_from: int
    rank_to: int
    sample: str
    seed: int
    max_score_ratio: Optional[float] = None
    margin: Optional[float] = None

    def unknown(self, judged: JudgedQuery, titles: Sequence[str], counts: Counter[str]) -> list[str]:
        """Return the titles, in order, that nobody has called an answer to the query, and that are not the query."""
        kept, query = [], text_key(judged.query)
        for title in titles:
            key = text_key(title)
            if key in judged.answers:
                counts[KNOWN] += 1
            elif key == query:
                counts[ITSELF] += 1
            else:
                kept.append(title)
        return kept

    def window(self, ranked: Sequence[Candidate]) -> Sequence[Candidate]:
        """Return the candidates from rank `rank_from` to rank `rank_to`."""
        return ranked[self.rank_from - 1 : self.rank_to]

    def choose(
        self,
        query: str,
        positive: Candidate,
        window: Sequence[Candidate],
        counts: Counter[str],
    ) -> list[Candidate]:
        """Return the negatives of one positive; the draw depends on the seed, the query and the positive alone."""
        allowed = [candidate for candidate in window if self._far_below(positive, candidate)]
        counts[NEAR] += len(window) - len(allowed)
        if self.sample == "top" or len(allowed) <= self.negatives:
            return allowed[: self.negatives]
        return random.Random(f"{self.seed}\t{query}\t{positive.title}").sample(allowed, self.negatives)

    def _far_below(self, positive: Candidate, candidate: Candidate) -> bool:
        if positive.probability is None or candidate.probability is None:
            return True
        limit = positive.probability
        if self.max_score_ratio is not None:
            limit = min(limit, self.max_score_ratio * positive.probability)
        if self.margin is not None:
            limit = min(limit, positive.probability - self.margin)
        return candidate.probability <= limit
