"""faiss indexes of a segment's vectors, which find candidates; the stored vectors then score the candidates.

hnsw, hnsw_sq8: a graph (Malkov and Yashunin 2016) over the vectors, or over 8 bits a component
ivf_sq8, ivf_pq: lists of vectors around centres, in 8 bits a component, or in a byte for every 4 components
sq8: all vectors in 8 bits a component
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from pathlib import Path
from types import ModuleType
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.array_types import Booleans, Floats, Integers, Vectors
from paddle_ranker.errors import CheckpointError, DependencyError, UsageError, brief
from paddle_ranker.retrieval.vectors.exact_search import StoredVectors, nearest
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.retrieval.work.top_k import NOT_FOUND
from paddle_ranker.retrieval.work.turns import check

FILE = "vectors.faiss"
LEAST = 1024  # vectors of a smaller segment are searched exactly
_LEAST_PQ = 39 * 256  # least number of vectors from which 256 centres can be learned
_LEARNED_PQ = 64  # most vectors per centre from which centres are learned
_AT_ONCE = 1 << 15  # vectors that are added at a time
_LEARNED_FROM = 1 << 16  # most vectors that centres and ranges are learned from
# Candidates per wanted row that the stored vectors score; coarser codes need more.
_CANDIDATES = {"hnsw": 1, "hnsw_sq8": 2, "ivf_sq8": 2, "ivf_pq": 30, "sq8": 2}
# nprobe starts at `_LEAST_PROBED`, and doubles until `_MEASURED_BY` sample queries reach `_MEASURED_RECALL`.
_LEAST_PROBED, _MEASURED_BY, _MEASURED_RECALL = 8, 256, 0.95
_FAISS = {"hnsw": "HNSWFlat", "hnsw_sq8": "HNSWSQ", "ivf_sq8": "IVFScalar", "ivf_pq": "IVFPQ", "sq8": "ScalarQ"}
_GRAPH_COSTS = 200  # a visit of a graph's node takes as long as this many comparisons of codes
_WIDER = 4  # factor by which ef or nprobe grows if a search is repeated
# Least `_support` of the best ten rows: below it, recall@10 was 0.4 to 0.9, above it 0.95 to 0.99 (vectors of titles'
# bigrams, of English texts among them, random ones).
_SUPPORT, _LOOKED_AT = 6.0, 10


def load_faiss() -> ModuleType:
    """Return the module faiss; raises `DependencyError` if it is not installed."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # its info messages list the builds that it tries
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise DependencyError(
            "--method faiss needs faiss: pip install faiss-cpu (or pip install 'paddle-ranker[search]')"
        ) from error


