"""An index of a plugin: `mine --method ngrams` searches titles with a similar spelling."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from paddle_ranker.array_types import Floats
from paddle_ranker.retrieval.stored.candidate_indexes import INDEXES, Document, Documents, Hits, IndexKind, IndexOptions

SIZE = 1024


def _vector(text: str) -> Floats:
    """Return the counts of a text's n-grams of 1 to 3 characters, hashed, `[SIZE]`, scaled to length 1."""
    ngrams = (text[start : start + n] for n in (1, 2, 3) for start in range(len(text) - n + 1))
    places = np.array([zlib.crc32(ngram.encode("utf-8")) % SIZE for ngram in ngrams], np.int64)
    counts = np.bincount(places, minlength=SIZE).astype(np.float64)
    return counts / max(1.0, float(np.linalg.norm(counts)))


class NgramIndex(Documents):
    """Index of documents by the cosine of their n-grams."""

    def __init__(self, documents: Iterable[Document], options: IndexOptions):
        super().__init__(documents)
        self._vectors = np.array([_vector(self.by_id[id].text) for id in self.ids]).reshape(-1, SIZE)

    def search(self, queries: Sequence[str], top_k: int) -> list[Hits]:
        found = []
        for query in queries:
            scores = self._vectors @ _vector(query)
            best = np.argsort(-scores, kind="stable")[:top_k]
            found.append(Hits([self.ids[place] for place in best.tolist()], scores[best]))
        return found


INDEXES.add("ngrams", IndexKind(NgramIndex, "by the spelling that they share with the query"))
