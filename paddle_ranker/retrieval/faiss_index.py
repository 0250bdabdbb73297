"""faiss: what finds candidates among the vectors of a segment, in a file beside them; each is then scored exactly.

hnsw, hnsw_sq8     a graph (Malkov and Yashunin 2016) over the vectors, or over 8 bits a component
ivf_sq8, ivf_pq    lists of vectors around centres, in 8 bits a component, or in a byte for every 8 components
sq8                all vectors in 8 bits a component
"""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path
from types import ModuleType
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from paddle_ranker.errors import CheckpointError, DependencyError, UsageError, brief
from paddle_ranker.metrics.ranking import Booleans, Integers
from paddle_ranker.retrieval.exact import StoredVectors, Vectors
from paddle_ranker.retrieval.manifest import VectorsInfo

FILE = "vectors.faiss"
STRUCTURES = ("hnsw_sq8", "hnsw", "ivf_sq8", "ivf_pq", "sq8")
LEAST = 1024  # vectors of a smaller segment are searched exactly
_LEAST_PQ = 39 * 256  # vectors that 256 centres can be learned from
_AT_ONCE = 1 << 15  # vectors that are added at a time
_LEARNED_FROM = 1 << 16  # most vectors that centres and ranges are learned from
# How many candidates are scored exactly for each that is wanted, by how coarse the stored codes are.
_CANDIDATES = {"hnsw": 1, "hnsw_sq8": 2, "ivf_sq8": 2, "ivf_pq": 10, "sq8": 2}
_FEW = 16  # a filter that leaves fewer than one of so many is searched exactly


def load_faiss() -> ModuleType:
    """Return the module faiss; raises `DependencyError` if it is not installed."""
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it says which of its builds it tries
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise DependencyError(
            "--method faiss needs faiss: pip install faiss-cpu (or pip install 'paddle-ranker[search]')"
        ) from error


def write_index(info: VectorsInfo, target: Path, stored: StoredVectors, begin: Optional[Path] = None) -> None:
    """Write the index of vectors into the folder of a new segment, unless they are few.

    begin: the folder of a segment with the first of these vectors, whose graph is extended
    """
    if len(stored) < (_LEAST_PQ if info.structure == "ivf_pq" else LEAST):
        return
    faiss = load_faiss()
    if begin is not None and (begin / FILE).exists() and info.structure.startswith("hnsw"):
        index = faiss.read_index(str(begin / FILE))
        index.hnsw.efConstruction = info.hnsw_ef
    else:
        index = _empty(faiss, info, len(stored))
        if not index.is_trained:
            step = max(1, len(stored) // _LEARNED_FROM)
            index.train(stored.rows(np.arange(0, len(stored), step)))
    for start in range(int(index.ntotal), len(stored), _AT_ONCE):
        index.add(np.ascontiguousarray(stored.block(start, min(start + _AT_ONCE, len(stored)))))
    faiss.write_index(index, str(target / FILE))


def _empty(faiss: ModuleType, info: VectorsInfo, count: int):  # type: ignore[no-untyped-def]
    lists = max(1, min(int(4 * count**0.5), count // 39))
    pieces = max(size for size in range(1, max(1, info.size // 8) + 1) if info.size % size == 0)
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
    return index


class FaissSegment:
    """The index of a segment's vectors, memory-mapped."""

    def __init__(self, folder: Path, info: VectorsInfo):
        self._faiss, self._info = load_faiss(), info
        try:
            self._index = self._faiss.read_index(str(folder / FILE), self._faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            os.stat(folder / FILE)  # raises FileNotFoundError where a writer has deleted it meanwhile
            raise CheckpointError(
                f"{folder / FILE}: damaged ({brief(str(error))}); copy the index again, or build it anew"
            ) from error

    def candidates(
        self, queries: Vectors, k: int, mask: Optional[Booleans], breadth: Optional[int]
    ) -> Optional[NDArray[np.int64]]:
        """Return rows that are likely the `k` best of each query, `[queries, at least k]`; `NOT_FOUND` beyond them.

        mask: which rows may be found, `[rows]`; None for all. Where it leaves few, None is returned: search exactly
        breadth: how many entries of a graph, or how many lists, are looked at; None for the index's own
        """
        count = len(mask) if mask is not None else int(self._index.ntotal)
        allowed = int(np.count_nonzero(mask)) if mask is not None else count
        if allowed <= LEAST or allowed * _FEW < count:
            return None
        wanted = min(k * _CANDIDATES[self._info.structure], allowed)
        selector = None
        if mask is not None and allowed < count:
            selector = self._faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        parameters = self._parameters(selector, wanted, breadth, count / allowed)
        found: Integers = self._index.search(queries, wanted, params=parameters)[1]
        return found

    def _parameters(self, selector: object, wanted: int, breadth: Optional[int], rarity: float):  # type: ignore[no-untyped-def]
        given = {} if selector is None else {"sel": selector}
        if self._info.structure.startswith("hnsw"):
            # What the filter leaves out is looked at, too: so look at more.
            ef = max(int((breadth or self._info.hnsw_ef) * rarity), wanted)
            return self._faiss.SearchParametersHNSW(efSearch=ef, **given)
        if self._info.structure.startswith("ivf"):
            return self._faiss.SearchParametersIVF(nprobe=breadth or default_nprobe(self._index.nlist), **given)
        return self._faiss.SearchParameters(**given)


def described(info: VectorsInfo, breadth: Optional[int]) -> str:
    """Return an index's structure and how widely it looks."""
    if info.structure.startswith("hnsw"):
        return f"{info.structure}, ef {breadth or info.hnsw_ef}"
    return info.structure + (f", nprobe {breadth}" if breadth else "")


def default_nprobe(lists: int) -> int:
    """Return how many lists are looked at without `--nprobe`: a sixteenth, and at least 8."""
    return min(lists, max(8, lists // 16))


def breadth_of(info: VectorsInfo, ef: Optional[int], nprobe: Optional[int]) -> Optional[int]:
    """Return `--ef` or `--nprobe`, whichever the index has; raises `UsageError` for the other."""
    name = "ef" if info.structure.startswith("hnsw") else "nprobe" if info.structure.startswith("ivf") else None
    for other, value in (("ef", ef), ("nprobe", nprobe)):
        if value is not None and other != name:
            takes = f"--{name}" if name else "neither --ef nor --nprobe"
            raise UsageError(f"--{other} {value}: an index of {info.structure} takes {takes}")
        if value is not None and value < 1:
            raise UsageError(f"--{other} {value}: must be at least 1")
    return ef if name == "ef" else nprobe
