"""Rank all titles with a small model, then rerank the best titles of each query with a large one.

Most titles of a query are plainly irrelevant, and a small ranker detects this at a fraction of a large ranker's cost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from paddle_ranker.array_types import Array
from paddle_ranker.errors import UsageError, quoted
from paddle_ranker.scoring.ranker import RankedTitle, Ranker, best_titles, require_cut
from paddle_ranker.scoring.texts import list_texts, require_count, require_text

DEPTH = 20  # default number of titles of a query that the large ranker scores

Precision = Union[type[np.float32], type[np.float64]]


def parse_cascade(text: str) -> tuple[str, int]:
    """Parse `PATH:DEPTH`, or `PATH` with the default depth 20, to the small ranker's path and the depth."""
    match = re.fullmatch(r"([^:].*?)(?::(-?\d+))?", text)
    depth = DEPTH if match is None or match[2] is None else int(match[2])
    if match is None or depth < 1:
        raise UsageError(
            f"{quoted(text)} is no cascade: give SMALL_RANKER:TITLES, as in small:20, with at least 1 title"
        )
    return match[1], depth


def chosen(small: Array, depth: int) -> Array:
    """Return the indices of the `depth` best scores of one query, ascending by index.

    small: the small ranker's scores of the query's titles, `[n]`
    """
    return np.sort(np.argsort(-small, kind="stable")[:depth])


def rerank(small: Array, best: Array, large: Array, precision: Precision = np.float64) -> tuple[Array, Array]:
    """Merge both rankers' scores of one query; return the titles' indices, best first, and their scores, `[n]` each.

    The titles in `best` come first, by descending `large` score. The others follow by descending `small` score. If
    a `small` score is not below the preceding score, the next number below that score replaces it, so that scores
    descend. Titles with equal scores keep their order in the input.

    Args:
        small: the small ranker's scores of all titles, `[n] float64`.
        best: indices of the titles that the large ranker scored, `[k]`.
        large: the large ranker's scores of these titles, `[k] float64`.
        precision: the type of the returned scores.
    """
    top = np.argsort(-large, kind="stable")
    is_rest = np.ones(len(small), bool)
    is_rest[best] = False
    rest = np.flatnonzero(is_rest)
    rest = rest[np.argsort(-small[rest], kind="stable")]
    scores = np.concatenate([large[top], small[rest]]).astype(precision)
    for place in range(max(1, len(best)), len(scores)):
        scores[place] = min(scores[place], np.nextafter(scores[place - 1], precision(-np.inf)))
    return np.concatenate([best[top], rest]), scores


def rerank_probabilities(small: Array, best: Array, large: Array) -> tuple[Array, Array]:
    """Rerank as `rerank` does, but return probabilities in single precision, as they are printed.

    Probabilities are at least 0, so several titles may have 0; they keep the small ranker's order.
    """
    order, probabilities = rerank(small, best, large, np.float32)
    return order, np.maximum(probabilities, np.float32(0))


class Cascade:
    """Cascade of two rankers: the small one ranks all titles, the large one reranks the best of them.

        cascade = Cascade(Ranker.load("large"), Ranker.load("small"), depth=20)
        cascade.rank("query", titles, top_k=10)

    Args:
        large: ranker that scores the best titles of each query.
        small: ranker that scores all titles.
        depth: number of titles of a query that the large ranker scores.

    A title that the large ranker scored has the large ranker's probability, which depends only on the pair. Any other
    title has the small ranker's probability, lowered if necessary to stay below the probabilities of higher titles.
    """

    def __init__(self, large: Ranker, small: Ranker, depth: int = DEPTH):
        require_count(depth, "depth")
        self.large, self.small, self.depth = large, small, depth

    @classmethod
    def load(  # type: ignore[explicit-any]  # each argument of `Ranker.load` has its own type
        cls, large: Union[str, Path], small: Union[str, Path], depth: int = DEPTH, **arguments: Any
    ) -> Cascade:
        """Load both rankers; `arguments` are those of `Ranker.load`, used for both."""
        return cls(Ranker.load(large, **arguments), Ranker.load(small, **arguments), depth)

    def rank(
        self,
        query: str,
        titles: Iterable[str],
        top_k: Optional[int] = None,
        *,
        min_probability: Optional[float] = None,
    ) -> list[RankedTitle]:
        """Return the titles in the cascade's order, with probabilities that never increase.

        Args:
            top_k: return at most this many titles.
            min_probability: return only titles with at least this probability.

        Raises `UsageError` as `Ranker.rank` does.
        """
        require_cut(top_k, min_probability)
        query, titles = require_text(query, "query"), list_texts(titles, "titles")
        small = self.small.score([query] * len(titles), titles)
        best = chosen(small, self.depth)
        large = self.large.score([query] * len(best), [titles[place] for place in best])
        order, probabilities = rerank_probabilities(small, best, large)
        return best_titles(titles, order, probabilities, top_k, min_probability)
