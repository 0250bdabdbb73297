"""Hard negatives of a file of any size, by actors of a Ray cluster: `mine --ray`."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, Optional

from paddle_ranker import runtime
from paddle_ranker.commands.mine import MineOptions, Mining, OpenIndex, documents_of_titles, open_whole_index
from paddle_ranker.data.rows.records import LabeledPair, Triple, write_records
from paddle_ranker.errors import RankerError
from paddle_ranker.model.load_options import ON_CPU, LoadOptions
from paddle_ranker.model.pretrained import resolved
from paddle_ranker.options.input_files import join_files, split_paths
from paddle_ranker.retrieval.index.collection import Collection
from paddle_ranker.retrieval.index.shards import shard_folders
from paddle_ranker.retrieval.snapshots.index_models import IndexModels
from paddle_ranker.retrieval.stages.search import SearchSettings
from paddle_ranker.retrieval.stages.search_engine import SearchEngine
from paddle_ranker.retrieval.stored.candidate_indexes import Document
from paddle_ranker.retrieval.stored.manifest import VECTORS, read_manifest
from paddle_ranker.scale.cluster import hide_other_gpus, require_ray
from paddle_ranker.scale.offline import identity_of, total
from paddle_ranker.scale.parts import MOST_DEATHS, Parts, Place, Source, Work, connected_for, run
from paddle_ranker.scale.remote import RemoteCollection
from paddle_ranker.scale.remote_calls import Call
from paddle_ranker.scale.shard_service import Answer, ShardService
from paddle_ranker.stores import uploading
from paddle_ranker.training.mining import QUERIES_AT_ONCE, require_negatives

_PART = 8 * QUERIES_AT_ONCE  # queries of an actor's part
_AT_ONCE, _SHARD_SECONDS = 16, 600.0  # calls that a shard answers at the same time; timeout of a call
_OF_RANKER = " of ranker: "  # joins a ranker's number and the name of a count, among the counts of a part


class _QueryNumbers(Source):
    """Source of the numbers 0 to `queries` - 1, in parts of `_PART` numbers; the last part may have fewer.

    `_PART` is a multiple of the number of queries that the miner searches at once.
    """

    def __init__(self, queries: int):
        self._queries = queries

    def parts(self) -> Iterator[Sequence[object]]:
        every = range(self._queries)
        return ([*every[start : start + _PART]] for start in range(0, self._queries, _PART))

    def count(self) -> int:
        return self._queries


class _ShardActor:
    """Actor that holds one shard of an index, and answers the searches of all mining actors.

    folder: the shard
    generation: the generation that is mined
    """

    def __init__(self, folder: str, generation: int, place: Place, threads: int):
        place.enter()
        hide_other_gpus()
        runtime.prepare_command(threads)
        self._folder, self._generation, self._service = folder, generation, ShardService(folder)
        self._titles: Optional[tuple[set[str], dict[str, Document]]] = None
        self._looking_up = threading.Lock()

    def call(self, name: str, *args: Any) -> Any:
        """Answer a call of a `RemoteCollection`; raises `RankerError` if the shard was changed since the command."""
        answer = self._service.call(name, *args)
        if isinstance(answer, Answer) and answer.version != self._generation:
            raise RankerError(f"{self._folder}: was changed while it was mined; run the command again")
        return answer

    def documents_of_titles(self, titles: set[str]) -> dict[str, Document]:
        """Return what `mine.documents_of_titles` finds in this shard; all mining actors ask for the same titles."""
        with self._looking_up:
            if self._titles is None or self._titles[0] != titles:
                with Collection.open(self._folder) as collection:
                    self._titles = titles, documents_of_titles(collection.snapshot(), titles)
            return self._titles[1]


def _shard_actors(folders: Sequence[Path], threads: int) -> list[Any]:
    """Start an actor for each shard, on different machines if there are several. They end with the last reference.

    An actor asks for no core: the mining actors wait while it searches for them.
    """
    actor = require_ray().remote(
        num_cpus=0,
        max_restarts=MOST_DEATHS,
        max_task_retries=-1,
        max_concurrency=_AT_ONCE,
        scheduling_strategy="SPREAD",
    )(_ShardActor)
    place = Place.here()
    return [actor.remote(str(folder), read_manifest(folder).generation, place, threads) for folder in folders]


def _separate_shards(index: Optional[str]) -> list[Path]:
    """Return the folders of an index's shards that are searched apart; none if each actor opens the whole index.

    The whole index is needed for searches by indexes that are built in memory, by vectors of fields, and where a ranker
    may read the documents' files.
    """
    folders = shard_folders(index) if index is not None else []
    info = read_manifest(folders[0]) if len(folders) > 1 else None
    if info is None or info.others or info.schema.files or {*info.vector_fields} - {VECTORS}:
        return []
    return folders


class _MineParts(Work):
    """Work of an actor: mine the negatives of a part's queries, and return each record as a line with a JSON array.

    Each actor reads the files, and opens the index or calls the actors of its shards.

    folders, shards: the folders of separate shards, and their actors
    """

    extension, unit = ".jsonl", "query"

    def __init__(self, options: MineOptions, folders: Sequence[Path], shards: Sequence[Any]):
        self._options, self._folders, self._shards = options, folders, shards

    def open(self) -> None:
        self._mining = Mining(self._options, self._open_shards if self._shards else open_whole_index)
        self._mining.open()

    def _open_shards(self, options: MineOptions) -> OpenIndex:
        ray, shards = require_ray(), self._shards
        calls: list[Call] = [lambda name, *args, to=to: to.call.remote(name, *args).future() for to in shards]
        collection = RemoteCollection(calls, timeout=_SHARD_SECONDS)
        info, query_vectors = collection.info, None
        models = IndexModels(self._folders[0])
        if VECTORS in info.vector_fields:
            load = LoadOptions.of(options, positive_label=None)
            query_vectors = models.tower(info, VECTORS, load, options.batch_size).query_vectors

        def of_titles(titles: set[str]) -> dict[str, Document]:
            found = dict[str, Document]()
            for documents in ray.get([shard.documents_of_titles.remote(titles) for shard in shards]):
                found.update(documents)
            return found

        tower_folder = models.folder(info.tower.folder) if info.tower is not None else None
        return OpenIndex(SearchEngine(collection, SearchSettings(), query_vectors), of_titles, tower_folder)

    def compute(self, rows: Sequence[int]) -> tuple[bytes, int, Mapping[str, int]]:
        mining = self._mining
        mining.miner.counts.clear()
        before = mining.truncations()
        lines = [json.dumps(astuple(row)) for row in mining.miner.mine_part(mining.queries[rows[0] : rows[-1] + 1])]
        counts = dict(mining.miner.counts)
        for number, (now, earlier) in enumerate(zip(mining.truncations(), before)):
            counts.update({f"{number}{_OF_RANKER}{what}": count - earlier.get(what, 0) for what, count in now.items()})
        return "".join(f"{line}\n" for line in lines).encode(), len(lines), counts


def mine(options: MineOptions, queries: int) -> tuple[int, Counter[str], list[dict[str, int]]]:
    """Let actors of a cluster mine; each part becomes a file beside the output, and at the end the parts are joined.

    Returns the number of rows, the miners' counts, and for each ranker the number of truncated pairs, by kind of
    truncation. Raises `DataError` if there is no negative at all.
    """
    rankers = [resolved(ranker) for ranker in split_paths(options.ranker)] if options.ranker else []
    options = replace(
        options,
        ranker=join_files(rankers) if rankers else None,
        tower=resolved(options.tower) if options.tower else None,
        index=os.path.realpath(options.index) if options.index else None,
    )
    contents = {name: getattr(options, name) for name in ("queries", "corpus", "tower", "ranker")}
    # These files, one for each shard, name segments that never change.
    indexes = sorted(map(str, Path(options.index).rglob("index.json"))) if options.index else []
    identity = identity_of(options, {**contents, "index": join_files(indexes) if indexes else options.index})
    parts = Parts(f"{options.output_file}.parts", identity)
    threads = options.cpu_threads or 1
    assert options.ray is not None
    has_model = any((options.ranker, options.tower, options.index))
    folders = _separate_shards(options.index)
    with ExitStack() as stack:
        stack.enter_context(parts.folder.alone())
        if folders:
            stack.enter_context(connected_for(options.ray, options.actors, threads, options.ray_open))
        shards = _shard_actors(folders, threads) if folders else []
        work = _MineParts(replace(options, cpu_threads=threads), folders, shards)
        done = run(
            _QueryNumbers(queries), work, parts, options.ray,
            allow_open=options.ray_open, actors=options.actors, threads=threads, label="mine",
            load=LoadOptions.of(options) if has_model else ON_CPU,
        )  # fmt: skip
        counts, truncations = Counter[str](), [dict[str, int]() for _ in rankers]
        for name, count in total(done).items():
            number, is_of_ranker, what = name.partition(_OF_RANKER)
            if is_of_ranker:
                truncations[int(number)][what] = count
            else:
                counts[name] = count
        require_negatives(options.queries, counts)
        kind = LabeledPair if options.format == "pairs" else Triple
        lines = (line for part in done for line in parts.content(part).splitlines())
        with uploading(options.output_file) as path:
            rows = write_records(path, (kind(*json.loads(line)) for line in lines))
        parts.folder.remove()
    return rows, counts, truncations
