"""Work on files of any size by actors of a Ray cluster: read in parts, computed by actors, written part by part.

Ray Data streams the parts: one task reads the files, in order; each actor holds a model and computes one part at a
time; memory does not grow with the files. Each part becomes a file of the output folder, renamed once complete, with
its facts beside it: if an actor, a machine or the command is killed, no complete part is computed again. A manifest is
written when all parts are complete. All parts have one `Identity`, which each process compares with what it has.

    run(source, work, Parts("scored", identity), "local", actors=2)
"""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError, DataError, RankerError, UsageError, listed
from paddle_ranker.model.load_options import ON_CPU, LoadOptions
from paddle_ranker.options import note, note_once
from paddle_ranker.progress import Progress
from paddle_ranker.registry import VARIABLE, load_named_plugins
from paddle_ranker.runtime import usable_cores
from paddle_ranker.scale.cluster import connected, gpus_for, hide_other_gpus, require_ray
from paddle_ranker.scale.folders import open_folder
from paddle_ranker.scale.identity import Identity
from paddle_ranker.storage.atomic import UNFINISHED
from paddle_ranker.storage.digest import bytes_sha256, json_digest

_T = TypeVar("_T")
_R = TypeVar("_R")
MANIFEST, _BEGUN = "manifest.json", "begun.json"
MOST_DEATHS = 3  # a part is given up if so many processes that compute it, or their machines, end
_FACTS, _STARTS = ".facts.json", ".starts"
_READERS = 16  # files of a store that are read at once
_END = -1  # part number of the last row, which holds the reader's notes


@dataclass(frozen=True)
class Done:
    """Facts of a part whose file is written.

    number: the part's index, from 0
    name: the file's name in the output folder
    rows: number of rows in the file
    bytes, sha256: size of the file, and its digest in hexadecimal digits
    counts: counts by name, which are summed over all parts and reported at the end
    made_of: digest of the identity of the job that wrote the file
    source: digest of the rows from which the file was computed
    """

    number: int
    name: str
    rows: int
    bytes: int
    sha256: str
    counts: Mapping[str, int]
    made_of: str
    source: str


