"""Search the vectors of a collection exactly, or among the candidates of approximate indexes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Optional

import numpy as np

from paddle_ranker.array_types import Booleans, Floats, Integers, Vectors
from paddle_ranker.errors import DataError, UsageError, quoted
from paddle_ranker.retrieval.stored.candidate_indexes import INDEXES
from paddle_ranker.retrieval.stored.manifest import WORDS, IndexInfo
from paddle_ranker.retrieval.vectors import faiss_index
from paddle_ranker.retrieval.vectors.exact_search import VectorPart, nearest, products_of, refuse_unstorable
from paddle_ranker.retrieval.vectors.faiss_index import FaissSegment
from paddle_ranker.retrieval.vectors.vector_settings import FAISS, VectorsInfo
from paddle_ranker.retrieval.work.top_k import NOT_FOUND, best_rows

if TYPE_CHECKING:
    from paddle_ranker.retrieval.stored.segment_writing import WriteIndex


def search_method(info: IndexInfo, by: str, ef: Optional[int] = None, nprobe: Optional[int] = None) -> str:
    """Describe how a searcher finds documents, for people: `BM25`, `exact`, `faiss hnsw_sq8, ef 100`."""
    if by not in info.vector_fields:
        return "BM25" if by == WORDS else INDEXES[by].what
    vectors = info.vector_fields[by].info
    return how_found(vectors, check_breadth(vectors, ef, nprobe))


class IndexedPart(NamedTuple):
    """Vectors of a part of a collection, with their approximate index.

    candidates: the approximate index; None: every vector is compared
    """

    part: VectorPart
    candidates: Optional[FaissSegment]


def index_writers(info: IndexInfo) -> dict[str, WriteIndex]:
    """Return, by vector field with an approximate index, the function that writes a new segment's index."""
    fields = info.vector_fields.items()
    return {name: partial(faiss_index.write_index, field.info) for name, field in fields if field.info.method == FAISS}


def searched_exactly(info: VectorsInfo, counts: Sequence[int]) -> str:
    """Return a message about vectors that are searched exactly, because their segments are too small for an index.

    Returns "" if all vectors are in faiss indexes.

    counts: number of vectors of each segment
    """
    least = faiss_index.least_of(info) if info.method == FAISS else 0
    few = sum(count for count in counts if count < least)
    return f"{few:,} vectors are searched exactly: {info.structure} is made of {least:,} or more" if few else ""


def check_breadth(info: Optional[VectorsInfo], ef: Optional[int], nprobe: Optional[int]) -> Optional[int]:
    """Return the option that sets the breadth of a search, `ef` or `nprobe`; None if neither is given.

    Raises `UsageError` for an option that the vectors' index does not take.

    info: settings of the search by vectors; None if no vectors are searched
    """
    if info is not None and info.method == FAISS:
        return faiss_index.breadth_of(info, ef, nprobe)
    for name, value in (("ef", ef), ("nprobe", nprobe)):
        if value is not None:
            how = f"vectors are searched by {info.method}" if info else "is about vectors, and none are searched"
            raise UsageError(f"--{name} {value}: {how} here; leave --{name} out")
    return None


def how_found(info: VectorsInfo, breadth: Optional[int] = None) -> str:
    """Describe how vectors are searched, for people: `exact` or `faiss hnsw_sq8, ef 100`."""
    if info.method != FAISS:
        return info.method
    return f"{info.method} {faiss_index.describe(info, breadth)}"


def search_vectors(
    parts: Sequence[IndexedPart],
    queries: Vectors,
    k: int,
    allowed: Optional[Sequence[Booleans]] = None,
    breadth: Optional[int] = None,
) -> list[tuple[Integers, Floats]]:
    """Return, for each query, the numbers and products of its best `k` vectors, best first, equal products by number.

    Products are computed from the stored vectors, even if an approximate index found the candidates.

    allowed: for each of `parts`, `[vectors] bool`, which vectors may be found; None: all
    breadth: ef or nprobe of an approximate index; None: the index's default
    """
    results = []
    for number, (part, indexed) in enumerate(parts):
        mask = part.live if allowed is None else allowed[number]
        rows = None if indexed is None else indexed.candidates(queries, k, mask, breadth)
        if rows is None:
            rows, products = nearest(part.vectors, queries, k, mask)
        else:
            products = products_of(part.vectors, rows, queries)
            # If an index finds too few vectors, as with some filters of a graph, all vectors are compared.
            short = np.flatnonzero((rows != NOT_FOUND).sum(axis=1) < min(k, part.count(mask)))
            if len(short):
                numbers, scores = nearest(part.vectors, queries[short], k, mask)
                rows[short], products[short] = NOT_FOUND, -np.inf
                rows[short, : numbers.shape[1]], products[short, : numbers.shape[1]] = numbers, scores
        results.append((np.where(rows != NOT_FOUND, rows + part.first, NOT_FOUND), products))
    return best_rows(results, len(queries), k)


def checked_vectors(vectors: Vectors, ids: Optional[Sequence[str]], info: VectorsInfo) -> Vectors:
    """Return vectors as float32, `[n, size]`; raises `DataError`, which names the first invalid vector.

    A vector is invalid if it has another size, or a component that is not finite or that the stored type cannot hold.

    ids: ids of the documents that the vectors belong to; None for vectors of queries
    """
    wanted = (len(vectors) if ids is None else len(ids), info.size)
    if vectors.shape != wanted:
        raise DataError(f"vectors of the shape {list(vectors.shape)}, expected {list(wanted)}: the index has that size")
    converted = np.ascontiguousarray(vectors, np.float32)
    if ids is None:
        refuse_unstorable(converted, "float32", lambda row: f"query {row + 1}")
    else:
        refuse_unstorable(converted, info.dtype, lambda row: f"document {quoted(ids[row])}")
    return converted
