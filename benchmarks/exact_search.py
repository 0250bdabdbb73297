"""Time exact search in a memory-mapped file of vectors against one NumPy product of the same numbers, in turns.

python -m benchmarks.exact_search [--vectors 1000000] [--size 256] [--queries 1,32,128] [--rounds 5]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.report import Goal, Speeds, format_table, ratio
from benchmarks.inputs import parse_numbers
from benchmarks.peers.answers import Stopwatch
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.exact import Vectors, nearest
from paddle_ranker.retrieval.vector_files import VectorFile, open_vectors

_AT_ONCE = 50_000


@dataclass(frozen=True)
class ExactSearchOptions(Options):
    """Options of `python -m benchmarks.exact_search`."""

    vectors: int = option(1_000_000, help="number of random vectors of length 1", minimum=1)
    size: int = option(256, help="numbers of a vector", minimum=1)
    queries: str = option("1,32,128", help="numbers of queries at once, comma-separated")
    top_k: int = option(10, help="results of a query", minimum=1)
    dtype: str = option("float32", help="type of the file", choices=("float32", "float16", "int8"))
    rounds: int = option(5, help="timed rounds", minimum=2)


def run(options: ExactSearchOptions) -> None:
    """Print the table, and the goals that are reached."""
    random = np.random.default_rng(0)
    goals, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        file = VectorFile(Path(folder) / "vectors.npy", options.dtype, {})
        for start in range(0, options.vectors, _AT_ONCE):
            part = random.standard_normal((min(_AT_ONCE, options.vectors - start), options.size), dtype=np.float32)
            file.append(part / np.linalg.norm(part, axis=1, keepdims=True))
        file.finish()
        count = max(parse_numbers(options.queries, "queries"))
        queries: Vectors = random.standard_normal((count, options.size)).astype(np.float32)
        began = time.perf_counter()
        stored = open_vectors(file.path)
        nearest(stored, queries[:1], options.top_k)
        goals.append(Goal("seconds from opening to the first answer", time.perf_counter() - began, 2.0, at_most=True))
        is_plain = options.dtype == "float32"  # the product of float32 also reads the file directly
        whole = np.asarray(stored.values, np.float32) if is_plain else stored.block(0, len(stored))
        for count in parse_numbers(options.queries, "queries"):
            product, search = Speeds(), Speeds()
            for _ in range(options.rounds):
                watch = Stopwatch()
                queries[:count] @ whole.T
                product.add({"queries": count, **watch.took()}, "queries")
                watch = Stopwatch()
                nearest(stored, queries[:count], options.top_k)
                search.add({"queries": count, **watch.took()}, "queries")
            clock = ratio(product.by_clock, search.by_clock)
            processor = ratio(product.by_processor, search.by_processor)
            seconds = [count / float(np.median(speeds.by_clock)) for speeds in (product, search)]
            rows.append([str(count), *(f"{value:.3f}" for value in seconds), f"{clock:.2f}", f"{processor:.2f}"])
            goals.append(Goal(f"{count} queries: search over product", clock.estimate, 1.2, at_most=True))
    print(f"{options.vectors:,} vectors of {options.size} numbers, {options.dtype}; top {options.top_k}")
    print(format_table(["queries", "product, s", "search, s", "search / product", "by processor time"], rows))
    print(f"peak memory, with the product's: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")
    print(*goals, sep="\n")


main = main_of(run, ExactSearchOptions, (__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
