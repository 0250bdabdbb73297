"""Measure index folders: building, opening, queries by words and by vectors, memory; beside NumPy, faiss and bm25s.

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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np

from paddle_ranker.data.demo.scenes import triples
from paddle_ranker.lexical.postings import text_hashes
from paddle_ranker.lexical.tokens import bigrams
from paddle_ranker.options import Options, option, run_command
from paddle_ranker.retrieval.collection import Collection
from paddle_ranker.retrieval.exact import Vectors
from paddle_ranker.retrieval.faiss_index import STRUCTURES
from paddle_ranker.retrieval.indexes import Document
from paddle_ranker.retrieval.manifest import IndexInfo, VectorsInfo, WordsInfo

WIDTH, TOP = 256, 100


@dataclass(frozen=True)
class IndexesOptions(Options):
    """Options of this benchmark."""

    size: int = option(20_000, help="titles", minimum=1000)
    queries: int = option(200, help="queries", minimum=10)
    folder: Optional[str] = option(None, help="keep the index and the titles there, for another run (default: nowhere)")
    structure: str = option(STRUCTURES[0], help="of faiss's index", choices=STRUCTURES)
    seed: int = option(7, help="seed of titles and vectors", minimum=0)
    opened: Optional[str] = option(None, help="internal: only open this index, and measure its memory")


def titles_of(size: int, seed: int) -> Iterator[str]:
    """Yield different titles."""
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
    """Return the p50 and p99 of one query after the other."""
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
    """Build the index, unless it is there."""
    if (folder / "index.json").exists():
        return
    info = IndexInfo(WordsInfo("mixed"), VectorsInfo("faiss", WIDTH, structure=options.structure))
    began = time.perf_counter()
    documents = (Document(str(n), text) for n, text in enumerate(titles_of(options.size, options.seed)))
    with Collection.create(folder, info) as collection:
        collection.add(documents, BigramVectors(options.seed))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"build: {time.perf_counter() - began:.1f} s with the making of titles and vectors; peak memory {peak:,.0f} MB"
    )


def measure(folder: Path, options: IndexesOptions) -> None:
    """Print what each kind of search takes."""
    began = time.perf_counter()
    collection = Collection.open(folder)
    opened = time.perf_counter() - began
    vectors_of = BigramVectors(options.seed)
    draw = np.random.default_rng(options.seed)
    texts = [one.text[:12] for one in _drawn(collection, draw.integers(0, len(collection), options.queries))]
    vectors = vectors_of(texts)
    began = time.perf_counter()
    collection.search("vectors", vectors[:1], 10)
    print(f"open: {opened:.2f} s, first answer {time.perf_counter() - began:.3f} s; resident {resident_mb():,.0f} MB")
    print(f"words, top {TOP}: {milliseconds(lambda text: collection.search('words', [text], TOP), texts)}")
    one = [vectors[n : n + 1] for n in range(len(vectors))]
    stored = np.concatenate([part.part.vectors.block(0, len(part.part.vectors)) for part in collection._now.vectors])
    wanted = [set(map(str, _top(vector @ stored.T, 10).tolist())) for vector in vectors]
    for ef in (50, 100, 200, 400):
        hits = collection.search("vectors", vectors, 10, ef=ef)
        recall = np.mean([len(wanted[n] & set(hits[n].ids)) / 10 for n in range(len(hits))])
        took = milliseconds(partial(_search, collection, ef), one)
        print(f"vectors, {collection.how('vectors', ef)}, top 10: recall {recall:.3f}, {took}")
    _batches(collection, vectors, stored)
    print(f"resident after queries {resident_mb():,.0f} MB")
    subprocess.run([sys.executable, "-m", "benchmarks.indexes", "--opened", str(folder)], check=True)


def _search(collection: Collection, ef: int, query: Vectors) -> None:
    collection.search("vectors", query, 10, ef=ef)


def _drawn(collection: Collection, numbers: Any) -> list[Document]:
    return [collection.document(str(number)) for number in numbers.tolist()]


def _top(products: Any, k: int) -> Any:
    some = np.argpartition(-products, k)[:k]
    return some[np.argsort(-products[some])]


def _batches(collection: Collection, vectors: Vectors, stored: Vectors) -> None:
    """Compare exact search of a batch with one NumPy product."""
    from paddle_ranker.retrieval.vector_search import IndexedPart, search_vectors

    exact = [IndexedPart(part.part, None) for part in collection._now.vectors]
    began = time.perf_counter()
    search_vectors(exact, vectors, 10)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    for start in range(0, len(stored), 1 << 16):
        vectors @ stored[start : start + (1 << 16)].T
    product = time.perf_counter() - began
    print(f"exact, {len(vectors)} queries at once: {ours:.2f} s; NumPy's product alone {product:.2f} s")
    one = [vectors[n : n + 1] for n in range(min(20, len(vectors)))]
    print(f"exact, one query: {milliseconds(lambda query: search_vectors(exact, query, 10), one)}")


def peers(folder: Path, options: IndexesOptions) -> None:
    """Print what faiss called directly, and bm25s, take for the same."""
    bm25s, faiss = importlib.import_module("bm25s"), importlib.import_module("faiss")
    collection = Collection.open(folder)
    draw = np.random.default_rng(options.seed)
    texts = [one.text[:12] for one in _drawn(collection, draw.integers(0, len(collection), options.queries))]
    vectors = BigramVectors(options.seed)(texts)
    for graph in list(folder.glob("*/vectors.faiss"))[:1]:
        index = faiss.read_index(str(graph))
        for ef in (50, 100, 200, 400):
            ask = partial(index.search, k=10, params=faiss.SearchParametersHNSW(efSearch=ef))
            took = milliseconds(ask, [vector[None] for vector in vectors])
            print(f"faiss called directly, ef {ef}, without scoring again: {took}")
    if options.size <= 200_000:
        tokens = [bigrams(one.text) for one in collection.documents()]
        retriever = bm25s.BM25()
        retriever.index(tokens, show_progress=False)
        ask = partial(retriever.retrieve, k=TOP, show_progress=False)
        print(f"bm25s (NumPy), top {TOP}: {milliseconds(ask, [[bigrams(text)] for text in texts])}")


def opened(folder: Path) -> None:
    """Print what a process that only searches holds."""
    began = time.perf_counter()
    collection = Collection.open(folder)
    print(f"another process: open {time.perf_counter() - began:.2f} s, resident {resident_mb():,.0f} MB; on the disk "
          f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:,.0f} MB of "
          f"{len(collection):,} documents")  # fmt: skip


def run(options: IndexesOptions) -> None:
    """Build the index and measure it."""
    if options.opened:
        opened(Path(options.opened))
        return
    parent = Path(options.folder or tempfile.mkdtemp())
    try:
        folder = parent / f"index-{options.structure}-{options.size}"
        parent.mkdir(exist_ok=True)
        build(folder, options)
        measure(folder, options)
        peers(folder, options)
    finally:
        if options.folder is None:
            shutil.rmtree(parent)


if __name__ == "__main__":
    raise SystemExit(run_command(run, IndexesOptions, None, description=__doc__ or ""))