class Parts:
    """The parts of an output, each a file in a folder.

    folder: the output folder, a path or an address, which is created if missing; it may hold only parts of one identity
    identity: all that the parts depend on
    """

    def __init__(self, folder: Union[str, Path], identity: Identity):
        self.folder, self.identity = open_folder(folder), identity
        self._made_of = dict(json.loads(json.dumps(identity.made_of)))

    def begin(self) -> dict[int, Done]:
        """Begin or continue the work in the folder. Return the facts of finished parts by index.

        A part whose file is missing, or has not the bytes that were written, is not finished, also in a finished work;
        a note names it. Counts of ended processes begin anew.

        Raises `RankerError` if the folder holds parts of another identity, or other files.
        """
        names = [name for name in self.folder.names() if not name.startswith(UNFINISHED)]
        for name in (MANIFEST, _BEGUN):
            if name in names:
                other = self._read(name)
                if not isinstance(other, dict) or other.get("made_of") != self._made_of:
                    made_of = dict(other.get("made_of", {})) if isinstance(other, dict) else {}
                    changed = [key for key, value in self._made_of.items() if made_of.get(key) != value]
                    raise RankerError(
                        f"{self.folder}: holds parts of other work, by {listed(changed)}; name another folder, or "
                        "delete it"
                    )
        if MANIFEST not in names and _BEGUN not in names:
            if names:
                raise RankerError(f"{self.folder}: has other files; name a new folder")
            self._write(_BEGUN, {"made_of": self._made_of})
        self._forget_starts()
        there = self._there()
        whole = {part.number: part for part in self._whole(there)}
        if damaged := [part.name for part in there if part.number not in whole]:
            note(f"{self.folder}: missing or damaged, and computed again: {listed(damaged)}")
            if self.manifest is not None:
                self._write(_BEGUN, {"made_of": self._made_of})
                for part in whole.values():
                    self._write(_facts(part.number), asdict(part))
                self.folder.delete(MANIFEST)
        return whole

    @property
    def manifest(self) -> Optional[list[Done]]:
        """The parts of a finished work, in order, or None if it is not finished."""
        found = self._read(MANIFEST)
        return None if found is None else [Done(**facts) for facts in found["parts"]]

    def require_shared(self) -> None:
        """Raise `RankerError` if this machine does not see the folder that `begin` made on the command's machine."""
        if self.folder.read(_BEGUN) is None:
            raise RankerError(
                f"{self.folder}: {socket.gethostname()} sees no such work there; name an --output on a file system "
                "that all machines share, or an address such as s3://BUCKET/NAME"
            )

    def read(self, number: int, source: str) -> Optional[Done]:
        """Return the facts of part `number`, or None if its file is missing, damaged, or computed from other rows.

        source: digest of the part's rows
        """
        facts = self._read(_facts(number))
        done = None if facts is None else Done(**facts)
        return done if done is not None and done.source == source and self._is_whole(done) else None

    def content(self, done: Done) -> bytes:
        """Return the content of a finished part's file. Raises `CheckpointError` if it is missing or damaged."""
        content = self.folder.read(done.name)
        if content is None or bytes_sha256(content) != done.sha256:
            raise CheckpointError(f"{self.folder}/{done.name}: is missing or damaged; run the command again")
        return content

    def start(self, number: int) -> int:
        """Count that a process begins part `number`. Return how many began it before: they have ended without it."""
        before = len(self.folder.read(_starts(number)) or b"")
        self.folder.write(_starts(number), b"." * (before + 1))
        return before

    def write(
        self, number: int, source: str, extension: str, content: bytes, rows: int, counts: Mapping[str, int]
    ) -> Done:
        """Write the file of part `number` and its facts to the disk. Return the facts.

        source: digest of the part's rows
        """
        sha256, name = bytes_sha256(content), f"part-{number:06}{extension}"
        done = Done(number, name, rows, len(content), sha256, dict(counts), self.identity.digest, source)
        self.folder.write(done.name, content)
        self._write(_facts(number), asdict(done))
        self.folder.delete(_starts(number))
        return done

    def finish(self, count: int) -> list[Done]:
        """Write the manifest of `count` parts and delete the files with each part's facts. Return the facts in order.

        Parts beyond `count` are of rows that the input has no longer; they are deleted. Raises `CheckpointError` if a
        part is missing or damaged, or was written by a job of another identity.
        """
        parts = self._there()
        for part in parts[count:]:
            self.folder.delete(part.name)
            self.folder.delete(_facts(part.number))
        parts = parts[:count]
        for part in parts:
            if part.made_of != self.identity.digest:
                raise CheckpointError(
                    f"{self.folder}/{part.name}: is of another job, with another model, input, option or version; run "
                    "the command again, and no other into this folder"
                )
        if [part.number for part in parts] != [*range(count)] or len(self._whole(parts)) < count:
            raise CheckpointError(f"{self.folder}: a part is missing or damaged; run the command again")
        self.folder.require_alone()
        self._write(MANIFEST, {"made_of": self._made_of, "parts": [*map(asdict, parts)]})
        for part in parts:
            self.folder.delete(_facts(part.number))
        self._forget_starts()
        self.folder.delete(_BEGUN)
        return parts

    def _there(self) -> list[Done]:
        """Return the facts of all written parts, in order; the files may be missing or damaged."""
        if (finished := self.manifest) is not None:
            return finished
        names = [name for name in self.folder.names() if name.startswith("part-") and name.endswith(_FACTS)]
        found = (Done(**facts) for facts in _at_once(self._read, names) if facts is not None)
        return sorted(found, key=lambda part: part.number)

    def _whole(self, parts: Sequence[Done]) -> list[Done]:
        return [part for part, is_whole in zip(parts, _at_once(self._is_whole, parts)) if is_whole]

    def _is_whole(self, done: Done) -> bool:
        return done.made_of == self.identity.digest and self.folder.sha256(done.name) == done.sha256

    def _forget_starts(self) -> None:
        for name in self.folder.names():
            if name.endswith(_STARTS):
                self.folder.delete(name)

    def _read(self, name: str) -> Any:
        """Return the value of a JSON file; None if it is missing. Raises `CheckpointError` if it is no JSON."""
        content = self.folder.read(name)
        try:
            return None if content is None else json.loads(content)
        except ValueError as error:
            raise CheckpointError(f"{self.folder}/{name}: is damaged ({error}); delete the folder") from error

    def _write(self, name: str, value: object) -> None:
        self.folder.write(name, json.dumps(value, ensure_ascii=False, indent=1).encode())


def _facts(number: int) -> str:
    return f"part-{number:06}{_FACTS}"


def _starts(number: int) -> str:
    return f"part-{number:06}{_STARTS}"


def _at_once(call: Callable[[_T], _R], items: Sequence[_T]) -> Iterator[_R]:
    """Call a function that waits for a store with all items, some at a time; return the results in order."""
    with ThreadPoolExecutor(_READERS) as threads:
        yield from threads.map(call, items)


class Source(ABC):
    """Rows of files, divided into parts."""

    @abstractmethod
    def parts(self) -> Iterator[Sequence[object]]:
        """Yield the rows of each part, JSON-ready."""

    def report(self) -> str:
        """Return a note about skipped rows for the end of the run, or "" if none were skipped."""
        return ""

    def count(self) -> Optional[int]:
        """Return the approximate number of rows, or None if it is unknown without reading the rows."""
        return None


