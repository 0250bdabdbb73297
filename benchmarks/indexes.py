"""Measure index folders: building, opening, queries by words and by vectors, memory; beside faiss and bm25s.

    python -m benchmarks.indexes
    python -m benchmarks.indexes --size 1000000 --folder /tmp/indexes

Titles are those of the demo data; a title's vector is the sum of random vectors of its bigrams. Queries are the first
twelve characters of titles.
"""

from __future__ import annotations

import importlib
import itertools
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np

from demo_world.scenes import triples
from paddle_ranker.array_types import Vectors
from paddle_ranker.lexical.postings import text_hashes
from paddle_ranker.lexical.tokens import bigrams
from paddle_ranker.options import Options, option, run_command
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.vectors.vector_settings import STRUCTURES, VectorsInfo

WIDTH, TOP, SEED = 256, 100, 7
WIDTHS = (32, 40, 50, 100)  # numbers of vectors that a graph search looks at
GRAPHS = tuple(name for name in STRUCTURES if name.startswith("hnsw"))


@dataclass(frozen=True)
class IndexesOptions(Options):
    size: int = option(20_000, help="titles", minimum=1000)
    queries: int = option(200, help="queries", minimum=10)
    folder: Optional[str] = option(
        None, help="folder for the index and the titles, for another run (default: a temporary folder)"
    )
    structure: str = option(GRAPHS[0], help="of faiss's index", choices=GRAPHS)
    rounds: int = option(5, help="of searches in turn", minimum=1)


def titles_of(size: int, seed: int) -> Iterator[str]:
    """Yield distinct titles."""
    texts = (text for triple in triples(seed) for text in triple)
    seen: set[int] = set()
    for text in texts:
        if (key := hash(text)) not in seen:
            seen.add(key)
            yield text
            if len(seen) == size:
                return


class BigramVectors:
    """Vectors of texts: the sum of random vectors of their bigrams, of length 1."""

    def __init__(self, seed: int):
        self._table = np.random.default_rng(seed).normal(size=(1 << 16, WIDTH)).astype(np.float32)

    def __call__(self, texts: Sequence[str]) -> Vectors:
        tokens = [bigrams(text) for text in texts]
        places = (text_hashes(itertools.chain(*tokens)) % np.uint64(1 << 16)).astype(np.int64)
        starts = np.cumsum([0, *map(len, tokens)])[:-1]
        sums = np.add.reduceat(self._table[places], starts, axis=0)
        found: Vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return found


def milliseconds(ask: Callable[[Any], object], queries: Sequence[Any]) -> str:
    """Ask queries one after another; return the p50 and p99 of their times, as text."""
    for query in queries[:5]:
        ask(query)
    times = []
    for query in queries:
        began = time.perf_counter()
        ask(query)
        times.append((time.perf_counter() - began) * 1e3)
    return f"p50 {np.percentile(times, 50):.2f} ms, p99 {np.percentile(times, 99):.2f} ms"


