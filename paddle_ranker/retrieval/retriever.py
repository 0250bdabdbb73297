"""Find the documents of an index that answer a query: by words, by vectors, by both, and then by a ranker.

retriever = Retriever.open("index", ranker="checkpoint/best")
for result in retriever.search("query", top_k=10):
    print(result.text, result.score, result.searchers["words"].rank, result.probability)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional, Union

import numpy as np

from paddle_ranker.errors import UsageError, listed, refuse_text
from paddle_ranker.metrics.calibration import sigmoid
from paddle_ranker.metrics.ranking import Floats, Integers
from paddle_ranker.model.load_options import LoadOptions
from paddle_ranker.retrieval.collection import VECTORS, Collection
from paddle_ranker.retrieval.filters import Filter
from paddle_ranker.retrieval.fusion import Candidates, Fusion, by_score, parse_fusion
from paddle_ranker.retrieval.vector_search import check_breadth
from paddle_ranker.retrieval.vectors import Tower, Vectors
from paddle_ranker.scoring.ranker import Ranker
from paddle_ranker.scoring.texts import list_texts, require_count, require_text

DEPTH, RANK_TOP, TOP_K = 1000, 50, 100
Where = Union[None, str, Iterable[str], Filter]
QueryVectors = Callable[[Sequence[str]], Vectors]
_DEFAULTS = LoadOptions()


@dataclass(frozen=True)
class Found:
    """A searcher's score of a document, and its rank among what that searcher found, from 1."""

    score: float
    rank: int


@dataclass(frozen=True)
class Result:
    """A document that was found for a query.

    score: of the fusion; with one searcher its own
    searchers: what each searcher that found the document says, by name
    logit, probability: of the ranker, for a document that it has scored
    """

    id: str
    text: str
    fields: Mapping[str, object]
    score: float
    searchers: Mapping[str, Found]
    logit: Optional[float] = None
    probability: Optional[float] = None


@dataclass(frozen=True)
class SearchSettings:
    """How an index is searched.

    by: names of searchers; none: all that the index has
    fusion: makes one list of theirs
    depth: documents that each searcher finds, before fusion; more if more are asked for
    rank_top: of the fused list, so many first documents are ordered by the ranker
    ef, nprobe: how much an approximate index looks at; None: as it was built
    milvus_uri: the server that an index has its vectors in, as of `Collection.open`
    """

    by: tuple[str, ...] = ()
    fusion: Fusion = field(default_factory=Fusion)
    depth: int = DEPTH
    rank_top: int = RANK_TOP
    ef: Optional[int] = None
    nprobe: Optional[int] = None
    milvus_uri: Optional[str] = None