class Work(ABC):
    """Computation on rows, which is pickled to each actor. The actor then calls `open`.

    Attributes:
        extension: end of the name of each part's file.
        unit: the word for a row on the progress bar.
    """

    extension, unit = "", "row"

    @abstractmethod
    def open(self) -> None:
        """Load the models."""

    @abstractmethod
    def compute(self, rows: Sequence[Any]) -> tuple[bytes, int, Mapping[str, int]]:
        """Return (content of the file of a part, number of rows in it, counts by name, to report at the end)."""


@dataclass(frozen=True)
class Place:
    """Working folder and plugins of the command, which its processes on all machines also use.

    folder: the working folder, from which relative paths start
    plugins: value of the variable `PADDLE_RANKER_PLUGINS`
    """

    folder: str
    plugins: str

    @classmethod
    def here(cls) -> Place:
        return cls(os.getcwd(), os.environ.get(VARIABLE, ""))

    def enter(self) -> None:
        with suppress(OSError):  # then the error for the first relative path names it
            os.chdir(self.folder)
        os.environ[VARIABLE] = self.plugins
        load_named_plugins()


class _Actor:
    """Actor of `map_batches`: called with a table of one part from `_read`. Computes and writes the part.

    The returned table also has the work's error, which `run` raises, and the work's output on standard error, which
    `run` prints.
    """

    def __init__(self, work: Work, parts: Parts, threads: int, place: Place):
        self._work, self._parts, self._threads, self._place = work, parts, threads, place
        self._is_prepared = self._is_open = False

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        (row,) = batch.to_pylist()
        answer = {"number": row["number"], "facts": row["rows"]}
        if row["number"] != _END:
            answer["facts"] = json.dumps(outcome_of(self._part, **{**row, "rows": json.loads(row["rows"])}))
        return pyarrow.Table.from_pylist([answer])

    def _part(self, number: int, first: int, source: str, rows: Sequence[Any]) -> dict[str, Any]:
        """Compute and write a part, unless it is there.

        first: number of rows before the part
        source: digest of its rows
        """
        parts = self._parts
        if not self._is_prepared:
            self._place.enter()
            hide_other_gpus()
            runtime.prepare_command(self._threads)
            parts.require_shared()
            parts.identity.require_versions()
            self._is_prepared = True
        if parts.read(number, source) is None:  # otherwise an actor has died after writing the part
            if (deaths := parts.start(number)) >= MOST_DEATHS:
                raise RankerError(
                    f"part {number:,} (rows {first + 1:,} to {first + len(rows):,}) has ended its process {deaths} "
                    "times: one of its rows may do so, or there is too little memory: take fewer --actors"
                )
            parts.folder.require_alone()
            if not self._is_open:
                self._open()
            content, count, counts = self._work.compute(rows)
            parts.write(number, source, self._work.extension, content, count, counts)
        return {"rows": len(rows)}

    def _open(self) -> None:
        """Open the models. Raise `RankerError` if they are not those of the command.

        What was opened is compared afterwards, since it may be replaced in between.
        """
        self._parts.identity.fetch(self._parts.identity.opened)
        try:
            self._work.open()
        finally:  # an error because of another model is that of the comparison
            self._parts.identity.require(self._parts.identity.opened)
        self._is_open = True


def outcome_of(work: Any, /, **arguments: object) -> dict[str, Any]:
    """Call `work(**arguments)`. Return its dict, with the text that it wrote to standard error as `notes`.

    If the call raises `RankerError` or `OSError`, the dict has instead the error's text (`error`) and the name of its
    class (`kind`), so that `report_outcome` can raise it in the process that runs the command.
    """
    notes, outcome = io.StringIO(), dict[str, Any]()
    note_once.cache_clear()  # what earlier work of this process has noted is said of this work, too; see report_outcome
    with redirect_stderr(notes), redirect_stdout(io.StringIO()):
        try:
            outcome = work(**arguments)
        except (RankerError, OSError) as error:
            outcome = {"error": str(error), "kind": type(error).__name__}
    return {**outcome, "notes": notes.getvalue()}


def report_outcome(outcome: Mapping[str, Any]) -> None:
    """Print the notes of an `outcome_of` another process, each line once per command, and raise its error."""
    for line in filter(None, outcome["notes"].split("\n")):
        note_once(line)
    if "error" in outcome:
        kinds = {kind.__name__: kind for kind in (DataError, UsageError, CheckpointError)}
        raise kinds.get(outcome["kind"], RankerError)(outcome["error"])


