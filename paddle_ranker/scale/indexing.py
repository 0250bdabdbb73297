"""Build an index in shards by processes of a Ray cluster, for `index build --ray`: read files, make shards.

with building_shards(options) as cluster:
    cluster.write_rows(rows, schema, target)  # a task for each file
    cluster.build(work, shards, progress)  # a task for each shard
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from paddle_ranker import runtime
from paddle_ranker.addresses import copies_of
from paddle_ranker.data.rows.documents import DocumentFile, keep_facts
from paddle_ranker.errors import DataError, RankerError
from paddle_ranker.options.input_files import paths_of
from paddle_ranker.progress import Progress
from paddle_ranker.retrieval.index.shard_builds import ShardWork, count_done, is_begun, write_rows
from paddle_ranker.retrieval.stored.schema import Schema
from paddle_ranker.scale.cluster import connected, gpus_for, hide_other_gpus, require_ray
from paddle_ranker.scale.identity import require_versions
from paddle_ranker.scale.parts import MOST_DEATHS, Place, outcome_of, report_outcome
from paddle_ranker.scoring.engines.engine_registry import AUTO
from paddle_ranker.scoring.versions import versions
from paddle_ranker.storage.untrusted import Unchecked
from paddle_ranker.stores import fetch_again

if TYPE_CHECKING:
    from tqdm import tqdm

_LOOK_SECONDS = 1.0


@contextmanager
def building_shards(options: Any) -> Iterator[RayBuild]:
    """Use the cluster of `--ray` for a build in the block; `options` are those of `index build`."""
    with connected(options.ray, allow_open=options.ray_open):
        yield RayBuild(options.actors, options.cpu_threads or 1)


class RayBuild:
    """`ShardCluster` of Ray. If a process or its machine dies, another one reads its file or builds its shard.

    actors: most processes at a time; None: as many as the cluster has cores for
    threads: threads of a process that builds a shard
    """

    def __init__(self, actors: Optional[int], threads: int):
        self._actors, self._threads = actors, threads

    def look_at_columns(self, rows: DocumentFile) -> None:
        place, copies = Place.here(), _copies(rows)
        for outcome in self._of_files(rows, "columns", _column_facts, lambda part: (part, copies, place)):
            report_outcome({"notes": outcome["notes"]})  # an error is found by this process, too, in its turn
            keep_facts(outcome.get("facts", {}))

    def write_rows(self, rows: DocumentFile, schema: Schema, target: Path) -> None:
        place, copies, here, folder = Place.here(), _copies(rows), versions(AUTO), target.absolute()
        numbers = iter(range(len(paths_of(rows.path))))

        def arguments(part: DocumentFile) -> tuple[object, ...]:
            return part, copies, place, part.column_facts(), schema, folder, next(numbers), here

        for outcome in self._of_files(rows, "cut", _write_file, arguments):
            rows.include(outcome["part"])
            report_outcome(outcome)
        rows.require_good()

    def build(self, work: ShardWork, count: int, progress: tqdm[None]) -> None:
        work = replace(work, folder=work.folder.absolute(), contents=work.contents.absolute())
        work = replace(work, load=replace(work.load, threads=self._threads))
        here, cores, gpus = versions(work.load.engine), self._threads, gpus_for(work.load)
        arguments = [(work, number, self._threads, here) for number in range(count)]
        names = [f"{work.folder}: shard {number:,}" for number in range(count)]

        def look() -> None:
            progress.update(count_done(work.folder) - progress.n)

        for _, outcome in self._finished(_build_shard, arguments, names, cores, gpus, look):
            report_outcome(outcome)

    def _of_files(
        self,
        rows: DocumentFile,
        label: str,
        task: Callable[..., dict[str, Any]],
        arguments: Callable[[DocumentFile], tuple[object, ...]],
    ) -> list[dict[str, Any]]:
        """Return the outcome of a task for each file, in the order of the files.

        arguments: returns the task's arguments, called with each of `rows.files()`
        """
        names, outcomes = paths_of(rows.path), dict[int, dict[str, Any]]()
        with Progress[None](desc=label, unit="file", total=len(names)) as progress:
            for number, outcome in self._finished(task, [*map(arguments, rows.files())], names):
                outcomes[number] = outcome
                progress.update(1)
        return [outcomes[number] for number in range(len(names))]

    def _finished(
        self,
        task: Callable[..., dict[str, Any]],
        arguments: Sequence[tuple[object, ...]],
        names: Sequence[str],
        cores: int = 1,
        gpus: int = 0,
        look: Callable[[], object] = lambda: None,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number and the outcome of each call of `task`, as soon as it has ended.

        names: what each call works on, for messages
        look: called each second, too
        """
        ray = require_ray()
        call = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=MOST_DEATHS - 1)(task)
        waiting, under_way, numbers = [*range(len(names))], list[Unchecked](), dict[Unchecked, int]()
        while waiting or under_way:
            while waiting and len(under_way) < (self._actors or len(names)):
                under_way.append(call.remote(*arguments[waiting[0]]))
                numbers[under_way[-1]] = waiting.pop(0)
            done, under_way = ray.wait(under_way, timeout=_LOOK_SECONDS)
            try:
                outcomes = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                how = f"has ended its process {MOST_DEATHS} times"
                if not isinstance(error, (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)):
                    how = f"is not done ({error})"
                raise RankerError(
                    f"{names[numbers[done[0]]]} {how}: one of its documents may do so, or there is too little memory: "
                    "take fewer --actors, and run it again"
                ) from error
            yield from zip(map(numbers.__getitem__, done), outcomes)
            look()