def resident_mb() -> float:
    """Return the process's memory in megabytes, with the pages of mapped files that it has read."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1e3


def build(folder: Path, options: IndexesOptions) -> None:
    if (folder / "index.json").exists():
        return
    info = IndexInfo(WordsInfo("standard"), VectorsInfo("faiss", WIDTH, structure=options.structure))
    began = time.perf_counter()
    documents = (Document(str(n), text) for n, text in enumerate(titles_of(options.size, SEED)))
    with Collection.create(folder, info) as collection:
        collection.writer.add(documents, BigramVectors(SEED))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"build: {time.perf_counter() - began:.1f} s with the making of titles and vectors; peak memory {peak:,.0f} MB"
    )


def measure(folder: Path, options: IndexesOptions) -> None:
    began = time.perf_counter()
    collection = Collection.open(folder)
    opened = time.perf_counter() - began
    draw = np.random.default_rng(SEED)
    drawn = draw.integers(0, len(collection), options.queries).tolist()
    texts = [collection.snapshot().document(str(number)).text[:12] for number in drawn]
    vectors = BigramVectors(SEED)(texts)
    began = time.perf_counter()
    collection.snapshot().search("vectors", vectors[:1], 10)
    print(f"open: {opened:.2f} s, first answer {time.perf_counter() - began:.3f} s; resident {resident_mb():,.0f} MB")
    print(f"words, top {TOP}: {milliseconds(lambda text: collection.snapshot().search('words', [text], TOP), texts)}")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"after these: resident {resident_mb():,.0f} MB; on the disk {size / 1e6:,.0f} MB")
    stored = np.concatenate(
        [
            part.part.vectors.block(0, len(part.part.vectors))
            for part in collection.snapshot().generation.vectors["vectors"]
        ]
    )
    beside_faiss(folder, collection, vectors, stored, options.rounds)
    if options.size <= 200_000:
        bm25s = importlib.import_module("bm25s")
        retriever = bm25s.BM25()
        retriever.index([bigrams(document.text) for document in collection.snapshot().documents()], show_progress=False)
        ask = partial(retriever.retrieve, k=TOP, show_progress=False)
        print(f"bm25s (NumPy), top {TOP}: {milliseconds(ask, [[bigrams(text)] for text in texts])}")


def flat_graph(path: Path, stored: Vectors) -> Any:
    """Return faiss's graph of whole vectors, as users build it; cached."""
    faiss = importlib.import_module("faiss")
    if not path.exists():
        index = faiss.index_factory(stored.shape[1], "HNSW32", faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = VectorsInfo("faiss", WIDTH).hnsw_ef
        began = time.perf_counter()
        index.add(stored)
        print(f"faiss called directly, HNSW32: built in {time.perf_counter() - began:.1f} s")
        faiss.write_index(index, str(path))
    return faiss.read_index(str(path))


def beside_faiss(folder: Path, collection: Collection, vectors: Vectors, stored: Vectors, rounds: int) -> None:
    """Print recall and queries per second of our index and of faiss called directly, in turns.

    Queries are asked one by one, and all together.
    """
    faiss = importlib.import_module("faiss")
    wanted = [set(np.argpartition(-(stored @ vector), 10)[:10].tolist()) for vector in vectors]
    graphs = {f"faiss, {graph.parent.name[:16]}'s graph": faiss.read_index(str(graph))
              for graph in folder.glob("*/vectors.faiss")}  # fmt: skip
    graphs["faiss, HNSW32"] = flat_graph(folder.with_name(f"{folder.name}.hnsw32"), stored)
    for ef in WIDTHS:
        parameters = faiss.SearchParametersHNSW(efSearch=ef)
        asked: dict[str, Callable[[Vectors], Any]] = {
            name: partial(graph.search, k=10, params=parameters) for name, graph in graphs.items()
        }
        asked["ours"] = partial(collection.snapshot().search, "vectors", top_k=10, ef=ef)
        found = {name: ask(vectors)[1].tolist() for name, ask in asked.items() if name != "ours"}
        found["ours"] = [[int(id) for id in hits.ids] for hits in asked["ours"](vectors)]
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
        for _ in range(rounds):
            for name, ask in asked.items():
                alone = sum(_seconds(ask, vector[None]) for vector in vectors)
                took[name].append((alone, _seconds(ask, vectors)))
        for name in asked:
            recall = np.mean([len(right & set(ids)) / 10 for right, ids in zip(wanted, found[name])])
            alone, together = len(vectors) / np.median(took[name], axis=0)
            print(f"ef {ef}, {name}: recall@10 {recall:.3f}, {alone:,.0f} queries a second, together {together:,.0f}")


def _seconds(ask: Callable[[Vectors], object], vectors: Vectors) -> float:
    began = time.perf_counter()
    ask(vectors)
    return time.perf_counter() - began


def run(options: IndexesOptions) -> None:
    parent = Path(options.folder or tempfile.mkdtemp())
    try:
        folder = parent / f"index-{options.structure}-{options.size}"
        parent.mkdir(exist_ok=True)
        build(folder, options)
        measure(folder, options)
    finally:
        if options.folder is None:
            shutil.rmtree(parent)


if __name__ == "__main__":
    raise SystemExit(run_command(run, IndexesOptions, None, description=__doc__ or ""))