def _read(source: Source, finished: Mapping[int, str], place: Place, identity: Identity) -> Iterator[Any]:
    """Yield a one-row table for each part that is not finished, then a table with all notes of reading.

    finished: for each finished part, by its index, the digest of its rows; with other rows, it is computed again
    place: the command's folder and plugins
    identity: of the job; what is read is compared with it before and after
    """
    import pyarrow

    def table(number: int, first: int, source: str, rows: str) -> Any:
        text = pyarrow.array([rows], pyarrow.large_string())
        return pyarrow.table({"number": [number], "first": [first], "source": [source], "rows": text})

    waiting, number, first, notes = iter(source.parts()), 0, 0, ""

    def following() -> dict[str, Any]:
        if not number:
            place.enter()
            identity.fetch(identity.read)
            identity.require(identity.read)
        part = next(waiting, None)
        if part is None:
            identity.require(identity.read)
        return {"part": part}

    while True:
        outcome = outcome_of(following)
        notes += outcome.pop("notes")
        part = outcome.get("part")
        if part is None:
            break
        rows = json.dumps(part)
        if finished.get(number) != (digest := json_digest(rows)):
            yield table(number, first, digest, rows)
        number, first = number + 1, first + len(part)
    report = "" if "error" in outcome else source.report()
    yield table(_END, first, "", json.dumps({**outcome, "parts": number, "notes": notes, "report": report}))


def connected_for(address: str, actors: Optional[int], threads: int, allow_open: bool) -> AbstractContextManager[None]:
    """Return the context in which `run` uses a cluster; the parameters are those of `run`."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's C++ code would warn of the behaviour of Ray Data
    cores = max(usable_cores(), (actors or 1) * threads)  # with too few cores, a local cluster would wait for ever
    return connected(address, cores, allow_open=allow_open)


def run(
    source: Source,
    work: Work,
    parts: Parts,
    address: str,
    *,
    allow_open: bool = False,
    actors: Optional[int] = None,
    threads: int = 1,
    load: LoadOptions = ON_CPU,
    label: str = "score",
) -> list[Done]:
    """Compute the missing parts on a cluster, and return the facts of all parts in order.

    address, allow_open: address of the cluster, and whether one without a token may be joined, as for `connected`
    actors: number of actors; default: as many as the cores or GPUs allow
    threads: threads per actor
    load: how the models are opened, which decides the GPUs of an actor; see `gpus_for`
    label: the word for the work on the progress bar

    Raises the errors of `source` and `work`, and `RankerError` if the output folder holds parts of another identity.
    """
    finished = parts.begin()
    if (manifest := parts.manifest) is not None:
        note(f"{parts.folder}: is done already")
        return manifest
    if finished:
        note(f"{parts.folder}: going on, {len(finished):,} parts are there")
    count = 0
    cluster = connected_for(address, actors, threads, allow_open)
    with cluster, Progress(desc=label, unit=work.unit, total=source.count()) as progress:
        progress.update(sum(part.rows for part in finished.values()))
        for row in _dataset(
            source, work, parts, {part.number: part.source for part in finished.values()}, actors, threads, load
        ).iter_rows():
            facts = json.loads(row["facts"])
            report_outcome(facts)
            if row["number"] == _END:
                count = facts["parts"]
                if facts["report"]:
                    note(facts["report"])
            else:
                progress.update(facts["rows"])
    return parts.finish(count)


def _dataset(
    source: Source,
    work: Work,
    parts: Parts,
    finished: Mapping[int, str],
    actors: Optional[int],
    threads: int,
    load: LoadOptions,
) -> Any:
    """Return the dataset of Ray Data that computes the unfinished parts: a row for each part, then a row with notes."""
    ray = require_ray()
    import ray.data as data
    from ray.data.block import BlockMetadata

    place = Place.here()

    class Files(data.Datasource):
        """Data source of one task, which reads the files and reserves no core, so that actors can have all cores."""

        def get_read_tasks(self, parallelism: int, *_: object, **__: object) -> list[Any]:
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [data.ReadTask(lambda: _read(source, finished, place, parts.identity), unknown)]

        def estimate_inmemory_data_size(self) -> Optional[int]:
            return None

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "The minimum number of concurrent actors")  # occurs if a file has few parts
    context = data.DataContext.get_current().copy()  # the caller's own pipelines keep theirs
    context.target_max_block_size = 1  # a block for each part, so that any actor that is free takes the next
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    resources = ray.cluster_resources()
    gpus = gpus_for(load)
    if actors is None:
        actors = int(resources.get("GPU", 0)) if gpus else int(resources["CPU"]) // threads
        if actors < 1:
            what = "GPU" if gpus else f"machine with {threads:,} cores"
            raise UsageError(f"--ray: the cluster has no {what}")
    with data.DataContext.current(context):
        return data.read_datasource(Files(), override_num_blocks=1, num_cpus=0).map_batches(
            _Actor,
            fn_constructor_args=(work, parts, threads, place),
            batch_size=1,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=actors),
            num_cpus=threads,
            num_gpus=gpus or None,
        )