def _copies(rows: DocumentFile) -> dict[str, str]:
    """Return the copies of what is at an address among the files: path to address."""
    return {copy: address for path in paths_of(rows.path) for copy, address in copies_of(path).items()}


def _column_facts(part: DocumentFile, copies: Mapping[str, str], place: Place) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        _enter(place, copies)
        return {"facts": part.column_facts()}

    return outcome_of(work)


def _write_file(
    part: DocumentFile,
    copies: Mapping[str, str],
    place: Place,
    facts: Mapping[object, Any],
    schema: Schema,
    target: Path,
    number: int,
    expected: Mapping[str, str],
) -> dict[str, Any]:
    def require_same() -> None:
        # The keys have sizes and times of change; a copy's name stands for its content instead.
        if not copies and part.column_facts().keys() != facts.keys():
            raise DataError(
                f"{part.file}: on {socket.gethostname()} it is not, or no longer, what it was when the command began: "
                "put it back and run the command again"
            )

    def work() -> dict[str, Any]:
        if not target.is_dir():
            raise _unshared(target.parent)
        require_versions(expected)
        _enter(place, copies)
        keep_facts(facts)
        require_same()
        write_rows(part, schema, target, number)
        require_same()
        return {}

    return {**outcome_of(work), "part": part}


def _enter(place: Place, copies: Mapping[str, str]) -> None:
    place.enter()
    for copy, address in copies.items():
        fetch_again(copy, address)


def _unshared(folder: Path) -> RankerError:
    return RankerError(
        f"{folder}: {socket.gethostname()} sees no such build there; name an --output on a file system that all "
        "machines share"
    )


def _build_shard(work: ShardWork, number: int, threads: int, expected: Mapping[str, str]) -> dict[str, Any]:
    return outcome_of(_build, work=work, number=number, threads=threads, expected=expected)


def _build(work: ShardWork, number: int, threads: int, expected: Mapping[str, str]) -> dict[str, Any]:
    if not is_begun(work.folder):
        raise _unshared(work.folder)
    hide_other_gpus()
    runtime.prepare_command(threads)
    require_versions(expected)
    work.build_counted(number)
    return {}
