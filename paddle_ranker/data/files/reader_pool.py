"""Pool of child processes that read files; the parts of each file are cached by its digest.

A child process also does other work with files, such as drawing a page of a PDF (`ChildProcess.ask`).

    with ReaderPool(processes=4) as pool:
        parts = pool.begin("pdf", Path("manual.pdf"), digest)
        for part in parts():    # waits until the file is read
            ...

Reading has limits of processor time and memory (`Reader.seconds`, `Reader.memory`), which end the process, since the
libraries that read cannot be stopped. If a process dies, only the file that it was reading is lost; the pool refuses a
file of the same bytes without reading it again.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import IO, Optional, Union

from paddle_ranker.data.files.file_readers import READERS, Part, Unread
from paddle_ranker.errors import CheckpointError, DataError, DependencyError, RankerError, brief, one_line
from paddle_ranker.progress import Progress
from paddle_ranker.runtime import usable_cores
from paddle_ranker.storage.atomic import cache_folder, make_folder, new_file
from paddle_ranker.storage.untrusted import Unchecked, open_file

_FORMAT = 1  # version of the files' form in the cache
_MOST_LINE = 1 << 28  # bytes of a part in the cache
_PART_BYTES = 1 << 13  # bytes of a file that may take as long to read as a part
SECOND_BYTES = 1 << 18  # bytes that may take a second more
_ERRORS = {error.__name__: error for error in (DataError, DependencyError)}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_READ = f"{__name__}:keep"  # the task that reads a file
_CHILD = "from paddle_ranker.data.files.reader_pool import answer_requests; answer_requests()"

Parts = Iterator[Union[Part, Unread]]


class ReaderPool:
    """Pool of child processes that read files; each process starts when it is first needed.

    Attributes:
        window: number of files to begin before waiting for the first file.
    """

    def __init__(self, processes: Optional[int] = None, total: Optional[int] = None) -> None:
        """Create the pool without starting a process.

        processes: number of processes; defaults to one per core
        total: number of files, for the progress bar
        """
        self._progress: Progress[None] = Progress(desc="read", unit="file", total=total)
        self._count = processes or usable_cores()
        self.window = 4 * self._count
        self._threads: Optional[ThreadPoolExecutor] = None
        self._local, self._versions, self._begun = threading.local(), dict[str, str](), dict[Path, Future[None]]()
        self._started = list[ChildProcess]()
        self._starting, self._is_closed = threading.Lock(), False

    def __enter__(self) -> ReaderPool:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._progress.close()
        with self._starting:
            self._is_closed = True
            for process in self._started:
                process.end()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for process in self._started:
            process.close()

    def begin(self, reader: str, path: Path, digest: str) -> Callable[[], Parts]:
        """Begin to read a file, unless the cache has its parts; return a function that waits for them.

        reader: name in `READERS`
        digest: digest of the file's bytes

        The returned function takes no arguments and yields the parts. It raises `DataError` if the file cannot be read,
        or if the process that read it has died.
        """
        if reader not in self._versions:
            self._versions[reader] = READERS[reader].version()
        kept = _kept_at(reader, digest, self._versions[reader])
        future = self._begun.get(kept)
        if future is None and not kept.exists():
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="readers")
            future = self._begun[kept] = self._threads.submit(self._read, reader, path, kept)

        def parts() -> Parts:
            if future is not None:
                future.result()
            self._progress.update()
            return _parts_in(kept)

        return parts

    def _read(self, reader: str, path: Path, kept: Path) -> None:
        """Let the thread's child process read a file and write its parts to `kept`, a file of the cache.

        Starts the process if the thread has none. Raises the error that the process reports, or `DataError` if it died.
        """
        process = getattr(self._local, "process", None)
        if process is None:
            process = self._local.process = ChildProcess()
            with self._starting:
                self._started.append(process)
                if self._is_closed:
                    process.end()
        process.ask(_READ, path, reader, str(kept))
        self._begun.pop(kept, None)  # a failure stays, and refuses all files of these bytes


class ChildProcess:
    """A child process that works with files; `ask` starts it, also after it died. Not thread-safe."""

    def __init__(self) -> None:
        self._process: Optional[subprocess.Popen[str]] = None
        self._changing, self._is_ended = threading.Lock(), False

    def ask(self, task: str, path: Path, *arguments: Union[str, int], seconds: Optional[float] = None) -> Unchecked:
        """Let the process do a task with a file; return its answer.

        task: `module:name` of a function of this package that limits itself (`limited`); it is called with the file's
            path and `arguments`, and returns what JSON can hold

        Raises the error that the process reports, and `DataError` if it died, or was killed because it did not answer
        within `seconds`.
        """
        with self._changing:
            if self._is_ended:
                raise DataError("reading was ended")
            process = self._process = self._process or _start()
        assert process.stdin is not None and process.stdout is not None
        limit = None if seconds is None else threading.Timer(seconds, process.kill)
        try:
            if limit is not None:
                limit.start()
            process.stdin.write(f"{json.dumps([task, str(path), *arguments])}\n")
            process.stdin.flush()
            answer, error = json.loads(process.stdout.readline())
        except (ValueError, OSError):
            self._process = None
            process.communicate()
            if process.returncode == -signal.SIGXCPU:
                raise DataError("takes too much processor time, more than any file of its size should") from None
            problem = f"the process that read it ended with status {process.returncode}"
            raise DataError(f"{problem}; there may be too little memory or time") from None
        finally:
            if limit is not None:
                limit.cancel()
        if error is not None:
            kind, message = error
            raise _ERRORS.get(kind, RankerError)(message.replace(f"{path}: ", "").replace(str(path), "the file"))
        return answer

    def end(self) -> None:
        """Kill the process; later calls of `ask` raise `DataError`."""
        with self._changing:
            self._is_ended = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End the process when no other thread is in `ask`."""
        self.end()
        if self._process is not None:
            self._process.communicate()