class Retriever:
    """Searches an index.

    Args:
        collection: the open index.
        settings: how it is searched.
        query_vectors: returns the vectors of queries, `[n, size]`; needed to search by vectors.
        ranker: orders the first results; None: they stay in the fusion's order.

    Raises `UsageError` for a searcher that the index lacks, and for weights that cannot be.
    """

    def __init__(
        self,
        collection: Collection,
        settings: SearchSettings,
        query_vectors: Optional[QueryVectors] = None,
        ranker: Optional[Ranker] = None,
    ):
        for name in ("depth", "rank_top"):
            require_count(getattr(settings, name), name)
        self.collection, self.settings, self.ranker = collection, settings, ranker
        self._query_vectors = query_vectors
        self.searchers = tuple(dict.fromkeys(settings.by)) or tuple(collection.searchers)
        unknown = [name for name in self.searchers if name not in collection.searchers]
        if unknown:
            raise UsageError(f"{collection.folder}: has no {listed(unknown)}, only {listed(collection.searchers)}")
        check_breadth(collection.info.vectors if VECTORS in self.searchers else None, settings.ef, settings.nprobe)
        settings.fusion.weights_of(self.searchers)
        if VECTORS in self.searchers:
            collection.require_address()

    @classmethod
    def open(
        cls,
        folder: Union[str, Path],
        settings: Optional[SearchSettings] = None,
        *,
        ranker: Union[str, Path, Ranker, None] = None,
        options: LoadOptions = _DEFAULTS,
        batch_size: int = 32,
    ) -> Retriever:
        """Open an index folder with the tower in it.

        Args:
            ranker: an open ranker, or its folder.
            options: how the tower is opened; a ranker that is named is opened on the same device.
            batch_size: texts of full length that are computed at once.

        Raises `CheckpointError` for a folder that is no index or is damaged.
        """
        settings = settings or SearchSettings()
        collection = Collection.open(folder, milvus_uri=settings.milvus_uri)
        query_vectors: Optional[QueryVectors] = None
        if collection.tower_folder is not None and VECTORS in (settings.by or (VECTORS,)):
            query_vectors = Tower.open(collection.tower_folder, options, batch_size, for_search=True).query_vectors
        if ranker is not None and not isinstance(ranker, Ranker):
            ranker = Ranker.load(ranker, batch_size=batch_size, device=options.device, threads=options.threads)
        return cls(collection, settings, query_vectors, ranker)

    def search(
        self, query: str, top_k: int = TOP_K, where: Where = None, fusion: Union[str, Fusion, None] = None
    ) -> list[Result]:
        """Return up to `top_k` documents, best first.

        Args:
            where: a `Filter` on the documents' fields, or conditions: "year>=2020 and lang=zh", or a list of them.
            fusion: in place of that of the settings: "rrf", "weighted", or a file of learned weights.
        """
        return self.search_many([require_text(query, "query")], top_k, where, fusion)[0]

    def search_many(
        self, queries: Sequence[str], top_k: int = TOP_K, where: Where = None, fusion: Union[str, Fusion, None] = None
    ) -> list[list[Result]]:
        """Search for many queries as `search` does, in shared batches; return one list a query, in their order."""
        require_count(top_k, "top_k")
        queries = list_texts(queries, "queries")
        fused = parse_fusion(fusion) if isinstance(fusion, str) else fusion or self.settings.fusion
        candidates = self.candidates(queries, top_k, where)
        if self.ranker is None:
            return [self.results(one, *fused.best(one, top_k)) for one in candidates]
        return self.ranked(queries, candidates, top_k, fused)

    def candidates(self, queries: Sequence[str], top_k: int = TOP_K, where: Where = None) -> list[Candidates]:
        """Return what the searchers find for each query, before fusion: `depth` documents each, or `top_k` if more."""
        refuse_text(queries, "queries")
        settings, allowed = self.settings, filter_of(where)
        depth = max(settings.depth, top_k, settings.rank_top if self.ranker else 0)
        found = []
        for name in self.searchers:
            if name == VECTORS:
                asked, widths = self._vectors(queries), (settings.ef, settings.nprobe)
                found.append(self.collection.search(name, asked, depth, allowed, *widths))
            else:
                found.append(self.collection.search(name, queries, depth, allowed))
        return [Candidates.of(dict(zip(self.searchers, hits))) for hits in zip(*found)]

    def _vectors(self, queries: Sequence[str]) -> Vectors:
        if self._query_vectors is None:
            raise UsageError(f"{self.collection.folder}: has no tower that makes vectors of queries: search by words")
        return self._query_vectors(queries)

    def ranked(
        self, queries: Sequence[str], candidates: Sequence[Candidates], top_k: int, fusion: Fusion
    ) -> list[list[Result]]:
        """Return the results of each query, the first `rank_top` in the order of `logit + recall_weight * share`."""
        assert self.ranker is not None
        top = self.settings.rank_top
        found = [self.results(one, *fusion.best(one, max(top_k, top))) for one in candidates]
        asked = [query for query, results in zip(queries, found) for _ in results[:top]]
        logits = self.ranker.score(asked, [one.text for results in found for one in results[:top]], logits=True)
        probabilities, start, ranked = sigmoid(logits), 0, []
        for one, results in zip(candidates, found):
            rows = np.arange(start, start + len(results[:top]))
            start += len(rows)
            first = [
                replace(result, logit=float(logits[row]), probability=float(probabilities[row]))
                for result, row in zip(results, rows)
            ]
            signals = dict(zip(one.ids, fusion.shares(one).tolist()))
            last = logits[rows] + fusion.recall_weight * np.array([signals[result.id] for result in first])
            order = by_score(last, [result.id for result in first])
            ranked.append([*(first[number] for number in order), *results[top:]][:top_k])
        return ranked

    def results(self, candidates: Candidates, order: Integers, scores: Floats) -> list[Result]:
        """Return results for the candidates at `order`; one that was removed since it was found is left out."""
        documents = self.collection.documents_of([candidates.ids[number] for number in order.tolist()])
        results = []
        for number, score in zip(order.tolist(), scores.tolist()):
            document = documents.get(candidates.ids[number])
            if document is None:
                continue
            said = zip(candidates.searchers, candidates.scores[number].tolist(), candidates.ranks[number].tolist())
            by = {name: Found(own, rank) for name, own, rank in said if rank}
            results.append(Result(document.id, document.text, document.fields, score, by))
        return results


def filter_of(where: Where) -> Optional[Filter]:
    """Return what documents must meet; raises `UsageError` for a condition that is none."""
    if where is None or isinstance(where, Filter):
        return where
    return Filter.parse([where] if isinstance(where, str) else where)