def write_index(info: VectorsInfo, target: Path, stored: StoredVectors, begin: Optional[Path] = None) -> None:
    """Write the faiss index of vectors into a new file; do nothing for fewer vectors than `least_of`.

    begin: file of an index of the first vectors in `stored`, whose graph is extended; None: start with an empty index
    """
    if len(stored) < least_of(info):
        return
    faiss = load_faiss()
    if begin is not None and begin.exists() and info.structure.startswith("hnsw"):
        index = faiss.read_index(str(begin))
        index.hnsw.efConstruction = info.hnsw_ef
    else:
        index = _empty(faiss, info, len(stored))
        if not index.is_trained:
            step = max(1, len(stored) // _LEARNED_FROM)
            index.train(stored.rows(np.arange(0, len(stored), step)))
    for start in range(int(index.ntotal), len(stored), _AT_ONCE):
        index.add(np.ascontiguousarray(stored.block(start, min(start + _AT_ONCE, len(stored)))))
    if info.structure.startswith("ivf"):
        index.nprobe = _measured_nprobe(faiss, index, stored, _CANDIDATES[info.structure])
    faiss.write_index(index, str(target))


def least_of(info: VectorsInfo) -> int:
    """Return how many vectors a segment needs to get an index; smaller segments are searched exactly."""
    return _LEAST_PQ if info.structure == "ivf_pq" else LEAST


def _measured_nprobe(faiss: ModuleType, index, stored: StoredVectors, factor: int) -> int:  # type: ignore[no-untyped-def]
    """Double nprobe until sample queries find nearly all of their nearest vectors; return that nprobe.

    The sample queries are some vectors of the index, and sums of two of them.

    factor: number of faiss's candidates for each wanted vector
    """
    rows = np.linspace(0, len(stored) - 1, min(_MEASURED_BY, len(stored))).astype(np.int64)
    samples = stored.rows(rows)
    queries = np.ascontiguousarray(np.concatenate([samples, samples + np.roll(samples, len(samples) // 2, axis=0)]))
    wanted = nearest(stored, queries, _LOOKED_AT + 1)[0]
    others = np.concatenate([wanted[: len(samples)] != rows[:, None], wanted[len(samples) :] >= 0])
    others[len(samples) :, _LOOKED_AT:] = False
    probed = min(index.nlist, _LEAST_PROBED)
    while probed < index.nlist:
        parameters = faiss.SearchParametersIVF(nprobe=probed)
        candidates: Integers = index.search(queries, factor * _LOOKED_AT, params=parameters)[1]
        is_found = (wanted[:, :, None] == candidates[:, None, :]).any(axis=2) | ~others
        if min(half.mean() for half in np.split(is_found, 2)) >= _MEASURED_RECALL:
            break
        probed = min(index.nlist, 2 * probed)
    return int(probed)


def _empty(faiss: ModuleType, info: VectorsInfo, count: int):  # type: ignore[no-untyped-def]
    lists = max(1, min(int(4 * count**0.5), count // 39))
    pieces = max(size for size in range(1, max(1, info.size // 4) + 1) if info.size % size == 0)
    spec = {
        "hnsw": f"HNSW{info.hnsw_m}",
        "hnsw_sq8": f"HNSW{info.hnsw_m}_SQ8",
        "ivf_sq8": f"IVF{lists},SQ8",
        "ivf_pq": f"IVF{lists},PQ{pieces}",
        "sq8": "SQ8",
    }[info.structure]
    index = faiss.index_factory(info.size, spec, faiss.METRIC_INNER_PRODUCT)
    if info.structure.startswith("hnsw"):
        index.hnsw.efConstruction = info.hnsw_ef
    if info.structure == "ivf_pq":
        index.pq.cp.max_points_per_centroid = _LEARNED_PQ
        index.do_polysemous_training = False  # seven times as long, for searches by Hamming distance
    return index


class FaissSegment:
    """faiss index of a segment's `count` vectors, memory-mapped."""

    def __init__(self, file: Path, info: VectorsInfo, count: int):
        self._faiss, self._info = load_faiss(), info
        try:
            self._index = self._faiss.read_index(str(file), self._faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            os.stat(file)  # raises FileNotFoundError if a writer has deleted the file meanwhile
            raise CheckpointError(
                f"{file}: damaged ({brief(str(error))}); copy the index again, or build it anew"
            ) from error
        held = (self._index.d, self._index.ntotal, type(self._index).__name__[5:].startswith(_FAISS[info.structure]))
        if held != (info.size, count, True):
            raise CheckpointError(f"{file}: is no {info.structure} of these vectors; build the index anew")
        if info.structure.startswith("hnsw"):
            graph = self._index.hnsw
            self._codes = self._faiss.downcast_index(self._index.storage)
            links, neighbours = graph.offsets, graph.neighbors
            # Views of faiss's memory: the start of each entry's neighbours, and all neighbours.
            self._links: Integers = self._faiss.rev_swig_ptr(links.data(), links.size()).view(np.int64)
            self._neighbours: Integers = self._faiss.rev_swig_ptr(neighbours.data(), neighbours.size())
            self._of_entry = np.arange(graph.nb_neighbors(0))
            self._threads = threading.local()

    def candidates(
        self, queries: Vectors, k: int, mask: Optional[Booleans], breadth: Optional[int]
    ) -> Optional[NDArray[np.int64]]:
        """Return, for each query, rows that likely include its `k` best, `[queries, n]`; `NOT_FOUND` fills up a row.

        Returns None if the mask allows so few rows that an exact search is faster.

        mask: which rows may be found, `[rows] bool`; None: all
        breadth: ef of a graph, or nprobe of lists; None: the index's default
        """
        count = int(self._index.ntotal)
        allowed = count if mask is None else int(np.count_nonzero(mask))
        if allowed <= LEAST:
            return None
        mask = mask if allowed < count else None
        wanted = min(k * _CANDIDATES[self._info.structure], allowed)
        if self._info.structure.startswith("hnsw"):
            return self._by_graph(queries, min(k, allowed), wanted, mask, allowed, breadth)
        if self._info.structure.startswith("ivf"):
            return self._by_lists(queries, min(k, allowed), wanted, mask, allowed, breadth)
        parameters = self._faiss.SearchParameters(**self._selected(mask))
        rows: Integers = self._index.search(queries, wanted, params=parameters)[1]
        return rows

    def _by_lists(
        self, queries: Vectors, k: int, wanted: int, mask: Optional[Booleans], allowed: int, breadth: Optional[int]
    ) -> Integers:
        """Return `wanted` candidates of each query from the lists whose centres are nearest to the query.

        nprobe was measured with vectors of the index. A query may be unlike these vectors, and a mask may leave only
        vectors far from the query. So nprobe is raised until the `k` best rows by their codes stay the same.
        """
        count, lists = int(self._index.ntotal), int(self._index.nlist)
        probed, selected = min(lists, (breadth or int(self._index.nprobe)) * count // allowed), self._selected(mask)

        def look(batch: Vectors, probed: int) -> Integers:
            parameters = self._faiss.SearchParametersIVF(nprobe=probed, **selected)
            rows: Integers = self._index.search(batch, wanted, params=parameters)[1]
            return rows

        candidates = look(queries, probed)
        left = np.arange(len(queries))
        while len(left) and probed < lists:
            check()
            probed = min(lists, _WIDER * probed)
            wider = look(queries[left], probed)
            is_done = (wider[:, :k] == candidates[left][:, :k]).all(axis=1) & (wider[:, k - 1] != NOT_FOUND)
            candidates[left] = wider
            left = left[~is_done]
        return candidates

    def _by_graph(
        self, queries: Vectors, k: int, wanted: int, mask: Optional[Booleans], allowed: int, breadth: Optional[int]
    ) -> Integers:
        """Return `wanted` candidates of each query from the graph, or from all codes if the graph cannot find them.

        faiss searches the graph without the mask; the mask is then applied to all `ef` rows that it returns. A search
        with the mask would end too early if the vectors nearest to the query are masked.

        The first search is trusted if enough of its rows are allowed, and if the neighbours of its best rows are mostly
        among its rows (`_support`). Otherwise `ef` is raised until the best rows stay the same, as long as that costs
        less than comparing all codes.
        """
        count, most = int(self._index.ntotal), allowed // _GRAPH_COSTS
        ef = max(breadth or self._info.hnsw_ef, wanted) * count // allowed
        if ef > most:
            return self._among_codes(queries, wanted, mask)
        kept, counts, support = self._look(queries, ef, wanted, mask, min(k, _LOOKED_AT))
        is_done = (counts >= k) & (support >= _SUPPORT)
        if is_done.all():
            return kept
        rows, left, best = kept, np.flatnonzero(~is_done), kept[:, : min(k, _LOOKED_AT)]
        # If hardly any of the nearest rows are allowed, the next rows may not be, either, so all codes are compared.
        by_codes = ~is_done & (counts * _WIDER < k)
        left = left[~by_codes[left]]
        while len(left) and (ef := ef * _WIDER) <= most:
            check()
            kept, counts, _ = self._look(queries[left], ef, wanted, mask, 0)
            is_done = (counts >= k) & (kept[:, : best.shape[1]] == best[left]).all(axis=1)
            rows[left], is_far = kept, ~is_done & (counts * _WIDER < k)
            by_codes[left[is_far]] = True
            left = left[~is_done & ~is_far]
        by_codes[left] = True
        if by_codes.any():
            rows[by_codes] = self._among_codes(queries[by_codes], wanted, mask)
        return rows

    def _look(
        self, queries: Vectors, ef: int, wanted: int, mask: Optional[Booleans], supported: int
    ) -> tuple[Integers, Integers, Floats]:
        """Search the graph for `ef` rows per query.

        Returns the best `wanted` allowed rows, `[queries, wanted]`; how many of the `ef` rows are allowed, `[queries]`;
        and the support of the best allowed rows, `[queries]`, see `_support`.

        supported: number of the best rows whose support is computed; if 0, no support is computed
        """
        near: Integers = self._index.search(queries, ef, params=self._faiss.SearchParametersHNSW(efSearch=ef))[1]
        if mask is None:
            kept, counts = near, np.count_nonzero(near != NOT_FOUND, axis=1)
        else:
            is_allowed = (near != NOT_FOUND) & mask[near]
            order, counts = np.argsort(~is_allowed, axis=1, kind="stable"), is_allowed.sum(axis=1)
            kept = np.take_along_axis(np.where(is_allowed, near, NOT_FOUND), order, 1)
        kept = kept[:, :wanted]
        return kept, counts, self._support(near, kept[:, :supported]) if supported else np.zeros(len(near))

    def _support(self, near: Integers, best: Integers) -> Floats:
        """Return, for each query, how many graph neighbours of a best row are among the rows of the search, on average.

        near: all rows that the search returned, `[queries, ef]`
        best: the best of these rows, `[queries, supported]`
        """
        marks = getattr(self._threads, "marks", None)
        if marks is None:  # marks of all rows, and of -1, which stands for missing neighbours in a graph
            marks = self._threads.marks = np.zeros(int(self._index.ntotal) + 1, bool)
        means = np.empty(len(near))
        for number, (row, best_of_query) in enumerate(zip(near, np.maximum(best, 0))):
            marks[row], marks[-1] = True, False
            linked = self._neighbours[self._links[best_of_query][:, None] + self._of_entry]
            means[number] = np.count_nonzero(marks[linked]) / max(1, len(best_of_query))
            marks[row] = False
        return means

    def _among_codes(self, queries: Vectors, wanted: int, mask: Optional[Booleans]) -> Integers:
        """Return the best `wanted` allowed rows of each query by the codes of all rows."""
        parameters = self._faiss.SearchParameters(**self._selected(mask))
        rows: Integers = self._codes.search(queries, wanted, params=parameters)[1]
        return rows

    def _selected(self, mask: Optional[Booleans]) -> dict[str, object]:
        if mask is None:
            return {}
        return {"sel": self._faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))}


def describe(info: VectorsInfo, breadth: Optional[int]) -> str:
    """Return an index's structure with its ef or nprobe, for messages."""
    if info.structure.startswith("hnsw"):
        return f"{info.structure}, ef {breadth or info.hnsw_ef}"
    return info.structure + (f", nprobe {breadth}" if breadth else "")


def breadth_of(info: VectorsInfo, ef: Optional[int], nprobe: Optional[int]) -> Optional[int]:
    """Return `ef` if the index is a graph, `nprobe` if it has lists, else None.

    Raises `UsageError` if an option is given that the index does not take.
    """
    name = "ef" if info.structure.startswith("hnsw") else "nprobe" if info.structure.startswith("ivf") else None
    for other, value in (("ef", ef), ("nprobe", nprobe)):
        if value is not None and other != name:
            takes = f"--{name}" if name else "neither --ef nor --nprobe"
            raise UsageError(f"--{other} {value}: an index of {info.structure} takes {takes}")
        if value is not None and value < 1:
            raise UsageError(f"--{other} {value}: must be at least 1")
    return ef if name == "ef" else nprobe