def _kept_at(reader: str, digest: str, version: str) -> Path:
    """Return the path of the cache's file for the parts of a file.

    digest: digest of the file's bytes
    version: the reader's version
    """
    form = hashlib.sha256(f"{_FORMAT} {version}".encode()).hexdigest()[:12]
    return cache_folder("readings", reader, f"{digest}-{form}.jsonl.gz")


def _parts_in(path: Path) -> Parts:
    """Yield the parts in `path`, a file of the cache; raises `CheckpointError` if it is damaged."""
    try:
        with open_file(path, sys.maxsize) as raw, gzip.open(raw) as stream:
            while line := stream.readline(_MOST_LINE):
                values: Unchecked = json.loads(line)
                name, text, *more = values
                if not isinstance(name, str) or not isinstance(text, str) or len(more) not in (0, 2):
                    raise ValueError("no part")
                yield Part(name, text, dict(more[0]), [tuple(span) for span in more[1]]) if more else Unread(name, text)
    except (OSError, EOFError, ValueError, TypeError, zlib.error) as error:
        raise CheckpointError(f"{path}: damaged ({brief(str(error))}); delete it") from error


def _start() -> subprocess.Popen[str]:
    # Not `multiprocessing`, which would run the caller's script once more.
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **dict.fromkeys(_THREADS, "1")}
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        start_new_session=True,  # Ctrl-C reaches the parent alone, which ends its children
    )


def answer_requests() -> None:
    """Run the child process: do each task in a line of stdin, `[task, path of a file, arguments ...]`.

    For each task, write a line to stdout: `[answer, null]`, or `[null, [type of the error, message]]`. Returns when
    stdin ends.
    """
    answers: IO[str] = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # prints of libraries go to stderr
    for line in sys.stdin:
        task, path, *arguments = json.loads(line)
        answer: Unchecked = None
        problem: Optional[tuple[str, str]] = None
        try:
            module, _, name = task.partition(":")
            answer = getattr(import_module(module), name)(Path(path), *arguments)
        except (DataError, DependencyError) as error:
            problem = type(error).__name__, str(error)
        except OSError as error:
            problem = "RankerError", one_line(error)  # of the cache, such as a full disk
        except MemoryError:
            problem = "DataError", "takes too much memory, more than any file should"
        except Exception as error:  # a reader's library may raise anything for a damaged file
            problem = "DataError", f"cannot be read ({type(error).__name__}: {brief(str(error))})"
        answers.write(f"{json.dumps([answer, problem])}\n")
        answers.flush()


def keep(path: Path, reader: str, kept: str) -> None:
    """Read a file with a reader and write its parts to `kept`, a file of the cache, atomically."""
    make_folder(Path(kept).parent)
    used = READERS[reader]
    size = path.stat().st_size
    seconds, total = used.seconds + size / SECOND_BYTES, used.seconds * (1 + size / _PART_BYTES)
    with (
        limited(used.memory, seconds, total) as begin_part,
        new_file(Path(kept), "wb") as raw,
        gzip.open(raw, "wt", 1, encoding="utf-8", errors="surrogatepass") as stream,
    ):
        for part in used.read(path):
            values = [part.name, part.text, dict(part.fields), list(part.places)] if isinstance(part, Part) else [*part]
            stream.write(f"{json.dumps(values, ensure_ascii=False, allow_nan=False)}\n")
            begin_part()


@contextmanager
def limited(memory: float, seconds: float, total: float) -> Iterator[Callable[[], None]]:
    """Limit this process within the block; yield a function that begins the next step.

    memory: maximum bytes that the block adds to the process's data; beyond them, memory is refused
    seconds, total: maximum processor time of a step, and of the block; a longer step ends the process
    """
    import resource

    def limit_to(kind: int, value: float) -> None:
        _, hard = resource.getrlimit(kind)
        bounds = [bound for bound in (value, hard) if bound not in (math.inf, resource.RLIM_INFINITY)]
        resource.setrlimit(kind, (int(min(bounds, default=resource.RLIM_INFINITY)), hard))

    def begin_step() -> None:
        limit_to(resource.RLIMIT_CPU, math.ceil(min(end, time.process_time() + seconds)))

    end = time.process_time() + total
    limit_to(resource.RLIMIT_CORE, 0)
    begin_step()
    limit_to(resource.RLIMIT_DATA, _data_bytes() + memory)
    try:
        yield begin_step
    finally:
        limit_to(resource.RLIMIT_CPU, math.inf)
        limit_to(resource.RLIMIT_DATA, math.inf)


def _data_bytes() -> int:
    """Return the bytes of this process's data, as `RLIMIT_DATA` counts them."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData"))
