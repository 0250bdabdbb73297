"""Hard negatives of a file of any size, by actors of a Ray cluster: `mine --ray`."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path

from paddle_ranker.addresses import uploading
from paddle_ranker.commands.mine import MineOptions, Mining
from paddle_ranker.data.records import LabeledPair, Triple, write_records
from paddle_ranker.model.load_options import ON_CPU, LoadOptions
from paddle_ranker.model.pretrained import resolved
from paddle_ranker.options.input_files import join_files, split_paths
from paddle_ranker.scale.offline import identity_of, total
from paddle_ranker.scale.parts import Parts, Source, Work, run
from paddle_ranker.training.mining import QUERIES_AT_ONCE, require_negatives

_PART = 8 * QUERIES_AT_ONCE  # queries of an actor's part
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


class _MineParts(Work):
    """Work of an actor: mine the negatives of a part's queries, and return each record as a line with a JSON array.

    Each actor reads the files and opens the index.
    """

    extension, unit = ".jsonl", "query"

    def __init__(self, options: MineOptions):
        self._options = options

    def open(self) -> None:
        self._mining = Mining(self._options)
        self._mining.open()

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
    work = _MineParts(replace(options, cpu_threads=threads))
    assert options.ray is not None
    has_model = any((options.ranker, options.tower, options.index))
    with parts.folder.alone():
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
