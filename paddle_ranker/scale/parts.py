"""Work on files of any size by actors of a Ray cluster: read in parts, computed by actors, written part by part.

Ray Data streams the parts: one task reads the files, in order; each actor holds a model and computes one part at a
time; memory does not grow with the files. Each part becomes a file of the output folder, renamed once complete, with
its facts beside it: if an actor, a machine or the command is killed, no complete part is computed again. A manifest is
written when all parts are complete.

    run(source, work, Parts(Path("scored"), identity), "local", actors=2)
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import socket
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from paddle_ranker import runtime
from paddle_ranker.errors import CheckpointError, DataError, RankerError, UsageError, listed
from paddle_ranker.model.load_options import ON_CPU, LoadOptions
from paddle_ranker.progress import Progress
from paddle_ranker.registry import VARIABLE, load_named_plugins
from paddle_ranker.runtime import usable_cores
from paddle_ranker.scale.cluster import connected, gpus_for, hide_other_gpus, require_ray
from paddle_ranker.storage.atomic import make_folder, new_file, remove_unfinished
from paddle_ranker.storage.untrusted import read_json

MANIFEST, _BEGUN = "manifest.json", "begun.json"
_END = -1  # part number of the last row, which holds the reader's notes


@dataclass(frozen=True)
class Done:
    """Facts of a part whose file is written.

    number: the part's index, from 0
    name: the file's name in the output folder
    rows: number of rows in the file
    bytes, sha256: size of the file, and its digest in hexadecimal digits
    counts: counts by name, which are summed over all parts and reported at the end
    """

    number: int
    name: str
    rows: int
    bytes: int
    sha256: str
    counts: Mapping[str, int]


class Parts:
    """The parts of an output, each a file in a folder.

    folder: the output folder, which is created if missing; it may hold only parts of one identity
    identity: all that the parts depend on, JSON-ready
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]):
        self.folder, self.identity = make_folder(folder.absolute()), dict(json.loads(json.dumps(identity)))

    def begin(self) -> dict[int, Done]:
        """Begin or continue the work in the folder. Return the facts of finished parts by index.

        Raises `RankerError` if the folder holds parts of another identity, or other files.
        """
        remove_unfinished(self.folder)
        for name in (MANIFEST, _BEGUN):
            if (self.folder / name).exists():
                other = read_json(self.folder / name)
                if not isinstance(other, dict) or other.get("made_of") != self.identity:
                    made_of = dict(other.get("made_of", {})) if isinstance(other, dict) else {}
                    changed = [key for key, value in self.identity.items() if made_of.get(key) != value]
                    raise RankerError(
                        f"{self.folder}: holds parts of other work, by {listed(changed)}; name another folder, or "
                        "delete it"
                    )
        if self.manifest is None and not (self.folder / _BEGUN).exists():
            if any(self.folder.iterdir()):
                raise RankerError(f"{self.folder}: has other files; name a new folder")
            self._write(_BEGUN, {"made_of": self.identity})
        return {part.number: part for part in self._there() if self._is_whole(part)}

    @property
    def manifest(self) -> Optional[list[Done]]:
        """The parts of a finished work, in order, or None if it is not finished."""
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        return [Done(**facts) for facts in read_json(path)["parts"]]

    def require_shared(self) -> None:
        """Raise `RankerError` if this machine does not see the folder that `begin` made on the command's machine."""
        if not (self.folder / _BEGUN).exists():
            raise RankerError(
                f"{self.folder}: {socket.gethostname()} sees no such work there; name an --output on a file system "
                "that all machines share"
            )

    def read(self, number: int) -> Optional[Done]:
        """Return the facts of part `number`, or None if its file is missing or does not match the facts."""
        path = self._facts(number)
        done = Done(**read_json(path)) if path.exists() else None
        return done if done is not None and self._is_whole(done) else None

    def write(self, number: int, extension: str, content: bytes, rows: int, counts: Mapping[str, int]) -> Done:
        """Write the file of part `number` and its facts to the disk. Return the facts."""
        sha256, name = hashlib.sha256(content).hexdigest(), f"part-{number:06}{extension}"
        done = Done(number, name, rows, len(content), sha256, dict(counts))
        with new_file(self.folder / done.name, "wb") as stream:
            stream.write(content)
        with new_file(self._facts(number)) as stream:
            json.dump(asdict(done), stream)
        return done

    def finish(self, count: int) -> list[Done]:
        """Write the manifest of `count` parts and delete the files with each part's facts. Return the facts in order.

        Raises `CheckpointError` if a part is missing.
        """
        parts = sorted(self._there(), key=lambda part: part.number)
        if [part.number for part in parts] != [*range(count)] or not all(map(self._is_whole, parts)):
            raise CheckpointError(f"{self.folder}: a part is missing; run the command again")
        self._write(MANIFEST, {"made_of": self.identity, "parts": [*map(asdict, parts)]})
        for part in parts:
            self._facts(part.number).unlink(missing_ok=True)
        (self.folder / _BEGUN).unlink(missing_ok=True)
        return parts

    def _there(self) -> Iterator[Done]:
        finished = self.manifest
        yield from (
            finished
            if finished is not None
            else (Done(**read_json(path)) for path in self.folder.glob("part-*.facts.json"))
        )

    def _is_whole(self, done: Done) -> bool:
        path = self.folder / done.name
        return path.is_file() and path.stat().st_size == done.bytes

    def _facts(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.facts.json"

    def _write(self, name: str, value: object) -> None:
        with new_file(self.folder / name) as stream:
            json.dump(value, stream, ensure_ascii=False, indent=1)


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
class _Place:
    """Working folder and plugins of the command, which its processes on all machines also use.

    folder: the working folder, from which relative paths start
    plugins: value of the variable `PADDLE_RANKER_PLUGINS`
    """

    folder: str
    plugins: str

    @classmethod
    def here(cls) -> _Place:
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

    def __init__(self, work: Work, parts: Parts, threads: int, place: _Place):
        self._work, self._parts, self._threads, self._is_open = work, parts, threads, False
        self._place = place

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        (number,), (rows,) = batch["number"].to_pylist(), batch["rows"].to_pylist()
        answer = {"number": number, "facts": rows}
        if number != _END:
            answer["facts"] = json.dumps(_outcome(self._part, number, json.loads(rows)))
        return pyarrow.Table.from_pylist([answer])

    def _part(self, number: int, rows: Sequence[Any]) -> dict[str, Any]:
        if not self._is_open:
            self._place.enter()
            hide_other_gpus()
            runtime.prepare_command(self._threads)
            self._parts.require_shared()
            self._work.open()
            self._is_open = True
        done = self._parts.read(number)  # an actor may have died after writing the part
        if done is None:
            content, count, counts = self._work.compute(rows)
            done = self._parts.write(number, self._work.extension, content, count, counts)
        return {"rows": len(rows)}


def _outcome(work: Any, *arguments: object) -> dict[str, Any]:
    """Call `work(*arguments)`. Return its dict, with the text that it wrote to standard error as `notes`.

    If the call raises `RankerError` or `OSError`, the dict has instead the error's text (`error`) and the name of its
    class (`kind`), so that the process that runs the command can raise it.
    """
    notes, outcome = io.StringIO(), dict[str, Any]()
    with redirect_stderr(notes), redirect_stdout(io.StringIO()):
        try:
            outcome = work(*arguments)
        except (RankerError, OSError) as error:
            outcome = {"error": str(error), "kind": type(error).__name__}
    return {**outcome, "notes": notes.getvalue()}


def _read(source: Source, finished: frozenset[int], place: _Place) -> Iterator[Any]:
    """Yield a one-row table for each part whose index is not in `finished`, then a table with all notes of reading.

    place: the command's folder and plugins
    """
    import pyarrow

    def table(number: int, rows: str) -> Any:
        return pyarrow.table({"number": [number], "rows": pyarrow.array([rows], pyarrow.large_string())})

    waiting, number, notes = iter(source.parts()), 0, ""

    def following() -> dict[str, Any]:
        if not number:
            place.enter()
        return {"part": next(waiting, None)}

    while True:
        outcome = _outcome(following)
        notes += outcome.pop("notes")
        if outcome.get("part") is None:
            break
        if number not in finished:
            yield table(number, json.dumps(outcome["part"]))
        number += 1
    report = "" if "error" in outcome else source.report()
    yield table(_END, json.dumps({**outcome, "parts": number, "notes": notes, "report": report}))


def run(
    source: Source,
    work: Work,
    parts: Parts,
    address: str,
    *,
    actors: Optional[int] = None,
    threads: int = 1,
    load: LoadOptions = ON_CPU,
    label: str = "score",
) -> list[Done]:
    """Compute the missing parts on a cluster, and return the facts of all parts in order.

    address: address of the cluster, as for `connected`
    actors: number of actors; default: as many as the cores or GPUs allow
    threads: threads per actor
    load: how the models are opened, which decides the GPUs of an actor; see `gpus_for`
    label: the word for the work on the progress bar

    Raises the errors of `source` and `work`, and `RankerError` if the output folder holds parts of another identity.
    """
    from paddle_ranker.options import note, note_once

    finished = parts.begin()
    if (manifest := parts.manifest) is not None:
        note(f"{parts.folder}: is done already")
        return manifest
    if finished:
        note(f"{parts.folder}: going on, {len(finished):,} parts are there")
    count = 0
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's C++ code would warn of the behaviour of Ray Data
    cores = max(usable_cores(), (actors or 1) * threads)  # with too few cores, a local cluster would wait for ever
    with connected(address, cores), Progress(desc=label, unit=work.unit, total=source.count()) as progress:
        progress.update(sum(part.rows for part in finished.values()))
        for row in _dataset(source, work, parts, frozenset(finished), actors, threads, load).iter_rows():
            facts = json.loads(row["facts"])
            for line in filter(None, facts["notes"].split("\n")):
                note_once(line)
            if "error" in facts:
                kinds = {kind.__name__: kind for kind in (DataError, UsageError, CheckpointError)}
                raise kinds.get(facts["kind"], RankerError)(facts["error"])
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
    finished: frozenset[int],
    actors: Optional[int],
    threads: int,
    load: LoadOptions,
) -> Any:
    """Return the dataset of Ray Data that computes the unfinished parts: a row for each part, then a row with notes."""
    ray = require_ray()
    import ray.data as data
    from ray.data.block import BlockMetadata

    place = _Place.here()

    class Files(data.Datasource):
        """Data source of one task, which reads the files and reserves no core, so that actors can have all cores."""

        def get_read_tasks(self, parallelism: int, *_: object, **__: object) -> list[Any]:
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [data.ReadTask(lambda: _read(source, finished, place), unknown)]

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
