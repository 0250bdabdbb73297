"""Time searches of an index in shards, on generated titles: in this process, in threads, and in other processes.

    python -m benchmarks.shards --documents 200000 --shards 4

The same queries, by words and vectors, go to a single folder, to its shards in this process, and to the shards behind
transports. The answers must be equal.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.indexes import WIDTH, BigramVectors, titles_of
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shards import open_shards
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import IndexInfo, WordsInfo
from paddle_ranker.retrieval.vectors.vector_settings import VectorsInfo
from paddle_ranker.scale.remote import RemoteCollection
from paddle_ranker.scale.remote_calls import Call
from paddle_ranker.scale.shard_service import ShardService

_CHARACTERS = 12  # of a query
_TURNS = 5


@dataclass(frozen=True)
class ShardsOptions(Options):
    documents: int = option(100_000, help="titles", minimum=1)
    shards: int = option(4, help="folders that they are in", minimum=1)
    queries: int = option(100, help="searches of each turn", minimum=1)
    seed: int = option(7, help="seed of the titles", minimum=0)


class Counting:
    """Transport that counts its calls."""

    def __init__(self, pool: Executor, service: Any):
        self._pool, self._service, self.names = pool, service, Counter[str]()

    def __call__(self, name: str, *args: Any) -> Future[Any]:
        self.names[name] += 1
        return self._pool.submit(self._service.call, name, *args)


def run(options: ShardsOptions) -> None:
    titles = list(titles_of(options.documents, options.seed))
    vectors = BigramVectors(options.seed)
    queries = [title[:_CHARACTERS] for title in titles[:: max(1, len(titles) // options.queries)]][: options.queries]
    BaseManager.register("ShardService", ShardService)
    managers = [BaseManager(ctx=multiprocessing.get_context("spawn")) for _ in range(options.shards)]
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(2 * options.shards) as pool:
        cuts = np.linspace(0, len(titles), options.shards + 1).astype(int).tolist()
        folders = []
        for number, (start, end) in enumerate([(0, len(titles)), *zip(cuts, cuts[1:])]):
            folders.append(Path(root) / str(number))
            info = IndexInfo(WordsInfo("standard"), VectorsInfo("exact", WIDTH))
            with Collection.create(folders[-1], info) as collection:
                documents = (Document(f"{start + row}", text) for row, text in enumerate(titles[start:end]))
                collection.writer.add(documents, vectors)
        try:
            for manager in managers:
                manager.start()
            threads = [Counting(pool, ShardService(folder)) for folder in folders[1:]]
            processes: list[Call] = [
                Counting(pool, manager.ShardService(str(folder)))  # type: ignore[attr-defined]
                for manager, folder in zip(managers, folders[1:])
            ]
            systems = {
                "one folder": Collection.open(folders[0]),
                "shards in this process": open_shards(folders[1:]),
                "shards behind threads": RemoteCollection([*threads]),
                "shards in processes": RemoteCollection(processes),
            }
            _compare({name: SearchEngine(one, SearchSettings(), vectors) for name, one in systems.items()}, queries)
            count = (1 + _TURNS) * len(queries)
            print("calls of a shard in a search:", {name: round(n / count, 2) for name, n in threads[0].names.items()})
        finally:
            for manager in managers:
                manager.shutdown()


def _compare(searchers: dict[str, SearchEngine[Any]], queries: Sequence[str]) -> None:
    first, *others = ([searcher.search(query) for query in queries] for searcher in searchers.values())
    print("equal answers:", all(found == first for found in others))
    times: dict[str, list[float]] = {name: [] for name in searchers}
    for _ in range(_TURNS):
        for name, one in searchers.items():
            for query in queries:
                began = time.perf_counter()
                one.search(query)
                times[name].append(1000 * (time.perf_counter() - began))
    for name, own in times.items():
        print(f"{name}: {np.median(own):.2f} ms, 95% below {np.quantile(own, 0.95):.2f} ms")


main = main_of(run, ShardsOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
