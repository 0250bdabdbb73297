"""How many of the right answers a search finds among its first k documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from paddle_ranker.errors import DataError
from paddle_ranker.metrics.ranking import Floats, Integers

CUTS = (1, 5, 10, 20, 50)


class RecallSet:
    """Queries, a corpus, and the documents of the corpus that answer each query.

    Args:
        pairs: (query, title) that belong together.
        corpus: texts to search; titles of `pairs` that are not among them are added.

    Attributes: `queries` and `corpus`, the distinct texts; `answers`, the indices in the corpus of each query's right
    documents.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], corpus: Iterable[str] = ()):
        numbers = {text: number for number, text in enumerate(dict.fromkeys(corpus))}
        found: dict[str, list[int]] = {}
        for query, title in pairs:
            place = numbers.setdefault(title, len(numbers))
            found.setdefault(query, [])
            if place not in found[query]:
                found[query].append(place)
        if not found:
            raise DataError("there are no pairs of a query and its answer to evaluate on")
        self.queries, self.corpus = list(found), list(numbers)
        self.answers: Sequence[Sequence[int]] = list(found.values())

    def recall(self, numbers: Integers, cuts: Sequence[int] = CUTS) -> Mapping[str, Floats]:
        """Return each query's recall at each cut, by name (`recall@10`), `[queries]` float64.

        Recall at k is the share of a query's right documents among its first k results (trec_eval's `recall_k`).

        Args:
            numbers: indices in the corpus of each query's results, best first, `[queries, results]`.
        """
        hits = np.array([np.isin(row, answers) for row, answers in zip(numbers, self.answers)])
        total = np.array([len(answers) for answers in self.answers])
        return {f"recall@{k}": hits[:, :k].sum(axis=1) / total for k in cuts}

    def reciprocal_rank(self, numbers: Integers, k: int = 10) -> Floats:
        """Return 1 / rank of each query's first right document among its first k results, 0 if there is none."""
        hits = np.array([np.isin(row, answers) for row, answers in zip(numbers[:, :k], self.answers)])
        found: Floats = np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)
        return found
